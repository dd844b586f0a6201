//! The task that owns the world's state. It passes events to it in order, and carries out the effects that follow.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prost::Message;
use shardkeep_cluster::{Directory, Instance, Node, State};
use shardkeep_daemon::{Daemon, event};
use shardkeep_link::{LinkEvent, LinkHub, PublishKind, ServerMessage};
use shardkeep_rpc::world as proto;
use shardkeep_types::{BackendKind, Epoch, GroupKey, WorldId, group_kind};
use shardkeep_wire::{opcode, payload};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app::App,
    config::WorldConfig,
    domain::{
        effect::Effect,
        zone::{Health, ZoneView},
        zones::View,
    },
    edge::{
        convert, layout,
        lobby::Lobby,
        service::{Handle, Job},
        status::Status,
        watchers::Watchers,
        work::Worker,
    },
    metrics::{
        ENTERED, LEADER, LEFT, MIGRATIONS, ONLINE, PARTITION, QUEUE, SECTORS, SESSIONS, SPACES, TERM,
        UNOWNED_SECTORS,
    },
};

/// How often the world checks its timers.
const TICK: Duration = Duration::from_millis(200);
/// How long a drain waits for avatars that are entering or leaving.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct Actor {
    app: App,
    node: Node,
    daemon: Daemon,
    hub: LinkHub,
    worker: Worker,
    watchers: Watchers,
    view: watch::Sender<Arc<View>>,
    partition: watch::Sender<Option<proto::Partition>>,
    status: Status,
    tasks: TaskTracker,
    /// Cancels work in flight when the actor ends.
    shutdown: CancellationToken,
}

impl Actor {
    pub(crate) fn new(node: Node, daemon: Daemon, hub: LinkHub, config: WorldConfig, handle: Handle) -> Self {
        let view = watch::Sender::<Arc<View>>::default();
        let lobby = Lobby::new(node.world(), &config);
        Self {
            app: App::new(config),
            worker: Worker::new(node.clone(), view.subscribe(), handle, lobby),
            node,
            daemon,
            hub,
            watchers: Watchers::default(),
            view,
            partition: watch::Sender::default(),
            status: Status::default(),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        }
    }

    /// The partition table of the present term.
    pub(crate) fn partition(&self) -> watch::Receiver<Option<proto::Partition>> {
        self.partition.subscribe()
    }

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
                Some(job) = jobs.recv() => job(&mut self.app, &mut self.watchers, Instant::now()),
                Some(event) = links.recv() => self.app.link_event(Instant::now(), event),
                () = zones.changed() => self.zones_changed(&zones),
                _ = ticks.tick() => self.app.tick(Instant::now()),
                () = draining.cancelled(), if finish.is_none() => {
                    self.app.drain();
                    finish = Some(Instant::now() + DRAIN_TIMEOUT);
                }
            }
            self.apply_effects();
            if finish.is_some_and(|until| self.tasks.is_empty() || until <= Instant::now()) {
                self.shutdown.cancel();
                return self.app.leadership().term(Instant::now()).is_some();
            }
        }
    }

    fn zones_changed(&mut self, zones: &Directory) {
        let world = self.node.world();
        let zones = zones.all().iter().filter(|zone| zone.world == world).map(zone_view).collect();
        self.app.zones_changed(Instant::now(), zones);
    }

    fn apply_effects(&mut self) {
        let effects = self.app.take_effects();
        // Before the tasks start, because they read the view.
        self.publish_view();
        for effect in effects {
            self.apply_effect(effect);
        }
        self.record_metrics();
    }

    fn apply_effect(&mut self, effect: Effect) {
        let world = self.node.world().0;
        match effect {
            Effect::Send { gateway, session, message } => self.hub.send(&gateway, &[session], vec![message]),
            Effect::Subscribe { gateway, session } => {
                self.hub.subscribe(&gateway, session, &[world_group(self.node.world())], true);
            }
            Effect::Ready { gateway, session, bind_epoch } => self.hub.ready(&gateway, session, bind_epoch),
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
                let zones = self.app.zones();
                let table = zones.partition().zip(self.app.leadership().lease());
                let table =
                    table.map(|(partition, (term, _))| layout::partition(term, partition.layout(), zones));
                if let Some(table) = &table {
                    record_layout(table);
                }
                self.partition.send_replace(table);
            }
            Effect::Presence { present, gone } => self.watchers.publish(&convert::report(&present, &gone)),
            Effect::Announce(text) => {
                let line = payload::Announcement { text }.encode_to_vec();
                let epoch = self.app.leadership().lease().map_or(Epoch(0), |(term, _)| Epoch(term.0));
                let message = ServerMessage::event(opcode::ANNOUNCEMENT, line);
                self.hub.publish(world_group(self.node.world()), epoch, PublishKind::Event, message);
            }
            Effect::EndTerm => {
                self.partition.send_replace(None);
                self.watchers.close_all();
            }
            Effect::ReportEnter { account, session, character, zone } => {
                metrics::counter!(ENTERED).increment(1);
                let (account, session, character) = (account.0, session.to_string(), character.0);
                event!("enter", account, session, world, character, zone);
            }
            Effect::ReportLeave { account, session, character, why } => {
                metrics::counter!(LEFT).increment(1);
                let (account, session) = (account.0, session.to_string());
                event!("leave", account, session, world, character = character.map(|id| id.0), why);
            }
        }
    }

    fn publish_view(&self) {
        let view = self.app.view();
        self.view.send_if_modified(|present| {
            let changed = **present != view;
            if changed {
                *present = Arc::new(view);
            }
            changed
        });
    }

    fn record_metrics(&mut self) {
        let app = &self.app;
        metrics::gauge!(ONLINE).set(app.players().online() as f64);
        metrics::gauge!(SESSIONS).set(app.sessions().len() as f64);
        metrics::gauge!(QUEUE).set(app.players().waiting() as f64);
        let term = app.leadership().lease().map(|(term, _)| term.0);
        metrics::gauge!(LEADER).set(if term.is_some() { 1.0 } else { 0.0 });
        metrics::gauge!(TERM).set(term.unwrap_or(0) as f64);
        let migrations = app.zones().partition().map_or(0, |partition| partition.migrations().len());
        metrics::gauge!(MIGRATIONS).set(migrations as f64);
        self.status.publish(&self.node, app);
    }
}

fn record_layout(table: &proto::Partition) {
    let unowned = table.sectors.iter().filter(|sector| sector.zone.is_empty()).count();
    metrics::counter!(PARTITION).increment(1);
    metrics::gauge!(SPACES).set(table.spaces.len() as f64);
    metrics::gauge!(SECTORS).set(table.sectors.len() as f64);
    metrics::gauge!(UNOWNED_SECTORS).set(unowned as f64);
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
    ZoneView::new(zone.id.clone(), health, zone.grpc_address.clone())
}
