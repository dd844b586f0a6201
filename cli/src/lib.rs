//! The command `shardkeep`: runs a cluster on this machine, plays on it, and operates it. The attack tool shares the public
//! modules.

#![allow(unreachable_pub, reason = "only the program and the attack tool use this crate")]

pub mod account;
mod certificates;
mod daemon;
pub mod data_dir;
pub mod demo;
mod dns;
mod doctor;
mod down;
mod gm;
mod gm_layout;
mod healthcheck;
pub mod http;
mod lane;
mod ledger;
mod logs;
mod my;
pub mod operator;
mod orphan;
mod patch;
mod play;
pub mod program;
mod replay;
mod reset;
mod status;
pub mod terminal;
mod token_file;
mod up;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "shardkeep", version, about = "A server cluster for online games", propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole cluster on this machine
    Up(up::UpArgs),
    /// End the cluster that runs on this machine
    Down(down::DownArgs),
    /// Delete all data of the cluster on this machine (asks first)
    Reset(reset::ResetArgs),
    /// Show the daemons, their addresses and states
    Status(status::StatusArgs),
    /// Run one daemon in the foreground
    Daemon(daemon::DaemonArgs),
    /// Run headless players through the whole path, and show a table of results
    #[command(visible_alias = "bots")]
    Demo(demo::DemoArgs),
    /// Play in this terminal
    Play(play::PlayArgs),
    /// Manage one's account as a player: password, sessions, second factor, registration
    My(my::MyArgs),
    /// Create, show and ban accounts
    Account(account::AccountArgs),
    /// Operators' commands, the same as in the console
    Gm(gm::GmArgs),
    /// Show and switch the address pools of the name servers
    Dns(dns::DnsArgs),
    /// Search the collected logs
    Logs(logs::LogsArgs),
    /// Check that every item and coin has exactly one holder and one origin
    Ledger(ledger::LedgerArgs),
    /// Run the journal of a zone again, compare the results, and tell the history of an avatar
    Replay(replay::ReplayArgs),
    /// Make, sign, serve and fetch releases of the game's files
    Patch(patch::PatchArgs),
    /// Make a development CA and certificates for daemons
    Certs(certificates::CertsArgs),
    /// Exit 0 if the daemon at an admin address is ready
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Find problems of this machine that keep a cluster from running, and tell how to solve them
    Doctor(doctor::DoctorArgs),
    /// Print a completion script for a shell
    Completions {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    exit_on_broken_pipe();
    match Cli::parse().command {
        // A daemon has its own runtime and exit codes.
        Command::Daemon(args) => daemon::run(args, Cli::command()),
        command => finish(run(command)),
    }
}

/// The reader of the output may close its pipe (`| head`). The command then ends with success: `println!` would panic.
fn exit_on_broken_pipe() {
    let panics = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload_as_str().unwrap_or_default();
        if message.starts_with("failed printing to stdout") && message.contains("Broken pipe") {
            std::process::exit(0);
        }
        panics(panic);
    }));
}

#[tokio::main]
async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up(args) => up::run(args).await?,
        Command::Down(args) => down::run(&args).await?,
        Command::Reset(args) => reset::run(&args)?,
        Command::Status(args) => return status::run(&args).await,
        Command::Daemon(_) => unreachable!("run by main"),
        Command::Demo(args) => return demo::run(args).await,
        Command::Play(args) => play::run(args).await?,
        Command::My(args) => my::run(args).await?,
        Command::Account(args) => account::run(args).await?,
        Command::Gm(args) => gm::run(args).await?,
        Command::Dns(args) => dns::run(args).await?,
        Command::Logs(args) => logs::run(args).await?,
        Command::Ledger(args) => return ledger::run(&args).await,
        Command::Replay(args) => return replay::run(&args),
        Command::Patch(args) => return patch::run(args).await,
        Command::Certs(args) => certificates::run(&args)?,
        Command::Healthcheck(args) => healthcheck::run(&args).await?,
        Command::Doctor(args) => return doctor::run(&args).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "shardkeep", &mut script);
            print!("{}", String::from_utf8_lossy(&script));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn finish(result: Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("error: {}", terminal::explain(&error));
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cli_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
