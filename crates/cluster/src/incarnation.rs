//! Which start of a daemon this is. Later starts have higher numbers, and much rests on that: registries, links and the
//! owners of avatars all take the higher one for the living. A clock alone does not keep the promise. A machine may
//! start its daemons before it knows the time, and a clock that was ahead is set back.

use std::time::Duration;

use futures::future::join_all;
use shardkeep_rpc::registry::{ListRequest, registry_client::RegistryClient};
use shardkeep_types::DaemonKind;
use tokio::time::timeout;
use tonic::transport::Channel;
use tracing::warn;

use crate::MESSAGE_LIMIT;

/// How long the registries may take to say which start was the last.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(500);

/// The number of this start: the clock's, or one more than the last that any registry remembers.
pub(crate) async fn choose(
    registries: impl Iterator<Item = Channel>,
    kind: DaemonKind,
    name: &str,
    now_ms: u64,
) -> u64 {
    let lookups = registries.map(|registry| timeout(LOOKUP_TIMEOUT, last_incarnation(registry, kind, name)));
    // Those that are away are not asked: most often the whole cluster is starting.
    let last_incarnation =
        join_all(lookups).await.into_iter().filter_map(|answer| answer.ok().flatten()).max();
    match last_incarnation {
        Some(last_incarnation) if last_incarnation >= now_ms => {
            let ahead_s = (last_incarnation - now_ms) / 1_000;
            warn!(ahead_s, "the last start of this instance was later, by this machine's clock");
            last_incarnation.saturating_add(1)
        }
        _ => now_ms,
    }
}

async fn last_incarnation(registry: Channel, kind: DaemonKind, name: &str) -> Option<u64> {
    let mut client = RegistryClient::new(registry).max_decoding_message_size(MESSAGE_LIMIT);
    let list = client.list(ListRequest { kinds: vec![kind.to_string()] }).await.ok()?.into_inner();
    let ids = list.instances.into_iter().filter_map(|instance| instance.id);
    ids.filter(|id| id.name == name).map(|id| id.incarnation).max()
}
