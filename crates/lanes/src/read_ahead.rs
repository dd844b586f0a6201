//! What lanes that can only be polled share, to look like a socket: a poll that does not wait, and bytes that were read
//! before anybody took them, to learn that there is something to read.

use std::{
    io,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

/// What happens without waiting; `WouldBlock`: nothing does. The task's next wait puts its own waker in the place of the
/// one that this leaves behind.
pub(crate) fn poll_now<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<T>>) -> io::Result<T> {
    match poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Bytes read ahead, and whether the other side has finished.
#[derive(Debug, Default)]
pub(crate) struct ReadAhead {
    bytes: Bytes,
    ended: bool,
}

impl ReadAhead {
    /// Nothing is here, and more may come: read it.
    pub(crate) fn needs_read(&self) -> bool {
        self.bytes.is_empty() && !self.ended
    }

    /// What was read because [`Self::needs_read`] said so.
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
    fn read_ahead_keeps_bytes_not_taken() {
        let mut read_ahead = ReadAhead::default();
        assert!(read_ahead.needs_read());
        read_ahead.put(Bytes::new());
        assert!(read_ahead.needs_read(), "an empty message says nothing");
        read_ahead.put(Bytes::from_static(b"abcde"));
        assert_eq!((&read_ahead.take(2)[..], read_ahead.needs_read()), (&b"ab"[..], false));
        read_ahead.end();
        assert_eq!(&read_ahead.take(usize::MAX)[..], b"cde");
        assert!(!read_ahead.needs_read() && read_ahead.take(1).is_empty(), "the end");
    }

    #[test]
    fn poll_now_returns_would_block_when_pending() {
        assert_eq!(poll_now(|_| Poll::Ready(Ok(7))).unwrap(), 7);
        let pending: io::Result<()> = poll_now(|_| Poll::Pending);
        assert_eq!(pending.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
