//! Follows one login replica, tells it which sessions are here, and ends those that login has revoked. After a lost stream
//! it tells all its sessions again, so that no session outlives a revocation that it missed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::{counter, gauge};
use shardkeep_cluster::{Backoff, Directory, Instance, Node};
use shardkeep_rpc::accounts::{
    HeldSession, HeldSessions, Revocation, RevocationList, revocations_client::RevocationsClient,
};
use shardkeep_types::{AccountId, DaemonKind, Generation};
use shardkeep_wire::payload::ErrorCode;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tracing::{debug, info};

use crate::{
    app::App,
    domain::session::Ending,
    metrics::{FOLLOWS, REVOKED},
};

/// Login answers the opening of the stream within this time.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);
/// Login sends something every half second. A stream that is silent for this long is taken for dead.
const STREAM_TIMEOUT: Duration = Duration::from_secs(2);
/// How often login is asked about sessions that came meanwhile.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// Sessions in one message.
const CHUNK: usize = 20_000;
/// Messages on the way to login. Overflow: the stream is taken for dead, and another is opened.
const STREAM_QUEUE: usize = 16;

/// The code as clients know it.
pub(crate) fn client_error_code(code: u32) -> ErrorCode {
    let known = i32::try_from(code).ok().and_then(|code| ErrorCode::try_from(code).ok());
    known.filter(|code| *code != ErrorCode::Unspecified).unwrap_or(ErrorCode::Kicked)
}

/// Follows one replica after the other until `stop`.
pub(crate) async fn follow(app: Arc<App>, node: Node, stop: CancellationToken) {
    let mut logins = node.directory(DaemonKind::Login);
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    let mut before = String::new();
    loop {
        let following = async {
            let login = choose(&mut logins, &before).await;
            let ended = follow_one(&app, &node, &login, &mut backoff).await;
            gauge!(FOLLOWS).set(0.0);
            debug!(login = login.id.name, status = %ended, "no longer follows revocations");
            before = login.id.name;
            backoff.wait().await;
        };
        if stop.run_until_cancelled(following).await.is_none() {
            return;
        }
    }
}

/// A replica that is up; if possible, not the one before.
async fn choose(logins: &mut Directory, before: &str) -> Instance {
    loop {
        let mut up = logins.up();
        up.sort_by(|a, b| (a.id.name == before).cmp(&(b.id.name == before)).then(a.load.total_cmp(&b.load)));
        if let Some(login) = up.into_iter().next() {
            return login;
        }
        logins.changed().await;
    }
}

async fn follow_one(app: &App, node: &Node, login: &Instance, backoff: &mut Backoff) -> Status {
    let (out, requests) = mpsc::channel(STREAM_QUEUE);
    // The table holds the sessions until here; later ones are asked about as they come.
    app.unchecked().take();
    let all_sessions = app.sessions().all();
    let all_sessions: Vec<_> = all_sessions.iter().map(|it| (it.account(), it.generation())).collect();
    let mut client = RevocationsClient::new(node.channel(DaemonKind::Login, &login.grpc_address))
        .max_decoding_message_size(shardkeep_cluster::MESSAGE_LIMIT);
    let opening = client.follow(ReceiverStream::new(requests));
    let mut lists = match tokio::time::timeout(OPEN_TIMEOUT, opening).await {
        Ok(Ok(reply)) => reply.into_inner(),
        Ok(Err(status)) => return status,
        Err(_) => return Status::deadline_exceeded("login does not answer"),
    };
    for chunk in all_sessions.chunks(CHUNK) {
        if out.send(holding(chunk)).await.is_err() {
            return Status::unavailable("login closed the stream");
        }
    }
    info!(login = login.id.name, sessions = all_sessions.len(), "follows revocations");
    gauge!(FOLLOWS).set(1.0);
    backoff.reset();
    let mut check_timer = tokio::time::interval(CHECK_INTERVAL);
    loop {
        tokio::select! {
            list = next(&mut lists) => match list {
                Ok(list) => apply(app, list),
                Err(status) => return status,
            },
            _ = check_timer.tick() => match app.unchecked().take() {
                None => return Status::resource_exhausted("too many new sessions: all are asked about again"),
                Some(unchecked) if unchecked.is_empty() => {}
                Some(unchecked) => if out.try_send(holding(&unchecked)).is_err() {
                    return Status::unavailable("login does not take what this gateway holds");
                },
            },
        }
    }
}

async fn next(lists: &mut Streaming<RevocationList>) -> Result<RevocationList, Status> {
    match tokio::time::timeout(STREAM_TIMEOUT, lists.message()).await {
        Ok(Ok(Some(list))) => Ok(list),
        Ok(Ok(None)) => Err(Status::unavailable("login closed the stream")),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::deadline_exceeded("login is silent")),
    }
}

fn apply(app: &App, list: RevocationList) {
    if let Some(closures) = list.closures {
        app.closures().update(closures, Instant::now());
        app.enforce_closures(&app.sessions().all(), Instant::now());
    }
    for Revocation { account, below_generation, code, detail } in list.revocations {
        let ending = Ending::new(client_error_code(code), detail);
        let ended = app.revoke(AccountId(account), Generation(below_generation), &ending);
        counter!(REVOKED).increment(ended.into());
    }
}

fn holding(sessions: &[(AccountId, Generation)]) -> HeldSessions {
    let held = sessions
        .iter()
        .map(|(account, generation)| HeldSession { account: account.0, generation: generation.0 });
    HeldSessions { held: held.collect() }
}
