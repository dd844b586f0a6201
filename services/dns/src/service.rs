//! The operators' face: which pool the answers come from.

use std::{collections::BTreeMap, time::SystemTime};

use shardkeep_cluster::Peer;
use shardkeep_rpc::dns::{
    ListPoolsReply, ListPoolsRequest, Pool as PoolMessage, SwitchPoolReply, SwitchPoolRequest,
    dns_server::Dns,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tracing::warn;

use crate::pool::{LIVE, Pool, Switch, exists};

pub(crate) struct DnsService {
    pub(crate) pools: BTreeMap<String, Pool>,
    pub(crate) switch: watch::Sender<Switch>,
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
        self.switch.send_modify(|switch| {
            // Later than what it replaces, whatever the clocks of the replicas say.
            let since_ms = unix_millis().max(switch.since_ms + 1);
            *switch = Switch { since_ms, pool };
        });
        Ok(Response::new(SwitchPoolReply {}))
    }

    async fn list_pools(&self, _: Request<ListPoolsRequest>) -> Result<Response<ListPoolsReply>, Status> {
        let switch = self.switch.borrow().clone();
        let live = PoolMessage { name: LIVE.into(), ..PoolMessage::default() };
        let configured = self.pools.iter().map(|(name, pool)| PoolMessage {
            name: name.clone(),
            login: pool.login.clone(),
            gateway: pool.gateway.clone(),
        });
        Ok(Response::new(ListPoolsReply {
            active: switch.pool,
            since_ms: switch.since_ms,
            pools: [live].into_iter().chain(configured).collect(),
        }))
    }
}

fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
