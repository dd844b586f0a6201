//! Replicas of a kind that owns state must serve from the same store; two stores would hold two versions of the
//! state. Each replica announces the identities of its stores before it serves. It does not become ready while
//! another replica announces a different store.
//!
//! * A replica that is up takes precedence. Among replicas that start together, the earliest start takes precedence.
//!   So
//!   one of them always becomes ready.
//! * A replica that waits withdraws its announcement, so that no other replica waits for it. It waits until the
//!   other
//!   replica has left for good (it deregistered, or `gm remove` removed it) or announces the same store. Silence is no
//!   reason to stop waiting, because the other replica may be about to restart.
//! * Two replicas may miss each other at the start: no registry answers, or both look before the other announces.
//!   They
//!   see each other later, when both are up. Then the one that started later fails.

use std::{str::FromStr as _, time::Duration};

use shardkeep_types::StoreIdentity;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::{Directory, Instance, Node, State};

/// Attribute of an instance: the identities of its stores, separated by blanks.
pub const STORES_ATTRIBUTE: &str = "stores";

/// Key of this condition in [`shardkeep_daemon::Daemon::not_ready_because`].
const OBSTACLE: &str = "store conflict";
/// Longest wait until a registry lists this instance. From then on it also lists all earlier announcements.
const VISIBLE_TIMEOUT: Duration = Duration::from_secs(3);

impl Node {
    /// Waits until no replica of this kind serves from another store, then watches for such replicas in the
    /// background. Call it before serving anything from the stores. It may wait without limit. Returns `false` when
    /// the daemon was drained first.
    pub async fn ensure_same_store(&self, identities: &[StoreIdentity]) -> bool {
        let peers = self.directory(self.id().kind);
        let compatible =
            StartingReplica { node: self, identities, peers: peers.clone() }.wait_until_compatible();
        if self.daemon().draining().run_until_cancelled(compatible).await.is_none() {
            return false;
        }
        let (node, identities) = (self.clone(), identities.to_vec());
        self.daemon().spawn_infrastructure("stores", watch_for_conflicts(node, identities, peers));
        true
    }
}

/// An instance that does not serve yet.
struct StartingReplica<'a> {
    node: &'a Node,
    identities: &'a [StoreIdentity],
    peers: Directory,
}

impl StartingReplica<'_> {
    async fn wait_until_compatible(mut self) {
        loop {
            self.node.set_attribute(STORES_ATTRIBUTE, attribute_value(self.identities));
            self.wait_until_visible().await;
            let view = self.peers.snapshot();
            let Some(conflicting_peer) = conflicting_peer(&view, &self.node.instance(), self.identities)
            else {
                break;
            };
            let conflicting_peer = conflicting_peer.clone();
            // Empty rather than absent. An absent attribute means that the replica has just restarted and still
            // conflicts.
            self.node.set_attribute(STORES_ATTRIBUTE, String::new());
            self.wait_for_conflict_to_end(&conflicting_peer).await;
        }
        self.node.daemon().not_ready_because(OBSTACLE, None);
    }

    /// Waits until a registry lists this instance with its stores. From then on it also lists all earlier
    /// announcements.
    async fn wait_until_visible(&mut self) {
        if !self.node.has_registries() {
            return;
        }
        let (id, attribute_value) = (self.node.id().clone(), attribute_value(self.identities));
        let visible = async {
            let own = |peer: &Instance| {
                peer.id == id && peer.attributes.get(STORES_ATTRIBUTE) == Some(&attribute_value)
            };
            while !self.peers.snapshot().iter().any(own) {
                self.peers.changed().await;
            }
        };
        if timeout(VISIBLE_TIMEOUT, visible).await.is_err() {
            warn!("no registry answers: cannot tell whether another replica has a store of its own");
        }
    }

    /// Waits until `conflicting_peer` no longer conflicts.
    async fn wait_for_conflict_to_end(&mut self, conflicting_peer: &Instance) {
        let reason = conflict_message(conflicting_peer, self.identities);
        warn!(conflicting_peer = %conflicting_peer.id, "not ready: {reason}");
        self.node.daemon().not_ready_because(OBSTACLE, Some(reason));
        let name = &conflicting_peer.id.name;
        // A peer without the attribute has just restarted and still conflicts.
        let still_conflicts = |peer: &Instance| {
            peer.id.name == *name
                && peer.state != State::Left
                && (!peer.attributes.contains_key(STORES_ATTRIBUTE)
                    || uses_other_store(peer, self.identities))
        };
        while self.peers.snapshot().iter().any(still_conflicts) {
            self.peers.changed().await;
        }
        info!(conflicting_peer = %conflicting_peer.id, "no longer in the way");
    }
}

/// Of two replicas that are up with different stores, the one that started later fails.
async fn watch_for_conflicts(
    node: Node,
    identities: Vec<StoreIdentity>,
    mut peers: Directory,
) -> anyhow::Result<()> {
    let draining = node.daemon().draining();
    loop {
        let view = peers.snapshot();
        let own = node.instance();
        if own.state == State::Up
            && let Some(conflicting_peer) = conflicting_peer(&view, &own, &identities)
        {
            node.daemon().fail(&conflict_message(conflicting_peer, &identities));
        }
        if draining.run_until_cancelled(peers.changed()).await.is_none() {
            return Ok(());
        }
    }
}

/// Finds a replica with another store that takes precedence over this one.
fn conflicting_peer<'a>(
    peers: &'a [Instance],
    own: &Instance,
    identities: &[StoreIdentity],
) -> Option<&'a Instance> {
    let age = |it: &Instance| (it.id.incarnation, it.id.name.clone());
    let takes_precedence = |peer: &Instance| match (own.state, peer.state) {
        (State::Starting, State::Up | State::Draining) => true,
        (State::Starting, State::Starting) | (State::Up, State::Up) => age(peer) < age(own),
        _ => false,
    };
    peers.iter().find(|peer| {
        peer.id.name != own.id.name && takes_precedence(peer) && uses_other_store(peer, identities)
    })
}

fn uses_other_store(peer: &Instance, identities: &[StoreIdentity]) -> bool {
    find_other_store(peer, identities).is_some()
}

/// Returns a store of the peer that is incompatible with a store of this instance, and that store.
fn find_other_store<'a>(
    peer: &Instance,
    identities: &'a [StoreIdentity],
) -> Option<(StoreIdentity, &'a StoreIdentity)> {
    let remote = peer.attributes.get(STORES_ATTRIBUTE)?;
    let mut remote = remote.split_whitespace().filter_map(|identity| StoreIdentity::from_str(identity).ok());
    remote.find_map(|remote_store| {
        let local = identities.iter().find(|local| !local.is_compatible_with(&remote_store))?;
        Some((remote_store, local))
    })
}

fn attribute_value(identities: &[StoreIdentity]) -> String {
    identities.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn conflict_message(conflicting_peer: &Instance, identities: &[StoreIdentity]) -> String {
    let (name, address) = (&conflicting_peer.id.name, &conflicting_peer.grpc_address);
    let Some((remote, local)) = find_other_store(conflicting_peer, identities) else {
        return format!("{name} at {address} has another store");
    };
    let description = if remote.id == local.id {
        "a copy of this store, in a file that only one process can have".to_owned()
    } else {
        format!("another store ({}; this one is {})", remote.id, local.id)
    };
    format!(
        "{name} at {address} serves `{}` from {description}: give all replicas one `store` at postgres://…, or end {name}",
        local.schema
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use shardkeep_types::{DaemonKind, InstanceId};

    use super::*;

    fn login(name: &str, incarnation: u64, state: State, identities: &str) -> Instance {
        let id = InstanceId { kind: DaemonKind::Login, name: name.into(), incarnation };
        Instance {
            grpc_address: "127.0.0.1:1".into(),
            attributes: BTreeMap::from([(STORES_ATTRIBUTE.to_owned(), identities.to_owned())]),
            ..Instance::new(id, state)
        }
    }

    fn identities(texts: &[&str]) -> Vec<StoreIdentity> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// Whether `peer` takes precedence over an instance with store 1, in this state, started at time 5.
    fn has_conflict(state: State, peer: &Instance) -> bool {
        let own = login("me", 5, state, "accounts/shared/1");
        conflicting_peer(std::slice::from_ref(peer), &own, &identities(&["accounts/shared/1"])).is_some()
    }

    #[test]
    fn serving_then_earliest_replica_takes_precedence() {
        let other = |incarnation, state| login("other", incarnation, state, "accounts/shared/2");
        use State::{Draining, Left, Offline, Starting, Up};
        for (own_state, remote, started, expected) in [
            (Starting, Up, 9, true),
            (Starting, Draining, 9, true),
            (Starting, Starting, 9, false),
            (Starting, Starting, 1, true),
            (Starting, Offline, 1, false),
            (Starting, Left, 1, false),
            (Up, Up, 9, false),
            (Up, Up, 1, true),
            (Up, Starting, 1, false),
            (Up, Draining, 1, false),
        ] {
            assert_eq!(
                has_conflict(own_state, &other(started, remote)),
                expected,
                "{own_state} {remote} {started}"
            );
        }
    }

    #[test]
    fn only_peer_with_another_store_conflicts() {
        let up = |name, identities| login(name, 1, State::Up, identities);
        assert!(!has_conflict(State::Starting, &up("other", "accounts/shared/1")));
        assert!(!has_conflict(State::Starting, &up("me", "accounts/shared/2")), "an earlier self");
        assert!(!has_conflict(State::Starting, &up("other", "")), "it has not said");
        assert!(has_conflict(State::Starting, &up("other", "accounts/alone/1")), "a copy");
        assert!(has_conflict(State::Starting, &up("other", "central/shared/7 accounts/shared/2")));
        assert!(!has_conflict(State::Starting, &up("other", "central/shared/7 accounts/shared/1")));
    }

    #[test]
    fn conflict_message_names_peer_and_remedy() {
        let other = login("login-1", 1, State::Up, "accounts/alone/aa");
        let text = conflict_message(&other, &identities(&["accounts/alone/bb"]));
        for part in ["login-1 at 127.0.0.1:1", "aa", "bb", "postgres://", "end login-1"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(conflict_message(&other, &identities(&["accounts/alone/aa"])).contains("a copy"));
    }
}
