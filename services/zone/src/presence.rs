//! Reports to the world which avatars are here: a complete report on each new stream, then changes.

use std::collections::BTreeSet;

use shardkeep_rpc::{presence_parts, world};
use shardkeep_sim::Sim;
use shardkeep_types::{CharacterId, InstanceId};
use tokio::sync::mpsc;

use crate::{metrics, players::Players};

/// Ticks between two reports.
const REPORT_TICKS: u64 = 4;
/// Bound of a stream's queue, in reports. Overflow: the next report is complete again; counted.
pub(crate) const REPORT_QUEUE: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Presence {
    stream: Option<mpsc::Sender<world::PresenceReport>>,
    complete: bool,
    changed: BTreeSet<CharacterId>,
    gone: BTreeSet<CharacterId>,
}

impl Presence {
    /// Uses a new stream to the leading world. It begins with a complete report.
    pub(crate) fn open(&mut self, stream: mpsc::Sender<world::PresenceReport>) {
        self.stream = Some(stream);
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

    pub(crate) fn flush(&mut self, tick: u64, me: &InstanceId, players: &Players, sim: &Sim) {
        let is_unchanged = !self.complete && self.changed.is_empty() && self.gone.is_empty();
        if is_unchanged || !tick.is_multiple_of(REPORT_TICKS) {
            return;
        }
        let (changed, gone) = (std::mem::take(&mut self.changed), std::mem::take(&mut self.gone));
        if self.stream.is_none() {
            // A new stream begins with a complete report.
            return;
        }
        let all_characters = players.iter().map(|player| player.character);
        let characters: Vec<CharacterId> =
            if self.complete { all_characters.collect() } else { changed.into_iter().collect() };
        self.send(world::PresenceReport {
            zone: Some(me.into()),
            complete: self.complete,
            present: characters
                .into_iter()
                .filter_map(|character| present(character, me, players, sim))
                .collect(),
            gone: gone.into_iter().map(|character| character.0).collect(),
        });
    }

    fn send(&mut self, report: world::PresenceReport) {
        let Some(stream) = &self.stream else { return };
        let sent = presence_parts(report).into_iter().try_for_each(|part| stream.try_send(part));
        match sent {
            Ok(()) => self.complete = false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                metrics::dropped("presence");
                self.complete = true;
            }
            Err(mpsc::error::TrySendError::Closed(_)) => self.stream = None,
        }
    }
}

fn present(character: CharacterId, me: &InstanceId, players: &Players, sim: &Sim) -> Option<world::Presence> {
    let player = players.get(character)?;
    let cell = sim.avatar(character)?.own.position.cell();
    Some(world::Presence {
        character: character.0,
        name: player.name.to_string(),
        session: player.session.as_bytes().to_vec(),
        account: player.account.0,
        space: cell.space.0,
        cell_x: cell.x.into(),
        cell_y: cell.y.into(),
        zone: me.name.clone(),
        epoch: player.epoch.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_of_a_large_zone_is_sent_in_parts() {
        let (stream, mut reports) = mpsc::channel(REPORT_QUEUE);
        let mut presence = Presence::default();
        presence.open(stream);
        let present = vec![world::Presence::default(); 25_000];
        presence.send(world::PresenceReport { complete: true, present, ..Default::default() });
        let sent: Vec<_> = std::iter::from_fn(|| reports.try_recv().ok()).collect();
        let parts: Vec<_> = sent.iter().map(|report| (report.complete, report.present.len())).collect();
        assert_eq!(parts, [(true, 10_000), (false, 10_000), (false, 5_000)]);
        assert!(!presence.complete, "the next report contains changes only");
    }
}
