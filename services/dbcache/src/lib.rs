//! dbcache is the only daemon that reads and writes game state in the database. Worlds ask it for characters and
//! leadership. Zones ask it to save everything that a crash must not lose.
//!
//! * Hard actions are committed in groups before they are acknowledged. The transaction checks fences, holders and
//!   repeats ([`shardkeep_store::game`]), so any number of replicas on one PostgreSQL agree.
//! * Soft state is acknowledged at once, coalesced, and written within [`Config::write_behind`] (`soft`).
//! * Holdings of characters are cached by version (`cache`).
//! * The certificate of a caller limits the characters it acts for (`caller`), and what it mints and burns (`issuance`).
//! * While the database does not answer, hard calls fail with UNAVAILABLE after [`Config::database_timeout`]. Soft state
//!   waits.

mod cache;
mod caller;
mod config;
mod convert;
mod core;
mod error;
mod fault_point;
mod issuance;
mod layout;
mod metrics;
mod service;
mod soft;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use shardkeep_cluster::{Backoff, MESSAGE_LIMIT, Node};
use shardkeep_daemon::{Daemon, Service, Settings};
use shardkeep_rpc::dbcache::db_cache_server::DbCacheServer;
use shardkeep_store::{
    Database, Schema,
    game::{Committer, CommitterConfig, Game, Observer},
    store_url,
};
use shardkeep_types::DaemonKind;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    cache::BoundedHoldingsCache,
    core::{ATTEMPT_TIMEOUT, Core},
    service::{CallTracker, DbCacheService},
    soft::SoftQueue,
};
pub use config::Config;

/// A drain ends after this time without a call, or after half of the grace time.
const QUIET_PERIOD: Duration = Duration::from_millis(300);

/// The daemon.
pub struct Dbcache;

impl Service for Dbcache {
    const KIND: DaemonKind = DaemonKind::Dbcache;
    type Config = Config;

    async fn run(settings: Settings<Config>, daemon: Daemon) -> anyhow::Result<()> {
        metrics::describe();
        let node = Node::join(&settings, &daemon, Self::KIND).await?;
        let config = &settings.service;
        let url = store_url(&config.store, &settings.daemon.data_dir, "dbcache.db");
        let opened = Database::open_with_retry(&url, Schema::Game);
        let Some(opened) = daemon.draining().run_until_cancelled(opened).await else { return Ok(()) };
        let database = opened.context("dbcache.store")?;
        let identity = database.identity().await.context("dbcache.store")?;
        if !node.ensure_same_store(&[identity]).await {
            return Ok(());
        }
        let handle = daemon.clone();
        let report = move |cause| handle.not_ready_because("store", cause);
        daemon.spawn("store monitor", database.clone().monitor(daemon.draining().cancelled_owned(), report));
        let game = Game::new(database.clone(), Arc::new(BoundedHoldingsCache::new(config.cache)));
        let (committer, writers) = Committer::new(&game, committer_config(config, &database), &observer());
        ::metrics::gauge!(metrics::HARD_WAITING_LIMIT).set(config.hard_queue as f64);
        let done = CancellationToken::new();
        for writer in writers {
            let done = done.clone();
            daemon.spawn("hard actions", async move {
                done.run_until_cancelled(writer.run()).await;
                Ok(())
            });
        }
        let core = Arc::new(Core::new(
            game,
            committer,
            SoftQueue::new(config.soft_queue),
            config.database_timeout,
            settings.daemon.data_dir.clone(),
        ));
        daemon.spawn("write-behind", write_behind(core.clone(), config.write_behind, done.clone()));

        let calls = Arc::new(CallTracker::default());
        let service = DbCacheServer::new(DbCacheService::new(core.clone(), calls.clone()))
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        node.serve(Routes::new(service));

        daemon.draining().cancelled().await;
        wait_until_quiet(&calls, settings.daemon.grace / 2).await;
        calls.finish().await;
        flush_all(&core, &daemon.stopped()).await;
        done.cancel();
        database.close().await;
        Ok(())
    }
}

fn committer_config(config: &Config, database: &Database) -> CommitterConfig {
    let writers = match (config.writers, database.engine_name()) {
        (0, "postgres") => 2,
        (0, _) => 1,
        (writers, _) => writers,
    };
    CommitterConfig { batch: config.batch, writers, queue: config.hard_queue, attempt: ATTEMPT_TIMEOUT }
}

fn observer() -> Observer {
    Arc::new(|actions, took| {
        ::metrics::counter!(metrics::BATCHES).increment(1);
        ::metrics::histogram!(metrics::BATCH_ACTIONS).record(actions as f64);
        ::metrics::histogram!(metrics::BATCH_SECONDS).record(took);
    })
}

async fn write_behind(core: Arc<Core>, every: Duration, done: CancellationToken) -> anyhow::Result<()> {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while done.run_until_cancelled(ticks.tick()).await.is_some() {
        ::metrics::gauge!(metrics::HARD_WAITING).set(core.hard_queue_len() as f64);
        flush(&core).await;
    }
    Ok(())
}

async fn flush(core: &Core) {
    if let Err(error) = core.flush().await {
        ::metrics::counter!(metrics::STORE_ERRORS, "error" => error.label()).increment(1);
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the database failed: soft state waits for a retry"
        );
    }
}

/// Waits for the last calls of zones that drain at the same time.
async fn wait_until_quiet(calls: &CallTracker, at_most: Duration) {
    let end = Instant::now() + at_most;
    loop {
        let before = calls.started();
        sleep(QUIET_PERIOD.min(at_most)).await;
        if calls.started() == before || Instant::now() >= end {
            return;
        }
    }
}

/// Writes soft state until the queue is empty or the grace time is over.
async fn flush_all(core: &Core, stopped: &CancellationToken) {
    let mut backoff = Backoff::default();
    loop {
        flush(core).await;
        if core.soft_queue_is_empty() {
            return;
        }
        if stopped.run_until_cancelled(backoff.wait()).await.is_none() {
            tracing::error!("soft state is lost: the database did not answer within the grace time");
            return;
        }
    }
}
