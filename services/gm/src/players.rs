//! The characters that are online. Every world streams them, so pages need no call to answer.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use shardkeep_cluster::Backoff;
use shardkeep_rpc::world::{Presence, PresenceReport, WatchPresenceRequest};
use shardkeep_types::{DaemonKind, WorldId};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tracing::debug;

use crate::{metrics, peers::Peers};

/// A character that is online.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Player {
    pub(crate) world: WorldId,
    pub(crate) character: u64,
    pub(crate) name: String,
    pub(crate) session: Vec<u8>,
    pub(crate) account: u64,
    pub(crate) cell: (u32, u32),
    pub(crate) zone: String,
}

/// The characters online in all worlds. Clones share the view.
#[derive(Clone, Default)]
pub(crate) struct Players {
    worlds: Arc<Mutex<BTreeMap<WorldId, BTreeMap<u64, Player>>>>,
}

impl Players {
    pub(crate) fn count(&self) -> usize {
        self.worlds.lock().values().map(BTreeMap::len).sum()
    }

    /// Players whose name contains `part` without regard to case, sorted by name: at most `limit` after the first
    /// `skip`, and the number of all.
    pub(crate) fn search(&self, part: &str, skip: usize, limit: usize) -> (Vec<Player>, usize) {
        let part = part.to_lowercase();
        let worlds = self.worlds.lock();
        let matching = |player: &&Player| part.is_empty() || player.name.to_lowercase().contains(&part);
        let mut found: Vec<&Player> = worlds.values().flat_map(BTreeMap::values).filter(matching).collect();
        found.sort_unstable_by(|a, b| (&a.name, a.world).cmp(&(&b.name, b.world)));
        let total = found.len();
        (found.into_iter().skip(skip).take(limit).cloned().collect(), total)
    }

    pub(crate) fn is_online(&self, world: u32, character: u64) -> bool {
        self.worlds.lock().get(&WorldId(world)).is_some_and(|players| players.contains_key(&character))
    }

    fn apply(&self, world: WorldId, report: PresenceReport) {
        let mut worlds = self.worlds.lock();
        let players = worlds.entry(world).or_default();
        if report.complete {
            players.clear();
        }
        players.extend(report.present.into_iter().map(|present| (present.character, player(world, present))));
        for character in report.gone {
            players.remove(&character);
        }
        let online = worlds.values().map(BTreeMap::len).sum();
        metrics::online(online);
    }

    fn forget(&self, world: WorldId) {
        self.worlds.lock().remove(&world);
    }
}

fn player(world: WorldId, present: Presence) -> Player {
    Player {
        world,
        character: present.character,
        name: present.name,
        session: present.session,
        account: present.account,
        cell: (present.cell_x, present.cell_y),
        zone: present.zone,
    }
}

/// Follows all worlds that the registries know, until `stop`.
pub(crate) async fn follow(peers: Peers, players: Players, stop: CancellationToken) -> anyhow::Result<()> {
    let mut followed: BTreeMap<WorldId, ()> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let Some(mut directory) = peers.directory(DaemonKind::World).cloned() else { return Ok(()) };
    loop {
        for world in peers.alive(DaemonKind::World) {
            if followed.insert(world.world, ()).is_none() {
                let follow = follow_world(peers.clone(), players.clone(), world.world, stop.clone());
                tasks.spawn(peers.daemon().supervised("players of a world", follow));
            }
        }
        if stop.run_until_cancelled(directory.changed()).await.is_none() {
            tasks.join_all().await;
            return Ok(());
        }
    }
}

/// Follows the leading daemon of one world. The leader may change.
async fn follow_world(peers: Peers, players: Players, world: WorldId, stop: CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    while !stop.is_cancelled() {
        let watched = stop.run_until_cancelled(watch(&peers, &players, world, &mut backoff)).await;
        if let Some(Err(error)) = watched {
            debug!(%world, %error, "the stream of players ended");
        }
        players.forget(world);
        let wait = backoff.next_delay();
        stop.run_until_cancelled(tokio::time::sleep(wait)).await;
    }
}

async fn watch(
    peers: &Peers,
    players: &Players,
    world: WorldId,
    backoff: &mut Backoff,
) -> anyhow::Result<()> {
    let leader = peers.world(world)?;
    let request = Request::new(WatchPresenceRequest {});
    let mut reports = peers.world_client(&leader).watch_presence(request).await?.into_inner();
    while let Some(report) = reports.message().await? {
        players.apply(world, report);
        backoff.reset();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(complete: bool, names: &[(u64, &str)], gone: &[u64]) -> PresenceReport {
        let presence = |(character, name): &(u64, &str)| Presence {
            character: *character,
            name: (*name).into(),
            ..Presence::default()
        };
        let present = names.iter().map(presence).collect();
        PresenceReport { complete, present, gone: gone.to_vec(), ..PresenceReport::default() }
    }

    #[test]
    fn presence_reports_are_merged_per_world() {
        let players = Players::default();
        players.apply(WorldId(1), report(true, &[(1, "Ann"), (2, "Bob")], &[]));
        players.apply(WorldId(2), report(true, &[(1, "Cid")], &[]));
        players.apply(WorldId(1), report(false, &[(3, "Hannah")], &[2]));
        let (found, total) = players.search("ann", 0, 10);
        assert_eq!(found.iter().map(|player| player.name.as_str()).collect::<Vec<_>>(), ["Ann", "Hannah"]);
        assert_eq!((total, players.count()), (2, 3));
        assert_eq!(players.search("", 1, 1).0[0].name, "Cid");
        players.apply(WorldId(1), report(true, &[], &[]));
        assert_eq!(players.count(), 1);
    }
}
