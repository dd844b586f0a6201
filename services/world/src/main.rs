//! The stand-alone world daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    shardkeep_daemon::main::<shardkeep_world::World>()
}
