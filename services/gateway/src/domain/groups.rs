//! Groups and their subscribers. A published message is encoded once and appended to each subscriber. The last keyframe
//! and the deltas since are kept for later subscribers.
//!
//! Subscribers are behind [`Subscriber`]; what backends have to be told is returned as [`Change`]s.

use std::collections::HashMap;

use bytes::Bytes;
use shardkeep_link::PublishKind;
use shardkeep_types::{BackendKind, Epoch, GroupKey, SessionId, WorldId};

/// Most deltas kept per group. Beyond these bounds the owner is asked for a keyframe; at twice the bounds they are dropped.
const DELTAS: usize = 64;
const DELTA_BYTES: usize = 64 << 10;
/// Least number of deltas between two requests for a keyframe, which bounds the rate of keyframes.
const DELTAS_PER_REQUEST: usize = 16;
/// Most bytes of a keyframe with its parts. A larger one is refused.
pub(crate) const MAX_KEYFRAME_BYTES: usize = 1 << 20;

/// A session as groups see it. Methods are called under the lock of the groups and may only append.
pub(crate) trait Subscriber: Clone {
    fn session(&self) -> SessionId;
    fn keyframe(&self, group: GroupKey, message: &Bytes);
    fn part(&self, group: GroupKey, message: &Bytes);
    fn delta(&self, group: GroupKey, message: &Bytes);
    /// `from` is the instance that published it.
    fn event(&self, from: &str, message: &Bytes);
    /// Marks the session as having output. Returns true if it had none.
    fn set_pending(&self) -> bool;
    /// The session has left the group.
    fn leave(&self, group: GroupKey);
}

/// A change that backends have to be told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The first subscriber came, or a keyframe is needed.
    Watch(WorldId, GroupKey),
    /// The last subscriber went.
    Unwatch(WorldId, GroupKey),
}

/// One encoded message to a group.
pub(crate) struct Publish<'a> {
    /// Instance name of the writer.
    pub(crate) from: &'a str,
    /// World of the writer; 0: it may publish in every world.
    pub(crate) world: WorldId,
    pub(crate) group: GroupKey,
    pub(crate) epoch: Epoch,
    pub(crate) kind: PublishKind,
    pub(crate) message: &'a Bytes,
}

pub(crate) struct Groups<L> {
    groups: HashMap<GroupKey, Group<L>>,
    by_session: HashMap<SessionId, Vec<GroupKey>>,
}

struct Group<L> {
    world: WorldId,
    epoch: Epoch,
    /// The last keyframe and the parts that complete it; empty: none is kept.
    keyframe: Vec<Bytes>,
    keyframe_bytes: usize,
    deltas: Vec<Bytes>,
    delta_bytes: usize,
    /// Deltas since the owner was last asked for a keyframe.
    deltas_since_request: usize,
    subscribers: Vec<L>,
}

impl<L> Default for Groups<L> {
    fn default() -> Self {
        Self { groups: HashMap::new(), by_session: HashMap::new() }
    }
}

impl<L: Subscriber> Groups<L> {
    /// Subscribes the session to these groups and sends it their keyframes and deltas. Asks the owner of a group
    /// without a keyframe for one. `replace` removes the session from its other groups of the kind.
    pub(crate) fn subscribe(
        &mut self,
        subscriber: &L,
        world: WorldId,
        keys: &[GroupKey],
        replace: Option<BackendKind>,
    ) -> Vec<Change> {
        let session = subscriber.session();
        let mut changes = Vec::new();
        if let Some(kind) = replace {
            let others = self.of_session(session, |key| key.backend() == kind && !keys.contains(&key));
            changes.extend(self.unsubscribe(session, &others));
        }
        for &key in keys {
            let session_groups =
                self.by_session.entry(session).or_insert_with(|| Vec::with_capacity(keys.len()));
            if session_groups.contains(&key) {
                continue;
            }
            session_groups.push(key);
            let group = self.groups.entry(key).or_insert_with(|| Group::new(world));
            if group.keyframe.is_empty() {
                changes.push(Change::Watch(group.world, key));
            }
            group.send_kept(key, subscriber);
            group.subscribers.push(subscriber.clone());
        }
        changes
    }

    pub(crate) fn unsubscribe(&mut self, session: SessionId, keys: &[GroupKey]) -> Vec<Change> {
        let Some(session_groups) = self.by_session.get_mut(&session) else { return Vec::new() };
        let mut changes = Vec::new();
        for key in keys {
            let Some(at) = session_groups.iter().position(|other| other == key) else { continue };
            session_groups.swap_remove(at);
            let Some(group) = self.groups.get_mut(key) else { continue };
            if let Some(at) = group.subscribers.iter().position(|other| other.session() == session) {
                group.subscribers.swap_remove(at).leave(*key);
            }
            if group.subscribers.is_empty() {
                changes.push(Change::Unwatch(group.world, *key));
                self.groups.remove(key);
            }
        }
        if session_groups.is_empty() {
            self.by_session.remove(&session);
        }
        changes
    }

    /// Removes the session from all its groups, or from those of one kind of backend.
    pub(crate) fn leave(&mut self, session: SessionId, kind: Option<BackendKind>) -> Vec<Change> {
        let all = self.of_session(session, |key| kind.is_none_or(|kind| key.backend() == kind));
        self.unsubscribe(session, &all)
    }

    /// Appends a message to each subscriber, and adds subscribers that have to be woken to `to_wake`.
    pub(crate) fn publish(&mut self, publish: &Publish<'_>, to_wake: &mut Vec<L>) -> PublishOutcome {
        let Publish { from, world, group: key, epoch, kind, message } = *publish;
        let Some(group) = self.groups.get_mut(&key) else { return PublishOutcome::NoSubscribers };
        if world != WorldId(0) && world != group.world {
            return PublishOutcome::WrongWorld;
        }
        if !key.many_writer() {
            if epoch < group.epoch {
                return PublishOutcome::StaleWriter;
            }
            if epoch > group.epoch {
                group.epoch = epoch;
                group.discard_kept();
            }
        }
        match kind {
            PublishKind::Keyframe => {
                group.discard_kept();
                group.keyframe.push(message.clone());
                group.keyframe_bytes = message.len();
                group.subscribers.iter().for_each(|subscriber| subscriber.keyframe(key, message));
            }
            PublishKind::Part => {
                if group.keyframe.is_empty() {
                    // Its keyframe was too large or of an older epoch. The owner publishes another one by itself.
                    return PublishOutcome::NoKeyframe;
                }
                if group.keyframe_bytes + message.len() > MAX_KEYFRAME_BYTES {
                    group.discard_kept();
                    return PublishOutcome::TooLarge;
                }
                group.keyframe.push(message.clone());
                group.keyframe_bytes += message.len();
                group.subscribers.iter().for_each(|subscriber| subscriber.part(key, message));
            }
            PublishKind::Delta => {
                group.subscribers.iter().for_each(|subscriber| subscriber.delta(key, message));
            }
            PublishKind::Event => {
                group.subscribers.iter().for_each(|subscriber| subscriber.event(from, message));
            }
        }
        to_wake.extend(group.subscribers.iter().filter(|subscriber| subscriber.set_pending()).cloned());
        let watch = if kind == PublishKind::Delta && group.store_delta(message) {
            Some(Change::Watch(group.world, key))
        } else {
            None
        };
        PublishOutcome::Delivered(group.subscribers.len(), watch)
    }

    /// Sends a session the keyframes and deltas of some of its groups again, because it missed messages. Asks the
    /// owner of a group without a keyframe for one.
    pub(crate) fn resend(&mut self, subscriber: &L, keys: impl IntoIterator<Item = GroupKey>) -> Vec<Change> {
        let Some(session_groups) = self.by_session.get(&subscriber.session()) else { return Vec::new() };
        let mut changes = Vec::new();
        for key in keys.into_iter().filter(|key| session_groups.contains(key)) {
            if let Some(group) = self.groups.get(&key) {
                group.send_kept(key, subscriber);
                if group.keyframe.is_empty() {
                    changes.push(Change::Watch(group.world, key));
                }
            }
        }
        changes
    }

    /// Every group of a session.
    pub(crate) fn subscribed_groups(&self, session: SessionId) -> Vec<GroupKey> {
        self.by_session.get(&session).cloned().unwrap_or_default()
    }

    pub(crate) fn is_subscribed(&self, session: SessionId, key: GroupKey) -> bool {
        self.by_session.get(&session).is_some_and(|session_groups| session_groups.contains(&key))
    }

    /// Every group that backends of this kind and world have to watch.
    pub(crate) fn watched(&self, kind: BackendKind, world: WorldId) -> Vec<GroupKey> {
        let serves = |group: &Group<L>| world == WorldId(0) || group.world == world;
        self.groups
            .iter()
            .filter(|(key, group)| key.backend() == kind && serves(group))
            .map(|(&key, _)| key)
            .collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.groups.len()
    }

    fn of_session(&self, session: SessionId, wanted: impl Fn(GroupKey) -> bool) -> Vec<GroupKey> {
        let session_groups = self.by_session.get(&session);
        session_groups.into_iter().flatten().copied().filter(|&key| wanted(key)).collect()
    }
}

/// The result of a publish.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PublishOutcome {
    /// Number of subscribers, and whether the owner must be asked for a keyframe.
    Delivered(usize, Option<Change>),
    /// The group has no subscriber here.
    NoSubscribers,
    /// Its writer has been replaced.
    StaleWriter,
    /// Its writer is of another world.
    WrongWorld,
    /// It completes a keyframe that is not kept.
    NoKeyframe,
    /// With it, the keyframe would exceed [`MAX_KEYFRAME_BYTES`].
    TooLarge,
}

impl<L: Subscriber> Group<L> {
    fn new(world: WorldId) -> Self {
        Self {
            world,
            epoch: Epoch::default(),
            keyframe: Vec::new(),
            keyframe_bytes: 0,
            deltas: Vec::new(),
            delta_bytes: 0,
            deltas_since_request: DELTAS_PER_REQUEST,
            subscribers: Vec::new(),
        }
    }

    fn discard_kept(&mut self) {
        self.keyframe.clear();
        self.keyframe_bytes = 0;
        self.deltas.clear();
        self.delta_bytes = 0;
    }

    /// Keeps a delta for later subscribers. Returns true when the owner has to be asked for a keyframe.
    fn store_delta(&mut self, message: &Bytes) -> bool {
        self.deltas_since_request += 1;
        let wanted = if self.keyframe.is_empty() {
            // Later subscribers cannot use a delta without its keyframe.
            true
        } else {
            self.delta_bytes += message.len();
            self.deltas.push(message.clone());
            let (count, bytes) = (self.deltas.len(), self.delta_bytes);
            if count >= 2 * DELTAS || bytes >= 2 * DELTA_BYTES {
                self.discard_kept();
            }
            count >= DELTAS || bytes >= DELTA_BYTES
        };
        let ask = wanted && self.deltas_since_request >= DELTAS_PER_REQUEST;
        if ask {
            self.deltas_since_request = 0;
        }
        ask
    }

    fn send_kept(&self, key: GroupKey, subscriber: &L) {
        let Some((keyframe, parts)) = self.keyframe.split_first() else { return };
        subscriber.keyframe(key, keyframe);
        parts.iter().for_each(|part| subscriber.part(key, part));
        self.deltas.iter().for_each(|delta| subscriber.delta(key, delta));
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::*;

    const WORLD: WorldId = WorldId(1);

    #[derive(Clone)]
    struct TestSubscriber(SessionId, Rc<RefCell<String>>);

    impl TestSubscriber {
        fn new(number: u8) -> Self {
            Self(SessionId([number; 16]), Rc::default())
        }

        fn received(&self) -> String {
            self.1.take()
        }

        fn record(&self, message: &Bytes) {
            self.1.borrow_mut().push_str(std::str::from_utf8(message).unwrap());
        }
    }

    impl Subscriber for TestSubscriber {
        fn session(&self) -> SessionId {
            self.0
        }
        fn keyframe(&self, _: GroupKey, message: &Bytes) {
            self.record(message);
        }
        fn part(&self, _: GroupKey, message: &Bytes) {
            self.record(message);
        }
        fn delta(&self, _: GroupKey, message: &Bytes) {
            self.record(message);
        }
        fn event(&self, _: &str, message: &Bytes) {
            self.record(message);
        }
        fn set_pending(&self) -> bool {
            true
        }
        fn leave(&self, _: GroupKey) {
            self.1.borrow_mut().push('.');
        }
    }

    fn cell(number: u64) -> GroupKey {
        GroupKey::new(0x0200, 1, number)
    }

    fn publish(
        groups: &mut Groups<TestSubscriber>,
        epoch: u64,
        kind: PublishKind,
        text: &'static str,
    ) -> PublishOutcome {
        let message = Bytes::from_static(text.as_bytes());
        let (from, group) = ("zone-1", cell(1));
        let publish = Publish { from, world: WORLD, group, epoch: Epoch(epoch), kind, message: &message };
        groups.publish(&publish, &mut Vec::new())
    }

    #[test]
    fn late_subscriber_gets_keyframe_and_deltas_but_no_events() {
        let (mut groups, early, late) = (Groups::default(), TestSubscriber::new(1), TestSubscriber::new(2));
        assert_eq!(groups.subscribe(&early, WORLD, &[cell(1)], None), [Change::Watch(WORLD, cell(1))]);
        publish(&mut groups, 1, PublishKind::Keyframe, "K");
        publish(&mut groups, 1, PublishKind::Delta, "d");
        publish(&mut groups, 1, PublishKind::Event, "e");
        assert_eq!(early.received(), "Kde");
        assert!(groups.subscribe(&late, WORLD, &[cell(1)], None).is_empty());
        assert_eq!(late.received(), "Kd", "events are for those who were there");
        assert_eq!(publish(&mut groups, 1, PublishKind::Delta, "f"), PublishOutcome::Delivered(2, None));
        assert_eq!((early.received().as_str(), late.received().as_str()), ("f", "f"));
    }

    #[test]
    fn last_unsubscribe_ends_the_watch() {
        let (mut groups, one, two) = (Groups::default(), TestSubscriber::new(1), TestSubscriber::new(2));
        groups.subscribe(&one, WORLD, &[cell(1), cell(2)], None);
        groups.subscribe(&two, WORLD, &[cell(1)], None);
        assert_eq!(groups.leave(one.0, None), [Change::Unwatch(WORLD, cell(2))]);
        assert_eq!(groups.unsubscribe(two.0, &[cell(1), cell(9)]), [Change::Unwatch(WORLD, cell(1))]);
        assert_eq!((groups.len(), groups.by_session.len()), (0, 0));
        assert_eq!(publish(&mut groups, 1, PublishKind::Event, "e"), PublishOutcome::NoSubscribers);
    }

    #[test]
    fn subscribe_with_replace_keeps_common_groups() {
        let (mut groups, subscriber) = (Groups::default(), TestSubscriber::new(1));
        let channel = GroupKey::new(0x0300, 1, 1);
        groups.subscribe(&subscriber, WORLD, &[cell(1), cell(2), channel], None);
        let changes = groups.subscribe(&subscriber, WORLD, &[cell(2), cell(3)], Some(BackendKind::ZONE));
        assert_eq!(changes, [Change::Unwatch(WORLD, cell(1)), Change::Watch(WORLD, cell(3))]);
        assert_eq!(groups.subscribed_groups(subscriber.0).len(), 3);
        assert_eq!(
            groups.subscribe(&TestSubscriber::new(2), WORLD, &[cell(3)], None),
            [Change::Watch(WORLD, cell(3))]
        );
        groups.leave(SessionId([2; 16]), None);
        assert_eq!(groups.watched(BackendKind::CHAT, WORLD), [channel]);
        assert!(groups.watched(BackendKind::ZONE, WorldId(2)).is_empty());
        assert_eq!(groups.leave(subscriber.0, Some(BackendKind::CHAT)), [Change::Unwatch(WORLD, channel)]);
    }

    #[test]
    fn publish_from_stale_or_foreign_writer_is_rejected() {
        let (mut groups, subscriber, late) =
            (Groups::default(), TestSubscriber::new(1), TestSubscriber::new(2));
        groups.subscribe(&subscriber, WORLD, &[cell(1)], None);
        publish(&mut groups, 2, PublishKind::Keyframe, "K");
        assert_eq!(publish(&mut groups, 1, PublishKind::Keyframe, "x"), PublishOutcome::StaleWriter);
        let message = Bytes::from_static(b"x");
        let kind = PublishKind::Event;
        let (from, world, group) = ("zone-1", WorldId(2), cell(1));
        let foreign = Publish { from, world, group, epoch: Epoch(9), kind, message: &message };
        assert_eq!(groups.publish(&foreign, &mut Vec::new()), PublishOutcome::WrongWorld);
        publish(&mut groups, 3, PublishKind::Keyframe, "N");
        groups.subscribe(&late, WORLD, &[cell(1)], None);
        assert_eq!((subscriber.received().as_str(), late.received().as_str()), ("KN", "N"));
    }

    #[test]
    fn delta_overflow_requests_a_keyframe() {
        let (mut groups, subscriber) = (Groups::default(), TestSubscriber::new(1));
        groups.subscribe(&subscriber, WORLD, &[cell(1)], None);
        publish(&mut groups, 1, PublishKind::Keyframe, "K");
        let asked = (0..2 * DELTAS)
            .filter(|_| {
                matches!(
                    publish(&mut groups, 1, PublishKind::Delta, "d"),
                    PublishOutcome::Delivered(_, Some(_))
                )
            })
            .count();
        assert!((2..=5).contains(&asked), "asked {asked} times");
        assert!(groups.groups[&cell(1)].keyframe.is_empty(), "the kept deltas are too many to be sent");
        subscriber.received();
        assert_eq!(groups.resend(&subscriber, [cell(1)]), [Change::Watch(WORLD, cell(1))]);
        assert_eq!(subscriber.received(), "");
    }

    #[test]
    fn keyframe_in_parts_is_kept_and_asks_for_no_other() {
        let (mut groups, early, late) = (Groups::default(), TestSubscriber::new(1), TestSubscriber::new(2));
        groups.subscribe(&early, WORLD, &[cell(1)], None);
        publish(&mut groups, 1, PublishKind::Keyframe, "K");
        let part = Box::leak("p".repeat(60_000).into_boxed_str());
        for _ in 0..10 {
            let outcome = publish(&mut groups, 1, PublishKind::Part, part);
            assert_eq!(outcome, PublishOutcome::Delivered(1, None));
        }
        assert_eq!(publish(&mut groups, 1, PublishKind::Delta, "d"), PublishOutcome::Delivered(1, None));
        assert!(groups.subscribe(&late, WORLD, &[cell(1)], None).is_empty());
        let received = late.received();
        assert_eq!((received.len(), &received[..2], received.ends_with("pd")), (600_002, "Kp", true));
        let outcomes: Vec<_> = (0..10).map(|_| publish(&mut groups, 1, PublishKind::Part, part)).collect();
        assert!(
            outcomes.contains(&PublishOutcome::TooLarge) && outcomes.contains(&PublishOutcome::NoKeyframe)
        );
    }

    #[test]
    fn requests_for_keyframes_are_bounded_under_large_deltas() {
        let (mut groups, subscriber) = (Groups::default(), TestSubscriber::new(1));
        groups.subscribe(&subscriber, WORLD, &[cell(1)], None);
        let large = Box::leak("d".repeat(60_000).into_boxed_str());
        let mut asked = 0;
        for _ in 0..160 {
            // The owner answers each request at once.
            let outcome = publish(&mut groups, 1, PublishKind::Delta, large);
            if matches!(outcome, PublishOutcome::Delivered(_, Some(_))) {
                asked += 1;
                publish(&mut groups, 1, PublishKind::Keyframe, "K");
            }
        }
        assert_eq!(asked, 160 / DELTAS_PER_REQUEST);
    }
}
