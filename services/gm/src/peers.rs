//! The daemons the console calls, found in the registry, each call with a deadline.

use std::{collections::BTreeMap, future::Future, time::Duration};

use shardkeep_cluster::{Backoff, Directory, Instance, Leadership, MESSAGE_LIMIT, Node, State};
use shardkeep_rpc::{
    accounts::accounts_client::AccountsClient, billing::billing_client::BillingClient,
    chat::chat_client::ChatClient, control::control_client::ControlClient,
    gateway::gateway_client::GatewayClient, logs::logs_client::LogsClient,
    registry::registry_client::RegistryClient, world::world_client::WorldClient,
    zone::zone_client::ZoneClient,
};
use shardkeep_types::{DaemonKind, WorldId};
use tonic::{Code, Request, Response, Status, transport::Channel};

use crate::error::CommandError;

/// How long a daemon may take to answer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// Live views of every kind of daemon; clones share them.
#[derive(Clone)]
pub(crate) struct Peers {
    node: Node,
    registries: Vec<String>,
    directories: BTreeMap<DaemonKind, Directory>,
}

/// A message to a daemon, with its deadline.
pub(crate) fn with_deadline<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

/// Attempts of a call that may be repeated, while the daemon says that it cannot answer at the moment (a world between
/// two leases, a daemon that restarts).
const ATTEMPTS: u32 = 4;

/// Calls again, a few times, while the daemon is unavailable. For calls that do no harm when repeated.
pub(crate) async fn retry_while_unavailable<C, M, T, F>(
    client: &C,
    message: &M,
    attempt: impl Fn(C, Request<M>) -> F,
) -> Result<T, Status>
where
    C: Clone,
    M: Clone,
    F: Future<Output = Result<Response<T>, Status>>,
{
    let attempt = || attempt(client.clone(), with_deadline(message.clone()));
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(2));
    for _ in 1..ATTEMPTS {
        match attempt().await {
            Err(status) if status.code() == Code::Unavailable => backoff.wait().await,
            other => return other.map(Response::into_inner),
        }
    }
    attempt().await.map(Response::into_inner)
}

/// Says which daemon a refusal came from.
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

    /// Every daemon the registries know, in the order in which a cluster starts them.
    pub(crate) fn all(&self) -> Vec<Instance> {
        let kinds = DaemonKind::DAEMONS.into_iter().chain([DaemonKind::Backend]);
        kinds.filter_map(|kind| self.directories.get(&kind)).flat_map(Directory::all).collect()
    }

    pub(crate) fn directory(&self, kind: DaemonKind) -> Option<&Directory> {
        self.directories.get(&kind)
    }

    /// Those that can be called: up, or finishing.
    pub(crate) fn alive(&self, kind: DaemonKind) -> Vec<Instance> {
        let all = self.directory(kind).map(Directory::all).unwrap_or_default();
        all.into_iter().filter(|instance| matches!(instance.state, State::Up | State::Draining)).collect()
    }

    pub(crate) fn find(&self, kind: DaemonKind, name: &str) -> Result<Instance, CommandError> {
        let found = self.directory(kind).and_then(|directory| directory.get(name));
        found.ok_or_else(|| CommandError::NotFound(format!("there is no {kind} {name}")))
    }

    /// The least busy one.
    pub(crate) fn any(&self, kind: DaemonKind) -> Result<Instance, CommandError> {
        self.directory(kind).and_then(Directory::least_loaded).ok_or(CommandError::NoneRunning(kind))
    }

    /// The active one of every world.
    pub(crate) fn worlds(&self) -> Vec<Instance> {
        let mut worlds = self.alive(DaemonKind::World);
        worlds.retain(|world| world.leadership != Leadership::Standby);
        worlds.sort_by_key(|world| world.world);
        worlds
    }

    /// The active one of this world; of the only one, if `world` is 0.
    pub(crate) fn world(&self, world: WorldId) -> Result<Instance, CommandError> {
        let mut worlds = self.worlds();
        worlds.retain(|instance| world.0 == 0 || instance.world == world);
        match worlds.len() {
            0 => Err(CommandError::NoneRunning(DaemonKind::World)),
            1 => Ok(worlds.remove(0)),
            _ => Err(CommandError::Malformed("there are several worlds: say which".into())),
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

    pub(crate) fn billing_client(&self, instance: &Instance) -> BillingClient<Channel> {
        BillingClient::new(self.channel(instance))
    }

    pub(crate) fn logs_client(&self, instance: &Instance) -> LogsClient<Channel> {
        LogsClient::new(self.channel(instance)).max_decoding_message_size(MESSAGE_LIMIT)
    }

    pub(crate) fn control_client(&self, instance: &Instance) -> ControlClient<Channel> {
        ControlClient::new(self.channel(instance))
    }

    /// Any login: it answers for the accounts, and who it is, for errors.
    pub(crate) fn accounts(&self) -> Result<(AccountsClient<Channel>, Instance), CommandError> {
        let login = self.any(DaemonKind::Login)?;
        Ok((AccountsClient::new(self.channel(&login)), login))
    }

    /// Every registry, by its address.
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
        let answer = retry_while_unavailable(&(), &(), |(), _| {
            attempts.set(attempts.get() + 1);
            let unavailable = Err(Status::unavailable("between two leases"));
            ready(if attempts.get() < 3 { unavailable } else { Ok(Response::new("kicked")) })
        });
        assert_eq!((answer.await.unwrap(), attempts.take()), ("kicked", 3));
        let refused = retry_while_unavailable(&(), &(), |(), _| {
            attempts.set(attempts.get() + 1);
            ready(Err::<Response<()>, _>(Status::not_found("nobody")))
        });
        assert_eq!((refused.await.unwrap_err().code(), attempts.get()), (Code::NotFound, 1));
    }
}
