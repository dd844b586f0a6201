//! Newcomers who find this gateway crowded while another has room are sent there, with their session. Login chooses
//! the lightest gateway, but by what the registry knew a heartbeat ago: in a storm that is old.

use parking_lot::Mutex;
use shardkeep_cluster::Instance;

/// Below this load nobody is sent on.
const REDIRECT_LOAD: f64 = 0.8;
/// How much lighter another gateway must be: moving a session costs both as much as an attach.
const MIN_LOAD_GAP: f64 = 0.2;

/// Where newcomers are sent, by turns; nowhere, most of the time.
#[derive(Default)]
pub(crate) struct Balance(Mutex<RedirectTargets>);

#[derive(Default)]
struct RedirectTargets {
    addresses: Vec<String>,
    cursor: usize,
}

impl Balance {
    /// `own` is this gateway's load, `others` are those that take players.
    pub(crate) fn update_targets(&self, own: f64, others: &[Instance]) {
        let lighter = others.iter().filter(|other| own >= REDIRECT_LOAD && other.load + MIN_LOAD_GAP <= own);
        self.0.lock().addresses = lighter.map(|other| other.client_address.clone()).collect();
    }

    /// Address of the gateway that the next newcomer should go to.
    pub(crate) fn target(&self) -> Option<String> {
        let mut target = self.0.lock();
        let count = target.addresses.len();
        let cursor = target.cursor.checked_rem(count)?;
        target.cursor = cursor + 1;
        target.addresses.get(cursor).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use shardkeep_cluster::State;
    use shardkeep_types::{DaemonKind, InstanceId, WorldId};

    use super::*;

    fn gateway(name: &str, load: f64) -> Instance {
        Instance {
            id: InstanceId { kind: DaemonKind::Gateway, name: name.into(), incarnation: 1 },
            world: WorldId(0),
            grpc_address: String::new(),
            client_address: name.into(),
            admin_address: String::new(),
            state: State::Up,
            load,
            leadership: shardkeep_cluster::Leadership::None,
            version: String::new(),
            attributes: BTreeMap::new(),
        }
    }

    #[test]
    fn crowded_gateway_redirects_only_to_lighter_gateways() {
        let balance = Balance::default();
        let others = [gateway("a", 0.1), gateway("b", 0.85), gateway("c", 0.6)];
        balance.update_targets(0.7, &others);
        assert_eq!(balance.target(), None);
        balance.update_targets(0.9, &others);
        let sent: Vec<_> = (0..3).filter_map(|_| balance.target()).collect();
        assert_eq!(sent, ["a", "c", "a"]);
        balance.update_targets(0.9, &[]);
        assert_eq!(balance.target(), None);
    }
}
