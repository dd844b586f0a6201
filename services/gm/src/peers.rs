//! The daemons that the console calls. They are found in the registry, and each call has a deadline.

use std::{collections::BTreeMap, future::Future, time::Duration};

use shardkeep_cluster::{Backoff, Directory, Instance, Leadership, MESSAGE_LIMIT, Node, State};
use shardkeep_rpc::{
    accounts::accounts_client::AccountsClient, billing::billing_client::BillingClient,
    chat::chat_client::ChatClient, control::control_client::ControlClient,
    dbcache::db_cache_client::DbCacheClient, gateway::gateway_client::GatewayClient,
    logs::logs_client::LogsClient, registry::registry_client::RegistryClient,
    world::world_client::WorldClient, zone::zone_client::ZoneClient,
};
use shardkeep_types::{DaemonKind, WorldId};
use tonic::{Code, Request, Response, Status, transport::Channel};

use crate::error::CommandError;

/// Time for one call.
const DEADLINE: Duration = Duration::from_secs(5);

/// Live views of every kind of daemon; clones share them.
#[derive(Clone)]
pub(crate) struct Peers {
    node: Node,
    registries: Vec<String>,
    directories: BTreeMap<DaemonKind, Directory>,
}

/// A request with the usual deadline.
pub(crate) fn with_deadline<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

/// Attempts of an idempotent call. A daemon is unavailable for a short time while it restarts, and a world while its
/// lease moves to another daemon.
const ATTEMPTS: u32 = 4;

/// Repeats an idempotent call a few times while the daemon answers UNAVAILABLE.
pub(crate) async fn call_while_unavailable<C, M, T, F>(
    client: &C,
    request: impl Fn() -> Request<M>,
    call: impl Fn(C, Request<M>) -> F,
) -> Result<T, Status>
where
    C: Clone,
    F: Future<Output = Result<Response<T>, Status>>,
{
    let attempt = || call(client.clone(), request());
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(2));
    for _ in 1..ATTEMPTS {
        match attempt().await {
            Err(status) if status.code() == Code::Unavailable => backoff.wait().await,
            other => return other.map(Response::into_inner),
        }
    }
    attempt().await.map(Response::into_inner)
}

/// Adds the name of the daemon to its error.
pub(crate) fn peer_error(instance: &Instance) -> impl Fn(Status) -> CommandError {
    let (kind, name) = (instance.id.kind, instance.id.name.clone());
    move |status| CommandError::Peer { kind, name: name.clone(), status }
}

impl Peers {
    pub(crate) fn daemon(&self) -> &shardkeep_daemon::Daemon {
        self.node.daemon()
    }

    pub(crate) fn new(node: &Node, registries: Vec<String>) -> Self {
        let directories = DaemonKind::DAEMONS.into_iter().chain([DaemonKind::Backend]);
        let directories = directories.map(|kind| (kind, node.directory(kind))).collect();
        Self { node: node.clone(), registries, directories }
    }

    /// All daemons that the registries know, in the order in which a cluster starts them.
    pub(crate) fn all(&self) -> Vec<Instance> {
        let kinds = DaemonKind::DAEMONS.into_iter().chain([DaemonKind::Backend]);
        kinds.filter_map(|kind| self.directories.get(&kind)).flat_map(Directory::all).collect()
    }

    pub(crate) fn directory(&self, kind: DaemonKind) -> Option<&Directory> {
        self.directories.get(&kind)
    }

    /// The daemons of a kind that answer calls: those that are up or draining.
    pub(crate) fn alive(&self, kind: DaemonKind) -> Vec<Instance> {
        let all = self.directory(kind).map(Directory::all).unwrap_or_default();
        all.into_iter().filter(|instance| matches!(instance.state, State::Up | State::Draining)).collect()
    }

    /// Like [`Self::alive`], but at least one.
    pub(crate) fn alive_or_error(&self, kind: DaemonKind) -> Result<Vec<Instance>, CommandError> {
        let alive = self.alive(kind);
        if alive.is_empty() { Err(CommandError::NoneRunning(kind)) } else { Ok(alive) }
    }

    pub(crate) fn find(&self, kind: DaemonKind, name: &str) -> Result<Instance, CommandError> {
        let found = self.directory(kind).and_then(|directory| directory.get(name));
        found.ok_or_else(|| CommandError::NotFound(format!("there is no {kind} {name}")))
    }

    /// The daemon of a kind with the lowest load.
    pub(crate) fn any(&self, kind: DaemonKind) -> Result<Instance, CommandError> {
        self.directory(kind).and_then(Directory::least_loaded).ok_or(CommandError::NoneRunning(kind))
    }

    /// The leading daemon of each world.
    pub(crate) fn worlds(&self) -> Vec<Instance> {
        let mut worlds = self.alive(DaemonKind::World);
        worlds.retain(|world| world.leadership != Leadership::Standby);
        worlds.sort_by_key(|world| world.world);
        worlds
    }

    /// The leading daemon of a world. World 0 selects the only world.
    pub(crate) fn world(&self, world: WorldId) -> Result<Instance, CommandError> {
        let mut worlds = self.worlds();
        worlds.retain(|instance| world.0 == 0 || instance.world == world);
        match worlds.len() {
            0 => Err(CommandError::NoneRunning(DaemonKind::World)),
            1 => Ok(worlds.remove(0)),
            _ => Err(CommandError::Malformed("world: there are several worlds; give a number".into())),
        }
    }

    fn channel(&self, instance: &Instance) -> Channel {
        self.node.channel(instance.id.kind, &instance.grpc_address)
    }

    pub(crate) fn world_client(&self, instance: &Instance) -> WorldClient<Channel> {
        WorldClient::new(self.channel(instance)).max_decoding_message_size(MESSAGE_LIMIT)
    }

    pub(crate) fn zone_client(&self, instance: &Instance) -> ZoneClient<Channel> {
        ZoneClient::new(self.channel(instance)).max_decoding_message_size(MESSAGE_LIMIT)
    }

    pub(crate) fn gateway_client(&self, instance: &Instance) -> GatewayClient<Channel> {
        GatewayClient::new(self.channel(instance)).max_decoding_message_size(MESSAGE_LIMIT)
    }

    pub(crate) fn chat_client(&self, instance: &Instance) -> ChatClient<Channel> {
        ChatClient::new(self.channel(instance))
    }

    pub(crate) fn dbcache_client(&self, instance: &Instance) -> DbCacheClient<Channel> {
        DbCacheClient::new(self.channel(instance))
    }

    pub(crate) fn billing_client(&self, instance: &Instance) -> BillingClient<Channel> {
        BillingClient::new(self.channel(instance))
    }

    pub(crate) fn logs_client(&self, instance: &Instance) -> LogsClient<Channel> {
        LogsClient::new(self.channel(instance)).max_decoding_message_size(MESSAGE_LIMIT)
    }

    pub(crate) fn control_client(&self, instance: &Instance) -> ControlClient<Channel> {
        ControlClient::new(self.channel(instance))
    }

    /// A login daemon, which answers for all accounts of the region, and its name for errors.
    pub(crate) fn accounts(&self) -> Result<(AccountsClient<Channel>, Instance), CommandError> {
        let login = self.any(DaemonKind::Login)?;
        Ok((AccountsClient::new(self.channel(&login)), login))
    }

    /// All registries with their addresses.
    pub(crate) fn registries(&self) -> impl Iterator<Item = (&str, RegistryClient<Channel>)> {
        let client = |address: &str| RegistryClient::new(self.node.channel(DaemonKind::Registry, address));
        self.registries.iter().map(move |address| (address.as_str(), client(address)))
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::ready};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn call_is_retried_only_while_peer_is_unavailable() {
        let attempts = Cell::new(0);
        let answer = call_while_unavailable(
            &(),
            || Request::new(()),
            |(), _| {
                attempts.set(attempts.get() + 1);
                let unavailable = Err(Status::unavailable("no leader"));
                ready(if attempts.get() < 3 { unavailable } else { Ok(Response::new("kicked")) })
            },
        );
        assert_eq!((answer.await.unwrap(), attempts.take()), ("kicked", 3));
        let refused = call_while_unavailable(
            &(),
            || Request::new(()),
            |(), _| {
                attempts.set(attempts.get() + 1);
                ready(Err::<Response<()>, _>(Status::not_found("not online")))
            },
        );
        assert_eq!((refused.await.unwrap_err().code(), attempts.get()), (Code::NotFound, 1));
    }
}
