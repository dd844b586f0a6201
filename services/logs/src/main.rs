//! The `logs` daemon as a stand-alone program.

use std::process::ExitCode;

fn main() -> ExitCode {
    shardkeep_daemon::main::<shardkeep_logs::Logs>()
}
