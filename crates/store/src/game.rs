//! Game state: characters, what they hold, who owns them, who leads a world. Everything that moves property is one
//! fenced, idempotent, double-entry transaction; many of them share one commit.
//!
//! | idea | file |
//! | --- | --- |
//! | words | `types`, `holder`, `refusal` |
//! | what an action does to what is locked; no database | `plan` |
//! | locks, plans and writes a batch in one transaction | `commit` |
//! | many callers, few transactions | `committer` |
//! | characters, ownership, soft state, ground, leadership | `characters`, `ownership`, `soft`, `ground`, `leadership` |
//! | does every item and coin have one holder and one origin | `conserve` |

mod character_search;
mod characters;
mod commit;
mod committer;
mod conserve;
mod ground;
mod holder;
mod holdings;
mod ids;
mod leadership;
mod ownership;
mod plan;
mod refusal;
mod soft;
#[cfg(test)]
mod tests;
mod types;

use std::sync::Arc;

pub use character_search::FoundCharacter;
pub use characters::NewCharacter;
pub use committer::{Committer, CommitterConfig, Lane, Observer};
pub use conserve::Conservation;
pub use ground::{Ground, GroundItem};
pub use holder::{Holder, MalformedHolder};
pub use holdings::{Holdings, HoldingsCache, NoCache};
pub use leadership::{Leadership, LeadershipBid, LeaseFault, find_lease_faults};
pub use ownership::{Claim, Release, Reown, Transfer};
pub use refusal::{GameError, Refusal};
pub use types::{
    ACTION_WINDOW, ActionId, Character, Fence, HardAction, HardResult, Item, MintItem, MoveCoins, MoveItem,
    OnceKey, Owner, SoftState,
};

use crate::Database;

/// The game's tables. Clones share the database, the cache and the blocks of ids.
#[derive(Clone)]
pub struct Game {
    database: Database,
    cache: Arc<dyn HoldingsCache>,
    ids: Arc<ids::IdBlocks>,
}

impl Game {
    /// The tables of a database opened with [`Schema::Game`](crate::Schema::Game).
    pub fn new(database: Database, cache: Arc<dyn HoldingsCache>) -> Self {
        Self { database, cache, ids: Arc::default() }
    }

    pub fn database(&self) -> &Database {
        &self.database
    }
}
