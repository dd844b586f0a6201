//! One connection's slot in the limit on connections, and its part of the connection gauge.

use std::net::IpAddr;

use shardkeep_daemon::{ConnectionLimiter, Full, Slot};

use crate::metrics;

/// Dropping it frees the slot.
pub(crate) struct ConnectionSlot {
    slot: Slot,
    _count: ConnectionCount,
}

impl ConnectionSlot {
    pub(crate) fn new(slot: Slot) -> Self {
        Self { slot, _count: ConnectionCount::new() }
    }

    /// Counts the slot for the client behind a balancer.
    pub(crate) fn claim(self, limiter: &ConnectionLimiter, client: IpAddr) -> Result<Self, Full> {
        Ok(Self { slot: limiter.claim(self.slot, client)?, _count: self._count })
    }

    /// The player has logged in: no newcomer takes this slot from now on.
    pub(crate) fn mark_authenticated(&self) {
        self.slot.proved();
    }
}

struct ConnectionCount;

impl ConnectionCount {
    fn new() -> Self {
        metrics::connections(1.0);
        Self
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        metrics::connections(-1.0);
    }
}
