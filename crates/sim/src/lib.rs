//! The game world of one zone as a pure function: `tick(now, inputs) → events`. It knows no clock, socket,
//! runtime or global randomness, so a zone can be replayed, tested and measured without any of them.
//!
//! Hard state (items, coins, experience) is never changed here: the simulation asks for a commit
//! ([`Event::Commit`]) and is told by [`Input::Committed`] what the database says.

mod actions;
mod body;
mod cells;
mod event;
mod input;
pub mod load;
mod map;
mod perceive;
mod random;
pub mod rules;
mod settle;
mod sim;
mod stage;
pub mod template;
mod trade;
mod trading;

pub use event::{
    Appears, CellUpdate, Entry, Event, Gone, Kind, OwnState, Refusal, Reply, Ring, TradeSideView, TradeState,
    TradeView,
};
pub use input::{
    Act, Action, Ask, Effect, EffectResult, Entering, GhostState, Goal, Input, Intent, Item, Outcome,
    Possessions, Reward, TradeGive, Want,
};
pub use map::{Map, SQUARE_MM, SpawnPoint, WalkGrid};
pub use perceive::{Neighbour, Perception};
pub use random::Random;
pub use sim::{AvatarView, Counts, Seen, Sim};
pub use template::Stack;
