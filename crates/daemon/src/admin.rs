//! The admin endpoints of every daemon: `/metrics`, `/livez`, `/readyz` and `/config`. They change nothing and show
//! no secrets, but belong on a private address all the same.

use std::{sync::OnceLock, time::Duration};

use anyhow::Context;
use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use toml::Table;

use crate::{
    Daemon,
    catalogue::{Catalogue, CatalogueRecorder},
    http_server::{HttpLimits, serve_http},
    mask::masked,
    process,
};

/// Buckets of every histogram whose name ends in `_seconds`: from a tenth of a millisecond to ten seconds.
const SECONDS_BUCKETS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 2.0, 10.0];
/// Buckets of every other histogram: sizes and counts.
const AMOUNT_BUCKETS: [f64; 10] =
    [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 1_048_576.0];
/// How often the recorder folds what histograms have gathered since the last scrape, so that memory stays bounded
/// when nobody scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// The admin endpoints have their own bound, so that their connections cannot use up the file descriptors that
/// players need.
const LIMITS: HttpLimits = HttpLimits {
    connections: 64,
    head_timeout: Duration::from_secs(10),
    request_timeout: Duration::from_secs(10),
};

#[derive(Clone)]
struct AdminState {
    daemon: Daemon,
    metrics: Metrics,
    config: String,
}

/// What `/metrics` shows.
#[derive(Clone)]
struct Metrics {
    values: PrometheusHandle,
    catalogue: Catalogue,
}

/// The one recorder of this process.
fn recorder() -> anyhow::Result<Metrics> {
    static RECORDER: OnceLock<Metrics> = OnceLock::new();
    if let Some(handle) = RECORDER.get() {
        return Ok(handle.clone());
    }
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)?
        .set_buckets(&AMOUNT_BUCKETS)?
        .build_recorder();
    let handle = Metrics { values: recorder.handle(), catalogue: Catalogue::default() };
    // Two daemons may start side by side in one test process: the first one's recorder serves both.
    if RECORDER.set(handle.clone()).is_ok() {
        let recorder = CatalogueRecorder { recorder, catalogue: handle.catalogue.clone() };
        metrics::set_global_recorder(recorder).context("another metrics recorder is installed")?;
        process::describe();
    }
    Ok(RECORDER.get().cloned().unwrap_or(handle))
}

/// Binds the endpoints and serves them until the daemon has finished.
pub(crate) async fn start(daemon: &Daemon, address: &str, settings: &Table) -> anyhow::Result<()> {
    let metrics = recorder()?;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("admin endpoints: can not listen on {address} (daemon.admin moves them)"))?;
    let bound = listener.local_addr()?;
    daemon.set_admin_address(bound.to_string());
    tracing::info!(address = %bound, "admin endpoints bound");
    let state =
        AdminState { daemon: daemon.clone(), metrics: metrics.clone(), config: masked(settings).to_string() };
    let router = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/config", get(|State(state): State<AdminState>| async { state.config }))
        .with_state(state);
    let finished = daemon.finished();
    daemon.spawn_infrastructure("metrics upkeep", upkeep(metrics.values, finished.clone()));
    daemon.spawn_infrastructure("admin endpoints", async move {
        serve_http("admin", listener, router, LIMITS, finished).await.context("admin endpoints")
    });
    Ok(())
}

async fn upkeep(
    metrics: PrometheusHandle,
    finished: tokio_util::sync::CancellationToken,
) -> anyhow::Result<()> {
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        tokio::select! {
            _ = interval.tick() => metrics.run_upkeep(),
            () = finished.cancelled() => return Ok(()),
        }
    }
}

async fn show_metrics(State(state): State<AdminState>) -> impl IntoResponse {
    process::sample();
    let mut page = state.metrics.values.render();
    state.metrics.catalogue.append_missing(&mut page);
    ([("content-type", "text/plain; version=0.0.4")], page)
}

async fn readyz(State(state): State<AdminState>) -> impl IntoResponse {
    if state.daemon.is_ready() {
        (StatusCode::OK, "ready\n".to_owned())
    } else if state.daemon.draining().is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned())
    } else {
        let reason = state.daemon.not_ready_reason().map_or_else(String::new, |reason| format!(": {reason}"));
        (StatusCode::SERVICE_UNAVAILABLE, format!("starting{reason}\n"))
    }
}
