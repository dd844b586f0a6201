//! A cache of holdings, by character and version of its row. The transaction reads the version from the row, so a cached
//! holding of another version is never used.

use std::sync::Arc;

use quick_cache::sync::Cache;
use shardkeep_store::game::{Holdings, HoldingsCache};
use shardkeep_types::CharacterId;

use crate::metrics::{CACHE_HITS, CACHE_MISSES};

/// Bounded; it evicts holdings that were not used recently.
pub(crate) struct BoundedHoldingsCache(Cache<CharacterId, Arc<Holdings>>);

impl BoundedHoldingsCache {
    pub(crate) fn new(characters: usize) -> Self {
        Self(Cache::new(characters.max(1)))
    }
}

impl HoldingsCache for BoundedHoldingsCache {
    fn get(&self, character: CharacterId, version: u64) -> Option<Arc<Holdings>> {
        let found = self.0.get(&character).filter(|holdings| holdings.version == version);
        metrics::counter!(if found.is_some() { CACHE_HITS } else { CACHE_MISSES }).increment(1);
        found
    }

    fn put(&self, character: CharacterId, holdings: Arc<Holdings>) {
        self.0.insert(character, holdings);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_lookup_of_other_version_misses() {
        let cache = BoundedHoldingsCache::new(10);
        cache.put(CharacterId(1), Arc::new(Holdings { version: 3, ..Holdings::default() }));
        assert!(cache.get(CharacterId(1), 3).is_some());
        assert!(cache.get(CharacterId(1), 4).is_none());
        assert!(cache.get(CharacterId(2), 3).is_none());
    }
}
