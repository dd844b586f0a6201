//! One space of a zone: its simulation, its players, and what surrounds them. Requests and commands are handled when they
//! arrive, between ticks. Nothing here waits or sends: everything for the outside is an [`Effect`].

mod answers;
mod commits;
mod leaving;
mod links;
mod player_events;
mod saving;
mod source;
mod spawns;
mod target;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use shardkeep_journal::{Origin, Recorder};
use shardkeep_link::{GatewayId, LinkEvent};
use shardkeep_sim::{CellForm, CellUpdate, Input, Kind, Ring, Sim};
use shardkeep_types::{CellId, CharacterId, Epoch, InstanceId, Position, SessionId, SpaceId, Term, WorldId};

use crate::{
    config::Config,
    domain::{
        bindings::Bindings,
        border::Border,
        command::Command,
        commit_queue::CommitQueue,
        effect::{Answer, CommandError, Effect, Observation},
        handover::{Arrival, HandedOver},
        lost_spawns::LostSpawns,
        mirror::AvatarSnapshot,
        new_cells::NewCells,
        outbox::Outbox,
        partition::Table,
        payload::{Destination, Frame, ReplyTo},
        players::{Player, Players},
        presence::Presence,
        publish,
        save_schedule::SaveSchedule,
        stage::Stage,
        watchers::Watchers,
    },
    metrics,
};

const POPULATION_INTERVAL: Duration = Duration::from_secs(1);

/// Facts about the surroundings that a space cannot know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// The last call of the database was answered.
    pub(crate) database_answers: bool,
    /// This daemon drains.
    pub(crate) draining: bool,
    /// No other zone of the world is up, so no zone will take the sectors.
    pub(crate) is_only_zone: bool,
    /// The avatars in the other spaces of this zone.
    pub(crate) avatars_elsewhere: usize,
}

pub(crate) struct Space {
    me: InstanceId,
    world: WorldId,
    config: Config,
    now: Instant,
    tick: u64,
    sim: Sim,
    /// `None`: no journal is kept.
    recorder: Option<Recorder>,
    /// Inputs that the handling of other inputs caused. It is empty between events.
    caused_inputs: VecDeque<Input>,
    applying: bool,
    effects: Vec<Effect>,
    surroundings: Surroundings,
    /// When this daemon began to drain.
    draining_since: Option<Instant>,
    players: Players,
    table: Arc<Table>,
    cell_epochs: HashMap<CellId, Epoch>,
    /// Where the avatars go, because the space is closing.
    exit: Option<Position>,
    watchers: Watchers,
    commit_queue: CommitQueue,
    arrivals: BTreeMap<CharacterId, Arrival>,
    bindings: Bindings,
    handed_over: HashMap<SessionId, HandedOver>,
    /// When a failed hand-over may be repeated.
    handover_retry_at: HashMap<CharacterId, Instant>,
    outbox: Outbox,
    border: Border,
    new_cells: NewCells,
    lost_spawns: LostSpawns,
    /// Avatars of dead zones, which the world may give to this zone, and until when.
    remembered: HashMap<CharacterId, (AvatarSnapshot, Instant)>,
    next_snapshot: Instant,
    /// The zone that has got the last snapshot.
    buddy: Option<Destination>,
    presence: Presence,
    /// When the AI got the last perceptions. `None` without an AI.
    perceived_at: Option<Instant>,
    saving: SaveSchedule,
    next_population_report: Instant,
    reported: metrics::Reported,
}

impl Space {
    pub(crate) fn new(me: InstanceId, world: WorldId, config: Config, sim: Sim, now: Instant) -> Self {
        Self {
            me,
            world,
            now,
            tick: 0,
            sim,
            recorder: None,
            caused_inputs: VecDeque::new(),
            applying: false,
            effects: Vec::new(),
            surroundings: Surroundings {
                database_answers: true,
                draining: false,
                is_only_zone: false,
                avatars_elsewhere: 0,
            },
            draining_since: None,
            players: Players::default(),
            table: Arc::default(),
            cell_epochs: HashMap::new(),
            exit: None,
            watchers: Watchers::default(),
            commit_queue: CommitQueue::default(),
            arrivals: BTreeMap::new(),
            bindings: Bindings::default(),
            handed_over: HashMap::new(),
            handover_retry_at: HashMap::new(),
            outbox: Outbox::default(),
            border: Border::default(),
            new_cells: NewCells::default(),
            lost_spawns: LostSpawns::default(),
            remembered: HashMap::new(),
            next_snapshot: now,
            buddy: None,
            presence: Presence::default(),
            perceived_at: None,
            saving: SaveSchedule::new(now + config.save_interval),
            config,
            next_population_report: now,
            reported: metrics::Reported::default(),
        }
    }

    /// Records everything from now on. The simulation has had no input yet.
    pub(crate) fn record(&mut self, origin: Origin) {
        self.recorder = Some(Recorder::new(origin, self.config.journal.policy(), &self.sim));
    }

    /// Passes the last records on. The space ends.
    pub(crate) fn end_recording(&mut self) {
        let batch = self.recorder.take().and_then(|mut recorder| recorder.finish(&self.sim));
        self.effects.extend(batch.map(Effect::Journal));
    }

    pub(crate) fn id(&self) -> SpaceId {
        self.sim.space()
    }

    /// The effects since the last call, in order.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(crate) fn map_name(&self) -> &'static str {
        self.sim.map().name
    }

    /// The avatars here.
    pub(crate) fn avatars(&self) -> usize {
        self.players.len()
    }

    /// Whether this zone has no more to do here: it owns no part of the space, and all avatars and their inputs are
    /// elsewhere.
    pub(crate) fn is_finished(&self) -> bool {
        let owns_nothing = self.table.term != Term(0) && self.cell_epochs.is_empty();
        owns_nothing && self.is_empty() && self.handed_over.is_empty() && self.lost_spawns.is_empty()
    }

    /// Whether all avatars are saved and released.
    pub(crate) fn is_empty(&self) -> bool {
        self.players.len() == 0 && self.arrivals.is_empty()
    }

    /// Epoch of an avatar, and whether it plays here. `None`: it is not here.
    #[cfg(test)]
    pub(crate) fn player(&self, character: CharacterId) -> Option<(Epoch, bool)> {
        self.players.get(character).map(|player| (player.epoch, player.is_playing()))
    }

    /// The spawns whose homes this zone owns.
    #[cfg(test)]
    pub(crate) fn spawns(&self) -> Vec<shardkeep_sim::SpawnState> {
        self.sim.spawn_states().collect()
    }

    pub(crate) fn surroundings(&mut self, now: Instant, surroundings: Surroundings) {
        self.now = now;
        self.surroundings = surroundings;
        if surroundings.draining {
            self.draining_since.get_or_insert(now);
        }
    }

    /// Handles an event of a link.
    pub(crate) fn link_event(&mut self, now: Instant, event: LinkEvent) {
        self.now = now;
        self.handle_link_event(event);
    }

    /// Handles a call of another daemon, or the result of a call.
    pub(crate) fn command(&mut self, now: Instant, command: Command) {
        self.now = now;
        match command {
            Command::Admit { admission, term, reply } => {
                let answer = self.admit(*admission, term);
                self.reply_to(reply, Answer::Admitted(answer));
            }
            Command::Evict { character, epoch, reason, reply } => {
                self.evict(character, epoch, &reason, reply);
            }
            Command::Teleport { character, to, reply } => self.teleport(character, to, reply),
            Command::Offer { offered, reply } => {
                let answer = self.offered(*offered);
                self.reply_to(reply, Answer::Offered(answer));
            }
            Command::Settle { settlement, reply } => {
                self.settled(settlement);
                self.reply_to(reply, Answer::Settled);
            }
            Command::Observe { reply } => {
                self.reply_to(reply, Answer::Observed(Box::new(self.observe())));
            }
            Command::Peer { from, frame } => self.peer_frame(&from, frame),
            Command::FramesLost { zone, lost } => self.border.frames_lost(&zone, *lost),
            Command::JournalLost { records } => {
                if let Some(recorder) = &mut self.recorder {
                    recorder.lost(records, self.sim.now());
                }
            }
            Command::Partition(table) => self.partition(&table),
            Command::PresenceLost => self.presence.report_all(),
            Command::AiConnected(connected) => self.perceived_at = connected.then_some(now),
            Command::Intents(intents) => {
                metrics::intents(intents.len());
                self.apply(Input::Intents(intents));
            }
            Command::Ground { cells, items, generations } => {
                self.apply(Input::Ground { cells, items });
                self.populate_soon(cells, generations);
            }
            Command::TakeSnapshot { snapshot, reply } => {
                let answer = self.take_snapshot(snapshot);
                self.reply_to(reply, Answer::Done(answer));
            }
            Command::SpawnsGiven { numbers, answer } => self.lost_spawns.answered(now, &numbers, answer),
            Command::Committed { number, change, outcome, stale } => {
                self.committed(number, &change, outcome, stale);
            }
            Command::Handover { character, epoch, event } => self.handover_event(character, epoch, event),
            Command::Released { character, epoch } => self.released(character, epoch),
            Command::Saved { states, stale } => self.saved(&states, stale.as_deref()),
            Command::Loaded { character, row } => self.loaded(character, row.as_deref()),
        }
    }

    /// Sends the answers to everything that has arrived.
    pub(crate) fn answer(&mut self) {
        self.resync();
        self.flush();
    }

    /// Runs one tick. `wall_ms` is the time of the simulation. `ended` is called after each stage.
    pub(crate) fn step(&mut self, now: Instant, wall_ms: u64, ended: &mut dyn FnMut(Stage)) {
        self.now = now;
        self.tick += 1;
        if let Some(recorder) = &mut self.recorder {
            recorder.tick(wall_ms);
        }
        for event in self.sim.tick_observed(wall_ms, &mut |stage| ended(Stage::Sim(stage))) {
            self.sim_event(event);
        }
        ended(Stage::Events);
        self.advance_arrivals();
        self.advance_leaving();
        self.advance_spawns();
        self.send_snapshot();
        self.save_soft_state();
        ended(Stage::Upkeep);
        self.answer();
        self.effects.extend(self.border.frames(self.tick, &self.sim, &self.table, &self.me));
        self.effects.extend(self.presence.report(self.tick, &self.players, &self.sim));
        self.send_perceptions();
        self.report_population();
        let batch = self.recorder.as_mut().and_then(|recorder| recorder.end_tick(&self.sim));
        self.effects.extend(batch.map(Effect::Journal));
        ended(Stage::News);
    }

    /// Applies an input to the simulation and handles what it causes. Inputs that this causes follow in order; nothing is
    /// nested, however long the chain is.
    fn apply(&mut self, input: Input) {
        self.caused_inputs.push_back(input);
        if self.applying {
            return;
        }
        self.applying = true;
        while let Some(input) = self.caused_inputs.pop_front() {
            if let Some(recorder) = &mut self.recorder {
                recorder.input(&input);
            }
            for event in self.sim.apply(input) {
                self.sim_event(event);
            }
        }
        self.applying = false;
    }

    fn observe(&self) -> Observation {
        let map = self.sim.map();
        Observation {
            sectors: self.table.of(&self.me, self.id()).map(|sector| sector.cells).collect(),
            entities: self.sim.seen().filter(|seen| !seen.ghost).collect(),
            width_mm: map.width_mm().unsigned_abs(),
            height_mm: map.height_mm().unsigned_abs(),
        }
    }

    fn reply_to(&mut self, to: ReplyTo, answer: Answer) {
        self.effects.push(Effect::Answer { to, answer });
    }

    /// Answers when the avatar is there: in this space at once, in another one after a hand-over.
    fn teleport(&mut self, character: CharacterId, to: Position, reply: ReplyTo) {
        let result = match self.players.get(character) {
            None => Err(CommandError::NotFound("the character is not in this zone")),
            Some(player) if !player.is_playing() => {
                Err(CommandError::Unavailable("the character is leaving this zone: try again"))
            }
            Some(_) if to.space != self.id() => match self.begin_journey(character, to, Some(reply)) {
                Ok(()) => return,
                Err(error) => Err(error),
            },
            Some(_) if to.x_mm < 0 || to.y_mm < 0 || !self.sim.map().contains(to.cell()) => {
                Err(CommandError::Invalid("the position is not in this space"))
            }
            Some(_) => {
                self.apply(Input::Teleport { character, to });
                Ok(())
            }
        };
        self.reply_to(reply, Answer::Done(result));
    }

    /// Applies a new table. New cells need their ground; cells with a new epoch need a keyframe.
    fn partition(&mut self, table: &Arc<Table>) {
        let space = self.id();
        if !table.is_newer_than(&self.table) {
            tracing::debug!(term = %table.term, epoch = table.epoch, "an old partition is refused");
            return;
        }
        let old = std::mem::replace(&mut self.table, table.clone());
        let before: Vec<_> = old.of(&self.me, space).map(|sector| (sector.cells, sector.epoch)).collect();
        let owned: Vec<_> = table.of(&self.me, space).map(|sector| (sector.cells, sector.epoch)).collect();
        tracing::info!(term = %table.term, epoch = table.epoch, %space, sectors = owned.len(), "partition");
        self.apply(Input::Sectors(owned.iter().map(|(cells, _)| *cells).collect()));
        for (cells, _) in before.iter().filter(|sector| !owned.contains(sector)) {
            self.forget_waits(cells);
        }
        for (cells, _) in owned.iter().filter(|sector| !before.contains(sector)) {
            self.wait_for_spawns(*cells, &old);
            self.effects.push(Effect::LoadGround(*cells));
        }
        let epochs = table.cell_epochs(&self.me, space);
        for (&cell, epoch) in &epochs {
            if self.cell_epochs.get(&cell) != Some(epoch) {
                for ring in [Ring::Near, Ring::Outer] {
                    self.apply(Input::Keyframe { cell, ring });
                }
            }
        }
        self.cell_epochs = epochs;
        let is_closing = table.spaces.get(&space).is_some_and(|space| space.closing);
        self.exit = is_closing.then(|| table.exit()).flatten();
        self.effects.extend(self.border.update_neighbours(table, &old, &self.me, space));
        self.give_spawns();
    }

    /// Stores the gateway of a session. `None` if the session has no avatar here.
    fn attach(
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

    /// Publishes a cell update: encoded once, for all gateways that watch the cell.
    fn publish(&mut self, update: &CellUpdate) {
        let Some(&epoch) = self.cell_epochs.get(&update.cell) else { return };
        let message = publish::encode(update);
        metrics::published(update.ring, update.form == CellForm::Keyframe, message.payload.len());
        let (group, kind) =
            (publish::group(self.world, update.cell, update.ring), publish::kind(update.form));
        self.effects.push(Effect::Publish { group, epoch, kind, message });
    }

    /// Applies news of a neighbour.
    fn peer_frame(&mut self, from: &str, frame: Frame) {
        metrics::peer_frame("in");
        let Frame { ghosts, gone, effects, results, taken, rewarded, interest, stale } = frame;
        self.border.note_frame(from, &ghosts, interest, self.tick);
        ghosts.into_iter().for_each(|ghost| self.apply(Input::Ghost(ghost.state)));
        stale.into_iter().for_each(|cell| self.reload_ground(cell));
        gone.into_iter().for_each(|entity| self.apply(Input::GhostGone(entity)));
        taken.into_iter().for_each(|item| self.apply(Input::ItemTaken(item)));
        self.effects.extend(rewarded.into_iter().map(Effect::Load));
        for effect in effects {
            self.border.note_effect(effect.actor, from);
            self.apply(Input::Effect(effect));
        }
        results.into_iter().for_each(|result| self.apply(Input::EffectResult(result)));
    }

    fn send_perceptions(&mut self) {
        let Some(last) = self.perceived_at else { return };
        let elapsed = self.now.saturating_duration_since(last);
        if elapsed < self.config.think_interval {
            return;
        }
        self.perceived_at = Some(self.now);
        let creatures = self.sim.perceptions();
        if !creatures.is_empty() {
            let elapsed_ms = u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX);
            self.effects.push(Effect::Perceptions { tick: self.tick, elapsed_ms, creatures });
        }
    }

    fn report_population(&mut self) {
        if self.now < self.next_population_report {
            return;
        }
        self.next_population_report = self.now + POPULATION_INTERVAL;
        let creatures = self.sim.seen().filter(|seen| seen.kind == Kind::Creature && !seen.ghost).count();
        self.reported.population(self.players.len(), creatures, self.cell_epochs.len());
        self.reported.counts(self.sim.counts());
        let now = self.now;
        self.handover_retry_at.retain(|_, until| *until > now);
        self.bindings.remove_expired(now);
        self.handed_over.retain(|_, handed_over| !handed_over.is_expired(now));
    }
}
