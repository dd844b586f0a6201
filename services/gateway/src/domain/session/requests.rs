//! Requests of one session that a backend has not answered.

use std::time::{Duration, Instant};

use shardkeep_types::BackendKind;

/// Most requests in flight. Overflow: requests older than [`TTL`] are forgotten; if none is, the new one is refused.
const MAX_IN_FLIGHT: usize = 256;
/// A client has given up waiting for a reply after this time.
const TTL: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Requests(Vec<Request>);

struct Request {
    number: u32,
    backend: BackendKind,
    since: Instant,
}

impl Requests {
    /// Records a request that is given to a backend. Returns false if too many are in flight.
    pub(crate) fn track(&mut self, number: u32, backend: BackendKind, now: Instant) -> bool {
        if self.0.len() >= MAX_IN_FLIGHT {
            self.0.retain(|request| now.saturating_duration_since(request.since) < TTL);
        }
        let room = self.0.len() < MAX_IN_FLIGHT;
        if room {
            self.complete(number);
            self.0.push(Request { number, backend, since: now });
        }
        room
    }

    /// Records a request that another gateway gave to a backend.
    pub(crate) fn restore(&mut self, number: u32, backend: BackendKind, now: Instant) {
        self.0.push(Request { number, backend, since: now });
    }

    pub(crate) fn complete(&mut self, number: u32) {
        if let Some(at) = self.0.iter().position(|request| request.number == number) {
            self.0.swap_remove(at);
        }
    }

    /// Each request with the kind of its backend.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, BackendKind)> {
        self.0.iter().map(|request| (request.number, request.backend))
    }

    pub(crate) fn rest(&mut self) {
        self.0.shrink_to_fit();
    }
}
