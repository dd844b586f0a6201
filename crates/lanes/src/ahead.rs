//! What lanes that can only be polled share, to look like a socket: a poll that does not wait, and bytes that were read
//! before anybody took them, to learn that there is something to read.

use std::{
    io,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

/// What happens without waiting; `WouldBlock`: nothing does. The task's next wait puts its own waker in the place of the
/// one that this leaves behind.
pub(crate) fn at_once<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<T>>) -> io::Result<T> {
    match poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Bytes read ahead, and whether the other side has finished.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    bytes: Bytes,
    ended: bool,
}

impl Ahead {
    /// Nothing is here, and more may come: read it.
    pub(crate) fn wants(&self) -> bool {
        self.bytes.is_empty() && !self.ended
    }

    /// What was read because [`Self::wants`] said so.
    pub(crate) fn put(&mut self, bytes: Bytes) {
        self.bytes = bytes;
    }

    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// `most` bytes at most; none: the other side has finished. What is empty keeps no memory.
    pub(crate) fn take(&mut self, most: usize) -> Bytes {
        self.bytes.split_to(self.bytes.len().min(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_taken_is_taken_later() {
        let mut ahead = Ahead::default();
        assert!(ahead.wants());
        ahead.put(Bytes::new());
        assert!(ahead.wants(), "an empty message says nothing");
        ahead.put(Bytes::from_static(b"abcde"));
        assert_eq!((&ahead.take(2)[..], ahead.wants()), (&b"ab"[..], false));
        ahead.end();
        assert_eq!(&ahead.take(usize::MAX)[..], b"cde");
        assert!(!ahead.wants() && ahead.take(1).is_empty(), "the end");
    }

    #[test]
    fn who_would_wait_is_told() {
        assert_eq!(at_once(|_| Poll::Ready(Ok(7))).unwrap(), 7);
        let pending: io::Result<()> = at_once(|_| Poll::Pending);
        assert_eq!(pending.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
