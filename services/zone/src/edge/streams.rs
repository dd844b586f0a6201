//! Streams that the zone keeps open: the partition from the world, presence to the world, perceptions to an AI. A
//! stream that ends is opened again, possibly to another replica.

use std::{future::Future, time::Duration};

use shardkeep_cluster::{Backoff, Directory, Instance, MESSAGE_LIMIT, Node};
use shardkeep_daemon::Daemon;
use shardkeep_rpc::{
    ai::ai_client::AiClient,
    world::{WatchPartitionRequest, world_client::WorldClient},
};
use shardkeep_types::DaemonKind;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, transport::Channel};

use crate::{
    domain::command::Command,
    edge::{ai_feed, convert, executor::REPORT_QUEUE, message::Message},
};

const OPEN_DEADLINE: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(crate) struct Streams {
    node: Node,
    messages: mpsc::Sender<Message>,
}

impl Streams {
    pub(crate) fn new(node: Node, messages: mpsc::Sender<Message>) -> Self {
        Self { node, messages }
    }

    /// Keeps all three streams open until the daemon stops.
    pub(crate) fn start(&self, daemon: &Daemon) {
        let (world, ai) = (self.node.directory(DaemonKind::World), self.node.directory(DaemonKind::Ai));
        self.keep_open(daemon, world.clone(), Self::partition);
        self.keep_open(daemon, world, Self::presence);
        self.keep_open(daemon, ai, Self::think);
    }

    fn keep_open<F>(
        &self,
        daemon: &Daemon,
        directory: Directory,
        run: impl Fn(Self, Instance) -> F + Send + 'static,
    ) where
        F: Future<Output = Status> + Send,
    {
        let (streams, stopped) = (self.clone(), daemon.stopped());
        let messages = self.messages.clone();
        let world = self.node.world();
        let reconnect_loop = async move {
            let mut backoff = Backoff::default();
            let mut turn = 0;
            loop {
                if let Some(instance) = choose_instance(&directory, world, turn) {
                    let began = std::time::Instant::now();
                    let ended = run(streams.clone(), instance).await;
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
        };
        daemon.spawn_work("stream of the world", async move {
            tokio::select! {
                () = reconnect_loop => {}
                () = messages.closed() => {}
                () = stopped.cancelled() => {}
            }
        });
    }

    async fn partition(self, world: Instance) -> Status {
        let request = WatchPartitionRequest { zone: Some(self.node.id().into()) };
        let mut client = WorldClient::new(self.channel(DaemonKind::World, &world));
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
                    if self.messages.send(Message::Command(Command::Partition(table))).await.is_err() {
                        return Status::cancelled("this zone is stopping");
                    }
                }
                Err(error) => tracing::error!(%error, "the world's partition makes no sense"),
            }
        }
    }

    async fn presence(self, world: Instance) -> Status {
        let (sender, receiver) = mpsc::channel(REPORT_QUEUE);
        let mut client = WorldClient::new(self.channel(DaemonKind::World, &world));
        if self.messages.send(Message::PresenceStream(sender)).await.is_err() {
            return Status::cancelled("this zone is stopping");
        }
        match client.report_presence(ReceiverStream::new(receiver)).await {
            Ok(_) => Status::unavailable("the world closed the stream"),
            Err(status) => status,
        }
    }

    async fn think(self, ai: Instance) -> Status {
        let (sender, receiver) = mpsc::channel(ai_feed::BATCH_QUEUE);
        let channel = self.channel(DaemonKind::Ai, &ai);
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

    fn channel(&self, kind: DaemonKind, instance: &Instance) -> Channel {
        self.node.channel(kind, &instance.grpc_address)
    }
}

async fn open<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Status::deadline_exceeded("no answer");
    tokio::time::timeout(OPEN_DEADLINE, call).await.map_err(late)?
}

/// The leader of the world, if a replica claims to lead; else the replicas in turn. Only replicas of this world or
/// of all worlds count.
fn choose_instance(directory: &Directory, world: shardkeep_types::WorldId, turn: usize) -> Option<Instance> {
    let of_this_world = |instance: &Instance| instance.world == world || instance.world.0 == 0;
    let all: Vec<Instance> = directory.up().into_iter().filter(of_this_world).collect();
    // Every second attempt ignores the claim, because attributes travel with heartbeats and may be old.
    let leader = all.iter().find(|instance| instance.leads()).filter(|_| turn.is_multiple_of(2));
    leader.or_else(|| all.get(turn % all.len().max(1))).cloned()
}
