//! The stand-alone billing daemon.

fn main() -> std::process::ExitCode {
    shardkeep_daemon::main::<shardkeep_billing::Billing>()
}
