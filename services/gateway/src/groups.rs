//! Groups: who listens to what, and what a newcomer must be told first. A published message is encoded once and
//! appended to each subscriber; the last keyframe and the deltas since are kept for those who come later.
//!
//! Pure: subscribers are behind [`Listener`], and what has to be said to backends is returned.

use std::collections::HashMap;

use bytes::Bytes;
use shardkeep_cluster::link::PublishKind;
use shardkeep_types::{BackendKind, Epoch, GroupKey, SessionId, WorldId};

/// Bound of the deltas kept per group; beyond it the owner is asked for a keyframe, at twice it they are dropped.
const DELTAS: usize = 64;
const DELTA_BYTES: usize = 64 << 10;

/// A session as groups see it. Called under the table's lock: must only append.
pub(crate) trait Listener: Clone {
    fn session(&self) -> SessionId;
    fn keyframe(&self, group: GroupKey, message: &Bytes);
    fn delta(&self, group: GroupKey, message: &Bytes);
    /// `from` is the instance that published it.
    fn event(&self, from: &str, message: &Bytes);
    /// Notes that something was appended; true the first time since it was written.
    fn touch(&self) -> bool;
    /// The session hears the group no more.
    fn leave(&self, group: GroupKey);
}

/// What backends have to be told after a change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The first subscriber came, or a keyframe is needed.
    Watch(WorldId, GroupKey),
    /// The last one went.
    Unwatch(WorldId, GroupKey),
}

/// One message to a group, encoded.
pub(crate) struct Publish<'a> {
    /// The writer's instance name.
    pub(crate) from: &'a str,
    /// The writer's; 0 speaks in every world.
    pub(crate) world: WorldId,
    pub(crate) group: GroupKey,
    pub(crate) epoch: Epoch,
    pub(crate) what: PublishKind,
    pub(crate) message: &'a Bytes,
}

pub(crate) struct Groups<L> {
    groups: HashMap<GroupKey, Group<L>>,
    by_session: HashMap<SessionId, Vec<GroupKey>>,
}

struct Group<L> {
    world: WorldId,
    epoch: Epoch,
    keyframe: Option<Bytes>,
    deltas: Vec<Bytes>,
    delta_bytes: usize,
    subscribers: Vec<L>,
}

impl<L> Default for Groups<L> {
    fn default() -> Self {
        Self { groups: HashMap::new(), by_session: HashMap::new() }
    }
}

impl<L: Listener> Groups<L> {
    /// The session hears these groups from now on, beginning with what is kept of them; the owner of a group of
    /// which nothing is kept is asked for a keyframe. `replace` drops the session's other groups of the kind.
    pub(crate) fn subscribe(
        &mut self,
        listener: &L,
        world: WorldId,
        keys: &[GroupKey],
        replace: Option<BackendKind>,
    ) -> Vec<Change> {
        let session = listener.session();
        let mut changes = Vec::new();
        if let Some(kind) = replace {
            let others = self.of_session(session, |key| key.backend() == kind && !keys.contains(&key));
            changes.extend(self.unsubscribe(session, &others));
        }
        for &key in keys {
            let mine = self.by_session.entry(session).or_insert_with(|| Vec::with_capacity(keys.len()));
            if mine.contains(&key) {
                continue;
            }
            mine.push(key);
            let group = self.groups.entry(key).or_insert_with(|| Group::new(world));
            if group.keyframe.is_none() {
                changes.push(Change::Watch(group.world, key));
            }
            group.tell_all_kept(key, listener);
            group.subscribers.push(listener.clone());
        }
        changes
    }

    pub(crate) fn unsubscribe(&mut self, session: SessionId, keys: &[GroupKey]) -> Vec<Change> {
        let Some(mine) = self.by_session.get_mut(&session) else { return Vec::new() };
        let mut changes = Vec::new();
        for key in keys {
            let Some(at) = mine.iter().position(|other| other == key) else { continue };
            mine.swap_remove(at);
            let Some(group) = self.groups.get_mut(key) else { continue };
            if let Some(at) = group.subscribers.iter().position(|other| other.session() == session) {
                group.subscribers.swap_remove(at).leave(*key);
            }
            if group.subscribers.is_empty() {
                changes.push(Change::Unwatch(group.world, *key));
                self.groups.remove(key);
            }
        }
        if mine.is_empty() {
            self.by_session.remove(&session);
        }
        changes
    }

    /// The session is over, or (with a kind) has lost that backend.
    pub(crate) fn leave(&mut self, session: SessionId, kind: Option<BackendKind>) -> Vec<Change> {
        let all = self.of_session(session, |key| kind.is_none_or(|kind| key.backend() == kind));
        self.unsubscribe(session, &all)
    }

    /// Appends a message to each subscriber, and adds those that have to be woken for it.
    pub(crate) fn publish(&mut self, publish: &Publish<'_>, touched: &mut Vec<L>) -> Published {
        let Publish { from, world, group: key, epoch, what, message } = *publish;
        let Some(group) = self.groups.get_mut(&key) else { return Published::Unheard };
        if world != WorldId(0) && world != group.world {
            return Published::Foreign;
        }
        if !key.many_writer() {
            if epoch < group.epoch {
                return Published::Outdated;
            }
            if epoch > group.epoch {
                group.epoch = epoch;
                group.forget();
            }
        }
        match what {
            PublishKind::Keyframe => {
                group.forget();
                group.keyframe = Some(message.clone());
                group.subscribers.iter().for_each(|listener| listener.keyframe(key, message));
            }
            PublishKind::Delta => group.subscribers.iter().for_each(|listener| listener.delta(key, message)),
            PublishKind::Event => {
                group.subscribers.iter().for_each(|listener| listener.event(from, message));
            }
        }
        touched.extend(group.subscribers.iter().filter(|listener| listener.touch()).cloned());
        let watch = if what == PublishKind::Delta && group.keep(message) {
            Some(Change::Watch(group.world, key))
        } else {
            None
        };
        Published::To(group.subscribers.len(), watch)
    }

    /// Tells a session again what is kept of some of its groups, because it missed something; where nothing is kept,
    /// the owner is asked.
    pub(crate) fn tell_again(
        &mut self,
        listener: &L,
        keys: impl IntoIterator<Item = GroupKey>,
    ) -> Vec<Change> {
        let Some(mine) = self.by_session.get(&listener.session()) else { return Vec::new() };
        let mut changes = Vec::new();
        for key in keys.into_iter().filter(|key| mine.contains(key)) {
            if let Some(group) = self.groups.get(&key) {
                group.tell_all_kept(key, listener);
                if group.keyframe.is_none() {
                    changes.push(Change::Watch(group.world, key));
                }
            }
        }
        changes
    }

    /// Every group of a session.
    pub(crate) fn heard_by(&self, session: SessionId) -> Vec<GroupKey> {
        self.by_session.get(&session).cloned().unwrap_or_default()
    }

    pub(crate) fn hears(&self, session: SessionId, key: GroupKey) -> bool {
        self.by_session.get(&session).is_some_and(|mine| mine.contains(&key))
    }

    /// Every group that backends of this kind and world must know to be watched.
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
        let mine = self.by_session.get(&session);
        mine.into_iter().flatten().copied().filter(|&key| wanted(key)).collect()
    }
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// Number of subscribers, and whether the owner must be asked for a keyframe.
    To(usize, Option<Change>),
    /// Nobody listens.
    Unheard,
    /// Its writer has been replaced.
    Outdated,
    /// Its writer is of another world.
    Foreign,
}

impl<L: Listener> Group<L> {
    fn new(world: WorldId) -> Self {
        Self {
            world,
            epoch: Epoch::default(),
            keyframe: None,
            deltas: Vec::new(),
            delta_bytes: 0,
            subscribers: Vec::new(),
        }
    }

    fn forget(&mut self) {
        self.keyframe = None;
        self.deltas.clear();
        self.delta_bytes = 0;
    }

    /// Keeps a delta for newcomers; true when a keyframe should take its place soon.
    fn keep(&mut self, message: &Bytes) -> bool {
        if self.keyframe.is_none() {
            // A delta without its keyframe is no use to a newcomer. Ask now and then, not for each.
            self.delta_bytes += 1;
            return self.delta_bytes % DELTAS == 1;
        }
        self.delta_bytes += message.len();
        self.deltas.push(message.clone());
        let (count, bytes) = (self.deltas.len(), self.delta_bytes);
        if count >= 2 * DELTAS || bytes >= 2 * DELTA_BYTES {
            self.forget();
            return true;
        }
        count == DELTAS || bytes >= DELTA_BYTES && bytes - message.len() < DELTA_BYTES
    }

    fn tell_all_kept(&self, key: GroupKey, listener: &L) {
        let Some(keyframe) = &self.keyframe else { return };
        listener.keyframe(key, keyframe);
        self.deltas.iter().for_each(|delta| listener.delta(key, delta));
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::*;

    const WORLD: WorldId = WorldId(1);

    #[derive(Clone)]
    struct Ear(SessionId, Rc<RefCell<String>>);

    impl Ear {
        fn new(number: u8) -> Self {
            Self(SessionId([number; 16]), Rc::default())
        }

        fn heard(&self) -> String {
            self.1.take()
        }

        fn hear(&self, message: &Bytes) {
            self.1.borrow_mut().push_str(std::str::from_utf8(message).unwrap());
        }
    }

    impl Listener for Ear {
        fn session(&self) -> SessionId {
            self.0
        }
        fn keyframe(&self, _: GroupKey, message: &Bytes) {
            self.hear(message);
        }
        fn delta(&self, _: GroupKey, message: &Bytes) {
            self.hear(message);
        }
        fn event(&self, _: &str, message: &Bytes) {
            self.hear(message);
        }
        fn touch(&self) -> bool {
            true
        }
        fn leave(&self, _: GroupKey) {
            self.1.borrow_mut().push('.');
        }
    }

    fn cell(number: u64) -> GroupKey {
        GroupKey::new(0x0200, 1, number)
    }

    fn publish(groups: &mut Groups<Ear>, epoch: u64, what: PublishKind, text: &'static str) -> Published {
        let message = Bytes::from_static(text.as_bytes());
        let (from, group) = ("zone-1", cell(1));
        let publish = Publish { from, world: WORLD, group, epoch: Epoch(epoch), what, message: &message };
        groups.publish(&publish, &mut Vec::new())
    }

    #[test]
    fn who_comes_late_sees_who_stands_still() {
        let (mut groups, early, late) = (Groups::default(), Ear::new(1), Ear::new(2));
        assert_eq!(groups.subscribe(&early, WORLD, &[cell(1)], None), [Change::Watch(WORLD, cell(1))]);
        publish(&mut groups, 1, PublishKind::Keyframe, "K");
        publish(&mut groups, 1, PublishKind::Delta, "d");
        publish(&mut groups, 1, PublishKind::Event, "e");
        assert_eq!(early.heard(), "Kde");
        assert!(groups.subscribe(&late, WORLD, &[cell(1)], None).is_empty());
        assert_eq!(late.heard(), "Kd", "events are for those who were there");
        assert_eq!(publish(&mut groups, 1, PublishKind::Delta, "f"), Published::To(2, None));
        assert_eq!((early.heard().as_str(), late.heard().as_str()), ("f", "f"));
    }

    #[test]
    fn the_last_one_out_ends_the_watch() {
        let (mut groups, one, two) = (Groups::default(), Ear::new(1), Ear::new(2));
        groups.subscribe(&one, WORLD, &[cell(1), cell(2)], None);
        groups.subscribe(&two, WORLD, &[cell(1)], None);
        assert_eq!(groups.leave(one.0, None), [Change::Unwatch(WORLD, cell(2))]);
        assert_eq!(groups.unsubscribe(two.0, &[cell(1), cell(9)]), [Change::Unwatch(WORLD, cell(1))]);
        assert_eq!((groups.len(), groups.by_session.len()), (0, 0));
        assert_eq!(publish(&mut groups, 1, PublishKind::Event, "e"), Published::Unheard);
    }

    #[test]
    fn replacing_keeps_what_stays() {
        let (mut groups, ear) = (Groups::default(), Ear::new(1));
        let channel = GroupKey::new(0x0300, 1, 1);
        groups.subscribe(&ear, WORLD, &[cell(1), cell(2), channel], None);
        let changes = groups.subscribe(&ear, WORLD, &[cell(2), cell(3)], Some(BackendKind::ZONE));
        assert_eq!(changes, [Change::Unwatch(WORLD, cell(1)), Change::Watch(WORLD, cell(3))]);
        assert_eq!(groups.heard_by(ear.0).len(), 3);
        assert_eq!(groups.subscribe(&Ear::new(2), WORLD, &[cell(3)], None), [Change::Watch(WORLD, cell(3))]);
        groups.leave(SessionId([2; 16]), None);
        assert_eq!(groups.watched(BackendKind::CHAT, WORLD), [channel]);
        assert!(groups.watched(BackendKind::ZONE, WorldId(2)).is_empty());
        assert_eq!(groups.leave(ear.0, Some(BackendKind::CHAT)), [Change::Unwatch(WORLD, channel)]);
    }

    #[test]
    fn a_replaced_writer_is_not_heard() {
        let (mut groups, ear, late) = (Groups::default(), Ear::new(1), Ear::new(2));
        groups.subscribe(&ear, WORLD, &[cell(1)], None);
        publish(&mut groups, 2, PublishKind::Keyframe, "K");
        assert_eq!(publish(&mut groups, 1, PublishKind::Keyframe, "x"), Published::Outdated);
        let message = Bytes::from_static(b"x");
        let what = PublishKind::Event;
        let (from, world, group) = ("zone-1", WorldId(2), cell(1));
        let elsewhere = Publish { from, world, group, epoch: Epoch(9), what, message: &message };
        assert_eq!(groups.publish(&elsewhere, &mut Vec::new()), Published::Foreign);
        publish(&mut groups, 3, PublishKind::Keyframe, "N");
        groups.subscribe(&late, WORLD, &[cell(1)], None);
        assert_eq!((ear.heard().as_str(), late.heard().as_str()), ("KN", "N"));
    }

    #[test]
    fn many_deltas_call_for_a_keyframe() {
        let (mut groups, ear) = (Groups::default(), Ear::new(1));
        groups.subscribe(&ear, WORLD, &[cell(1)], None);
        publish(&mut groups, 1, PublishKind::Keyframe, "K");
        let asked = (0..2 * DELTAS)
            .filter(|_| matches!(publish(&mut groups, 1, PublishKind::Delta, "d"), Published::To(_, Some(_))))
            .count();
        assert_eq!(asked, 2);
        assert!(groups.groups[&cell(1)].keyframe.is_none(), "too old to be worth telling");
        ear.heard();
        assert_eq!(groups.tell_again(&ear, [cell(1)]), [Change::Watch(WORLD, cell(1))]);
        assert_eq!(ear.heard(), "");
    }
}
