//! The worlds: their leading daemons, players, capacity, queues, and closures to players.

use std::{collections::BTreeMap, fmt, time::Duration};

use futures::future::join_all;
use shardkeep_cluster::Instance;
use shardkeep_rpc::{
    accounts::{Closure, ListClosuresRequest},
    world::{StatusReply, StatusRequest},
};
use shardkeep_types::DaemonKind;
use tonic::{Request, Response};

use crate::{
    error::CommandError,
    peers::{Peers, peer_error, with_deadline},
};

/// Pages wait this long for the list of closed worlds. Then they are shown without it.
const CLOSURES_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) struct World {
    pub(crate) number: u32,
    /// The leading daemon and its answer. A closed world may have none.
    pub(crate) leadership: Option<(Instance, Result<StatusReply, CommandError>)>,
    pub(crate) closed: Option<Closure>,
}

/// All worlds that have a leading daemon or are closed, sorted by number. The error says why closures are unknown.
pub(crate) async fn fetch_all(peers: &Peers) -> (Vec<World>, Option<CommandError>) {
    let leadership = peers.worlds();
    let statuses = join_all(leadership.iter().map(async |world| {
        let mut client = peers.world_client(world);
        client
            .status(with_deadline(StatusRequest {}))
            .await
            .map(Response::into_inner)
            .map_err(peer_error(world))
    }));
    let (statuses, closed) = futures::future::join(statuses, closures(peers)).await;
    let (closed, unknown) = match closed {
        Ok(closed) => (closed, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    (merge(leadership.into_iter().zip(statuses), closed), unknown)
}

fn merge(
    leadership: impl IntoIterator<Item = (Instance, Result<StatusReply, CommandError>)>,
    closed: Vec<Closure>,
) -> Vec<World> {
    let mut all = BTreeMap::new();
    for (leader, status) in leadership {
        let number = leader.world.0;
        all.insert(number, World { number, leadership: Some((leader, status)), closed: None });
    }
    for closure in closed {
        let number = closure.world;
        all.entry(number).or_insert(World { number, leadership: None, closed: None }).closed = Some(closure);
    }
    all.into_values().collect()
}

/// The worlds that are closed to players, from login.
pub(crate) async fn closures(peers: &Peers) -> Result<Vec<Closure>, CommandError> {
    let (mut client, login) = peers.accounts()?;
    let mut request = Request::new(ListClosuresRequest {});
    request.set_timeout(CLOSURES_TIMEOUT);
    let reply = client.list_closures(request).await.map_err(peer_error(&login))?;
    Ok(reply.into_inner().worlds)
}

/// Fails with a list of the known worlds if no registry knows a daemon of this world, in any state.
pub(crate) fn ensure_world_exists(peers: &Peers, world: u32) -> Result<(), CommandError> {
    let known = peers.directory(DaemonKind::World).map(shardkeep_cluster::Directory::all).unwrap_or_default();
    if known.iter().any(|instance| instance.world.0 == world) {
        return Ok(());
    }
    let numbers: BTreeMap<u32, Option<&String>> =
        known.iter().map(|instance| (instance.world.0, instance.attributes.get("name"))).collect();
    let list: Vec<String> = numbers
        .into_iter()
        .map(|(number, name)| name.map_or_else(|| number.to_string(), |name| format!("{number} ({name})")))
        .collect();
    let known_worlds = match list.as_slice() {
        [] => "the registry knows no world".to_owned(),
        list => format!("the registry knows {}", list.join(", ")),
    };
    Err(CommandError::NotFound(format!("there is no world {world}; {known_worlds}")))
}

/// `closed to players: until nine (players inside are disconnected in 35 s)`.
pub(crate) struct AccessStatus<'a>(pub(crate) Option<&'a Closure>);

impl fmt::Display for AccessStatus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(closed) = self.0 else { return f.write_str("open to players") };
        f.write_str("closed to players")?;
        if !closed.note.is_empty() {
            write!(f, ": {}", closed.note)?;
        }
        match closed.left_ms.div_ceil(1_000) {
            0 => Ok(()),
            seconds => write!(f, " (players inside are disconnected in {seconds} s)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_cluster::State;
    use shardkeep_types::{InstanceId, WorldId};

    use super::*;

    fn closure(world: u32, left_ms: u64) -> Closure {
        Closure { world, note: "until nine".into(), ends_ms: 0, left_ms }
    }

    #[test]
    fn closed_world_without_leader_is_listed() {
        let id = InstanceId { kind: DaemonKind::World, name: "world-1".into(), incarnation: 1 };
        let leader = Instance { world: WorldId(1), ..Instance::new(id, State::Up) };
        let all = merge([(leader, Ok(StatusReply::default()))], vec![closure(1, 0), closure(7, 0)]);
        let shown: Vec<_> =
            all.iter().map(|it| (it.number, it.leadership.is_some(), it.closed.is_some())).collect();
        assert_eq!(shown, [(1, true, true), (7, false, true)]);
    }

    #[test]
    fn access_status_shows_reason_and_remaining_time() {
        assert_eq!(AccessStatus(None).to_string(), "open to players");
        assert_eq!(AccessStatus(Some(&closure(1, 0))).to_string(), "closed to players: until nine");
        let soon = AccessStatus(Some(&closure(1, 34_001))).to_string();
        assert_eq!(soon, "closed to players: until nine (players inside are disconnected in 35 s)");
    }
}
