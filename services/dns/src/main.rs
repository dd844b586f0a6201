//! The stand-alone DNS daemon.

fn main() -> std::process::ExitCode {
    shardkeep_daemon::main::<shardkeep_dns::Dns>()
}
