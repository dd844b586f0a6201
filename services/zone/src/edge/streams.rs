//! Streams that the zone keeps open: the partition from the world, presence to the world, and for each space
//! perceptions to an AI. A stream that ends is opened again, possibly to another replica.

use std::{future::Future, sync::Arc, time::Duration};

use shardkeep_cluster::{Backoff, Directory, Instance, MESSAGE_LIMIT, Node};
use shardkeep_daemon::Daemon;
use shardkeep_rpc::{
    ai::ai_client::AiClient,
    world::{WatchPartitionRequest, world_client::WorldClient},
};
use shardkeep_types::{DaemonKind, WorldId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, transport::Channel};

use crate::{
    domain::command::Command,
    edge::{
        ai_feed, convert,
        executor::REPORT_QUEUE,
        message::{Message, ZoneMessage},
    },
};

const OPEN_DEADLINE: Duration = Duration::from_secs(2);

/// The zone's streams to the world.
#[derive(Clone)]
pub(crate) struct WorldStreams {
    node: Node,
    messages: mpsc::Sender<ZoneMessage>,
}

/// The stream of one space to an AI.
#[derive(Clone)]
struct AiStream {
    node: Node,
    messages: mpsc::Sender<Message>,
}

/// Keeps both streams to the world open until the daemon stops.
pub(crate) fn to_the_world(node: &Node, daemon: &Daemon, messages: &mpsc::Sender<ZoneMessage>) {
    let world = node.directory(DaemonKind::World);
    let streams = WorldStreams { node: node.clone(), messages: messages.clone() };
    let partition = {
        let streams = streams.clone();
        keep_open(node.world(), world.clone(), move |world| streams.clone().partition(world))
    };
    let presence = keep_open(node.world(), world, move |world| streams.clone().presence(world));
    run_until_closed(daemon, messages.clone(), partition);
    run_until_closed(daemon, messages.clone(), presence);
}

/// Keeps the stream of a space to an AI open until the space ends.
pub(crate) fn to_an_ai(node: &Node, daemon: &Daemon, messages: &mpsc::Sender<Message>) {
    let stream = AiStream { node: node.clone(), messages: messages.clone() };
    let think = keep_open(node.world(), node.directory(DaemonKind::Ai), move |ai| stream.clone().think(ai));
    run_until_closed(daemon, messages.clone(), think);
}

fn run_until_closed<M: Send + 'static>(
    daemon: &Daemon,
    messages: mpsc::Sender<M>,
    streams: impl Future<Output = ()> + Send + 'static,
) {
    let stopped = daemon.stopped();
    daemon.spawn_work("stream of the world", async move {
        tokio::select! {
            () = streams => {}
            () = messages.closed() => {}
            () = stopped.cancelled() => {}
        }
    });
}

/// Opens a stream again and again.
async fn keep_open<F>(world: WorldId, directory: Directory, run: impl Fn(Instance) -> F + Send)
where
    F: Future<Output = Status> + Send,
{
    let mut backoff = Backoff::default();
    let mut turn = 0;
    loop {
        if let Some(instance) = choose_instance(&directory, world, turn) {
            let began = std::time::Instant::now();
            let ended = run(instance).await;
            match ended.code() {
                // A standby answers with this code. The leader is asked next.
                Code::FailedPrecondition => {}
                // The next stream will end in the same way.
                Code::OutOfRange => {
                    tracing::error!(status = %ended, "a stream ended: a message is too large");
                }
                _ => tracing::debug!(status = %ended, "a stream ended"),
            }
            if began.elapsed() > OPEN_DEADLINE {
                backoff.reset();
            }
        }
        turn += 1;
        backoff.wait().await;
    }
}

impl WorldStreams {
    async fn partition(self, world: Instance) -> Status {
        let request = WatchPartitionRequest { zone: Some(self.node.id().into()) };
        let mut client = WorldClient::new(channel(&self.node, DaemonKind::World, &world));
        let mut tables = match open(client.watch_partition(request)).await {
            Ok(response) => response.into_inner(),
            Err(status) => return status,
        };
        loop {
            let table = match tables.message().await {
                Ok(Some(table)) => convert::table(table),
                Ok(None) => return Status::unavailable("the world closed the stream"),
                Err(status) => return status,
            };
            match table {
                Ok(table) => {
                    if self.messages.send(ZoneMessage::Partition(Arc::new(table))).await.is_err() {
                        return Status::cancelled("this zone is stopping");
                    }
                }
                Err(error) => tracing::error!(%error, "the world's partition makes no sense"),
            }
        }
    }

    async fn presence(self, world: Instance) -> Status {
        let (sender, receiver) = mpsc::channel(REPORT_QUEUE);
        let mut client = WorldClient::new(channel(&self.node, DaemonKind::World, &world));
        if self.messages.send(ZoneMessage::PresenceStream(sender)).await.is_err() {
            return Status::cancelled("this zone is stopping");
        }
        match client.report_presence(ReceiverStream::new(receiver)).await {
            Ok(_) => Status::unavailable("the world closed the stream"),
            Err(status) => status,
        }
    }
}

impl AiStream {
    async fn think(self, ai: Instance) -> Status {
        let (sender, receiver) = mpsc::channel(ai_feed::BATCH_QUEUE);
        let channel = channel(&self.node, DaemonKind::Ai, &ai);
        let mut client = AiClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT);
        let mut intents = match open(client.think(ReceiverStream::new(receiver))).await {
            Ok(response) => response.into_inner(),
            Err(status) => return status,
        };
        tracing::info!(ai = %ai.id, "creatures think");
        if self.messages.send(Message::AiStream(sender)).await.is_err() {
            return Status::cancelled("this zone is stopping");
        }
        loop {
            match intents.message().await {
                Ok(Some(intents)) => {
                    let intents = Command::Intents(intents.intents.iter().map(convert::intent).collect());
                    if self.messages.send(Message::Command(intents)).await.is_err() {
                        return Status::cancelled("this zone is stopping");
                    }
                }
                Ok(None) => return Status::unavailable("the AI closed the stream"),
                Err(status) => return status,
            }
        }
    }
}

fn channel(node: &Node, kind: DaemonKind, instance: &Instance) -> Channel {
    node.channel(kind, &instance.grpc_address)
}

async fn open<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Status::deadline_exceeded("no answer");
    tokio::time::timeout(OPEN_DEADLINE, call).await.map_err(late)?
}

/// The leader of the world, if a replica claims to lead; else the replicas in turn. Only replicas of this world or
/// of all worlds count.
fn choose_instance(directory: &Directory, world: WorldId, turn: usize) -> Option<Instance> {
    let of_this_world = |instance: &Instance| instance.world == world || instance.world.0 == 0;
    let all: Vec<Instance> = directory.up().into_iter().filter(of_this_world).collect();
    // Every second attempt ignores the claim, because attributes travel with heartbeats and may be old.
    let leader = all.iter().find(|instance| instance.leads()).filter(|_| turn.is_multiple_of(2));
    leader.or_else(|| all.get(turn % all.len().max(1))).cloned()
}
