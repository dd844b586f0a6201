//! The stand-alone ai daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    shardkeep_daemon::main::<shardkeep_ai::Ai>()
}
