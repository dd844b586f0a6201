//! `make attack`: attacks the players' sockets and the name server of a cluster on this machine, while honest players come
//! and go. Their visits before and during the attack are the measure.
//!
//! The attackers are a second process ([`attacker_process`] starts it, [`attacker`] is it) with a bound on its share of one
//! core. They send to loopback addresses only: [`loopback::Loopback`] checks each.

#![allow(unreachable_pub, reason = "no other crate can reach the items of a binary")]

mod attack_plan;
mod attacker;
mod attacker_process;
mod attacks;
mod attempt;
mod connection;
mod context;
mod daemon_monitor;
mod dns_packet;
mod flood;
mod honest_players;
mod insider;
mod limiter;
mod loopback;
mod outcome;
mod run;
mod source;
mod tally;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "shardkeep-attack",
    version,
    about = "Attacks a cluster on this machine while honest players come and go"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    args: run::AttackArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The attackers: read the plan from standard input
    #[command(hide = true)]
    Attacker,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        // One thread, so that the limit on processor time holds.
        Some(Command::Attacker) => attacker::run(),
        None => honest_and_attack(cli.args),
    }
}

#[tokio::main]
async fn honest_and_attack(args: run::AttackArgs) -> ExitCode {
    run::run(args).await.unwrap_or_else(|error| {
        eprintln!("error: {}", shardkeep_cli::terminal::explain(&error));
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn cli_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
