//! The list of worlds as players see it, made from the registry's view of the `world` daemons and pushed when it
//! changes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use shardkeep_cluster::{Directory, Instance, State};
use shardkeep_wire::payload::{World, WorldList, WorldStatus};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The registries report loads every second; the list follows at most this often.
const PACE: Duration = Duration::from_millis(250);

/// The list at the moment; receivers are told of each change.
pub(crate) type Worlds = watch::Receiver<Arc<WorldList>>;

/// Keeps the list up to date until told to stop.
pub(crate) async fn follow(
    mut directory: Directory,
    list: watch::Sender<Arc<WorldList>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        let now = WorldList { worlds: worlds(&directory.snapshot()) };
        list.send_if_modified(|before| {
            let changed = **before != now;
            if changed {
                *before = Arc::new(now);
            }
            changed
        });
        let next = async {
            tokio::time::sleep(PACE).await;
            directory.changed().await;
        };
        if stop.run_until_cancelled(next).await.is_none() {
            return Ok(());
        }
    }
}

/// One entry per world, ordered by id: what its leader says, or the best of the others.
fn worlds(instances: &[Instance]) -> Vec<World> {
    let mut best: BTreeMap<u32, &Instance> = BTreeMap::new();
    for instance in instances.iter().filter(|instance| instance.world.0 != 0) {
        let entry = best.entry(instance.world.0).or_insert(instance);
        if rank(instance) > rank(entry) {
            *entry = instance;
        }
    }
    best.into_values().map(world).collect()
}

/// Who speaks for a world: the highest.
fn rank(instance: &Instance) -> (u8, bool, u64) {
    let better = match status(instance) {
        WorldStatus::WorldUp => 2,
        WorldStatus::WorldMaintenance => 1,
        _ => 0,
    };
    (better, leads(instance), instance.id.incarnation)
}

fn leads(instance: &Instance) -> bool {
    instance.attributes.get("role").is_some_and(|role| role == "leader")
}

fn status(instance: &Instance) -> WorldStatus {
    match instance.state {
        State::Up if leads(instance) => WorldStatus::WorldUp,
        State::Offline => WorldStatus::WorldOffline,
        // A standby alone, starting, or leaving: it will be back.
        _ => WorldStatus::WorldMaintenance,
    }
}

fn world(instance: &Instance) -> World {
    let number =
        |key: &str| -> u32 { instance.attributes.get(key).and_then(|value| value.parse().ok()).unwrap_or(0) };
    let status = status(instance);
    let up = status == WorldStatus::WorldUp;
    let (online, capacity) = (number("online"), number("capacity").max(1));
    let name = instance.attributes.get("name").cloned();
    World {
        id: instance.world.0,
        name: name.unwrap_or_else(|| format!("World {}", instance.world)),
        status: status.into(),
        load_permille: if up { permille(online, capacity) } else { 0 },
        queue_length: if up { number("queue") } else { 0 },
        online: if up { online } else { 0 },
    }
}

fn permille(part: u32, whole: u32) -> u32 {
    u32::try_from(u64::from(part) * 1000 / u64::from(whole)).unwrap_or(u32::MAX).min(1000)
}

#[cfg(test)]
mod tests {
    use shardkeep_types::{DaemonKind, InstanceId, WorldId};

    use super::*;

    fn instance(world: u32, name: &str, state: State, attributes: &[(&str, &str)]) -> Instance {
        Instance {
            id: InstanceId { kind: DaemonKind::World, name: name.into(), incarnation: 1 },
            state,
            world: WorldId(world),
            grpc_address: String::new(),
            client_address: String::new(),
            admin_address: String::new(),
            version: String::new(),
            load: 0.0,
            attributes: attributes.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        }
    }

    #[test]
    fn the_leader_speaks_for_its_world() {
        let full =
            [("role", "leader"), ("name", "Dawn"), ("capacity", "200"), ("online", "50"), ("queue", "3")];
        let list = worlds(&[
            instance(1, "world-0", State::Offline, &full),
            instance(1, "world-1", State::Up, &full),
            instance(1, "world-2", State::Up, &[("role", "standby"), ("name", "Dawn")]),
            instance(2, "world-3", State::Up, &[("role", "standby"), ("name", "Dusk")]),
            instance(3, "world-4", State::Offline, &[("name", "Night")]),
            instance(4, "world-5", State::Draining, &full),
        ]);
        let shown: Vec<_> =
            list.iter().map(|world| (world.id, world.name.as_str(), world.status())).collect();
        assert_eq!(
            shown,
            [
                (1, "Dawn", WorldStatus::WorldUp),
                (2, "Dusk", WorldStatus::WorldMaintenance),
                (3, "Night", WorldStatus::WorldOffline),
                (4, "Dawn", WorldStatus::WorldMaintenance),
            ]
        );
        assert_eq!((list[0].load_permille, list[0].queue_length, list[0].online), (250, 3, 50));
    }

    #[test]
    fn nonsense_in_attributes_is_no_trouble() {
        let odd = [("role", "leader"), ("capacity", "0"), ("online", "many"), ("queue", "-1")];
        let list = worlds(&[instance(7, "world-1", State::Up, &odd)]);
        assert_eq!((list[0].name.as_str(), list[0].load_permille), ("World 7", 0));
    }
}
