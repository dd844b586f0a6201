//! The stand-alone dbcache daemon.

fn main() -> std::process::ExitCode {
    shardkeep_daemon::main::<shardkeep_dbcache::Dbcache>()
}
