//! `shardkeep patch sign`: signs and publishes the release that was built last, or signs the published one again.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use super::{check, key, store::Store};

#[derive(Debug, Args)]
pub struct SignArgs {
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Secret key that `shardkeep patch keygen` made
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

pub fn run(args: &SignArgs) -> Result<()> {
    let store = Store::open(&args.store)?;
    let manifest = match store.unsigned()? {
        Some(manifest) => manifest,
        // A new signature of the same release has a new time, which keeps it from becoming stale.
        None => {
            store.published()?.context("there is no release to sign; run `shardkeep patch build` first")?
        }
    };
    let key = key::read(&args.key)?;
    let (damaged, all) = (check::damaged(&store, &manifest), manifest.chunks().len());
    ensure!(damaged == 0, "{damaged} of {all} chunks are missing or damaged: build the release again");
    let before = store.publisher()?;
    store.publish(&key.sign(&manifest, shardkeep_daemon::unix_millis()))?;
    let release = manifest.release();
    if let Some(before) = before.filter(|before| *before != key.public()) {
        eprintln!(
            "warning: what was published before is signed by {before}: clients and servers that trust that key alone \
             refuse this release"
        );
    }
    println!("release {} ({}) is published, signed by {}", release.name, release.sequence, key.public());
    Ok(())
}
