//! A session's move to another gateway. Some backends have not answered the session's fence yet. Others are *muted*:
//! they keep their messages to the session for the other gateway, so their group events are not queued here.

use std::sync::Arc;

use tokio::sync::oneshot;

#[derive(Default)]
pub(crate) struct Moving {
    pending: Option<Box<PendingMove>>,
    muted: Vec<Arc<str>>,
}

/// The session leaves. Once no backend is awaited, everything that backends sent to the session at this gateway has
/// arrived.
struct PendingMove {
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
            // Fails if the receiver was dropped.
            let _ = settled.send(());
        }
    }
}

impl Moving {
    /// The session arrived from another gateway, and these backends still keep messages for it.
    pub(crate) fn arrived(muted: Vec<Arc<str>>) -> Self {
        Self { pending: None, muted }
    }

    /// The session leaves when these backends have answered. The receiver resolves then, and fails if the session ends first.
    pub(crate) fn begin(&mut self, awaited: Vec<Arc<str>>) -> oneshot::Receiver<()> {
        let (settled, receiver) = oneshot::channel();
        let mut pending = PendingMove { awaited, settled: Some(settled) };
        pending.notify_if_settled();
        self.pending = Some(Box::new(pending));
        receiver
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.pending.is_some()
    }

    /// During the move the session was bound to one more backend, and that backend was sent a fence too.
    pub(crate) fn await_fence(&mut self, backend: &Arc<str>) {
        if let Some(pending) = &mut self.pending
            && pending.settled.is_some()
        {
            pending.awaited.push(backend.clone());
        }
    }

    pub(crate) fn awaits_fence(&self, backend: &str) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.awaited.iter().any(|it| **it == *backend))
    }

    /// The backend has sent everything that was for the session at this gateway.
    pub(crate) fn fenced(&mut self, backend: &Arc<str>) {
        let Some(pending) = &mut self.pending else { return };
        if pending.stop_awaiting(backend) {
            self.muted.push(backend.clone());
            pending.notify_if_settled();
        }
    }

    /// The backend has sent what it kept.
    pub(crate) fn lifted(&mut self, backend: &str) {
        self.muted.retain(|other| **other != *backend);
    }

    /// The backend is gone, with what it kept.
    pub(crate) fn backend_lost(&mut self, backend: &str) {
        self.lifted(backend);
        if let Some(pending) = &mut self.pending {
            pending.stop_awaiting(backend);
            pending.notify_if_settled();
        }
    }

    pub(crate) fn is_muted(&self, backend: &str) -> bool {
        !self.muted.is_empty() && self.muted.iter().any(|other| **other == *backend)
    }

    pub(crate) fn muted(&self) -> &[Arc<str>] {
        &self.muted
    }
}
