//! `shardkeep daemon <kind>`: the same program as the stand-alone binary of that daemon.

use std::{ffi::OsString, process::ExitCode};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use shardkeep_daemon::main_with_args;
use shardkeep_types::DaemonKind;

use crate::orphan;

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct DaemonArgs {
    /// Drain when standard input closes, which tells that the parent process has ended
    #[arg(long)]
    supervised: bool,
    /// Print help; after a kind, that kind's arguments and all of its settings
    #[arg(short, long)]
    help: bool,
    /// dns, login, registry, gateway, world, zone, ai, chat, dbcache, billing, gm or logs
    #[arg(required_unless_present = "help", value_parser = kind(), hide_possible_values = true)]
    kind: Option<DaemonKind>,
    /// The daemon's own arguments; `shardkeep daemon <kind> --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Of a command-line argument: a kind of daemon. A mistyped one is answered with the nearest kind.
pub fn kind() -> impl clap::builder::TypedValueParser<Value = DaemonKind> {
    PossibleValuesParser::new(DaemonKind::DAEMONS.map(DaemonKind::as_str))
        .try_map(|text| text.parse::<DaemonKind>())
}

/// `cli` is the whole command line, for the help of this command.
pub fn run(args: DaemonArgs, cli: clap::Command) -> ExitCode {
    let Some(kind) = args.kind else { return help(cli) };
    if args.supervised {
        orphan::drain_with_parent();
    }
    // The daemon's help shows this name in its usage line.
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

fn help(mut cli: clap::Command) -> ExitCode {
    cli.build();
    // Fails only when standard output is closed.
    let _ = cli.find_subcommand_mut("daemon").map(clap::Command::print_help);
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: DaemonArgs,
    }

    fn parse(line: &[&str]) -> Result<DaemonArgs, clap::Error> {
        Line::try_parse_from([&["daemon"], line].concat()).map(|line| line.args)
    }

    fn parsed(line: &[&str]) -> DaemonArgs {
        parse(line).unwrap()
    }

    #[test]
    fn help_flag_applies_to_command_or_kind() {
        assert_eq!(parsed(&["--help"]).kind, None);
        let of_a_kind = parsed(&["gateway", "--help"]);
        assert_eq!(of_a_kind.kind, Some(DaemonKind::Gateway));
        assert!(of_a_kind.help || of_a_kind.args == ["--help"]);
        let started = parsed(&["--supervised", "zone", "--config", "zone.toml"]);
        assert_eq!(started.args, ["--config", "zone.toml"]);
        assert!(parse(&[]).is_err(), "the kind is missing");
    }

    #[test]
    fn mistyped_kind_is_answered_with_nearest_kind() {
        let error = parse(&["gatway"]).unwrap_err().to_string();
        assert!(error.contains("'gateway'"), "{error}");
    }
}
