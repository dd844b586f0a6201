//! `shardkeep daemon <kind>`: the same program as the stand-alone binary of that daemon.

use std::{ffi::OsString, io::Read as _, process::ExitCode};

use clap::Args;
use rustix::process::{Signal, getpid, kill_process};
use shardkeep_daemon::main_with_args;
use shardkeep_types::DaemonKind;

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct DaemonArgs {
    /// Drain when standard input closes: whoever started this process is gone
    #[arg(long)]
    supervised: bool,
    /// dns, login, registry, gateway, world, zone, ai, chat, dbcache, billing, gm or logs
    kind: DaemonKind,
    /// The daemon's own arguments; `shardkeep daemon <kind> --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

pub fn run(args: DaemonArgs) -> ExitCode {
    if args.supervised {
        drain_when_orphaned();
    }
    let name = OsString::from(format!("shardkeep-{}", args.kind));
    let arguments = std::iter::once(name).chain(args.args);
    match args.kind {
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
            eprintln!("error: {} is not a daemon of the cluster", args.kind);
            ExitCode::from(2)
        }
    }
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
