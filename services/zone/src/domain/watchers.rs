//! Gateways that watch the groups of cells.

use std::collections::{BTreeSet, HashMap};

use shardkeep_link::GatewayId;
use shardkeep_types::GroupKey;

#[derive(Debug, Default)]
pub(crate) struct Watchers(HashMap<GroupKey, BTreeSet<GatewayId>>);

impl Watchers {
    pub(crate) fn add(&mut self, group: GroupKey, gateway: GatewayId) {
        self.0.entry(group).or_default().insert(gateway);
    }

    /// Each group with each gateway that watches it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (GroupKey, &GatewayId)> {
        self.0.iter().flat_map(|(&group, gateways)| gateways.iter().map(move |gateway| (group, gateway)))
    }

    /// Returns whether no gateway watches the group any more.
    pub(crate) fn remove(&mut self, group: GroupKey, gateway: &GatewayId) -> bool {
        let Some(gateways) = self.0.get_mut(&group) else { return true };
        gateways.remove(gateway);
        let unwatched = gateways.is_empty();
        if unwatched {
            self.0.remove(&group);
        }
        unwatched
    }

    /// Forgets a gateway. Returns the groups that only it watched.
    pub(crate) fn remove_gateway(&mut self, gateway: &GatewayId) -> Vec<GroupKey> {
        let mut unwatched = Vec::new();
        self.0.retain(|group, gateways| {
            gateways.remove(gateway);
            if gateways.is_empty() {
                unwatched.push(*group);
            }
            !gateways.is_empty()
        });
        // The order must not depend on the hash function.
        unwatched.sort_unstable();
        unwatched
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_types::group_kind;

    use super::*;

    #[test]
    fn group_is_watched_until_its_last_gateway_leaves() {
        let group = |number| GroupKey::new(group_kind::CELL, 1, number);
        let [one, two] = ["gateway-1", "gateway-2"].map(GatewayId::from);
        let mut watchers = Watchers::default();
        for number in 1..=3 {
            watchers.add(group(number), one.clone());
        }
        watchers.add(group(1), two.clone());
        assert!(!watchers.remove(group(1), &two));
        assert!(watchers.remove(group(1), &one), "its last gateway");
        assert_eq!(watchers.remove_gateway(&one), [group(2), group(3)]);
        assert!(watchers.remove_gateway(&one).is_empty());
    }
}
