//! Chooses the collector of this daemon's log records: the one in the settings, or a logs daemon from the registry.

use shardkeep_daemon::{Daemon, LogConfig};
use shardkeep_types::DaemonKind;
use tracing::warn;

use crate::{Directory, Instance, Node, State, dialer};

pub(crate) fn start(node: &Node, daemon: &Daemon, config: &LogConfig) {
    match config.otlp.as_str() {
        "off" => {}
        "" if node.id().kind == DaemonKind::Logs => {}
        "" => {
            let (directory, node, daemon) = (node.directory(DaemonKind::Logs), node.clone(), daemon.clone());
            daemon.clone().spawn_infrastructure("log collector", follow_collector(directory, node, daemon));
        }
        url if url.starts_with("http://") => match dialer::plaintext_channel(url) {
            Ok(channel) => daemon.set_log_collector(Some(channel)),
            Err(error) => warn!(url, %error, "log.otlp is no URL"),
        },
        address => daemon.set_log_collector(Some(node.channel(DaemonKind::Logs, address))),
    }
}

/// Stays with a collector as long as it is up, so that a change of load moves nobody.
async fn follow_collector(mut directory: Directory, node: Node, daemon: Daemon) -> anyhow::Result<()> {
    let finished = daemon.finished();
    let mut current: Option<Instance> = None;
    loop {
        let view = directory.snapshot();
        let still_up = current.as_ref().is_some_and(|current| {
            view.iter().any(|instance| instance.id == current.id && instance.state == State::Up)
        });
        // While there is none, the records wait where they are: the last collector may come back.
        if !still_up && let Some(next) = directory.least_loaded() {
            daemon.set_log_collector(Some(node.channel(DaemonKind::Logs, &next.grpc_address)));
            current = Some(next);
        }
        tokio::select! {
            () = directory.changed() => {}
            () = finished.cancelled() => return Ok(()),
        }
    }
}
