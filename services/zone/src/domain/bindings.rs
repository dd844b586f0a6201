//! Bindings of sessions whose avatar is not here yet. A gateway announces a binding once, possibly before the avatar
//! arrives.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use shardkeep_link::GatewayId;
use shardkeep_types::{AccountId, Epoch, SessionId};

use crate::metrics;

/// The most bindings. Overflow: the newest is dropped and counted; the world repeats the binding of a session
/// without avatar.
const MAX_BINDINGS: usize = 4_096;
const BINDING_LIFETIME: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) gateway: GatewayId,
    pub(crate) account: AccountId,
    pub(crate) session_epoch: Epoch,
    pub(crate) bind_epoch: Epoch,
    pub(crate) link_dead: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Bindings(HashMap<SessionId, (Binding, Instant)>);

impl Bindings {
    pub(crate) fn insert(&mut self, session: SessionId, binding: Binding, now: Instant) {
        if self.0.len() >= MAX_BINDINGS && !self.0.contains_key(&session) {
            metrics::dropped("bindings");
            return;
        }
        let known = self.0.get(&session).map(|(known, _)| (known.session_epoch, known.bind_epoch));
        if known.is_none_or(|known| known <= (binding.session_epoch, binding.bind_epoch)) {
            self.0.insert(session, (binding, now));
        }
    }

    pub(crate) fn take(&mut self, session: SessionId) -> Option<Binding> {
        self.0.remove(&session).map(|(binding, _)| binding)
    }

    /// Removes bindings whose gateway is down or whose session has ended.
    pub(crate) fn remove_if(&mut self, is_gone: impl Fn(SessionId, &Binding) -> bool) {
        self.0.retain(|session, (binding, _)| !is_gone(*session, binding));
    }

    pub(crate) fn remove_expired(&mut self, now: Instant) {
        self.0.retain(|_, (_, since)| now.saturating_duration_since(*since) < BINDING_LIFETIME);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId([1; 16]);

    fn binding(session_epoch: u64, bind_epoch: u64) -> Binding {
        Binding {
            gateway: "gateway-1".into(),
            account: AccountId(1),
            session_epoch: Epoch(session_epoch),
            bind_epoch: Epoch(bind_epoch),
            link_dead: false,
        }
    }

    #[test]
    fn latest_binding_is_kept_and_taken_once() {
        let (mut bindings, now) = (Bindings::default(), Instant::now());
        bindings.insert(SESSION, binding(1, 3), now);
        bindings.insert(SESSION, binding(2, 3), now);
        bindings.insert(SESSION, binding(1, 2), now);
        assert_eq!(bindings.take(SESSION), Some(binding(2, 3)));
        assert_eq!(bindings.take(SESSION), None);
    }

    #[test]
    fn bindings_expire_and_are_removed_with_their_gateway() {
        let (mut bindings, now) = (Bindings::default(), Instant::now());
        bindings.insert(SESSION, binding(1, 1), now);
        bindings.remove_expired(now + Duration::from_secs(60));
        bindings.remove_if(|_, binding| &*binding.gateway == "gateway-2");
        assert!(bindings.take(SESSION).is_some());
        bindings.insert(SESSION, binding(1, 1), now);
        bindings.remove_expired(now + Duration::from_secs(200));
        assert!(bindings.take(SESSION).is_none());
    }
}
