//! Which gateway holds a session, by the highest session epoch heard. A gateway that stalled while another claimed
//! its sessions speaks with a lower epoch and is refused.

use std::collections::HashMap;

use shardkeep_types::{Epoch, SessionId};

use super::event::GatewayId;

#[derive(Debug, Default)]
pub(crate) struct Seats(HashMap<SessionId, Seat>);

#[derive(Debug)]
struct Seat {
    epoch: Epoch,
    gateway: GatewayId,
}

impl Seats {
    /// The gateway speaks for the session; false: another one has claimed it.
    pub(crate) fn take(&mut self, session: SessionId, epoch: Epoch, gateway: &GatewayId) -> bool {
        if !self.allows(session, epoch) {
            return false;
        }
        self.0.insert(session, Seat { epoch, gateway: gateway.clone() });
        true
    }

    pub(crate) fn allows(&self, session: SessionId, epoch: Epoch) -> bool {
        self.0.get(&session).is_none_or(|seat| seat.epoch <= epoch)
    }

    /// The session left; false: the one who says so has been replaced.
    pub(crate) fn leave(&mut self, session: SessionId, epoch: Epoch) -> bool {
        let allowed = self.allows(session, epoch);
        if allowed {
            self.0.remove(&session);
        }
        allowed
    }

    pub(crate) fn forget(&mut self, gateway: &GatewayId) {
        self.0.retain(|_, seat| seat.gateway != *gateway);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stalled_gateway_is_refused() {
        let (old, new): (GatewayId, GatewayId) = ("gateway-1".into(), "gateway-2".into());
        let session = SessionId([1; 16]);
        let mut seats = Seats::default();
        assert!(seats.take(session, Epoch(1), &old));
        assert!(seats.take(session, Epoch(2), &new));
        assert!(!seats.take(session, Epoch(1), &old) && !seats.allows(session, Epoch(1)));
        assert!(
            !seats.leave(session, Epoch(1)),
            "what was claimed elsewhere cannot be ended by the old holder"
        );
        seats.forget(&old);
        assert!(!seats.allows(session, Epoch(1)));
        assert!(seats.leave(session, Epoch(2)) && seats.allows(session, Epoch(1)));
    }
}
