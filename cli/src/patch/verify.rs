//! `shardkeep patch verify`: checks the signature and every chunk of a store.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Args;
use shardkeep_patch::{PublicKey, SignedManifest};

use super::{
    check,
    common::{REFUSED, bytes},
    store::Store,
};

#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Public key of the signature, as `shardkeep patch keygen` printed it; any when absent
    #[arg(long, value_name = "HEX")]
    public_key: Option<PublicKey>,
}

pub fn run(args: &VerifyArgs) -> Result<ExitCode> {
    let store = Store::open(&args.store)?;
    let current = store.current()?.context("nothing is published: `shardkeep patch sign` does that")?;
    let signed = SignedManifest::parse(&current).and_then(|signed| {
        let manifest = match args.public_key {
            Some(key) => signed.verify_trusted(&[key])?,
            None => signed.verify_self_signed()?,
        };
        Ok((signed.key(), manifest))
    });
    let (key, manifest) = match signed {
        Ok(signed) => signed,
        Err(error) => {
            eprintln!("error: {error}");
            return Ok(ExitCode::from(REFUSED));
        }
    };
    let damaged = check::damaged(&store, &manifest);
    let release = manifest.release();
    if damaged > 0 {
        eprintln!(
            "error: {damaged} of {} chunks of release {} are damaged",
            manifest.chunks().len(),
            release.name
        );
        return Ok(ExitCode::from(REFUSED));
    }
    println!(
        "release {} ({}), signed by {key}: {} files, {}; all {} chunks are good, {}",
        release.name,
        release.sequence,
        manifest.files().len(),
        bytes(manifest.total_size()),
        manifest.chunks().len(),
        bytes(manifest.total_stored()),
    );
    Ok(ExitCode::SUCCESS)
}
