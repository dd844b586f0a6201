//! What a session that moves waits for: that each backend has said everything up to its fence, and later, at the next
//! gateway, that it has said what it kept.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Inner;

/// A session that leaves. Once nothing is awaited, all that was said to it here has arrived.
pub(crate) struct Moving {
    awaited: Vec<Arc<str>>,
    settled: Option<oneshot::Sender<()>>,
}

impl Moving {
    fn forget(&mut self, backend: &str) -> bool {
        let at = self.awaited.iter().position(|awaited| **awaited == *backend);
        at.map(|at| self.awaited.swap_remove(at)).is_some()
    }

    fn check(&mut self) {
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
    pub(crate) fn leave(&mut self, awaited: Vec<Arc<str>>) -> oneshot::Receiver<()> {
        let (settled, receiver) = oneshot::channel();
        let mut moving = Moving { awaited, settled: Some(settled) };
        moving.check();
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
        if moving.forget(backend) {
            self.deaf_to.push(backend.clone());
            moving.check();
        }
    }

    /// The backend has said what it kept.
    pub(crate) fn lifted(&mut self, backend: &str) {
        self.deaf_to.retain(|other| **other != *backend);
    }

    /// The backend is gone, with what it kept.
    pub(crate) fn backend_lost(&mut self, backend: &str) {
        self.lifted(backend);
        if let Some(moving) = &mut self.moving {
            moving.forget(backend);
            moving.check();
        }
    }

    pub(crate) fn is_deaf_to(&self, backend: &str) -> bool {
        !self.deaf_to.is_empty() && self.deaf_to.iter().any(|other| **other == *backend)
    }
}
