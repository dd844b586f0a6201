//! Installs the published release (`docs/protocol.md`, section 19). It fetches the signed manifest, finds the chunks that
//! are already on disk, fetches the others over several connections, and moves the files into place when all are complete.
//! An interrupted update continues where it stopped, because it hashes the files on disk instead of trusting a record.
//!
//! ```no_run
//! # async fn example() -> Result<(), shardkeep_client::update::UpdateError> {
//! use shardkeep_client::{Config, update::{Options, Progress, update}};
//!
//! let key = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29".parse()?;
//! let servers = ["127.0.0.1:7100".parse().unwrap()];
//! let options = Options::new("game".as_ref(), key);
//! let done = update(&Config::default(), &servers, &options, &Progress::shared()).await?;
//! println!("{} is installed", done.release.name);
//! # Ok(()) }
//! ```

mod blocking;
mod error;
mod fetch;
mod folder;
mod install;
mod options;
mod progress;
mod selection;
mod server;
mod space;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use shardkeep_patch::{Manifest, Plan, Release, plan};

use crate::{Config, random};

pub use error::UpdateError;
pub use options::Options;
pub use progress::{Progress, Stage};
pub use server::UpdateConnection;

use blocking::blocking;
use install::Install;

/// How often a new release may come between while one is fetched.
const MAX_NEW_RELEASES: u32 = 4;
/// Pause before a newer release is fetched, so that not all clients of the old one come at once.
const NEXT_RELEASE_DELAY: Duration = Duration::from_secs(1);
/// The result of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateSummary {
    pub release: Release,
    pub written: usize,
    pub removed: usize,
    /// Bytes of chunks that came over the network.
    pub fetched_bytes: u64,
    /// Chunks that were refused because their content was wrong, and fetched again.
    pub corrupted: u64,
    /// Connections that were lost.
    pub lost: u64,
    /// Age of the release's signature, if it is older than [`Options::warn_after`]: the servers may be out of date.
    pub stale: Option<Duration>,
}

/// Brings the folder to the published release.
///
/// # Errors
/// Nothing that was installed has been touched, unless the error is about putting files in their places; the next
/// attempt goes on from there.
pub async fn update(
    config: &Config,
    servers: &[SocketAddr],
    options: &Options,
    progress: &Arc<Progress>,
) -> Result<UpdateSummary, UpdateError> {
    let install = Arc::new(Install::open(&options.to)?);
    for _ in 0..MAX_NEW_RELEASES {
        match update_once(config, servers, options, progress, &install).await {
            Err(UpdateError::ReleaseWithdrawn) => {
                tokio::time::sleep(random::jitter(NEXT_RELEASE_DELAY)).await;
            }
            done => return done,
        }
    }
    Err(UpdateError::ReleaseWithdrawn)
}

async fn update_once(
    config: &Config,
    servers: &[SocketAddr],
    options: &Options,
    progress: &Arc<Progress>,
    install: &Arc<Install>,
) -> Result<UpdateSummary, UpdateError> {
    progress.begin_stage(Stage::Manifest, 0);
    let state = install.state();
    let min_sequence = if options.allow_older { 0 } else { state.sequence };
    let release = selection::newest_release(config, servers, options, min_sequence).await?;
    let manifest = &release.manifest;
    let offered = manifest.release().clone();
    let done = |plan: &Plan| UpdateSummary {
        release: offered.clone(),
        written: plan.write.len(),
        removed: plan.remove.len(),
        fetched_bytes: progress.fetched(),
        corrupted: progress.corrupted(),
        lost: progress.lost(),
        stale: Some(release.age()).filter(|age| *age > options.warn_after),
    };
    if options.quick && state.whole && state.sequence == offered.sequence {
        return Ok(done(&Plan::default()));
    }
    let plan = {
        let (install, manifest, progress) = (install.clone(), manifest.clone(), progress.clone());
        blocking(move || {
            let found = install.scan(&manifest, &state.owned, &progress)?;
            let plan = plan(&manifest, &found, &state.owned);
            install.prepare(&manifest, &plan)?;
            Ok(plan)
        })
        .await?
    };
    let plan = fetch::fetch(config, servers, options, progress, install, &release, plan).await?;
    let plan = {
        let (install, manifest, progress) = (install.clone(), manifest.clone(), progress.clone());
        blocking(move || install.commit(&manifest, &plan, &progress).map(|()| plan)).await?
    };
    Ok(done(&plan))
}

/// The manifest of the newest release that the servers have published, believed.
///
/// # Errors
/// No server has one that is signed by one of the keys.
pub async fn trusted_manifest(
    config: &Config,
    servers: &[SocketAddr],
    options: &Options,
) -> Result<Manifest, UpdateError> {
    Ok(Arc::unwrap_or_clone(selection::newest_release(config, servers, options, 0).await?.manifest))
}
