//! The web site: pages rendered here, forms that become commands, and nothing from anywhere else. Every page but the
//! sign-in needs a session, every form its token, and the browser is told to run our own scripts only.

mod action;
mod assets;
mod audit;
mod caller;
mod chat;
mod error;
mod html;
mod layout;
mod limited_listener;
mod logs;
mod map;
mod messages;
mod operators;
mod overview;
mod password;
mod players;
mod sign_in;
mod worlds;

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderName, HeaderValue, header},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{console::Console, metrics};

use limited_listener::{ClientAddress, LimitedListener};

/// Forms are small.
const MAX_BODY_BYTES: usize = 64 << 10;

#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) console: Arc<Console>,
    /// Ends what would go on for ever: streams of the live map.
    pub(crate) draining: CancellationToken,
}

/// Serves until told to stop, and what was begun then.
pub(crate) async fn serve(
    listener: TcpListener,
    console: Arc<Console>,
    draining: CancellationToken,
) -> anyhow::Result<()> {
    let site = Site { console, draining: draining.clone() };
    let service = routes(site).into_make_service_with_connect_info::<ClientAddress>();
    axum::serve(LimitedListener::new(listener), service)
        .with_graceful_shutdown(draining.cancelled_owned())
        .await?;
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

/// What browsers are told with every answer.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    // Addresses of one-time links must not travel on.
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
