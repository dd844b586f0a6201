//! The gRPC service for moderators.

use shardkeep_daemon::event;
use shardkeep_rpc::chat::{self as proto, chat_server};
use shardkeep_wire::payload::Channel;
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status};

use crate::{
    envelope::{Line, Mute},
    metrics::MUTES,
    mutes::TooManyMutes,
    room::{Now, Room},
};

/// Work on the room, which the actor runs in its turn.
pub(crate) type Job = Box<dyn FnOnce(&mut Room, Now) + Send>;

/// Lines in one reply.
const MAX_LINES: u32 = 1000;

pub(crate) struct Moderation {
    jobs: mpsc::Sender<Job>,
}

impl Moderation {
    /// Bound: 64 jobs. Overflow: the caller waits until its own deadline.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Job>) {
        let (jobs, receiver) = mpsc::channel(64);
        (Self { jobs }, receiver)
    }

    async fn run_in_room<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Room, Now) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let stopped = || Status::unavailable("chat is stopping");
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(|room, now| {
            // Sending fails if the caller has given up.
            let _ = reply.send(job(room, now));
        });
        self.jobs.send(job).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())
    }
}

#[tonic::async_trait]
impl chat_server::Chat for Moderation {
    async fn mute(&self, request: Request<proto::MuteRequest>) -> Result<Response<proto::MuteReply>, Status> {
        let proto::MuteRequest { character, until_ms, reason, issued_ms, restored } = request.into_inner();
        if !(1..=64).contains(&character.len()) {
            return Err(Status::invalid_argument("field `character`: must be 1 to 64 bytes"));
        }
        if !restored {
            event!("mute", name = character, until_ms, reason);
            metrics::counter!(MUTES).increment(1);
        }
        let mute = Mute { name: character, until_ms, issued_ms };
        let muted = self.run_in_room(move |room, now| room.mute(now, mute)).await?;
        muted.map_err(|error: TooManyMutes| Status::resource_exhausted(error.to_string()))?;
        Ok(Response::new(proto::MuteReply {}))
    }

    async fn history(
        &self,
        request: Request<proto::HistoryRequest>,
    ) -> Result<Response<proto::HistoryReply>, Status> {
        let limit = request.into_inner().limit.min(MAX_LINES) as usize;
        let lines = self.run_in_room(move |room, _| room.history.last(limit).map(line).collect()).await?;
        Ok(Response::new(proto::HistoryReply { lines }))
    }
}

fn line(line: &Line) -> proto::Line {
    proto::Line {
        at_ms: line.at_ms,
        channel: channel_name(line.channel).to_owned(),
        from: line.from.clone(),
        to: line.to.clone(),
        text: line.text.clone(),
    }
}

pub(crate) fn channel_name(channel: i32) -> &'static str {
    match Channel::try_from(channel).unwrap_or_default() {
        Channel::Unspecified => "unknown",
        Channel::Say => "say",
        Channel::Zone => "zone",
        Channel::World => "world",
        Channel::Whisper => "whisper",
    }
}
