//! billing: play time. Gateways report the clocks of their sessions, and operators credit hours. Players on a prepaid
//! plan get warnings before their time runs out, and are disconnected when it has.
//!
//! The rules of clocks, plans and the ledger are in [`shardkeep_store::billing`]. Each change is in the database
//! before it is acknowledged, so a crash loses at most what gateways have not reported yet, and charges nothing
//! twice.
//!
//! * `service`: the gRPC interface.
//! * `enforce`: warnings and disconnects, through `gateways`.

mod config;
mod enforce;
mod error;
mod gateways;
mod metrics;
mod prepaid;
mod service;

use std::time::Duration;

use anyhow::Context as _;
use shardkeep_cluster::{MESSAGE_LIMIT, Node};
use shardkeep_daemon::{Daemon, Service, Settings};
use shardkeep_rpc::billing::billing_server::BillingServer;
use shardkeep_store::{Database, Error, Schema, billing::Billing as Ledger, store_url};
use shardkeep_types::DaemonKind;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use config::Config;

/// The time limit of one check of all accounts.
const ENFORCE_TIMEOUT: Duration = Duration::from_secs(10);

/// The daemon.
pub struct Billing;

impl Service for Billing {
    const KIND: DaemonKind = DaemonKind::Billing;
    type Config = Config;

    async fn run(settings: Settings<Config>, daemon: Daemon) -> anyhow::Result<()> {
        metrics::describe();
        let node = Node::join(&settings, &daemon, Self::KIND).await?;
        let config = &settings.service;
        let url = store_url(&config.store, &settings.daemon.data_dir, "billing.db");
        let opened = Database::open_with_retry(&url, Schema::Billing);
        let Some(opened) = daemon.draining().run_until_cancelled(opened).await else { return Ok(()) };
        let database = opened.context("billing.store")?;
        let identity = database.identity().await.context("billing.store")?;
        if !node.ensure_same_store(&[identity]).await {
            return Ok(());
        }
        let handle = daemon.clone();
        let report = move |cause| handle.not_ready_because("store", cause);
        daemon.spawn("store monitor", database.clone().monitor(daemon.draining().cancelled_owned(), report));
        let ledger = Ledger::new(database);
        let service =
            service::BillingService::new(ledger.clone(), config.database_timeout, daemon.draining());
        let enforcement =
            run_enforcement(ledger, gateways::Gateways::new(node.clone()), config.clone(), daemon.draining());
        daemon.spawn("enforcement", enforcement);
        let server = BillingServer::new(service)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        node.serve(Routes::new(server));
        // Calls in flight finish while the server closes. Callers repeat refused calls at another replica.
        daemon.draining().cancelled().await;
        Ok(())
    }
}

async fn run_enforcement(
    ledger: Ledger,
    gateways: gateways::Gateways,
    config: Config,
    draining: CancellationToken,
) -> anyhow::Result<()> {
    let mut ticks = interval(config.check_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while draining.run_until_cancelled(ticks.tick()).await.is_some() {
        let outcome =
            timeout(ENFORCE_TIMEOUT, enforce::enforce(&ledger, &gateways, config.report_timeout)).await;
        if let Err(error) = outcome.unwrap_or_else(|_| Err(Error::timed_out())) {
            ::metrics::counter!(metrics::STORE_ERRORS, "error" => error.label()).increment(1);
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "prepaid time was not checked; the next check repeats it"
            );
        }
    }
    Ok(())
}
