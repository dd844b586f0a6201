//! The HTTP server of the console: its bounds, its routes and the headers of all responses.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderName, HeaderValue, header},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use shardkeep_daemon::{HttpLimits, serve_http};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    action, assets, audit, chat, error, live_stream, logs, map, messages, operators, overview, password,
    players, sign_in, site::Site, worlds,
};
use crate::{console::Console, metrics};

const LIMITS: HttpLimits = HttpLimits {
    connections: 512,
    head_timeout: Duration::from_secs(10),
    // Longer than the longest command.
    request_timeout: Duration::from_secs(30),
};
/// Bound of a form.
const MAX_BODY_BYTES: usize = 64 << 10;

/// Serves the console until the daemon drains, then lets requests in flight finish.
pub(crate) async fn serve(
    listener: TcpListener,
    console: Arc<Console>,
    draining: CancellationToken,
) -> anyhow::Result<()> {
    let router = routes(Site::new(console, draining.clone()));
    serve_http("console", listener, router, LIMITS, draining).await;
    Ok(())
}

fn routes(site: Site) -> Router {
    Router::new()
        .route("/", get(overview::page))
        .route("/worlds", get(worlds::page))
        .route("/players", get(players::page))
        .route("/map", get(map::page))
        .route("/map/events", get(map::events))
        .route("/chat", get(chat::page))
        .route("/messages", get(messages::page))
        .route("/audit", get(audit::page))
        .route("/logs", get(logs::page))
        .route("/operators", get(operators::page))
        .route("/password", get(password::page).post(password::set))
        .route("/live/{page}", get(live_stream::events))
        .route("/do/{command}", post(action::execute))
        .route("/sign-in", get(sign_in::page).post(sign_in::submit))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/link/{token}", get(sign_in::link_page).post(sign_in::follow_link))
        .route("/static/{file}", get(assets::file))
        .fallback(error::not_found)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(add_security_headers))
        .with_state(site)
}

/// Headers of all responses.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    // The address of a one-time link must not reach another site.
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];

async fn add_security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    metrics::request(response.status().as_u16());
    response
}
