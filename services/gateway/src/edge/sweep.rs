//! Reports the load, and expires tickets and sessions whose clients stay away.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::gauge;
use shardkeep_cluster::Node;
use tokio_util::sync::CancellationToken;

use super::worlds::Worlds;
use crate::{
    app::App,
    domain::costs::COSTS,
    metrics::{GROUPS, HOT, LINK_DEAD},
};

const INTERVAL: Duration = Duration::from_millis(500);

pub(crate) async fn run(app: Arc<App>, node: Node, worlds: Arc<Worlds>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        let now = Instant::now();
        let waiting = {
            let mut tickets = app.tickets();
            tickets.expire(now);
            tickets.len()
        };
        HOT.tickets.set(waiting as f64);
        let sessions = app.sessions().all();
        let disconnected = app.sweep(&sessions, now);
        app.enforce_closures(&sessions, now);
        gauge!(GROUPS).set(app.with_groups(|groups| (groups.len(), Vec::new())) as f64);
        gauge!(LINK_DEAD).set(disconnected as f64);
        COSTS.publish();
        // Tickets count too: their players are on the way.
        let load = ((sessions.len() + waiting) as f64 / app.config().capacity as f64).min(1.0);
        node.set_load(load);
        app.balance().update_targets(load, &worlds.other_gateways());
    }
}
