//! Whose sessions are over: this gateway follows one login replica, tells it what it holds, and ends what login says
//! has ended. After a time out of reach it says everything it holds again, so nothing that was revoked meanwhile
//! lives on.

use std::{sync::Arc, time::Duration};

use metrics::{counter, gauge};
use parking_lot::Mutex;
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
    core::Core,
    metrics::{FOLLOWS, REVOKED},
    session::{Ending, Session},
};

/// How long login may take to answer the first question.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);
/// Login says something every half second; one that is silent for so long stands still.
const STREAM_TIMEOUT: Duration = Duration::from_secs(2);
/// How often sessions that came meanwhile are asked about.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// Sessions in one message.
const CHUNK: usize = 20_000;
/// Sessions that wait to be asked about. Overflow: all are asked about again.
const MAX_UNCHECKED: usize = 20_000;
/// Messages on the way to login. Overflow: the stream is taken for dead, and another begun.
const STREAM_QUEUE: usize = 16;

/// Sessions that came since login was last asked.
#[derive(Default)]
pub(crate) struct UncheckedSessions(Mutex<Unchecked>);

#[derive(Default)]
struct Unchecked {
    sessions: Vec<(AccountId, Generation)>,
    overflowed: bool,
}

impl UncheckedSessions {
    /// A session began here, or came from elsewhere.
    pub(crate) fn add(&self, session: &Session) {
        let mut waiting = self.0.lock();
        if waiting.sessions.len() < MAX_UNCHECKED {
            waiting.sessions.push((session.account, session.generation));
        } else {
            waiting.overflowed = true;
        }
    }

    /// `None`: there were too many to keep.
    fn take(&self) -> Option<Vec<(AccountId, Generation)>> {
        let Unchecked { sessions, overflowed } = std::mem::take(&mut *self.0.lock());
        (!overflowed).then_some(sessions)
    }
}

impl Core {
    /// Ends what the account runs below that generation; how many sessions that were.
    pub(crate) fn revoke(&self, account: AccountId, below: Generation, code: u32, detail: &str) -> u32 {
        self.tickets.lock().revoke_account(account, below, std::time::Instant::now());
        let mut old = self.sessions.of_account(account);
        old.retain(|session| session.generation < below);
        for session in &old {
            self.end(session, Ending::new(client_error_code(code), detail));
        }
        u32::try_from(old.len()).unwrap_or(u32::MAX)
    }
}

/// The code as clients know it.
pub(crate) fn client_error_code(code: u32) -> ErrorCode {
    let known = i32::try_from(code).ok().and_then(|code| ErrorCode::try_from(code).ok());
    known.filter(|code| *code != ErrorCode::Unspecified).unwrap_or(ErrorCode::Kicked)
}

/// Follows until `stop`, one replica after the other.
pub(crate) async fn follow(core: Arc<Core>, node: Node, stop: CancellationToken) {
    let mut logins = node.directory(DaemonKind::Login);
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    let mut before = String::new();
    loop {
        let following = async {
            let login = choose(&mut logins, &before).await;
            let ended = follow_one(&core, &node, &login, &mut backoff).await;
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

/// A replica that is up; another one than before, if there is one.
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

async fn follow_one(core: &Arc<Core>, node: &Node, login: &Instance, backoff: &mut Backoff) -> Status {
    let (out, requests) = mpsc::channel(STREAM_QUEUE);
    // What comes from here on is asked about as it comes; the rest stands in the table.
    core.unchecked.take();
    let all_sessions = core.sessions.all();
    let all_sessions: Vec<_> = all_sessions.iter().map(|it| (it.account, it.generation)).collect();
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
                Ok(list) => apply(core, list),
                Err(status) => return status,
            },
            _ = check_timer.tick() => match core.unchecked.take() {
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

fn apply(core: &Core, list: RevocationList) {
    if let Some(closures) = list.closures {
        core.apply_closures(closures);
    }
    for Revocation { account, below_generation, code, detail } in list.revocations {
        let ended = core.revoke(AccountId(account), Generation(below_generation), code, &detail);
        counter!(REVOKED).increment(ended.into());
    }
}

fn holding(sessions: &[(AccountId, Generation)]) -> HeldSessions {
    let held = sessions
        .iter()
        .map(|(account, generation)| HeldSession { account: account.0, generation: generation.0 });
    HeldSessions { held: held.collect() }
}
