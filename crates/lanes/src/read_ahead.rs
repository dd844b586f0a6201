//! Helpers that give lanes with a poll interface the interface of a socket: a poll that does not wait, and a buffer
//! for bytes that were read to learn whether there are any.

use std::{
    io,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

/// Polls once. Returns `WouldBlock` if the poll is pending. The task's next wait replaces the waker that this leaves
/// behind.
pub(crate) fn poll_now<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<T>>) -> io::Result<T> {
    match poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Buffered bytes, and whether the peer has finished.
#[derive(Debug, Default)]
pub(crate) struct ReadAhead {
    bytes: Bytes,
    ended: bool,
}

impl ReadAhead {
    /// Whether the buffer is empty and the peer has not finished.
    pub(crate) fn needs_read(&self) -> bool {
        self.bytes.is_empty() && !self.ended
    }

    /// Stores bytes that were read after [`Self::needs_read`].
    pub(crate) fn put(&mut self, bytes: Bytes) {
        self.bytes = bytes;
    }

    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// Takes at most `most` bytes; none means that the peer has finished. An empty buffer holds no memory.
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
