//! `[dns]`. The zone itself is `cluster.zone`: clients need it too.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};
use shardkeep_daemon::Validate;

use crate::pool::{self, LIVE, Pool};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address for queries, UDP and TCP. Port 0 takes a free one.
    pub listen: String,
    /// `host:port` that others should ask, where it differs from the bound address.
    pub advertise: String,
    /// Seconds for which an answer may be kept, 0 to 5: how long players may still be sent to a lost replica.
    pub ttl_s: u32,
    /// Seconds for which "no such name" and "no address" may be kept, 0 to 5.
    pub negative_ttl_s: u32,
    /// Addresses in one answer, 1 to 16. Fewer than there are replicas makes their weights count more, because
    /// resolvers shuffle what they get.
    pub max_answers: usize,
    /// TCP connections at a time; further ones are closed at once.
    pub tcp_connections: usize,
    /// The pool that answers come from until an operator switches: `live`, or one of `pools`.
    pub pool: String,
    /// `[dns.pools.<name>]`: addresses to switch to, to step out of a flood.
    pub pools: BTreeMap<String, Pool>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:5353".into(),
            advertise: String::new(),
            ttl_s: 5,
            negative_ttl_s: 2,
            max_answers: 4,
            tcp_connections: 256,
            pool: LIVE.into(),
            pools: BTreeMap::new(),
        }
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), String> {
        if self.listen.parse::<SocketAddr>().is_err() {
            return Err(format!("listen: {:?} is not an address with a port", self.listen));
        }
        if self.ttl_s > 5 {
            return Err("ttl_s: must be at most 5, or players are sent to replicas that are gone".into());
        }
        if self.negative_ttl_s > 5 {
            return Err("negative_ttl_s: must be at most 5".into());
        }
        if !(1..=16).contains(&self.max_answers) {
            return Err("max_answers: must be 1 to 16".into());
        }
        if self.tcp_connections == 0 {
            return Err("tcp_connections: must be at least 1".into());
        }
        for (name, pool) in &self.pools {
            if name == LIVE {
                return Err(format!("pools: {LIVE:?} is the name of what the registry says"));
            }
            pool.validate().map_err(|wrong| format!("pools: {name}: {wrong}"))?;
        }
        if !pool::exists(&self.pools, &self.pool) {
            return Err(format!("pool: there is no [dns.pools.{}]", self.pool));
        }
        Ok(())
    }
}
