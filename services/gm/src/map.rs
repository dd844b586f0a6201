//! The live map: pictures of each world, composed from the snapshots of its zones while a browser shows the map.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde_json::{Value, json};
use shardkeep_cluster::{Backoff, Instance};
use shardkeep_rpc::zone::{Ghost, MapSnapshot, ObserveRequest};
use shardkeep_types::{DaemonKind, SpaceId, WorldId};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request};
use tracing::{debug, error};

use crate::{metrics, peers::Peers};

/// Entities per world at most. A browser cannot draw more in time.
const MAX_ENTITIES: usize = 8_000;

/// The latest picture of each space as JSON. `static/map.js` draws it.
type Pictures = Arc<BTreeMap<(WorldId, SpaceId), Arc<str>>>;

#[derive(Clone)]
pub(crate) struct MapHub {
    pictures: Arc<watch::Sender<Pictures>>,
    viewers: Arc<watch::Sender<usize>>,
    interval: Duration,
}

/// A browser that shows the map, until this is dropped.
pub(crate) struct Viewer {
    viewers: Arc<watch::Sender<usize>>,
    pictures: watch::Receiver<Pictures>,
}

impl Viewer {
    /// Waits for the next picture of a space. A slow browser misses pictures and never gets old ones. Returns `None`
    /// when the console ends.
    pub(crate) async fn next_picture(&mut self, world: WorldId, space: SpaceId) -> Option<Arc<str>> {
        loop {
            self.pictures.changed().await.ok()?;
            if let Some(picture) = self.pictures.borrow_and_update().get(&(world, space)) {
                return Some(Arc::clone(picture));
            }
        }
    }
}

impl MapHub {
    pub(crate) fn new(interval: Duration) -> Self {
        let pictures = Arc::new(watch::Sender::new(Pictures::default()));
        Self { pictures, viewers: Arc::new(watch::Sender::new(0)), interval }
    }

    /// Returns `None` when `limit` browsers show the map already.
    pub(crate) fn add_viewer(&self, limit: usize) -> Option<Viewer> {
        let admitted = self.viewers.send_if_modified(|viewers| {
            let free = *viewers < limit;
            *viewers += usize::from(free);
            free
        });
        metrics::viewers(*self.viewers.borrow());
        admitted.then(|| Viewer { viewers: Arc::clone(&self.viewers), pictures: self.pictures.subscribe() })
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.viewers.send_modify(|viewers| *viewers = viewers.saturating_sub(1));
        metrics::viewers(*self.viewers.borrow());
    }
}

/// Observes the zones while there are viewers, until `stop`.
pub(crate) async fn follow(peers: Peers, hub: MapHub, stop: CancellationToken) -> anyhow::Result<()> {
    let mut viewers = hub.viewers.subscribe();
    loop {
        let wanted = stop.run_until_cancelled(viewers.wait_for(|viewers| *viewers > 0)).await;
        if wanted.is_none_or(|wanted| wanted.is_err()) {
            return Ok(());
        }
        tokio::select! {
            () = publish_pictures(&peers, &hub) => {}
            _ = viewers.wait_for(|viewers| *viewers == 0) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// The last snapshots of one zone.
#[derive(Debug, Default)]
struct ZoneSnapshots {
    world: WorldId,
    spaces: BTreeMap<SpaceId, MapSnapshot>,
}

impl ZoneSnapshots {
    fn store(&mut self, snapshot: MapSnapshot) {
        self.spaces.retain(|space, _| snapshot.spaces.contains(&space.0));
        if snapshot.space != 0 {
            self.spaces.insert(SpaceId(snapshot.space), snapshot);
        }
    }
}

/// The last snapshots of each zone, by the name of the zone.
type LatestSnapshots = Arc<Mutex<BTreeMap<String, ZoneSnapshots>>>;

/// Publishes pictures until it is dropped. Its observers end with it.
async fn publish_pictures(peers: &Peers, hub: &MapHub) {
    let latest = LatestSnapshots::default();
    let mut observers = JoinSet::new();
    let mut observed: BTreeMap<String, AbortHandle> = BTreeMap::new();
    let mut ticks = tokio::time::interval(hub.interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let zones = peers.alive(DaemonKind::Zone);
        for zone in &zones {
            observed.entry(zone.id.name.clone()).or_insert_with(|| {
                let observe = observe(peers.clone(), zone.clone(), hub.interval, Arc::clone(&latest));
                observers.spawn(peers.daemon().supervised("map of a zone", observe))
            });
        }
        observed.retain(|name, observer| {
            let alive = zones.iter().any(|zone| zone.id.name == *name);
            if !alive {
                observer.abort();
                latest.lock().remove(name);
            }
            alive
        });
        while observers.try_join_next().is_some() {}
        let pictures = compose(&latest.lock());
        hub.pictures.send_replace(Arc::new(pictures));
        metrics::picture();
    }
}

async fn observe(peers: Peers, zone: Instance, interval: Duration, latest: LatestSnapshots) {
    let mut backoff = Backoff::default();
    let name = zone.id.name.clone();
    loop {
        // A restarted zone has another address.
        let present = peers.find(DaemonKind::Zone, &name).unwrap_or_else(|_| zone.clone());
        match watch_zone(&peers, &present, interval, &latest, &mut backoff).await {
            // The next stream will end in the same way.
            Err(status) if status.code() == Code::OutOfRange => {
                error!(zone = name, %status, "the live map lacks a zone: its snapshot is too large for a message");
            }
            ended => debug!(zone = name, ?ended, "the stream of snapshots ended"),
        }
        latest.lock().remove(&name);
        backoff.wait().await;
    }
}

async fn watch_zone(
    peers: &Peers,
    zone: &Instance,
    interval: Duration,
    latest: &LatestSnapshots,
    backoff: &mut Backoff,
) -> Result<(), tonic::Status> {
    let interval_ms = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
    let request = Request::new(ObserveRequest { interval_ms });
    let mut snapshots = peers.zone_client(zone).observe(request).await?.into_inner();
    while let Some(snapshot) = snapshots.message().await? {
        let mut latest = latest.lock();
        let known = latest.entry(zone.id.name.clone()).or_default();
        known.world = zone.world;
        known.store(snapshot);
        drop(latest);
        backoff.reset();
    }
    Ok(())
}

fn compose(latest: &BTreeMap<String, ZoneSnapshots>) -> BTreeMap<(WorldId, SpaceId), Arc<str>> {
    let mut spaces: BTreeMap<(WorldId, SpaceId), Vec<(&str, &MapSnapshot)>> = BTreeMap::new();
    for (zone, snapshots) in latest {
        for (&space, snapshot) in &snapshots.spaces {
            spaces.entry((snapshots.world, space)).or_default().push((zone, snapshot));
        }
    }
    let of_world =
        |world| spaces.keys().filter(move |key| key.0 == world).map(|key| key.1.0).collect::<Vec<_>>();
    let picture = |(world, space): (WorldId, SpaceId), zones: &[(&str, &MapSnapshot)]| {
        ((world, space), picture(zones, &of_world(world)).to_string().into())
    };
    spaces.iter().map(|(&key, zones)| picture(key, zones)).collect()
}

/// `spaces` are the spaces of the world that can be shown.
fn picture(zones: &[(&str, &MapSnapshot)], spaces: &[u32]) -> Value {
    let side = |side: fn(&MapSnapshot) -> u32| zones.iter().map(|(_, snapshot)| side(snapshot)).max();
    let sectors = |snapshot: &MapSnapshot| -> Vec<[u32; 4]> {
        snapshot.sectors.iter().map(|cells| [cells.x0, cells.y0, cells.x1, cells.y1]).collect()
    };
    let shown: Vec<Value> =
        zones.iter().map(|(zone, snapshot)| json!({ "name": zone, "sectors": sectors(snapshot) })).collect();
    // Two zones may report an entity near their border. The first one counts.
    let mut entities: BTreeMap<u64, Value> = BTreeMap::new();
    let total = zones.iter().map(|(_, snapshot)| snapshot.entities.len()).sum::<usize>();
    for (number, (_, snapshot)) in zones.iter().enumerate() {
        for ghost in snapshot.entities.iter().take(MAX_ENTITIES.saturating_sub(entities.len())) {
            entities.entry(ghost.entity).or_insert_with(|| entity(ghost, number));
        }
    }
    json!({
        "width": side(|snapshot| snapshot.map_width_mm),
        "height": side(|snapshot| snapshot.map_height_mm),
        "zones": shown,
        "spaces": spaces,
        "entities": entities.into_values().collect::<Vec<_>>(),
        "left_out": total.saturating_sub(MAX_ENTITIES),
    })
}

/// `[id, kind, template, name, x, y, vx, vy, health, max health, zone]`. Ids are text, because JavaScript's numbers
/// are exact only up to 2^53.
fn entity(ghost: &Ghost, zone: usize) -> Value {
    let at = ghost.position.unwrap_or_default();
    json!([
        ghost.entity.to_string(),
        ghost.kind,
        ghost.template,
        ghost.name,
        at.x_mm,
        at.y_mm,
        ghost.vx_mm_s,
        ghost.vy_mm_s,
        ghost.health,
        ghost.max_health,
        zone,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(space: u32, entities: &[(u64, &str)]) -> MapSnapshot {
        let ghost = |(entity, name): &(u64, &str)| Ghost {
            entity: *entity,
            name: (*name).into(),
            ..Ghost::default()
        };
        MapSnapshot {
            space,
            spaces: vec![1, 2],
            entities: entities.iter().map(ghost).collect(),
            map_width_mm: 1000,
            ..MapSnapshot::default()
        }
    }

    fn zone(world: u32, snapshots: Vec<MapSnapshot>) -> ZoneSnapshots {
        let mut zone = ZoneSnapshots { world: WorldId(world), ..ZoneSnapshots::default() };
        snapshots.into_iter().for_each(|snapshot| zone.store(snapshot));
        zone
    }

    #[test]
    fn zone_snapshots_of_a_space_are_merged_into_one_picture() {
        let latest = BTreeMap::from([
            (
                "zone-1".to_owned(),
                zone(1, vec![snapshot(1, &[(1, "Ann"), (2, "wolf")]), snapshot(2, &[(3, "Eve")])]),
            ),
            ("zone-2".to_owned(), zone(1, vec![snapshot(1, &[(2, "wolf's ghost"), (u64::MAX, "Bob")])])),
            ("zone-9".to_owned(), zone(2, vec![snapshot(1, &[])])),
        ]);
        let pictures = compose(&latest);
        assert_eq!(pictures.len(), 3);
        let picture = |world, space| -> Value {
            serde_json::from_str(&pictures[&(WorldId(world), SpaceId(space))]).unwrap()
        };
        let names = |picture: &Value| -> Vec<String> {
            let entities = picture["entities"].as_array().unwrap();
            entities.iter().filter_map(|it| it[3].as_str().map(str::to_owned)).collect()
        };
        let first = picture(1, 1);
        assert_eq!(names(&first), ["Ann", "wolf", "Bob"]);
        assert_eq!(first["entities"][2][0], u64::MAX.to_string());
        assert_eq!(first["zones"][1]["name"], "zone-2");
        assert_eq!(first["spaces"], json!([1, 2]));
        assert_eq!(names(&picture(1, 2)), ["Eve"]);
        assert_eq!(picture(2, 1)["spaces"], json!([1]));
    }

    #[test]
    fn spaces_that_left_their_zone_are_forgotten() {
        let mut zone = zone(1, vec![snapshot(1, &[]), snapshot(2, &[])]);
        zone.store(MapSnapshot { spaces: vec![2], ..snapshot(2, &[]) });
        assert_eq!(zone.spaces.keys().copied().collect::<Vec<_>>(), [SpaceId(2)]);
        zone.store(MapSnapshot::default());
        assert!(zone.spaces.is_empty());
    }

    #[test]
    fn viewers_are_limited_and_dropping_one_frees_its_slot() {
        let hub = MapHub::new(Duration::from_secs(1));
        let first = hub.add_viewer(1);
        assert!(first.is_some() && hub.add_viewer(1).is_none());
        drop(first);
        assert!(hub.add_viewer(1).is_some());
    }
}
