//! `shardkeep daemon <kind>`: the same program as the stand-alone binary of that daemon.

use std::{ffi::OsString, io::Read as _, process::ExitCode};

use clap::{Args, CommandFactory as _};
use rustix::process::{Signal, getpid, kill_process};
use shardkeep_daemon::main_with_args;
use shardkeep_types::DaemonKind;

use crate::Cli;

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct DaemonArgs {
    /// Drain when standard input closes: whoever started this process is gone
    #[arg(long)]
    supervised: bool,
    /// Print help; behind a kind, that kind's arguments and all of its settings
    #[arg(short, long)]
    help: bool,
    /// dns, login, registry, gateway, world, zone, ai, chat, dbcache, billing, gm or logs
    #[arg(required_unless_present = "help")]
    kind: Option<DaemonKind>,
    /// The daemon's own arguments; `shardkeep daemon <kind> --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

pub fn run(args: DaemonArgs) -> ExitCode {
    let Some(kind) = args.kind else { return help() };
    if args.supervised {
        drain_when_orphaned();
    }
    // As it was typed: the daemon's own help tells how to call it.
    let name = OsString::from(format!("shardkeep daemon {kind}"));
    let help = args.help.then(|| OsString::from("--help"));
    let arguments = std::iter::once(name).chain(help).chain(args.args);
    match kind {
        DaemonKind::Dns => main_with_args::<shardkeep_dns::Dns>(arguments),
        DaemonKind::Login => main_with_args::<shardkeep_login::Login>(arguments),
        DaemonKind::Registry => main_with_args::<shardkeep_registry::Registry>(arguments),
        DaemonKind::Gateway => main_with_args::<shardkeep_gateway::Gateway>(arguments),
        DaemonKind::World => main_with_args::<shardkeep_world::World>(arguments),
        DaemonKind::Zone => main_with_args::<shardkeep_zone::Zone>(arguments),
        DaemonKind::Ai => main_with_args::<shardkeep_ai::Ai>(arguments),
        DaemonKind::Chat => main_with_args::<shardkeep_chat::Chat>(arguments),
        DaemonKind::Dbcache => main_with_args::<shardkeep_dbcache::Dbcache>(arguments),
        DaemonKind::Billing => main_with_args::<shardkeep_billing::Billing>(arguments),
        DaemonKind::Gm => main_with_args::<shardkeep_gm::Gm>(arguments),
        DaemonKind::Logs => main_with_args::<shardkeep_logs::Logs>(arguments),
        DaemonKind::Backend | DaemonKind::Cli => {
            eprintln!("error: {kind} is not a daemon of the cluster");
            ExitCode::from(2)
        }
    }
}

fn help() -> ExitCode {
    let mut command = Cli::command();
    command.build();
    // Fails only when nobody reads it.
    let _ = command.find_subcommand_mut("daemon").map(clap::Command::print_help);
    ExitCode::SUCCESS
}

/// The supervisor holds the other end of our standard input. When it ends, even by SIGKILL, the pipe closes and
/// this process drains instead of living on unseen.
pub fn drain_when_orphaned() {
    std::thread::spawn(|| {
        let mut sink = [0; 64];
        while matches!(std::io::stdin().read(&mut sink), Ok(1..)) {}
        // Fails only if this process has no such signal, which no system lacks.
        let _ = kill_process(getpid(), Signal::TERM);
    });
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::Command;

    fn parsed(line: &[&str]) -> DaemonArgs {
        let line = [&["shardkeep", "daemon"], line].concat();
        match Cli::try_parse_from(line).unwrap().command {
            Command::Daemon(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn help_flag_applies_to_command_or_kind() {
        assert_eq!(parsed(&["--help"]).kind, None);
        let of_a_kind = parsed(&["gateway", "--help"]);
        assert_eq!(of_a_kind.kind, Some(DaemonKind::Gateway));
        assert!(of_a_kind.help || of_a_kind.args == ["--help"]);
        let started = parsed(&["--supervised", "zone", "--config", "zone.toml"]);
        assert_eq!(started.args, ["--config", "zone.toml"]);
        assert!(Cli::try_parse_from(["shardkeep", "daemon"]).is_err(), "which?");
    }
}
