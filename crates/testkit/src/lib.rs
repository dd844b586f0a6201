//! Environments for tests: a cluster of real processes ([`Cluster`]), temporary PostgreSQL and Redis servers on free
//! ports, doubles of other daemons for the tests of one daemon ([`FakeCluster`]), and a player's [`Authenticator`].
//!
//! The servers come from the distribution's packages and run as an unprivileged user. They end, and their files are
//! removed, when their value is dropped or the test process ends.

mod authenticator;
mod cluster;
mod fake;
mod http;
mod pgbouncer;
mod postgres;
mod process;
mod redis;
mod small_disk;
mod supervision;
mod switch;
mod tls;
mod wait;

pub use authenticator::Authenticator;
pub use cluster::{Announcement, Cluster, Ledger, Stores, binary, tool};
pub use fake::{
    FakeBackend, FakeBilling, FakeCluster, FakeDatabase, FakeGateway, FakeGatewayLink, FakeLogin,
    FakeRegistry, FakeWorld, GatewayCall, PLAY_TIME_LEFT_MS, ReplyMode,
};
pub use http::http_get;
pub use pgbouncer::PgBouncer;
pub use postgres::Postgres;
pub use redis::Redis;
pub use small_disk::SmallDisk;
pub use supervision::assert_each_panic_ends_the_daemon;
pub use switch::AddressSwitch;
pub use wait::{TIMEOUT, wait_until};
