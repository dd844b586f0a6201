//! One connection that fetches: requests are taken one at a time and answered in their order, each when its bytes have
//! their turn. What a client asks ahead waits in its socket.

use std::{
    io,
    time::{Duration, Instant},
};

use shardkeep_patch::ChunkId;
use shardkeep_wire::{
    Message, WireError,
    opcode::{self, Phase},
    payload::{Error as Answer, ErrorCode, GetPiece},
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    Patches, Shared,
    piece::{self, Range},
    store::Blob,
    throttle::Throttle,
};
use crate::{LoginError, connection::Connection, metrics};

/// A client that asks for nothing so long has what it wants.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// When a store is being filled, or published for the first time.
const NO_RELEASE_RETRY: Duration = Duration::from_secs(5);

/// Serves until the client leaves or the daemon does. It always ends with a reason.
pub(crate) async fn serve(
    connection: &mut Connection,
    patches: &Patches,
    draining: &CancellationToken,
) -> Result<std::convert::Infallible, LoginError> {
    connection.enter(Phase::Update);
    let Some(shared) = patches.0.as_deref() else { return Err(LoginError::NoPatches) };
    let slot = shared.slots.admit(connection.peer().ip())?;
    tokio::select! {
        ended = fetch(connection, shared, draining) => ended,
        () = slot.evicted() => Err(LoginError::SlotLost),
    }
}

async fn fetch(
    connection: &mut Connection,
    shared: &Shared,
    draining: &CancellationToken,
) -> Result<std::convert::Infallible, LoginError> {
    let mut fetch =
        Fetch { shared, bandwidth: Throttle::new(shared.config.bandwidth_per_connection), last: None };
    loop {
        while let Some(message) = connection.next(Instant::now())? {
            fetch.answer(connection, &message).await?;
            if draining.is_cancelled() {
                return Err(LoginError::Draining);
            }
        }
        connection.flush().await?;
        tokio::select! {
            filled = connection.fill() => filled?,
            () = draining.cancelled() => return Err(LoginError::Draining),
            () = sleep(IDLE_TIMEOUT) => return Err(LoginError::Timeout("ask for anything")),
        }
    }
}

struct Fetch<'a> {
    shared: &'a Shared,
    bandwidth: Throttle,
    /// What the last piece was of: the next is most often of the same.
    last: Option<(ChunkId, Blob)>,
}

impl Fetch<'_> {
    async fn answer(&mut self, connection: &mut Connection, message: &Message) -> Result<(), LoginError> {
        let request = message.head.request().unwrap_or_default();
        let refusal = match message.opcode {
            opcode::GET_RELEASE => match self.shared.store.published() {
                Some(published) => {
                    let reply = Message::reply(opcode::GET_RELEASE, request, &published.answer);
                    return connection.send(&reply).await;
                }
                None => Answer::of(ErrorCode::Unavailable, "no release is published")
                    .retry_after(NO_RELEASE_RETRY),
            },
            _ => {
                let wanted: GetPiece = message.decode().map_err(WireError::from)?;
                match self.find(&wanted).await? {
                    Ok((blob, range)) => return self.send(connection, request, &blob, range).await,
                    Err(refusal) => refusal,
                }
            }
        };
        metrics::update_refused(refusal.code().as_str_name());
        connection.queue(&Message::error_reply(request, &refusal))
    }

    async fn find(&mut self, wanted: &GetPiece) -> Result<Result<(Blob, Range), Answer>, LoginError> {
        let refuse = |code, reason: &str| Ok(Err(Answer::of(code, reason)));
        let Ok(id) = ChunkId::try_from(wanted.id.as_slice()) else {
            return refuse(ErrorCode::Refused, "an id has 32 bytes");
        };
        if !(1..=piece::MAX).contains(&wanted.length) {
            return refuse(ErrorCode::Refused, "a piece has 1 to 61,440 bytes");
        }
        let blob = match &self.last {
            Some((last, blob)) if *last == id => blob.clone(),
            _ => {
                let found = self.shared.store.open(id, &self.shared.cold_reads).await.map_err(|error| {
                    tracing::error!(%error, chunk = %id, "the store of patches");
                    LoginError::Internal("the store of patches")
                })?;
                let Some(blob) = found else {
                    return refuse(ErrorCode::NotFound, "no such chunk; ask for the release again");
                };
                self.last = Some((id, blob.clone()));
                blob
            }
        };
        if wanted.offset >= blob.size {
            return refuse(ErrorCode::Refused, "the offset is behind the end");
        }
        let range = Range { offset: wanted.offset, length: wanted.length.min(blob.size - wanted.offset) };
        Ok(Ok((blob, range)))
    }

    async fn send(
        &self,
        connection: &mut Connection,
        request: u32,
        blob: &Blob,
        range: Range,
    ) -> Result<(), LoginError> {
        // First the client's own limit: while it waits for that, others use the line.
        for bandwidth in [&self.bandwidth, &self.shared.bandwidth] {
            let wait = bandwidth.reserve(range.length, Instant::now());
            if !wait.is_zero() {
                metrics::update_throttled(wait);
                sleep(wait).await;
            }
        }
        piece::fill_page_cache(&self.shared.cold_reads, blob, range).await?;
        connection.flush().await?;
        let header = piece::header(request, blob.size, range.length);
        let sent = piece::send_piece(connection.stream(), &header, blob, range).await;
        sent.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => LoginError::Timeout("read"),
            io::ErrorKind::InvalidData => LoginError::Internal("a file of the store was cut short"),
            _ => LoginError::from(error),
        })?;
        metrics::update_sent(range.length, range.offset + range.length == blob.size);
        Ok(())
    }
}
