//! Sends the stored mutes to each chat daemon that starts. Chat daemons keep mutes in memory only.

use std::{collections::BTreeSet, time::Duration};

use shardkeep_cluster::{Backoff, Instance, State};
use shardkeep_daemon::unix_millis;
use shardkeep_rpc::chat::MuteRequest;
use shardkeep_store::{Database, mutes};
use shardkeep_types::{DaemonKind, InstanceId};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tracing::{info, warn};

use crate::{
    error::CommandError,
    peers::{Peers, peer_error, with_deadline},
};

/// Mutes read at once.
const PAGE: u32 = 1_000;

/// Follows the chat daemons until `stop`.
pub(crate) async fn follow(peers: Peers, database: Database, stop: CancellationToken) -> anyhow::Result<()> {
    let Some(mut chats) = peers.directory(DaemonKind::Chat).cloned() else { return Ok(()) };
    let mut informed: BTreeSet<InstanceId> = BTreeSet::new();
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        let mut running = chats.all();
        running.retain(|chat| !matches!(chat.state, State::Offline | State::Left));
        informed.retain(|id| running.iter().any(|chat| chat.id == *id));
        let mut failed = false;
        for chat in running.iter().filter(|chat| !informed.contains(&chat.id)).cloned().collect::<Vec<_>>() {
            let sent = stop.run_until_cancelled(send_all(&peers, &database, &chat)).await;
            match sent {
                None => return Ok(()),
                Some(Ok(count)) => {
                    info!(chat = chat.id.name, count, "mutes sent");
                    informed.insert(chat.id);
                }
                Some(Err(error)) => {
                    failed = true;
                    warn!(chat = chat.id.name, %error, "mutes could not be sent; trying again");
                }
            }
        }
        if !failed {
            backoff.reset();
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = backoff.wait(), if failed => {}
            () = chats.changed(), if !failed => {}
        }
    }
}

/// Sends all active mutes to a chat daemon. Returns how many.
async fn send_all(peers: &Peers, database: &Database, chat: &Instance) -> Result<usize, CommandError> {
    let mut client = peers.chat_client(chat);
    let (mut count, mut after) = (0, String::new());
    loop {
        let page = mutes::active(database, unix_millis(), &after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(count) };
        after.clone_from(&last.name);
        count += page.len();
        for mute in page {
            let request = MuteRequest {
                character: mute.name,
                until_ms: mute.until_ms,
                issued_ms: mute.issued_ms,
                restored: true,
                reason: String::new(),
            };
            match client.mute(with_deadline(request)).await {
                // One row that the daemon cannot use must not keep back the others.
                Err(status) if status.code() == Code::InvalidArgument => {
                    warn!(chat = chat.id.name, error = status.message(), "a stored mute was refused");
                }
                sent => drop(sent.map_err(peer_error(chat))?),
            }
        }
    }
}
