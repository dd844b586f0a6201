//! Owns the parts of a world, and routes events and effects between them. Events come in; [`Effect`]s come out, in
//! order. Nothing here waits: [`crate::edge::actor`] owns the only instance.

use std::time::{Duration, Instant};

use shardkeep_link::{ClientMessage, LinkEvent, MessageKind, ServerMessage, SessionChange};
use shardkeep_types::{CELL_MM, CharacterId, EntityId, Epoch, InstanceId, SessionId, SpaceId, Term};
use shardkeep_wire::{
    opcode,
    payload::{Entered, ErrorCode},
};

use crate::{
    config::WorldConfig,
    domain::{
        effect::{Effect, Work},
        layout::{Layout, LayoutError},
        leadership::{Leadership, LeadershipChange, LeaseAnswer},
        partition::{LayoutCommand, LayoutCommandDone, Partition},
        placements::{PlaceError, Placement, Placements},
        players::{Effects, PlayEffect, PlayState, Players, SessionActivity},
        population::Population,
        presence::{Avatar, Presence},
        replies::{refusal, reply},
        request::ClientRequest,
        sessions::{Claim, Session, SessionError, Sessions},
        zone::ZoneView,
        zones::{View, Zones},
    },
};

/// How much longer than a lost session its avatar may stay.
const ORPHAN_GRACE: Duration = Duration::from_secs(10);

pub(crate) struct App {
    config: WorldConfig,
    leadership: Leadership,
    zones: Zones,
    sessions: Sessions,
    players: Players,
    presence: Presence,
    placements: Placements,
    out: Vec<Effect>,
}

impl App {
    pub(crate) fn new(config: WorldConfig) -> Self {
        Self {
            leadership: Leadership::default(),
            zones: Zones::new(config.first_layout(), config.max_migrations),
            sessions: Sessions::default(),
            players: Players::new(config.capacity),
            presence: Presence::default(),
            placements: Placements::default(),
            config,
            out: Vec::new(),
        }
    }

    /// The effects since the last call.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.out)
    }

    pub(crate) fn config(&self) -> &WorldConfig {
        &self.config
    }

    pub(crate) fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    pub(crate) fn zones(&self) -> &Zones {
        &self.zones
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    pub(crate) fn players(&self) -> &Players {
        &self.players
    }

    pub(crate) fn presence(&self) -> &Presence {
        &self.presence
    }

    pub(crate) fn view(&self) -> View {
        self.zones.view(self.leadership.lease())
    }

    fn is_leading(&self, now: Instant) -> bool {
        self.leadership.term(now).is_some()
    }
}

/// Leadership and time.
impl App {
    /// Stops admissions; sessions inside continue.
    pub(crate) fn drain(&mut self) {
        self.players.drain();
    }

    pub(crate) fn lease_reply(&mut self, now: Instant, sent_at: Instant, ttl: Duration, answer: LeaseAnswer) {
        match self.leadership.apply_answer(sent_at, ttl, answer) {
            Some(LeadershipChange::Gained(term)) => {
                tracing::info!(%term, "leading");
                self.clear_term_state();
                self.sessions = Sessions::of_term(now);
                let load = self.zones.load_layout(term);
                self.out.push(load);
            }
            Some(LeadershipChange::Lost(term)) => {
                tracing::warn!(%term, holder = self.leadership.holder(), "no longer leading");
                self.clear_term_state();
            }
            Some(LeadershipChange::Resumed(term)) => tracing::info!(%term, "leading again"),
            Some(LeadershipChange::Paused(_)) | None => {}
        }
    }

    fn clear_term_state(&mut self) {
        self.sessions = Sessions::default();
        self.players.clear();
        self.presence = Presence::default();
        self.placements.clear();
        self.zones.end_term();
        self.out.push(Effect::EndTerm);
    }

    /// Call this several times per second.
    pub(crate) fn tick(&mut self, now: Instant) {
        if let Some(LeadershipChange::Paused(term)) = self.leadership.tick(now) {
            tracing::warn!(%term, "the lease ran out unrenewed: nobody enters until it is renewed");
        }
        if self.leadership.is_standby() {
            return;
        }
        let gone = self.presence.sweep(now);
        self.publish_presence(Vec::new(), gone);
        if !self.is_leading(now) {
            return;
        }
        self.update_zones(now);
        for session in self.sessions.expired(now, self.config.link_loss) {
            self.end_session(now, session, "link lost");
        }
        self.replace_missing_avatars(now);
        self.release_orphans(now);
        self.admit(now);
        self.play(Players::queue_places);
        self.sessions.forget_ended(now, self.config.link_loss * 2);
    }

    /// Places the avatars again that no living zone has had for a while.
    fn replace_missing_avatars(&mut self, now: Instant) {
        let inside: Vec<_> = self.players.inside().collect();
        for (id, character) in inside {
            let avatar = self.presence.played(id, character);
            if avatar.is_some_and(|avatar| self.zones.is_alive(avatar.zone())) {
                self.placements.found(id);
            } else if self.placements.missing(now, id) {
                self.place(id, character);
            }
        }
    }

    /// Releases avatars and orphans that no session claims.
    fn release_orphans(&mut self, now: Instant) {
        let old = self.presence.older_than(now, self.config.link_loss + ORPHAN_GRACE);
        let old = old.map(|avatar| (avatar.character(), avatar.session()));
        let left = old.filter(|&(character, session)| !self.players.has_avatar(session, character));
        let orphans = self.placements.old_orphans(now, self.config.link_loss);
        for (character, session) in left.chain(orphans).collect::<Vec<_>>() {
            self.placements.forget_orphan(character);
            self.release_character(character, session, "nobody came for it");
        }
    }
}

/// Zones.
impl App {
    /// Updates the registry's view of this world's zones.
    pub(crate) fn zones_changed(&mut self, now: Instant, zones: Vec<ZoneView>) {
        self.zones.set_registered(zones);
        if self.is_leading(now) {
            self.update_zones(now);
        }
    }

    fn update_zones(&mut self, now: Instant) {
        let avatars = self.presence.iter().map(|avatar| (avatar.cell(), avatar.zone()));
        self.out.extend(self.zones.update(now, avatars));
    }

    /// The avatars in each sector of the stored layout.
    pub(crate) fn population(&self, partition: &Partition) -> Population {
        let avatars = self.presence.iter().map(|avatar| (avatar.cell(), avatar.zone()));
        Population::count(partition.layout(), avatars)
    }

    /// A zone has opened its stream of reports.
    pub(crate) fn zone_connected(&mut self, zone: &InstanceId, stream: u64) {
        self.zones.connected(zone, stream);
    }

    pub(crate) fn zone_disconnected(&mut self, now: Instant, zone: &InstanceId, stream: u64) {
        self.zones.disconnected(now, zone, stream);
    }

    /// A zone reports its avatars.
    pub(crate) fn presence_reported(
        &mut self,
        now: Instant,
        (zone, space): (&InstanceId, SpaceId),
        complete: bool,
        present: Vec<Avatar>,
        gone: &[CharacterId],
    ) {
        let present = self.presence.report(now, (zone, space), complete, present, gone);
        for avatar in &present {
            // After a hand-over the zones bind the session by themselves; the gateway ignores the repeat.
            if self.players.confirm(avatar.session(), avatar.character()) {
                self.bind(avatar);
            }
        }
        self.publish_presence(present, Vec::new());
    }

    /// The database has moved a dead zone's avatars. Binds the sessions of played avatars to their new zone.
    pub(crate) fn reowned(&mut self, now: Instant, avatars: &[(CharacterId, SessionId)]) {
        for &(character, session) in avatars {
            if self.players.confirm(session, character) {
                self.place(session, character);
            } else if self.players.get(session).is_none() {
                self.placements.add_orphan(now, character, session);
            } else if !self.players.has_avatar(session, character) {
                self.release_character(character, session, "left behind");
            }
            // Otherwise work in flight finds the character at its new owner.
        }
    }
}

/// The layout.
impl App {
    /// The database has the layout that earlier terms stored, or none.
    pub(crate) fn layout_loaded(&mut self, now: Instant, term: Term, layout: Option<Layout>) {
        if self.is_term(term) {
            self.out.extend(self.zones.layout_loaded(now, term, layout));
            self.update_zones(now);
        }
    }

    pub(crate) fn layout_stored(&mut self, term: Term, revision: u64) {
        if self.is_term(term) {
            self.out.extend(self.zones.layout_stored(revision));
        }
    }

    /// The database has another layout than this term knows, and nothing else was announced. Starts again from there.
    pub(crate) fn layout_refused(&mut self, term: Term) {
        if self.is_term(term) {
            let load = self.zones.load_layout(term);
            self.out.push(load);
        }
    }

    /// Plans a change of the layout for an operator.
    pub(crate) fn change_layout(&mut self, command: LayoutCommand) -> Result<LayoutCommandDone, LayoutError> {
        let (done, effects) = self.zones.change_layout(command)?;
        self.out.extend(effects);
        Ok(done)
    }

    fn is_term(&self, term: Term) -> bool {
        self.leadership.lease().is_some_and(|(current, _)| current == term)
    }
}

/// The sessions of the world: how they open, move between gateways and end, and how a new term learns of them.
impl App {
    /// A gateway presents a session. `activity` describes it before the world restarted.
    pub(crate) fn open_session(
        &mut self,
        now: Instant,
        id: SessionId,
        presented: Session,
        activity: SessionActivity,
    ) -> Result<Epoch, SessionError> {
        let is_repeat = presented.epoch() > Epoch(0);
        let (epoch, displaced) = self.sessions.open(id, presented)?;
        if let Some(displaced) = displaced {
            self.close_session(now, displaced, ErrorCode::Displaced, "logged in elsewhere");
        }
        match self.players.get(id) {
            None if is_repeat => {
                self.restore(now, id, activity);
                self.joined(id);
            }
            None => self.players.add(id),
            Some(_) => {}
        }
        Ok(epoch)
    }

    /// Restores the activity of a session that an earlier term knew, from its avatar or from its gateway.
    fn restore(&mut self, now: Instant, id: SessionId, activity: SessionActivity) {
        let orphan = self.placements.take_orphan(id);
        let known = orphan.or_else(|| self.presence.of_session(id).map(Avatar::character));
        self.players.restore(id, known.map_or(activity, SessionActivity::Inside));
        if let Some(character) = orphan {
            self.place(id, character);
        } else if known.is_none() && matches!(activity, SessionActivity::Inside(_)) {
            self.placements.lost(now, id);
        }
    }

    /// A gateway holds the session now, without data about this world; the world sends it.
    pub(crate) fn joined(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(id) else { return };
        self.out.push(Effect::Subscribe { gateway: session.announced_by().clone(), session: id });
        let inside = self.players.joined(id);
        if let Some(avatar) = inside.and_then(|character| self.presence.played(id, character)).cloned() {
            self.bind(&avatar);
        }
    }

    /// The session's avatar.
    pub(crate) fn avatar_of(&self, id: SessionId) -> Option<&Avatar> {
        self.presence.played(id, self.players.get(id)?.character()?)
    }

    pub(crate) fn claim(&mut self, now: Instant, id: SessionId, claim: Claim) -> Result<Epoch, SessionError> {
        self.sessions.claim(now, id, claim)
    }

    /// Ends a session that its gateway does not know yet.
    pub(crate) fn close_session(&mut self, now: Instant, id: SessionId, code: ErrorCode, detail: &str) {
        if let Some(session) = self.sessions.get(id) {
            let gateway = session.announced_by().clone();
            self.out.push(Effect::Close { gateway, session: id, code, detail: detail.to_owned() });
            let reason = if code == ErrorCode::Displaced { "displaced" } else { "kicked" };
            self.end_session(now, id, reason);
        }
    }

    pub(crate) fn end_session(&mut self, now: Instant, id: SessionId, reason: &'static str) {
        let Some(session) = self.sessions.end(now, id) else { return };
        let play = self.players.remove(id);
        self.placements.cancel(id);
        let avatar = self.presence.of_session(id).map(Avatar::character);
        let character = avatar.or_else(|| play.and_then(PlayState::avatar));
        if let Some(character) = character {
            self.release_character(character, id, reason);
        }
        self.out.push(Effect::ReportLeave {
            account: session.account(),
            session: id,
            character,
            why: reason,
        });
        self.admit(now);
    }

    /// Sends a line to all sessions.
    pub(crate) fn announce(&mut self, text: String) {
        self.out.push(Effect::Announce(text));
    }
}

/// Links to gateways.
impl App {
    /// Requests of a session that is unknown, or that another gateway holds, are refused.
    pub(crate) fn link_event(&mut self, now: Instant, event: LinkEvent) {
        match event {
            LinkEvent::Up { gateway, fresh: true } | LinkEvent::Down { gateway } => {
                self.sessions.detach_all(&gateway, now);
            }
            LinkEvent::Up { gateway, fresh: false } => self.sessions.attach_all(&gateway),
            LinkEvent::Deliver { gateway, session, session_epoch, messages } => {
                let is_held = self.sessions.is_held_by(session, &gateway, session_epoch);
                let is_known = is_held && !self.leadership.is_standby();
                for message in messages.iter().filter(|message| message.kind == MessageKind::Request) {
                    if is_known {
                        self.handle_request(now, session, message);
                    } else {
                        let text = "the world does not know the session yet";
                        let message = refusal(message.request, ErrorCode::Unavailable, text);
                        self.out.push(Effect::Send { gateway: gateway.clone(), session, message });
                    }
                }
            }
            LinkEvent::Session { gateway, event } => {
                let held = self.sessions.held(event.session, &gateway, event.session_epoch);
                match event.kind {
                    SessionChange::Joined if held => self.joined(event.session),
                    SessionChange::Left if held => self.end_session(now, event.session, "logged out"),
                    _ => {}
                }
            }
            LinkEvent::Bound { gateway, session, session_epoch, bind_epoch, .. } => {
                let held = self.sessions.held(session, &gateway, session_epoch);
                self.out.push(Effect::Ready { gateway, session, bind_epoch });
                if held {
                    self.joined(session);
                }
            }
            // The world publishes events only, which a hub does not keep.
            LinkEvent::Watched { .. } | LinkEvent::Unwatched { .. } | LinkEvent::KeyframeWanted { .. } => {}
        }
    }

    fn handle_request(&mut self, now: Instant, id: SessionId, message: &ClientMessage) {
        let request = message.request;
        let Some(account) = self.sessions.get(id).map(Session::account) else { return };
        match ClientRequest::parse(message, account, &self.config.reserved_names) {
            Ok(ClientRequest::ListCharacters) => {
                self.start(Work::ListCharacters { session: id, request, account });
            }
            Ok(ClientRequest::CreateCharacter { name, start }) => {
                self.start(Work::CreateCharacter { session: id, request, account, name, start });
            }
            Ok(ClientRequest::Enter(character)) => self.enter(now, id, request, character),
            Ok(ClientRequest::Leave) => self.play(|players| players.leave(id, request)),
            Err(refusal) => self.send(id, refusal),
        }
    }
}

/// Entering and leaving the world.
impl App {
    fn enter(&mut self, now: Instant, id: SessionId, request: u64, character: CharacterId) {
        let leading = self.is_leading(now);
        self.play(|players| players.enter(id, request, character, leading));
    }

    fn admit(&mut self, now: Instant) {
        let leading = self.is_leading(now);
        self.play(|players| players.admit(leading));
    }

    /// Starts to bring the session's character into a zone.
    fn place(&mut self, id: SessionId, character: CharacterId) {
        let Some(session) = self.sessions.get(id) else { return };
        let placement = self.placements.begin(id, session, character);
        self.start(Work::PlaceAvatar(placement));
    }

    /// Handles the result of a placement.
    pub(crate) fn placed(&mut self, now: Instant, placement: &Placement, result: Result<Avatar, PlaceError>) {
        let id = placement.session();
        if !self.placements.finish(placement) {
            let unused = self.players.get(id).is_none_or(|play| play == PlayState::Lobby);
            if self.placements.is_of_this_term(placement) && result.is_ok() && unused {
                self.release_character(placement.character(), id, "gone before it was in");
            }
            return;
        }
        match result {
            Ok(avatar) => {
                let character = avatar.character();
                if self.presence.upsert(now, avatar.clone()) {
                    self.publish_presence(vec![avatar.clone()], Vec::new());
                }
                self.bind(&avatar);
                if let Some(request) = self.players.placed(id, character) {
                    self.welcome(id, request, character);
                    let (account, zone) = (placement.account(), avatar.zone().name.clone());
                    self.out.push(Effect::ReportEnter { account, session: id, character, zone });
                }
            }
            Err(error) => {
                let leading = self.is_leading(now);
                if let Some(effects) = self.players.not_placed(id, error, leading) {
                    return self.play(|_| effects);
                }
                tracing::warn!(session = %id, %error, "an avatar did not get back into the world yet");
                self.placements.lost(now, id);
            }
        }
    }

    /// The character has no owner any more.
    pub(crate) fn released(&mut self, now: Instant, id: SessionId, character: CharacterId) {
        let leading = self.is_leading(now);
        self.play(|players| players.released(id, character, leading));
    }

    /// Removes an avatar from the world on behalf of its session.
    fn release_character(&mut self, character: CharacterId, session: SessionId, reason: &'static str) {
        if self.presence.remove_played(session, character) {
            self.publish_presence(Vec::new(), vec![character]);
        }
        self.start(Work::ReleaseCharacter { character, session, reason });
    }
}

/// Effects.
impl App {
    /// Changes the activity of sessions, and does what follows.
    fn play(&mut self, change: impl FnOnce(&mut Players) -> Effects) {
        for (id, effect) in change(&mut self.players) {
            match effect {
                PlayEffect::Send(message) => self.send(id, message),
                PlayEffect::Welcome { request, character } => self.welcome(id, request, character),
                PlayEffect::Place(character) => self.place(id, character),
                PlayEffect::Leave(character) => {
                    self.placements.cancel(id);
                    self.release_character(character, id, "left");
                    let Some(account) = self.sessions.get(id).map(Session::account) else { continue };
                    let (character, why) = (Some(character), "left");
                    self.out.push(Effect::ReportLeave { account, session: id, character, why });
                }
            }
        }
    }

    fn start(&mut self, work: Work) {
        self.out.push(Effect::Start(work));
    }

    /// Sends to the gateway that holds the session now. A message to an ended session is dropped.
    pub(crate) fn send(&mut self, id: SessionId, message: ServerMessage) {
        if let Some(session) = self.sessions.get(id) {
            let gateway = session.announced_by().clone();
            self.out.push(Effect::Send { gateway, session: id, message });
        }
    }

    fn welcome(&mut self, id: SessionId, request: u64, character: CharacterId) {
        let space = self.presence.played(id, character).map_or(SpaceId::FIRST, |avatar| avatar.cell().space);
        let Some(space) = self.zones.space(space).or_else(|| self.zones.space(SpaceId::FIRST)) else {
            return;
        };
        let (width, height) = space.size();
        let entered = Entered {
            character_id: character.0,
            entity_id: EntityId::avatar(character).0,
            map: space.map().to_owned(),
            space: space.id().0,
            width_mm: u32::from(width) * CELL_MM.unsigned_abs(),
            height_mm: u32::from(height) * CELL_MM.unsigned_abs(),
            cell_mm: CELL_MM.unsigned_abs(),
            tick_hz: space.tick_hz(),
        };
        self.send(id, reply(opcode::ENTER, request, &entered));
    }

    /// Binds the avatar's session to the zone that has the avatar.
    fn bind(&mut self, avatar: &Avatar) {
        let (id, zone, epoch) = (avatar.session(), avatar.zone().name.clone(), avatar.epoch());
        if let Some(session) = self.sessions.get(id) {
            let gateway = session.announced_by().clone();
            self.out.push(Effect::Bind { gateway, session: id, zone, epoch });
        }
    }

    fn publish_presence(&mut self, present: Vec<Avatar>, gone: Vec<CharacterId>) {
        if !present.is_empty() || !gone.is_empty() {
            self.out.push(Effect::Presence { present, gone });
        }
    }
}

#[cfg(test)]
mod tests;
