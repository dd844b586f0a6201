//! What tests need from outside: throwaway PostgreSQL and Redis servers on free ports, from the distribution's
//! packages. They run as an unprivileged user, and end and vanish with the value that holds them, or with the test
//! process, however it ends.

mod postgres;
mod process;
mod redis;

pub use postgres::Postgres;
pub use redis::Redis;
