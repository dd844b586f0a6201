//! The gateway that holds each session, by the highest session epoch seen. A gateway that stalled while another
//! claimed its sessions sends a lower epoch and is refused.

use std::collections::HashMap;

use shardkeep_types::{Epoch, SessionId};

use crate::event::GatewayId;

#[derive(Debug, Default)]
pub(crate) struct SessionOwners(HashMap<SessionId, SessionOwner>);

#[derive(Debug)]
struct SessionOwner {
    epoch: Epoch,
    gateway: GatewayId,
}

impl SessionOwners {
    /// A gateway announces the session. Returns false if another gateway has claimed it.
    pub(crate) fn take(&mut self, session: SessionId, epoch: Epoch, gateway: &GatewayId) -> bool {
        if !self.allows(session, epoch) {
            return false;
        }
        self.0.insert(session, SessionOwner { epoch, gateway: gateway.clone() });
        true
    }

    pub(crate) fn allows(&self, session: SessionId, epoch: Epoch) -> bool {
        self.0.get(&session).is_none_or(|owner| owner.epoch <= epoch)
    }

    /// The session has ended. Returns false if another gateway has claimed it.
    pub(crate) fn leave(&mut self, session: SessionId, epoch: Epoch) -> bool {
        let allowed = self.allows(session, epoch);
        if allowed {
            self.0.remove(&session);
        }
        allowed
    }

    pub(crate) fn forget(&mut self, gateway: &GatewayId) {
        self.0.retain(|_, owner| owner.gateway != *gateway);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_gateway_epoch_is_refused() {
        let (old, new): (GatewayId, GatewayId) = ("gateway-1".into(), "gateway-2".into());
        let session = SessionId([1; 16]);
        let mut session_owners = SessionOwners::default();
        assert!(session_owners.take(session, Epoch(1), &old));
        assert!(session_owners.take(session, Epoch(2), &new));
        assert!(!session_owners.take(session, Epoch(1), &old) && !session_owners.allows(session, Epoch(1)));
        assert!(
            !session_owners.leave(session, Epoch(1)),
            "what was claimed elsewhere cannot be ended by the old holder"
        );
        session_owners.forget(&old);
        assert!(!session_owners.allows(session, Epoch(1)));
        assert!(session_owners.leave(session, Epoch(2)) && session_owners.allows(session, Epoch(1)));
    }
}
