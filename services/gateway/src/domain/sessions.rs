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

    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.0.read().by_id.values().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.read().by_id.len()
    }
}
