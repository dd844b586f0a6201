//! Exit codes, sizes and threads of the patch commands.

use std::thread::{self, ScopedJoinHandle};

/// Exit codes beside 0 and 1, for launchers.
pub const REFUSED: u8 = 3;
pub const DISK: u8 = 4;
pub const NETWORK: u8 = 5;

/// `12.3 MiB`
pub fn bytes(bytes: u64) -> indicatif::BinaryBytes {
    indicatif::BinaryBytes(bytes)
}

/// Does the same work on one thread for each core, and returns the result of each.
pub fn on_all_cores<T: Send>(work: impl Fn() -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        let joined = workers.into_iter().map(ScopedJoinHandle::join);
        joined.map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}
