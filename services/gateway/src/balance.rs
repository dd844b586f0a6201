//! Newcomers who find this gateway crowded while another has room are sent there, with their session. Login chooses
//! the lightest gateway, but by what the registry knew a heartbeat ago: in a storm that is old.

use parking_lot::Mutex;
use shardkeep_cluster::Instance;

/// Below this load nobody is sent on.
const CROWDED: f64 = 0.8;
/// How much lighter another gateway must be: moving a session costs both as much as an attach.
const LIGHTER: f64 = 0.2;

/// Where newcomers are sent, by turns; nowhere, most of the time.
#[derive(Default)]
pub(crate) struct Balance(Mutex<Elsewhere>);

#[derive(Default)]
struct Elsewhere {
    addresses: Vec<String>,
    turn: usize,
}

impl Balance {
    /// `own` is this gateway's load, `others` are those that take players.
    pub(crate) fn weigh(&self, own: f64, others: &[Instance]) {
        let lighter = others.iter().filter(|other| own >= CROWDED && other.load + LIGHTER <= own);
        self.0.lock().addresses = lighter.map(|other| other.client_address.clone()).collect();
    }

    /// Address of the gateway that the next newcomer should go to.
    pub(crate) fn elsewhere(&self) -> Option<String> {
        let mut elsewhere = self.0.lock();
        let count = elsewhere.addresses.len();
        let turn = elsewhere.turn.checked_rem(count)?;
        elsewhere.turn = turn + 1;
        elsewhere.addresses.get(turn).cloned()
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
            version: String::new(),
            attributes: BTreeMap::new(),
        }
    }

    #[test]
    fn only_a_crowded_gateway_sends_on_and_only_to_lighter_ones() {
        let balance = Balance::default();
        let others = [gateway("a", 0.1), gateway("b", 0.85), gateway("c", 0.6)];
        balance.weigh(0.7, &others);
        assert_eq!(balance.elsewhere(), None);
        balance.weigh(0.9, &others);
        let sent: Vec<_> = (0..3).filter_map(|_| balance.elsewhere()).collect();
        assert_eq!(sent, ["a", "c", "a"]);
        balance.weigh(0.9, &[]);
        assert_eq!(balance.elsewhere(), None);
    }
}
