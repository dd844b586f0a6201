//! What a session that moves waits for: that each backend has said everything up to its fence, and later, at the next
//! gateway, that it has said what it kept.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Inner;

/// A session that leaves. Once nothing is awaited, all that was said to it here has arrived.
pub(crate) struct PendingMove {
    awaited: Vec<Arc<str>>,
    settled: Option<oneshot::Sender<()>>,
}

impl PendingMove {
    fn stop_awaiting(&mut self, backend: &str) -> bool {
        let at = self.awaited.iter().position(|awaited| **awaited == *backend);
        at.map(|at| self.awaited.swap_remove(at)).is_some()
    }

    fn notify_if_settled(&mut self) {
        if self.awaited.is_empty()
            && let Some(settled) = self.settled.take()
        {
            // Fails when nobody waits any more.
            let _ = settled.send(());
        }
    }
}

impl Inner {
    /// The session leaves, when these backends have answered. The receiver tells; it is dropped if that can not be.
    pub(crate) fn begin_move(&mut self, awaited: Vec<Arc<str>>) -> oneshot::Receiver<()> {
        let (settled, receiver) = oneshot::channel();
        let mut moving = PendingMove { awaited, settled: Some(settled) };
        moving.notify_if_settled();
        self.moving = Some(Box::new(moving));
        receiver
    }

    /// One more backend has been asked, because the session was bound to it meanwhile.
    pub(crate) fn await_fence(&mut self, backend: &Arc<str>) {
        if let Some(moving) = &mut self.moving
            && moving.settled.is_some()
        {
            moving.awaited.push(backend.clone());
        }
    }

    pub(crate) fn awaits_fence(&self, backend: &str) -> bool {
        self.moving.as_ref().is_some_and(|moving| moving.awaited.iter().any(|it| **it == *backend))
    }

    /// The backend has said everything that was for the session here.
    pub(crate) fn fenced(&mut self, backend: &Arc<str>) {
        let Some(moving) = &mut self.moving else { return };
        if moving.stop_awaiting(backend) {
            self.muted_backends.push(backend.clone());
            moving.notify_if_settled();
        }
    }

    /// The backend has said what it kept.
    pub(crate) fn lifted(&mut self, backend: &str) {
        self.muted_backends.retain(|other| **other != *backend);
    }

    /// The backend is gone, with what it kept.
    pub(crate) fn backend_lost(&mut self, backend: &str) {
        self.lifted(backend);
        if let Some(moving) = &mut self.moving {
            moving.stop_awaiting(backend);
            moving.notify_if_settled();
        }
    }

    pub(crate) fn is_muted(&self, backend: &str) -> bool {
        !self.muted_backends.is_empty() && self.muted_backends.iter().any(|other| **other == *backend)
    }
}
