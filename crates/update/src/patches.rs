//! The published release, shared by all connections of the update service.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use shardkeep_patch::PublicKey;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{Config, slots::UpdateSlots, store::Store, throttle::Throttle};

/// Disk reads at once. Each occupies a thread and perhaps a buffer; further reads wait.
const COLD_READS: usize = 8;

/// The published release. Without a store, clients are told that there are no patches.
#[derive(Clone)]
pub struct Patches(Option<Arc<Shared>>);

pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) slots: UpdateSlots,
    pub(crate) bandwidth: Throttle,
    /// Bytes per second of one connection.
    pub(crate) bandwidth_per_connection: u64,
    pub(crate) cold_reads: Semaphore,
}

impl Patches {
    /// # Errors
    /// The key in the settings is not a public key.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        crate::metrics::describe();
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
            bandwidth_per_connection: config.bandwidth_per_connection,
            cold_reads: Semaphore::new(COLD_READS),
        }))))
    }

    /// Whether an outdated client can fetch a release here.
    pub fn are_published(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.store.published().is_some())
    }

    /// Watches the store for new releases until `stop`.
    ///
    /// # Errors
    /// Never: a store that fails is read again.
    pub async fn follow(self, stop: CancellationToken) -> anyhow::Result<()> {
        if let Some(shared) = &self.0 {
            shared.store.follow(&stop).await;
        }
        Ok(())
    }

    pub(crate) fn shared(&self) -> Option<&Shared> {
        self.0.as_deref()
    }
}
