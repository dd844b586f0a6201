//! The stand-alone zone daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    shardkeep_daemon::main::<shardkeep_zone::Zone>()
}
