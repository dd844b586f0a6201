//! One connection that fetches a release. Requests are answered one at a time and in order, each when the bandwidth limits
//! allow it. Requests that a client sends ahead wait in its socket.

use std::{
    io,
    time::{Duration, Instant},
};

use shardkeep_connection::{Connection, ConnectionError};
use shardkeep_patch::ChunkId;
use shardkeep_wire::{
    Message, WireError,
    opcode::{self, Phase},
    payload::{Error as Answer, ErrorCode, GetPiece},
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    Patches, UpdateError, metrics,
    patches::Shared,
    piece::{self, Range},
    store::Blob,
    throttle::Throttle,
};

/// A client that requests nothing for this long is disconnected.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// When a client may ask again while no release is published.
const NO_RELEASE_RETRY: Duration = Duration::from_secs(5);

/// Serves until the client disconnects or the daemon drains.
///
/// # Errors
/// Always: the error says why the connection ended.
pub async fn serve(
    connection: &mut Connection,
    patches: &Patches,
    draining: &CancellationToken,
) -> Result<std::convert::Infallible, UpdateError> {
    connection.enter(Phase::Update);
    let Some(shared) = patches.shared() else { return Err(UpdateError::NoPatches) };
    let slot = shared.slots.admit(connection.peer().ip())?;
    tokio::select! {
        ended = fetch(connection, shared, draining) => ended,
        () = slot.evicted() => Err(UpdateError::Evicted),
    }
}

async fn fetch(
    connection: &mut Connection,
    shared: &Shared,
    draining: &CancellationToken,
) -> Result<std::convert::Infallible, UpdateError> {
    let mut fetch = Fetch { shared, bandwidth: Throttle::new(shared.bandwidth_per_connection), last: None };
    loop {
        while let Some(message) = connection.next(Instant::now())? {
            fetch.answer(connection, &message).await?;
            if draining.is_cancelled() {
                return Err(UpdateError::Draining);
            }
        }
        connection.flush().await?;
        tokio::select! {
            filled = connection.fill() => filled?,
            () = draining.cancelled() => return Err(UpdateError::Draining),
            () = sleep(IDLE_TIMEOUT) => return Err(ConnectionError::Timeout("request anything").into()),
        }
    }
}

struct Fetch<'a> {
    shared: &'a Shared,
    bandwidth: Throttle,
    /// The file of the last piece: the next request is usually for the same file.
    last: Option<(ChunkId, Blob)>,
}

impl Fetch<'_> {
    async fn answer(&mut self, connection: &mut Connection, message: &Message) -> Result<(), UpdateError> {
        let request = message.head.request().unwrap_or_default();
        let refusal = match message.opcode {
            opcode::GET_RELEASE => match self.shared.store.published() {
                Some(published) => {
                    let reply = Message::reply(opcode::GET_RELEASE, request, &published.answer);
                    return Ok(connection.send(&reply).await?);
                }
                None => Answer::of(ErrorCode::Unavailable, "no release is published")
                    .retry_after(NO_RELEASE_RETRY),
            },
            _ => {
                let wanted: GetPiece =
                    message.decode().map_err(|error| ConnectionError::from(WireError::from(error)))?;
                match self.find(&wanted).await? {
                    Ok((blob, range)) => return self.send(connection, request, &blob, range).await,
                    Err(refusal) => refusal,
                }
            }
        };
        metrics::request_refused(refusal.code().as_str_name());
        Ok(connection.queue(&Message::error_reply(request, &refusal))?)
    }

    async fn find(&mut self, wanted: &GetPiece) -> Result<Result<(Blob, Range), Answer>, UpdateError> {
        let refuse = |code, reason: &str| Ok(Err(Answer::of(code, reason)));
        let Ok(id) = ChunkId::try_from(wanted.id.as_slice()) else {
            return refuse(ErrorCode::Refused, "the id must have 32 bytes");
        };
        if !(1..=piece::MAX).contains(&wanted.length) {
            return refuse(ErrorCode::Refused, "the length must be 1 to 61,440 bytes");
        }
        let blob = match &self.last {
            Some((last, blob)) if *last == id => blob.clone(),
            _ => {
                let found = self.shared.store.open(id, &self.shared.cold_reads).await.map_err(|error| {
                    tracing::error!(%error, chunk = %id, "cannot open a file of the store of patches");
                    UpdateError::Store("a file cannot be opened")
                })?;
                let Some(blob) = found else {
                    return refuse(
                        ErrorCode::NotFound,
                        "there is no chunk with this id; ask for the release again",
                    );
                };
                self.last = Some((id, blob.clone()));
                blob
            }
        };
        if wanted.offset >= blob.size {
            return refuse(ErrorCode::Refused, "the offset is beyond the end of the file");
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
    ) -> Result<(), UpdateError> {
        // The connection's own limit comes first, so that other clients use the shared bandwidth while it waits.
        for bandwidth in [&self.bandwidth, &self.shared.bandwidth] {
            let wait = bandwidth.reserve(range.length, Instant::now());
            if !wait.is_zero() {
                metrics::throttled(wait);
                sleep(wait).await;
            }
        }
        piece::fill_page_cache(&self.shared.cold_reads, blob, range).await?;
        connection.flush().await?;
        let header = piece::header(request, blob.size, range.length);
        let sent = piece::send_piece(connection.stream(), &header, blob, range).await;
        sent.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => ConnectionError::Timeout("read").into(),
            io::ErrorKind::InvalidData => UpdateError::Store("a file was truncated"),
            _ => UpdateError::from(error),
        })?;
        metrics::sent(range.length, range.offset + range.length == blob.size);
        Ok(())
    }
}
