//! The entry queue of a full world. A session keeps its place across reconnections, and across a restart of the
//! world, when gateways report the places of their sessions.

use std::collections::{BTreeMap, HashMap};

use shardkeep_types::SessionId;
use shardkeep_wire::payload::QueuePosition;

/// Waiting sessions, in order.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    order: BTreeMap<Ticket, SessionId>,
    tickets: HashMap<SessionId, Ticket>,
    /// The place that each session was told last.
    last_sent: HashMap<SessionId, u32>,
    issued: u64,
}

/// Reported places come before new sessions; each kind is sorted by arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Ticket {
    place: u32,
    number: u64,
}

impl Queue {
    /// Appends a session. A waiting session keeps its place and is told it again.
    pub(crate) fn join(&mut self, session: SessionId) {
        if self.tickets.contains_key(&session) {
            self.last_sent.remove(&session);
        } else {
            self.insert(session, u32::MAX);
        }
    }

    /// Restores a session's place from before the world restarted. `place` counts from 1.
    pub(crate) fn rejoin(&mut self, session: SessionId, place: u32) {
        if !self.tickets.contains_key(&session) {
            self.insert(session, place);
        }
    }

    fn insert(&mut self, session: SessionId, place: u32) {
        self.issued += 1;
        let ticket = Ticket { place, number: self.issued };
        self.order.insert(ticket, session);
        self.tickets.insert(session, ticket);
    }

    pub(crate) fn remove(&mut self, session: SessionId) -> bool {
        self.last_sent.remove(&session);
        match self.tickets.remove(&session) {
            Some(ticket) => self.order.remove(&ticket).is_some(),
            None => false,
        }
    }

    /// The sessions in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.order.values().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// The sessions whose place has changed since they were told, with the new place, from 1.
    pub(crate) fn changes(&mut self) -> Vec<(SessionId, QueuePosition)> {
        let length = u32::try_from(self.order.len()).unwrap_or(u32::MAX);
        let mut changes = Vec::new();
        for (place, &session) in (1..).zip(self.order.values()) {
            if self.last_sent.insert(session, place) != Some(place) {
                changes.push((session, QueuePosition { place, length }));
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(number: u8) -> SessionId {
        SessionId([number; 16])
    }

    fn places(queue: &mut Queue) -> Vec<(SessionId, u32)> {
        queue.changes().into_iter().map(|(session, told)| (session, told.place)).collect()
    }

    #[test]
    fn removal_moves_up_later_sessions_once() {
        let mut queue = Queue::default();
        (1..=3).for_each(|number| queue.join(session(number)));
        assert_eq!(places(&mut queue), [(session(1), 1), (session(2), 2), (session(3), 3)]);
        assert_eq!(places(&mut queue), []);
        assert!(queue.remove(session(1)));
        assert_eq!(places(&mut queue), [(session(2), 1), (session(3), 2)]);
        assert!(!queue.remove(session(1)));
    }

    #[test]
    fn repeated_join_keeps_place_and_reports_it_again() {
        let mut queue = Queue::default();
        (1..=3).for_each(|number| queue.join(session(number)));
        places(&mut queue);
        queue.join(session(2));
        assert_eq!(places(&mut queue), [(session(2), 2)]);
    }

    #[test]
    fn rejoined_places_precede_new_sessions() {
        let mut queue = Queue::default();
        queue.join(session(9));
        queue.rejoin(session(5), 2);
        queue.rejoin(session(4), 1);
        queue.rejoin(session(4), 7);
        assert_eq!(queue.iter().collect::<Vec<_>>(), [session(4), session(5), session(9)]);
        assert_eq!(queue.len(), 3);
    }
}
