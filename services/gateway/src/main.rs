//! The `gateway` daemon as a separate program.

use std::process::ExitCode;

fn main() -> ExitCode {
    shardkeep_daemon::main::<shardkeep_gateway::Gateway>()
}
