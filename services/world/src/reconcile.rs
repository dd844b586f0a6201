//! Repairs what failures leave behind: avatars of dead zones, sessions without their avatar, and avatars without a
//! session.

use std::time::{Duration, Instant};

use shardkeep_types::{CharacterId, SessionId};

use crate::{core::Core, effect::Effect, partition::Owner, presence::Avatar, sessions::PlayState};

/// How long an avatar may be missing before the world places it again.
const REPLACE_AFTER: Duration = Duration::from_secs(3);
/// How much longer than a lost session its avatar may stay.
const ORPHAN_GRACE: Duration = Duration::from_secs(10);

/// An avatar that the database has moved from a dead zone to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reowned {
    pub(crate) character: CharacterId,
    pub(crate) session: SessionId,
}

impl Core {
    /// The database has moved a dead zone's avatars. Binds the sessions of played avatars to their new zone.
    pub(crate) fn reowned(&mut self, now: Instant, avatars: &[Reowned]) {
        for &Reowned { character, session } in avatars {
            match self.sessions.get(session).map(|session| session.play) {
                Some(PlayState::Restored) => {
                    self.set_play(session, PlayState::Inside { character });
                    self.place(session);
                }
                Some(PlayState::Inside { character: played }) if played == character => self.place(session),
                // Work in flight finds the character at its new owner.
                Some(play @ (PlayState::Entering { .. } | PlayState::Leaving { .. }))
                    if play.character() == Some(character) => {}
                Some(_) => self.release_character(character, session, "left behind"),
                None => self.adopt_orphan(now, character, session),
            }
        }
    }

    /// A zone reports its avatars.
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
                PlayState::Restored => {
                    self.set_play(avatar.session, PlayState::Inside { character: avatar.character });
                }
                PlayState::Inside { character } if character == avatar.character => {}
                _ => continue,
            }
            // After a hand-over the zones bind the session by themselves; the gateway ignores the repeat.
            if let Some(session) = self.sessions.get(avatar.session) {
                let (gateway, zone) = (session.announced_by.clone(), avatar.zone.name.clone());
                self.push(Effect::Bind { gateway, session: avatar.session, zone, epoch: avatar.epoch });
            }
        }
        self.publish_presence(delta);
    }

    /// Places the avatars again that no living zone has had for a while.
    pub(crate) fn replace_missing_avatars(&mut self, now: Instant) {
        let is_placed = |id: SessionId, character: CharacterId| {
            self.presence
                .get(character)
                .is_some_and(|avatar| avatar.session == id && self.zone_is_alive(&avatar.zone))
        };
        let inside = self.sessions.iter().filter_map(|(id, session)| match session.play {
            PlayState::Inside { character } => Some((id, character)),
            _ => None,
        });
        let (placed, missing): (Vec<_>, Vec<_>) =
            inside.partition(|&(id, character)| is_placed(id, character));
        for (id, _) in placed {
            self.missing_since.remove(&id);
        }
        for (id, _) in missing {
            let since = *self.missing_since.entry(id).or_insert(now);
            if now.saturating_duration_since(since) >= REPLACE_AFTER
                && !self.pending_placements.contains_key(&id)
            {
                self.place(id);
            }
        }
    }

    /// Releases avatars and orphans that no session claims.
    pub(crate) fn release_orphans(&mut self, now: Instant) {
        let played = |avatar: &Avatar| {
            let play = self.sessions.get(avatar.session).map(|session| session.play);
            play.is_some_and(|play| play.holds_avatar() && play.character() == Some(avatar.character))
        };
        let orphans: Vec<_> = self
            .presence
            .older_than(now, self.config.link_loss + ORPHAN_GRACE)
            .filter(|avatar| !played(avatar))
            .map(|avatar| (avatar.character, avatar.session))
            .collect();
        for (character, session) in orphans.into_iter().chain(self.expired_orphans(now)) {
            self.forget_orphan(character);
            self.release_character(character, session, "nobody came for it");
        }
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_wire::payload::ErrorCode;

    use super::*;
    use crate::{
        directory::SessionActivity,
        effect::Work,
        fixture::{Game, avatar, binds, character, owner, placements, release_character, session, zone_view},
        partition::Health,
        sessions::SessionError,
    };

    fn reowns(effects: &[Effect]) -> Vec<(Owner, Owner)> {
        let reown = |effect: &Effect| match effect {
            Effect::Start(Work::Reown { dead, successor }) => Some((dead.clone(), successor.clone())),
            _ => None,
        };
        effects.iter().filter_map(reown).collect()
    }

    #[test]
    fn avatars_of_dead_zone_move_to_its_next_incarnation() {
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
    fn reowned_character_of_another_play_is_released() {
        let mut game = Game::new(9);
        let ann = game.open(1);
        game.enter(ann);
        let left = CharacterId(5);
        game.core.reowned(game.now, &[Reowned { character: left, session: ann }]);
        let effects = game.effects();
        assert_eq!((placements(&effects).len(), release_character(&effects)), (0, vec![(left, ann)]));
        assert_eq!(
            game.core.sessions.get(ann).unwrap().play,
            PlayState::Inside { character: character(ann) }
        );
    }

    #[test]
    fn avatar_missed_by_reown_is_placed_again() {
        let mut game = Game::new(9);
        let ann = game.open(1);
        game.enter(ann);
        game.core
            .zones_changed(game.now, vec![zone_view("a", 1, Health::Gone), zone_view("b", 1, Health::Up)]);
        game.advance(1);
        assert!(placements(&game.effects()).is_empty());
        game.advance(3);
        let placement = placements(&game.effects()).remove(0);
        game.advance(9);
        assert!(placements(&game.effects()).is_empty(), "one at a time");
        game.admit(&placement, "b", 2);
        game.advance(9);
        assert!(placements(&game.effects()).is_empty());
    }

    #[test]
    fn disconnected_zone_counts_as_dead_after_grace() {
        let mut game = Game::new(9);
        let zone = owner("a", 1);
        game.core.zone_connected(&zone, 1);
        game.core.zone_connected(&zone, 2);
        game.core.zone_disconnected(game.now, &zone, 1);
        game.advance(9);
        assert!(reowns(&game.effects()).is_empty(), "the older stream does not count");
        game.core.zone_disconnected(game.now, &zone, 2);
        game.advance(3);
        game.advance(3);
        assert_eq!(reowns(&game.effects()), [(zone, owner("b", 1))]);
    }

    #[test]
    fn new_term_restores_play_from_zones_and_gateways() {
        let mut game = Game::new(9);
        game.lead(2);
        let (ann, ben) = (session(1), session(2));
        game.core.presence_reported(game.now, &owner("a", 1), true, vec![avatar(ann, "a", 5)], &[]);
        game.present(1, 1, 3, 1, &SessionActivity::default()).unwrap();
        game.present(2, 2, 3, 1, &SessionActivity::default()).unwrap();
        game.core.presence_reported(game.now, &owner("b", 1), true, vec![avatar(ben, "b", 7)], &[]);
        assert_eq!(binds(&game.effects()), [(ann, "a".to_owned(), 5), (ben, "b".to_owned(), 7)]);
        assert_eq!(game.core.inside, 2);
        game.advance(200);
        assert!(release_character(&game.effects()).is_empty());
    }

    #[test]
    fn orphan_waits_for_its_session_then_is_released() {
        let mut game = Game::new(9);
        let (ann, ben) = (session(1), session(2));
        let orphans = [ann, ben].map(|session| Reowned { character: character(session), session });
        game.core.reowned(game.now, &orphans);
        assert!(placements(&game.effects()).is_empty());
        game.present(1, 1, 3, 1, &SessionActivity::default()).unwrap();
        assert_eq!(placements(&game.effects())[0].character, character(ann));
        game.advance(60);
        assert_eq!(release_character(&game.effects()), [(character(ben), ben)]);
        game.advance(60);
        assert!(!release_character(&game.effects()).contains(&(character(ben), ben)));
    }

    #[test]
    fn avatar_without_session_is_released() {
        let mut game = Game::new(9);
        let ann = session(1);
        game.core.presence_reported(game.now, &owner("a", 1), true, vec![avatar(ann, "a", 5)], &[]);
        game.advance(69);
        assert!(release_character(&game.effects()).is_empty());
        game.advance(1);
        assert_eq!(release_character(&game.effects()), [(character(ann), ann)]);
    }

    #[test]
    fn later_login_closes_session_and_releases_character() {
        let mut game = Game::new(9);
        let ann = game.open(1);
        game.enter(ann);
        game.present(9, 1, 0, 2, &SessionActivity::default()).unwrap();
        let effects = game.effects();
        let closed = |effect: &&Effect| matches!(effect, Effect::Close { code: ErrorCode::Displaced, .. });
        assert_eq!(effects.iter().filter(closed).count(), 1);
        assert_eq!(release_character(&effects), [(character(ann), ann)]);
        assert_eq!(game.present(1, 1, 1, 1, &SessionActivity::default()), Err(SessionError::Ended));
    }

    #[test]
    fn queue_place_survives_world_restart() {
        let mut game = Game::new(1);
        let first = game.open(9);
        game.enter(first);
        let waiting = |place| SessionActivity { character: None, queue_place: place };
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
    fn zone_crossing_rebinds_session_to_new_zone() {
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
