//! Calls the connection that carries a session: there is something to write, or the session is over, or another
//! connection carries it now. Calls that come before the connection looks are one.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

pub(crate) struct Bell {
    /// Rung, and the connection has not looked yet.
    rung: AtomicBool,
    ear: Mutex<Ear>,
}

/// Who listens. Only one does: what a connection that has been replaced still polls must not take its successor's place.
struct Ear {
    connection: u64,
    waker: Option<Waker>,
}

impl Bell {
    pub(crate) fn new(connection: u64) -> Self {
        Self { rung: AtomicBool::new(false), ear: Mutex::new(Ear { connection, waker: None }) }
    }

    /// Another connection listens from now on; the one before is woken, so that it sees.
    pub(crate) fn hand_to(&self, connection: u64) {
        let before = std::mem::replace(&mut *self.ear.lock(), Ear { connection, waker: None });
        if let Some(waker) = before.waker {
            waker.wake();
        }
    }

    /// Wakes the connection once, however much there is to write.
    pub(crate) fn ring(&self) {
        if self.touch() {
            self.wake();
        }
    }

    /// Notes that there is something to write; true if the connection does not know yet, so that the caller has to
    /// [`Self::wake`] it. Call it after what there is to write was added.
    pub(crate) fn touch(&self) -> bool {
        !self.rung.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn wake(&self) {
        let waker = self.ear.lock().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The connection looks now, under the session's lock: what is added later rings again.
    pub(crate) fn heed(&self) {
        self.rung.store(false, Ordering::Release);
    }

    /// Ready once it has rung, or when another connection listens.
    pub(crate) fn poll(&self, connection: u64, cx: &Context<'_>) -> Poll<()> {
        let mut ear = self.ear.lock();
        if ear.connection != connection {
            return Poll::Ready(());
        }
        if !ear.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            ear.waker = Some(cx.waker().clone());
        }
        // Under the lock of the waker, so that who rings meanwhile finds it.
        if self.rung.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicUsize};

    use futures::task::{ArcWake, waker};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl ArcWake for Woken {
        fn wake_by_ref(woken: &Arc<Self>) {
            woken.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Woken {
        fn times(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }

        fn polls(self: &Arc<Self>, bell: &Bell, connection: u64) -> bool {
            bell.poll(connection, &Context::from_waker(&waker(self.clone()))).is_ready()
        }
    }

    #[test]
    fn many_calls_wake_once_until_the_connection_looks() {
        let (bell, woken) = (Bell::new(1), Arc::new(Woken::default()));
        assert!(!woken.polls(&bell, 1));
        (0..3).for_each(|_| bell.ring());
        assert_eq!(woken.times(), 1);
        assert!(woken.polls(&bell, 1), "it has not looked yet");
        bell.heed();
        assert!(!woken.polls(&bell, 1));
        bell.ring();
        assert_eq!(woken.times(), 2);
    }

    #[test]
    fn who_was_replaced_is_woken_and_does_not_take_its_successors_place() {
        let (bell, old, new) = (Bell::new(1), Arc::new(Woken::default()), Arc::new(Woken::default()));
        assert!(!old.polls(&bell, 1));
        bell.hand_to(2);
        assert_eq!(old.times(), 1);
        // The new one looks and waits before the old one comes to see.
        bell.heed();
        assert!(!new.polls(&bell, 2));
        assert!(old.polls(&bell, 1), "it is to see that it was replaced");
        bell.ring();
        assert_eq!((old.times(), new.times()), (1, 1));
    }
}
