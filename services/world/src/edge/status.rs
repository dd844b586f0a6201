//! The world's attributes at the registries; login builds the players' world list from them.

use shardkeep_cluster::{Leadership, Node};

use crate::app::App;

/// The attributes as last sent, so that only changes are sent.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Status {
    last_published: Option<Attributes>,
}

#[derive(Debug, PartialEq)]
struct Attributes {
    leader: bool,
    term: u64,
    online: usize,
    queue: usize,
}

impl Status {
    pub(crate) fn publish(&mut self, node: &Node, app: &App) {
        let lease = app.leadership().lease();
        let attributes = Attributes {
            leader: lease.is_some(),
            term: lease.map_or(0, |(term, _)| term.0),
            online: app.players().online(),
            queue: app.players().waiting(),
        };
        if self.last_published.as_ref() == Some(&attributes) {
            return;
        }
        let capacity = app.config().capacity;
        if self.last_published.is_none() {
            node.set_attribute("name", app.config().name.clone());
            node.set_attribute("capacity", capacity.to_string());
        }
        node.set_attribute("online", attributes.online.to_string());
        node.set_attribute("queue", attributes.queue.to_string());
        node.set_attribute("term", attributes.term.to_string());
        node.set_leadership(if attributes.leader { Leadership::Leader } else { Leadership::Standby });
        node.set_load((attributes.online as f64 / f64::from(capacity)).min(1.0));
        self.last_published = Some(attributes);
    }
}
