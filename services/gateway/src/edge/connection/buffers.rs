//! Buffers that a thread lends to the connection that it runs at the moment. Connections wait most of the time, so none
//! has a buffer except for bytes that are left over: half a record that was read, or bytes that a socket did not take.

use std::cell::{Cell, RefCell};

use bytes::BytesMut;

/// Most bytes of one read; more than a client's record has.
pub(super) const INBOUND: usize = 32 << 10;
/// A larger buffer is freed instead of being kept for the next connection.
const OUTBOUND: usize = 128 << 10;

thread_local! {
    static IN: RefCell<Box<[u8]>> = RefCell::new(vec![0; INBOUND].into());
    static OUT: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// Runs `read` with this thread's buffer for received bytes. Calls must not be nested, and `read` must not wait.
pub(super) fn with_inbound<R>(read: impl FnOnce(&mut [u8]) -> R) -> R {
    IN.with_borrow_mut(|buffer| read(buffer))
}

/// Takes this thread's empty buffer for output. Give it back by [`release_buffer`].
pub(super) fn take_outbound() -> BytesMut {
    OUT.take()
}

pub(super) fn release_buffer(mut buffer: BytesMut) {
    if buffer.capacity() <= OUTBOUND {
        buffer.clear();
        OUT.set(buffer);
    }
}
