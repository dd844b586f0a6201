//! Reports to the world which avatars are here: a complete report at first and after a loss, then changes.

use std::collections::BTreeSet;

use shardkeep_sim::Sim;
use shardkeep_types::CharacterId;

use crate::domain::{
    effect::Effect,
    payload::{PresenceReport, Present},
    players::Players,
};

/// Ticks between two reports.
const REPORT_TICKS: u64 = 4;

#[derive(Debug, Default)]
pub(crate) struct Presence {
    complete: bool,
    changed: BTreeSet<CharacterId>,
    gone: BTreeSet<CharacterId>,
}

impl Presence {
    /// The next report is complete.
    pub(crate) fn report_all(&mut self) {
        self.complete = true;
    }

    pub(crate) fn changed(&mut self, character: CharacterId) {
        self.gone.remove(&character);
        self.changed.insert(character);
    }

    pub(crate) fn gone(&mut self, character: CharacterId) {
        self.changed.remove(&character);
        self.gone.insert(character);
    }

    pub(crate) fn report(&mut self, tick: u64, players: &Players, sim: &Sim) -> Option<Effect> {
        let is_unchanged = !self.complete && self.changed.is_empty() && self.gone.is_empty();
        if is_unchanged || !tick.is_multiple_of(REPORT_TICKS) {
            return None;
        }
        let Self { complete, changed, gone } = std::mem::take(self);
        let all_characters = players.iter().map(|player| player.character);
        let characters: Vec<CharacterId> =
            if complete { all_characters.collect() } else { changed.into_iter().collect() };
        let present = characters.into_iter().filter_map(|character| present(character, players, sim));
        let report = PresenceReport {
            space: sim.space(),
            complete,
            present: present.collect(),
            gone: gone.into_iter().collect(),
        };
        Some(Effect::Presence(report))
    }
}

fn present(character: CharacterId, players: &Players, sim: &Sim) -> Option<Present> {
    let player = players.get(character)?;
    Some(Present {
        character,
        name: player.name.clone(),
        session: player.session,
        account: player.account,
        cell: sim.avatar(character)?.own.position.cell(),
        epoch: player.epoch,
    })
}
