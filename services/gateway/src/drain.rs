//! Leaving: clients are told another gateway and go there with their sessions; what has not moved when the time is
//! up closes, and its client claims the session elsewhere.

use std::{sync::Arc, time::Duration};

use shardkeep_wire::{Message, opcode, payload::Redirect};
use tokio::time::{Instant, sleep};
use tracing::info;

use crate::{backend::Worlds, core::Core};

const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Connections have so long to be told that the gateway leaves.
const CLOSE_NOTICE_TIME: Duration = Duration::from_millis(500);

/// Redirects everybody and waits until they have gone, but no longer than `grace`, and only while there is another
/// gateway for them.
pub(crate) async fn run(core: &Arc<Core>, worlds: &Worlds, grace: Duration) {
    let others = worlds.other_gateways();
    let sessions = core.sessions.all();
    info!(sessions = sessions.len(), gateways = others.len(), "redirecting sessions");
    if !others.is_empty() {
        for (session, other) in sessions.into_iter().zip(others.iter().cycle()) {
            let redirect = Redirect { gateway: other.client_address.clone() };
            session.lock().out.control(Message::event(opcode::REDIRECT, &redirect).to_bytes());
            session.waker.notify();
        }
        let until = Instant::now() + grace.saturating_sub(2 * CLOSE_NOTICE_TIME);
        // Where all of them leave at once, as when a cluster ends, there is nowhere left to go.
        while core.sessions.len() > 0 && Instant::now() < until && !worlds.other_gateways().is_empty() {
            sleep(POLL_INTERVAL).await;
        }
    }
    core.leave();
    if core.sessions.len() > 0 {
        info!(sessions = core.sessions.len(), "leaving sessions to be claimed");
        sleep(CLOSE_NOTICE_TIME).await;
    }
}
