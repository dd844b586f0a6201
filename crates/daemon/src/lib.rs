//! The shape every daemon shares: settings, telemetry, admin endpoints, and a life that runs from bind to drain.
//! A service implements [`Service`] and hands itself to [`main`]; everything else about being a process is here.
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
//!         // finish what was begun …
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
//! 1. Settings are read and checked ([`Settings::load`]); `--check-config` ends here.
//! 2. The admin socket is bound, then [`Service::run`] binds its own, joins the cluster and becomes ready.
//! 3. SIGTERM, Ctrl-C, `Control.Drain` or a failed task *drains*: [`Daemon::draining`] is cancelled, and the service
//!    stops admitting, finishes and returns. A second signal exits at once.
//! 4. If that takes longer than the grace time, [`Daemon::stopped`] is cancelled and what is left is dropped.
//! 5. The infrastructure (gRPC server, registration, log export) closes last, after [`Daemon::finished`].

mod admin;
mod announce;
mod catalogue;
mod clock;
mod config;
mod connection_limiter;
pub mod event;
mod healthcheck;
mod lifecycle;
mod mask;
mod network;
mod origin;
mod otlp;
mod process;
mod random;
mod run;
mod settings;
mod telemetry;

use std::{fmt::Debug, future::Future};

use serde::{Serialize, de::DeserializeOwned};
use shardkeep_types::DaemonKind;

pub use clock::unix_millis;
pub use config::{ClusterConfig, DaemonConfig, LogConfig, LogFormat, Settings, duration};
pub use connection_limiter::{ConnectionLimiter, ConnectionLimits, Full, OverflowPolicy, Slot};
pub use lifecycle::{BoundAddresses, Daemon};
pub use network::{Network, NetworkError, Networks};
pub use origin::{Origin, Prefix};
pub use random::{NoRandomness, random_bytes, random_u64};
pub use run::{Running, launch, main, main_with_args};
pub use settings::{SettingsError, Sources};
// For the `event!` macro.
#[doc(hidden)]
pub use tracing;

/// One kind of daemon: what differs between them.
pub trait Service: Sized + Send + 'static {
    const KIND: DaemonKind;

    /// The service's own section of the settings, named like the kind: `[zone]`. Derive `Serialize` and
    /// `Deserialize` with `#[serde(deny_unknown_fields, default)]`.
    type Config: Serialize + DeserializeOwned + Default + Validate + Clone + Debug + Send + Sync + 'static;

    /// Threads for a machine of so many cores, when the settings do not say.
    fn threads(cores: usize) -> usize {
        cores
    }

    /// Bind → ready → run → drain. Returns when drained; an error ends the daemon with exit code 1.
    fn run(
        settings: Settings<Self::Config>,
        daemon: Daemon,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Checks that types can not express. The message begins with the key it is about: `tick_hz: must be 1 to 100`.
pub trait Validate {
    /// # Errors
    /// With the key and what is wrong with its value.
    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}
