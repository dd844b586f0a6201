//! Keeps one link to each backend instance that the registry lists.

use std::sync::Arc;

use shardkeep_cluster::{Directory, Instance, Node, State};
use shardkeep_link::{GatewayLink, Limits, NodeDialer};
use shardkeep_types::DaemonKind;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::items::ItemHandler;
use crate::app::App;

/// Follows one kind of daemon until `stop`.
pub(crate) async fn follow_backends(app: Arc<App>, node: Node, kind: DaemonKind, stop: CancellationToken) {
    let mut directory = node.directory(kind);
    loop {
        let instances = directory.all();
        for instance in instances.iter().filter(|instance| is_alive(instance)) {
            if app.links().get(&instance.id.name).is_none() {
                open(&app, &node, &directory, instance, &stop);
            }
            app.links().set_draining(&instance.id.name, instance.state == State::Draining);
        }
        for name in app.links().names(kind) {
            if !instances.iter().any(|instance| *instance.id.name == *name && is_alive(instance)) {
                close(&app, &name);
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = directory.changed() => {}
        }
    }
}

fn is_alive(instance: &Instance) -> bool {
    matches!(instance.state, State::Up | State::Draining)
}

fn open(app: &Arc<App>, node: &Node, directory: &Directory, instance: &Instance, stop: &CancellationToken) {
    let name = instance.id.name.clone();
    let link = GatewayLink::new(node.id().clone(), &name, Limits::default());
    let stop = stop.child_token();
    app.links().insert(instance.id.kind, link.clone(), stop.clone());
    let dial = NodeDialer { node: node.clone(), directory: directory.clone(), kind: instance.id.kind, name };
    let items = ItemHandler::new(app.clone());
    app.daemon().spawn_work("link", async move { link.run(&dial, &items, &stop).await });
}

fn close(app: &App, name: &str) {
    let Some(info) = app.links().remove(name) else { return };
    info!(backend = name, "link closed: the registry does not list the instance any more");
    app.backend_lost(info.kind, name, info.auto_bind);
    if !app.links().is_served(info.kind) {
        app.routes().remove(info.kind);
    }
}
