//! Tickets with which clients attach. Login admits them here. A ticket serves once, expires soon, and is void once its
//! account has a higher session generation.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::{Duration, Instant},
};

use shardkeep_auth::Key;
use shardkeep_types::{AccountId, Generation, TicketId, WorldId};

/// Most tickets. Overflow: admissions are refused, and login chooses another gateway.
const MAX_TICKETS: usize = 65_536;
/// How long a revocation is remembered, so that a ticket on its way here does not outlive it.
const REVOCATION_TTL: Duration = Duration::from_secs(120);

#[derive(Debug, Clone)]
pub(crate) struct Ticket {
    pub(crate) key: Key,
    pub(crate) account: AccountId,
    pub(crate) account_name: String,
    pub(crate) generation: Generation,
    pub(crate) world: WorldId,
    pub(crate) expires: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AdmitError {
    #[error("too many tickets wait already")]
    Full,
    #[error("a higher session generation of the account is known")]
    Outdated,
}

#[derive(Debug, Default)]
pub(crate) struct Tickets {
    waiting: HashMap<TicketId, TicketEntry>,
    /// Waiting tickets by account: every login voids the account's earlier tickets.
    by_account: HashMap<AccountId, Vec<TicketId>>,
    /// Lowest valid generation of accounts with a recent revocation.
    floors: HashMap<AccountId, (Generation, Instant)>,
}

#[derive(Debug)]
struct TicketEntry {
    ticket: Ticket,
    /// A client has proved it, and its session is being opened.
    in_use: bool,
}

impl TicketEntry {
    fn is_valid(&self, now: Instant) -> bool {
        !self.in_use && now < self.ticket.expires
    }
}

impl Tickets {
    pub(crate) fn admit(&mut self, id: TicketId, ticket: Ticket, now: Instant) -> Result<(), AdmitError> {
        if self.floors.get(&ticket.account).is_some_and(|(floor, _)| ticket.generation < *floor) {
            return Err(AdmitError::Outdated);
        }
        if self.waiting.len() >= MAX_TICKETS {
            self.expire(now);
            if self.waiting.len() >= MAX_TICKETS {
                return Err(AdmitError::Full);
            }
        }
        self.revoke(id);
        self.by_account.entry(ticket.account).or_insert_with(|| Vec::with_capacity(1)).push(id);
        self.waiting.insert(id, TicketEntry { ticket, in_use: false });
        Ok(())
    }

    /// Key of a ticket that is neither in use nor expired.
    pub(crate) fn key(&self, id: TicketId, now: Instant) -> Option<Key> {
        self.waiting.get(&id).filter(|entry| entry.is_valid(now)).map(|entry| entry.ticket.key.clone())
    }

    /// A client has proved the ticket; only one of several gets it. It stays listed until its session is listed, so
    /// that queries about the account do not miss it and a revocation finds it.
    pub(crate) fn reserve(&mut self, id: TicketId, now: Instant) -> Option<Ticket> {
        let entry = self.waiting.get_mut(&id).filter(|entry| entry.is_valid(now))?;
        entry.in_use = true;
        Some(entry.ticket.clone())
    }

    /// No session could be opened: the ticket may serve again.
    pub(crate) fn release(&mut self, id: TicketId) {
        if let Some(entry) = self.waiting.get_mut(&id) {
            entry.in_use = false;
        }
    }

    /// The ticket has become a session. Returns false if it was revoked meanwhile.
    #[must_use]
    pub(crate) fn consume(&mut self, id: TicketId) -> bool {
        self.take(id)
    }

    pub(crate) fn revoke(&mut self, id: TicketId) {
        self.take(id);
    }

    fn take(&mut self, id: TicketId) -> bool {
        let Some(TicketEntry { ticket, .. }) = self.waiting.remove(&id) else { return false };
        if let Entry::Occupied(mut account_tickets) = self.by_account.entry(ticket.account) {
            account_tickets.get_mut().retain(|other| *other != id);
            if account_tickets.get().is_empty() {
                account_tickets.remove();
            }
        }
        true
    }

    pub(crate) fn revoke_account(&mut self, account: AccountId, below: Generation, now: Instant) {
        let old = |id: &&TicketId| self.waiting.get(id).is_some_and(|it| it.ticket.generation < below);
        let old: Vec<_> = self.by_account.get(&account).into_iter().flatten().filter(old).copied().collect();
        old.into_iter().for_each(|id| self.revoke(id));
        let floor = self.floors.entry(account).or_insert((below, now));
        // Revocations come by two ways, and an older one may come last.
        *floor = (floor.0.max(below), now + REVOCATION_TTL);
    }

    /// Generations of the account's tickets that wait for their client.
    pub(crate) fn of_account(&self, account: AccountId, now: Instant) -> Vec<Generation> {
        let account_tickets =
            self.by_account.get(&account).into_iter().flatten().filter_map(|id| self.waiting.get(id));
        let counts = |entry: &&TicketEntry| entry.in_use || entry.is_valid(now);
        account_tickets.filter(counts).map(|entry| entry.ticket.generation).collect()
    }

    /// Call every second or so.
    pub(crate) fn expire(&mut self, now: Instant) {
        let over = |entry: &TicketEntry| !entry.in_use && !entry.is_valid(now);
        let over: Vec<_> = self.waiting.iter().filter(|(_, entry)| over(entry)).map(|(id, _)| *id).collect();
        over.into_iter().for_each(|id| self.revoke(id));
        self.floors.retain(|_, (_, until)| now < *until);
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TicketId = TicketId([1; 16]);

    fn ticket(generation: u64, now: Instant) -> Ticket {
        Ticket {
            key: Key::new([2; 32]),
            account: AccountId(7),
            account_name: "alice".into(),
            generation: Generation(generation),
            world: WorldId(1),
            expires: now + Duration::from_secs(60),
        }
    }

    #[test]
    fn ticket_is_consumed_once_and_expires() {
        let (mut tickets, now) = (Tickets::default(), Instant::now());
        tickets.admit(ID, ticket(1, now), now).unwrap();
        assert!(tickets.key(ID, now).is_some(), "naming it does not use it up");
        assert_eq!(tickets.of_account(AccountId(7), now), [Generation(1)]);
        assert!(tickets.of_account(AccountId(8), now).is_empty());
        assert!(tickets.reserve(ID, now).is_some());
        assert!(tickets.reserve(ID, now).is_none() && tickets.key(ID, now).is_none());
        assert_eq!(tickets.of_account(AccountId(7), now), [Generation(1)], "its session is not listed yet");
        tickets.release(ID);
        assert!(tickets.reserve(ID, now).is_some(), "it was in vain");
        tickets.expire(now + Duration::from_secs(60));
        assert!(tickets.consume(ID) && tickets.of_account(AccountId(7), now).is_empty());
        tickets.admit(ID, ticket(1, now), now).unwrap();
        let later = now + Duration::from_secs(60);
        assert!(tickets.key(ID, later).is_none());
        tickets.expire(later);
        assert_eq!((tickets.len(), tickets.by_account.len()), (0, 0));
    }

    #[test]
    fn ticket_revoked_while_reserved_stays_revoked() {
        let (mut tickets, now) = (Tickets::default(), Instant::now());
        for failed in [true, false] {
            tickets.admit(ID, ticket(1, now), now).unwrap();
            assert!(tickets.reserve(ID, now).is_some());
            tickets.revoke(ID);
            if failed {
                tickets.release(ID);
                assert!(tickets.key(ID, now).is_none());
            } else {
                assert!(!tickets.consume(ID), "the session must not be");
            }
        }
    }

    #[test]
    fn revoked_generation_refuses_existing_and_later_tickets() {
        let (mut tickets, now) = (Tickets::default(), Instant::now());
        tickets.admit(ID, ticket(1, now), now).unwrap();
        tickets.revoke_account(AccountId(7), Generation(2), now);
        tickets.revoke_account(AccountId(7), Generation(1), now);
        assert!(tickets.key(ID, now).is_none());
        assert_eq!(tickets.admit(ID, ticket(1, now), now), Err(AdmitError::Outdated));
        tickets.admit(ID, ticket(2, now), now).unwrap();
        tickets.revoke(ID);
        assert_eq!((tickets.len(), tickets.by_account.len()), (0, 0));
    }
}
