//! A chat with an in-memory bus must be the only replica of its world, because two of them would not exchange lines.

use std::time::Duration;

use anyhow::bail;
use shardkeep_cluster::{Directory, Instance, Node};
use tokio::time::timeout;

/// How long to wait until the registry lists this instance, and so all others.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(3);

/// Waits for the registry and checks that there is no earlier replica, before anything is served.
///
/// # Errors
/// Another replica of this world started earlier.
pub(crate) async fn wait_and_check(node: &Node, chats: &mut Directory) -> anyhow::Result<()> {
    let seen = async {
        while !chats.all().iter().any(|chat| chat.id == *node.id()) {
            chats.changed().await;
        }
    };
    if timeout(REGISTRY_TIMEOUT, seen).await.is_err() {
        tracing::warn!("no registry answers: cannot tell whether another chat serves this world");
    }
    check(node, chats)
}

/// # Errors
/// Another replica of this world started earlier.
pub(crate) fn check(node: &Node, chats: &Directory) -> anyhow::Result<()> {
    if let Some(earlier_replica) = earlier_replica(&chats.all(), &node.instance()) {
        bail!(
            "{} serves the chat of this world already, and the bus `memory:` does not reach it: \
             set chat.bus = \"redis://host:port\" for all replicas",
            earlier_replica.id
        );
    }
    Ok(())
}

/// A replica of the same world that started earlier and is alive.
fn earlier_replica<'a>(chats: &'a [Instance], me: &Instance) -> Option<&'a Instance> {
    let start_order = |chat: &Instance| (chat.id.incarnation, chat.id.name.clone());
    chats.iter().find(|chat| {
        chat.world == me.world
            && chat.id.name != me.id.name
            && !chat.state.is_down()
            && start_order(chat) < start_order(me)
    })
}

#[cfg(test)]
mod tests {
    use shardkeep_cluster::State;
    use shardkeep_types::{DaemonKind, InstanceId, WorldId};

    use super::*;

    fn chat(name: &str, incarnation: u64, world: u32, state: State) -> Instance {
        let id = InstanceId { kind: DaemonKind::Chat, name: name.into(), incarnation };
        Instance { world: WorldId(world), ..Instance::new(id, state) }
    }

    #[test]
    fn later_started_replica_yields_to_earlier() {
        let (a, b) = (chat("a", 1, 1, State::Up), chat("b", 2, 1, State::Starting));
        let both = [a.clone(), b.clone()];
        assert_eq!(earlier_replica(&both, &a), None);
        assert_eq!(earlier_replica(&both, &b), Some(&a));
    }

    #[test]
    fn offline_and_other_world_replicas_are_ignored() {
        let me = chat("me", 9, 1, State::Starting);
        let others =
            [chat("dead", 1, 1, State::Offline), chat("far", 1, 2, State::Up), chat("me", 1, 1, State::Up)];
        assert_eq!(earlier_replica(&others, &me), None);
    }
}
