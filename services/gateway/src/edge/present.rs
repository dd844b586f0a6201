//! Announces the sessions of this gateway to the leaders of their worlds. After a change of leadership, the gateway holds
//! the client messages of a session until the new leader has accepted the announcement.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use shardkeep_cluster::Instance;
use shardkeep_wire::payload::ErrorCode;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tracing::{debug, info};

use super::worlds::{Worlds, opening};
use crate::{
    app::App,
    domain::session::{Ending, Session},
};

/// Sessions presented to a new leader at a time.
const PRESENT_CONCURRENCY: usize = 64;
/// Pause before sessions that a leader did not take are presented again.
const PRESENT_RETRY: Duration = Duration::from_millis(200);

/// Presents sessions whenever a leader changes, until `stop`.
pub(crate) async fn present_sessions(app: Arc<App>, worlds: Arc<Worlds>, stop: CancellationToken) {
    let mut directory = worlds.directory();
    loop {
        let all_presented = present_all(&app, &worlds).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = directory.changed() => {}
            () = app.unpresented().notified() => {}
            () = tokio::time::sleep(PRESENT_RETRY), if !all_presented => {}
        }
    }
}

async fn present_all(app: &Arc<App>, worlds: &Worlds) -> bool {
    let waiting: Vec<_> = app
        .sessions()
        .all()
        .into_iter()
        .filter_map(|session| {
            let leader = worlds.leader(session.world())?;
            app.bind_leader(&session, &leader.id.name).then_some((session, leader))
        })
        .collect();
    if waiting.is_empty() {
        return true;
    }
    info!(sessions = waiting.len(), "presenting sessions to a new leader");
    stream::iter(waiting)
        .map(|(session, leader)| present_one(app, worlds, session, leader))
        .buffer_unordered(PRESENT_CONCURRENCY)
        .fold(true, |all, taken| std::future::ready(all && taken))
        .await
}

/// Returns false if the leader did not answer, so that the session has to be presented again.
async fn present_one(app: &App, worlds: &Worlds, session: Arc<Session>, leader: Arc<Instance>) -> bool {
    match worlds.open_session(&leader, opening(&session)).await {
        Ok(_) => {
            worlds.session_opened(app, &session, &leader);
            true
        }
        // Another gateway holds the session.
        Err(status) if status.code() == Code::FailedPrecondition => {
            app.end(&session, Ending::Moved);
            true
        }
        Err(status) if matches!(status.code(), Code::Aborted | Code::PermissionDenied | Code::NotFound) => {
            app.end(&session, Ending::new(ErrorCode::Displaced, status.message()));
            true
        }
        Err(status) => {
            debug!(world = session.world().0, %status, "not presented");
            false
        }
    }
}
