//! Instances and their leases. Pure: every method takes the time as an argument and returns the changes.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use shardkeep_cluster::{Instance, Leadership, PeerCertificate, State};
use shardkeep_types::{DaemonKind, InstanceId};

use crate::error::RegistryError;

/// Leases outside of this range are clamped.
const SHORTEST_LEASE: Duration = Duration::from_millis(100);
const LONGEST_LEASE: Duration = Duration::from_secs(60);
/// How long an instance stays visible after it has left, for the operator who restarts it.
const LEFT_RETENTION: Duration = Duration::from_secs(300);
/// How often leases are checked, at least.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// A longer gap between two checks means that this process was suspended.
const STALL_THRESHOLD: Duration = Duration::from_secs(1);
/// Smaller changes of the load are not published.
const LOAD_STEP: f64 = 0.01;
const MAX_ATTRIBUTES: usize = 32;
const MAX_ATTRIBUTE_BYTES: usize = 8 << 10;

/// A message to the watchers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    Changed(Instance),
    Removed(InstanceId),
}

impl Change {
    pub(crate) fn kind(&self) -> DaemonKind {
        match self {
            Self::Changed(instance) => instance.id.kind,
            Self::Removed(id) => id.kind,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Table {
    entries: BTreeMap<(DaemonKind, String), Entry>,
    capacity: usize,
    /// When [`Table::expire`] was last called.
    checked: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    instance: Instance,
    holder: Holder,
    lease: Duration,
    /// When the lease runs out. For an instance that has left: when it is removed.
    expires: Instant,
    /// The instance has left: later calls of this incarnation are refused.
    left: bool,
    /// The load that watchers know.
    published_load: f64,
}

/// The process that holds a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) certificate: PeerCertificate,
    /// Chosen by the process at its start.
    pub(crate) key: Vec<u8>,
}

/// The part of an instance that a heartbeat brings.
#[derive(Debug, Clone)]
pub(crate) struct Heartbeat {
    pub(crate) state: State,
    pub(crate) load: f64,
    pub(crate) leadership: Leadership,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) key: Vec<u8>,
}

impl Holder {
    /// Whether this process may replace a live registration: its own, or one of an earlier start with the same
    /// certificate. A shared certificate does not tell replicas apart, so it does not suffice.
    fn may_replace(&self, present: &Self) -> bool {
        self.key == present.key || (self.certificate == present.certificate && !self.certificate.shared)
    }
}

impl Table {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { entries: BTreeMap::new(), capacity, checked: None }
    }

    /// Announces an instance, or changes its announcement. An earlier incarnation never replaces a later one, and a
    /// live registration is replaced only by its holder (see [`Holder::may_replace`]). A full table drops an instance
    /// that has left or been offline longest, so that names that change with each start cannot fill it.
    pub(crate) fn register(
        &mut self,
        instance: Instance,
        holder: Holder,
        lease: Duration,
        now: Instant,
    ) -> Result<Vec<Change>, RegistryError> {
        check_size(&instance.attributes)?;
        let key = (instance.id.kind, instance.id.name.clone());
        let present = self.entries.get(&key);
        if let Some(present) = present {
            let (new, old) = (instance.id.incarnation, present.instance.id.incarnation);
            if present.is_live(now) && !holder.may_replace(&present.holder) {
                return Err(RegistryError::Duplicate);
            }
            if new < old || (new == old && present.left) {
                return Err(RegistryError::Stale);
            }
        }
        let (known, changed) = (present.is_some(), present.is_none_or(|it| it.instance != instance));
        let mut changes = Vec::new();
        if !known && self.entries.len() >= self.capacity {
            changes.push(self.evict_one().ok_or(RegistryError::Full)?);
        }
        let lease = lease.clamp(SHORTEST_LEASE, LONGEST_LEASE);
        let entry = Entry {
            published_load: instance.load,
            left: instance.state.is_down(),
            instance: instance.clone(),
            holder,
            lease,
            expires: now + lease,
        };
        self.entries.insert(key, entry);
        changes.extend(changed.then_some(Change::Changed(instance)));
        Ok(changes)
    }

    /// Drops an instance that has left, otherwise the one that has been offline longest. `None` if all are alive.
    fn evict_one(&mut self) -> Option<Change> {
        let gone = self.entries.iter().filter(|(_, entry)| entry.instance.state.is_down());
        let is_offline = |entry: &Entry| entry.instance.state == State::Offline;
        let (oldest, _) = gone.min_by_key(|(_, entry)| (is_offline(entry), entry.expires))?;
        let oldest = oldest.clone();
        self.entries.remove(&oldest).map(|entry| Change::Removed(entry.instance.id))
    }

    /// Extends the lease. Returns `None` when the table does not know the incarnation, which must register then.
    pub(crate) fn heartbeat(
        &mut self,
        id: &InstanceId,
        heartbeat: Heartbeat,
        now: Instant,
    ) -> Result<Option<Vec<Change>>, RegistryError> {
        check_size(&heartbeat.attributes)?;
        let Some(entry) = self.entries.get_mut(&(id.kind, id.name.clone())) else { return Ok(None) };
        let known = entry.instance.id.incarnation;
        if id.incarnation == known && heartbeat.key != entry.holder.key {
            return Err(RegistryError::Duplicate);
        }
        if id.incarnation < known || (id.incarnation == known && entry.left) {
            return Err(RegistryError::Stale);
        }
        if id.incarnation > known {
            return Ok(None);
        }
        entry.expires = now + entry.lease;
        entry.left = heartbeat.state.is_down();
        let instance = &mut entry.instance;
        let changed = instance.state != heartbeat.state
            || instance.leadership != heartbeat.leadership
            || instance.attributes != heartbeat.attributes
            || (heartbeat.load - entry.published_load).abs() >= LOAD_STEP;
        instance.state = heartbeat.state;
        instance.load = heartbeat.load;
        instance.leadership = heartbeat.leadership;
        instance.attributes = heartbeat.attributes;
        if !changed {
            return Ok(Some(Vec::new()));
        }
        entry.published_load = instance.load;
        Ok(Some(vec![Change::Changed(instance.clone())]))
    }

    /// The instance ends: it has left, and is removed after [`LEFT_RETENTION`]. One that has failed is offline, and
    /// stays. Calls of earlier incarnations and with another key are ignored.
    pub(crate) fn leave(
        &mut self,
        id: &InstanceId,
        key: &[u8],
        failed: bool,
        now: Instant,
    ) -> Option<Change> {
        let entry = self.entries.get_mut(&(id.kind, id.name.clone()))?;
        if entry.instance.id.incarnation != id.incarnation || entry.holder.key != key {
            return None;
        }
        entry.left = true;
        if failed {
            return entry.set_state(State::Offline);
        }
        entry.expires = now + LEFT_RETENTION;
        entry.set_state(State::Left)
    }

    /// Marks instances as offline when their lease has run out, and removes those that left [`LEFT_RETENTION`] ago.
    /// Call it at least every [`CHECK_INTERVAL`]. After a longer gap this process was suspended and received nothing, so
    /// every instance gets a whole lease to be heard again. Otherwise a paused registry would declare the cluster dead.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Change> {
        let last = self.checked.replace(now).unwrap_or(now);
        if now.duration_since(last) > STALL_THRESHOLD {
            for entry in self.entries.values_mut() {
                entry.expires = entry.expires.max(now + entry.lease);
            }
        }
        let mut changes = Vec::new();
        self.entries.retain(|_, entry| {
            if entry.expires > now {
                return true;
            }
            if entry.instance.state == State::Left {
                changes.push(Change::Removed(entry.instance.id.clone()));
                return false;
            }
            changes.extend(entry.set_state(State::Offline));
            true
        });
        changes
    }

    /// When the next lease runs out.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let alive = self.entries.values().filter(|entry| entry.instance.state != State::Offline);
        alive.map(|entry| entry.expires).min()
    }

    /// Removes an instance that is offline or has left.
    pub(crate) fn remove(&mut self, kind: DaemonKind, name: &str) -> Result<Change, RegistryError> {
        let key = (kind, name.to_owned());
        let entry = self.entries.get(&key).ok_or(RegistryError::Unknown)?;
        if !entry.instance.state.is_down() {
            return Err(RegistryError::NotOffline);
        }
        let id = entry.instance.id.clone();
        self.entries.remove(&key);
        Ok(Change::Removed(id))
    }

    pub(crate) fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.entries.values().map(|entry| &entry.instance)
    }
}

impl Entry {
    fn is_live(&self, now: Instant) -> bool {
        !self.instance.state.is_down() && self.expires > now
    }

    /// Returns `None` if the instance was in this state already.
    fn set_state(&mut self, state: State) -> Option<Change> {
        let changed = self.instance.state != state;
        self.instance.state = state;
        changed.then(|| Change::Changed(self.instance.clone()))
    }
}

fn check_size(attributes: &BTreeMap<String, String>) -> Result<(), RegistryError> {
    let bytes: usize = attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
    if attributes.len() > MAX_ATTRIBUTES || bytes > MAX_ATTRIBUTE_BYTES {
        return Err(RegistryError::Oversize);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(3);

    fn instance(name: &str, incarnation: u64) -> Instance {
        let id = InstanceId { kind: DaemonKind::Login, name: name.into(), incarnation };
        Instance {
            grpc_address: "127.0.0.1:1".into(),
            version: "0.1.0".into(),
            ..Instance::new(id, State::Up)
        }
    }

    fn holder(serial: &str, key: u8) -> Holder {
        let certificate = PeerCertificate { serial: serial.into(), shared: false };
        Holder { certificate, key: vec![key] }
    }

    fn heartbeat(state: State, load: f64) -> Heartbeat {
        Heartbeat { state, load, leadership: Leadership::None, attributes: BTreeMap::new(), key: vec![1] }
    }

    fn table(now: Instant) -> Table {
        let mut table = Table::new(2);
        table.register(instance("a", 5), holder("a1", 1), LEASE, now).unwrap();
        table
    }

    fn states(changes: &[Change]) -> Vec<State> {
        let state = |change: &Change| match change {
            Change::Changed(instance) => Some(instance.state),
            Change::Removed(_) => None,
        };
        changes.iter().filter_map(state).collect()
    }

    #[test]
    fn expired_lease_goes_offline_and_heartbeat_restores_it() {
        let now = Instant::now();
        let mut table = table(now);
        assert_eq!(table.next_expiry(), Some(now + LEASE));
        assert!(table.expire(now + LEASE - CHECK_INTERVAL).is_empty());
        assert_eq!(states(&table.expire(now + LEASE)), [State::Offline]);
        assert!(table.expire(now + LEASE).is_empty());
        assert_eq!(table.next_expiry(), None);
        assert_eq!(table.instances().count(), 1, "offline stays visible");
        let id = instance("a", 5).id;
        let changes = table.heartbeat(&id, heartbeat(State::Up, 0.0), now + LEASE).unwrap().unwrap();
        assert_eq!(states(&changes), [State::Up]);
    }

    #[test]
    fn stalled_registry_extends_leases_before_expiry() {
        let now = Instant::now();
        let mut table = table(now);
        assert!(table.expire(now + CHECK_INTERVAL).is_empty());
        let woken = now + LEASE * 10;
        assert!(table.expire(woken).is_empty());
        assert_eq!(table.next_expiry(), Some(woken + LEASE));
        let looks = (1..).map(|n| woken + CHECK_INTERVAL * n).take_while(|at| *at < woken + LEASE);
        assert!(looks.map(|at| table.expire(at)).all(|changes| changes.is_empty()));
        assert_eq!(states(&table.expire(woken + LEASE)), [State::Offline]);
    }

    #[test]
    fn earlier_incarnation_is_refused() {
        let now = Instant::now();
        let mut table = table(now);
        assert_eq!(table.register(instance("a", 4), holder("a1", 1), LEASE, now), Err(RegistryError::Stale));
        let old = instance("a", 4).id;
        assert!(table.leave(&old, &[1], false, now).is_none());
        assert!(table.heartbeat(&old, heartbeat(State::Up, 0.0), now).is_err());
        assert_eq!(table.register(instance("a", 6), holder("a1", 1), LEASE, now).unwrap().len(), 1);
        assert!(table.leave(&instance("a", 5).id, &[1], false, now).is_none());
        assert_eq!(table.instances().next().unwrap().state, State::Up);
    }

    #[test]
    fn live_registration_is_not_replaced_under_another_certificate() {
        let now = Instant::now();
        let mut table = table(now);
        let foreign = holder("b2", 2);
        let refused = table.register(instance("a", 6), foreign.clone(), LEASE, now);
        assert_eq!(refused, Err(RegistryError::Duplicate));
        let id = instance("a", 5).id;
        let forged = Heartbeat { key: vec![2], ..heartbeat(State::Draining, 1.0) };
        assert_eq!(table.heartbeat(&id, forged, now), Err(RegistryError::Duplicate));
        assert_eq!(table.leave(&id, &[2], false, now), None);
        assert_eq!(table.instances().next().unwrap().state, State::Up);
        // The holder may renew its certificate, and a later start with the same certificate may replace it.
        assert!(table.register(instance("a", 5), holder("b2", 1), LEASE, now).is_ok());
        assert!(table.register(instance("a", 6), holder("b2", 3), LEASE, now).is_ok());
        // After the lease, the name is free.
        assert!(table.register(instance("a", 7), holder("c3", 4), LEASE, now + LEASE).is_ok());
    }

    #[test]
    fn live_registration_under_a_shared_certificate_is_not_replaced() {
        let now = Instant::now();
        let mut table = Table::new(2);
        let shared = |key: u8| Holder {
            certificate: PeerCertificate { serial: "a1".into(), shared: true },
            key: vec![key],
        };
        table.register(instance("a", 5), shared(1), LEASE, now).unwrap();
        let refused = table.register(instance("a", 6), shared(2), LEASE, now);
        assert_eq!(refused, Err(RegistryError::Duplicate));
        assert!(table.register(instance("a", 6), shared(2), LEASE, now + LEASE).is_ok());
    }

    #[test]
    fn left_incarnation_cannot_register_again() {
        let now = Instant::now();
        let mut table = table(now);
        let id = instance("a", 5).id;
        assert_eq!(states(&Vec::from_iter(table.leave(&id, &[1], false, now))), [State::Left]);
        assert!(table.leave(&id, &[1], false, now).is_none());
        assert!(table.heartbeat(&id, heartbeat(State::Up, 0.0), now).is_err());
        assert_eq!(table.register(instance("a", 5), holder("a1", 1), LEASE, now), Err(RegistryError::Stale));
        assert!(table.register(instance("a", 6), holder("a1", 1), LEASE, now).is_ok());
    }

    #[test]
    fn left_instance_is_removed_and_failed_one_stays_offline() {
        let now = Instant::now();
        let (mut table, id) = (table(now), instance("a", 5).id);
        table.register(instance("b", 1), holder("a1", 1), LEASE, now).unwrap();
        table.leave(&id, &[1], false, now);
        let failed = table.leave(&instance("b", 1).id, &[1], true, now);
        assert_eq!(states(&Vec::from_iter(failed)), [State::Offline]);
        let mut published = Vec::new();
        let mut at = now;
        while at < now + LEFT_RETENTION - CHECK_INTERVAL {
            at += CHECK_INTERVAL;
            published.extend(table.expire(at));
        }
        assert!(published.is_empty(), "{published:?}");
        assert_eq!(table.expire(now + LEFT_RETENTION), [Change::Removed(id)]);
        assert_eq!(
            states(&table.instances().cloned().map(Change::Changed).collect::<Vec<_>>()),
            [State::Offline]
        );
    }

    #[test]
    fn unchanged_heartbeat_publishes_nothing() {
        let now = Instant::now();
        let mut table = table(now);
        assert_eq!(table.register(instance("a", 5), holder("a1", 1), LEASE, now), Ok(Vec::new()));
        let id = instance("a", 5).id;
        let mut published =
            |load| table.heartbeat(&id, heartbeat(State::Up, load), now).unwrap().unwrap().len();
        assert_eq!([published(0.005), published(0.009), published(0.012), published(0.013)], [0, 0, 1, 0]);
        assert!(table.heartbeat(&instance("b", 1).id, heartbeat(State::Up, 0.0), now).unwrap().is_none());
        assert!(table.heartbeat(&instance("a", 9).id, heartbeat(State::Up, 0.0), now).unwrap().is_none());
    }

    #[test]
    fn full_table_evicts_left_then_longest_offline_instance() {
        let now = Instant::now();
        let mut table = table(now);
        table.register(instance("b", 1), holder("a1", 1), LEASE, now + CHECK_INTERVAL).unwrap();
        table.leave(&instance("b", 1).id, &[1], true, now);
        table.leave(&instance("a", 5).id, &[1], true, now);
        let changes = table.register(instance("c", 1), holder("a1", 1), LEASE, now + LEASE).unwrap();
        assert_eq!(changes, [Change::Removed(instance("a", 5).id), Change::Changed(instance("c", 1))]);
        // A known instance needs no more room.
        assert_eq!(table.register(instance("b", 2), holder("a1", 1), LEASE, now + LEASE).unwrap().len(), 1);
        assert_eq!(
            table.register(instance("d", 1), holder("a1", 1), LEASE, now + LEASE),
            Err(RegistryError::Full)
        );
        assert_eq!(table.instances().count(), 2);
        // An instance that has left is dropped first.
        table.leave(&instance("b", 2).id, &[1], true, now + LEASE);
        table.leave(&instance("c", 1).id, &[1], false, now + LEASE);
        let changes = table.register(instance("d", 1), holder("a1", 1), LEASE, now + LEASE).unwrap();
        assert_eq!(changes[0], Change::Removed(instance("c", 1).id));
    }

    #[test]
    fn remove_requires_offline_and_table_size_is_bounded() {
        let now = Instant::now();
        let mut table = table(now);
        assert_eq!(table.remove(DaemonKind::Login, "a"), Err(RegistryError::NotOffline));
        table.register(instance("b", 1), holder("a1", 1), LEASE, now).unwrap();
        assert_eq!(table.register(instance("c", 1), holder("a1", 1), LEASE, now), Err(RegistryError::Full));
        table.leave(&instance("a", 5).id, &[1], true, now);
        assert!(table.remove(DaemonKind::Login, "a").is_ok());
        assert_eq!(table.remove(DaemonKind::Login, "a"), Err(RegistryError::Unknown));
        let mut fat = instance("c", 1);
        fat.attributes.insert("key".into(), "x".repeat(MAX_ATTRIBUTE_BYTES));
        assert_eq!(table.register(fat, holder("a1", 1), LEASE, now), Err(RegistryError::Oversize));
    }
}
