//! The game world of one zone as a pure function: `tick(now, inputs) → events`. It knows no clock, socket,
//! runtime or global randomness, so a zone can be replayed, tested and measured without any of them.
//!
//! Hard state (items, coins, experience) is never changed here: the simulation asks for a commit
//! ([`Event::Commit`]) and is told by [`Input::Committed`] what the database says.

mod actions;
mod body;
mod cells;
mod commit_result;
mod event;
mod input;
pub mod load;
mod map;
mod perceive;
mod random;
pub mod rules;
mod sim;
mod stage;
pub mod template;
mod trade;

pub use event::{
    Appearance, CellForm, CellUpdate, Entry, Event, Kind, OwnState, Refusal, RemovalReason, Reply, Ring,
    TradeSideView, TradeState, TradeView,
};
pub use input::{
    Act, ActionKey, Effect, EffectResult, EnteringAvatar, GhostState, Goal, HardChange, Input, Intent, Item,
    Outcome, Possessions, Requester, Reward, TradeContribution,
};
pub use map::{Map, SQUARE_MM, SpawnPoint, WalkGrid};
pub use perceive::{Neighbour, Perception};
pub use random::Random;
pub use sim::{AvatarView, Counts, EntityView, Sim};
pub use template::Stack;
