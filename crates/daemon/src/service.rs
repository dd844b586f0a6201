//! The trait that each daemon implements.

use std::{fmt::Debug, future::Future};

use serde::{Serialize, de::DeserializeOwned};
use shardkeep_types::DaemonKind;

use crate::{Daemon, Settings, Validate};

/// One kind of daemon.
pub trait Service: Sized + Send + 'static {
    const KIND: DaemonKind;

    /// The service's own section of the settings, named like the kind: `[zone]`. Derive `Serialize` and
    /// `Deserialize` with `#[serde(deny_unknown_fields, default)]`.
    type Config: Serialize + DeserializeOwned + Default + Validate + Clone + Debug + Send + Sync + 'static;

    /// Worker threads on a machine with this many cores, unless the settings name a number.
    fn threads(cores: usize) -> usize {
        cores
    }

    /// Binds, becomes ready, runs and drains. Returns when drained; an error ends the daemon with exit code 1.
    fn run(
        settings: Settings<Self::Config>,
        daemon: Daemon,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;
}
