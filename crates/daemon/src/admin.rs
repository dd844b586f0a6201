//! The admin endpoints of every daemon: `/metrics`, `/livez`, `/readyz` and `/config`. They are read-only and mask
//! secrets, but require no authentication: bind them to a private address.

use std::{sync::OnceLock, time::Duration};

use anyhow::Context;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, Uri},
    response::IntoResponse,
    routing::get,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use toml::Table;

use crate::{
    Daemon,
    http_server::{HttpLimits, serve_http},
    mask::masked,
    panics, process,
    recorder::ZeroingRecorder,
};

/// Buckets of every histogram whose name ends in `_seconds`: from a tenth of a millisecond to ten seconds.
const SECONDS_BUCKETS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 2.0, 10.0];
/// Buckets of every other histogram: sizes and counts.
const AMOUNT_BUCKETS: [f64; 10] =
    [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 1_048_576.0];
/// How often the recorder merges the samples of histograms. Without it, memory grows until the next scrape.
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
    metrics: PrometheusHandle,
    config: String,
}

/// The one recorder of this process.
fn recorder() -> anyhow::Result<PrometheusHandle> {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = RECORDER.get() {
        return Ok(handle.clone());
    }
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)?
        .set_buckets(&AMOUNT_BUCKETS)?
        .build_recorder();
    let handle = recorder.handle();
    // Two daemons in one test process share the recorder of the first.
    if RECORDER.set(handle.clone()).is_ok() {
        metrics::set_global_recorder(ZeroingRecorder(recorder))
            .context("another metrics recorder is installed")?;
        process::describe();
        panics::describe();
    }
    Ok(RECORDER.get().cloned().unwrap_or(handle))
}

/// Binds the endpoints, and serves them until the daemon has finished.
pub(crate) async fn start(daemon: &Daemon, address: &str, settings: &Table) -> anyhow::Result<()> {
    let metrics = recorder()?;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("admin endpoints: cannot listen on {address} (daemon.admin moves them)"))?;
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
        .fallback(show_page)
        .with_state(state);
    let finished = daemon.finished();
    daemon.spawn_infrastructure("metrics upkeep", upkeep(metrics, finished.clone()));
    daemon.spawn_infrastructure("admin endpoints", async move {
        serve_http("admin", listener, router, LIMITS, finished).await;
        Ok(())
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
    ([("content-type", "text/plain; version=0.0.4")], state.metrics.render())
}

/// A page that the service has added, such as the registry's `/targets`.
async fn show_page(State(state): State<AdminState>, uri: Uri) -> impl IntoResponse {
    match state.daemon.admin_page(uri.path()) {
        Some(json) => (StatusCode::OK, [("content-type", "application/json")], json),
        None => (StatusCode::NOT_FOUND, [("content-type", "text/plain")], "no such page\n".to_owned()),
    }
}

async fn readyz(State(state): State<AdminState>) -> impl IntoResponse {
    if state.daemon.is_ready() {
        (StatusCode::OK, "ready\n".to_owned())
    } else if state.daemon.draining().is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned())
    } else {
        let reason = match state.daemon.not_ready_reason() {
            reason if reason.is_empty() => "starting".to_owned(),
            reason => format!("not ready: {reason}"),
        };
        (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"))
    }
}
