//! Game state: characters, what they hold, which zone owns them, which world process leads. Everything that moves
//! property is one fenced, idempotent, double-entry transaction. Many transactions share one commit.
//!
//! | task | file |
//! | --- | --- |
//! | types, ledger accounts, refusals | `types`, `holder`, `refusal` |
//! | applies actions to locked rows, without the database | `plan` |
//! | locks, plans and writes a batch in one transaction | `commit` |
//! | collects actions of many callers into batches | `committer` |
//! | characters, ownership, soft state, ground, leadership | `characters`, `ownership`, `soft`, `ground`, `leadership` |
//! | spaces and sectors of a world | `layout` |
//! | checks that each item and coin has one holder and one origin | `conserve` |

mod character_search;
mod characters;
mod commit;
mod committer;
mod conserve;
mod ground;
mod holder;
mod holdings;
mod ids;
mod layout;
mod leadership;
mod ownership;
mod plan;
mod read_holdings;
mod refusal;
mod soft;
mod tables;
#[cfg(test)]
mod tests;
mod types;

pub use character_search::FoundCharacter;
pub use characters::NewCharacter;
pub use committer::{Committer, CommitterConfig, Observer, Writer};
pub use conserve::Conservation;
pub use ground::{GroundCursor, GroundItem, GroundPage};
pub use holder::{Holder, MalformedHolder};
pub use holdings::{Holdings, HoldingsCache, NoCache};
pub use layout::{LayoutChange, LayoutCursor, LayoutHead, LayoutPage, MAX_LAYOUT_ROWS, Sector, Space};
pub use leadership::{Leadership, LeadershipBid, LeaseFault, find_lease_faults};
pub use ownership::{Claim, REOWN_LIMIT, Release, Reown, Reowned, Transfer};
pub use refusal::{GameError, Refusal};
pub use soft::{SoftRefusal, SoftWrite};
pub use tables::Game;
pub use types::{
    ACTION_WINDOW, ActionId, ActionLookup, Caller, Character, Fence, HardAction, HardResult, Item,
    MAX_ACTION_GAP, MAX_STACKS, MintItem, MoveCoins, MoveItem, OnceKey, Owner, Reward, SoftState,
};
