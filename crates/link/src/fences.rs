//! Sessions on their way from one gateway to another. From the old gateway's `Fence` to the new gateway's `Lift`,
//! the hub keeps, in order, every message to the session and every event that is published. After that, messages
//! that the backend still addresses to the old gateway go to the new one.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    time::Duration,
};

use metrics::counter;
use shardkeep_types::{Epoch, GroupKey, SessionId};

use crate::{
    event::GatewayId,
    message::{BackendItem, MESSAGE_BYTES, MessageKind, ServerMessage},
    metrics::HELD_LOST,
};

/// Most bytes kept for one session, and for all. Overflow: the newest message is lost and counted in
/// `shardkeep_link_held_lost_total`.
const MAX_HELD_BYTES: usize = 512 << 10;
const MAX_TOTAL_HELD_BYTES: usize = 64 << 20;
/// Most bytes of events kept, once for all sessions. Overflow: the oldest event is lost, and counted for each
/// session that needed it when that session arrives or is given up.
const MAX_EVENT_BYTES: usize = 512 << 10;
/// After this time a fence is removed. Messages that no gateway has asked for are lost and counted.
pub(crate) const FENCE_LIFETIME: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(crate) struct Fences {
    by_session: HashMap<SessionId, Fence>,
    raised: u64,
    /// Number of fences whose session has not arrived, and the bytes kept for their sessions.
    holding: usize,
    held_bytes: usize,
    events: Events,
}

struct Fence {
    /// Distinguishes this fence from earlier and later ones of the session.
    number: u64,
    epoch: Epoch,
    /// Gateways to which the backend may still address messages.
    from: Vec<GatewayId>,
    stage: Stage,
}

enum Stage {
    Held(Held),
    Arrived(GatewayId),
}

/// The messages kept for one session, and the first of the events that it needs.
struct Held {
    first_event: u64,
    /// Each with the number of the event that was published next.
    items: Vec<(u64, BackendItem)>,
    bytes: usize,
}

/// Events that any fence still needs, stored once and in order. In a drain of ten thousand sessions an event then
/// costs no more than in one move.
#[derive(Default)]
struct Events {
    kept: VecDeque<(GroupKey, ServerMessage)>,
    bytes: usize,
    /// Number of the next event.
    next: u64,
}

/// Where a message to a session goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// To the gateway to which it is addressed.
    Direct,
    /// Nowhere yet; call [`Fences::hold`].
    Held,
    /// To this gateway, because the session has moved.
    Moved(GatewayId),
}

impl Fences {
    /// The session leaves its gateway. Returns the fence's number for [`Self::expire`].
    pub(crate) fn raise(&mut self, session: SessionId, epoch: Epoch, from: &GatewayId) -> u64 {
        self.raised += 1;
        let number = self.raised;
        let held = || Stage::Held(Held { first_event: self.events.next, items: Vec::new(), bytes: 0 });
        let fence = self.by_session.entry(session).or_insert_with(|| {
            self.holding += 1;
            Fence { number, epoch, from: Vec::with_capacity(1), stage: held() }
        });
        (fence.number, fence.epoch) = (number, epoch);
        if !fence.from.contains(from) {
            fence.from.push(from.clone());
        }
        // Messages that are held already stay: they never reached the gateway that leaves now.
        if matches!(fence.stage, Stage::Arrived(_)) {
            fence.stage = held();
            self.holding += 1;
        }
        number
    }

    pub(crate) fn destination(&self, session: SessionId, gateway: &GatewayId) -> Destination {
        match self.by_session.get(&session) {
            None => Destination::Direct,
            Some(Fence { stage: Stage::Held(_), .. }) => Destination::Held,
            Some(Fence { stage: Stage::Arrived(to), from, .. }) if from.contains(gateway) => {
                Destination::Moved(to.clone())
            }
            Some(_) => Destination::Direct,
        }
    }

    /// Keeps a message to a session whose destination is [`Destination::Held`].
    pub(crate) fn hold(&mut self, session: SessionId, item: BackendItem) {
        let Some(Fence { stage: Stage::Held(held), .. }) = self.by_session.get_mut(&session) else { return };
        let more = item.bytes();
        if held.bytes + more > MAX_HELD_BYTES || self.held_bytes + more > MAX_TOTAL_HELD_BYTES {
            return counter!(HELD_LOST).increment(1);
        }
        held.bytes += more;
        self.held_bytes += more;
        held.items.push((self.events.next, item));
    }

    /// Keeps messages without state: the backend sends state anew to a gateway that announces a session.
    pub(crate) fn hold_messages(&mut self, session: SessionId, messages: &[ServerMessage]) {
        let messages: Vec<_> =
            messages.iter().filter(|message| message.kind != MessageKind::State).cloned().collect();
        if !messages.is_empty() {
            self.hold(session, BackendItem::Send { sessions: vec![session], messages });
        }
    }

    /// Keeps an event for every session that moves. The next gateway knows whether the session subscribes to the
    /// group.
    pub(crate) fn hold_event(&mut self, group: GroupKey, message: &ServerMessage) {
        if self.holding > 0 {
            self.events.push(group, message.clone());
        }
    }

    /// A gateway announces the session with this epoch: returns what was kept for it. Returns nothing to the gateway
    /// that the session leaves.
    pub(crate) fn lift(&mut self, session: SessionId, epoch: Epoch, to: &GatewayId) -> Vec<BackendItem> {
        let Some(fence) = self.by_session.get_mut(&session).filter(|fence| epoch > fence.epoch) else {
            return Vec::new();
        };
        fence.epoch = epoch;
        fence.from.retain(|gateway| gateway != to);
        match mem::replace(&mut fence.stage, Stage::Arrived(to.clone())) {
            Stage::Held(held) => {
                counter!(HELD_LOST).increment(self.events.lost_since(held.first_event));
                self.release(&held);
                let released = self.events.interleave(session, held);
                self.discard_unneeded_events();
                released
            }
            Stage::Arrived(_) => Vec::new(),
        }
    }

    /// Removes a fence that was raised [`FENCE_LIFETIME`] ago.
    pub(crate) fn expire(&mut self, session: SessionId, number: u64) {
        if self.by_session.get(&session).is_some_and(|fence| fence.number == number) {
            self.forget(session);
        }
    }

    /// The session has ended, or no gateway has announced it in time.
    pub(crate) fn forget(&mut self, session: SessionId) {
        if let Some(Fence { stage: Stage::Held(held), .. }) = self.by_session.remove(&session) {
            counter!(HELD_LOST).increment(held.items.len() as u64 + self.events.next - held.first_event);
            self.release(&held);
            self.discard_unneeded_events();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_session.is_empty()
    }

    fn release(&mut self, held: &Held) {
        self.holding -= 1;
        self.held_bytes -= held.bytes;
    }

    /// Drops the events if no fence needs them.
    fn discard_unneeded_events(&mut self) {
        if self.holding == 0 {
            self.events.kept = VecDeque::new();
            self.events.bytes = 0;
        }
    }
}

impl Events {
    fn push(&mut self, group: GroupKey, message: ServerMessage) {
        self.bytes += bytes(&message);
        self.kept.push_back((group, message));
        self.next += 1;
        while self.bytes > MAX_EVENT_BYTES
            && let Some((_, oldest)) = self.kept.pop_front()
        {
            self.bytes -= bytes(&oldest);
        }
    }

    /// Number of the oldest event that is kept.
    fn first(&self) -> u64 {
        self.next - self.kept.len() as u64
    }

    fn lost_since(&self, number: u64) -> u64 {
        self.first().saturating_sub(number)
    }

    /// A session's messages and the events that it needs, in the order in which they came.
    fn interleave(&self, session: SessionId, held: Held) -> Vec<BackendItem> {
        let first = self.first().max(held.first_event);
        let skipped = usize::try_from(first - self.first()).unwrap_or(usize::MAX);
        let mut events = self.kept.iter().skip(skipped).zip(first..).peekable();
        let missed = |(group, message): &(GroupKey, ServerMessage)| BackendItem::Missed {
            session,
            group: *group,
            message: message.clone(),
        };
        let mut released =
            Vec::with_capacity(held.items.len() + self.kept.len() - skipped.min(self.kept.len()));
        for (before, item) in held.items {
            while let Some((event, _)) = events.next_if(|(_, number)| *number < before) {
                released.push(missed(event));
            }
            released.push(item);
        }
        released.extend(events.map(|(event, _)| missed(event)));
        released
    }
}

/// Bytes that an event takes while it is kept.
fn bytes(message: &ServerMessage) -> usize {
    MESSAGE_BYTES + message.payload.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId([1; 16]);
    const OTHER_SESSION: SessionId = SessionId([2; 16]);

    fn gateway_id(name: &str) -> GatewayId {
        name.into()
    }

    fn event(text: &'static str) -> ServerMessage {
        ServerMessage::event(0x1040, text)
    }

    fn group() -> GroupKey {
        GroupKey::new(0x0300, 1, 1)
    }

    fn texts(items: Vec<BackendItem>) -> Vec<String> {
        let text = |item| match item {
            BackendItem::Send { messages, .. } => messages[0].payload.clone(),
            BackendItem::Missed { message, .. } => message.payload,
            other => panic!("{other:?}"),
        };
        items.into_iter().map(|item| String::from_utf8(text(item).to_vec()).unwrap()).collect()
    }

    #[test]
    fn held_items_keep_order_and_are_released_once() {
        let mut fences = Fences::default();
        assert_eq!(fences.destination(SESSION, &gateway_id("a")), Destination::Direct);
        fences.raise(SESSION, Epoch(1), &gateway_id("a"));
        assert_eq!(
            (fences.destination(SESSION, &gateway_id("a")), fences.destination(SESSION, &gateway_id("b"))),
            (Destination::Held, Destination::Held)
        );
        assert_eq!(fences.destination(OTHER_SESSION, &gateway_id("a")), Destination::Direct);
        fences.hold_messages(SESSION, &[event("one"), ServerMessage::state(1, 0, 0, "state")]);
        fences.hold_messages(SESSION, &[ServerMessage::state(1, 0, 0, "only state")]);
        fences.hold_event(group(), &event("two"));
        fences.hold_messages(SESSION, &[event("three")]);
        assert!(
            fences.lift(SESSION, Epoch(1), &gateway_id("a")).is_empty(),
            "the one that leaves says where it was"
        );
        assert_eq!(texts(fences.lift(SESSION, Epoch(2), &gateway_id("b"))), ["one", "two", "three"]);
        assert!(fences.lift(SESSION, Epoch(2), &gateway_id("b")).is_empty());
        assert_eq!(
            fences.destination(SESSION, &gateway_id("a")),
            Destination::Moved(gateway_id("b")),
            "the backend has not listened yet"
        );
        assert_eq!(fences.destination(SESSION, &gateway_id("b")), Destination::Direct);
        fences.hold_event(group(), &event("four"));
        fences.raise(SESSION, Epoch(2), &gateway_id("b"));
        assert!(fences.lift(SESSION, Epoch(3), &gateway_id("a")).is_empty());
        assert_eq!(fences.destination(SESSION, &gateway_id("b")), Destination::Moved(gateway_id("a")));
        assert_eq!(fences.destination(SESSION, &gateway_id("a")), Destination::Direct);
    }

    #[test]
    fn items_for_gateway_two_moves_back_are_redirected() {
        let mut fences = Fences::default();
        fences.raise(SESSION, Epoch(1), &gateway_id("a"));
        fences.lift(SESSION, Epoch(2), &gateway_id("b"));
        fences.raise(SESSION, Epoch(2), &gateway_id("b"));
        fences.hold_messages(SESSION, &[event("one")]);
        fences.raise(SESSION, Epoch(2), &gateway_id("b"));
        assert_eq!(
            texts(fences.lift(SESSION, Epoch(3), &gateway_id("c"))),
            ["one"],
            "said again, it is the same fence"
        );
        assert_eq!(fences.destination(SESSION, &gateway_id("a")), Destination::Moved(gateway_id("c")));
    }

    #[test]
    fn held_items_are_bounded_and_expire() {
        let mut fences = Fences::default();
        let first = fences.raise(SESSION, Epoch(1), &gateway_id("a"));
        let second = fences.raise(SESSION, Epoch(1), &gateway_id("a"));
        fences.expire(SESSION, first);
        assert_eq!(
            fences.destination(SESSION, &gateway_id("a")),
            Destination::Held,
            "a later fence has its own time"
        );
        let large = ServerMessage::event(1, vec![0; 100_000]);
        for _ in 0..10 {
            fences.hold_messages(SESSION, std::slice::from_ref(&large));
        }
        assert!(matches!(&fences.by_session[&SESSION].stage, Stage::Held(held) if held.items.len() == 5));
        fences.expire(SESSION, second);
        assert!(fences.is_empty());
        assert_eq!((fences.holding, fences.held_bytes), (0, 0));
    }

    fn number(count: u32) -> SessionId {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&count.to_le_bytes());
        SessionId(id)
    }

    #[test]
    fn event_is_stored_once_for_all_moving_sessions() {
        let mut fences = Fences::default();
        for count in 0..1_000 {
            fences.raise(number(count), Epoch(1), &gateway_id("a"));
            fences.hold_event(group(), &event("event"));
            fences.hold_messages(number(count), &[event("mine")]);
        }
        assert_eq!((fences.events.kept.len(), fences.events.next), (1_000, 1_000));
        for count in 0..1_000 {
            let released = texts(fences.lift(number(count), Epoch(2), &gateway_id("b")));
            let after = 999 - count as usize;
            assert_eq!(released, [&["event", "mine"], &vec!["event"; after][..]].concat());
        }
        assert_eq!((fences.events.kept.len(), fences.held_bytes), (0, 0), "nobody waits for them");
        fences.hold_event(group(), &event("nobody moves"));
        assert!(fences.events.kept.is_empty());
    }

    #[test]
    fn event_buffer_over_limit_drops_oldest() {
        let mut fences = Fences::default();
        fences.raise(SESSION, Epoch(1), &gateway_id("a"));
        fences.hold_messages(SESSION, &[event("before")]);
        let large = ServerMessage::event(1, vec![b'x'; 100_000]);
        for _ in 0..10 {
            fences.hold_event(group(), &large);
        }
        fences.raise(OTHER_SESSION, Epoch(1), &gateway_id("a"));
        fences.hold_event(group(), &event("last"));
        assert!(fences.events.bytes <= MAX_EVENT_BYTES);
        assert_eq!(fences.events.lost_since(0), 5);
        assert_eq!(
            texts(fences.lift(OTHER_SESSION, Epoch(2), &gateway_id("b"))),
            ["last"],
            "it missed nothing before"
        );
        let released = texts(fences.lift(SESSION, Epoch(2), &gateway_id("b")));
        assert_eq!((released.len(), released[0].as_str(), released[6].as_str()), (7, "before", "last"));
        let one = ServerMessage::event(1, vec![b'x'; 2 * MAX_EVENT_BYTES]);
        fences.raise(SESSION, Epoch(2), &gateway_id("b"));
        fences.hold_event(group(), &one);
        assert!(fences.events.kept.is_empty(), "larger than everything");
        assert!(fences.lift(SESSION, Epoch(3), &gateway_id("c")).is_empty());
    }

    #[test]
    fn total_held_bytes_are_bounded() {
        let mut fences = Fences::default();
        let large = ServerMessage::event(1, vec![0; 250_000]);
        for count in 0..300 {
            fences.raise(number(count), Epoch(1), &gateway_id("a"));
            fences.hold_messages(number(count), std::slice::from_ref(&large));
        }
        assert!(fences.held_bytes <= MAX_TOTAL_HELD_BYTES);
        let held: usize =
            (0..300).map(|count| fences.lift(number(count), Epoch(2), &gateway_id("b")).len()).sum();
        assert_eq!(held, 268);
        assert_eq!(fences.held_bytes, 0);
    }
}
