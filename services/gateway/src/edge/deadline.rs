//! Deadlines of calls to other daemons.

use std::time::Duration;

use tonic::{Request, Status};

/// Of a call to a world.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);

/// The request with [`DEADLINE`] for the peer.
pub(super) fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

/// Bounds the call on this side too, whatever the peer does.
pub(super) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    tokio::time::timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
}
