//! A chat over its own memory must be the only one of its world: two of them would be two chats.

use std::time::Duration;

use anyhow::bail;
use shardkeep_cluster::{Directory, Instance, Node};
use tokio::time::timeout;

/// How long to wait for the registry to show this instance, and so every other.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(3);

/// Looks around before anything is served.
///
/// # Errors
/// When another chat of this world was here first.
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
/// When another chat of this world was here first.
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

/// A living chat of the same world that started earlier.
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
    use std::collections::BTreeMap;

    use shardkeep_cluster::State;
    use shardkeep_types::{DaemonKind, InstanceId, WorldId};

    use super::*;

    fn chat(name: &str, incarnation: u64, world: u32, state: State) -> Instance {
        Instance {
            id: InstanceId { kind: DaemonKind::Chat, name: name.into(), incarnation },
            state,
            world: WorldId(world),
            grpc_address: String::new(),
            client_address: String::new(),
            admin_address: String::new(),
            version: String::new(),
            load: 0.0,
            leadership: shardkeep_cluster::Leadership::None,
            attributes: BTreeMap::new(),
        }
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
