//! A chat over its own memory must be the only one of its world: two of them would be two chats.

use std::time::Duration;

use anyhow::bail;
use shardkeep_cluster::{Directory, Instance, Node};
use tokio::time::timeout;

/// How long to wait for the registry to show this instance, and so every other.
const LOOK: Duration = Duration::from_secs(3);

/// Looks around before anything is served.
///
/// # Errors
/// When another chat of this world was here first.
pub(crate) async fn look(node: &Node, chats: &mut Directory) -> anyhow::Result<()> {
    let seen = async {
        while !chats.all().iter().any(|chat| chat.id == *node.id()) {
            chats.changed().await;
        }
    };
    if timeout(LOOK, seen).await.is_err() {
        tracing::warn!("no registry answers: cannot tell whether another chat serves this world");
    }
    check(node, chats)
}

/// # Errors
/// When another chat of this world was here first.
pub(crate) fn check(node: &Node, chats: &Directory) -> anyhow::Result<()> {
    if let Some(elder) = elder(&chats.all(), &node.instance()) {
        bail!(
            "{} serves the chat of this world already, and the bus `memory:` does not reach it: \
             set chat.bus = \"redis://host:port\" for all replicas",
            elder.id
        );
    }
    Ok(())
}

/// A living chat of the same world that started earlier.
fn elder<'a>(chats: &'a [Instance], me: &Instance) -> Option<&'a Instance> {
    let age = |chat: &Instance| (chat.id.incarnation, chat.id.name.clone());
    chats.iter().find(|chat| {
        chat.world == me.world && chat.id.name != me.id.name && !chat.state.is_gone() && age(chat) < age(me)
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
            attributes: BTreeMap::new(),
        }
    }

    #[test]
    fn the_later_of_two_gives_way() {
        let (a, b) = (chat("a", 1, 1, State::Up), chat("b", 2, 1, State::Starting));
        let both = [a.clone(), b.clone()];
        assert_eq!(elder(&both, &a), None);
        assert_eq!(elder(&both, &b), Some(&a));
    }

    #[test]
    fn the_dead_and_other_worlds_do_not_count() {
        let me = chat("me", 9, 1, State::Starting);
        let others =
            [chat("dead", 1, 1, State::Offline), chat("far", 1, 2, State::Up), chat("me", 1, 1, State::Up)];
        assert_eq!(elder(&others, &me), None);
    }
}
