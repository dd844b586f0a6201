//! One link per backend instance that the registry knows: opened when it appears, given up when it is gone.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use parking_lot::RwLock;
use shardkeep_cluster::{Directory, Instance, Node, State};
use shardkeep_link::{BackendInfo, ClientMessage, GatewayLink, Limits, NodeDialer};
use shardkeep_types::{BackendKind, DaemonKind, Epoch, SessionId, WorldId};
use shardkeep_wire::payload::ErrorCode;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::items::ItemHandler;
use crate::core::Core;

#[derive(Default)]
pub(crate) struct Links {
    by_instance: RwLock<HashMap<Arc<str>, Entry>>,
    /// Spreads sessions over instances of equal standing.
    spread: RandomState,
}

struct Entry {
    link: GatewayLink,
    daemon: DaemonKind,
    /// It leaves: nothing new is bound to it.
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

    fn names(&self, daemon: DaemonKind) -> Vec<Arc<str>> {
        let links = self.by_instance.read();
        links.iter().filter(|(_, entry)| entry.daemon == daemon).map(|(name, _)| name.clone()).collect()
    }

    fn set_draining(&self, instance: &Instance) {
        if let Some(entry) = self.by_instance.write().get_mut(instance.id.name.as_str()) {
            entry.draining = instance.state == State::Draining;
        }
    }

    fn remove(&self, name: &str) -> Option<Entry> {
        self.by_instance.write().remove(name)
    }
}

/// Keeps links to all backends of one kind of daemon, until `stop`.
pub(crate) async fn follow(core: Arc<Core>, node: Node, daemon: DaemonKind, stop: CancellationToken) {
    let mut directory = node.directory(daemon);
    loop {
        let instances = directory.all();
        for instance in instances.iter().filter(|instance| alive(instance)) {
            if core.links.get(&instance.id.name).is_none() {
                open(&core, &node, &directory, instance, &stop);
            }
            core.links.set_draining(instance);
        }
        for name in core.links.names(daemon) {
            if !instances.iter().any(|instance| *instance.id.name == *name && alive(instance)) {
                remove_backend(&core, &name);
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = directory.changed() => {}
        }
    }
}

fn alive(instance: &Instance) -> bool {
    matches!(instance.state, State::Up | State::Draining)
}

fn open(core: &Arc<Core>, node: &Node, directory: &Directory, instance: &Instance, stop: &CancellationToken) {
    let name = instance.id.name.clone();
    let link = GatewayLink::new(node.id().clone(), &name, Limits::default());
    let stop = stop.child_token();
    let entry = Entry { link: link.clone(), daemon: instance.id.kind, draining: false, stop: stop.clone() };
    core.links.by_instance.write().insert(link.backend().clone(), entry);
    let dial = NodeDialer { node: node.clone(), directory: directory.clone(), kind: instance.id.kind, name };
    let items = ItemHandler::new(core.clone());
    node.daemon().spawn_work("link", async move { link.run(&dial, &items, &stop).await });
}

/// The instance is gone: what it was asked is answered here, and sessions for which any other will do get one.
fn remove_backend(core: &Arc<Core>, name: &str) {
    let Some(entry) = core.links.remove(name) else { return };
    entry.stop.cancel();
    info!(backend = name, "link given up");
    let Some(info) = entry.link.info() else { return };
    for session in core.sessions.all() {
        {
            let mut inner = session.lock();
            inner.backend_lost(name);
            if !inner.bindings.is_bound_to(info.kind, name) {
                continue;
            }
            inner.fail_in_flight(info.kind);
            if info.auto_bind {
                inner.bindings.remove(info.kind);
            }
        }
        if info.auto_bind {
            core.with_groups(|groups| ((), groups.leave(session.id, Some(info.kind))));
            core.bind_auto(&session);
        }
        session.waker.notify();
    }
    core.remove_unserved_ranges(info.kind);
}

impl Core {
    /// Bindings that moved with a session from another gateway, or that its world knows.
    pub(crate) fn restore_binding(
        &self,
        session: &crate::session::Session,
        kind: BackendKind,
        instance: &str,
        epoch: Epoch,
        held: Vec<ClientMessage>,
    ) {
        let auto = self.links.get(instance).and_then(|link| link.info()).map(|info| info.auto_bind);
        match auto {
            _ if kind == BackendKind::WORLD => {}
            Some(auto) => drop(session.lock().bindings.set(kind, instance, epoch, !auto)),
            // Its link may still come. Of other kinds any instance will do.
            None if kind == BackendKind::ZONE => {
                drop(session.lock().bindings.set(kind, instance, epoch, true));
            }
            None => {}
        }
        let mut inner = session.lock();
        for message in held {
            if let Err(message) = inner.bindings.hold(kind, message) {
                inner.refuse_all(&[message], ErrorCode::Unavailable, "the server cannot be reached now");
            }
        }
    }

    /// Nobody serves the kind's opcodes any more.
    fn remove_unserved_ranges(&self, kind: BackendKind) {
        let served = self
            .links
            .by_instance
            .read()
            .values()
            .any(|entry| entry.link.info().is_some_and(|info| info.kind == kind));
        if !served {
            let mut ranges = self.ranges.write();
            let mut remaining = (**ranges).clone();
            remaining.remove(kind);
            *ranges = Arc::new(remaining);
        }
    }
}
