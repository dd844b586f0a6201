//! Chooses the collector of this daemon's log records: the one in the settings, or a logs daemon from the registry.

use shardkeep_daemon::{Daemon, LogConfig};
use shardkeep_types::DaemonKind;
use tracing::warn;

use crate::{Dialer, Directory, Instance, State, dialer};

/// `logs` returns the directory of the logs daemons.
pub(crate) fn start(daemon: &Daemon, config: &LogConfig, dialer: &Dialer, logs: impl FnOnce() -> Directory) {
    match config.otlp.as_str() {
        "off" => {}
        "" if daemon.kind() == DaemonKind::Logs => {}
        "" => {
            let follow = follow_collector(logs(), dialer.clone(), daemon.clone());
            daemon.spawn_infrastructure("log collector", follow);
        }
        url if url.starts_with("http://") => match dialer::plaintext_channel(url) {
            Ok(channel) => daemon.set_log_collector(Some(channel)),
            Err(error) => warn!(url, %error, "log.otlp is not a URL"),
        },
        address => daemon.set_log_collector(Some(dialer.channel(DaemonKind::Logs, address))),
    }
}

/// Keeps a collector as long as it is up, so that changes of the load move no daemon.
async fn follow_collector(mut directory: Directory, dialer: Dialer, daemon: Daemon) -> anyhow::Result<()> {
    let finished = daemon.finished();
    let mut current: Option<Instance> = None;
    loop {
        let view = directory.snapshot();
        let still_up = current.as_ref().is_some_and(|current| {
            view.iter().any(|instance| instance.id == current.id && instance.state == State::Up)
        });
        // Without a collector the records stay in the queue: the last collector may come back.
        if !still_up && let Some(next) = directory.least_loaded() {
            daemon.set_log_collector(Some(dialer.channel(DaemonKind::Logs, &next.grpc_address)));
            current = Some(next);
        }
        tokio::select! {
            () = directory.changed() => {}
            () = finished.cancelled() => return Ok(()),
        }
    }
}
