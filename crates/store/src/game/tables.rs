//! The handle to the game's tables.

use std::sync::Arc;

use super::{holdings::HoldingsCache, ids::IdBlocks};
use crate::Database;

/// The game's tables. Clones share the database, the cache and the blocks of ids.
#[derive(Clone)]
pub struct Game {
    database: Database,
    cache: Arc<dyn HoldingsCache>,
    ids: Arc<IdBlocks>,
}

impl Game {
    /// The tables of a database opened with [`Schema::Game`](crate::Schema::Game).
    pub fn new(database: Database, cache: Arc<dyn HoldingsCache>) -> Self {
        Self { database, cache, ids: Arc::default() }
    }

    pub fn database(&self) -> &Database {
        &self.database
    }

    pub(super) fn cache(&self) -> &dyn HoldingsCache {
        &*self.cache
    }

    pub(super) fn ids(&self) -> &IdBlocks {
        &self.ids
    }
}
