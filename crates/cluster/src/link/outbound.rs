//! One end of a link with its stream attached: a pipe, the number of the stream that may read it, and the waker
//! that tells the stream of new items. Frames are pulled by the stream when it is writable, so whatever gathered
//! meanwhile leaves in one batch. Batches keep a small distance, so that under load a frame carries many items.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::BytesMut;
use metrics::{Counter, counter};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    metrics::{BATCHES, ITEMS, OVERFLOWS},
    pipe::{Full, Limits, Outgoing, Pipe},
};

#[derive(Debug)]
pub(crate) struct Outbound {
    side: &'static str,
    limits: Limits,
    pub(crate) pipe: Pipe,
    /// The stream that carries this end now, and the newest that ever did.
    stream: Option<u64>,
    newest: u64,
    waker: Option<Waker>,
    /// The stream waits for `batch_due` by its timer, so that items need not wake it.
    resting: bool,
    batch_due: Instant,
    /// When an acknowledgement goes without a batch.
    ack_due: Option<Instant>,
    /// A reliable item did not fit: only a fresh start mends it.
    overflowed: bool,
    batches: Counter,
    items: Counter,
}

impl Outbound {
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
            resting: false,
            batch_due: Instant::now(),
            ack_due: None,
            overflowed: false,
        }
    }

    /// An item that must arrive, of about so many bytes; if it does not fit, the link has to start anew.
    pub(crate) fn push(&mut self, bytes: usize, encode: impl FnOnce(&mut BytesMut)) {
        if self.overflowed {
            return;
        }
        match self.pipe.push(bytes, encode) {
            Ok(()) => self.added(),
            Err(Full) => self.overflow(),
        }
    }

    /// An item that may be dropped.
    pub(crate) fn offer(&mut self, bytes: usize, encode: impl FnOnce(&mut BytesMut)) -> Result<(), Full> {
        if self.overflowed {
            return Err(Full);
        }
        self.pipe.offer(bytes, encode)?;
        self.added();
        Ok(())
    }

    fn added(&mut self) {
        if !self.resting || self.pipe.is_full() {
            self.wake();
        }
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
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            self.waker = Some(context.waker().clone());
        }
    }

    pub(crate) fn wake(&mut self) {
        self.resting = false;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// A batch has arrived. Its acknowledgement rides on the next one here, or goes alone in a while: a stream that waits
    /// for either need not be woken.
    pub(crate) fn owe(&mut self) {
        if !self.resting && self.ack_due.is_none() {
            self.wake();
        }
    }

    /// What `stream` does next. Call again when woken, and when the time told has come.
    pub(crate) fn poll(&mut self, stream: u64, context: &Context<'_>) -> Next {
        if !self.carried_by(stream) {
            return Next::Over;
        }
        self.resting = false;
        let now = Instant::now();
        let (batch, ack) = (self.pipe.has_batch(), self.pipe.owes_ack());
        let ack_due = ack.then(|| *self.ack_due.get_or_insert_with(|| now + self.limits.acknowledge));
        let due = match (batch, ack_due) {
            (true, _) if self.pipe.is_full() => now,
            (true, Some(ack_due)) => self.batch_due.min(ack_due),
            (true, None) => self.batch_due,
            (false, Some(ack_due)) => ack_due,
            (false, None) => {
                self.park(context);
                return Next::Wait(None);
            }
        };
        if due > now {
            self.resting = batch;
            self.park(context);
            return Next::Wait(Some(due));
        }
        let Some(frame) = self.pipe.next() else {
            self.park(context);
            return Next::Wait(None);
        };
        self.ack_due = None;
        if let Outgoing::Batch { batch, .. } = &frame {
            self.batch_due = now + self.limits.interval;
            self.batches.increment(1);
            self.items.increment(batch.count as u64);
        }
        Next::Frame(frame)
    }
}

/// What the stream that carries an end does next.
pub(crate) enum Next {
    Frame(Outgoing),
    /// Nothing, until it is woken or this moment has come.
    Wait(Option<Instant>),
    Over,
}

/// The timer of a stream, made when it is first needed and used again.
#[derive(Default)]
pub(crate) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Asks `next` until it has a frame, or nothing to do before it is woken.
    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
        mut next: impl FnMut(&Context<'_>) -> Next,
    ) -> Poll<Option<Outgoing>> {
        loop {
            let due = match next(context) {
                Next::Frame(frame) => return Poll::Ready(Some(frame)),
                Next::Over => return Poll::Ready(None),
                Next::Wait(None) => return Poll::Pending,
                Next::Wait(Some(due)) => due,
            };
            let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(due)));
            if timer.deadline() != due {
                timer.as_mut().reset(due);
            }
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }
}
