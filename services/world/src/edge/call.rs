//! One call to another daemon.

use std::{future::Future, time::Duration};

use tokio::time::timeout;
use tonic::{Response, Status};

/// The time limit of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// A call with a deadline on this side as well, because a stopped peer does not answer at all.
pub(crate) async fn call<T>(answer: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    match timeout(CALL_TIMEOUT, answer).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("no answer in time")),
    }
}
