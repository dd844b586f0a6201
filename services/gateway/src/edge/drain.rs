//! Drains the gateway: clients are redirected to other gateways and take their sessions with them. Connections that are
//! still open when the grace time is over are closed; their clients claim the sessions elsewhere.

use std::time::Duration;

use shardkeep_wire::{Message, opcode};
use tokio::time::{Instant, sleep};
use tracing::info;

use super::worlds::Worlds;
use crate::{app::App, domain::balance::redirect_to};

const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Time for connections to tell their clients that the gateway leaves.
const CLOSE_NOTICE_TIME: Duration = Duration::from_millis(500);

/// Redirects all sessions and waits until they have gone, for at most `grace`, and only while another gateway is up.
pub(crate) async fn run(app: &App, worlds: &Worlds, grace: Duration) {
    let others = worlds.other_gateways();
    let sessions = app.sessions().all();
    info!(sessions = sessions.len(), gateways = others.len(), "redirecting sessions");
    if !others.is_empty() {
        for (session, other) in sessions.into_iter().zip(others.iter().cycle()) {
            let redirect = redirect_to(other);
            session.lock().control(Message::event(opcode::REDIRECT, &redirect).to_bytes());
            session.waker().notify();
        }
        let until = Instant::now() + grace.saturating_sub(2 * CLOSE_NOTICE_TIME);
        // When a whole cluster ends, all gateways leave at once.
        while app.sessions().len() > 0 && Instant::now() < until && !worlds.other_gateways().is_empty() {
            sleep(POLL_INTERVAL).await;
        }
    }
    app.close_connections();
    if app.sessions().len() > 0 {
        info!(sessions = app.sessions().len(), "leaving sessions to be claimed");
        sleep(CLOSE_NOTICE_TIME).await;
    }
}
