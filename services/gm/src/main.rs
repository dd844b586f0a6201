//! The binary of the `gm` daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    shardkeep_daemon::main::<shardkeep_gm::Gm>()
}
