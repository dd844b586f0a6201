//! The world's attributes at the registries; login builds the players' world list from them.

use shardkeep_cluster::{Leadership, Node};
use shardkeep_types::Term;

use crate::app::App;

/// The term, the avatars and the length of the queue as last sent, so that only changes are sent.
#[derive(Debug, Default)]
pub(crate) struct Status(Option<(Option<Term>, usize, usize)>);

impl Status {
    pub(crate) fn publish(&mut self, node: &Node, app: &App) {
        let term = app.leadership().lease().map(|(term, _)| term);
        let (online, queue) = (app.players().online(), app.players().waiting());
        let last_sent = self.0.replace((term, online, queue));
        if last_sent == self.0 {
            return;
        }
        let capacity = app.config().capacity;
        if last_sent.is_none() {
            node.set_attribute("name", app.config().name.clone());
            node.set_attribute("capacity", capacity.to_string());
        }
        node.set_attribute("online", online.to_string());
        node.set_attribute("queue", queue.to_string());
        node.set_attribute("term", term.map_or(0, |term| term.0).to_string());
        node.set_leadership(if term.is_some() { Leadership::Leader } else { Leadership::Standby });
        node.set_load((online as f64 / f64::from(capacity)).min(1.0));
    }
}
