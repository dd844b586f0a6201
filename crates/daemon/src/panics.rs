//! Panics in tasks: [`contained`] for work whose panic must not end the daemon. See [`crate::Daemon::spawn`] for the rest.

use std::{any::Any, future::Future, panic::AssertUnwindSafe};

use futures::FutureExt;
use metrics::{counter, describe_counter};
use tracing::error;

/// Panics in contained tasks, by task.
const PANICS: &str = "shardkeep_task_panics_total";

pub(crate) fn describe() {
    describe_counter!(PANICS, "Panics in tasks that serve one client or peer, by task; the daemon goes on");
}

/// The same future; a panic in it is logged and counted, and returns `None`.
///
/// Use it only for a task that serves one client or peer, and whose state is dropped with it: shared state that the
/// task changes must be consistent between any two of its statements. Everything else belongs in
/// [`crate::Daemon::supervised`], whose panic ends the daemon.
pub fn contained<F: Future>(
    name: &'static str,
    future: F,
) -> impl Future<Output = Option<F::Output>> + use<F> {
    catch(future).map(move |result| match result {
        Ok(output) => Some(output),
        Err(panic) => {
            counter!(PANICS, "task" => name).increment(1);
            error!(task = name, panic = message(&*panic), "a task panicked; its connection is closed");
            None
        }
    })
}

/// Runs the future and catches a panic. The caller decides whether the state that the future shares is still usable.
/// The result is little larger than the future: connections are many.
pub(crate) fn catch<F: Future>(
    future: F,
) -> impl Future<Output = Result<F::Output, Box<dyn Any + Send>>> + use<F> {
    AssertUnwindSafe(future).catch_unwind()
}

pub(crate) fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn contained_panic_returns_none() {
        assert_eq!(contained("test", async { 7 }).await, Some(7));
        assert_eq!(contained("test", async { panic!("oh {}", "dear") }).await, None::<()>);
    }
}
