//! `shardkeep patch`: from a folder with a release to players who have it. What is made here is a *store*, a folder that
//! login daemons serve (`login.patches.dir`), or `patch serve`, or any file server.

mod build;
mod check;
mod fetch;
mod key;
mod serve;
mod sign;
mod store;
mod verify;

use std::{
    process::ExitCode,
    thread::{self, ScopedJoinHandle},
};

use anyhow::Result;
use clap::{Args, Subcommand};

/// Exit codes, apart from 0 and 1, so that a launcher can tell what to do.
const REFUSED: u8 = 3;
const DISK: u8 = 4;
const NETWORK: u8 = 5;

#[derive(Debug, Args)]
pub struct PatchArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the key pair that releases are signed with
    Keygen(key::KeygenArgs),
    /// Cut a folder into chunks and put those that are new into a store
    Build(build::BuildArgs),
    /// Sign what was built last; from then on it is published
    Sign(sign::SignArgs),
    /// Check the signature and every chunk of what is published
    Verify(verify::VerifyArgs),
    /// Serve a store and nothing else
    Serve(serve::ServeArgs),
    /// Bring a folder to the published release. Exit codes: 3 the manifest is refused, 4 the disk, 5 the network
    Fetch(fetch::FetchArgs),
}

pub async fn run(args: PatchArgs) -> Result<ExitCode> {
    match args.command {
        Command::Keygen(args) => key::run(&args)?,
        Command::Build(args) => build::run(&args)?,
        Command::Sign(args) => sign::run(&args)?,
        Command::Verify(args) => return verify::run(&args),
        Command::Serve(args) => serve::run(args).await?,
        Command::Fetch(args) => return fetch::run(&args).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// `12.3 MiB`
fn bytes(bytes: u64) -> indicatif::BinaryBytes {
    indicatif::BinaryBytes(bytes)
}

/// Does the same work on as many threads as there are cores; what each came to.
fn on_all_cores<T: Send>(work: impl Fn() -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        let joined = workers.into_iter().map(ScopedJoinHandle::join);
        joined.map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}
