//! The messages that wait to be written to one client: reliable messages in a log until they are acknowledged, state
//! messages in slots where the newer replaces the older, and a lane per group that falls back to the group's keyframe.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use shardkeep_types::GroupKey;
use shardkeep_wire::{
    record::{Side, Writer},
    session::{Bounds, Outbox as Log, SessionError},
};

use crate::domain::{
    costs::{COSTS, CostSample},
    groups::MAX_KEYFRAME_BYTES,
};

/// Most bytes of unsent state per client. Overflow: the group's lane is emptied until its next keyframe; other state is
/// shed.
const MAX_STATE_BYTES: usize = 256 << 10;
/// The same while a keyframe is queued: a keyframe of any allowed size fits an empty queue.
const MAX_STATE_BYTES_WITH_KEYFRAME: usize = MAX_STATE_BYTES + MAX_KEYFRAME_BYTES;
/// Least time between two keyframe repetitions to a client that was too slow.
const RESEND_INTERVAL: Duration = Duration::from_secs(1);
/// Unsent messages that are neither logged nor state (acknowledgements, pongs).
const MAX_CONTROL: usize = 64;

/// Names a state message that a newer one replaces: opcode, class, key.
pub(crate) type SlotKey = (u16, u8, u64);

#[derive(Debug)]
pub(crate) struct Outbox {
    log: Log,
    queue: VecDeque<Entry>,
    slots: HashMap<SlotKey, Bytes>,
    lanes: HashMap<GroupKey, Lane>,
    state_bytes: usize,
    control: usize,
    /// When stale groups may be sent again.
    resend_at: Option<Instant>,
    /// No connection reads: reliable messages are only logged, state is not kept.
    detached: bool,
}

/// A message to write, in the order in which it was queued.
#[derive(Debug)]
enum Entry {
    /// By its number in the log. It is skipped if the client has acknowledged it already.
    Logged(u64),
    Control(Bytes),
    Slot(SlotKey),
    Lane(GroupKey),
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Bytes>,
    /// A message was left out: the client needs the next keyframe.
    stale: bool,
}

/// The result of queueing a state message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EnqueueResult {
    Queued,
    Shed,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self::with_log(Log::new(Bounds::SERVER))
    }

    /// Continues where another gateway left the session.
    pub(crate) fn restore(sent: u64, unacknowledged: Vec<Bytes>) -> Self {
        Self { detached: true, ..Self::with_log(Log::restore(Bounds::SERVER, sent, unacknowledged)) }
    }

    fn with_log(log: Log) -> Self {
        Self {
            log,
            queue: VecDeque::new(),
            slots: HashMap::new(),
            lanes: HashMap::new(),
            state_bytes: 0,
            control: 0,
            resend_at: None,
            detached: false,
        }
    }

    /// Most bytes that one encoded message may have.
    pub(crate) fn max_message() -> usize {
        Side::Server.max_plaintext()
    }

    /// Queues a message that must arrive.
    ///
    /// # Errors
    /// Overflow: the client is too slow, its session ends.
    pub(crate) fn reliable(&mut self, message: Bytes) -> Result<(), SessionError> {
        let number = self.log.push(message)?;
        if !self.detached {
            self.queue.push_back(Entry::Logged(number));
        }
        Ok(())
    }

    /// Queues a message of the connection itself. Returns false if too many wait, because the connection is stuck.
    pub(crate) fn control(&mut self, message: Bytes) -> bool {
        if self.detached {
            return true;
        }
        self.control += 1;
        self.queue.push_back(Entry::Control(message));
        self.control <= MAX_CONTROL
    }

    /// Queues a state message, which replaces an unsent one of the same key.
    pub(crate) fn state(&mut self, key: SlotKey, message: Bytes) -> EnqueueResult {
        if self.detached {
            return EnqueueResult::Queued;
        }
        let older = self.slots.get(&key).map_or(0, Bytes::len);
        let state_bytes = self.state_bytes - older + message.len();
        if state_bytes > MAX_STATE_BYTES {
            return EnqueueResult::Shed;
        }
        self.state_bytes = state_bytes;
        if self.slots.insert(key, message).is_none() {
            self.queue.push_back(Entry::Slot(key));
        }
        EnqueueResult::Queued
    }

    /// Queues a group's keyframe, which replaces every unsent message of the group.
    pub(crate) fn keyframe(&mut self, group: GroupKey, message: &Bytes) -> EnqueueResult {
        self.clear_lane(group, false);
        self.append(group, message, MAX_STATE_BYTES_WITH_KEYFRAME)
    }

    /// A message that completes the group's keyframe.
    pub(crate) fn part(&mut self, group: GroupKey, message: &Bytes) -> EnqueueResult {
        self.append_unless_stale(group, message, MAX_STATE_BYTES_WITH_KEYFRAME)
    }

    /// Queues a group's delta behind the group's other messages.
    pub(crate) fn delta(&mut self, group: GroupKey, message: &Bytes) -> EnqueueResult {
        self.append_unless_stale(group, message, MAX_STATE_BYTES)
    }

    fn append_unless_stale(&mut self, group: GroupKey, message: &Bytes, bound: usize) -> EnqueueResult {
        if self.lanes.get(&group).is_some_and(|lane| lane.stale) {
            return EnqueueResult::Shed;
        }
        self.append(group, message, bound)
    }

    fn append(&mut self, group: GroupKey, message: &Bytes, bound: usize) -> EnqueueResult {
        if self.detached {
            return EnqueueResult::Queued;
        }
        if self.state_bytes + message.len() > bound {
            self.clear_lane(group, true);
            return EnqueueResult::Shed;
        }
        self.state_bytes += message.len();
        let lane = self.lanes.entry(group).or_default();
        if lane.waiting.is_empty() {
            self.queue.push_back(Entry::Lane(group));
        }
        lane.waiting.push_back(message.clone());
        EnqueueResult::Queued
    }

    fn clear_lane(&mut self, group: GroupKey, stale: bool) {
        if let Some(lane) = self.lanes.get_mut(&group) {
            self.state_bytes -= lane.waiting.iter().map(Bytes::len).sum::<usize>();
            if !lane.waiting.is_empty() {
                lane.waiting.clear();
                self.queue.retain(|entry| !matches!(entry, Entry::Lane(other) if *other == group));
            }
            lane.stale = stale;
        } else if stale {
            self.lanes.insert(group, Lane { stale, ..Lane::default() });
        }
    }

    /// The session has left the group.
    pub(crate) fn leave(&mut self, group: GroupKey) {
        self.clear_lane(group, false);
        self.lanes.remove(&group);
    }

    /// Groups whose keyframe the client needs, once everything else is written. Each is named once, and groups are named
    /// at most every [`RESEND_INTERVAL`].
    pub(crate) fn take_stale(&mut self, now: Instant) -> Vec<GroupKey> {
        if !self.queue.is_empty() || self.lanes.is_empty() {
            return Vec::new();
        }
        if self.resend_at.is_some_and(|at| now < at) {
            // Empty lanes that are not stale need no memory.
            self.lanes.retain(|_, lane| lane.stale);
            return Vec::new();
        }
        let stale: Vec<_> =
            self.lanes.iter().filter(|(_, lane)| lane.stale).map(|(&group, _)| group).collect();
        self.lanes.clear();
        self.resend_at = (!stale.is_empty()).then(|| now + RESEND_INTERVAL);
        stale
    }

    /// When [`Self::take_stale`] has to be called although nothing is queued.
    pub(crate) fn resend_deadline(&self) -> Option<Instant> {
        self.resend_at.filter(|_| self.queue.is_empty() && self.lanes.values().any(|lane| lane.stale))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn acknowledge(&mut self, received: u64) -> Result<(), SessionError> {
        self.log.acknowledge(received)
    }

    /// The connection is lost: drops state, keeps reliable messages.
    pub(crate) fn detach(&mut self) {
        self.detached = true;
        self.clear_unlogged();
    }

    /// The client is back and has `received` messages; later ones are queued again.
    pub(crate) fn attach(&mut self, received: u64) -> Result<(), SessionError> {
        self.clear_unlogged();
        let _ = self.log.resume_from(received)?;
        self.queue.extend((self.log.acknowledged() + 1..=self.log.sent()).map(Entry::Logged));
        self.detached = false;
        Ok(())
    }

    /// Number of the last reliable message, and those the client has not acknowledged.
    pub(crate) fn log(&self) -> (u64, Vec<Bytes>) {
        (self.log.sent(), self.log.unacknowledged().cloned().collect())
    }

    /// Gives back unused memory.
    pub(crate) fn rest(&mut self) {
        self.log.shrink();
        self.queue.shrink_to_fit();
        self.slots.shrink_to_fit();
        self.lanes.shrink_to_fit();
    }

    fn clear_unlogged(&mut self) {
        self.queue = VecDeque::new();
        self.slots = HashMap::new();
        self.lanes = HashMap::new();
        (self.state_bytes, self.control) = (0, 0);
    }

    /// Gives the queued state of opcodes that `carry` allows to `send`, and removes what `send` has sent. Returns
    /// true if anything was removed.
    pub(crate) fn divert_lossy(
        &mut self,
        carry: fn(u16) -> bool,
        mut send: impl FnMut(&Bytes) -> bool,
    ) -> bool {
        let before = self.queue.len();
        let (slots, state_bytes) = (&mut self.slots, &mut self.state_bytes);
        self.queue.retain(|entry| {
            let Entry::Slot(key) = entry else { return true };
            let lost = carry(key.0) && slots.get(key).is_some_and(&mut send);
            if lost {
                *state_bytes -= slots.remove(key).map_or(0, |message| message.len());
            }
            !lost
        });
        self.queue.len() < before
    }

    /// Moves messages into a record until it is full or nothing is left.
    pub(crate) fn fill(&mut self, record: &mut Writer<'_>, mut sample: Option<&mut CostSample>) {
        while let Some(entry) = self.queue.front() {
            let next = match entry {
                Entry::Logged(number) => self.log.get(*number),
                Entry::Control(message) => Some(message),
                Entry::Slot(key) => self.slots.get(key),
                Entry::Lane(group) => self.lanes.get(group).and_then(|lane| lane.waiting.front()),
            };
            if let Some(message) = next {
                if record.push_encoded(message).is_err() {
                    break;
                }
                COSTS.sent(message);
                if let Some(sample) = &mut sample {
                    sample.add_encoded(message);
                }
            }
            self.pop();
        }
    }

    fn pop(&mut self) {
        match self.queue.front() {
            Some(Entry::Slot(key)) => {
                let sent = self.slots.remove(key);
                self.state_bytes -= sent.map_or(0, |message| message.len());
            }
            Some(Entry::Lane(group)) => {
                let Some(lane) = self.lanes.get_mut(group) else { return self.pop_front() };
                self.state_bytes -= lane.waiting.pop_front().map_or(0, |message| message.len());
                if !lane.waiting.is_empty() {
                    return;
                }
            }
            Some(Entry::Control(_)) => self.control -= 1,
            Some(Entry::Logged(_)) | None => {}
        }
        self.pop_front();
    }

    fn pop_front(&mut self) {
        self.queue.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn group(number: u64) -> GroupKey {
        GroupKey::new(0x0200, 1, number)
    }

    /// The content of one record.
    fn written(outbox: &mut Outbox) -> String {
        let mut out = BytesMut::new();
        let mut writer = Writer::begin(&mut out, Side::Server);
        outbox.fill(&mut writer, None);
        writer.plain();
        out.get(2..).map(|body| String::from_utf8_lossy(body).into_owned()).unwrap_or_default()
    }

    #[test]
    fn outbox_fills_one_record_in_order() {
        let mut outbox = Outbox::new();
        outbox.reliable(bytes("a")).unwrap();
        outbox.state((1, 0, 0), bytes("b"));
        outbox.keyframe(group(1), &bytes("c"));
        outbox.delta(group(1), &bytes("d"));
        outbox.reliable(bytes("e")).unwrap();
        assert_eq!(written(&mut outbox), "abcde");
        assert!(outbox.is_empty());
    }

    #[test]
    fn outbox_state_replaces_older_state_of_same_key() {
        let mut outbox = Outbox::new();
        outbox.state((1, 0, 0), bytes("old"));
        outbox.state((1, 0, 1), bytes("-other-"));
        outbox.state((1, 0, 0), bytes("new"));
        assert_eq!(written(&mut outbox), "new-other-");
        assert_eq!(outbox.state_bytes, 0);

        let large = Bytes::from(vec![b'x'; MAX_STATE_BYTES / 2]);
        for key in [0, 1, 1] {
            assert_eq!(
                outbox.state((1, 0, key), large.clone()),
                EnqueueResult::Queued,
                "what it replaces makes room"
            );
        }
        assert_eq!(outbox.state((1, 0, 2), bytes("x")), EnqueueResult::Shed);
    }

    #[test]
    fn lossy_state_that_was_diverted_leaves_the_queue() {
        let mut outbox = Outbox::new();
        outbox.state((1, 0, 0), bytes("a"));
        outbox.state((2, 0, 0), bytes("b"));
        outbox.state((1, 0, 1), bytes("c"));
        assert!(!outbox.divert_lossy(|opcode| opcode == 1, |_| false), "it could not be sent");
        assert!(outbox.divert_lossy(|opcode| opcode == 1, |message| message[..] == *b"a"));
        assert_eq!(written(&mut outbox), "bc");
        assert_eq!((outbox.state_bytes, outbox.slots.len()), (0, 0));
    }

    #[test]
    fn keyframe_replaces_unsent_deltas_of_its_group() {
        let mut outbox = Outbox::new();
        outbox.delta(group(1), &bytes("x"));
        outbox.delta(group(2), &bytes("y"));
        outbox.keyframe(group(1), &bytes("K"));
        outbox.delta(group(1), &bytes("d"));
        assert_eq!(written(&mut outbox), "yKd");
    }

    #[test]
    fn outbox_over_state_bound_sheds_deltas_until_keyframe() {
        let (mut outbox, now) = (Outbox::new(), Instant::now());
        let large = Bytes::from(vec![b'x'; 60_000]);
        let shed = (0..10).filter(|_| outbox.delta(group(1), &large) == EnqueueResult::Shed).count();
        assert_eq!(shed, 6, "after the fifth nothing makes sense until a keyframe");
        assert!(outbox.state_bytes == 0 && outbox.is_empty());
        assert_eq!(outbox.take_stale(now), [group(1)]);
        outbox.keyframe(group(1), &bytes("K"));
        assert_eq!(written(&mut outbox), "K");
        assert!(outbox.take_stale(now).is_empty());
    }

    #[test]
    fn outbox_reattach_resends_unreceived_and_drops_old_state() {
        let mut outbox = Outbox::new();
        outbox.reliable(bytes("a")).unwrap();
        outbox.reliable(bytes("b")).unwrap();
        outbox.delta(group(1), &bytes("x"));
        written(&mut outbox);
        outbox.detach();
        outbox.reliable(bytes("c")).unwrap();
        outbox.delta(group(1), &bytes("y"));
        assert!(outbox.is_empty());
        outbox.attach(1).unwrap();
        assert_eq!(written(&mut outbox), "bc");
        assert!(outbox.attach(0).is_err(), "it acknowledged more before");
    }

    #[test]
    fn outbox_restored_on_another_gateway_continues_its_log() {
        let mut outbox = Outbox::new();
        outbox.reliable(bytes("a")).unwrap();
        outbox.reliable(bytes("b")).unwrap();
        outbox.acknowledge(1).unwrap();
        let (sent, rest) = outbox.log();
        let mut moved = Outbox::restore(sent, rest);
        moved.attach(1).unwrap();
        moved.reliable(bytes("c")).unwrap();
        assert_eq!(written(&mut moved), "bc");
        assert_eq!(moved.log().0, 3);
    }

    #[test]
    fn keyframe_of_the_largest_size_fits_an_empty_queue() {
        let mut outbox = Outbox::new();
        let part = Bytes::from(vec![b'x'; 60_000]);
        assert_eq!(outbox.keyframe(group(1), &part), EnqueueResult::Queued);
        for _ in 1..MAX_KEYFRAME_BYTES / part.len() {
            assert_eq!(outbox.part(group(1), &part), EnqueueResult::Queued);
        }
        assert_eq!(outbox.delta(group(1), &part), EnqueueResult::Shed, "its deltas wait for the next one");
        assert_eq!((outbox.state_bytes, outbox.is_empty()), (0, true));
    }

    #[test]
    fn stale_groups_are_resent_once_per_interval() {
        let (mut outbox, now) = (Outbox::new(), Instant::now());
        let large = Bytes::from(vec![b'x'; MAX_STATE_BYTES + 1]);
        outbox.delta(group(1), &large);
        assert_eq!((outbox.take_stale(now), outbox.resend_deadline()), (vec![group(1)], None));
        outbox.delta(group(1), &large);
        let later = now + RESEND_INTERVAL;
        assert_eq!((outbox.take_stale(now), outbox.resend_deadline()), (vec![], Some(later)));
        assert_eq!(outbox.take_stale(later), [group(1)]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Reliable,
        State(u64, usize),
        Keyframe(u64, usize),
        Delta(u64, usize),
        Leave(u64),
        Write,
        /// The connection is lost, and the client comes back with the messages that it had read.
        Resume,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Reliable),
            (0..3u64, 0..90_000usize).prop_map(|(key, size)| Step::State(key, size)),
            (0..3u64, 0..60_000usize).prop_map(|(key, size)| Step::Keyframe(key, size)),
            (0..3u64, 0..60_000usize).prop_map(|(key, size)| Step::Delta(key, size)),
            (0..3u64).prop_map(Step::Leave),
            Just(Step::Write),
            Just(Step::Resume),
        ]
    }

    proptest! {
        /// Reliable messages arrive once and in order, a delta never comes before the keyframe that it needs, and
        /// the queue stays within its bound, whatever is shed and whenever the client disconnects.
        #[test]
        fn reliable_messages_arrive_once_and_deltas_follow_keyframes(
            steps in prop::collection::vec(step(), 1..150),
        ) {
            let mut outbox = Outbox::new();
            let (mut pushed, mut read) = (0u8, Vec::new());
            let mut with_keyframe = [false; 3];
            let sized = |mark: char, key: u64, size: usize| {
                Bytes::from(format!("{mark}{key}{}.", "x".repeat(size.min(60_000))))
            };
            let take = |outbox: &mut Outbox, read: &mut Vec<u8>, with_keyframe: &mut [bool; 3]| {
                for message in written(outbox).split_terminator('.') {
                    let (mark, rest) = message.split_at(1);
                    let key = |rest: &str| usize::from(rest.as_bytes()[0] - b'0');
                    match mark {
                        "r" => read.push(rest.parse().unwrap()),
                        "k" => with_keyframe[key(rest)] = true,
                        "d" => assert!(with_keyframe[key(rest)], "a delta without its keyframe"),
                        _ => {}
                    }
                }
            };
            for step in steps {
                match step {
                    Step::Reliable => {
                        outbox.reliable(Bytes::from(format!("r{pushed}."))).unwrap();
                        pushed += 1;
                    }
                    Step::State(key, size) => {
                        let _ = outbox.state((1, 0, key), sized('s', key, size));
                    }
                    Step::Keyframe(key, size) => {
                        let _ = outbox.keyframe(group(key), &sized('k', key, size));
                    }
                    // A group sends nothing to a subscriber before its keyframe.
                    Step::Delta(key, size) if outbox.lanes.contains_key(&group(key)) => {
                        let _ = outbox.delta(group(key), &sized('d', key, size));
                    }
                    Step::Delta(..) => {}
                    Step::Leave(key) => outbox.leave(group(key)),
                    Step::Write => take(&mut outbox, &mut read, &mut with_keyframe),
                    Step::Resume => {
                        outbox.detach();
                        outbox.attach(read.len() as u64).unwrap();
                        with_keyframe = [false; 3];
                    }
                }
                prop_assert!(outbox.state_bytes <= MAX_STATE_BYTES_WITH_KEYFRAME);
            }
            while !outbox.is_empty() {
                take(&mut outbox, &mut read, &mut with_keyframe);
            }
            prop_assert_eq!(read, (0..pushed).collect::<Vec<_>>());
            prop_assert_eq!((outbox.state_bytes, outbox.slots.len()), (0, 0));
        }
    }

    #[test]
    fn outbox_without_acknowledgements_overflows() {
        let mut outbox = Outbox::new();
        let pushed = (0..2_000).take_while(|_| outbox.reliable(bytes("x")).is_ok()).count();
        assert_eq!(pushed, Bounds::SERVER.messages);
    }
}
