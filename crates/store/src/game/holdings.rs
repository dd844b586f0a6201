//! The holdings of a character at a version of its row. A cache of holdings saves reading items again. A cached
//! holding counts only while its version is that of the row read in the same transaction.

use std::{collections::BTreeMap, sync::Arc};

use shardkeep_types::{CharacterId, ItemId};

use super::types::Item;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings {
    pub version: u64,
    pub coins: i64,
    pub items: BTreeMap<ItemId, Item>,
}

/// Stores holdings by character. It may forget any of them at any time.
pub trait HoldingsCache: Send + Sync + 'static {
    /// The holdings at exactly this version, if they are known.
    fn get(&self, character: CharacterId, version: u64) -> Option<Arc<Holdings>>;
    fn put(&self, character: CharacterId, holdings: Arc<Holdings>);
}

/// A cache that stores nothing.
pub struct NoCache;

impl HoldingsCache for NoCache {
    fn get(&self, _: CharacterId, _: u64) -> Option<Arc<Holdings>> {
        None
    }

    fn put(&self, _: CharacterId, _: Arc<Holdings>) {}
}
