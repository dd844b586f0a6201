//! The open links: one for each backend instance that the registry lists.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use parking_lot::RwLock;
use shardkeep_link::{BackendInfo, GatewayLink};
use shardkeep_types::{BackendKind, DaemonKind, SessionId, WorldId};
use tokio_util::sync::CancellationToken;

#[derive(Default)]
pub(crate) struct Links {
    by_instance: RwLock<HashMap<Arc<str>, Entry>>,
    /// Spreads sessions evenly over replicas.
    spread: RandomState,
}

struct Entry {
    link: GatewayLink,
    daemon: DaemonKind,
    /// The instance is draining: no session is newly bound to it.
    draining: bool,
    stop: CancellationToken,
}

impl Entry {
    fn serves(&self, kind: BackendKind, world: WorldId) -> bool {
        let serves =
            |info: Arc<BackendInfo>| info.kind == kind && (info.world == WorldId(0) || info.world == world);
        self.link.info().is_some_and(serves)
    }
}

impl Links {
    pub(crate) fn get(&self, instance: &str) -> Option<GatewayLink> {
        self.by_instance.read().get(instance).map(|entry| entry.link.clone())
    }

    /// Calls `act` with every link to this kind of backend that serves the world.
    pub(crate) fn serving(&self, kind: BackendKind, world: WorldId, act: impl Fn(&GatewayLink)) {
        let links = self.by_instance.read();
        links.values().filter(|entry| entry.serves(kind, world)).for_each(|entry| act(&entry.link));
    }

    /// Every link to this kind of backend that serves the world.
    pub(crate) fn all_serving(&self, kind: BackendKind, world: WorldId) -> Vec<GatewayLink> {
        let links = self.by_instance.read();
        links.values().filter(|entry| entry.serves(kind, world)).map(|entry| entry.link.clone()).collect()
    }

    /// One link for each kind of which any instance will do, spread evenly over sessions.
    pub(crate) fn choose_auto_bind(&self, world: WorldId, session: SessionId) -> Vec<GatewayLink> {
        let mut best: HashMap<BackendKind, (u64, GatewayLink)> = HashMap::new();
        for entry in self.by_instance.read().values() {
            let takes = |info: &Arc<BackendInfo>| info.auto_bind && entry.link.is_open() && !entry.draining;
            let Some(info) = entry.link.info().filter(takes) else {
                continue;
            };
            if info.world != WorldId(0) && info.world != world {
                continue;
            }
            // Rendezvous hashing: each session has its own order of the instances.
            let weight = self.spread.hash_one((session, entry.link.backend()));
            match best.get(&info.kind) {
                Some((heaviest, _)) if *heaviest >= weight => {}
                _ => drop(best.insert(info.kind, (weight, entry.link.clone()))),
            }
        }
        best.into_values().map(|(_, link)| link).collect()
    }

    /// Instances of this kind of daemon to which there is a link.
    pub(crate) fn names(&self, daemon: DaemonKind) -> Vec<Arc<str>> {
        let links = self.by_instance.read();
        links.iter().filter(|(_, entry)| entry.daemon == daemon).map(|(name, _)| name.clone()).collect()
    }

    /// Adds a link; `stop` is cancelled when it is removed.
    pub(crate) fn insert(&self, daemon: DaemonKind, link: GatewayLink, stop: CancellationToken) {
        let name = link.backend().clone();
        let entry = Entry { link, daemon, draining: false, stop };
        self.by_instance.write().insert(name, entry);
    }

    pub(crate) fn set_draining(&self, instance: &str, draining: bool) {
        if let Some(entry) = self.by_instance.write().get_mut(instance) {
            entry.draining = draining;
        }
    }

    /// Closes the link and forgets it. Returns what its backend said about itself, if it was ever open.
    pub(crate) fn remove(&self, instance: &str) -> Option<Arc<BackendInfo>> {
        let entry = self.by_instance.write().remove(instance)?;
        entry.stop.cancel();
        entry.link.info()
    }

    /// Whether any instance serves this kind of backend.
    pub(crate) fn is_served(&self, kind: BackendKind) -> bool {
        self.by_instance.read().values().any(|entry| entry.link.info().is_some_and(|info| info.kind == kind))
    }
}
