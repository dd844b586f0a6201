//! What the world tells the registries about itself; login makes the players' world list of it.

use shardkeep_cluster::Node;

use crate::core::Core;

/// The facts as last told, so that only changes are told.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Status {
    told: Option<Facts>,
}

#[derive(Debug, PartialEq)]
struct Facts {
    leader: bool,
    term: u64,
    online: usize,
    queue: usize,
}

impl Status {
    pub(crate) fn tell(&mut self, node: &Node, core: &Core) {
        let lease = core.leadership.lease();
        let facts = Facts {
            leader: lease.is_some(),
            term: lease.map_or(0, |(term, _)| term.0),
            online: core.inside,
            queue: core.queue.len(),
        };
        if self.told.as_ref() == Some(&facts) {
            return;
        }
        if self.told.is_none() {
            node.set_attribute("name", core.config.name.clone());
            node.set_attribute("capacity", core.config.capacity.to_string());
        }
        node.set_attribute("online", facts.online.to_string());
        node.set_attribute("queue", facts.queue.to_string());
        node.set_attribute("term", facts.term.to_string());
        node.set_attribute("role", if facts.leader { "leader" } else { "standby" }.to_owned());
        node.set_load((facts.online as f64 / f64::from(core.config.capacity)).min(1.0));
        self.told = Some(facts);
    }
}
