//! The directory of sessions: the gateway, epoch and resume keys of each. Gateways fill the directory; they present all
//! sessions to each new term.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use shardkeep_link::GatewayId;
use shardkeep_types::{AccountId, Epoch, Generation, Secret, SessionId};

/// Proves a client's right to a session.
pub(crate) type Key = Secret<Vec<u8>>;

/// One player's session.
#[derive(Debug)]
pub(crate) struct Session {
    epoch: Epoch,
    account: AccountId,
    account_name: String,
    generation: Generation,
    /// The gateway that holds the session or has claimed it.
    gateway: GatewayId,
    announced_by: GatewayId,
    holders: Vec<(GatewayId, Epoch)>,
    key: Key,
    /// The key before, valid while `key` has never been used.
    previous_key: Option<Key>,
    /// Since when no gateway holds the session.
    detached_since: Option<Instant>,
}

/// The most holders to remember: the first one, and the latest ones that claimed the session without announcing it.
const MAX_HOLDERS: usize = 4;
/// The most ended sessions to remember, so that a gateway that missed an end does not restore the session.
const MAX_ENDED_SESSIONS: usize = 16_384;
/// How long gateways may take to present their sessions to a new term. Until then, an unknown session may still
/// appear.
const PRESENT_TIMEOUT: Duration = Duration::from_secs(5);

impl Session {
    /// A session as a gateway presents it, for the first time (`epoch` 0) or again.
    pub(crate) fn presented(
        epoch: Epoch,
        account: AccountId,
        account_name: String,
        generation: Generation,
        gateway: GatewayId,
        key: Key,
    ) -> Self {
        Self {
            epoch,
            account,
            account_name,
            generation,
            announced_by: gateway.clone(),
            gateway,
            holders: Vec::new(),
            key,
            previous_key: None,
            detached_since: None,
        }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) fn account(&self) -> AccountId {
        self.account
    }

    pub(crate) fn account_name(&self) -> &str {
        &self.account_name
    }

    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    /// The gateway through which the session is reached: the last one that announced it. A claiming gateway does not
    /// know the session yet; messages sent meanwhile move with it.
    pub(crate) fn announced_by(&self) -> &GatewayId {
        &self.announced_by
    }

    /// The keys that prove a client's right to the session; the current one first.
    pub(crate) fn resume_keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.key).chain(&self.previous_key)
    }

    /// Gateways that may have the session's state, in the order in which the last claiming gateway asks them, with the
    /// session's epoch there: see [`Sessions::claim`].
    pub(crate) fn holders(&self) -> &[(GatewayId, Epoch)] {
        &self.holders
    }
}

/// A gateway claims a session after its client has proved the key there.
#[derive(Debug)]
pub(crate) struct Claim {
    from: Epoch,
    gateway: GatewayId,
    used_key: Key,
    next_key: Key,
}

impl Claim {
    /// `from` is the session's epoch as the gateway knows it.
    pub(crate) fn new(from: Epoch, gateway: GatewayId, used_key: Key, next_key: Key) -> Self {
        Self { from, gateway, used_key, next_key }
    }
}

/// Why a gateway's request is refused. The gateway's knowledge is always outdated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SessionError {
    #[error("no such session")]
    Unknown,
    #[error("the world has just restarted and does not know the session yet; try again")]
    NotYetPresented,
    #[error("another gateway has claimed the session since")]
    Superseded,
    #[error("the key does not belong to the session")]
    WrongKey,
    #[error("a newer login of the account has displaced the session")]
    Displaced,
    #[error("the session belongs to another account")]
    WrongAccount,
    #[error("the session has ended")]
    Ended,
}

#[derive(Debug, Default)]
pub(crate) struct Sessions {
    all: HashMap<SessionId, Session>,
    by_account: HashMap<AccountId, SessionId>,
    /// Ended sessions, so that a gateway that missed the end does not restore them.
    ended: HashMap<SessionId, Instant>,
    /// Begin of the present term.
    since: Option<Instant>,
}

impl Sessions {
    /// The empty directory of a new term.
    pub(crate) fn of_term(now: Instant) -> Self {
        Self { since: Some(now), ..Self::default() }
    }

    /// Adds a session. A repeat only updates the gateway. The second value is an older session of the same account,
    /// which the caller must end.
    pub(crate) fn open(
        &mut self,
        id: SessionId,
        mut presented: Session,
    ) -> Result<(Epoch, Option<SessionId>), SessionError> {
        if self.ended.contains_key(&id) {
            return Err(SessionError::Ended);
        }
        if let Some(known) = self.all.get_mut(&id) {
            return known.present_again(presented).map(|epoch| (epoch, None));
        }
        let existing = self.by_account.get(&presented.account).copied();
        if let Some(existing) = existing.and_then(|existing| self.all.get(&existing)) {
            let presented_before = presented.epoch > Epoch(0);
            if existing.generation > presented.generation
                || presented_before && existing.generation == presented.generation
            {
                return Err(SessionError::Displaced);
            }
        }
        let epoch = presented.epoch.max(Epoch(1));
        presented.epoch = epoch;
        presented.mark_announced();
        self.by_account.insert(presented.account, id);
        self.all.insert(id, presented);
        Ok((epoch, existing))
    }

    /// Gives a session to another gateway and raises its epoch. A repeat gets the same answer. Until that gateway
    /// announces the session, no gateway holds it.
    ///
    /// A claiming gateway may die before it has the session's state, or may learn of its claim too late. So the next
    /// one must not look for the state only there. A client that proves the newest key was at the last claiming
    /// gateway. A client that proves the key before was at an earlier gateway, which still has the state unless a
    /// later claim has moved it.
    pub(crate) fn claim(&mut self, now: Instant, id: SessionId, claim: Claim) -> Result<Epoch, SessionError> {
        let Some(session) = self.all.get_mut(&id) else { return Err(self.unknown(now, id)) };
        let repeated = session.epoch == claim.from.next()
            && session.gateway == claim.gateway
            && session.key == claim.next_key
            && session.previous_key.as_ref() == Some(&claim.used_key);
        if repeated {
            return Ok(session.epoch);
        }
        if session.epoch != claim.from {
            return Err(SessionError::Superseded);
        }
        if !session.resume_keys().any(|key| *key == claim.used_key) {
            return Err(SessionError::WrongKey);
        }
        session.remember_holder(&claim.used_key);
        session.epoch = session.epoch.next();
        session.gateway = claim.gateway;
        session.previous_key = Some(claim.used_key);
        session.key = claim.next_key;
        session.detached_since = Some(now);
        Ok(session.epoch)
    }

    /// The gateway has announced the session. `false`: another gateway holds it now.
    pub(crate) fn held(&mut self, id: SessionId, gateway: &GatewayId, epoch: Epoch) -> bool {
        let session = self.all.get_mut(&id).filter(|session| session.is_held_by(gateway, epoch));
        session.map(Session::mark_announced).is_some()
    }

    pub(crate) fn is_held_by(&self, id: SessionId, gateway: &GatewayId, epoch: Epoch) -> bool {
        self.all.get(&id).is_some_and(|session| session.is_held_by(gateway, epoch))
    }

    /// The gateway is disconnected or has restarted; its sessions wait to be claimed or presented again.
    pub(crate) fn detach_all(&mut self, gateway: &GatewayId, now: Instant) {
        for session in self.all.values_mut().filter(|session| session.gateway == *gateway) {
            session.detached_since.get_or_insert(now);
        }
    }

    /// The gateway is back and still has the sessions that it announced.
    pub(crate) fn attach_all(&mut self, gateway: &GatewayId) {
        let announced_there =
            |session: &&mut Session| [&session.gateway, &session.announced_by] == [gateway; 2];
        for session in self.all.values_mut().filter(announced_there) {
            session.detached_since = None;
        }
    }

    /// Sessions that no gateway has held for `link_loss`.
    pub(crate) fn expired(&self, now: Instant, link_loss: Duration) -> Vec<SessionId> {
        let gone = |session: &Session| {
            session.detached_since.is_some_and(|since| now.saturating_duration_since(since) >= link_loss)
        };
        self.all.iter().filter(|(_, session)| gone(session)).map(|(&id, _)| id).collect()
    }

    pub(crate) fn end(&mut self, now: Instant, id: SessionId) -> Option<Session> {
        let session = self.all.remove(&id)?;
        if self.by_account.get(&session.account) == Some(&id) {
            self.by_account.remove(&session.account);
        }
        if self.ended.len() < MAX_ENDED_SESSIONS {
            self.ended.insert(id, now);
        }
        Some(session)
    }

    /// Forgets sessions that ended at least `age` ago.
    pub(crate) fn forget_ended(&mut self, now: Instant, age: Duration) {
        self.ended.retain(|_, since| now.saturating_duration_since(*since) < age);
    }

    pub(crate) fn get(&self, id: SessionId) -> Option<&Session> {
        self.all.get(&id)
    }

    pub(crate) fn find(&self, now: Instant, id: SessionId) -> Result<&Session, SessionError> {
        self.get(id).ok_or_else(|| self.unknown(now, id))
    }

    /// The error for an unknown session: ended, or perhaps not presented yet.
    fn unknown(&self, now: Instant, id: SessionId) -> SessionError {
        let in_grace = self.since.is_some_and(|since| now.saturating_duration_since(since) < PRESENT_TIMEOUT);
        if in_grace && !self.ended.contains_key(&id) {
            SessionError::NotYetPresented
        } else {
            SessionError::Unknown
        }
    }

    pub(crate) fn of_account(&self, account: AccountId) -> Option<SessionId> {
        self.by_account.get(&account).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }
}

impl Session {
    fn is_held_by(&self, gateway: &GatewayId, epoch: Epoch) -> bool {
        self.gateway == *gateway && self.epoch == epoch
    }

    /// The session's gateway has its state, and no other gateway has.
    fn mark_announced(&mut self) {
        self.detached_since = None;
        self.announced_by = self.gateway.clone();
        self.holders.clear();
        self.holders.push((self.gateway.clone(), self.epoch));
    }

    /// Another gateway claims the session after its client has proved this key there.
    fn remember_holder(&mut self, used_key: &Key) {
        let last = (self.gateway.clone(), self.epoch);
        if self.key == *used_key {
            self.holders.clear();
        }
        if !self.holders.contains(&last) {
            if self.holders.len() == MAX_HOLDERS {
                self.holders.remove(1);
            }
            self.holders.push(last);
        }
    }

    fn present_again(&mut self, presented: Session) -> Result<Epoch, SessionError> {
        if self.account != presented.account {
            return Err(SessionError::WrongAccount);
        }
        let first_time_repeated = presented.epoch == Epoch(0) && self.gateway == presented.gateway;
        if presented.epoch < self.epoch && !first_time_repeated {
            return Err(SessionError::Superseded);
        }
        if presented.epoch > self.epoch {
            self.epoch = presented.epoch;
            self.key = presented.key;
            self.previous_key = None;
        }
        self.generation = self.generation.max(presented.generation);
        self.detached_since = None;
        if !first_time_repeated {
            self.gateway = presented.gateway;
            self.mark_announced();
        }
        Ok(self.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId([1; 16]);

    fn key(byte: u8) -> Key {
        vec![byte; 32].into()
    }

    fn open(
        sessions: &mut Sessions,
        id: SessionId,
        epoch: u64,
        generation: u64,
        gateway: &str,
    ) -> Result<(Epoch, Option<SessionId>), SessionError> {
        let (account, generation) = (AccountId(7), Generation(generation));
        let presented =
            Session::presented(Epoch(epoch), account, "ann".into(), generation, gateway.into(), key(1));
        sessions.open(id, presented)
    }

    fn claim(from: u64, gateway: &str, used: u8, next: u8) -> Claim {
        Claim::new(Epoch(from), gateway.into(), key(used), key(next))
    }

    fn keys(sessions: &Sessions) -> Vec<u8> {
        sessions.get(SESSION).unwrap().resume_keys().map(|key| key.expose()[0]).collect()
    }

    #[test]
    fn repeated_open_is_idempotent() {
        let mut sessions = Sessions::default();
        assert_eq!(open(&mut sessions, SESSION, 0, 1, "a"), Ok((Epoch(1), None)));
        assert_eq!(open(&mut sessions, SESSION, 0, 1, "a"), Ok((Epoch(1), None)));
        assert_eq!(open(&mut sessions, SESSION, 1, 1, "a"), Ok((Epoch(1), None)));
        assert_eq!(sessions.len(), 1);
    }

    #[test]
    fn reopened_session_keeps_highest_epoch() {
        let mut sessions = Sessions::default();
        assert_eq!(open(&mut sessions, SESSION, 4, 1, "stale"), Ok((Epoch(4), None)));
        assert_eq!(open(&mut sessions, SESSION, 5, 1, "new"), Ok((Epoch(5), None)));
        assert_eq!(open(&mut sessions, SESSION, 4, 1, "stale"), Err(SessionError::Superseded));
        assert_eq!(&*sessions.get(SESSION).unwrap().gateway, "new");
    }

    #[test]
    fn later_login_displaces_earlier_session_only() {
        let (old, new, late) = (SESSION, SessionId([2; 16]), SessionId([3; 16]));
        let mut sessions = Sessions::default();
        open(&mut sessions, old, 0, 1, "a").unwrap();
        assert_eq!(open(&mut sessions, new, 0, 2, "b"), Ok((Epoch(1), Some(old))));
        sessions.end(Instant::now(), old);
        assert_eq!(sessions.of_account(AccountId(7)), Some(new));
        assert_eq!(open(&mut sessions, late, 1, 1, "a"), Err(SessionError::Displaced));
        assert_eq!(open(&mut sessions, old, 1, 1, "a"), Err(SessionError::Ended));
    }

    #[test]
    fn claim_raises_epoch_and_concurrent_claim_loses() {
        let mut sessions = Sessions::default();
        open(&mut sessions, SESSION, 0, 1, "a").unwrap();
        assert_eq!(sessions.claim(Instant::now(), SESSION, claim(1, "b", 1, 2)), Ok(Epoch(2)));
        assert_eq!(sessions.claim(Instant::now(), SESSION, claim(1, "b", 1, 2)), Ok(Epoch(2)), "a repeat");
        assert_eq!(
            sessions.claim(Instant::now(), SESSION, claim(1, "c", 1, 3)),
            Err(SessionError::Superseded)
        );
        assert!(sessions.is_held_by(SESSION, &"b".into(), Epoch(2)));
        assert!(!sessions.held(SESSION, &"a".into(), Epoch(1)));
        assert_eq!(&*sessions.get(SESSION).unwrap().announced_by, "a", "the new one has not announced it");
        assert!(sessions.held(SESSION, &"b".into(), Epoch(2)));
        assert_eq!(&*sessions.get(SESSION).unwrap().announced_by, "b");
    }

    #[test]
    fn previous_key_is_valid_until_new_key_is_used() {
        let mut sessions = Sessions::default();
        open(&mut sessions, SESSION, 0, 1, "a").unwrap();
        sessions.claim(Instant::now(), SESSION, claim(1, "b", 1, 2)).unwrap();
        assert_eq!(keys(&sessions), [2, 1]);
        sessions.claim(Instant::now(), SESSION, claim(2, "c", 1, 3)).unwrap();
        assert_eq!(keys(&sessions), [3, 1], "key 2 never reached the client");
        sessions.claim(Instant::now(), SESSION, claim(3, "b", 3, 4)).unwrap();
        assert_eq!(keys(&sessions), [4, 3]);
        assert_eq!(sessions.claim(Instant::now(), SESSION, claim(4, "c", 1, 5)), Err(SessionError::WrongKey));
    }

    fn holders(sessions: &Sessions) -> Vec<(&str, u64)> {
        let holders = sessions.get(SESSION).unwrap().holders().iter();
        holders.map(|(gateway, epoch)| (&**gateway, epoch.0)).collect()
    }

    #[test]
    fn failed_claims_keep_earlier_holders() {
        let mut sessions = Sessions::default();
        open(&mut sessions, SESSION, 0, 1, "a").unwrap();
        assert_eq!(open(&mut sessions, SESSION, 0, 1, "a"), Ok((Epoch(1), None)));
        sessions.claim(Instant::now(), SESSION, claim(1, "b", 1, 2)).unwrap();
        assert_eq!(holders(&sessions), [("a", 1)]);
        // The client did not receive the answer: it returns with the same key, there and elsewhere.
        sessions.claim(Instant::now(), SESSION, claim(2, "b", 1, 3)).unwrap();
        assert_eq!(holders(&sessions), [("a", 1), ("b", 2)]);
        sessions.claim(Instant::now(), SESSION, claim(2, "b", 1, 3)).unwrap();
        assert_eq!(holders(&sessions), [("a", 1), ("b", 2)], "a repeat");
        for (from, gateway, next) in [(3, "c", 4), (4, "d", 5), (5, "e", 6)] {
            sessions.claim(Instant::now(), SESSION, claim(from, gateway, 1, next)).unwrap();
        }
        assert_eq!(holders(&sessions), [("a", 1), ("b", 3), ("c", 4), ("d", 5)], "bounded");
        assert!(!sessions.held(SESSION, &"d".into(), Epoch(5)), "too late");
        assert!(sessions.held(SESSION, &"e".into(), Epoch(6)));
        assert_eq!(holders(&sessions), [("e", 6)]);
    }

    #[test]
    fn claim_with_newest_key_drops_earlier_holders() {
        let mut sessions = Sessions::default();
        open(&mut sessions, SESSION, 0, 1, "a").unwrap();
        sessions.claim(Instant::now(), SESSION, claim(1, "b", 1, 2)).unwrap();
        // "b" told the client and died before it announced the session. The state at "a" is outdated.
        sessions.claim(Instant::now(), SESSION, claim(2, "c", 2, 3)).unwrap();
        assert_eq!(holders(&sessions), [("b", 2)]);
        sessions.claim(Instant::now(), SESSION, claim(3, "d", 2, 4)).unwrap();
        assert_eq!(holders(&sessions), [("b", 2), ("c", 3)]);
        open(&mut sessions, SESSION, 4, 1, "d").unwrap();
        assert_eq!(holders(&sessions), [("d", 4)]);
    }

    #[test]
    fn sessions_expire_only_when_gateway_is_lost() {
        let (start, loss) = (Instant::now(), Duration::from_secs(60));
        let mut sessions = Sessions::default();
        open(&mut sessions, SESSION, 0, 1, "a").unwrap();
        sessions.detach_all(&"b".into(), start);
        assert!(sessions.expired(start + loss * 2, loss).is_empty());
        sessions.detach_all(&"a".into(), start);
        assert!(sessions.expired(start + loss / 2, loss).is_empty());
        assert_eq!(sessions.expired(start + loss, loss), [SESSION]);
        assert!(sessions.held(SESSION, &"a".into(), Epoch(1)));
        assert!(sessions.expired(start + loss, loss).is_empty());
    }

    #[test]
    fn claim_never_announced_expires() {
        let (start, loss) = (Instant::now(), Duration::from_secs(60));
        let mut sessions = Sessions::default();
        open(&mut sessions, SESSION, 0, 1, "a").unwrap();
        sessions.claim(start, SESSION, claim(1, "b", 1, 2)).unwrap();
        sessions.attach_all(&"b".into());
        assert_eq!(sessions.expired(start + loss, loss), [SESSION]);
        assert!(sessions.held(SESSION, &"b".into(), Epoch(2)));
        sessions.detach_all(&"b".into(), start);
        sessions.attach_all(&"b".into());
        assert!(sessions.expired(start + loss, loss).is_empty(), "it has come back with it");
    }
}
