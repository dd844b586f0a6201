//! The gRPC service: one task per stream, one batch at a time. The task takes the next batch after the zone has read
//! the last answer, so a slow zone delays only itself.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use shardkeep_cluster::MESSAGE_LIMIT;
use shardkeep_daemon::contained;
use shardkeep_rpc::ai::{self, ai_server};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info};

use crate::{AiError, BusyTime, Config, Thinker, metrics};

/// Bound of the answers to one zone. Overflow: the task waits and takes no further batch, so nothing is lost.
const ANSWER_QUEUE: usize = 2;
/// A zone that reads no answer for this long counts as lost.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub struct ThinkService {
    config: Config,
    busy: BusyTime,
    streams: Arc<Semaphore>,
    draining: CancellationToken,
}

impl ThinkService {
    pub fn new(config: Config, busy: BusyTime, draining: CancellationToken) -> Self {
        let streams = Arc::new(Semaphore::new(config.max_streams));
        Self { config, busy, streams, draining }
    }

    pub fn into_server(self) -> ai_server::AiServer<Self> {
        ai_server::AiServer::new(self).max_decoding_message_size(MESSAGE_LIMIT)
    }

    async fn serve(
        self,
        mut batches: Streaming<ai::Perceptions>,
        answers: mpsc::Sender<Answer>,
        _: StreamPermit,
    ) {
        let mut thinker = Thinker::new(&self.config);
        while let Some(Some(batch)) = self.draining.run_until_cancelled(batches.next()).await {
            let answer = match batch {
                Ok(batch) => {
                    let result;
                    (thinker, result) = self.think(thinker, batch).await;
                    result
                }
                // The zone disconnected, or its batch is malformed or too large.
                Err(status) => {
                    debug!(%status, "stream ended");
                    Err(status)
                }
            };
            let failed = answer.is_err();
            let sent = answers.send_timeout(answer, SEND_TIMEOUT).await;
            if failed || sent.is_err() {
                return;
            }
        }
    }

    /// Runs on a blocking thread, because a batch may take milliseconds.
    async fn think(&self, mut thinker: Thinker, batch: ai::Perceptions) -> (Thinker, Answer) {
        let config = self.config.clone();
        let blocking_task = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let decisions = thinker.think(batch);
            (thinker, decisions, began.elapsed())
        });
        match blocking_task.await {
            Ok((thinker, Ok(decisions), took)) => {
                self.busy.add(took);
                metrics::batch(took, decisions.paths, decisions.chosen.into_iter());
                (thinker, Ok(decisions.intents))
            }
            Ok((thinker, Err(error), _)) => {
                metrics::refused(error.label());
                (thinker, Err(error.into()))
            }
            Err(_) => (Thinker::new(&config), Err(Status::internal("thinking ended early"))),
        }
    }
}

type Answer = Result<ai::Intents, Status>;

/// One of the concurrent streams.
struct StreamPermit {
    _permit: OwnedSemaphorePermit,
}

impl StreamPermit {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        metrics::streams(1.0);
        Self { _permit: permit }
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        metrics::streams(-1.0);
    }
}

#[tonic::async_trait]
impl ai_server::Ai for ThinkService {
    type ThinkStream = Pin<Box<dyn Stream<Item = Answer> + Send>>;

    async fn think(
        &self,
        request: Request<Streaming<ai::Perceptions>>,
    ) -> Result<Response<Self::ThinkStream>, Status> {
        let permit = Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            let error = AiError::Full(self.config.max_streams);
            metrics::refused(error.label());
            error
        })?;
        info!(peer = ?request.remote_addr(), "a zone asks for thoughts");
        let (sender, answers) = mpsc::channel(ANSWER_QUEUE);
        // The stream owns all that it changes.
        let serving = self.clone().serve(request.into_inner(), sender, StreamPermit::new(permit));
        tokio::spawn(contained("thought stream", serving));
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}
