//! Saves positions and health of avatars in the database, in the background.

use shardkeep_rpc::dbcache::{SaveSoftRequest, SoftState};
use shardkeep_types::{CharacterId, Epoch};

use crate::shard::Shard;

/// The most avatars in one call.
const SAVE_BATCH: usize = 8_192;
/// Every eighth save includes unchanged avatars, so that the zone learns when it lost an avatar that stands still.
const FULL_SAVE_EVERY: u64 = 8;

impl Shard {
    /// The soft state of an avatar, to be written. Each has a higher sequence than those before.
    pub(crate) fn next_soft_state(&mut self, character: CharacterId) -> Option<SoftState> {
        let state = self.soft_state(character)?;
        self.soft_sequence += 1;
        Some(SoftState { sequence: self.soft_sequence, ..state })
    }

    /// The soft state of an avatar without a sequence.
    fn soft_state(&self, character: CharacterId) -> Option<SoftState> {
        let avatar = self.sim.avatar(character)?;
        let player = self.players.get(character)?;
        Some(SoftState {
            character: character.0,
            epoch: player.epoch.0,
            sequence: 0,
            position: Some(avatar.own.position.into()),
            facing: avatar.own.facing.into(),
            health: avatar.own.health,
        })
    }

    /// Saves changed avatars, one call at a time. A failed save is repeated with the next one.
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
        let mut states: Vec<SoftState> = changed.take(SAVE_BATCH).collect();
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
        for state in &mut states {
            self.soft_sequence += 1;
            state.sequence = self.soft_sequence;
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
