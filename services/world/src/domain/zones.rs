//! The zones of the world, and the partition of the map among them.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use shardkeep_types::{CellId, CellRect, InstanceId, SpaceId, Term};

use crate::domain::{
    effect::{Effect, Work},
    layout::{Layout, LayoutError, Space},
    partition::{LayoutCommand, LayoutCommandDone, Partition},
    population::Population,
    zone::{Health, ZoneView},
};

/// How long a zone may be disconnected from the world before it counts as dead, even if the registry lists it as up.
const DISCONNECT_GRACE: Duration = Duration::from_millis(1_200);

pub(crate) struct Zones {
    /// The layout of a world that has none yet.
    first_layout: Layout,
    max_migrations: usize,
    /// The layout of the present term, once it is loaded.
    partition: Option<Partition>,
    /// The addresses of owners as last announced.
    addresses: BTreeMap<InstanceId, String>,
    /// The zones of the registry; disconnected ones are marked gone.
    all: Vec<ZoneView>,
    registered: Vec<ZoneView>,
    streams: HashMap<InstanceId, u64>,
    disconnected_since: HashMap<InstanceId, Instant>,
}

impl Zones {
    pub(crate) fn new(first_layout: Layout, max_migrations: usize) -> Self {
        Self {
            first_layout,
            max_migrations,
            partition: None,
            addresses: BTreeMap::new(),
            all: Vec::new(),
            registered: Vec::new(),
            streams: HashMap::new(),
            disconnected_since: HashMap::new(),
        }
    }

    /// Loads the layout that earlier terms have stored. Nothing is announced meanwhile.
    pub(crate) fn load_layout(&mut self, term: Term) -> Effect {
        self.partition = None;
        Effect::Start(Work::LoadLayout { term })
    }

    /// The stored layout, or `None` for a new world.
    pub(crate) fn layout_loaded(&mut self, now: Instant, term: Term, stored: Option<Layout>) -> Vec<Effect> {
        let (max, is_new) = (self.max_migrations, stored.is_none());
        self.partition = Some(match stored {
            Some(layout) => Partition::loaded(term, layout, max, now),
            None => Partition::created(term, self.first_layout.clone(), max, now),
        });
        if is_new { Vec::new() } else { vec![Effect::Partition] }
    }

    /// The database has stored the change in flight.
    pub(crate) fn layout_stored(&mut self, revision: u64) -> Vec<Effect> {
        let Some(partition) = &mut self.partition else { return Vec::new() };
        let effects = partition.stored(revision);
        self.note_addresses();
        effects
    }

    /// Plans a change that an operator requests.
    pub(crate) fn change_layout(
        &mut self,
        command: LayoutCommand,
    ) -> Result<(LayoutCommandDone, Vec<Effect>), LayoutError> {
        self.partition.as_mut().ok_or(LayoutError::NotLoaded)?.command(&self.all, command)
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

    /// Adapts the partition to the zones that are alive. `avatars` are the cell and the zone of each avatar. Call this
    /// several times per second.
    pub(crate) fn update<'a>(
        &mut self,
        now: Instant,
        avatars: impl Iterator<Item = (CellId, &'a InstanceId)>,
    ) -> Vec<Effect> {
        let registered = &self.registered;
        self.disconnected_since.retain(|id, _| registered.iter().any(|zone| zone.id() == id));
        self.all.clone_from(registered);
        for zone in &mut self.all {
            let since = self.disconnected_since.get(zone.id());
            if since.is_some_and(|&since| now.saturating_duration_since(since) >= DISCONNECT_GRACE) {
                zone.mark_gone();
            }
        }
        let Some(partition) = &mut self.partition else { return Vec::new() };
        let population = Population::count(partition.layout(), avatars);
        let mut effects = partition.update(now, &self.all, &population);
        // A world that has just started may know the stored layout before the registry shows the zones.
        if self.note_addresses() {
            effects.push(Effect::Partition);
        }
        effects
    }

    /// Stores the addresses of the owners. Returns whether they have changed.
    fn note_addresses(&mut self) -> bool {
        let owners = self.partition.iter().flat_map(|partition| partition.layout().sectors());
        let owners = owners.filter_map(|sector| self.get(sector.owner()?));
        let known = owners.map(|zone| (zone.id().clone(), zone.grpc_address().to_owned())).collect();
        let has_changed = self.addresses != known;
        self.addresses = known;
        has_changed
    }

    pub(crate) fn get(&self, id: &InstanceId) -> Option<&ZoneView> {
        self.all.iter().find(|zone| zone.id() == id)
    }

    /// The zones that are not dead, also those without sectors.
    pub(crate) fn alive(&self) -> impl Iterator<Item = &ZoneView> {
        self.all.iter().filter(|zone| !zone.is(Health::Gone))
    }

    pub(crate) fn is_alive(&self, id: &InstanceId) -> bool {
        self.get(id).is_some_and(|zone| !zone.is(Health::Gone))
    }

    pub(crate) fn partition(&self) -> Option<&Partition> {
        self.partition.as_ref()
    }

    /// A space of the stored layout. Space 1 is known before the layout is.
    pub(crate) fn space(&self, id: SpaceId) -> Option<&Space> {
        let layout = self.partition.as_ref().map(Partition::layout);
        layout.and_then(|layout| layout.space(id)).or_else(|| self.first_layout.space(id))
    }

    pub(crate) fn view(&self, lease: Option<(Term, Instant)>) -> View {
        let layout = self.partition.as_ref().map(Partition::layout);
        let is_open =
            |id: SpaceId| layout.and_then(|layout| layout.space(id)).is_some_and(|space| !space.is_closing());
        let sectors = layout.into_iter().flat_map(Layout::sectors);
        let open = sectors.filter(|sector| is_open(sector.cells().space));
        let sectors = open.map(|sector| (sector.cells(), sector.owner().cloned())).collect();
        View { lease, sectors, zones: self.all.clone() }
    }
}

/// A copy for tasks: the lease, the table and the zones.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct View {
    /// The term and the end of its lease, which is in the past during a pause. `None` for a standby.
    lease: Option<(Term, Instant)>,
    /// The sectors of open spaces.
    sectors: Vec<(CellRect, Option<InstanceId>)>,
    zones: Vec<ZoneView>,
}

impl View {
    /// The term of this instance, which may be paused.
    pub(crate) fn held_term(&self) -> Option<Term> {
        self.lease.map(|(term, _)| term)
    }

    /// The term under which commands may be issued now.
    pub(crate) fn term(&self, now: Instant) -> Option<Term> {
        self.lease.filter(|&(_, until)| now < until).map(|(term, _)| term)
    }

    /// The living zone with that name and incarnation.
    pub(crate) fn live_zone(&self, name: &str, incarnation: u64) -> Option<&ZoneView> {
        let is = |zone: &&ZoneView| zone.id().name == name && zone.id().incarnation == incarnation;
        self.zones.iter().filter(|zone| !zone.is(Health::Gone)).find(is)
    }

    /// Whether avatars may enter the space.
    pub(crate) fn is_open(&self, space: SpaceId) -> bool {
        self.sectors.iter().any(|(cells, _)| cells.space == space)
    }

    /// The living zone that owns the cell. Positions outside of a space belong to its nearest sector.
    pub(crate) fn zone_of(&self, cell: CellId) -> Option<&ZoneView> {
        let distance = |rect: &CellRect| {
            let axis = |at: u16, from: u16, to: u16| {
                u32::from(from.saturating_sub(at)) + u32::from(at.saturating_sub(to.saturating_sub(1)))
            };
            axis(cell.x, rect.x0, rect.x1) + axis(cell.y, rect.y0, rect.y1)
        };
        let sectors = self.sectors.iter().filter(|(cells, _)| cells.space == cell.space);
        let (_, owner) = sectors.min_by_key(|(rect, _)| distance(rect))?;
        let owner = owner.as_ref()?;
        self.live_zone(&owner.name, owner.incarnation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::zone::fixture::{owner, zone};

    fn rect(x0: u16, x1: u16) -> CellRect {
        CellRect { space: SpaceId::FIRST, x0, y0: 0, x1, y1: 32 }
    }

    #[test]
    fn zone_of_finds_live_owner_of_nearest_sector() {
        let view = View {
            lease: None,
            sectors: vec![(rect(0, 16), Some(owner("a", 1))), (rect(16, 32), Some(owner("b", 1)))],
            zones: vec![zone("a", 1, Health::Up), zone("b", 1, Health::Gone)],
        };
        let at =
            |x| view.zone_of(CellId { space: SpaceId::FIRST, x, y: 40 }).map(|zone| zone.id().name.as_str());
        assert_eq!((at(0), at(15), at(16), at(99)), (Some("a"), Some("a"), None, None));
        let elsewhere = CellId { space: SpaceId(2), x: 0, y: 0 };
        assert!(view.zone_of(elsewhere).is_none() && !view.is_open(SpaceId(2)) && view.is_open(SpaceId(1)));
    }

    #[test]
    fn term_ends_with_lease() {
        let now = Instant::now();
        let view = View { lease: Some((Term(2), now + Duration::from_secs(1))), ..View::default() };
        assert_eq!(view.term(now), Some(Term(2)));
        assert_eq!(view.term(now + Duration::from_secs(1)), None);
        assert_eq!(View::default().term(now), None);
    }
}
