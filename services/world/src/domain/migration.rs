//! Migrations: sectors that have a new owner while the former owner still hands over the avatars inside. Their number is
//! limited, so that hand-overs do not overload the database and the zones.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use shardkeep_types::{InstanceId, SectorId};

/// A migration that takes longer does not count any more, so that one stuck avatar does not stop all others.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a sector stays after it has moved for balance.
const BALANCE_PAUSE: Duration = Duration::from_secs(30);

pub(crate) struct Migrations {
    limit: usize,
    active: BTreeMap<SectorId, Migration>,
    balanced_at: BTreeMap<SectorId, Instant>,
}

struct Migration {
    from: InstanceId,
    since: Instant,
}

impl Migrations {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, active: BTreeMap::new(), balanced_at: BTreeMap::new() }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.active.len() < self.limit
    }

    pub(crate) fn len(&self) -> usize {
        self.active.len()
    }

    /// The zone that hands over the avatars of the sector.
    pub(crate) fn source(&self, sector: SectorId) -> Option<&InstanceId> {
        self.active.get(&sector).map(|migration| &migration.from)
    }

    pub(crate) fn begin(&mut self, now: Instant, sector: SectorId, from: InstanceId) {
        self.active.entry(sector).or_insert(Migration { from, since: now });
    }

    /// Keeps the migrations whose source still has avatars in the sector.
    pub(crate) fn finish(&mut self, now: Instant, has_avatars: impl Fn(&InstanceId, SectorId) -> bool) {
        self.active.retain(|&sector, migration| {
            let is_overdue = now >= migration.since + MIGRATION_TIMEOUT;
            if is_overdue {
                tracing::warn!(%sector, from = migration.from.name, "avatars of a moved sector stay behind");
            }
            !is_overdue && has_avatars(&migration.from, sector)
        });
        self.balanced_at.retain(|_, at| now < *at + BALANCE_PAUSE);
    }

    /// Whether the sector may move for balance.
    pub(crate) fn may_balance(&self, sector: SectorId) -> bool {
        !self.active.contains_key(&sector) && !self.balanced_at.contains_key(&sector)
    }

    pub(crate) fn balanced(&mut self, now: Instant, sector: SectorId) {
        self.balanced_at.insert(sector, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::zone::fixture::owner;

    #[test]
    fn migration_ends_when_last_avatar_has_left_or_is_overdue() {
        let now = Instant::now();
        let mut migrations = Migrations::new(1);
        migrations.begin(now, SectorId(1), owner("a", 1));
        migrations.begin(now, SectorId(1), owner("b", 1));
        assert_eq!(migrations.source(SectorId(1)), Some(&owner("a", 1)), "the first source has the avatars");
        assert!(!migrations.has_room() && !migrations.may_balance(SectorId(1)));
        migrations.finish(now, |zone, _| zone.name == "a");
        assert!(!migrations.has_room());
        migrations.finish(now, |zone, _| zone.name == "b");
        assert!(migrations.has_room() && migrations.may_balance(SectorId(1)));
        migrations.begin(now, SectorId(2), owner("a", 1));
        migrations.finish(now + MIGRATION_TIMEOUT, |_, _| true);
        assert_eq!(migrations.len(), 0);
    }

    #[test]
    fn balanced_sector_rests() {
        let now = Instant::now();
        let mut migrations = Migrations::new(1);
        migrations.balanced(now, SectorId(1));
        migrations.finish(now + BALANCE_PAUSE / 2, |_, _| true);
        assert!(!migrations.may_balance(SectorId(1)));
        migrations.finish(now + BALANCE_PAUSE, |_, _| true);
        assert!(migrations.may_balance(SectorId(1)));
    }
}
