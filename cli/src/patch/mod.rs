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
    /// Make the key pair for signing releases
    Keygen(key::KeygenArgs),
    /// Cut a folder into chunks and store the new ones
    Build(build::BuildArgs),
    /// Sign the last build, which publishes it
    Sign(sign::SignArgs),
    /// Check the signature and every chunk of the published release
    Verify(verify::VerifyArgs),
    /// Serve a store
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
