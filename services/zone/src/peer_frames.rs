//! Frames from neighbouring zones: ghosts, effects, and their results.

use shardkeep_rpc::zone::{Ghost, PeerFrame};
use shardkeep_sim::Input;
use shardkeep_types::EntityId;

use crate::{convert, metrics, shard::Shard};

impl Shard {
    /// Applies a frame of a neighbour. Malformed ghosts are skipped; the next frame repeats them.
    pub(crate) fn peer_frame(&mut self, frame: PeerFrame) {
        metrics::peer_frame("in");
        let from = frame.from.map(|from| from.name).unwrap_or_default();
        for ghost in &frame.ghosts {
            self.ghost(ghost);
        }
        frame.gone.into_iter().for_each(|entity| self.apply(Input::GhostGone(EntityId(entity))));
        frame.taken.into_iter().for_each(|item| self.apply(Input::ItemTaken(EntityId(item))));
        frame.rewarded.iter().for_each(|&player| self.background_calls.load(player.into()));
        for effect in &frame.effects {
            let effect = convert::effect_from_proto(effect);
            self.neighbours.note_effect(effect.actor, &from);
            self.apply(Input::Effect(effect));
        }
        for result in &frame.results {
            self.apply(Input::EffectResult(convert::result_from_proto(result)));
        }
    }

    fn ghost(&mut self, ghost: &Ghost) {
        match convert::ghost_state(ghost) {
            Ok(state) => self.apply(Input::Ghost(state)),
            Err(error) => {
                tracing::debug!(%error, "a neighbour sent a malformed ghost");
                metrics::refused("ghost");
            }
        }
    }
}
