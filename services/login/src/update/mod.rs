//! The update service (`docs/protocol.md`, section 19): hands out the published release, piece by piece, to clients that
//! are too old to log in. What it sends is public and signed, so it needs to know nothing of it; what it has to see to is
//! that patching never starves logins: places, bandwidth and disk reads of its own, and no memory that grows with what
//! is fetched.

mod config;
mod piece;
mod serve;
mod slots;
mod standalone;
mod store;
mod throttle;

pub use config::Config;
pub(crate) use serve::serve;
pub use standalone::{StandaloneConfig, serve_standalone};

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use shardkeep_patch::PublicKey;
use tokio::sync::Semaphore;

use slots::UpdateSlots;
use store::Store;
use throttle::Throttle;

/// Looks at the disk for what is not in memory, at once. More wait; each holds a thread and perhaps a buffer.
const COLD_READS: usize = 8;

/// What all connections of the service share. Without a store, clients are told that there is nothing here.
#[derive(Clone)]
pub(crate) struct Patches(Option<Arc<Shared>>);

pub(crate) struct Shared {
    config: Config,
    store: Store,
    slots: UpdateSlots,
    bandwidth: Throttle,
    cold_reads: Semaphore,
}

impl Patches {
    pub(crate) fn new(config: &Config) -> anyhow::Result<Self> {
        if config.dir.is_empty() {
            return Ok(Self(None));
        }
        let key = match config.key.as_str() {
            "" => None,
            key => Some(key.parse::<PublicKey>().context("login.patches.key")?),
        };
        Ok(Self(Some(Arc::new(Shared {
            store: Store::new(Path::new(&config.dir), key),
            slots: UpdateSlots::new(config),
            bandwidth: Throttle::new(config.bandwidth),
            cold_reads: Semaphore::new(COLD_READS),
            config: config.clone(),
        }))))
    }

    /// Whether a client that is too old finds its update here.
    pub(crate) fn are_published(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.store.published().is_some())
    }

    /// Notices what is published, until told to stop.
    pub(crate) async fn follow(self, stop: tokio_util::sync::CancellationToken) -> anyhow::Result<()> {
        if let Some(shared) = &self.0 {
            shared.store.follow(&stop).await;
        }
        Ok(())
    }
}
