//! Soft state: where avatars stand and how they are goes to the database behind the game's back.

use shardkeep_rpc::dbcache::{SaveSoftRequest, SoftState};
use shardkeep_types::{CharacterId, Epoch};

use crate::shard::Shard;

/// Most avatars in one call.
const SAVE_BATCH: usize = 8_192;
/// Every so many times also what has not changed is saved: so a zone learns that it lost somebody who stands still.
const FULL_SAVE_EVERY: u64 = 8;

impl Shard {
    pub(crate) fn soft_state(&self, character: CharacterId) -> Option<SoftState> {
        let avatar = self.sim.avatar(character)?;
        let player = self.players.get(character)?;
        Some(SoftState {
            character: character.0,
            epoch: player.epoch.0,
            position: Some(avatar.own.position.into()),
            facing: avatar.own.facing.into(),
            health: avatar.own.health,
        })
    }

    /// Changed positions and health go to the database, one call at a time; what fails goes again with the next.
    pub(crate) fn save_soft_state(&mut self) {
        if self.now < self.next_save || self.saving {
            return;
        }
        self.next_save = self.now + self.config.save_interval;
        let playing = self.players.iter().filter(|player| player.is_playing());
        self.saves += 1;
        let full_save = self.saves.is_multiple_of(FULL_SAVE_EVERY);
        let changed = playing.filter_map(|player| {
            let state = self.soft_state(player.character)?;
            (full_save || player.saved.as_ref() != Some(&state)).then_some(state)
        });
        let states: Vec<SoftState> = changed.take(SAVE_BATCH).collect();
        if states.is_empty() {
            return;
        }
        if states.len() == SAVE_BATCH {
            self.next_save = self.now;
        }
        for state in &states {
            if let Some(player) = self.players.get_mut(state.character.into()) {
                player.saved = Some(*state);
            }
        }
        self.saving = true;
        self.background_calls.save(SaveSoftRequest { states });
    }

    pub(crate) fn saved(&mut self, states: &[(CharacterId, Epoch)], stale: Option<&[u64]>) {
        self.saving = false;
        match stale {
            Some(stale) => {
                let stale = states.iter().filter(|(character, _)| stale.contains(&character.0));
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
