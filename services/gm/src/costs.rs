//! The cost of messages by opcode, summed over all gateways, the most expensive first.

use std::collections::BTreeMap;

use futures::future::join_all;
use shardkeep_rpc::gateway::{Cost, ListCostsRequest};
use shardkeep_types::DaemonKind;

use crate::peers::{Peers, with_deadline};

/// Asks all gateways. Returns the sums and the number of gateways that answered.
pub(crate) async fn fetch_totals(peers: &Peers) -> (Vec<Cost>, usize) {
    let gateways = peers.alive(DaemonKind::Gateway);
    let lists = join_all(gateways.iter().map(async |gateway| {
        peers.gateway_client(gateway).list_costs(with_deadline(ListCostsRequest {})).await
    }));
    let lists: Vec<_> =
        lists.await.into_iter().filter_map(|list| Some(list.ok()?.into_inner().costs)).collect();
    let answered = lists.len();
    (sum(lists.into_iter().flatten()), answered)
}

fn sum(costs: impl Iterator<Item = Cost>) -> Vec<Cost> {
    let mut by_opcode = BTreeMap::<u32, Cost>::new();
    for cost in costs {
        let all = by_opcode.entry(cost.opcode).or_insert_with(|| Cost {
            opcode: cost.opcode,
            name: cost.name.clone(),
            ..Cost::default()
        });
        all.received += cost.received;
        all.received_bytes += cost.received_bytes;
        all.sent += cost.sent;
        all.sent_bytes += cost.sent_bytes;
        all.microseconds += cost.microseconds;
    }
    let mut all: Vec<_> = by_opcode.into_values().collect();
    all.sort_by_key(|cost| std::cmp::Reverse((cost.microseconds, cost.sent_bytes + cost.received_bytes)));
    all
}

/// A number of bytes with a unit.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut size, mut unit) = (count as f64, 0);
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        (size, unit) = (size / 1024.0, unit + 1);
    }
    if unit == 0 { format!("{count} B") } else { format!("{size:.1} {}", UNITS[unit]) }
}

/// Microseconds as text in seconds.
pub(crate) fn seconds(microseconds: u64) -> String {
    format!("{:.2} s", microseconds as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_summed_over_gateways_most_expensive_first() {
        let cost = |opcode: u32, microseconds| Cost {
            opcode,
            name: format!("m{opcode}"),
            received: 1,
            microseconds,
            ..Cost::default()
        };
        let all = sum([cost(1, 5), cost(2, 7), cost(1, 6)].into_iter());
        let shown: Vec<_> = all.iter().map(|it| (it.name.as_str(), it.received, it.microseconds)).collect();
        assert_eq!(shown, [("m1", 2, 11), ("m2", 1, 7)]);
    }

    #[test]
    fn sizes_and_seconds_are_formatted_briefly() {
        assert_eq!([bytes(7), bytes(1_536), bytes(3 << 30)], ["7 B", "1.5 KiB", "3.0 GiB"]);
        assert_eq!(seconds(1_234_567), "1.23 s");
    }
}
