//! Follows the presence stream of the leading world: all avatars first, then each change. While no world leads, the
//! known avatars stay as they are.

use std::time::Duration;

use shardkeep_cluster::{Backoff, Directory, Instance, MESSAGE_LIMIT, Node};
use shardkeep_rpc::world::{PresenceReport, WatchPresenceRequest, world_client::WorldClient};
use shardkeep_types::DaemonKind;
use tokio::{sync::mpsc, time::timeout};
use tonic::Streaming;

/// How long the world may take to answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs until the receiver of `reports` is dropped.
pub(crate) async fn presence(node: Node, reports: mpsc::Sender<PresenceReport>) -> anyhow::Result<()> {
    let mut worlds = node.directory(DaemonKind::World);
    let mut backoff = Backoff::default();
    loop {
        let Some(leader) = leader(&worlds, &node) else {
            tokio::select! {
                () = worlds.changed() => continue,
                () = reports.closed() => return Ok(()),
            }
        };
        let reason = match watch(&node, &leader).await {
            Ok(stream) => {
                tracing::info!(world = leader.id.name, "follows who is in the world");
                backoff.reset();
                match forward(stream, &reports).await {
                    Ok(()) => return Ok(()),
                    Err(reason) => reason,
                }
            }
            Err(reason) => reason,
        };
        tracing::debug!(world = leader.id.name, reason, "does not hear from the world");
        tokio::select! {
            () = backoff.wait() => {}
            () = reports.closed() => return Ok(()),
        }
    }
}

fn leader(worlds: &Directory, node: &Node) -> Option<Instance> {
    worlds.up().into_iter().find(|world| world.world == node.world() && world.leads())
}

async fn watch(node: &Node, leader: &Instance) -> Result<Streaming<PresenceReport>, String> {
    let channel = node.channel(DaemonKind::World, &leader.grpc_address);
    let mut client = WorldClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT);
    match timeout(CALL_TIMEOUT, client.watch_presence(WatchPresenceRequest {})).await {
        Ok(Ok(stream)) => Ok(stream.into_inner()),
        Ok(Err(status)) => Err(status.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// `Ok`: the receiver of `reports` was dropped. An error says why the stream ended.
async fn forward(
    mut stream: Streaming<PresenceReport>,
    reports: &mpsc::Sender<PresenceReport>,
) -> Result<(), String> {
    loop {
        let report = tokio::select! {
            report = stream.message() => report,
            () = reports.closed() => return Ok(()),
        };
        match report {
            Ok(Some(report)) => {
                if reports.send(report).await.is_err() {
                    return Ok(());
                }
            }
            Ok(None) => return Err("the stream ended".to_owned()),
            Err(status) => return Err(status.to_string()),
        }
    }
}
