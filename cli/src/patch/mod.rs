//! `shardkeep patch`: builds, signs, serves and fetches releases. A release is kept in a *store*: a folder that login daemons
//! (`login.patches.dir`), `patch serve` or any file server serve.

mod build;
mod check;
mod common;
mod fetch;
mod key;
mod serve;
mod sign;
mod store;
mod verify;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

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
