//! Merges the lists that several registries hold of one kind into one view. Pure: time is an argument.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use shardkeep_types::InstanceId;

use crate::{Instance, State};

/// The lists of all registries for one kind.
#[derive(Debug)]
pub(crate) struct MergedView {
    sources: Vec<Source>,
    /// After a registry reconnects, instances missing from its snapshot are kept for this long. The registry may
    /// have restarted, and the instances may not have registered again yet.
    grace: Duration,
}

#[derive(Debug, Default)]
struct Source {
    live: bool,
    instances: BTreeMap<String, SeenInstance>,
}

#[derive(Debug)]
struct SeenInstance {
    instance: Instance,
    confirmed: bool,
    /// Set when a snapshot did not name the instance.
    expires_at: Option<Instant>,
}

impl MergedView {
    pub(crate) fn new(registries: usize, grace: Duration) -> Self {
        Self { sources: (0..registries).map(|_| Source::default()).collect(), grace }
    }

    /// Every watch of a registry begins with a snapshot.
    pub(crate) fn begin_snapshot(&mut self, registry: usize) {
        for seen in self.sources[registry].instances.values_mut() {
            seen.confirmed = false;
        }
    }

    pub(crate) fn changed(&mut self, registry: usize, instance: Instance) {
        let seen = SeenInstance { instance, confirmed: true, expires_at: None };
        self.sources[registry].instances.insert(seen.instance.id.name.clone(), seen);
    }

    pub(crate) fn removed(&mut self, registry: usize, id: &InstanceId) {
        self.sources[registry].instances.remove(&id.name);
    }

    /// The snapshot is complete.
    pub(crate) fn synced(&mut self, registry: usize, now: Instant) {
        let source = &mut self.sources[registry];
        source.live = true;
        for seen in source.instances.values_mut().filter(|seen| !seen.confirmed) {
            seen.expires_at = Some(now + self.grace);
        }
        // A registry that answers replaces the last known list of a registry that does not.
        for source in self.sources.iter_mut().filter(|source| !source.live) {
            source.instances.clear();
        }
    }

    /// The watch ended. The list of the last registry is kept: an old list is better than none.
    pub(crate) fn disconnected(&mut self, registry: usize) {
        self.sources[registry].live = false;
        if self.sources.iter().any(|source| source.live) {
            self.sources[registry].instances.clear();
        }
    }

    /// Removes instances that no registry confirmed in time. Returns when the next one expires.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Instant> {
        for source in &mut self.sources {
            source.instances.retain(|_, seen| seen.expires_at.is_none_or(|expires_at| expires_at > now));
        }
        self.sources
            .iter()
            .flat_map(|source| source.instances.values())
            .filter_map(|seen| seen.expires_at)
            .min()
    }

    /// The merged instances, ordered by name. The later incarnation counts; within an incarnation, the later state
    /// (`Left` is the last). An instance is `Offline` only if all registries agree, because one registry may have
    /// lost contact with an instance that another still reaches.
    pub(crate) fn view(&self) -> Vec<Instance> {
        let mut best: BTreeMap<&str, &Instance> = BTreeMap::new();
        for seen in self.sources.iter().flat_map(|source| source.instances.values()) {
            let entry = best.entry(&seen.instance.id.name).or_insert(&seen.instance);
            if rank(&seen.instance) > rank(entry) {
                *entry = &seen.instance;
            }
        }
        best.into_values().cloned().collect()
    }
}

fn rank(instance: &Instance) -> (u64, bool, State) {
    (instance.id.incarnation, instance.state != State::Offline, instance.state)
}

#[cfg(test)]
mod tests {
    use shardkeep_types::DaemonKind;

    use super::*;

    const GRACE: Duration = Duration::from_secs(3);

    fn instance(name: &str, incarnation: u64, state: State) -> Instance {
        let id = InstanceId { kind: DaemonKind::Login, name: name.into(), incarnation };
        Instance::new(id, state)
    }

    fn names(merge: &MergedView) -> Vec<String> {
        merge.view().into_iter().map(|instance| instance.id.name).collect()
    }

    #[test]
    fn later_incarnation_and_state_win() {
        let (mut merge, now) = (MergedView::new(2, GRACE), Instant::now());
        merge.changed(0, instance("a", 1, State::Draining));
        merge.changed(1, instance("a", 2, State::Starting));
        merge.changed(0, instance("b", 1, State::Offline));
        merge.changed(1, instance("b", 1, State::Up));
        merge.synced(0, now);
        // Registry 1 has not sent `synced` since it reconnected; only what it sends from its own `synced` on counts.
        merge.changed(1, instance("a", 2, State::Starting));
        merge.changed(1, instance("b", 1, State::Up));
        merge.synced(1, now);
        let states: Vec<_> = merge.view().iter().map(|i| (i.id.incarnation, i.state)).collect();
        assert_eq!(states, [(2, State::Starting), (1, State::Up)]);
    }

    #[test]
    fn restarted_registry_keeps_instances_for_grace() {
        let (mut merge, now) = (MergedView::new(1, GRACE), Instant::now());
        merge.changed(0, instance("a", 1, State::Up));
        merge.changed(0, instance("b", 1, State::Up));
        merge.synced(0, now);
        merge.disconnected(0);
        assert_eq!(names(&merge), ["a", "b"]);
        merge.begin_snapshot(0);
        merge.synced(0, now);
        assert_eq!(names(&merge), ["a", "b"]);
        merge.changed(0, instance("a", 1, State::Up));
        assert_eq!(merge.expire(now), Some(now + GRACE));
        assert_eq!(merge.expire(now + GRACE), None);
        assert_eq!(names(&merge), ["a"]);
    }

    #[test]
    fn lost_registry_view_yields_to_live_registry() {
        let (mut merge, now) = (MergedView::new(2, GRACE), Instant::now());
        for registry in 0..2 {
            merge.changed(registry, instance("a", 1, State::Up));
            merge.synced(registry, now);
        }
        merge.disconnected(0);
        merge.changed(1, instance("a", 1, State::Offline));
        assert_eq!(merge.view()[0].state, State::Offline);
        merge.removed(1, &instance("a", 1, State::Offline).id);
        assert!(merge.view().is_empty());
    }
}
