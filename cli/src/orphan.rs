//! A child process drains when its parent has ended.

use std::io::Read as _;

use rustix::process::{Signal, getpid, kill_process};

/// The parent holds the other end of standard input. When the parent ends, even by SIGKILL, the pipe closes and this
/// process drains.
pub fn drain_with_parent() {
    std::thread::spawn(|| {
        let mut sink = [0; 64];
        while matches!(std::io::stdin().read(&mut sink), Ok(1..)) {}
        // Every system has this signal.
        let _ = kill_process(getpid(), Signal::TERM);
    });
}
