//! The test that every service runs on itself: a panic in any of its tasks ends the daemon.

use std::{future::Future, time::Duration};

use shardkeep_daemon::Running;

const TIMEOUT: Duration = Duration::from_secs(20);

/// Starts the daemon once per long-lived task, makes this task panic, and asserts that the daemon ends with an error.
/// Returns the names of the tasks, so that the caller can assert that its own are among them.
///
/// # Panics
/// When the daemon does not become ready, or survives a panic.
pub async fn assert_each_panic_ends_the_daemon<F>(start: impl Fn() -> F) -> Vec<&'static str>
where
    F: Future<Output = Running>,
{
    let mut running = start().await;
    running.ready().await.expect("the daemon becomes ready");
    let names = running.daemon().task_names();
    running.stop().await.expect("the daemon stops");
    for name in &names {
        let mut running = start().await;
        running.ready().await.expect("the daemon becomes ready");
        running.daemon().inject_panic(name);
        let ended = tokio::time::timeout(TIMEOUT, running.join()).await;
        let result = ended.unwrap_or_else(|_| panic!("the daemon goes on after a panic in task {name:?}"));
        assert!(result.is_err(), "the daemon ends without an error after a panic in task {name:?}");
    }
    names
}
