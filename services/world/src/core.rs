//! The world's state and decisions, without clock, socket or task. Events come in; [`Effect`]s come out, in order.
//! [`crate::actor`] owns the only instance.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use shardkeep_types::{CharacterId, MapId, SessionId, Term};

use crate::{
    config::WorldConfig,
    effect::{Effect, Work},
    leadership::{Leadership, LeadershipChange, LeaseAnswer},
    partition::{Health, Owner, Partition, ZoneView},
    presence::{Delta, Presence},
    queue::Queue,
    sessions::{PlayState, Sessions},
};

/// The map that every world has.
pub(crate) const MEADOW: MapId = MapId(1);

/// How long a zone may be disconnected from the world before it counts as dead, even if the registry lists it as up.
const DISCONNECT_GRACE: Duration = Duration::from_secs(2);

/// An avatar whose zone died and whose session has not been presented to this world yet.
#[derive(Debug)]
struct Orphan {
    session: SessionId,
    since: Instant,
}

pub(crate) struct Core {
    pub(crate) config: WorldConfig,
    pub(crate) leadership: Leadership,
    pub(crate) sessions: Sessions,
    pub(crate) queue: Queue,
    pub(crate) presence: Presence,
    pub(crate) partition: Option<Partition>,
    /// The zones of the registry; disconnected ones are marked gone.
    pub(crate) zones: Vec<ZoneView>,
    /// Sessions that have an avatar or are getting one.
    pub(crate) inside: usize,
    pub(crate) pending_placements: HashMap<SessionId, u64>,
    pub(crate) attempts: u64,
    /// Attempts up to this number began in an earlier term, so their results are ignored.
    pub(crate) previous_term_attempts: u64,
    /// Since when the session's avatar is missing.
    pub(crate) missing_since: HashMap<SessionId, Instant>,
    /// Ended sessions, so that a gateway that missed the end does not restore them.
    pub(crate) ended_sessions: HashMap<SessionId, Instant>,
    /// Begin of the present term.
    pub(crate) since: Option<Instant>,
    orphans: HashMap<CharacterId, Orphan>,
    registered: Vec<ZoneView>,
    streams: HashMap<Owner, u64>,
    disconnected_since: HashMap<Owner, Instant>,
    draining: bool,
    out: Vec<Effect>,
}

impl Core {
    pub(crate) fn new(config: WorldConfig) -> Self {
        Self {
            config,
            leadership: Leadership::default(),
            sessions: Sessions::default(),
            queue: Queue::default(),
            presence: Presence::default(),
            partition: None,
            zones: Vec::new(),
            inside: 0,
            pending_placements: HashMap::new(),
            attempts: 0,
            previous_term_attempts: 0,
            missing_since: HashMap::new(),
            ended_sessions: HashMap::new(),
            since: None,
            orphans: HashMap::new(),
            registered: Vec::new(),
            streams: HashMap::new(),
            disconnected_since: HashMap::new(),
            draining: false,
            out: Vec::new(),
        }
    }

    /// The effects since the last call.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.out)
    }

    pub(crate) fn push(&mut self, effect: Effect) {
        self.out.push(effect);
    }

    /// The term under which commands may be issued now.
    pub(crate) fn term(&self, now: Instant) -> Option<Term> {
        self.leadership.term(now)
    }

    /// Stops admissions; sessions inside continue.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
    }

    pub(crate) fn is_admitting(&self) -> bool {
        !self.draining
    }

    pub(crate) fn apply_lease_answer(
        &mut self,
        now: Instant,
        sent_at: Instant,
        ttl: Duration,
        answer: &LeaseAnswer,
    ) {
        match self.leadership.apply_answer(sent_at, ttl, answer) {
            Some(LeadershipChange::Gained(term)) => {
                tracing::info!(%term, "leading");
                self.begin_term(now);
            }
            Some(LeadershipChange::Lost(term)) => {
                tracing::warn!(%term, holder = answer.holder, "no longer leading");
                self.clear_term_state();
            }
            Some(LeadershipChange::Resumed(term)) => tracing::info!(%term, "leading again"),
            Some(LeadershipChange::Paused(_)) | None => {}
        }
    }

    /// Call this several times per second.
    pub(crate) fn tick(&mut self, now: Instant) {
        if let Some(LeadershipChange::Paused(term)) = self.leadership.tick(now) {
            tracing::warn!(%term, "the lease ran out unrenewed: nobody enters until it is renewed");
        }
        if self.leadership.is_standby() {
            return;
        }
        let delta = self.presence.sweep(now);
        self.publish_presence(delta);
        if self.term(now).is_none() {
            return;
        }
        self.follow_zones(now);
        for session in self.sessions.expired(now, self.config.link_loss) {
            self.end_session(now, session, "link lost");
        }
        self.replace_missing_avatars(now);
        self.release_orphans(now);
        self.admit_from_queue(now);
        self.send_queue_places();
        let kept = self.config.link_loss * 2;
        self.ended_sessions.retain(|_, since| now.saturating_duration_since(*since) < kept);
    }

    fn begin_term(&mut self, now: Instant) {
        self.clear_term_state();
        self.since = Some(now);
        let side = self.config.map_cells;
        self.partition = Some(Partition::new(MEADOW, side, side, self.config.sectors, now));
        self.push(Effect::Partition);
        self.follow_zones(now);
    }

    fn clear_term_state(&mut self) {
        self.sessions = Sessions::default();
        self.queue = Queue::default();
        self.presence = Presence::default();
        self.partition = None;
        self.inside = 0;
        self.pending_placements.clear();
        self.previous_term_attempts = self.attempts;
        self.missing_since.clear();
        self.since = None;
        self.orphans.clear();
        self.ended_sessions.clear();
        self.disconnected_since.clear();
        self.push(Effect::EndTerm);
    }

    /// Updates the registry's view of this world's zones.
    pub(crate) fn zones_changed(&mut self, now: Instant, zones: Vec<ZoneView>) {
        self.registered = zones;
        if self.term(now).is_some() {
            self.follow_zones(now);
        }
    }

    /// A zone has opened its stream of reports.
    pub(crate) fn zone_connected(&mut self, zone: &Owner, stream: u64) {
        self.streams.insert(zone.clone(), stream);
        self.disconnected_since.remove(zone);
    }

    /// A stream has ended. A stream that another one has replaced is ignored.
    pub(crate) fn zone_disconnected(&mut self, now: Instant, zone: &Owner, stream: u64) {
        if self.streams.get(zone) == Some(&stream) {
            self.streams.remove(zone);
            self.disconnected_since.insert(zone.clone(), now);
        }
    }

    fn follow_zones(&mut self, now: Instant) {
        let registered = &self.registered;
        self.disconnected_since.retain(|owner, _| registered.iter().any(|zone| zone.owner == *owner));
        let disconnected_since = &self.disconnected_since;
        let dead = |owner: &Owner| {
            disconnected_since
                .get(owner)
                .is_some_and(|&since| now.saturating_duration_since(since) >= DISCONNECT_GRACE)
        };
        self.zones = registered.clone();
        for zone in self.zones.iter_mut().filter(|zone| dead(&zone.owner)) {
            zone.health = Health::Gone;
        }
        let Some(partition) = &mut self.partition else { return };
        let step = partition.update(now, &self.zones);
        if step.changed {
            self.push(Effect::Partition);
        }
        for (dead, successor) in step.reown {
            tracing::warn!(
                dead = dead.name,
                incarnation = dead.incarnation,
                successor = successor.name,
                "a zone's avatars move"
            );
            self.push(Effect::Start(Work::Reown { dead, successor }));
        }
    }

    pub(crate) fn zone_is_alive(&self, owner: &Owner) -> bool {
        self.zones.iter().any(|zone| zone.owner == *owner && zone.health != Health::Gone)
    }

    pub(crate) fn set_play(&mut self, id: SessionId, play: PlayState) {
        if let Some(session) = self.sessions.get_mut(id) {
            self.inside += usize::from(play.holds_avatar());
            self.inside -= usize::from(session.play.holds_avatar());
            session.play = play;
        }
    }

    pub(crate) fn publish_presence(&mut self, delta: Delta) {
        if !delta.is_empty() {
            self.push(Effect::Presence(delta));
        }
    }

    pub(crate) fn adopt_orphan(&mut self, now: Instant, character: CharacterId, session: SessionId) {
        self.orphans.insert(character, Orphan { session, since: now });
    }

    pub(crate) fn forget_orphan(&mut self, character: CharacterId) {
        self.orphans.remove(&character);
    }

    pub(crate) fn orphan_of(&self, session: SessionId) -> Option<CharacterId> {
        self.orphans.iter().find(|(_, orphan)| orphan.session == session).map(|(&character, _)| character)
    }

    pub(crate) fn expired_orphans(&self, now: Instant) -> Vec<(CharacterId, SessionId)> {
        let old = |orphan: &Orphan| now.saturating_duration_since(orphan.since) >= self.config.link_loss;
        self.orphans
            .iter()
            .filter(|(_, orphan)| old(orphan))
            .map(|(&character, orphan)| (character, orphan.session))
            .collect()
    }
}
