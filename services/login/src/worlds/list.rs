//! The list of worlds as players see it, made from the registry's view of the `world` daemons and pushed when it changes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use shardkeep_cluster::{Directory, Instance, State};
use shardkeep_types::WorldId;
use shardkeep_wire::payload::{World, WorldList, WorldStatus};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::worlds::closures::{Closed, Closures};

/// A world with this load (in thousandths) is not recommended.
const NEARLY_FULL: u32 = 900;
/// A world stays recommended until another one is emptier by this many thousandths, so that the list does not flicker.
const HYSTERESIS: u32 = 100;
/// Shortest time between two lists. The registries report loads every second.
const MIN_PUSH_INTERVAL: Duration = Duration::from_millis(250);

/// The current list; receivers see each change.
pub(crate) type Worlds = watch::Receiver<Arc<WorldList>>;

/// The account that looks at the list.
#[derive(Debug, Default)]
pub(crate) struct Viewer {
    /// May enter worlds that are closed to players.
    pub(crate) staff: bool,
    /// Number of characters by world.
    pub(crate) characters: HashMap<u32, u32>,
}

/// The list as one account sees it.
pub(crate) fn list_for(list: &WorldList, viewer: &Viewer) -> WorldList {
    let worlds = list.worlds.iter().map(|world| World {
        may_enter: may_enter(world, viewer),
        characters: viewer.characters.get(&world.id).copied().unwrap_or(0),
        ..world.clone()
    });
    WorldList { worlds: worlds.collect() }
}

/// Whether the viewer may enter. In the shared list, `may_enter` of a world says that it has a leader, whether or not
/// operators have closed it.
pub(crate) fn may_enter(world: &World, viewer: &Viewer) -> bool {
    world.may_enter && (world.status() == WorldStatus::WorldUp || viewer.staff)
}

/// Keeps the list up to date until `stop`.
pub(crate) async fn follow(
    mut directory: Directory,
    mut closed: watch::Receiver<Closed>,
    list: watch::Sender<Arc<WorldList>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut recommended = None;
    loop {
        let mut worlds = worlds(&directory.snapshot());
        if let Some(closed) = &*closed.borrow_and_update() {
            close(&mut worlds, closed);
        }
        recommended = recommend(&mut worlds, recommended);
        let now = WorldList { worlds };
        list.send_if_modified(|before| {
            let changed = **before != now;
            if changed {
                *before = Arc::new(now);
            }
            changed
        });
        let next = async {
            tokio::time::sleep(MIN_PUSH_INTERVAL).await;
            tokio::select! {
                () = directory.changed() => {}
                Ok(()) = closed.changed() => {}
            }
        };
        if stop.run_until_cancelled(next).await.is_none() {
            return Ok(());
        }
    }
}

/// One entry per world, ordered by id, from its leader or else the best other instance.
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

/// Marks the worlds that operators have closed.
fn close(worlds: &mut [World], closed: &Closures) {
    for world in worlds {
        if let Some(closure) = closed.worlds.get(&WorldId(world.id))
            && world.status() == WorldStatus::WorldUp
        {
            world.status = WorldStatus::WorldMaintenance.into();
            world.note.clone_from(&closure.note);
        }
    }
}

/// Marks the emptiest open world without a queue, or the previous one unless it is clearly fuller.
fn recommend(worlds: &mut [World], before: Option<u32>) -> Option<u32> {
    let good = |world: &&World| {
        world.status() == WorldStatus::WorldUp && world.queue_length == 0 && world.load_permille < NEARLY_FULL
    };
    let emptiest = worlds.iter().filter(good).min_by_key(|world| world.load_permille)?;
    let previous = worlds.iter().filter(good).find(|world| Some(world.id) == before);
    let previous = previous.filter(|world| world.load_permille <= emptiest.load_permille + HYSTERESIS);
    let chosen = previous.unwrap_or(emptiest).id;
    for world in worlds {
        world.recommended = world.id == chosen;
    }
    Some(chosen)
}

/// The instance with the highest rank describes a world.
fn rank(instance: &Instance) -> (u8, bool, u64) {
    let better = match status(instance) {
        WorldStatus::WorldUp => 2,
        WorldStatus::WorldMaintenance => 1,
        _ => 0,
    };
    (better, instance.leads(), instance.id.incarnation)
}

fn status(instance: &Instance) -> WorldStatus {
    match instance.state {
        State::Up if instance.leads() => WorldStatus::WorldUp,
        State::Offline | State::Left => WorldStatus::WorldOffline,
        // Only a standby, a starting or a leaving instance: the world will be up again.
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
        may_enter: up,
        ..World::default()
    }
}

fn permille(part: u32, whole: u32) -> u32 {
    u32::try_from(u64::from(part) * 1000 / u64::from(whole)).unwrap_or(u32::MAX).min(1000)
}

#[cfg(test)]
mod tests {
    use shardkeep_cluster::Leadership;
    use shardkeep_types::{DaemonKind, InstanceId};

    use super::*;

    fn instance(
        world: u32,
        name: &str,
        state: State,
        leadership: Leadership,
        attributes: &[(&str, &str)],
    ) -> Instance {
        let id = InstanceId { kind: DaemonKind::World, name: name.into(), incarnation: 1 };
        Instance {
            world: WorldId(world),
            leadership,
            attributes: attributes.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            ..Instance::new(id, state)
        }
    }

    #[test]
    fn world_entry_comes_from_its_leader() {
        let full = [("name", "Dawn"), ("capacity", "200"), ("online", "50"), ("queue", "3")];
        let list = worlds(&[
            instance(1, "world-0", State::Offline, Leadership::Leader, &full),
            instance(1, "world-1", State::Up, Leadership::Leader, &full),
            instance(1, "world-2", State::Up, Leadership::Standby, &[("name", "Dawn")]),
            instance(2, "world-3", State::Up, Leadership::Standby, &[("name", "Dusk")]),
            instance(3, "world-4", State::Offline, Leadership::None, &[("name", "Night")]),
            instance(4, "world-5", State::Draining, Leadership::Leader, &full),
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

    fn world(id: u32, load_permille: u32, queue_length: u32) -> World {
        let status = WorldStatus::WorldUp.into();
        World { id, status, load_permille, queue_length, may_enter: true, ..World::default() }
    }

    #[test]
    fn closed_world_admits_staff() {
        let mut list = vec![world(1, 0, 0), world(2, 0, 0)];
        list[1].status = WorldStatus::WorldOffline.into();
        list[1].may_enter = false;
        close(&mut list, &Closures::of(1, "until nine"));
        close(&mut list, &Closures::of(2, ""));
        let list = WorldList { worlds: list };
        let characters = HashMap::from([(1, 3)]);
        let staff = list_for(&list, &Viewer { staff: true, characters });
        let player = list_for(&list, &Viewer::default());
        for (seen, may_enter, characters) in [(&staff, true, 3), (&player, false, 0)] {
            let first = &seen.worlds[0];
            assert_eq!((first.status(), first.note.as_str()), (WorldStatus::WorldMaintenance, "until nine"));
            assert_eq!((first.may_enter, first.characters), (may_enter, characters));
            assert_eq!(
                (seen.worlds[1].status(), seen.worlds[1].may_enter),
                (WorldStatus::WorldOffline, false)
            );
        }
    }

    #[test]
    fn recommended_world_is_emptiest_with_hysteresis() {
        let recommended = |worlds: &[World], before| {
            let mut worlds = worlds.to_vec();
            let chosen = recommend(&mut worlds, before);
            let marked: Vec<u32> = worlds.iter().filter(|it| it.recommended).map(|it| it.id).collect();
            assert_eq!(marked, Vec::from_iter(chosen));
            chosen
        };
        assert_eq!(recommended(&[world(1, 500, 0), world(2, 450, 0)], None), Some(2));
        assert_eq!(recommended(&[world(1, 500, 0), world(2, 450, 0)], Some(1)), Some(1));
        assert_eq!(recommended(&[world(1, 551, 0), world(2, 450, 0)], Some(1)), Some(2));
        assert_eq!(recommended(&[world(1, 100, 1), world(2, 899, 0)], Some(1)), Some(2));
        assert_eq!(recommended(&[world(1, 900, 0)], Some(1)), None);
        assert_eq!(recommended(&[], None), None);
    }

    #[test]
    fn invalid_world_attributes_fall_back_to_defaults() {
        let odd = [("capacity", "0"), ("online", "many"), ("queue", "-1")];
        let list = worlds(&[instance(7, "world-1", State::Up, Leadership::Leader, &odd)]);
        assert_eq!((list[0].name.as_str(), list[0].load_permille), ("World 7", 0));
    }
}
