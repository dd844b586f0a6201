//! One zone, as the registry lists it.

use shardkeep_types::InstanceId;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// Alive, but not ready for sectors.
    Starting,
    Up,
    /// Serves its sectors until others take them over.
    Draining,
    Gone,
}

/// The latest known incarnation of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ZoneView {
    id: InstanceId,
    health: Health,
    grpc_address: String,
}

impl ZoneView {
    pub(crate) fn new(id: InstanceId, health: Health, grpc_address: String) -> Self {
        Self { id, health, grpc_address }
    }

    pub(crate) fn id(&self) -> &InstanceId {
        &self.id
    }

    pub(crate) fn grpc_address(&self) -> &str {
        &self.grpc_address
    }

    pub(crate) fn is(&self, health: Health) -> bool {
        self.health == health
    }

    pub(crate) fn mark_gone(&mut self) {
        self.health = Health::Gone;
    }
}

#[cfg(test)]
pub(crate) mod fixture {
    use shardkeep_types::DaemonKind;

    use super::*;

    pub(crate) fn owner(name: &str, incarnation: u64) -> InstanceId {
        InstanceId { kind: DaemonKind::Zone, name: name.into(), incarnation }
    }

    pub(crate) fn zone(name: &str, incarnation: u64, health: Health) -> ZoneView {
        ZoneView::new(owner(name, incarnation), health, format!("{name}:1"))
    }
}
