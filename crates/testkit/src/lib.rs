//! Environments for tests: a whole cluster of real processes ([`Cluster`]), throwaway PostgreSQL and Redis servers on free
//! ports, a registry for the tests of one daemon ([`FakeRegistry`]), and a player's [`Authenticator`]. The servers come from
//! the distribution's packages and run as an unprivileged user. They end with the value that holds them or with the test
//! process.

mod authenticator;
mod cluster;
mod postgres;
mod process;
mod redis;
mod registry;
mod wait;

pub use authenticator::Authenticator;
pub use cluster::{Announcement, Cluster, Ledger, Stores, binary, tool};
pub use postgres::Postgres;
pub use redis::Redis;
pub use registry::FakeRegistry;
pub use wait::wait_until;
