//! Collects the log records and player events of every daemon by OTLP/gRPC, keeps them in one searchable SQLite
//! file per day, and answers read-only SQL. Without this daemon logs are lost, and play goes on.

mod archive;
mod config;
mod day;
mod error;
mod forward;
mod metrics;
mod query;
mod receive;
mod record;
mod retention;
mod row;
mod sandbox;
mod select;
mod storage;
mod writer;

use std::{sync::Arc, time::SystemTime};

use anyhow::Context;
use shardkeep_cluster::Node;
use shardkeep_daemon::{Daemon, Service, Settings};
use shardkeep_types::DaemonKind;
use tonic::service::Routes;

pub use archive::Archive;
pub use config::Config;
pub use day::{Clock, Day};
pub use error::LogsError;
pub use forward::{ForwardHandle, Forwarder};
pub use query::QueryService;
pub use receive::Receiver;
pub use writer::Writer;

pub struct Logs;

impl Service for Logs {
    const KIND: DaemonKind = DaemonKind::Logs;
    type Config = Config;

    async fn run(settings: Settings<Config>, daemon: Daemon) -> anyhow::Result<()> {
        metrics::describe();
        let folder = settings.daemon.data_dir.join(&settings.service.folder);
        let archive = Archive::open(&folder).context("opening the log files")?;
        let node = Node::join(&settings, &daemon, Self::KIND).await?;
        let clock: Clock = Arc::new(SystemTime::now);
        let (writer, sender) = Writer::new(archive.clone(), &settings.service, Arc::clone(&clock));
        let forward = forward(&settings.service, &daemon)?;
        let receiver = Receiver::new(sender, Arc::clone(&clock), forward);
        let query = QueryService::new(archive, &settings.service, clock);
        let handle = daemon.clone();
        let writer = writer.on_outage(move |cause| handle.not_ready_because("store", cause));
        let (draining, stopped) = (daemon.draining(), daemon.stopped());
        daemon.spawn("writer", async move {
            writer.run(draining, stopped).await;
            Ok(())
        });
        node.serve(Routes::new(receiver.into_server()).add_service(query.into_server()));
        daemon.draining().cancelled().await;
        Ok(())
    }
}

/// Starts forwarding if the settings name an outside collector.
fn forward(config: &Config, daemon: &Daemon) -> anyhow::Result<Option<ForwardHandle>> {
    if config.forward.is_empty() {
        return Ok(None);
    }
    let (forward, forwarder) = ForwardHandle::to(&config.forward)?;
    let draining = daemon.draining();
    daemon.spawn("forwarder", async move {
        forwarder.run(draining).await;
        Ok(())
    });
    Ok(Some(forward))
}
