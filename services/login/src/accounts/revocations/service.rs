//! The gRPC service by which gateways follow revocations and closed worlds.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::Stream;
use shardkeep_cluster::Peer;
use shardkeep_daemon::contained;
use shardkeep_rpc::accounts::{
    HeldSessions, Revocation as ProtoRevocation, RevocationList,
    revocations_server::{Revocations as Service, RevocationsServer},
};
use shardkeep_store::{
    Database,
    accounts::revocations::{self, Revocation},
};
use shardkeep_types::{AccountId, Generation};
use tokio::sync::{
    broadcast::{self, error::RecvError, error::TryRecvError},
    mpsc, watch,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;

use crate::{
    accounts::revocations::hub::{RevocationBatch, Revocations},
    metrics,
    worlds::closures::{Closed, Closures},
};

/// Revocations that follow each other within this time are sent together. Every login is a revocation, and one message for
/// each login to each gateway would cost more than the login's other calls.
const BATCH_WINDOW: Duration = Duration::from_millis(50);
/// How often a follower gets an empty list, which tells it that the stream is alive.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Lists on the way to one follower. Overflow: its task waits, and the backlog of the hub grows.
const FOLLOWER_QUEUE: usize = 16;
/// Revocations in one message. Their details are reasons of bans, of at most some 300 bytes.
const LIST: usize = 10_000;
/// Sessions looked up in one statement.
const CHUNK: usize = 5_000;

pub(crate) struct RevocationsService {
    database: Database,
    revocations: Arc<Revocations>,
    closed: watch::Receiver<Closed>,
    draining: CancellationToken,
}

impl RevocationsService {
    pub(crate) fn server(
        database: Database,
        revocations: Arc<Revocations>,
        closed: watch::Receiver<Closed>,
        draining: CancellationToken,
    ) -> RevocationsServer<Self> {
        RevocationsServer::new(Self { database, revocations, closed, draining })
            .max_decoding_message_size(shardkeep_cluster::MESSAGE_LIMIT)
    }
}

#[tonic::async_trait]
impl Service for RevocationsService {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<RevocationList, Status>> + Send>>;

    async fn follow(
        &self,
        request: Request<Streaming<HeldSessions>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let gateway = Peer::of(&request)?.name;
        let (out, lists) = mpsc::channel(FOLLOWER_QUEUE);
        let follower = Follower {
            database: self.database.clone(),
            // Subscribed before the held sessions are looked up, so that no revocation is missed.
            updates: self.revocations.subscribe(),
            closed: self.closed.clone(),
            holding: request.into_inner(),
            out,
        };
        let draining = self.draining.clone();
        let serving = async move {
            metrics::followers(1.0);
            let ended = draining.run_until_cancelled(follower.serve()).await;
            metrics::followers(-1.0);
            let ended = ended.unwrap_or("this replica drains");
            debug!(gateway, ended, "a gateway no longer follows revocations");
        };
        // A follower only reads shared state.
        tokio::spawn(contained("follower of revocations", serving));
        Ok(Response::new(Box::pin(ReceiverStream::new(lists))))
    }
}

struct Follower {
    database: Database,
    updates: broadcast::Receiver<RevocationBatch>,
    closed: watch::Receiver<Closed>,
    holding: Streaming<HeldSessions>,
    out: mpsc::Sender<Result<RevocationList, Status>>,
}

impl Follower {
    /// Serves one gateway, and returns why that ended.
    async fn serve(mut self) -> &'static str {
        // A new follower is told the closed worlds as soon as they are known.
        self.closed.mark_changed();
        loop {
            let found = tokio::select! {
                Ok(()) = self.closed.changed() => match &*self.closed.borrow_and_update() {
                    Some(closed) => Ok(vec![closures(closed)]),
                    None => continue,
                },
                held = self.holding.message() => match held {
                    Ok(Some(held)) => outdated(&self.database, &held).await.map(lists),
                    Ok(None) | Err(_) => return "the gateway left",
                },
                updates = self.updates.recv() => match updates {
                    Ok(found) => self.batch_updates(found.to_vec()).await.map(lists),
                    Err(RecvError::Lagged(_)) => Err(too_slow()),
                    Err(RecvError::Closed) => return "login ends",
                },
                () = tokio::time::sleep(HEARTBEAT) => Ok(lists(Vec::new())),
            };
            match found {
                Ok(lists) => {
                    for list in lists {
                        if self.out.send(Ok(list)).await.is_err() {
                            return "the gateway disconnected";
                        }
                    }
                }
                Err(status) => {
                    // Fails if the gateway has disconnected.
                    let _ = self.out.send(Err(status)).await;
                    return "the gateway has to connect again";
                }
            }
        }
    }

    /// Adds the revocations of the batch window.
    async fn batch_updates(&mut self, mut found: Vec<Revocation>) -> Result<Vec<Revocation>, Status> {
        tokio::time::sleep(BATCH_WINDOW).await;
        loop {
            match self.updates.try_recv() {
                Ok(list) => found.extend_from_slice(&list),
                Err(TryRecvError::Lagged(_)) => return Err(too_slow()),
                // The next receive sees the end of login.
                Err(TryRecvError::Empty | TryRecvError::Closed) => return Ok(found),
            }
        }
    }
}

fn too_slow() -> Status {
    metrics::follower_cut();
    Status::data_loss(
        "the follower was too slow and missed revocations; connect again and list the held sessions",
    )
}

/// The held sessions whose generation has passed.
async fn outdated(database: &Database, holding: &HeldSessions) -> Result<Vec<Revocation>, Status> {
    let held: Vec<_> =
        holding.held.iter().map(|held| (AccountId(held.account), Generation(held.generation))).collect();
    let mut outdated = Vec::new();
    for chunk in held.chunks(CHUNK) {
        let found = revocations::outdated(database, chunk).await;
        outdated.extend(found.map_err(|error| {
            debug!(%error, "cannot look up the sessions that a gateway holds");
            Status::unavailable("the account store does not answer; try again")
        })?);
    }
    Ok(outdated)
}

/// The messages of these revocations: at least one, because an empty list says that the stream is alive.
fn lists(mut found: Vec<Revocation>) -> Vec<RevocationList> {
    let to_proto = |it: Revocation| ProtoRevocation {
        account: it.account.0,
        below_generation: it.below.0,
        code: it.cause.code,
        detail: it.cause.detail,
    };
    let mut lists = Vec::new();
    loop {
        let rest = found.split_off(found.len().min(LIST));
        let revocations = found.into_iter().map(to_proto).collect();
        lists.push(RevocationList { revocations, closures: None });
        if rest.is_empty() {
            return lists;
        }
        found = rest;
    }
}

fn closures(closed: &Closures) -> RevocationList {
    RevocationList { revocations: Vec::new(), closures: Some(closed.to_proto(Instant::now())) }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use shardkeep_store::accounts::RevocationCause;

    use super::*;

    #[test]
    fn many_revocations_are_sent_in_lists_below_the_message_limit() {
        let banned = Revocation {
            account: AccountId(u64::MAX),
            below: Generation(u64::MAX),
            cause: RevocationCause { code: 9, detail: "r".repeat(300) },
            at_ms: 0,
        };
        let lists = lists(vec![banned; 20_001]);
        let lengths: Vec<_> = lists.iter().map(|list| list.revocations.len()).collect();
        assert_eq!(lengths, [LIST, LIST, 1]);
        assert!(lists.iter().all(|list| list.encoded_len() < shardkeep_cluster::MESSAGE_LIMIT));
    }

    #[test]
    fn no_revocations_are_sent_as_an_empty_list() {
        assert_eq!(lists(Vec::new()), [RevocationList::default()]);
    }
}
