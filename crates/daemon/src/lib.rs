//! The common parts of all daemons: settings, telemetry, admin endpoints, supervised tasks, and the way from bind to drain.
//! A service implements [`Service`] and passes itself to [`main`]; this crate does everything else that a process needs.
//!
//! ```no_run
//! # use shardkeep_daemon::{Daemon, Service, Settings, Validate};
//! # use shardkeep_types::DaemonKind;
//! # #[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
//! # struct Config {}
//! # impl Validate for Config {}
//! # struct Echo;
//! impl Service for Echo {
//!     const KIND: DaemonKind = DaemonKind::Chat;
//!     type Config = Config;
//!     async fn run(settings: Settings<Config>, daemon: Daemon) -> anyhow::Result<()> {
//!         // bind …
//!         daemon.ready();
//!         daemon.draining().cancelled().await;
//!         // finish the work in progress …
//!         Ok(())
//!     }
//! }
//! fn main() -> std::process::ExitCode {
//!     shardkeep_daemon::main::<Echo>()
//! }
//! ```
//!
//! # Life
//!
//! 1. The settings are read and checked ([`Settings::load`]); `--check-config` ends here.
//! 2. The admin socket is bound. Then [`Service::run`] binds its own sockets, joins the cluster and becomes ready.
//! 3. SIGTERM, Ctrl-C, `Control.Drain` or a failed task starts the drain: [`Daemon::draining`] is cancelled, and the
//!    service admits nothing new, finishes its work and returns. A second signal exits at once.
//! 4. After the grace time, [`Daemon::stopped`] is cancelled, and unfinished work is dropped.
//! 5. The infrastructure (gRPC server, registration, log export) closes last, after [`Daemon::finished`].
//!
//! # Tasks
//!
//! Every task is supervised. [`Daemon::spawn`], [`Daemon::spawn_work`] and [`Daemon::supervised`] end the daemon when a
//! task panics, so that no daemon goes on with half of its tasks. [`contained`] lets the daemon go on: only for tasks
//! that serve one connection and share no state that a panic can leave half-changed.

mod accept;
mod admin;
mod announce;
mod clock;
mod config;
mod connection_limiter;
pub mod event;
mod healthcheck;
mod http_server;
mod lifecycle;
mod mask;
mod network;
mod origin;
mod otlp;
mod panics;
mod process;
mod random;
mod recorder;
mod repeat_limit;
mod rotating_file;
mod run;
mod service;
mod settings;
mod telemetry;

pub use accept::accept;
pub use clock::unix_millis;
pub use config::{ClusterConfig, DaemonConfig, LogConfig, LogFormat, Settings, Validate, duration};
pub use connection_limiter::{ConnectionLimiter, ConnectionLimits, Full, OverflowPolicy, Slot};
pub use http_server::{HttpConnection, HttpLimits, serve_http};
pub use lifecycle::{BoundAddresses, Daemon};
pub use network::{Network, NetworkError, Networks};
pub use origin::{Origin, Prefix};
pub use panics::contained;
pub use random::{NoRandomness, random_bytes, random_u64};
pub use recorder::zero_counters;
pub use run::{Running, launch, main, main_with_args};
pub use service::Service;
pub use settings::{SettingsError, SettingsMistake, Sources};
// For the `event!` macro.
#[doc(hidden)]
pub use tracing;
