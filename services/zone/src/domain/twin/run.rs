//! The course of the twin: everything that happens, in the order of virtual time.

use super::*;
use crate::domain::{
    command::SpawnsAnswer,
    payload::{Destination, OfferedAvatar, Settlement, SoftState},
    twin::bot::Heard,
};

impl Twin {
    /// Runs until this virtual time in milliseconds.
    pub(super) fn run_until(&mut self, until_ms: u64) {
        while let Some((&(at, number), _)) = self.happenings.first_key_value() {
            if at > until_ms * 1_000 {
                break;
            }
            let happening = self.happenings.remove(&(at, number));
            self.now_us = at;
            if let Some(happening) = happening {
                self.trace(&happening);
                self.happen(happening);
            }
        }
        self.now_us = until_ms * 1_000;
    }

    /// With `SHARDKEEP_TWIN_TRACE`, prints everything that happens, except ticks and news of neighbours.
    fn trace(&self, happening: &Happening) {
        let is_frequent = matches!(
            happening,
            Happening::BotActs(_)
                | Happening::Zone { delivery: Delivery::Tick | Delivery::Command(Command::Peer { .. }), .. }
        );
        if self.traced && !is_frequent {
            println!("{:>9.3} ms  {happening:?}", self.now_us as f64 / 1_000.0);
        }
    }

    /// Ends faults and new actions.
    pub(super) fn quiet(&mut self) {
        self.quiet = true;
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Zone { zone, incarnation, delivery } => {
                if self.zones[zone].incarnation != incarnation {
                    return;
                }
                match &mut self.zones[zone].stopped {
                    Some(waiting) => waiting.push_back(delivery),
                    None => self.deliver(zone, delivery),
                }
            }
            Happening::Database { zone, owner, request } => self.ask_database(zone, &owner, request),
            Happening::Bind { session, zone, epoch } => self.bind(session, &zone, epoch),
            Happening::Ready { session, bind_epoch } => self.ready(session, bind_epoch),
            Happening::ToClient { session, messages } => self.client_hears(session, &messages),
            Happening::BotActs(session) => self.bot_acts(session),
            Happening::Replace { zone, incarnation } => self.replace(zone, incarnation),
            Happening::Restart(zone) => {
                if self.zones[zone].space.is_none() {
                    self.start_zone(zone);
                    self.publish_halves();
                }
            }
            Happening::Resume(zone) => self.resume(zone),
            Happening::AdmitAgain(character) => self.admit(character),
            Happening::Fault => self.fault(),
            Happening::Mirrored { to, from, snapshot } => {
                self.zones[to].mirror.keep(from, SpaceId::FIRST, snapshot);
            }
            Happening::MoveSectors => self.move_sectors(),
        }
    }

    fn deliver(&mut self, zone: usize, delivery: Delivery) {
        let (now, wall_ms) = (self.now(), self.wall_ms());
        let node = &mut self.zones[zone];
        let Some(space) = &mut node.space else { return };
        match delivery {
            Delivery::Tick => {
                space.step(now, wall_ms, &mut |_| {});
                let incarnation = node.incarnation;
                let tick = Happening::Zone { zone, incarnation, delivery: Delivery::Tick };
                self.happen_in(TICK_US, tick);
            }
            Delivery::Link(event) => space.link_event(now, event),
            Delivery::Command(command) => space.command(now, command),
            Delivery::Call { from, command } => {
                node.last_reply += 1;
                let reply = ReplyTo(node.last_reply);
                node.callers.insert(reply, from);
                let command = match command {
                    CallBody::Admit(admission) => Command::Admit { admission, term: Term(1), reply },
                    CallBody::Offer(offered) => Command::Offer { offered, reply },
                    CallBody::Settle(settlement) => Command::Settle { settlement, reply },
                    CallBody::TakeSnapshot(snapshot) => Command::TakeSnapshot { snapshot, reply },
                };
                space.command(now, command);
            }
        }
        self.carry_out(zone);
        self.watch_creatures(zone);
    }

    /// A creature keeps its wounds, also when its sector moves. The death of a zone brings back the state of its last
    /// snapshot, and no older one.
    fn watch_creatures(&mut self, zone: usize) {
        let Some(space) = self.zones[zone].space.as_ref().filter(|_| self.setup.watches_creatures()) else {
            return;
        };
        let killed_at_us = self.killed_at_us.unwrap_or(u64::MAX);
        let oldest_us = killed_at_us.min(self.now_us).saturating_sub(SNAPSHOT_AGE_US);
        for spawn in space.spawns() {
            let Some(creature) = spawn.creature else { continue };
            let key = (spawn.number, spawn.generation);
            let seen = self.creatures.entry(key).or_default();
            let restores = self.killed_at_us.is_some();
            let known = seen.iter().rev().take_while(|(at, _)| restores && *at >= oldest_us);
            let before = seen.last().map_or(creature.health, |(_, health)| *health);
            if creature.health > before && !known.into_iter().any(|(_, health)| *health == creature.health) {
                let healed = (before, creature.health);
                self.faults.push(format!("creature {key:?} was healed: {healed:?} in zone {zone}"));
            }
            if creature.health > before {
                self.restored += 1;
            }
            self.hurt_after_move += u64::from(self.moved > 0 && creature.health < 60);
            seen.push((self.now_us, creature.health));
        }
    }

    fn move_sectors(&mut self) {
        if self.quiet {
            return;
        }
        self.happen_in(2_500_000, Happening::MoveSectors);
        self.moved += 1;
        if self.is_alive(0) || self.is_alive(1) {
            self.publish_halves();
        }
    }

    /// Answers what has arrived, and carries out the effects.
    fn carry_out(&mut self, zone: usize) {
        let Some(space) = &mut self.zones[zone].space else { return };
        space.answer();
        for effect in space.take_effects() {
            self.execute(zone, effect);
        }
    }

    fn execute(&mut self, zone: usize, effect: Effect) {
        match effect {
            Effect::Send { session, messages, .. } => self.tell_client(session, messages),
            Effect::Bind { session, zone: to, epoch, .. } => {
                self.in_order(zone, 9, Happening::Bind { session, zone: to, epoch });
            }
            Effect::Ready { session, bind_epoch, .. } => {
                self.in_order(zone, 9, Happening::Ready { session, bind_epoch });
            }
            Effect::Answer { to, answer } => self.answer(zone, to, answer),
            Effect::Commit { job, fences } => {
                if self.setup.early_acknowledgement {
                    let possessions =
                        fences.iter().map(|(character, _)| (*character, Possessions::default())).collect();
                    let outcome = Outcome::Done { applied: true, minted: Vec::new(), possessions };
                    let (number, change) = (job.number, job.change.clone());
                    self.back_to(zone, Command::Committed { number, change, outcome, stale: false });
                }
                self.ask_in_time(zone, Request::Commit { job, fences });
            }
            Effect::Recall { job } => self.ask_in_time(zone, Request::Recall(job)),
            Effect::Save(states) => self.ask_in_time(zone, Request::Save(states)),
            Effect::Release(state) => self.ask_in_time(zone, Request::Release(state)),
            Effect::Load(character) => self.ask_in_time(zone, Request::Load(character)),
            Effect::Transfer { to, state } => {
                let to = (to.name.clone(), to.incarnation);
                self.ask_in_time(zone, Request::Transfer { to, state });
            }
            Effect::LoadGround(cells) => {
                let ground = self.database.ground().into_iter();
                let here = ground.filter(|(_, at)| cells.contains(at.cell()));
                let item = |id| shardkeep_sim::Item { id, template: 1, count: 1 };
                let items = here.map(|(id, at)| (item(id), at)).collect();
                let command = Command::Ground { cells, items, generations: BTreeMap::new() };
                self.back_to(zone, command);
            }
            Effect::Offer { to, offered } => self.offer(zone, &to.name, to.incarnation, offered),
            Effect::Settle { to, settlement } => self.settle(&to.name, to.incarnation, &settlement),
            Effect::GiveSpawns { to, spawns } => self.give_spawns(zone, &to.name, to.incarnation, spawns),
            Effect::Mirror { to, snapshot } => self.mirror(zone, &to.name, snapshot),
            Effect::Frame { zone: to, frame } => {
                let (from, lost) = (zone_name(zone), self.chance(self.setup.loss_percent));
                if let Some(to) = self.zone_named(&to).filter(|_| !lost) {
                    let incarnation = self.zones[to].incarnation;
                    let delivery = Delivery::Command(Command::Peer { from, frame });
                    self.in_order(zone, to, Happening::Zone { zone: to, incarnation, delivery });
                }
            }
            // The world binds the session again, in case that the zones did not.
            Effect::Presence(report) => {
                for present in report.present {
                    let (session, zone) = (present.session, zone_name(zone));
                    self.in_order(8, 9, Happening::Bind { session, zone, epoch: present.epoch });
                }
            }
            Effect::Close { session, .. } => self.faults.push(format!("session {session} was closed")),
            Effect::Subscribe { .. }
            | Effect::Publish { .. }
            | Effect::OpenNeighbour { .. }
            | Effect::Entered { .. }
            | Effect::Left(_)
            | Effect::CloseNeighbour { .. }
            | Effect::Perceptions { .. }
            | Effect::Journal(_) => {}
        }
    }

    fn ask_in_time(&mut self, zone: usize, request: Request) {
        let (owner, delay) = (self.owner(zone), self.delay());
        self.happen_in(delay, Happening::Database { zone, owner, request });
    }

    /// An answer of another daemon to the process that asked.
    fn back_to(&mut self, zone: usize, command: Command) {
        let (incarnation, delay) = (self.zones[zone].incarnation, self.delay());
        let delivery = Delivery::Command(command);
        self.happen_in(delay, Happening::Zone { zone, incarnation, delivery });
    }

    fn ask_database(&mut self, zone: usize, owner: &Owner, request: Request) {
        let incarnation = owner.1;
        let command = match request {
            Request::Commit { job, fences } => {
                let (outcome, stale) = self.database.commit(owner, &job.change, &fences);
                Command::Committed { number: job.number, change: job.change, outcome, stale }
            }
            Request::Recall(job) => {
                let outcome = self.database.recall(&job.change);
                Command::Committed { number: job.number, change: job.change, outcome, stale: false }
            }
            Request::Save(states) => {
                let stale = Some(self.database.save(owner, &states));
                let name = |state: &SoftState| (state.character, state.epoch);
                Command::Saved { states: states.iter().map(name).collect(), stale }
            }
            Request::Release(state) => {
                self.database.save(owner, &[state]);
                Command::Released { character: state.character, epoch: state.epoch }
            }
            Request::Load(character) => {
                Command::Loaded { character, row: self.database.load(character).map(Box::new) }
            }
            Request::Transfer { to, state } => {
                let event = match self.database.transfer(owner, &to, &state) {
                    Some(epoch) => {
                        self.transfers += 1;
                        SourceEvent::Committed(epoch)
                    }
                    None => SourceEvent::Lost,
                };
                Command::Handover { character: state.character, epoch: state.epoch, event }
            }
        };
        let delay = self.delay();
        let delivery = Delivery::Command(command);
        self.happen_in(delay, Happening::Zone { zone, incarnation, delivery });
    }

    fn offer(&mut self, zone: usize, to: &str, incarnation: u64, offered: Box<OfferedAvatar>) {
        let entering = &offered.admission.entering;
        let (character, epoch) = (entering.character, entering.epoch);
        let source = self.zones[zone].incarnation;
        let from = Caller::Zone { zone, incarnation: source, character, epoch };
        // The caller gives up, whether the offer has arrived or not.
        let event = SourceEvent::Refused;
        let timeout = Delivery::Command(Command::Handover { character, epoch, event });
        self.happen_in(OFFER_TIMEOUT_US, Happening::Zone { zone, incarnation: source, delivery: timeout });
        if self.chance(self.setup.loss_percent) {
            return;
        }
        if let Some(to) = self.zone_named(to) {
            let delay = self.delay();
            let delivery = Delivery::Call { from, command: CallBody::Offer(offered) };
            self.happen_in(delay, Happening::Zone { zone: to, incarnation, delivery });
        }
    }

    fn give_spawns(&mut self, zone: usize, to: &str, incarnation: u64, spawns: Vec<SpawnState>) {
        let numbers: Vec<u32> = spawns.iter().map(|spawn| spawn.number).collect();
        let source = self.zones[zone].incarnation;
        let from = Caller::Spawns { zone, incarnation: source, numbers: numbers.clone() };
        let timeout = Delivery::Command(Command::SpawnsGiven { numbers, answer: SpawnsAnswer::Unknown });
        let timeout = Happening::Zone { zone, incarnation: source, delivery: timeout };
        self.happen_in(SPAWNS_TIMEOUT_US, timeout);
        if self.chance(self.setup.loss_percent) {
            return;
        }
        if let Some(to) = self.zone_named(to) {
            let delay = self.delay();
            let mut spawns = spawns;
            if self.setup.without_creatures {
                spawns.iter_mut().for_each(|spawn| spawn.creature = None);
            }
            let snapshot = Snapshot { spawns, avatars: Vec::new() };
            let delivery = Delivery::Call { from, command: CallBody::TakeSnapshot(snapshot) };
            self.happen_in(delay, Happening::Zone { zone: to, incarnation, delivery });
        }
    }

    /// The next snapshot replaces a lost one.
    fn mirror(&mut self, zone: usize, to: &str, snapshot: Snapshot) {
        if self.chance(self.setup.loss_percent) {
            return;
        }
        if let Some(to) = self.zone_named(to) {
            let (from, delay) = (self.owner(zone), self.delay());
            self.happen_in(delay, Happening::Mirrored { to, from, snapshot });
        }
    }

    /// A zone repeats the call until the heirs have answered. The first call may come before they know their sectors.
    pub(super) fn give_orphans(&mut self, orphans: Vec<(Destination, Snapshot)>) {
        for (to, snapshot) in orphans {
            let Some(zone) = self.zone_named(&to.name) else { continue };
            for attempt in 0..3 {
                let delay = self.delay() + attempt * RETRY_US;
                let command = CallBody::TakeSnapshot(snapshot.clone());
                let delivery = Delivery::Call { from: Caller::Nobody, command };
                let incarnation = to.incarnation;
                self.happen_in(delay, Happening::Zone { zone, incarnation, delivery });
            }
        }
    }

    fn settle(&mut self, to: &str, incarnation: u64, settlement: &Settlement) {
        let Some(to) = self.zone_named(to) else { return };
        let copies = 1 + usize::from(self.chance(self.setup.loss_percent));
        for _ in 0..copies {
            if self.chance(self.setup.loss_percent) {
                continue;
            }
            let delay = self.delay();
            let command = CallBody::Settle(settlement.clone());
            let delivery = Delivery::Call { from: Caller::Nobody, command };
            self.happen_in(delay, Happening::Zone { zone: to, incarnation, delivery });
        }
    }

    fn answer(&mut self, zone: usize, to: ReplyTo, answer: Answer) {
        match (self.zones[zone].callers.remove(&to), answer) {
            (Some(Caller::Zone { zone: source, incarnation, character, epoch }), Answer::Offered(answer)) => {
                if self.chance(self.setup.loss_percent) {
                    return;
                }
                let event = if answer.is_ok() { SourceEvent::Accepted } else { SourceEvent::Refused };
                let delay = self.delay();
                let delivery = Delivery::Command(Command::Handover { character, epoch, event });
                self.happen_in(delay, Happening::Zone { zone: source, incarnation, delivery });
            }
            (Some(Caller::Spawns { zone: source, incarnation, numbers }), Answer::Done(answer)) => {
                if self.chance(self.setup.loss_percent) {
                    return;
                }
                let delay = self.delay();
                let answer = if answer.is_ok() { SpawnsAnswer::Taken } else { SpawnsAnswer::Refused };
                let delivery = Delivery::Command(Command::SpawnsGiven { numbers, answer });
                self.happen_in(delay, Happening::Zone { zone: source, incarnation, delivery });
            }
            (Some(Caller::World(character)), Answer::Admitted(answer)) => match answer {
                Ok(_) => {
                    let session = session_of(character.0);
                    let (_, epoch) = self.database.owner(character);
                    let bind = Happening::Bind { session, zone: zone_name(zone), epoch };
                    self.in_order(8, 9, bind);
                }
                Err(_) => self.happen_in(RETRY_US, Happening::AdmitAgain(character)),
            },
            _ => {}
        }
    }

    /// The world admits a character to the zone that owns it.
    fn admit(&mut self, character: CharacterId) {
        let (owner, _) = self.database.owner(character);
        let (name, incarnation) = owner.clone();
        let Some(zone) = self.zone_named(&name) else { return };
        let Some(StoredAvatar { account, entering, session: Some(session), .. }) =
            self.database.load(character)
        else {
            return;
        };
        let admission = Box::new(Admission { session, session_epoch: Epoch(1), account, entering });
        let delivery = Delivery::Call { from: Caller::World(character), command: CallBody::Admit(admission) };
        self.in_order(8, zone, Happening::Zone { zone, incarnation, delivery });
    }

    fn bind(&mut self, session: SessionId, zone: &str, epoch: Epoch) {
        let Some(zone) = self.zone_named(zone) else { return };
        let Some(bound) = self.sessions.get_mut(&session).filter(|bound| epoch > bound.epoch) else { return };
        (bound.zone, bound.epoch, bound.ready) = (Some(zone), epoch, false);
        self.announce(session);
    }

    /// The gateway tells the zone that it speaks for this session.
    pub(super) fn announce(&mut self, session: SessionId) {
        let Some(bound) = self.sessions.get(&session) else { return };
        let (Some(zone), bind_epoch) = (bound.zone, bound.epoch) else { return };
        let gateway = self.gateway.clone();
        let account = AccountId(bound.character.0);
        let (session_epoch, link_dead) = (Epoch(1), false);
        let event = LinkEvent::Bound { gateway, session, session_epoch, bind_epoch, account, link_dead };
        self.send_to_zone(zone, Delivery::Link(event));
    }

    fn ready(&mut self, session: SessionId, bind_epoch: Epoch) {
        let Some(bound) = self.sessions.get_mut(&session) else { return };
        if bound.epoch != bind_epoch {
            return;
        }
        bound.ready = true;
        let held = std::mem::take(&mut bound.held);
        self.forward_input(session, held);
    }

    fn forward_input(&mut self, session: SessionId, messages: Vec<ClientMessage>) {
        let Some(bound) = self.sessions.get_mut(&session) else { return };
        let Some(zone) = bound.zone.filter(|_| bound.ready) else {
            bound.held.extend(messages);
            return;
        };
        if messages.is_empty() {
            return;
        }
        let gateway = self.gateway.clone();
        let event = LinkEvent::Deliver { gateway, session, session_epoch: Epoch(1), messages };
        self.send_to_zone(zone, Delivery::Link(event));
    }

    fn bot_acts(&mut self, session: SessionId) {
        let Some(bound) = self.sessions.get_mut(&session) else { return };
        let held = self.database.holds(bound.character);
        let ground: Vec<_> = self.database.ground().into_iter().map(|(item, _)| item).collect();
        let messages = bound.bot.act(self.now_us, &held, &ground, self.quiet);
        self.forward_input(session, messages);
        self.happen_in(100_000, Happening::BotActs(session));
    }

    fn client_hears(&mut self, session: SessionId, messages: &[ServerMessage]) {
        let Some(bound) = self.sessions.get_mut(&session) else { return };
        for message in messages {
            let (action, asked_us) = match bound.bot.hear(self.now_us, message) {
                Heard::Acknowledged { action, asked_us } => (action, asked_us),
                Heard::Moved { after_us } => {
                    self.longest_stop_us = self.longest_stop_us.max(after_us);
                    continue;
                }
                Heard::Nothing => continue,
            };
            self.acknowledged += 1;
            self.latencies.push(self.now_us - asked_us);
            if !self.database.has_result(bound.character, action) {
                let text = format!("action {action} of {} is acknowledged, not stored", bound.character);
                self.faults.push(text);
            }
        }
    }

    /// Kills or stops a zone, if both live.
    fn fault(&mut self) {
        if self.quiet {
            return;
        }
        let next = u64::from(self.random.within(3_000, 6_000)) * 1_000;
        self.happen_in(next, Happening::Fault);
        if !(self.is_alive(0) && self.is_alive(1)) {
            return;
        }
        let zone = self.random.within(0, 1) as usize;
        let incarnation = self.zones[zone].incarnation;
        let lasts = u64::from(self.random.within(200, 2_500)) * 1_000;
        if self.setup.kills_only || self.chance(50) {
            self.zones[zone].space = None;
            self.zones[zone].mirror = Mirror::default();
            self.killed_at_us = Some(self.now_us);
            self.happen_in(DETECTION_US, Happening::Replace { zone, incarnation });
            self.happen_in(DETECTION_US + lasts, Happening::Restart(zone));
        } else {
            self.zones[zone].stopped = Some(VecDeque::new());
            self.happen_in(DETECTION_US, Happening::Replace { zone, incarnation });
            self.happen_in(lasts, Happening::Resume(zone));
        }
    }

    /// Gives the sectors and avatars of a zone that does not answer to the other one.
    fn replace(&mut self, zone: usize, incarnation: u64) {
        let other = 1 - zone;
        if self.is_alive(zone) || self.zones[zone].incarnation != incarnation || !self.is_alive(other) {
            return;
        }
        self.publish_halves();
        let (dead, heir) = ((zone_name(zone), incarnation), self.owner(other));
        for character in self.database.reown(&dead, &heir) {
            self.happen_in(1, Happening::AdmitAgain(character));
        }
    }

    /// A stopped process continues with everything that has arrived meanwhile.
    fn resume(&mut self, zone: usize) {
        let Some(waiting) = self.zones[zone].stopped.take() else { return };
        for delivery in waiting {
            self.deliver(zone, delivery);
        }
        self.publish_halves();
    }

    /// Each spawn must live in the zone that owns its home, and nowhere else.
    fn misplaced_spawns(&self) -> Vec<String> {
        let mut found = Vec::new();
        for spawn in &map().spawns {
            let home = spawn.home.in_space(SpaceId::FIRST, Default::default()).cell();
            let owner = self.table.owner(home).map(|sector| (sector.zone.clone(), sector.incarnation));
            for zone in 0..self.zones.len() {
                let spawns = self.zones[zone].space.as_ref().map(Space::spawns).unwrap_or_default();
                let lives = spawns.iter().any(|state| state.number == spawn.number);
                if lives != (owner.as_ref() == Some(&self.owner(zone))) {
                    found.push(format!("spawn {} in zone {zone}: {lives}, owner {owner:?}", spawn.number));
                }
            }
        }
        found
    }

    /// The state in which a run must end: each avatar plays in the zone that owns it, and no other has it.
    pub(super) fn check_end(&mut self) {
        let mut found = self.database.violations.clone();
        found.extend(self.misplaced_spawns());
        for (session, bound) in &self.sessions {
            let character = bound.character;
            let (owner, epoch) = self.database.owner(character);
            for zone in 0..self.zones.len() {
                let state = self.zones[zone].space.as_ref().and_then(|space| space.player(character));
                let owns = *owner == (zone_name(zone), self.zones[zone].incarnation);
                match state {
                    Some((its, true)) if owns && its == epoch => {}
                    None if !owns => {}
                    other => {
                        found
                            .push(format!("{character}: zone {zone} has {other:?}, owner {owner:?} {epoch}"));
                    }
                }
                if owns && (bound.zone != Some(zone) || !bound.ready) {
                    found.push(format!("{session} is bound to {:?}, ready {}", bound.zone, bound.ready));
                }
            }
            if let Some(since) = bound.bot.waits_since() {
                found.push(format!("{character} waits for an answer since {} ms", since / 1_000));
            }
        }
        self.faults.extend(found);
    }
}
