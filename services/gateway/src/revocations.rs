//! Whose sessions are over: this gateway follows one login replica, tells it what it holds, and ends what login says
//! has ended. After a time out of reach it says everything it holds again, so nothing that was revoked meanwhile
//! lives on.

use std::{sync::Arc, time::Duration};

use metrics::{counter, gauge};
use parking_lot::Mutex;
use shardkeep_cluster::{Backoff, Directory, Instance, Node};
use shardkeep_rpc::accounts::{
    Held, Holding, Revocation, RevocationList, revocations_client::RevocationsClient,
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
const OPEN: Duration = Duration::from_secs(2);
/// Login says something every half second; one that is silent for so long stands still.
const SILENCE: Duration = Duration::from_secs(2);
/// How often sessions that came meanwhile are asked about.
const ASK: Duration = Duration::from_millis(250);
/// Sessions in one message.
const CHUNK: usize = 20_000;
/// Sessions that wait to be asked about. Overflow: all are asked about again.
const MOST_FRESH: usize = 20_000;
/// Messages on the way to login. Overflow: the stream is taken for dead, and another begun.
const ON_THE_WAY: usize = 16;

/// Sessions that came since login was last asked.
#[derive(Default)]
pub(crate) struct Fresh(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    sessions: Vec<(AccountId, Generation)>,
    overflowed: bool,
}

impl Fresh {
    /// A session began here, or came from elsewhere.
    pub(crate) fn note(&self, session: &Session) {
        let mut waiting = self.0.lock();
        if waiting.sessions.len() < MOST_FRESH {
            waiting.sessions.push((session.account, session.generation));
        } else {
            waiting.overflowed = true;
        }
    }

    /// `None`: there were too many to keep.
    fn take(&self) -> Option<Vec<(AccountId, Generation)>> {
        let Waiting { sessions, overflowed } = std::mem::take(&mut *self.0.lock());
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
            self.end(session, Ending::new(spoken(code), detail));
        }
        u32::try_from(old.len()).unwrap_or(u32::MAX)
    }
}

/// The code as clients know it.
pub(crate) fn spoken(code: u32) -> ErrorCode {
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
    let (out, asked) = mpsc::channel(ON_THE_WAY);
    // What comes from here on is asked about as it comes; the rest stands in the table.
    core.fresh.take();
    let everything = core.sessions.all();
    let everything: Vec<_> = everything.iter().map(|it| (it.account, it.generation)).collect();
    let mut client = RevocationsClient::new(node.channel(DaemonKind::Login, &login.grpc_address))
        .max_decoding_message_size(shardkeep_cluster::MESSAGE_LIMIT);
    let opening = client.follow(ReceiverStream::new(asked));
    let mut lists = match tokio::time::timeout(OPEN, opening).await {
        Ok(Ok(reply)) => reply.into_inner(),
        Ok(Err(status)) => return status,
        Err(_) => return Status::deadline_exceeded("login does not answer"),
    };
    for chunk in everything.chunks(CHUNK) {
        if out.send(holding(chunk)).await.is_err() {
            return Status::unavailable("login closed the stream");
        }
    }
    info!(login = login.id.name, sessions = everything.len(), "follows revocations");
    gauge!(FOLLOWS).set(1.0);
    backoff.reset();
    let mut ask = tokio::time::interval(ASK);
    loop {
        tokio::select! {
            list = next(&mut lists) => match list {
                Ok(list) => apply(core, list),
                Err(status) => return status,
            },
            _ = ask.tick() => match core.fresh.take() {
                None => return Status::resource_exhausted("too many new sessions: all are asked about again"),
                Some(fresh) if fresh.is_empty() => {}
                Some(fresh) => if out.try_send(holding(&fresh)).is_err() {
                    return Status::unavailable("login does not take what this gateway holds");
                },
            },
        }
    }
}

async fn next(lists: &mut Streaming<RevocationList>) -> Result<RevocationList, Status> {
    match tokio::time::timeout(SILENCE, lists.message()).await {
        Ok(Ok(Some(list))) => Ok(list),
        Ok(Ok(None)) => Err(Status::unavailable("login closed the stream")),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::deadline_exceeded("login is silent")),
    }
}

fn apply(core: &Core, list: RevocationList) {
    if let Some(closures) = list.closures {
        core.closed(closures);
    }
    for Revocation { account, below_generation, code, detail } in list.revocations {
        let ended = core.revoke(AccountId(account), Generation(below_generation), code, &detail);
        counter!(REVOKED).increment(ended.into());
    }
}

fn holding(sessions: &[(AccountId, Generation)]) -> Holding {
    let held =
        sessions.iter().map(|(account, generation)| Held { account: account.0, generation: generation.0 });
    Holding { held: held.collect() }
}
