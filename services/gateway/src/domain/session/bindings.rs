//! The instance of each kind of backend that a session's messages go to. A bind is a barrier: the client's messages are
//! held until the new instance answers, so that exactly one instance gets each message once.

use std::{collections::VecDeque, sync::Arc};

use shardkeep_link::{ClientMessage, MessageKind};
use shardkeep_types::{BackendKind, Epoch};

/// Most messages and bytes held per kind. Overflow: requests are refused, other messages are dropped.
const MAX_HELD: usize = 256;
const MAX_HELD_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Binding {
    kind: BackendKind,
    instance: Arc<str>,
    epoch: Epoch,
    /// Messages that wait for the barrier; `None`: the barrier is open. Boxed, because the barrier is open most of
    /// the time.
    held: Option<Box<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    messages: VecDeque<ClientMessage>,
    bytes: usize,
}

/// The backend that asks for a bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BindRequester<'a> {
    /// An instance of the same kind.
    Peer(&'a str),
    /// The session's world.
    World,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// The new instance has to be told.
    New,
    /// The session is already bound to this instance with this epoch, and the instance has answered.
    Same,
    /// The requester is not the owner, or a bind with a higher epoch came before.
    Refused,
}

/// Where messages to a kind of backend go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    To(&'a Arc<str>),
    /// The barrier is closed; call [`Bindings::hold`].
    Pending,
    Unbound,
}

#[derive(Debug, Default)]
pub(crate) struct Bindings(Vec<Binding>);

impl Bindings {
    pub(crate) fn get(&self, kind: BackendKind) -> Option<&Binding> {
        self.0.iter().find(|binding| binding.kind == kind)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Binding> {
        self.0.iter()
    }

    pub(crate) fn is_bound_to(&self, kind: BackendKind, instance: &str) -> bool {
        self.get(kind).is_some_and(|binding| *binding.instance == *instance)
    }

    /// Binds the kind to an instance because a backend asks for it, and closes the barrier.
    pub(crate) fn bind(
        &mut self,
        by: BindRequester<'_>,
        kind: BackendKind,
        instance: &str,
        epoch: Epoch,
    ) -> Bound {
        let Some(binding) = self.0.iter_mut().find(|binding| binding.kind == kind) else {
            if by != BindRequester::World {
                return Bound::Refused;
            }
            self.set(kind, instance, epoch, true);
            return Bound::New;
        };
        if (&*binding.instance, binding.epoch) == (instance, epoch) {
            return if binding.held.is_some() { Bound::New } else { Bound::Same };
        }
        let owner = match by {
            BindRequester::World => true,
            BindRequester::Peer(name) => *binding.instance == *name,
        };
        if !owner || epoch <= binding.epoch {
            return Bound::Refused;
        }
        binding.instance = instance.into();
        binding.epoch = epoch;
        binding.held.get_or_insert_default();
        Bound::New
    }

    /// Binds the kind to an instance that the gateway chose: the world's leader, or a replica of an `auto_bind` kind.
    /// With `hold`, the barrier closes or stays closed; otherwise held messages are returned.
    pub(crate) fn set(
        &mut self,
        kind: BackendKind,
        instance: &str,
        epoch: Epoch,
        hold: bool,
    ) -> Vec<ClientMessage> {
        let mut held = self.remove(kind).and_then(|binding| binding.held);
        if hold {
            held.get_or_insert_default();
        }
        let released = if hold { None } else { held.take() };
        // A session has two or three bindings, and there are many sessions.
        self.0.reserve_exact(1);
        self.0.push(Binding { kind, instance: instance.into(), epoch, held });
        released.map(|held| held.messages.into()).unwrap_or_default()
    }

    pub(crate) fn remove(&mut self, kind: BackendKind) -> Option<Binding> {
        let at = self.0.iter().position(|binding| binding.kind == kind)?;
        Some(self.0.swap_remove(at))
    }

    /// The instance has answered: opens the barrier and returns the held messages. `None`: the answer is to an older
    /// bind, or the barrier is open already.
    pub(crate) fn ready(
        &mut self,
        kind: BackendKind,
        instance: &str,
        epoch: Epoch,
    ) -> Option<Vec<ClientMessage>> {
        let binding = self.0.iter_mut().find(|binding| binding.kind == kind)?;
        if (&*binding.instance, binding.epoch) != (instance, epoch) {
            return None;
        }
        Some(binding.held.take()?.messages.into())
    }

    pub(crate) fn target(&self, kind: BackendKind) -> Target<'_> {
        match self.get(kind) {
            Some(binding) if binding.is_pending() => Target::Pending,
            Some(binding) => Target::To(&binding.instance),
            None => Target::Unbound,
        }
    }

    /// Keeps a message until the instance answers.
    ///
    /// # Errors
    /// Gives the message back if too much is held already, or if the barrier is open.
    pub(crate) fn hold(&mut self, kind: BackendKind, message: ClientMessage) -> Result<(), ClientMessage> {
        let binding = self.0.iter_mut().find(|binding| binding.kind == kind);
        let Some(held) = binding.and_then(|binding| binding.held.as_mut()) else { return Err(message) };
        if message.kind == MessageKind::State
            && let Some(older) = held.messages.iter_mut().find(|older| older.opcode == message.opcode)
        {
            *older = message;
            return Ok(());
        }
        if held.messages.len() >= MAX_HELD || held.bytes + message.payload.len() > MAX_HELD_BYTES {
            return Err(message);
        }
        held.bytes += message.payload.len();
        held.messages.push_back(message);
        Ok(())
    }
}

impl Binding {
    pub(crate) fn kind(&self) -> BackendKind {
        self.kind
    }

    pub(crate) fn instance(&self) -> &Arc<str> {
        &self.instance
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether the instance has not answered yet.
    pub(crate) fn is_pending(&self) -> bool {
        self.held.is_some()
    }

    /// Messages of the client that wait for the answer of the instance.
    pub(crate) fn held(&self) -> impl Iterator<Item = &ClientMessage> {
        self.held.iter().flat_map(|held| &held.messages)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const ZONE: BackendKind = BackendKind::ZONE;

    fn message(opcode: u16, kind: MessageKind, request: u64) -> ClientMessage {
        ClientMessage { opcode, kind, request, payload: Bytes::from_static(b"x") }
    }

    fn request(number: u64) -> ClientMessage {
        message(0x1010, MessageKind::Request, number)
    }

    fn numbers(messages: Vec<ClientMessage>) -> Vec<u64> {
        messages.into_iter().map(|message| message.request).collect()
    }

    #[test]
    fn messages_are_held_until_ready_and_released_in_order() {
        let mut bindings = Bindings::default();
        assert_eq!(bindings.target(ZONE), Target::Unbound);
        bindings.hold(ZONE, request(1)).unwrap_err();
        assert_eq!(bindings.bind(BindRequester::World, ZONE, "zone-1", Epoch(1)), Bound::New);
        assert_eq!(bindings.target(ZONE), Target::Pending);
        bindings.hold(ZONE, request(2)).unwrap();
        bindings.hold(ZONE, request(3)).unwrap();
        assert_eq!(bindings.ready(ZONE, "zone-2", Epoch(1)).map(numbers), None);
        assert_eq!(bindings.ready(ZONE, "zone-1", Epoch(1)).map(numbers), Some(vec![2, 3]));
        assert_eq!(bindings.target(ZONE), Target::To(&"zone-1".into()));
        bindings.hold(ZONE, request(4)).unwrap_err();
    }

    #[test]
    fn bind_requires_owner_or_world_and_a_higher_epoch() {
        let mut bindings = Bindings::default();
        assert_eq!(bindings.bind(BindRequester::Peer("zone-1"), ZONE, "zone-1", Epoch(9)), Bound::Refused);
        bindings.bind(BindRequester::World, ZONE, "zone-1", Epoch(5));
        assert_eq!(bindings.bind(BindRequester::Peer("zone-2"), ZONE, "zone-2", Epoch(6)), Bound::Refused);
        assert_eq!(bindings.bind(BindRequester::Peer("zone-1"), ZONE, "zone-2", Epoch(6)), Bound::New);
        assert_eq!(
            bindings.bind(BindRequester::World, ZONE, "zone-1", Epoch(5)),
            Bound::Refused,
            "overtaken"
        );
        assert_eq!(
            bindings.bind(BindRequester::Peer("zone-2"), ZONE, "zone-2", Epoch(6)),
            Bound::New,
            "not ready yet"
        );
        bindings.ready(ZONE, "zone-2", Epoch(6));
        assert_eq!(bindings.bind(BindRequester::Peer("zone-2"), ZONE, "zone-2", Epoch(6)), Bound::Same);
        assert_eq!(bindings.bind(BindRequester::World, ZONE, "zone-3", Epoch(7)), Bound::New);
    }

    #[test]
    fn held_messages_follow_the_next_bind() {
        let mut bindings = Bindings::default();
        bindings.bind(BindRequester::World, ZONE, "zone-1", Epoch(1));
        bindings.hold(ZONE, request(1)).unwrap();
        bindings.bind(BindRequester::World, ZONE, "zone-2", Epoch(2));
        bindings.hold(ZONE, request(2)).unwrap();
        assert_eq!(bindings.ready(ZONE, "zone-2", Epoch(2)).map(numbers), Some(vec![1, 2]));
    }

    #[test]
    fn held_state_is_superseded_and_held_messages_are_bounded() {
        let mut bindings = Bindings::default();
        bindings.set(ZONE, "zone-1", Epoch(1), true);
        for number in 0..10 {
            bindings.hold(ZONE, message(0x1001, MessageKind::State, number)).unwrap();
        }
        for number in 0..MAX_HELD as u64 - 1 {
            bindings.hold(ZONE, request(number)).unwrap();
        }
        assert_eq!(bindings.hold(ZONE, request(999)), Err(request(999)));
        let released = bindings.set(ZONE, "zone-1", Epoch(1), false);
        assert_eq!((released.len(), released[0].request), (MAX_HELD, 9));
    }
}
