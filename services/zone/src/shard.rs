//! The state of a zone, and the order of a tick. A tick never waits: calls to other daemons run in the background
//! (`background_calls`) and return as commands.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use shardkeep_link::{GatewayId, LinkEvent, LinkHub};
use shardkeep_sim::{Input, Kind, Sim};
use shardkeep_types::{CellId, CharacterId, Epoch, InstanceId, SessionId, WorldId};
use tokio::sync::mpsc;

use crate::{
    background_calls::BackgroundCalls,
    bindings::Bindings,
    config::Config,
    handover::Arrival,
    handover::HandedOver,
    hard_actions::CommitQueue,
    metrics,
    neighbours::NeighbourZones,
    outbox::Outbox,
    partition::Table,
    perception_feed::PerceptionFeed,
    players::{Player, Players},
    presence::Presence,
};

/// The most link events in one tick. The rest waits in a bounded queue.
const MAX_LINK_EVENTS: usize = 20_000;
const POPULATION_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) struct Shard {
    pub(crate) me: InstanceId,
    pub(crate) world: WorldId,
    pub(crate) config: Config,
    pub(crate) now: Instant,
    pub(crate) tick: u64,
    pub(crate) sim: Sim,
    /// Inputs for the next tick of the simulation.
    pub(crate) inputs: Vec<Input>,
    pub(crate) hub: LinkHub,
    pub(crate) background_calls: BackgroundCalls,
    pub(crate) players: Players,
    pub(crate) table: Table,
    pub(crate) cell_epochs: HashMap<CellId, Epoch>,
    pub(crate) commit_queue: CommitQueue,
    pub(crate) arrivals: BTreeMap<CharacterId, Arrival>,
    pub(crate) bindings: Bindings,
    pub(crate) handed_over: HashMap<SessionId, HandedOver>,
    /// When a failed hand-over may be repeated.
    pub(crate) handover_retry_at: HashMap<CharacterId, Instant>,
    pub(crate) outbox: Outbox,
    pub(crate) neighbours: NeighbourZones,
    pub(crate) presence: Presence,
    pub(crate) perception_feed: PerceptionFeed,
    pub(crate) next_save: Instant,
    pub(crate) saving: bool,
    pub(crate) saves: u64,
    /// Sequence of the last soft state. One counter serves all avatars, because it only has to rise.
    pub(crate) soft_sequence: u64,
    /// When this daemon began to drain.
    pub(crate) draining: Option<Instant>,
    /// No other zone of the world is up, so no zone will take the sectors.
    pub(crate) is_only_zone: bool,
    next_population_report: Instant,
}

impl Shard {
    pub(crate) fn new(
        config: Config,
        sim: Sim,
        hub: LinkHub,
        background_calls: BackgroundCalls,
        now: Instant,
    ) -> Self {
        Self {
            me: background_calls.node.id().clone(),
            world: background_calls.node.world(),
            now,
            tick: 0,
            sim,
            inputs: Vec::new(),
            hub,
            neighbours: NeighbourZones::new(background_calls.clone()),
            perception_feed: PerceptionFeed::new(config.think_interval, now),
            next_save: now + config.save_interval,
            config,
            background_calls,
            players: Players::default(),
            table: Table::default(),
            cell_epochs: HashMap::new(),
            commit_queue: CommitQueue::default(),
            arrivals: BTreeMap::new(),
            bindings: Bindings::default(),
            handed_over: HashMap::new(),
            handover_retry_at: HashMap::new(),
            outbox: Outbox::default(),
            presence: Presence::default(),
            saving: false,
            saves: 0,
            soft_sequence: 0,
            draining: None,
            is_only_zone: false,
            next_population_report: now,
        }
    }

    /// Runs one tick: link events, the simulation, and everything that goes out.
    pub(crate) fn step(&mut self, now: Instant, wall_ms: u64, links: &mut mpsc::Receiver<LinkEvent>) {
        self.now = now;
        self.tick += 1;
        for _ in 0..MAX_LINK_EVENTS {
            let Ok(event) = links.try_recv() else { break };
            self.link_event(event);
        }
        let inputs = std::mem::take(&mut self.inputs);
        for event in self.sim.tick(wall_ms, inputs) {
            self.sim_event(event);
        }

        self.advance_arrivals();
        self.advance_releases();
        self.save_soft_state();
        self.resync();
        self.flush();
        self.neighbours.send_frames(self.tick, &self.sim, &self.table, &self.me);
        self.presence.flush(self.tick, &self.me, &self.players, &self.sim);
        self.perception_feed.send_due(now, &self.me, self.tick, &self.sim);
        self.report_population();
    }

    /// Whether all avatars are saved and released.
    pub(crate) fn is_empty(&self) -> bool {
        self.players.len() == 0 && self.arrivals.is_empty()
    }

    /// Applies a new table. New cells need their ground; cells with a new epoch need a keyframe.
    pub(crate) fn partition(&mut self, table: Table) {
        if !table.is_newer_than(&self.table) {
            tracing::debug!(term = %table.term, epoch = table.epoch, "an old partition is refused");
            return;
        }
        let before: Vec<_> = self.table.of(&self.me).map(|sector| (sector.cells, sector.epoch)).collect();
        let owned: Vec<_> = table.of(&self.me).map(|sector| (sector.cells, sector.epoch)).collect();
        tracing::info!(term = %table.term, epoch = table.epoch, sectors = owned.len(), "partition");
        self.inputs.push(Input::Sectors(owned.iter().map(|(cells, _)| *cells).collect()));
        for (cells, epoch) in &owned {
            if !before.contains(&(*cells, *epoch)) {
                self.background_calls.load_ground(*cells);
            }
        }
        let epochs = table.cell_epochs(&self.me);
        for (&cell, epoch) in &epochs {
            if self.cell_epochs.get(&cell) != Some(epoch) {
                self.request_keyframes(cell);
            }
        }
        self.cell_epochs = epochs;
        self.neighbours.update_streams(&table, &self.table, &self.me);
        self.table = table;
    }

    /// Stores the gateway of a session. `None` if the session has no avatar here.
    pub(crate) fn attach(
        &mut self,
        session: SessionId,
        gateway: &GatewayId,
        session_epoch: Epoch,
    ) -> Option<&mut Player> {
        let player = self.players.of_session(session)?;
        if session_epoch < player.session_epoch {
            metrics::refused("session_epoch");
            return None;
        }
        player.session_epoch = session_epoch;
        player.gateway = Some(gateway.clone());
        Some(player)
    }

    fn report_population(&mut self) {
        if self.now < self.next_population_report {
            return;
        }
        self.next_population_report = self.now + POPULATION_INTERVAL;
        let creatures = self.sim.seen().filter(|seen| seen.kind == Kind::Creature && !seen.ghost).count();
        metrics::population(self.players.len(), creatures, self.cell_epochs.len());
        metrics::counts(self.sim.counts());
        self.background_calls
            .node
            .set_load((self.players.len() as f64 / self.config.max_avatars as f64).min(1.0));
        let now = self.now;
        self.handover_retry_at.retain(|_, until| *until > now);
        self.bindings.remove_expired(now);
        self.handed_over.retain(|_, handed_over| !handed_over.is_expired(now));
    }
}
