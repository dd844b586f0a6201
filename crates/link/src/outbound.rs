//! One end of a link with its stream attached: a pipe, the number of the stream that may read it, and the waker
//! that tells the stream of new items. Frames are pulled by the stream when it is writable, so whatever gathered
//! meanwhile leaves in one batch. Batches keep a small distance, so that under load a frame carries many items; what
//! nobody waits for keeps a larger one, unless it leaves with something else before.

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
    /// When the stream looks again by its timer, so that an item that may leave then need not wake it.
    timer_due: Option<Instant>,
    /// When the next batch may leave, if anything in it should leave soon.
    batch_due: Instant,
    /// When what waits leaves at the latest though nobody waits for any of it; `None`: somebody does.
    deferral_due: Option<Instant>,
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
            timer_due: None,
            batch_due: Instant::now(),
            deferral_due: None,
            ack_due: None,
            overflowed: false,
        }
    }

    /// An item that must arrive, of about so many bytes; if it does not fit, the link has to start anew.
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

    /// An item that may be dropped.
    pub(crate) fn offer(&mut self, bytes: usize, encode: impl FnOnce(&mut BytesMut)) -> Result<(), Full> {
        if self.overflowed {
            return Err(Full);
        }
        let first = !self.pipe.has_batch();
        self.pipe.offer(bytes, encode)?;
        self.added(first, Priority::Prompt);
        Ok(())
    }

    /// Something was added: the first thing that waits, or one more.
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
        // Nothing of it can be used any more, so it need not stay in memory.
        self.pipe = Pipe::new(self.limits);
        self.close();
    }

    pub(crate) fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Forgets everything: both counters start again. The stream stays.
    pub(crate) fn restart(&mut self) {
        self.pipe = Pipe::new(self.limits);
        (self.deferral_due, self.ack_due) = (None, None);
        self.overflowed = false;
    }

    pub(crate) fn attach(&mut self, stream: u64) {
        self.close();
        self.stream = Some(stream);
        self.newest = stream;
        // What the stream before should have acknowledged by then is told in the hello of this one, or told anew.
        self.ack_due = None;
    }

    /// No stream has carried this end since that one, which is over.
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

    /// Keeps the waker without taking anything.
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

    /// A batch has arrived. Its acknowledgement rides on the next one here, or goes alone in a while: a stream that waits
    /// for either need not be woken.
    pub(crate) fn schedule_ack(&mut self) {
        if self.timer_due.is_none() && self.ack_due.is_none() {
            self.wake();
        }
    }

    /// What `stream` does next. Call again when woken, and when the time told has come.
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

/// What the stream that carries an end does next.
pub(crate) enum StreamStep {
    Frame(Outgoing),
    /// Nothing, until it is woken or this moment has come.
    Wait(Option<Instant>),
    Ended,
}

/// The timer of a stream, made when it is first needed and used again.
#[derive(Default)]
pub(crate) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Asks `next` until it has a frame, or nothing to do before it is woken.
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

    /// So far apart that no time passes in a test.
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

    /// Items of the batch that leaves now, or how long the stream waits, to the hour.
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
            // Right behind a batch, so that the next keeps its distance.
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
