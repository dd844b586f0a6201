//! Tickets: who may attach. Login moves them here; each serves once, lives shortly, and falls with its account's
//! session generation.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::{Duration, Instant},
};

use shardkeep_auth::Key;
use shardkeep_types::{AccountId, Generation, TicketId, WorldId};
use tonic::Status;

/// Bound of the table; more admissions are refused, and login chooses another gateway.
const MOST: usize = 65_536;
/// How long a revocation is remembered, so that a ticket that was on its way does not outlive it.
const REMEMBERED: Duration = Duration::from_secs(120);

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

/// Login tells them apart: it looks for another gateway, or ends the connection.
impl From<AdmitError> for Status {
    fn from(error: AdmitError) -> Self {
        match error {
            AdmitError::Full => Self::resource_exhausted(error.to_string()),
            AdmitError::Outdated => Self::failed_precondition(error.to_string()),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Tickets {
    waiting: HashMap<TicketId, Ticket>,
    /// Those that wait, by account: every login voids what its account had before.
    by_account: HashMap<AccountId, Vec<TicketId>>,
    /// Lowest generation that is still valid, where one was revoked lately.
    floors: HashMap<AccountId, (Generation, Instant)>,
}

impl Tickets {
    pub(crate) fn admit(&mut self, id: TicketId, ticket: Ticket, now: Instant) -> Result<(), AdmitError> {
        if self.floors.get(&ticket.account).is_some_and(|(floor, _)| ticket.generation < *floor) {
            return Err(AdmitError::Outdated);
        }
        if self.waiting.len() >= MOST {
            self.expire(now);
            if self.waiting.len() >= MOST {
                return Err(AdmitError::Full);
            }
        }
        self.revoke(id);
        self.by_account.entry(ticket.account).or_insert_with(|| Vec::with_capacity(1)).push(id);
        self.waiting.insert(id, ticket);
        Ok(())
    }

    /// Key of the ticket, which is still to be consumed.
    pub(crate) fn key(&self, id: TicketId, now: Instant) -> Option<Key> {
        self.waiting.get(&id).filter(|ticket| now < ticket.expires).map(|ticket| ticket.key.clone())
    }

    /// Takes the ticket for good; only one of several that proved its key gets it.
    pub(crate) fn consume(&mut self, id: TicketId, now: Instant) -> Option<Ticket> {
        self.take(id).filter(|ticket| now < ticket.expires)
    }

    pub(crate) fn revoke(&mut self, id: TicketId) {
        self.take(id);
    }

    fn take(&mut self, id: TicketId) -> Option<Ticket> {
        let ticket = self.waiting.remove(&id)?;
        if let Entry::Occupied(mut mine) = self.by_account.entry(ticket.account) {
            mine.get_mut().retain(|other| *other != id);
            if mine.get().is_empty() {
                mine.remove();
            }
        }
        Some(ticket)
    }

    pub(crate) fn revoke_account(&mut self, account: AccountId, below: Generation, now: Instant) {
        let old = |id: &&TicketId| self.waiting.get(id).is_some_and(|ticket| ticket.generation < below);
        let old: Vec<_> = self.by_account.get(&account).into_iter().flatten().filter(old).copied().collect();
        old.into_iter().for_each(|id| self.revoke(id));
        let floor = self.floors.entry(account).or_insert((below, now));
        // News may come by two ways, and the older one last.
        *floor = (floor.0.max(below), now + REMEMBERED);
    }

    /// Generations of the account's tickets that wait for their client.
    pub(crate) fn of_account(&self, account: AccountId, now: Instant) -> Vec<Generation> {
        let mine = self.by_account.get(&account).into_iter().flatten().filter_map(|id| self.waiting.get(id));
        mine.filter(|ticket| now < ticket.expires).map(|ticket| ticket.generation).collect()
    }

    /// Call every second or so.
    pub(crate) fn expire(&mut self, now: Instant) {
        let over: Vec<_> =
            self.waiting.iter().filter(|(_, ticket)| now >= ticket.expires).map(|(id, _)| *id).collect();
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
    fn a_ticket_serves_once_and_not_too_late() {
        let (mut tickets, now) = (Tickets::default(), Instant::now());
        tickets.admit(ID, ticket(1, now), now).unwrap();
        assert!(tickets.key(ID, now).is_some(), "naming it does not use it up");
        assert_eq!(tickets.of_account(AccountId(7), now), [Generation(1)]);
        assert!(tickets.of_account(AccountId(8), now).is_empty());
        assert!(tickets.consume(ID, now).is_some());
        assert!(tickets.consume(ID, now).is_none() && tickets.key(ID, now).is_none());
        tickets.admit(ID, ticket(1, now), now).unwrap();
        let later = now + Duration::from_secs(60);
        assert!(tickets.key(ID, later).is_none());
        tickets.expire(later);
        assert_eq!((tickets.len(), tickets.by_account.len()), (0, 0));
    }

    #[test]
    fn a_higher_generation_voids_lower_ones_even_those_on_their_way() {
        let (mut tickets, now) = (Tickets::default(), Instant::now());
        tickets.admit(ID, ticket(1, now), now).unwrap();
        tickets.revoke_account(AccountId(7), Generation(2), now);
        tickets.revoke_account(AccountId(7), Generation(1), now);
        assert!(tickets.key(ID, now).is_none());
        let outdated = tickets.admit(ID, ticket(1, now), now).unwrap_err();
        assert_eq!(Status::from(outdated).code(), tonic::Code::FailedPrecondition);
        tickets.admit(ID, ticket(2, now), now).unwrap();
        tickets.revoke(ID);
        assert_eq!((tickets.len(), tickets.by_account.len()), (0, 0));
    }
}
