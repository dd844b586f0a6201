//! A complete headless client: finds a server by DNS, logs in, attaches, and keeps a session alive whatever happens
//! to its sockets. Knows nothing of the cluster but `docs/protocol.md`; bots, the terminal client and tests use it.
//!
//! ```text
//! dns ──▶ login::Door ──▶ login::Challenged ──▶ login::WorldSelect ──▶ login::Boarding
//!                                                                          │
//! game::Player ◀── events ── session::Session (one task) ◀── handshake ◀───┘
//! ```
//!
//! ```no_run
//! # async fn example() -> Result<(), shardkeep_client::ClientError> {
//! use shardkeep_client::{Config, game::Player, login};
//!
//! let config = Config::with_dns("127.0.0.1:5353".parse().unwrap());
//! let mut worlds = login::log_in(&config, "shardkeep.test", "alice", "secret").await?;
//! let boarding = worlds.select(1).await?;
//! let (player, _happenings) = Player::attach(&config, boarding).await?;
//! let characters = player.list_characters().await?;
//! player.enter(characters.characters[0].id).await?;
//! player.say("hello").await?;
//! # Ok(()) }
//! ```

pub mod config;
pub mod counters;
pub mod dns;
mod error;
pub mod game;

mod handshake;
pub mod login;
mod random;
pub mod raw;
mod resolve;
pub mod session;
pub mod update;

pub use config::Config;
pub use error::{ClientError, Refusal, SessionEnd};
pub use shardkeep_lanes as lanes;
pub use shardkeep_wire as wire;
