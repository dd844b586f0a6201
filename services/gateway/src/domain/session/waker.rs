//! Wakes the connection that carries a session when there is output, when the session ends, or when another
//! connection takes over. Notifications before the connection runs count as one.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

pub(crate) struct ConnectionWaker {
    /// Notified, and the connection has not run since.
    pending: AtomicBool,
    waiter: Mutex<Waiter>,
}

/// The connection that waits. A replaced connection that still polls must not take its successor's place.
struct Waiter {
    connection: u64,
    waker: Option<Waker>,
}

impl ConnectionWaker {
    pub(crate) fn new(connection: u64) -> Self {
        Self { pending: AtomicBool::new(false), waiter: Mutex::new(Waiter { connection, waker: None }) }
    }

    /// Another connection waits from now on. The earlier one is woken and finds that it was replaced.
    pub(crate) fn rebind(&self, connection: u64) {
        let before = std::mem::replace(&mut *self.waiter.lock(), Waiter { connection, waker: None });
        if let Some(waker) = before.waker {
            waker.wake();
        }
    }

    /// Wakes the connection once, however much output there is.
    pub(crate) fn notify(&self) {
        if self.set_pending() {
            self.wake();
        }
    }

    /// Marks output after it was appended. Returns true if the connection does not know of any yet, so that the
    /// caller has to [`Self::wake`] it.
    pub(crate) fn set_pending(&self) -> bool {
        !self.pending.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn wake(&self) {
        let waker = self.waiter.lock().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The connection runs, under the session's lock. Later notifications wake it again.
    pub(crate) fn clear(&self) {
        self.pending.store(false, Ordering::Release);
    }

    /// Ready after a notification, or when another connection waits.
    pub(crate) fn poll(&self, connection: u64, cx: &Context<'_>) -> Poll<()> {
        let mut waiter = self.waiter.lock();
        if waiter.connection != connection {
            return Poll::Ready(());
        }
        if !waiter.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            waiter.waker = Some(cx.waker().clone());
        }
        // Under the lock of the waker, so that a concurrent notification finds the waker.
        if self.pending.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicUsize};

    use futures::task::{ArcWake, waker};

    use super::*;

    #[derive(Default)]
    struct WakeCount(AtomicUsize);

    impl ArcWake for WakeCount {
        fn wake_by_ref(wakes: &Arc<Self>) {
            wakes.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl WakeCount {
        fn times(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }

        fn poll_ready(self: &Arc<Self>, connection_waker: &ConnectionWaker, connection: u64) -> bool {
            connection_waker.poll(connection, &Context::from_waker(&waker(self.clone()))).is_ready()
        }
    }

    #[test]
    fn waker_notified_repeatedly_wakes_once_until_cleared() {
        let (connection_waker, wakes) = (ConnectionWaker::new(1), Arc::new(WakeCount::default()));
        assert!(!wakes.poll_ready(&connection_waker, 1));
        (0..3).for_each(|_| connection_waker.notify());
        assert_eq!(wakes.times(), 1);
        assert!(wakes.poll_ready(&connection_waker, 1), "it has not looked yet");
        connection_waker.clear();
        assert!(!wakes.poll_ready(&connection_waker, 1));
        connection_waker.notify();
        assert_eq!(wakes.times(), 2);
    }

    #[test]
    fn waker_rebound_wakes_old_connection_and_keeps_new_waiter() {
        let (connection_waker, old, new) =
            (ConnectionWaker::new(1), Arc::new(WakeCount::default()), Arc::new(WakeCount::default()));
        assert!(!old.poll_ready(&connection_waker, 1));
        connection_waker.rebind(2);
        assert_eq!(old.times(), 1);
        // The new connection runs and waits before the old one is polled again.
        connection_waker.clear();
        assert!(!new.poll_ready(&connection_waker, 2));
        assert!(old.poll_ready(&connection_waker, 1), "it is to see that it was replaced");
        connection_waker.notify();
        assert_eq!((old.times(), new.times()), (1, 1));
    }
}
