//! The `gateway` daemon as a program of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    shardkeep_daemon::main::<shardkeep_gateway::Gateway>()
}
