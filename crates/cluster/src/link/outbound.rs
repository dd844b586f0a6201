//! One end of a link with its stream attached: a pipe, the number of the stream that may read it, and the waker
//! that tells the stream of new items. Frames are pulled by the stream when it is writable, so whatever gathered
//! meanwhile leaves in one batch.

use std::task::{Context, Poll, Waker};

use metrics::{Counter, counter};

use super::{
    metrics::{BATCHES, ITEMS, OVERFLOWS},
    pipe::{Full, Limits, Outgoing, Pipe},
};

#[derive(Debug)]
pub(crate) struct Outbound<I> {
    side: &'static str,
    limits: Limits,
    pub(crate) pipe: Pipe<I>,
    /// The stream that carries this end now, and the newest that ever did.
    stream: Option<u64>,
    newest: u64,
    waker: Option<Waker>,
    /// A reliable item did not fit: only a fresh start mends it.
    overflowed: bool,
    batches: Counter,
    items: Counter,
}

impl<I: Clone> Outbound<I> {
    pub(crate) fn new(side: &'static str, limits: Limits) -> Self {
        Self {
            batches: counter!(BATCHES, "side" => side),
            items: counter!(ITEMS, "side" => side),
            side,
            limits,
            pipe: Pipe::new(limits),
            stream: None,
            newest: 0,
            waker: None,
            overflowed: false,
        }
    }

    /// An item that must arrive; if it does not fit, the link has to start anew.
    pub(crate) fn push(&mut self, item: I, bytes: usize) {
        if self.overflowed {
            return;
        }
        match self.pipe.push(item, bytes) {
            Ok(()) => self.wake(),
            Err(Full) => self.overflow(),
        }
    }

    /// An item that may be dropped.
    pub(crate) fn offer(&mut self, item: I, bytes: usize) -> Result<(), Full> {
        if self.overflowed {
            return Err(Full);
        }
        self.pipe.offer(item, bytes)?;
        self.wake();
        Ok(())
    }

    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        !self.overflowed && self.pipe.has_room(bytes)
    }

    fn overflow(&mut self) {
        counter!(OVERFLOWS, "side" => self.side).increment(1);
        self.overflowed = true;
        // Nothing of it can be used any more, so it need not stay in memory.
        self.pipe = Pipe::new(self.limits);
        self.close();
    }

    pub(crate) fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Forgets everything: both counters start again. The stream stays.
    pub(crate) fn start_anew(&mut self) {
        self.pipe = Pipe::new(self.limits);
        self.overflowed = false;
    }

    pub(crate) fn attach(&mut self, stream: u64) {
        self.close();
        self.stream = Some(stream);
        self.newest = stream;
    }

    /// No stream has carried this end since that one, which is over.
    pub(crate) fn abandoned_since(&self, stream: u64) -> bool {
        self.stream.is_none() && self.newest == stream
    }

    /// Ends the present stream.
    pub(crate) fn close(&mut self) {
        self.stream = None;
        self.wake();
    }

    pub(crate) fn carried_by(&self, stream: u64) -> bool {
        self.stream == Some(stream)
    }

    /// Keeps the waker without taking anything.
    pub(crate) fn park(&mut self, context: &Context<'_>) {
        self.waker = Some(context.waker().clone());
    }

    pub(crate) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// What `stream` carries next; `None` when the stream is over.
    pub(crate) fn poll(&mut self, stream: u64, context: &Context<'_>) -> Poll<Option<Outgoing<I>>> {
        if !self.carried_by(stream) {
            return Poll::Ready(None);
        }
        let Some(frame) = self.pipe.next() else {
            self.park(context);
            return Poll::Pending;
        };
        if let Outgoing::Batch { items, .. } = &frame {
            self.batches.increment(1);
            self.items.increment(items.len() as u64);
        }
        Poll::Ready(Some(frame))
    }
}
