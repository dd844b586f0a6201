//! The stand-alone registry daemon.

fn main() -> std::process::ExitCode {
    shardkeep_daemon::main::<shardkeep_registry::Registry>()
}
