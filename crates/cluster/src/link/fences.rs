//! Sessions on their way from one gateway to another. From the old gateway's `Fence` to the new one's `Lift`, what the
//! backend says to the session and every event that it publishes is kept, in order, for the new one. For a while after
//! that, what the backend still addresses to the old gateway goes to the new one.

use std::{collections::HashMap, mem, time::Duration};

use metrics::counter;
use shardkeep_types::{Epoch, GroupKey, SessionId};

use super::{
    event::GatewayId,
    message::{BackendItem, MessageKind, ServerMessage},
    metrics::HELD_LOST,
};

/// Bound of what is kept for one session; overflow: the newest is lost, counted in `shardkeep_link_held_lost_total`.
const HELD_BYTES: usize = 512 << 10;
/// What no gateway has asked for by then is lost and counted; and a backend that still addresses a session's old gateway
/// after that has not listened.
pub(crate) const LIFE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(crate) struct Fences {
    by_session: HashMap<SessionId, Fence>,
    raised: u64,
}

struct Fence {
    /// Tells this one from those before and after.
    number: u64,
    epoch: Epoch,
    /// Gateways that the backend may still take for the session's.
    from: Vec<GatewayId>,
    stage: Stage,
}

enum Stage {
    Held { items: Vec<BackendItem>, bytes: usize },
    Arrived(GatewayId),
}

/// Where something goes that the backend says to a session.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Where it is addressed to.
    Straight,
    /// Nowhere yet: see [`Fences::hold`].
    Held,
    /// The session has moved.
    To(GatewayId),
}

impl Fences {
    /// The session leaves its gateway. Returns the fence's number, for [`Self::expire`].
    pub(crate) fn raise(&mut self, session: SessionId, epoch: Epoch, from: &GatewayId) -> u64 {
        self.raised += 1;
        let number = self.raised;
        let fence = self.by_session.entry(session).or_insert_with(|| Fence {
            number,
            epoch,
            from: Vec::with_capacity(1),
            stage: Stage::Held { items: Vec::new(), bytes: 0 },
        });
        (fence.number, fence.epoch) = (number, epoch);
        if !fence.from.contains(from) {
            fence.from.push(from.clone());
        }
        // What is held already stays: it never reached the gateway that leaves now.
        if matches!(fence.stage, Stage::Arrived(_)) {
            fence.stage = Stage::Held { items: Vec::new(), bytes: 0 };
        }
        number
    }

    pub(crate) fn way(&self, session: SessionId, gateway: &GatewayId) -> Way {
        match self.by_session.get(&session) {
            None => Way::Straight,
            Some(Fence { stage: Stage::Held { .. }, .. }) => Way::Held,
            Some(Fence { stage: Stage::Arrived(to), from, .. }) if from.contains(gateway) => {
                Way::To(to.clone())
            }
            Some(_) => Way::Straight,
        }
    }

    /// Keeps what is said to a session whose way is [`Way::Held`].
    pub(crate) fn hold(&mut self, session: SessionId, item: BackendItem) {
        if let Some(fence) = self.by_session.get_mut(&session) {
            fence.hold(item);
        }
    }

    /// The same for messages. State is left out: a gateway that announces a session is told it anew.
    pub(crate) fn hold_messages(&mut self, session: SessionId, messages: &[ServerMessage]) {
        let messages: Vec<_> =
            messages.iter().filter(|message| message.kind != MessageKind::State).cloned().collect();
        if !messages.is_empty() {
            self.hold(session, BackendItem::Send { sessions: vec![session], messages });
        }
    }

    /// Keeps an event for every session that moves. Its next gateway knows whether it hears the group.
    pub(crate) fn hold_event(&mut self, group: GroupKey, message: &ServerMessage) {
        for (&session, fence) in &mut self.by_session {
            if matches!(fence.stage, Stage::Held { .. }) {
                fence.hold(BackendItem::Missed { session, group, message: message.clone() });
            }
        }
    }

    /// A gateway speaks for the session with this epoch: what is to be said to it. Nothing if it is the one that leaves.
    pub(crate) fn lift(&mut self, session: SessionId, epoch: Epoch, to: &GatewayId) -> Vec<BackendItem> {
        let Some(fence) = self.by_session.get_mut(&session).filter(|fence| epoch > fence.epoch) else {
            return Vec::new();
        };
        fence.epoch = epoch;
        fence.from.retain(|gateway| gateway != to);
        match mem::replace(&mut fence.stage, Stage::Arrived(to.clone())) {
            Stage::Held { items, .. } => items,
            Stage::Arrived(_) => Vec::new(),
        }
    }

    /// [`LIFE`] after it was raised, a fence is forgotten.
    pub(crate) fn expire(&mut self, session: SessionId, number: u64) {
        if self.by_session.get(&session).is_some_and(|fence| fence.number == number) {
            self.forget(session);
        }
    }

    /// The session is over, or nobody has taken it.
    pub(crate) fn forget(&mut self, session: SessionId) {
        if let Some(Fence { stage: Stage::Held { items, .. }, .. }) = self.by_session.remove(&session) {
            counter!(HELD_LOST).increment(items.len() as u64);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_session.is_empty()
    }
}

impl Fence {
    fn hold(&mut self, item: BackendItem) {
        let Stage::Held { items, bytes } = &mut self.stage else { return };
        let more = item.bytes();
        if *bytes + more > HELD_BYTES {
            return counter!(HELD_LOST).increment(1);
        }
        *bytes += more;
        items.push(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: SessionId = SessionId([1; 16]);
    const OTHER: SessionId = SessionId([2; 16]);

    fn gate(name: &str) -> GatewayId {
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
    fn what_is_said_meanwhile_is_kept_in_order_and_given_once() {
        let mut fences = Fences::default();
        assert_eq!(fences.way(ME, &gate("a")), Way::Straight);
        fences.raise(ME, Epoch(1), &gate("a"));
        assert_eq!((fences.way(ME, &gate("a")), fences.way(ME, &gate("b"))), (Way::Held, Way::Held));
        assert_eq!(fences.way(OTHER, &gate("a")), Way::Straight);
        fences.hold_messages(ME, &[event("one"), ServerMessage::state(1, 0, 0, "state")]);
        fences.hold_messages(ME, &[ServerMessage::state(1, 0, 0, "only state")]);
        fences.hold_event(group(), &event("two"));
        fences.hold_messages(ME, &[event("three")]);
        assert!(fences.lift(ME, Epoch(1), &gate("a")).is_empty(), "the one that leaves says where it was");
        assert_eq!(texts(fences.lift(ME, Epoch(2), &gate("b"))), ["one", "two", "three"]);
        assert!(fences.lift(ME, Epoch(2), &gate("b")).is_empty());
        assert_eq!(fences.way(ME, &gate("a")), Way::To(gate("b")), "the backend has not listened yet");
        assert_eq!(fences.way(ME, &gate("b")), Way::Straight);
        fences.hold_event(group(), &event("four"));
        fences.raise(ME, Epoch(2), &gate("b"));
        assert!(fences.lift(ME, Epoch(3), &gate("a")).is_empty());
        assert_eq!(fences.way(ME, &gate("b")), Way::To(gate("a")));
        assert_eq!(fences.way(ME, &gate("a")), Way::Straight);
    }

    #[test]
    fn who_lags_two_moves_behind_is_led_on() {
        let mut fences = Fences::default();
        fences.raise(ME, Epoch(1), &gate("a"));
        fences.lift(ME, Epoch(2), &gate("b"));
        fences.raise(ME, Epoch(2), &gate("b"));
        fences.hold_messages(ME, &[event("one")]);
        fences.raise(ME, Epoch(2), &gate("b"));
        assert_eq!(texts(fences.lift(ME, Epoch(3), &gate("c"))), ["one"], "said again, it is the same fence");
        assert_eq!(fences.way(ME, &gate("a")), Way::To(gate("c")));
    }

    #[test]
    fn nothing_is_kept_for_ever_and_not_without_bound() {
        let mut fences = Fences::default();
        let first = fences.raise(ME, Epoch(1), &gate("a"));
        let second = fences.raise(ME, Epoch(1), &gate("a"));
        fences.expire(ME, first);
        assert_eq!(fences.way(ME, &gate("a")), Way::Held, "a later fence has its own time");
        let large = ServerMessage::event(1, vec![0; 100_000]);
        for _ in 0..10 {
            fences.hold_messages(ME, std::slice::from_ref(&large));
        }
        assert!(matches!(&fences.by_session[&ME].stage, Stage::Held { items, .. } if items.len() == 5));
        fences.expire(ME, second);
        assert!(fences.is_empty());
    }
}
