//! How many may fetch at once, in all and from one address. Places of their own: those who patch take none from those
//! who log in. When all are taken, an address prefix that has fewer than another takes one of the other's.

use std::net::IpAddr;

use shardkeep_daemon::{ConnectionLimiter, ConnectionLimits, Full, OverflowPolicy, Slot};

use super::Config;
use crate::{LoginError, metrics};

/// Everybody who fetches.
pub(crate) struct UpdateSlots(ConnectionLimiter);

impl UpdateSlots {
    /// A fetch takes minutes, so neighbours stay: a crowd that pushes itself out never gets anywhere. Nobody who fetches
    /// proves who it is.
    pub(crate) fn new(config: &Config) -> Self {
        Self(ConnectionLimiter::new(bounds(config, OverflowPolicy::RefuseNewcomer)))
    }

    /// Overflow: the newcomer is told UNAVAILABLE, or another loses its place; both are counted.
    pub(crate) fn admit(&self, address: IpAddr) -> Result<UpdateSlot, LoginError> {
        let slot = self.0.admit(address).map_err(|full| {
            let bound = match full {
                Full::All => "update_connections",
                Full::Origin => "update_connections_per_address",
            };
            metrics::refused(bound);
            LoginError::Busy(bound)
        })?;
        metrics::update_connections(1.0);
        Ok(UpdateSlot(slot))
    }
}

/// So many may be there at once, whoever of them leaves first.
pub(super) fn bounds(config: &Config, overflow: OverflowPolicy) -> ConnectionLimits {
    ConnectionLimits { all: config.max_connections, per_origin: config.max_connections_per_address, overflow }
}

/// Given back when dropped.
pub(crate) struct UpdateSlot(Slot);

impl UpdateSlot {
    /// Returns when another has taken the place.
    pub(crate) async fn evicted(&self) {
        self.0.evicted().await;
        metrics::refused("update_displaced");
    }
}

impl Drop for UpdateSlot {
    fn drop(&mut self) {
        metrics::update_connections(-1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(network: u8, host: u8) -> IpAddr {
        [10, 0, network, host].into()
    }

    #[tokio::test]
    async fn full_slots_evict_from_largest_network() {
        let slots = UpdateSlots::new(&Config {
            max_connections: 4,
            max_connections_per_address: 2,
            ..Config::default()
        });
        let admit = |network, host| slots.admit(address(network, host));
        let idle: Vec<UpdateSlot> = [1, 1, 2, 2].into_iter().filter_map(|host| admit(0, host).ok()).collect();
        assert_eq!(idle.len(), 4);
        let refused = |network, host| admit(network, host).err().map(|error| error.to_string());
        assert!(refused(0, 1).is_some_and(|reason| reason.contains("per_address")));
        assert!(refused(0, 3).is_some_and(|reason| !reason.contains("per_address")), "not for its own");
        let other = admit(1, 1).ok();
        idle[0].evicted().await;
        drop((idle, other));
        assert_eq!(slots.0.load(), 0.0);
    }
}
