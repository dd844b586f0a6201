//! The gRPC service for operators: shows and switches the pool that answers come from.

use std::{collections::BTreeMap, time::Duration};

use shardkeep_cluster::{Directory, Instance, Peer, State};
use shardkeep_daemon::unix_millis;
use shardkeep_rpc::dns::{
    ListPoolsReply, ListPoolsRequest, Pool as PoolMessage, SwitchPoolReply, SwitchPoolRequest,
    dns_server::Dns,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tonic::{Request, Response, Status};
use tracing::warn;

use crate::pool::{ATTRIBUTE, LIVE, Pool, Switch, exists};

/// After this time a switch names the servers that do not answer by it yet. A switch usually takes milliseconds.
const SWITCH_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) struct DnsService {
    pub(crate) name: String,
    pub(crate) pools: BTreeMap<String, Pool>,
    pub(crate) switch: watch::Sender<Switch>,
    /// The switch that is in force here.
    pub(crate) served: watch::Receiver<Switch>,
    /// All name servers.
    pub(crate) peers: Directory,
}

impl DnsService {
    /// Waits until every live name server answers from the address pool of this switch, or of a later one. Returns the names
    /// of those that do, then of those that do not before the deadline.
    async fn wait_for_replicas(&self, since_ms: u64) -> (Vec<String>, Vec<String>) {
        let deadline = Instant::now() + SWITCH_TIMEOUT;
        let mut served = self.served.clone();
        let local = timeout_at(deadline, served.wait_for(|served| served.since_ms >= since_ms));
        let local = local.await.is_ok_and(|served| served.is_ok());
        let follows = |peer: &Instance| {
            let advertised = peer.attributes.get(ATTRIBUTE).and_then(|text| Switch::from_attribute(text));
            advertised.is_some_and(|advertised| advertised.since_ms >= since_ms)
        };
        let mut peers = self.peers.clone();
        loop {
            let seen = peers.snapshot();
            let others = seen.iter().filter(|peer| peer.state == State::Up && peer.id.name != self.name);
            let (following, lagging): (Vec<_>, Vec<_>) = others.partition(|peer| follows(peer));
            if lagging.is_empty() || timeout_at(deadline, peers.changed()).await.is_err() {
                let (mut following, mut lagging) = (names(&following), names(&lagging));
                let ours = if local { &mut following } else { &mut lagging };
                ours.push(self.name.clone());
                return (following, lagging);
            }
        }
    }
}

#[tonic::async_trait]
impl Dns for DnsService {
    async fn switch_pool(
        &self,
        request: Request<SwitchPoolRequest>,
    ) -> Result<Response<SwitchPoolReply>, Status> {
        let peer = Peer::of(&request)?;
        let pool = request.into_inner().pool;
        if !exists(&self.pools, &pool) {
            let known: Vec<&str> = self.pools.keys().map(String::as_str).chain([LIVE]).collect();
            return Err(Status::not_found(format!("no pool {pool:?}; there are: {}", known.join(", "))));
        }
        warn!(%peer, pool, "switched by an operator");
        let mut since_ms = unix_millis();
        self.switch.send_modify(|switch| {
            // Later than the switch that it replaces, even if the clock of another replica is ahead.
            since_ms = since_ms.max(switch.since_ms + 1);
            *switch = Switch { since_ms, pool };
        });
        let (answering, lagging) = self.wait_for_replicas(since_ms).await;
        if !lagging.is_empty() {
            warn!(?lagging, "do not answer from the new pool yet");
        }
        Ok(Response::new(SwitchPoolReply { answering, lagging }))
    }

    async fn list_pools(&self, _: Request<ListPoolsRequest>) -> Result<Response<ListPoolsReply>, Status> {
        let switch = self.switch.borrow().clone();
        let live_pool = PoolMessage { name: LIVE.into(), ..PoolMessage::default() };
        let configured = self.pools.iter().map(|(name, pool)| PoolMessage {
            name: name.clone(),
            login: pool.login.clone(),
            gateway: pool.gateway.clone(),
        });
        Ok(Response::new(ListPoolsReply {
            active: switch.pool,
            since_ms: switch.since_ms,
            pools: [live_pool].into_iter().chain(configured).collect(),
        }))
    }
}

fn names(peers: &[&Instance]) -> Vec<String> {
    peers.iter().map(|peer| peer.id.name.clone()).collect()
}
