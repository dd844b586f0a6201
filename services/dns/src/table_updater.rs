//! Updates the table when the live replicas change, or when an operator switches the pool.

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
    replicas::Replicas,
    responder::Shared,
    view::{Service, View},
    zone::Zone,
};

/// The sources of the table, and its destination.
pub(crate) struct TableUpdater {
    node: Node,
    zone: Zone,
    shared: Arc<Shared>,
    pools: BTreeMap<String, Pool>,
    replicas: watch::Receiver<Replicas>,
    /// The other name servers, for their switches.
    peers: Directory,
    switch: watch::Sender<Switch>,
    switched: watch::Receiver<Switch>,
    /// The switch that is in force.
    served: watch::Sender<Switch>,
    view: View,
}

impl TableUpdater {
    pub(crate) fn new(
        node: &Node,
        zone: Zone,
        shared: Arc<Shared>,
        pools: BTreeMap<String, Pool>,
        replicas: watch::Receiver<Replicas>,
        switch: watch::Sender<Switch>,
        served: watch::Sender<Switch>,
    ) -> Self {
        Self {
            node: node.clone(),
            zone,
            shared,
            pools,
            replicas,
            peers: node.directory(DaemonKind::Dns),
            switched: switch.subscribe(),
            switch,
            served,
            view: View::default(),
        }
    }

    /// Replaces the table at each change, until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            let switch = self.adopt_latest_switch();
            self.publish(&switch);
            // Published after the table is replaced: the operator relies on it.
            if switch.since_ms > 0 {
                self.node.set_attribute(pool::ATTRIBUTE, switch.attribute());
            }
            self.served.send_replace(switch);
            tokio::select! {
                _ = self.replicas.changed() => {}
                () = self.peers.changed() => {}
                _ = self.switched.changed() => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Adopts the latest switch of all replicas, and returns it.
    fn adopt_latest_switch(&mut self) -> Switch {
        let peers = self.peers.snapshot();
        let changed = self.switch.send_if_modified(|switch| {
            let latest = Switch::latest(switch.clone(), &peers, &self.pools);
            let changed = *switch != latest;
            *switch = latest;
            changed
        });
        let switch = self.switched.borrow_and_update().clone();
        if changed {
            info!(pool = switch.pool, "switched the pool as another replica did");
        }
        switch
    }

    fn publish(&mut self, switch: &Switch) {
        let view = self.view(switch);
        if view.same_except_serial(&self.view) {
            return;
        }
        for service in Service::ALL {
            gauge!(TARGETS, "name" => service.label()).set(view.targets(service).len() as f64);
        }
        counter!(VIEW_CHANGES).increment(1);
        self.shared.table.store(Arc::new(self.zone.table(&view)));
        self.view = view;
    }

    fn view(&mut self, switch: &Switch) -> View {
        let replicas = self.replicas.borrow_and_update();
        let mut view = View::new(replicas.registry_answered, unix_seconds());
        let pool = self.pools.get(&switch.pool);
        for service in Service::ALL {
            let pooled = pool.and_then(|pool| pool.targets(service));
            view.set_targets(service, pooled.unwrap_or_else(|| replicas.targets_of(service).to_vec()));
        }
        view
    }
}

fn unix_seconds() -> u32 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // Serial numbers wrap around (RFC 1982).
    since.as_secs() as u32
}
