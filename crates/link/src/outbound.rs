//! One end of a link with the stream that carries it. The stream pulls frames when it is writable, so that items
//! queued meanwhile leave in one batch. Batches are at least [`Limits::interval`] apart unless they are full, so
//! that under load a frame carries many items. Deferred items wait longer, unless another item leaves first.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::BytesMut;
use metrics::{Counter, counter};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
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
    /// When the stream's timer fires. An item that may leave then need not wake the stream.
    timer_due: Option<Instant>,
    /// When the next batch with a prompt item may leave.
    batch_due: Instant,
    /// When the queued items leave if all of them are deferred; `None`: one of them is prompt.
    deferral_due: Option<Instant>,
    /// When an acknowledgement leaves without a batch.
    ack_due: Option<Instant>,
    /// A reliable item did not fit, so the link has to start anew.
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
            timer_due: None,
            batch_due: Instant::now(),
            deferral_due: None,
            ack_due: None,
            overflowed: false,
        }
    }

    /// Queues an item that must arrive, of about this many bytes. If it does not fit, the link has to start anew.
    pub(crate) fn push(&mut self, bytes: usize, priority: Priority, encode: impl FnOnce(&mut BytesMut)) {
        if self.overflowed {
            return;
        }
        let first = !self.pipe.has_batch();
        match self.pipe.push(bytes, encode) {
            Ok(()) => self.added(first, priority),
            Err(Full) => self.overflow(),
        }
    }

    /// Queues an item that may be dropped.
    pub(crate) fn offer(&mut self, bytes: usize, encode: impl FnOnce(&mut BytesMut)) -> Result<(), Full> {
        if self.overflowed {
            return Err(Full);
        }
        let first = !self.pipe.has_batch();
        self.pipe.offer(bytes, encode)?;
        self.added(first, Priority::Prompt);
        Ok(())
    }

    /// An item was queued; `first`: the queue was empty before.
    fn added(&mut self, first: bool, priority: Priority) {
        match priority {
            Priority::Prompt => self.deferral_due = None,
            Priority::Deferred if first => self.deferral_due = Some(Instant::now() + self.limits.deferral),
            Priority::Deferred => {}
        }
        let due = self.deferral_due.unwrap_or(self.batch_due);
        if self.pipe.is_full() || self.timer_due.is_none_or(|until| due < until) {
            self.wake();
        }
    }

    fn overflow(&mut self) {
        counter!(OVERFLOWS, "side" => self.side).increment(1);
        self.overflowed = true;
        // The queue cannot be used any more, so its memory is freed.
        self.pipe = Pipe::new(self.limits);
        self.close();
    }

    pub(crate) fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Forgets all batches, so that both counts start again. The stream stays.
    pub(crate) fn restart(&mut self) {
        self.pipe = Pipe::new(self.limits);
        (self.deferral_due, self.ack_due) = (None, None);
        self.overflowed = false;
    }

    pub(crate) fn attach(&mut self, stream: u64) {
        self.close();
        self.stream = Some(stream);
        self.newest = stream;
        // The hello of the new stream acknowledges everything that has arrived.
        self.ack_due = None;
    }

    /// Whether no stream has carried this end since that one, which has ended.
    pub(crate) fn detached_since(&self, stream: u64) -> bool {
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

    /// Stores the waker without taking a frame.
    pub(crate) fn store_waker(&mut self, context: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            self.waker = Some(context.waker().clone());
        }
    }

    pub(crate) fn wake(&mut self) {
        self.timer_due = None;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// A batch has arrived. Its acknowledgement leaves with the next batch, or alone after a while; a stream that
    /// waits for either is not woken.
    pub(crate) fn schedule_ack(&mut self) {
        if self.timer_due.is_none() && self.ack_due.is_none() {
            self.wake();
        }
    }

    /// The next step of `stream`. Call again when the stream is woken, or at the returned time.
    pub(crate) fn poll(&mut self, stream: u64, context: &Context<'_>) -> StreamStep {
        if !self.carried_by(stream) {
            return StreamStep::Ended;
        }
        self.timer_due = None;
        let now = Instant::now();
        let (batch, ack) = (self.pipe.has_batch(), self.pipe.ack_pending());
        let ack_due = ack.then(|| *self.ack_due.get_or_insert_with(|| now + self.limits.acknowledge));
        let due = match (batch, ack_due) {
            (true, _) if self.pipe.is_full() => now,
            (true, ack_due) => {
                let due =
                    self.deferral_due.map_or(self.batch_due, |deferral_due| deferral_due.max(self.batch_due));
                ack_due.map_or(due, |ack_due| ack_due.min(due))
            }
            (false, Some(ack_due)) => ack_due,
            (false, None) => {
                self.store_waker(context);
                return StreamStep::Wait(None);
            }
        };
        if due > now {
            self.timer_due = batch.then_some(due);
            self.store_waker(context);
            return StreamStep::Wait(Some(due));
        }
        let Some(frame) = self.pipe.next() else {
            self.store_waker(context);
            return StreamStep::Wait(None);
        };
        self.ack_due = None;
        if !self.pipe.has_batch() {
            self.deferral_due = None;
        }
        if let Outgoing::Batch { batch, .. } = &frame {
            self.batch_due = now + self.limits.interval;
            self.batches.increment(1);
            self.items.increment(batch.count as u64);
        }
        StreamStep::Frame(frame)
    }
}

/// How soon an item should leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Priority {
    /// With the next batch.
    Prompt,
    /// With the next batch that something else needs, or after [`Limits::deferral`].
    Deferred,
}

/// The next step of the stream that carries an end.
pub(crate) enum StreamStep {
    Frame(Outgoing),
    /// Wait until the stream is woken, or until this time.
    Wait(Option<Instant>),
    Ended,
}

/// The timer of a stream, made at first use and then reused.
#[derive(Default)]
pub(crate) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Calls `next` until it has a frame, or has nothing to do before the stream is woken.
    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
        mut next: impl FnMut(&Context<'_>) -> StreamStep,
    ) -> Poll<Option<Outgoing>> {
        loop {
            let due = match next(context) {
                StreamStep::Frame(frame) => return Poll::Ready(Some(frame)),
                StreamStep::Ended => return Poll::Ready(None),
                StreamStep::Wait(None) => return Poll::Pending,
                StreamStep::Wait(Some(due)) => due,
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const STREAM: u64 = 1;

    /// Long enough that no deadline passes during a test.
    const INTERVAL: Duration = Duration::from_secs(3_600);
    const DEFERRAL: Duration = Duration::from_secs(2 * 3_600);

    fn outbound(deferral: Duration) -> Outbound {
        let limits = Limits { interval: INTERVAL, acknowledge: DEFERRAL, deferral, ..Limits::default() };
        let mut out = Outbound::new("gateway", limits);
        out.attach(STREAM);
        out
    }

    fn push_item(out: &mut Outbound, priority: Priority) {
        out.push(1, priority, |out| out.extend_from_slice(b"x"));
    }

    /// Number of items in the batch that leaves now, or how long the stream waits, rounded to hours.
    fn poll(out: &mut Outbound) -> Result<usize, Option<Duration>> {
        let hours = |due: Instant| ((due - Instant::now() + INTERVAL / 2).as_secs() / 3_600) as u32;
        match out.poll(STREAM, &Context::from_waker(Waker::noop())) {
            StreamStep::Frame(Outgoing::Batch { batch, .. }) => Ok(batch.count),
            StreamStep::Wait(due) => Err(due.map(|due| INTERVAL * hours(due))),
            StreamStep::Frame(Outgoing::Ack(_)) | StreamStep::Ended => panic!("neither was said"),
        }
    }

    #[test]
    fn deferred_item_leaves_with_prompt_item_or_after_delay() {
        let mut out = outbound(DEFERRAL);
        push_item(&mut out, Priority::Deferred);
        push_item(&mut out, Priority::Deferred);
        assert_eq!(poll(&mut out), Err(Some(DEFERRAL)));
        push_item(&mut out, Priority::Prompt);
        assert_eq!(poll(&mut out), Ok(3));
        assert_eq!(poll(&mut out), Err(None));
        let mut out = outbound(Duration::ZERO);
        push_item(&mut out, Priority::Deferred);
        assert_eq!(poll(&mut out), Ok(1));
    }

    #[test]
    fn stream_is_woken_only_for_an_earlier_deadline() {
        for (first, due, second, wakes) in [
            (Priority::Deferred, DEFERRAL, Priority::Deferred, false),
            (Priority::Deferred, DEFERRAL, Priority::Prompt, true),
            (Priority::Prompt, INTERVAL, Priority::Deferred, false),
            (Priority::Prompt, INTERVAL, Priority::Prompt, false),
        ] {
            let mut out = outbound(DEFERRAL);
            // The next batch has to keep its distance from this one.
            push_item(&mut out, Priority::Prompt);
            assert_eq!(poll(&mut out), Ok(1));
            push_item(&mut out, first);
            assert_eq!(poll(&mut out), Err(Some(due)));
            push_item(&mut out, second);
            assert_eq!(out.waker.is_none(), wakes, "{second:?} behind {first:?}");
        }
    }

    #[test]
    fn ack_owed_by_broken_stream_does_not_block_the_next() {
        let mut out = outbound(DEFERRAL);
        out.pipe.arrived(1, 0);
        assert_eq!(poll(&mut out), Err(Some(DEFERRAL)));
        out.attach(STREAM);
        out.pipe.resume(0);
        assert_eq!(poll(&mut out), Err(None));
        out.pipe.arrived(2, 0);
        out.schedule_ack();
        assert!(out.waker.is_none(), "the stream is to look when the acknowledgement is due");
    }
}
