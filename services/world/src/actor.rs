//! The task that owns the core. It passes events to the core in order, and carries out the effects that the core
//! returns.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prost::Message;
use shardkeep_cluster::{Directory, Instance, Node, State};
use shardkeep_daemon::{Daemon, event};
use shardkeep_link::{LinkEvent, LinkHub, PublishKind, ServerMessage, SessionChange};
use shardkeep_rpc::world as proto;
use shardkeep_types::{BackendKind, Epoch, GroupKey, WorldId, group_kind};
use shardkeep_wire::{opcode, payload};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    convert,
    core::Core,
    effect::{Effect, PlayerEvent, PlayerEventKind},
    metrics::{ENTERED, LEADER, LEFT, ONLINE, PARTITION, QUEUE, SESSIONS, TERM},
    partition::{Health, Owner, ZoneView},
    service::Job,
    status::Status,
    view::View,
    watchers::Watchers,
    work::Worker,
};

/// How often the core checks its timers.
const TICK: Duration = Duration::from_millis(200);
/// How long a drain waits for avatars that are entering or leaving.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct Actor {
    pub(crate) core: Core,
    pub(crate) node: Node,
    pub(crate) daemon: Daemon,
    pub(crate) hub: LinkHub,
    pub(crate) worker: Worker,
    pub(crate) watchers: Watchers,
    pub(crate) view: watch::Sender<Arc<View>>,
    pub(crate) partition: watch::Sender<Option<proto::Partition>>,
    pub(crate) status: Status,
    pub(crate) tasks: TaskTracker,
    /// Cancels work in flight when the actor ends.
    pub(crate) shutdown: CancellationToken,
}

impl Actor {
    /// Runs until drained. A drain admits no more sessions and waits for work in flight. Returns whether this
    /// instance leads at the end.
    pub(crate) async fn run(
        mut self,
        mut jobs: mpsc::Receiver<Job>,
        mut links: mpsc::Receiver<LinkEvent>,
        mut zones: Directory,
    ) -> bool {
        let draining = self.daemon.draining();
        let mut ticks = tokio::time::interval(TICK);
        let mut finish = None;
        self.zones_changed(&zones);
        loop {
            tokio::select! {
                Some(job) = jobs.recv() => job(&mut self.core, &mut self.watchers, Instant::now()),
                Some(event) = links.recv() => self.link_event(event),
                () = zones.changed() => self.zones_changed(&zones),
                _ = ticks.tick() => self.core.tick(Instant::now()),
                () = draining.cancelled(), if finish.is_none() => {
                    self.core.drain();
                    finish = Some(Instant::now() + DRAIN_TIMEOUT);
                }
            }
            self.apply_effects();
            if finish.is_some_and(|until| self.tasks.is_empty() || until <= Instant::now()) {
                self.shutdown.cancel();
                return self.core.term(Instant::now()).is_some();
            }
        }
    }

    fn zones_changed(&mut self, zones: &Directory) {
        let world = self.node.world();
        let zones = zones.all().iter().filter(|zone| zone.world == world).map(zone_view).collect();
        self.core.zones_changed(Instant::now(), zones);
    }

    fn link_event(&mut self, event: LinkEvent) {
        let now = Instant::now();
        match event {
            LinkEvent::Up { gateway, fresh: true } | LinkEvent::Down { gateway } => {
                self.core.sessions.detach_all(&gateway, now);
            }
            LinkEvent::Up { gateway, fresh: false } => self.core.sessions.attach_all(&gateway),
            LinkEvent::Deliver { gateway, session, session_epoch, messages } => {
                self.core.handle_messages(now, &gateway, session, session_epoch, &messages);
            }
            LinkEvent::Session { gateway, event } => {
                let held = self.core.sessions.held(event.session, &gateway, event.session_epoch);
                match event.kind {
                    SessionChange::Joined if held => self.core.joined(event.session),
                    SessionChange::Left if held => self.core.end_session(now, event.session, "logged out"),
                    _ => {}
                }
            }
            LinkEvent::Bound { gateway, session, session_epoch, bind_epoch, .. } => {
                if self.core.sessions.held(session, &gateway, session_epoch) {
                    self.core.joined(session);
                }
                self.hub.ready(&gateway, session, bind_epoch);
            }
            // The world publishes events only, which a hub does not keep.
            LinkEvent::Watched { .. } | LinkEvent::Unwatched { .. } | LinkEvent::KeyframeWanted { .. } => {}
        }
    }

    fn apply_effects(&mut self) {
        let effects = self.core.take_effects();
        // Before the tasks start, because they read the view.
        self.publish_view();
        for effect in effects {
            self.apply_effect(effect);
        }
        self.record_metrics();
    }

    fn apply_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Send { gateway, session, message } => self.hub.send(&gateway, &[session], vec![message]),
            Effect::SubscribeToWorld { gateway, session } => {
                self.hub.subscribe(&gateway, session, &[world_group(self.node.world())], true);
            }
            Effect::Bind { gateway, session, zone, epoch } => {
                self.hub.bind(&gateway, session, BackendKind::ZONE, &zone, epoch);
            }
            Effect::Close { gateway, session, code, detail } => {
                self.hub.close(&gateway, session, code as u32, &detail);
            }
            Effect::Start(work) => {
                let work = self.worker.clone().run(work);
                let work = self.shutdown.clone().run_until_cancelled_owned(work);
                // Work that panics would never report its end, and its player would wait for ever.
                self.tasks.spawn(self.daemon.supervised("world work", work));
            }
            Effect::Partition => {
                metrics::counter!(PARTITION).increment(1);
                let table = self.core.partition.as_ref().zip(self.core.leadership.lease());
                let table = table.map(|(table, (term, _))| convert::partition(term, table, &self.core.zones));
                self.partition.send_replace(table);
            }
            Effect::Presence(delta) => self.watchers.publish(&convert::report(&delta)),
            Effect::Announce(text) => {
                let line = payload::Announcement { text }.encode_to_vec();
                let epoch = self.core.leadership.lease().map_or(Epoch(0), |(term, _)| Epoch(term.0));
                let message = ServerMessage::event(opcode::ANNOUNCEMENT, line);
                self.hub.publish(world_group(self.node.world()), epoch, PublishKind::Event, message);
            }
            Effect::EndTerm => {
                self.partition.send_replace(None);
                self.watchers.close_all();
            }
            Effect::Report(event) => self.report(&event),
        }
    }

    fn publish_view(&self) {
        let sectors =
            self.core.partition.as_ref().map(|table| {
                table.sectors().iter().map(|sector| (sector.cells, sector.owner.clone())).collect()
            });
        let view = View {
            lease: self.core.leadership.lease(),
            sectors: sectors.unwrap_or_default(),
            zones: self.core.zones.clone(),
        };
        self.view.send_if_modified(|present| {
            let changed = **present != view;
            if changed {
                *present = Arc::new(view);
            }
            changed
        });
    }

    fn record_metrics(&mut self) {
        let core = &self.core;
        metrics::gauge!(ONLINE).set(core.inside as f64);
        metrics::gauge!(SESSIONS).set(core.sessions.len() as f64);
        metrics::gauge!(QUEUE).set(core.queue.len() as f64);
        let term = core.leadership.lease().map(|(term, _)| term.0);
        metrics::gauge!(LEADER).set(if term.is_some() { 1.0 } else { 0.0 });
        metrics::gauge!(TERM).set(term.unwrap_or(0) as f64);
        self.status.publish(&self.node, core);
    }

    fn report(&self, event: &PlayerEvent) {
        let (account, session, world) = (event.account.0, event.session.to_string(), self.node.world().0);
        let (character, detail) = (event.character.map(|character| character.0), &event.detail);
        match event.kind {
            PlayerEventKind::Enter => {
                metrics::counter!(ENTERED).increment(1);
                event!("enter", account, session, world, character, zone = detail);
            }
            PlayerEventKind::Leave => {
                metrics::counter!(LEFT).increment(1);
                event!("leave", account, session, world, character, why = detail);
            }
        }
    }
}

/// The group of all sessions in a world.
fn world_group(world: WorldId) -> GroupKey {
    GroupKey::new(group_kind::WORLD, world.0.into(), 0)
}

fn zone_view(zone: &Instance) -> ZoneView {
    let health = match zone.state {
        State::Starting => Health::Starting,
        State::Up => Health::Up,
        State::Draining => Health::Draining,
        State::Offline | State::Left => Health::Gone,
    };
    ZoneView {
        owner: Owner { name: zone.id.name.clone(), incarnation: zone.id.incarnation },
        health,
        grpc_address: zone.grpc_address.clone(),
    }
}
