//! Replicas of a kind that owns state must serve from one store. Each announces the marks of its stores before it
//! serves, looks who is there, and does not become ready beside a replica with another store: that would be two truths.
//!
//! * Who is up comes first; of those that start together, the one that started first. So one of them always goes on.
//! * Who has to wait takes its own announcement back, so that nobody waits for it. It waits until the other one has
//!   gone for good (its farewell, or `gm remove`), or serves from the same store. That the other one is merely not
//!   heard of is no reason to take its place: it may be about to restart.
//! * Those that could not see each other when they looked (no registry, or looks that crossed) do when they are up.
//!   Then the one that started later fails.

use std::{str::FromStr as _, time::Duration};

use shardkeep_types::StoreIdentity;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::{Directory, Instance, Node, State};

/// The attribute that holds the marks of an instance's stores, separated by blanks.
pub const STORES_ATTRIBUTE: &str = "stores";

/// Names this part of the daemon in [`shardkeep_daemon::Daemon::not_ready_because`].
const OBSTACLE: &str = "store conflict";
/// How long to wait for a registry to show this instance, and so every other.
const VISIBLE_TIMEOUT: Duration = Duration::from_secs(3);

impl Node {
    /// Makes sure that no replica of this kind serves from another store, and goes on watching that. To be called
    /// before anything is served from the stores; may wait for long. `false`: the drain came first.
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
            // Empty, not absent: who restarts has not said anything yet, and is still in the way of others.
            self.node.set_attribute(STORES_ATTRIBUTE, String::new());
            self.wait_for_conflict_to_end(&conflicting_peer).await;
        }
        self.node.daemon().not_ready_because(OBSTACLE, None);
    }

    /// Waits until a registry shows this instance with its stores: then it shows everybody who announced before.
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

    /// Until the rival is no longer in the way.
    async fn wait_for_conflict_to_end(&mut self, conflicting_peer: &Instance) {
        let reason = conflict_message(conflicting_peer, self.identities);
        warn!(conflicting_peer = %conflicting_peer.id, "not ready: {reason}");
        self.node.daemon().not_ready_because(OBSTACLE, Some(reason));
        let name = &conflicting_peer.id.name;
        // One that restarts has announced nothing yet: it is still in the way.
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

/// Of two that are up beside each other, with different stores, the later one fails.
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

/// A replica with another store that comes before this one.
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

/// The store of the peer that does not go with ours, and ours.
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

    /// Who is in the way of an instance of this state that started at 5 on the store 1.
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
