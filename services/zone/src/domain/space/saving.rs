//! Saves positions and health of avatars in the database, in the background.

use shardkeep_types::{CharacterId, Epoch};

use super::Space;
use crate::domain::{effect::Effect, payload::SoftState};

/// The most avatars in one call.
const SAVE_BATCH: usize = 8_192;
impl Space {
    /// The soft state of an avatar, to be written. Each has a higher sequence than those before.
    pub(super) fn next_soft_state(&mut self, character: CharacterId) -> Option<SoftState> {
        let state = self.soft_state(character)?;
        Some(self.saving.number(state))
    }

    /// The soft state of an avatar without a sequence.
    fn soft_state(&self, character: CharacterId) -> Option<SoftState> {
        let avatar = self.sim.avatar(character)?;
        let player = self.players.get(character)?;
        Some(SoftState {
            character,
            epoch: player.epoch,
            sequence: 0,
            position: avatar.own.position,
            facing: avatar.own.facing,
            health: avatar.own.health,
        })
    }

    /// Saves changed avatars, one call at a time. A failed save is repeated with the next one.
    pub(super) fn save_soft_state(&mut self) {
        let Some(full_save) = self.saving.begin(self.now, self.config.save_interval) else { return };
        let playing = self.players.iter().filter(|player| player.is_playing());
        let changed = playing.filter_map(|player| {
            let state = self.soft_state(player.character)?;
            (full_save || player.saved.as_ref() != Some(&state)).then_some(state)
        });
        let states: Vec<SoftState> = changed.take(SAVE_BATCH).collect();
        if states.is_empty() {
            return;
        }
        if states.len() == SAVE_BATCH {
            self.saving.hurry(self.now);
        }
        for state in &states {
            if let Some(player) = self.players.get_mut(state.character) {
                player.saved = Some(*state);
            }
        }
        let states = states.into_iter().map(|state| self.saving.number(state)).collect();
        self.saving.sent();
        self.effects.push(Effect::Save(states));
    }

    pub(super) fn saved(&mut self, states: &[(CharacterId, Epoch)], stale: Option<&[CharacterId]>) {
        self.saving.finish();
        match stale {
            Some(stale) => {
                let stale = states.iter().filter(|(character, _)| stale.contains(character));
                for &(character, epoch) in stale {
                    self.drop_lost_avatar(character, epoch);
                }
            }
            None => {
                for (character, _) in states {
                    if let Some(player) = self.players.get_mut(*character) {
                        player.saved = None;
                    }
                }
            }
        }
    }
}
