//! Keeps the view up to date: the live directories, or the pool that an operator has put in their place.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use metrics::{counter, gauge};
use shardkeep_cluster::{Directory, Node};
use shardkeep_types::DaemonKind;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    metrics::{TARGETS, VIEW_CHANGES},
    pool::{self, Pool, Switch},
    server::Responder,
    view::{self, Service, View},
};

/// Where answers come from.
pub(crate) struct Live {
    login: Directory,
    gateway: Directory,
    name_server: Directory,
    pools: BTreeMap<String, Pool>,
    switch: watch::Sender<Switch>,
    switched: watch::Receiver<Switch>,
    node: Node,
}

impl Live {
    pub(crate) fn new(node: &Node, pools: BTreeMap<String, Pool>, switch: watch::Sender<Switch>) -> Self {
        Self {
            login: node.directory(DaemonKind::Login),
            gateway: node.directory(DaemonKind::Gateway),
            name_server: node.directory(DaemonKind::Dns),
            pools,
            switched: switch.subscribe(),
            switch,
            node: node.clone(),
        }
    }

    /// Replaces the view at each change, until `stop`.
    pub(crate) async fn keep(
        mut self,
        responder: Arc<Responder>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        loop {
            self.follow_switch();
            let view = self.view().await;
            if !view.says_the_same(&responder.view.read()) {
                for service in Service::ALL {
                    gauge!(TARGETS, "name" => service.label()).set(view.targets(service).len() as f64);
                }
                counter!(VIEW_CHANGES).increment(1);
                *responder.view.write() = Arc::new(view);
            }
            tokio::select! {
                () = self.login.changed() => {}
                () = self.gateway.changed() => {}
                () = self.name_server.changed() => {}
                _ = self.switched.changed() => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Adopts the latest switch, and tells the other replicas ours.
    fn follow_switch(&mut self) {
        let others = self.name_server.all();
        let changed = self.switch.send_if_modified(|switch| {
            let latest = Switch::latest(switch.clone(), &others, &self.pools);
            let changed = *switch != latest;
            *switch = latest;
            changed
        });
        let switch = self.switched.borrow_and_update().clone();
        if changed {
            info!(pool = switch.pool, "follow another replica's switch");
        }
        if switch.since_ms > 0 {
            self.node.set_attribute(pool::ATTRIBUTE, switch.attribute());
        }
    }

    async fn view(&mut self) -> View {
        // Both kinds that players need must have been heard of before an empty list is a fact.
        let heard = self.login.heard() && self.gateway.heard();
        let mut view = View::new(heard, unix_seconds());
        let pool = self.pools.get(&self.switched.borrow().pool).cloned().unwrap_or_default();
        for service in Service::ALL {
            let instances = match service {
                Service::Login => self.login.snapshot(),
                Service::Gateway => self.gateway.snapshot(),
                Service::NameServer => self.name_server.snapshot(),
            };
            let targets = match pool.targets(service) {
                Some(targets) => targets,
                None => view::targets(&instances).await,
            };
            view.set_targets(service, targets);
        }
        view
    }
}

fn unix_seconds() -> u32 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // Serial numbers wrap around (RFC 1982).
    since.as_secs() as u32
}
