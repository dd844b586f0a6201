//! The sessions this gateway holds, by id and by account.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;
use shardkeep_types::{AccountId, SessionId};

use super::session::Session;

#[derive(Default)]
pub(crate) struct SessionTable(RwLock<Indexes>);

#[derive(Default)]
struct Indexes {
    by_id: HashMap<SessionId, Arc<Session>>,
    by_account: HashMap<AccountId, Vec<SessionId>>,
}

impl SessionTable {
    pub(crate) fn insert(&self, session: &Arc<Session>) {
        let mut indexes = self.0.write();
        indexes.by_id.insert(session.id(), session.clone());
        let account_sessions =
            indexes.by_account.entry(session.account()).or_insert_with(|| Vec::with_capacity(1));
        if !account_sessions.contains(&session.id()) {
            account_sessions.push(session.id());
        }
    }

    /// Returns false if the session is not here any more.
    pub(crate) fn remove(&self, session: &Arc<Session>) -> bool {
        let mut indexes = self.0.write();
        if !indexes.by_id.get(&session.id()).is_some_and(|held| Arc::ptr_eq(held, session)) {
            return false;
        }
        indexes.by_id.remove(&session.id());
        if let Some(account_sessions) = indexes.by_account.get_mut(&session.account()) {
            account_sessions.retain(|id| *id != session.id());
            if account_sessions.is_empty() {
                indexes.by_account.remove(&session.account());
            }
        }
        true
    }

    pub(crate) fn get(&self, id: SessionId) -> Option<Arc<Session>> {
        self.0.read().by_id.get(&id).cloned()
    }

    pub(crate) fn of_account(&self, account: AccountId) -> Vec<Arc<Session>> {
        let indexes = self.0.read();
        let ids = indexes.by_account.get(&account);
        ids.into_iter().flatten().filter_map(|id| indexes.by_id.get(id).cloned()).collect()
    }

    /// At most `limit` sessions after that id, in the order of their ids. If more follow, also the id after which the
    /// next page begins.
    pub(crate) fn page(
        &self,
        after: Option<SessionId>,
        limit: usize,
    ) -> (Vec<Arc<Session>>, Option<SessionId>) {
        let mut page = self.all();
        page.retain(|session| after.is_none_or(|after| session.id() > after));
        page.sort_unstable_by_key(|session| session.id());
        let more = page.len() > limit;
        page.truncate(limit);
        let next = page.last().filter(|_| more).map(|last| last.id());
        (page, next)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.0.read().by_id.values().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.read().by_id.len()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use shardkeep_auth::{Key, session::SessionKeys};
    use shardkeep_types::{Generation, WorldId};

    use super::*;
    use crate::domain::session::{Identity, ResumeKeys};

    fn session(number: u8) -> Arc<Session> {
        let identity = Identity {
            id: SessionId([number; 16]),
            account: AccountId(number.into()),
            account_name: String::new(),
            generation: Generation(1),
            world: WorldId(1),
        };
        let keys = SessionKeys::derive(&Key::new([number; 32]), &[0; 12], b"request", b"attached");
        Session::begin(identity, ResumeKeys::new(&keys), 1, Ipv4Addr::LOCALHOST.into())
    }

    #[test]
    fn pages_list_each_session_once_and_end() {
        let table = SessionTable::default();
        for number in [4, 1, 3, 2] {
            table.insert(&session(number));
        }
        let page = |after: Option<u8>| {
            let (page, next) = table.page(after.map(|number| SessionId([number; 16])), 2);
            let numbers: Vec<u8> = page.iter().map(|session| session.id().0[0]).collect();
            (numbers, next.map(|id| id.0[0]))
        };
        assert_eq!(page(None), (vec![1, 2], Some(2)));
        assert_eq!(page(Some(2)), (vec![3, 4], None));
        assert_eq!(page(Some(4)), (vec![], None));
    }
}
