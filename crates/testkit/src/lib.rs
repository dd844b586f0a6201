//! What tests need from outside: a whole cluster of real processes ([`Cluster`]); throwaway PostgreSQL and Redis
//! servers on free ports, from the distribution's packages; a registry for the tests of one daemon
//! ([`FakeRegistry`]); and a player's [`Authenticator`]. The servers run as an unprivileged user, and end and vanish with the value that holds them,
//! or with the test process, however it ends.

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
