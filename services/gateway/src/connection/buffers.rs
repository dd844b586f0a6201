//! Buffers that a thread lends to whichever connection it serves at the moment. Connections wait most of the time, so
//! none keeps a buffer of its own but for what could not be used up: half a record read, or what a socket did not take.

use std::cell::{Cell, RefCell};

use bytes::BytesMut;

/// One read takes at most so much; larger than a record of a client.
pub(super) const INBOUND: usize = 32 << 10;
/// A buffer that grew beyond this for one client is not kept for the next.
const OUTBOUND: usize = 128 << 10;

thread_local! {
    static IN: RefCell<Box<[u8]>> = RefCell::new(vec![0; INBOUND].into());
    static OUT: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// Runs `read` with this thread's buffer for what sockets deliver. Not to be nested, and nothing in it may wait.
pub(super) fn with_inbound<R>(read: impl FnOnce(&mut [u8]) -> R) -> R {
    IN.with_borrow_mut(|buffer| read(buffer))
}

/// This thread's empty buffer for what is to be written, until [`release_buffer`].
pub(super) fn take_outbound() -> BytesMut {
    OUT.take()
}

pub(super) fn release_buffer(mut buffer: BytesMut) {
    if buffer.capacity() <= OUTBOUND {
        buffer.clear();
        OUT.set(buffer);
    }
}
