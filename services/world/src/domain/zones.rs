//! The zones of the world, and the partition of the map among them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use shardkeep_types::{InstanceId, MapId, Term};

use crate::domain::{
    effect::Effect,
    partition::Partition,
    view::View,
    zone::{Health, ZoneView},
};

/// The map that every world has.
pub(crate) const MEADOW: MapId = MapId(1);

/// How long a zone may be disconnected from the world before it counts as dead, even if the registry lists it as up.
const DISCONNECT_GRACE: Duration = Duration::from_secs(2);

pub(crate) struct Zones {
    /// Side of the map in cells.
    side: u16,
    sectors: u16,
    /// The table of the present term.
    partition: Option<Partition>,
    /// The zones of the registry; disconnected ones are marked gone.
    all: Vec<ZoneView>,
    registered: Vec<ZoneView>,
    streams: HashMap<InstanceId, u64>,
    disconnected_since: HashMap<InstanceId, Instant>,
}

impl Zones {
    pub(crate) fn new(side: u16, sectors: u16) -> Self {
        Self {
            side,
            sectors,
            partition: None,
            all: Vec::new(),
            registered: Vec::new(),
            streams: HashMap::new(),
            disconnected_since: HashMap::new(),
        }
    }

    pub(crate) fn begin_term(&mut self, now: Instant) -> Vec<Effect> {
        self.partition = Some(Partition::new(MEADOW, self.side, self.side, self.sectors, now));
        let mut effects = vec![Effect::Partition];
        effects.extend(self.update(now));
        effects
    }

    pub(crate) fn end_term(&mut self) {
        self.partition = None;
        self.disconnected_since.clear();
    }

    /// Updates the registry's view of this world's zones.
    pub(crate) fn set_registered(&mut self, zones: Vec<ZoneView>) {
        self.registered = zones;
    }

    /// A zone has opened its stream of reports.
    pub(crate) fn connected(&mut self, zone: &InstanceId, stream: u64) {
        self.streams.insert(zone.clone(), stream);
        self.disconnected_since.remove(zone);
    }

    /// A stream has ended. A stream that another one has replaced is ignored.
    pub(crate) fn disconnected(&mut self, now: Instant, zone: &InstanceId, stream: u64) {
        if self.streams.get(zone) == Some(&stream) {
            self.streams.remove(zone);
            self.disconnected_since.insert(zone.clone(), now);
        }
    }

    /// Adapts the partition to the zones that are alive. Call this several times per second.
    pub(crate) fn update(&mut self, now: Instant) -> Vec<Effect> {
        let registered = &self.registered;
        self.disconnected_since.retain(|id, _| registered.iter().any(|zone| zone.id() == id));
        self.all.clone_from(registered);
        for zone in &mut self.all {
            let since = self.disconnected_since.get(zone.id());
            if since.is_some_and(|&since| now.saturating_duration_since(since) >= DISCONNECT_GRACE) {
                zone.mark_gone();
            }
        }
        let step = self.partition.as_mut().map(|partition| partition.update(now, &self.all));
        step.unwrap_or_default().into_effects().collect()
    }

    pub(crate) fn get(&self, id: &InstanceId) -> Option<&ZoneView> {
        self.all.iter().find(|zone| zone.id() == id)
    }

    pub(crate) fn is_alive(&self, id: &InstanceId) -> bool {
        self.get(id).is_some_and(|zone| !zone.is(Health::Gone))
    }

    pub(crate) fn partition(&self) -> Option<&Partition> {
        self.partition.as_ref()
    }

    /// A copy for tasks.
    pub(crate) fn view(&self, lease: Option<(Term, Instant)>) -> View {
        let sectors = self.partition.iter().flat_map(Partition::sectors);
        let sectors = sectors.map(|sector| (sector.cells(), sector.owner().cloned())).collect();
        View::new(lease, sectors, self.all.clone())
    }
}
