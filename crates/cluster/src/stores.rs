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

use shardkeep_types::StoreMark;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::{Directory, Instance, Node, State};

/// The attribute that holds the marks of an instance's stores, separated by blanks.
pub const STORES: &str = "stores";

/// How long to wait for a registry to show this instance, and so every other.
const LOOK: Duration = Duration::from_secs(3);

impl Node {
    /// Makes sure that no replica of this kind serves from another store, and goes on watching that. To be called
    /// before anything is served from the stores; may wait for long. `false`: the drain came first.
    pub async fn share_stores(&self, marks: &[StoreMark]) -> bool {
        let peers = self.directory(self.id().kind);
        let admitted = Newcomer { node: self, marks, peers: peers.clone() }.admit();
        if self.daemon().draining().run_until_cancelled(admitted).await.is_none() {
            return false;
        }
        let (node, marks) = (self.clone(), marks.to_vec());
        self.daemon().spawn_infrastructure("stores", watch(node, marks, peers));
        true
    }
}

/// An instance that does not serve yet.
struct Newcomer<'a> {
    node: &'a Node,
    marks: &'a [StoreMark],
    peers: Directory,
}

impl Newcomer<'_> {
    async fn admit(mut self) {
        loop {
            self.node.set_attribute(STORES, announced(self.marks));
            self.until_seen().await;
            let view = self.peers.snapshot();
            let Some(rival) = rival(&view, &self.node.instance(), self.marks) else { break };
            let rival = rival.clone();
            // Empty, not absent: who restarts has not said anything yet, and is still in the way of others.
            self.node.set_attribute(STORES, String::new());
            self.give_way(&rival).await;
        }
        self.node.daemon().waits_for(None);
    }

    /// Waits until a registry shows this instance with its stores: then it shows everybody who announced before.
    async fn until_seen(&mut self) {
        if !self.node.has_registries() {
            return;
        }
        let (id, announced) = (self.node.id().clone(), announced(self.marks));
        let seen = async {
            let me = |peer: &Instance| peer.id == id && peer.attributes.get(STORES) == Some(&announced);
            while !self.peers.snapshot().iter().any(me) {
                self.peers.changed().await;
            }
        };
        if timeout(LOOK, seen).await.is_err() {
            warn!("no registry answers: cannot tell whether another replica has a store of its own");
        }
    }

    /// Until the rival is no longer in the way.
    async fn give_way(&mut self, rival: &Instance) {
        let why = conflict(rival, self.marks);
        warn!(rival = %rival.id, "not ready: {why}");
        self.node.daemon().waits_for(Some(why));
        let name = &rival.id.name;
        // One that restarts has announced nothing yet: it is still in the way.
        let still = |peer: &Instance| {
            peer.id.name == *name
                && peer.state != State::Left
                && (!peer.attributes.contains_key(STORES) || differs(peer, self.marks))
        };
        while self.peers.snapshot().iter().any(still) {
            self.peers.changed().await;
        }
        info!(rival = %rival.id, "no longer in the way");
    }
}

/// Of two that are up beside each other, with different stores, the later one fails.
async fn watch(node: Node, marks: Vec<StoreMark>, mut peers: Directory) -> anyhow::Result<()> {
    let draining = node.daemon().draining();
    loop {
        let view = peers.snapshot();
        let me = node.instance();
        if me.state == State::Up
            && let Some(rival) = rival(&view, &me, &marks)
        {
            node.daemon().fail(&conflict(rival, &marks));
        }
        if draining.run_until_cancelled(peers.changed()).await.is_none() {
            return Ok(());
        }
    }
}

/// A replica with another store that comes before this one.
fn rival<'a>(peers: &'a [Instance], me: &Instance, marks: &[StoreMark]) -> Option<&'a Instance> {
    let age = |it: &Instance| (it.id.incarnation, it.id.name.clone());
    let before_me = |peer: &Instance| match (me.state, peer.state) {
        (State::Starting, State::Up | State::Draining) => true,
        (State::Starting, State::Starting) | (State::Up, State::Up) => age(peer) < age(me),
        _ => false,
    };
    peers.iter().find(|peer| peer.id.name != me.id.name && before_me(peer) && differs(peer, marks))
}

fn differs(peer: &Instance, marks: &[StoreMark]) -> bool {
    other_store(peer, marks).is_some()
}

/// The store of the peer that does not go with ours, and ours.
fn other_store<'a>(peer: &Instance, marks: &'a [StoreMark]) -> Option<(StoreMark, &'a StoreMark)> {
    let theirs = peer.attributes.get(STORES)?;
    let mut theirs = theirs.split_whitespace().filter_map(|mark| StoreMark::from_str(mark).ok());
    theirs.find_map(|their| {
        let ours = marks.iter().find(|ours| !ours.goes_with(&their))?;
        Some((their, ours))
    })
}

fn announced(marks: &[StoreMark]) -> String {
    marks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn conflict(rival: &Instance, marks: &[StoreMark]) -> String {
    let (name, address) = (&rival.id.name, &rival.grpc_address);
    let Some((theirs, ours)) = other_store(rival, marks) else {
        return format!("{name} at {address} has another store");
    };
    let what = if theirs.id == ours.id {
        "a copy of this store, in a file that only one process can have".to_owned()
    } else {
        format!("another store ({}; this one is {})", theirs.id, ours.id)
    };
    format!(
        "{name} at {address} serves `{}` from {what}: give all replicas one `store` at postgres://…, or end {name}",
        ours.schema
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use shardkeep_types::{DaemonKind, InstanceId, WorldId};

    use super::*;

    fn login(name: &str, incarnation: u64, state: State, marks: &str) -> Instance {
        Instance {
            id: InstanceId { kind: DaemonKind::Login, name: name.into(), incarnation },
            state,
            world: WorldId(0),
            grpc_address: "127.0.0.1:1".into(),
            client_address: String::new(),
            admin_address: String::new(),
            version: String::new(),
            load: 0.0,
            attributes: BTreeMap::from([(STORES.to_owned(), marks.to_owned())]),
        }
    }

    fn marks(texts: &[&str]) -> Vec<StoreMark> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// Who is in the way of an instance of this state that started at 5 on the store 1.
    fn in_the_way(state: State, peer: &Instance) -> bool {
        let me = login("me", 5, state, "accounts/shared/1");
        rival(std::slice::from_ref(peer), &me, &marks(&["accounts/shared/1"])).is_some()
    }

    #[test]
    fn who_serves_comes_first_then_who_started_first() {
        let other = |incarnation, state| login("other", incarnation, state, "accounts/shared/2");
        use State::{Draining, Left, Offline, Starting, Up};
        for (mine, theirs, started, expected) in [
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
            assert_eq!(in_the_way(mine, &other(started, theirs)), expected, "{mine} {theirs} {started}");
        }
    }

    #[test]
    fn only_another_store_is_in_the_way() {
        let up = |name, marks| login(name, 1, State::Up, marks);
        assert!(!in_the_way(State::Starting, &up("other", "accounts/shared/1")));
        assert!(!in_the_way(State::Starting, &up("me", "accounts/shared/2")), "an earlier self");
        assert!(!in_the_way(State::Starting, &up("other", "")), "it has not said");
        assert!(in_the_way(State::Starting, &up("other", "accounts/alone/1")), "a copy");
        assert!(in_the_way(State::Starting, &up("other", "central/shared/7 accounts/shared/2")));
        assert!(!in_the_way(State::Starting, &up("other", "central/shared/7 accounts/shared/1")));
    }

    #[test]
    fn the_operator_reads_who_and_what_to_do() {
        let other = login("login-1", 1, State::Up, "accounts/alone/aa");
        let text = conflict(&other, &marks(&["accounts/alone/bb"]));
        for part in ["login-1 at 127.0.0.1:1", "aa", "bb", "postgres://", "end login-1"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(conflict(&other, &marks(&["accounts/alone/aa"])).contains("a copy"));
    }
}
