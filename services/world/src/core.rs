//! The world's whole state and every decision about it, without a clock, a socket or a task: what happened comes
//! in, what is to be done comes out as [`Effect`]s in order. [`crate::actor`] owns the one instance.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use shardkeep_cluster::link::{GatewayId, ServerMessage};
use shardkeep_types::{AccountId, CharacterId, Epoch, MapId, Position, SessionId, Term};
use shardkeep_wire::payload::ErrorCode;

use crate::{
    config::WorldConfig,
    leadership::{Answer, Change, Leadership},
    partition::{Health, Owner, Partition, ZoneView},
    presence::{Avatar, Delta, Presence},
    queue::Queue,
    sessions::{Claim, Play, Presented, Session, SessionError, Sessions},
};

/// The map every world has.
pub(crate) const MEADOW: MapId = MapId(1);

/// How long a zone may be cut off from the world before it counts as dead, whatever the registry says.
const CUT_OFF: Duration = Duration::from_secs(2);
/// Ended sessions remembered, so that a gateway that did not hear of the end does not bring them back.
const ENDED_KEPT: usize = 16_384;

/// Something to do, in the order said.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    Send {
        gateway: GatewayId,
        session: SessionId,
        message: ServerMessage,
    },
    /// Let the session hear what is said to the whole world.
    Listen {
        gateway: GatewayId,
        session: SessionId,
    },
    Bind {
        gateway: GatewayId,
        session: SessionId,
        zone: String,
        epoch: Epoch,
    },
    Close {
        gateway: GatewayId,
        session: SessionId,
        code: ErrorCode,
        detail: String,
    },
    Start(Work),
    /// Tell the zones the partition.
    Partition,
    /// Tell those who watch.
    Presence(Delta),
    /// A line to everybody.
    Announce(String),
    /// The term is over: whoever streams from here must ask the new leader.
    Abdicate,
    Report(PlayerEvent),
}

/// What takes time; its result comes back to the core.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Work {
    ListCharacters {
        session: SessionId,
        request: u64,
        account: AccountId,
    },
    CreateCharacter {
        session: SessionId,
        request: u64,
        account: AccountId,
        name: String,
        start: Position,
    },
    /// Brings a character into the zone of its place, or back to the zone that has it.
    Place(Placement),
    /// The session is done with the character, wherever it is.
    LetGo {
        character: CharacterId,
        session: SessionId,
        reason: &'static str,
    },
    Reown {
        dead: Owner,
        heir: Owner,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Placement {
    pub(crate) attempt: u64,
    pub(crate) session: SessionId,
    pub(crate) session_epoch: Epoch,
    pub(crate) account: AccountId,
    pub(crate) character: CharacterId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happened {
    Enter,
    Leave,
}

/// A line of the players' log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PlayerEvent {
    pub(crate) what: Happened,
    pub(crate) account: AccountId,
    pub(crate) session: SessionId,
    pub(crate) character: Option<CharacterId>,
    pub(crate) detail: String,
}

/// An avatar whose zone died and whose session has not been told to this world yet.
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
    /// As the registry tells, with those that are cut off marked gone.
    pub(crate) zones: Vec<ZoneView>,
    /// Sessions with an avatar, or about to have one.
    pub(crate) inside: usize,
    pub(crate) placing: HashMap<SessionId, u64>,
    pub(crate) attempts: u64,
    /// Since when a session's avatar is not where it should be.
    pub(crate) astray: HashMap<SessionId, Instant>,
    orphans: HashMap<CharacterId, Orphan>,
    ended: HashMap<SessionId, Instant>,
    registered: Vec<ZoneView>,
    streams: HashMap<Owner, u64>,
    cut_off: HashMap<Owner, Instant>,
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
            placing: HashMap::new(),
            attempts: 0,
            astray: HashMap::new(),
            orphans: HashMap::new(),
            ended: HashMap::new(),
            registered: Vec::new(),
            streams: HashMap::new(),
            cut_off: HashMap::new(),
            draining: false,
            out: Vec::new(),
        }
    }

    /// What is to be done since the last call.
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

    /// Nobody enters any more; everything else goes on until the end.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
    }

    pub(crate) fn admits(&self) -> bool {
        !self.draining
    }

    pub(crate) fn lead_answered(&mut self, now: Instant, asked: Instant, ttl: Duration, answer: &Answer) {
        match self.leadership.answered(asked, ttl, answer) {
            Some(Change::Gained(term)) => {
                tracing::info!(%term, "leading");
                self.begin_term(now);
            }
            Some(Change::Lost(term)) => {
                tracing::warn!(%term, holder = answer.holder, "no longer leading");
                self.forget_everything();
            }
            Some(Change::Resumed(term)) => tracing::info!(%term, "leading again"),
            Some(Change::Paused(_)) | None => {}
        }
    }

    /// To be called a few times a second.
    pub(crate) fn tick(&mut self, now: Instant) {
        if let Some(Change::Paused(term)) = self.leadership.tick(now) {
            tracing::warn!(%term, "the lease ran out unrenewed: nobody enters until it is renewed");
        }
        if self.leadership.is_standby() {
            return;
        }
        let delta = self.presence.sweep(now);
        self.tell(delta);
        if self.term(now).is_none() {
            return;
        }
        self.follow_zones(now);
        for session in self.sessions.expired(now, self.config.link_loss) {
            self.end_session(now, session, "link lost");
        }
        self.find_the_astray(now);
        self.release_the_forsaken(now);
        self.pump(now);
        self.tell_places();
        let kept = self.config.link_loss * 2;
        self.ended.retain(|_, since| now.saturating_duration_since(*since) < kept);
    }

    fn begin_term(&mut self, now: Instant) {
        self.forget_everything();
        let side = self.config.map_cells;
        self.partition = Some(Partition::new(MEADOW, side, side, self.config.sectors, now));
        self.push(Effect::Partition);
        self.follow_zones(now);
    }

    fn forget_everything(&mut self) {
        self.sessions = Sessions::default();
        self.queue = Queue::default();
        self.presence = Presence::default();
        self.partition = None;
        self.inside = 0;
        self.placing.clear();
        self.astray.clear();
        self.orphans.clear();
        self.ended.clear();
        self.cut_off.clear();
        self.push(Effect::Abdicate);
    }

    /// The registry's view of this world's zones.
    pub(crate) fn zones_changed(&mut self, now: Instant, zones: Vec<ZoneView>) {
        self.registered = zones;
        if self.term(now).is_some() {
            self.follow_zones(now);
        }
    }

    /// A zone's stream of reports began.
    pub(crate) fn zone_connected(&mut self, zone: &Owner, stream: u64) {
        self.streams.insert(zone.clone(), stream);
        self.cut_off.remove(zone);
    }

    /// A stream broke; one that was replaced already does not count.
    pub(crate) fn zone_disconnected(&mut self, now: Instant, zone: &Owner, stream: u64) {
        if self.streams.get(zone) == Some(&stream) {
            self.streams.remove(zone);
            self.cut_off.insert(zone.clone(), now);
        }
    }

    fn follow_zones(&mut self, now: Instant) {
        let registered = &self.registered;
        self.cut_off.retain(|owner, _| registered.iter().any(|zone| zone.owner == *owner));
        let cut_off = &self.cut_off;
        let dead = |owner: &Owner| {
            cut_off.get(owner).is_some_and(|&since| now.saturating_duration_since(since) >= CUT_OFF)
        };
        self.zones = registered.clone();
        for zone in self.zones.iter_mut().filter(|zone| dead(&zone.owner)) {
            zone.health = Health::Gone;
        }
        let Some(partition) = &mut self.partition else { return };
        let step = partition.follow(now, &self.zones);
        if step.changed {
            self.push(Effect::Partition);
        }
        for (dead, heir) in step.reown {
            tracing::warn!(
                dead = dead.name,
                incarnation = dead.incarnation,
                heir = heir.name,
                "a zone's avatars move"
            );
            self.push(Effect::Start(Work::Reown { dead, heir }));
        }
    }

    pub(crate) fn zone_lives(&self, owner: &Owner) -> bool {
        self.zones.iter().any(|zone| zone.owner == *owner && zone.health != Health::Gone)
    }

    /// A gateway presents a session. `character` and `queue_place` are what it was doing before the world restarted.
    pub(crate) fn open_session(
        &mut self,
        now: Instant,
        presented: Presented,
        doing: &Doing,
    ) -> Result<Epoch, SessionError> {
        let id = presented.session;
        if self.ended.contains_key(&id) {
            return Err(SessionError::Ended);
        }
        let (again, known) = (presented.epoch > Epoch(0), self.sessions.get(id).is_some());
        let (epoch, displaced) = self.sessions.open(presented)?;
        if let Some(displaced) = displaced {
            self.close_session(now, displaced, ErrorCode::Displaced, "logged in elsewhere");
        }
        if again && !known {
            self.restore(now, id, doing);
            self.joined(id);
        }
        Ok(epoch)
    }

    /// What a session that an earlier term knew was doing: its avatar tells, or the gateway.
    fn restore(&mut self, now: Instant, id: SessionId, doing: &Doing) {
        self.set_play(id, Play::Restored);
        let orphan =
            self.orphans.iter().find(|(_, orphan)| orphan.session == id).map(|(&character, _)| character);
        if let Some(character) = orphan {
            self.orphans.remove(&character);
            self.set_play(id, Play::Inside { character });
            self.place(id);
        } else if let Some(avatar) = self.presence.of_session(id) {
            let character = avatar.character;
            self.set_play(id, Play::Inside { character });
        } else if let Some(character) = doing.character {
            self.set_play(id, Play::Inside { character });
            self.astray.insert(id, now);
        } else if doing.queue_place > 0 {
            // Its client repeats the Enter; until then the place is kept.
            self.queue.rejoin(id, doing.queue_place);
        }
    }

    /// A gateway holds the session now, with an empty slate: what it needs to know of this world.
    pub(crate) fn joined(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(id) else { return };
        let (gateway, play) = (session.gateway.clone(), session.play);
        self.push(Effect::Listen { gateway: gateway.clone(), session: id });
        match play {
            Play::Inside { character } => {
                if let Some(avatar) = self.presence.get(character).filter(|avatar| avatar.session == id) {
                    let (zone, epoch) = (avatar.zone.name.clone(), avatar.epoch);
                    self.push(Effect::Bind { gateway, session: id, zone, epoch });
                }
            }
            Play::Queued { .. } => self.queue.join(id),
            _ => {}
        }
    }

    pub(crate) fn find_session(&self, id: SessionId) -> Result<(&Session, Option<&Avatar>), SessionError> {
        let session = self.sessions.get(id).ok_or(SessionError::Unknown)?;
        let avatar = session.play.character().and_then(|character| self.presence.get(character));
        Ok((session, avatar.filter(|avatar| avatar.session == id)))
    }

    pub(crate) fn claim_session(&mut self, claim: Claim) -> Result<Epoch, SessionError> {
        self.sessions.claim(claim)
    }

    pub(crate) fn set_play(&mut self, id: SessionId, play: Play) {
        if let Some(session) = self.sessions.get_mut(id) {
            self.inside += usize::from(play.holds_avatar());
            self.inside -= usize::from(session.play.holds_avatar());
            session.play = play;
        }
    }

    /// Ends a session that its gateway knows nothing of yet.
    pub(crate) fn close_session(&mut self, now: Instant, id: SessionId, code: ErrorCode, detail: &str) {
        if let Some(session) = self.sessions.get(id) {
            let gateway = session.gateway.clone();
            self.push(Effect::Close { gateway, session: id, code, detail: detail.to_owned() });
            let reason = if code == ErrorCode::Displaced { "displaced" } else { "kicked" };
            self.end_session(now, id, reason);
        }
    }

    pub(crate) fn end_session(&mut self, now: Instant, id: SessionId, reason: &'static str) {
        let Some(session) = self.sessions.remove(id) else { return };
        self.inside -= usize::from(session.play.holds_avatar());
        self.queue.remove(id);
        self.placing.remove(&id);
        self.astray.remove(&id);
        if self.ended.len() < ENDED_KEPT {
            self.ended.insert(id, now);
        }
        let avatar = self.presence.of_session(id).map(|avatar| avatar.character);
        let character = avatar.or_else(|| session.play.character().filter(|_| session.play.holds_avatar()));
        if let Some(character) = character {
            self.let_go(character, id, reason);
        }
        self.push(Effect::Report(PlayerEvent {
            what: Happened::Leave,
            account: session.account,
            session: id,
            character,
            detail: reason.to_owned(),
        }));
        self.pump(now);
    }

    /// Takes an avatar out of the world on behalf of the session that had it.
    pub(crate) fn let_go(&mut self, character: CharacterId, session: SessionId, reason: &'static str) {
        if self.presence.get(character).is_some_and(|avatar| avatar.session == session) {
            let delta = self.presence.remove(character);
            self.tell(delta);
        }
        self.push(Effect::Start(Work::LetGo { character, session, reason }));
    }

    pub(crate) fn tell(&mut self, delta: Delta) {
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

    pub(crate) fn old_orphans(&self, now: Instant) -> Vec<(CharacterId, SessionId)> {
        let old = |orphan: &Orphan| now.saturating_duration_since(orphan.since) >= self.config.link_loss;
        self.orphans
            .iter()
            .filter(|(_, orphan)| old(orphan))
            .map(|(&character, orphan)| (character, orphan.session))
            .collect()
    }
}

/// What a gateway says a session was doing when the world it was in went away.
#[derive(Debug, Default)]
pub(crate) struct Doing {
    pub(crate) character: Option<CharacterId>,
    /// From 1; 0: not in the queue.
    pub(crate) queue_place: u32,
}
