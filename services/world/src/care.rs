//! Looking after those inside: avatars whose zone died, sessions whose avatar is nowhere, avatars whose session is
//! nowhere. Whatever was missed, lost or half done ends here.

use std::time::{Duration, Instant};

use shardkeep_types::{CharacterId, SessionId};

use crate::{core::Core, effect::Effect, partition::Owner, presence::Avatar, sessions::Play};

/// How long an avatar may be nowhere before the world places it again.
const ASTRAY: Duration = Duration::from_secs(3);
/// How much longer than a lost session an avatar nobody plays may stand.
const FORSAKEN: Duration = Duration::from_secs(10);

/// An avatar that the database has given from a dead zone to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reowned {
    pub(crate) character: CharacterId,
    pub(crate) session: SessionId,
}

impl Core {
    /// The database has moved a dead zone's avatars: bring those that are played into their new zone.
    pub(crate) fn reowned(&mut self, now: Instant, avatars: &[Reowned]) {
        for &Reowned { character, session } in avatars {
            match self.sessions.get(session).map(|session| session.play) {
                Some(Play::Restored) => {
                    self.set_play(session, Play::Inside { character });
                    self.place(session);
                }
                Some(Play::Inside { character: played }) if played == character => self.place(session),
                // What is under way finds the character where it is now.
                Some(play @ (Play::Entering { .. } | Play::Leaving { .. }))
                    if play.character() == Some(character) => {}
                Some(_) => self.let_go(character, session, "left behind"),
                None => self.adopt_orphan(now, character, session),
            }
        }
    }

    /// A zone says who is there.
    pub(crate) fn presence_reported(
        &mut self,
        now: Instant,
        zone: &Owner,
        complete: bool,
        present: Vec<Avatar>,
        gone: &[CharacterId],
    ) {
        let delta = self.presence.report(now, zone, complete, present, gone);
        for avatar in &delta.present {
            let Some(session) = self.sessions.get(avatar.session) else { continue };
            match session.play {
                Play::Restored => self.set_play(avatar.session, Play::Inside { character: avatar.character }),
                Play::Inside { character } if character == avatar.character => {}
                _ => continue,
            }
            // After a hand-over the zones bind by themselves; the gateway ignores what it knows already.
            if let Some(session) = self.sessions.get(avatar.session) {
                let (gateway, zone) = (session.through.clone(), avatar.zone.name.clone());
                self.push(Effect::Bind { gateway, session: avatar.session, zone, epoch: avatar.epoch });
            }
        }
        self.tell(delta);
    }

    /// Sessions whose avatar has been in no living zone for a while get it placed again.
    pub(crate) fn find_the_astray(&mut self, now: Instant) {
        let at_home = |id: SessionId, character: CharacterId| {
            self.presence
                .get(character)
                .is_some_and(|avatar| avatar.session == id && self.zone_lives(&avatar.zone))
        };
        let inside = self.sessions.iter().filter_map(|(id, session)| match session.play {
            Play::Inside { character } => Some((id, character)),
            _ => None,
        });
        let (home, away): (Vec<_>, Vec<_>) = inside.partition(|&(id, character)| at_home(id, character));
        for (id, _) in home {
            self.astray.remove(&id);
        }
        for (id, _) in away {
            let since = *self.astray.entry(id).or_insert(now);
            if now.saturating_duration_since(since) >= ASTRAY && !self.placing.contains_key(&id) {
                self.place(id);
            }
        }
    }

    /// Avatars and orphans that no session has come for.
    pub(crate) fn release_the_forsaken(&mut self, now: Instant) {
        let played = |avatar: &Avatar| {
            let play = self.sessions.get(avatar.session).map(|session| session.play);
            play.is_some_and(|play| play.holds_avatar() && play.character() == Some(avatar.character))
        };
        let forsaken: Vec<_> = self
            .presence
            .older_than(now, self.config.link_loss + FORSAKEN)
            .filter(|avatar| !played(avatar))
            .map(|avatar| (avatar.character, avatar.session))
            .collect();
        for (character, session) in forsaken.into_iter().chain(self.old_orphans(now)) {
            self.forget_orphan(character);
            self.let_go(character, session, "nobody came for it");
        }
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_wire::payload::ErrorCode;

    use super::*;
    use crate::{
        directory::Doing,
        effect::Work,
        fixture::{Game, avatar, binds, character, let_go, owner, placements, session, zone_view},
        partition::Health,
        sessions::SessionError,
    };

    fn reowns(effects: &[Effect]) -> Vec<(Owner, Owner)> {
        let reown = |effect: &Effect| match effect {
            Effect::Start(Work::Reown { dead, heir }) => Some((dead.clone(), heir.clone())),
            _ => None,
        };
        effects.iter().filter_map(reown).collect()
    }

    #[test]
    fn a_dead_zones_avatars_follow_its_next_incarnation() {
        let mut game = Game::new(9);
        let ann = game.open(1);
        game.enter(ann);
        game.core.zones_changed(game.now, vec![zone_view("a", 2, Health::Up), zone_view("b", 1, Health::Up)]);
        let effects = game.effects();
        assert_eq!(reowns(&effects), [(owner("a", 1), owner("a", 2))]);
        assert!(effects.contains(&Effect::Partition));
        game.core.reowned(game.now, &[Reowned { character: character(ann), session: ann }]);
        let placement = placements(&game.effects()).remove(0);
        assert_eq!(binds(&game.admit(&placement, "a", 2)), [(ann, "a".to_owned(), 2)]);
    }

    #[test]
    fn a_character_that_its_session_has_left_is_not_played_again() {
        let mut game = Game::new(9);
        let ann = game.open(1);
        game.enter(ann);
        let left = CharacterId(5);
        game.core.reowned(game.now, &[Reowned { character: left, session: ann }]);
        let effects = game.effects();
        assert_eq!((placements(&effects).len(), let_go(&effects)), (0, vec![(left, ann)]));
        assert_eq!(game.core.sessions.get(ann).unwrap().play, Play::Inside { character: character(ann) });
    }

    #[test]
    fn an_avatar_that_the_statement_missed_is_placed_all_the_same() {
        let mut game = Game::new(9);
        let ann = game.open(1);
        game.enter(ann);
        game.core
            .zones_changed(game.now, vec![zone_view("a", 1, Health::Gone), zone_view("b", 1, Health::Up)]);
        game.pass(1);
        assert!(placements(&game.effects()).is_empty());
        game.pass(3);
        let placement = placements(&game.effects()).remove(0);
        game.pass(9);
        assert!(placements(&game.effects()).is_empty(), "one at a time");
        game.admit(&placement, "b", 2);
        game.pass(9);
        assert!(placements(&game.effects()).is_empty());
    }

    #[test]
    fn a_zone_that_is_cut_off_from_the_world_counts_as_dead() {
        let mut game = Game::new(9);
        let zone = owner("a", 1);
        game.core.zone_connected(&zone, 1);
        game.core.zone_connected(&zone, 2);
        game.core.zone_disconnected(game.now, &zone, 1);
        game.pass(9);
        assert!(reowns(&game.effects()).is_empty(), "the older stream does not count");
        game.core.zone_disconnected(game.now, &zone, 2);
        game.pass(3);
        game.pass(3);
        assert_eq!(reowns(&game.effects()), [(zone, owner("b", 1))]);
    }

    #[test]
    fn a_restarted_world_learns_from_zones_and_gateways_who_plays() {
        let mut game = Game::new(9);
        game.lead(2);
        let (ann, ben) = (session(1), session(2));
        game.core.presence_reported(game.now, &owner("a", 1), true, vec![avatar(ann, "a", 5)], &[]);
        game.present(1, 1, 3, 1, &Doing::default()).unwrap();
        game.present(2, 2, 3, 1, &Doing::default()).unwrap();
        game.core.presence_reported(game.now, &owner("b", 1), true, vec![avatar(ben, "b", 7)], &[]);
        assert_eq!(binds(&game.effects()), [(ann, "a".to_owned(), 5), (ben, "b".to_owned(), 7)]);
        assert_eq!(game.core.inside, 2);
        game.pass(200);
        assert!(let_go(&game.effects()).is_empty());
    }

    #[test]
    fn an_orphan_waits_for_its_session_and_not_for_ever() {
        let mut game = Game::new(9);
        let (ann, ben) = (session(1), session(2));
        let orphans = [ann, ben].map(|session| Reowned { character: character(session), session });
        game.core.reowned(game.now, &orphans);
        assert!(placements(&game.effects()).is_empty());
        game.present(1, 1, 3, 1, &Doing::default()).unwrap();
        assert_eq!(placements(&game.effects())[0].character, character(ann));
        game.pass(60);
        assert_eq!(let_go(&game.effects()), [(character(ben), ben)]);
        game.pass(60);
        assert!(!let_go(&game.effects()).contains(&(character(ben), ben)));
    }

    #[test]
    fn avatars_that_nobody_plays_leave_the_world() {
        let mut game = Game::new(9);
        let ann = session(1);
        game.core.presence_reported(game.now, &owner("a", 1), true, vec![avatar(ann, "a", 5)], &[]);
        game.pass(69);
        assert!(let_go(&game.effects()).is_empty());
        game.pass(1);
        assert_eq!(let_go(&game.effects()), [(character(ann), ann)]);
    }

    #[test]
    fn a_later_login_ends_the_earlier_session_and_frees_its_character() {
        let mut game = Game::new(9);
        let ann = game.open(1);
        game.enter(ann);
        game.present(9, 1, 0, 2, &Doing::default()).unwrap();
        let effects = game.effects();
        let closed = |effect: &&Effect| matches!(effect, Effect::Close { code: ErrorCode::Displaced, .. });
        assert_eq!(effects.iter().filter(closed).count(), 1);
        assert_eq!(let_go(&effects), [(character(ann), ann)]);
        assert_eq!(game.present(1, 1, 1, 1, &Doing::default()), Err(SessionError::Ended));
    }

    #[test]
    fn a_place_in_the_queue_survives_a_restart_of_the_world() {
        let mut game = Game::new(1);
        let first = game.open(9);
        game.enter(first);
        let waiting = |place| Doing { character: None, queue_place: place };
        let ben = game.open(8);
        game.core.enter(game.now, ben, 5, character(ben));
        game.present(2, 2, 1, 1, &waiting(2)).unwrap();
        game.present(1, 1, 1, 1, &waiting(1)).unwrap();
        let order: Vec<SessionId> = game.core.queue.iter().collect();
        assert_eq!(order, [session(1), session(2), ben]);
        game.core.enter(game.now, session(1), 6, character(session(1)));
        game.core.end_session(game.now, first, "logged out");
        assert_eq!(placements(&game.effects())[0].session, session(1));
    }

    #[test]
    fn a_crossing_binds_the_session_to_the_zone_it_went_to() {
        let mut game = Game::new(9);
        let ann = game.open(1);
        game.enter(ann);
        game.core.presence_reported(game.now, &owner("a", 1), false, vec![], &[character(ann)]);
        game.core.presence_reported(game.now, &owner("b", 1), false, vec![avatar(ann, "b", 2)], &[]);
        assert_eq!(binds(&game.effects()), [(ann, "b".to_owned(), 2)]);
        game.core.joined(ann);
        assert_eq!(binds(&game.effects()), [(ann, "b".to_owned(), 2)]);
    }
}
