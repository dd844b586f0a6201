//! Numbers the starts of a daemon. A later start needs a higher number: registries, links and zones treat the
//! instance with the higher number as the living one. The clock alone does not ensure this: a machine may start
//! daemons before it knows the time, and a clock that was ahead is set back.

use std::time::Duration;

use futures::future::join_all;
use shardkeep_rpc::registry::{ListRequest, registry_client::RegistryClient};
use shardkeep_types::DaemonKind;
use tokio::time::timeout;
use tonic::transport::Channel;
use tracing::warn;

use crate::MESSAGE_LIMIT;

/// Time for the registries to return the last incarnation.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(500);

/// The incarnation of this start: the clock, or one more than the last incarnation that any registry knows.
pub(crate) async fn choose(
    registries: impl Iterator<Item = Channel>,
    kind: DaemonKind,
    name: &str,
    now_ms: u64,
) -> u64 {
    let lookups = registries.map(|registry| timeout(LOOKUP_TIMEOUT, last_incarnation(registry, kind, name)));
    // Registries that do not answer are ignored: usually the whole cluster is starting.
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
