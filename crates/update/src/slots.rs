//! How many clients may fetch at once, in all and from one address. These slots are separate from those of players. When
//! all are in use, a client replaces one of an address prefix that has more connections than its own.

use std::net::IpAddr;

use shardkeep_daemon::{ConnectionLimiter, ConnectionLimits, Full, OverflowPolicy, Slot};

use crate::{Config, UpdateError, metrics};

/// The slots of all clients that fetch.
pub(crate) struct UpdateSlots(ConnectionLimiter);

impl UpdateSlots {
    /// A download takes minutes. A newcomer therefore never replaces a client of the same prefix; otherwise no client of a
    /// crowded prefix would finish.
    pub(crate) fn new(config: &Config) -> Self {
        Self(ConnectionLimiter::new(bounds(config, OverflowPolicy::RefuseNewcomer)))
    }

    /// Overflow: the newcomer is told UNAVAILABLE, or another client loses its slot; both are counted.
    pub(crate) fn admit(&self, address: IpAddr) -> Result<UpdateSlot, UpdateError> {
        let slot = self.0.admit(address).map_err(|full| {
            let bound = match full {
                Full::All => "update_connections",
                Full::Origin => "update_connections_per_address",
            };
            metrics::refused(bound);
            UpdateError::Full(bound)
        })?;
        metrics::connections(1.0);
        Ok(UpdateSlot(slot))
    }
}

/// The bounds of the settings with an overflow policy.
pub(crate) fn bounds(config: &Config, overflow: OverflowPolicy) -> ConnectionLimits {
    ConnectionLimits { all: config.max_connections, per_origin: config.max_connections_per_address, overflow }
}

/// One client's slot; dropping it frees the slot.
pub(crate) struct UpdateSlot(Slot);

impl UpdateSlot {
    /// Waits until another client takes the slot.
    pub(crate) async fn evicted(&self) {
        self.0.evicted().await;
        metrics::refused("update_displaced");
    }
}

impl Drop for UpdateSlot {
    fn drop(&mut self) {
        metrics::connections(-1.0);
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
        assert!(
            refused(0, 3).is_some_and(|reason| !reason.contains("per_address")),
            "a prefix does not displace itself"
        );
        let other = admit(1, 1).ok();
        idle[0].evicted().await;
        drop((idle, other));
        assert_eq!(slots.0.load(), 0.0);
    }
}
