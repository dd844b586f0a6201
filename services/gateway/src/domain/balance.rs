//! Redirects new sessions to a lighter gateway while this one is crowded. Login already chooses the lightest gateway, but
//! it knows loads that are a heartbeat old, which is too old in a login storm.

use parking_lot::Mutex;
use shardkeep_cluster::Instance;
use shardkeep_wire::payload::{LaneAddress, Redirect};

/// Below this load no session is redirected.
const REDIRECT_LOAD: f64 = 0.8;
/// How much lighter the other gateway must be. A move costs both gateways as much as an attach.
const MIN_LOAD_GAP: f64 = 0.2;

/// Tells a client to go to this gateway.
pub(crate) fn redirect_to(gateway: &Instance) -> Redirect {
    Redirect {
        gateway: gateway.client_address.clone(),
        lanes: LaneAddress::from_attributes(&gateway.attributes),
    }
}

/// Gateways to which new sessions are redirected in turn. Empty most of the time.
#[derive(Default)]
pub(crate) struct Balance(Mutex<RedirectTargets>);

#[derive(Default)]
struct RedirectTargets {
    redirects: Vec<Redirect>,
    cursor: usize,
}

impl Balance {
    /// `own` is the load of this gateway, `others` are the gateways that take players.
    pub(crate) fn update_targets(&self, own: f64, others: &[Instance]) {
        let lighter = others.iter().filter(|other| own >= REDIRECT_LOAD && other.load + MIN_LOAD_GAP <= own);
        self.0.lock().redirects = lighter.map(redirect_to).collect();
    }

    /// Where the next new session goes.
    pub(crate) fn target(&self) -> Option<Redirect> {
        let mut target = self.0.lock();
        let count = target.redirects.len();
        let cursor = target.cursor.checked_rem(count)?;
        target.cursor = cursor + 1;
        target.redirects.get(cursor).cloned()
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_cluster::State;
    use shardkeep_types::{DaemonKind, InstanceId};

    use super::*;

    fn gateway(name: &str, load: f64) -> Instance {
        let id = InstanceId { kind: DaemonKind::Gateway, name: name.into(), incarnation: 1 };
        Instance { client_address: name.into(), load, ..Instance::new(id, State::Up) }
    }

    #[test]
    fn crowded_gateway_redirects_only_to_lighter_gateways() {
        let balance = Balance::default();
        let others = [gateway("a", 0.1), gateway("b", 0.85), gateway("c", 0.6)];
        balance.update_targets(0.7, &others);
        assert_eq!(balance.target(), None);
        balance.update_targets(0.9, &others);
        let sent: Vec<_> = (0..3).filter_map(|_| balance.target()).map(|redirect| redirect.gateway).collect();
        assert_eq!(sent, ["a", "c", "a"]);
        balance.update_targets(0.9, &[]);
        assert_eq!(balance.target(), None);
    }
}
