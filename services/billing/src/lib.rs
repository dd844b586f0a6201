//! billing: play time. Gateways report the clocks of their sessions, operators sell hours, and who has a prepaid plan
//! is warned before it runs out and leaves when it has.
//!
//! The rules of clocks, plans and the ledger are in [`shardkeep_store::billing`]; everything is in the database
//! before it is acknowledged, so a crash loses at most what gateways have not reported yet, and charges nothing twice.
//!
//! * `service`: the gRPC face.
//! * `enforce`: warnings and kicks, through `gateways`.

mod config;
mod enforce;
mod error;
mod gateways;
mod metrics;
mod service;

use std::time::Duration;

use anyhow::Context as _;
use shardkeep_cluster::{Backoff, MESSAGE_LIMIT, Node};
use shardkeep_daemon::{Daemon, Service, Settings};
use shardkeep_rpc::billing::billing_server::BillingServer;
use shardkeep_store::{Database, Error, Schema, billing::Billing as Ledger};
use shardkeep_types::DaemonKind;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use config::Config;

/// One look at all accounts may not take longer, or the database counts as away.
const LOOK: Duration = Duration::from_secs(10);

/// The daemon.
pub struct Billing;

impl Service for Billing {
    const KIND: DaemonKind = DaemonKind::Billing;
    type Config = Config;

    async fn run(settings: Settings<Config>, daemon: Daemon) -> anyhow::Result<()> {
        metrics::describe();
        let node = Node::join(&settings, &daemon, Self::KIND).await?;
        let Some(database) = open(&settings, &daemon).await? else { return Ok(()) };
        let ledger = Ledger::new(database);
        let config = &settings.service;
        let service = service::BillingService::new(ledger.clone(), config.patience);
        let looks = look(ledger, gateways::Gateways::new(node.clone()), config.clone(), daemon.draining());
        daemon.spawn("enforcement", looks);
        let server = BillingServer::new(service)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        node.serve(Routes::new(server));
        // Calls under way finish while the server closes; whoever is refused then repeats the call elsewhere.
        daemon.draining().cancelled().await;
        Ok(())
    }
}

/// Waits for a database that is still starting; `None` when the drain came first.
async fn open(settings: &Settings<Config>, daemon: &Daemon) -> anyhow::Result<Option<Database>> {
    let url = settings.service.store_url(&settings.daemon.data_dir);
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    loop {
        match Database::open(&url, Schema::Billing).await {
            Ok(database) => return Ok(Some(database)),
            Err(error @ Error::Unavailable(_)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the database is away; waiting for it"
                );
            }
            Err(error) => return Err(error).context("billing.store"),
        }
        if daemon.draining().run_until_cancelled(backoff.wait()).await.is_none() {
            return Ok(None);
        }
    }
}

async fn look(
    ledger: Ledger,
    gateways: gateways::Gateways,
    config: Config,
    draining: CancellationToken,
) -> anyhow::Result<()> {
    let mut ticks = interval(config.check);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while draining.run_until_cancelled(ticks.tick()).await.is_some() {
        let looked = timeout(LOOK, enforce::enforce(&ledger, &gateways, config.silent)).await;
        if let Err(error) = looked.unwrap_or_else(|_| Err(Error::away())) {
            ::metrics::counter!(metrics::STORE_ERRORS, "error" => error.label()).increment(1);
            tracing::warn!(error = &error as &dyn std::error::Error, "prepaid time is not looked at");
        }
    }
    Ok(())
}
