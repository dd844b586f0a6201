//! One connection to the update service, with requests ahead of their answers.

use std::{collections::VecDeque, net::SocketAddr};

use shardkeep_patch::{ChunkId, signature};
use shardkeep_wire::{
    Message, opcode,
    payload::{ErrorCode, GetPiece, GetRelease, Piece, PublishedRelease},
    preface::Service,
};
use tokio::time::timeout;

use super::error::UpdateError;
use crate::{ClientError, Config, raw::Connection};

/// Most bytes of data in a piece.
const PIECE: u32 = 61_440;
/// A manifest is fetched in parts of this many bytes, two at a time.
const PART: u32 = 1 << 20;

pub struct UpdateConnection {
    connection: Connection,
    config: Config,
    request: u32,
    requested: VecDeque<RequestedRange>,
}

/// A range that was asked for, in pieces.
struct RequestedRange {
    first_request: u32,
    length: u32,
    /// Bytes of what it is a part of.
    total: u32,
}

impl UpdateConnection {
    /// # Errors
    /// No server listens there.
    pub async fn open(config: &Config, address: SocketAddr) -> Result<Self, ClientError> {
        let connection = Connection::open_any(config, address, Service::Update).await?;
        Ok(Self { connection, config: config.clone(), request: 0, requested: VecDeque::new() })
    }

    /// The published release.
    ///
    /// # Errors
    /// Nothing, or the connection is lost.
    pub async fn release(&mut self) -> Result<PublishedRelease, ClientError> {
        self.request += 1;
        self.connection.send(&[Message::request(opcode::GET_RELEASE, self.request, &GetRelease {})]).await?;
        Ok(self.reply(self.request, opcode::GET_RELEASE).await?.decode()?)
    }

    /// The signed manifest of a release. It is the one that was named, and not yet believed.
    ///
    /// # Errors
    /// The server sent another, has replaced it meanwhile, or the connection is lost.
    pub async fn manifest(&mut self, release: &PublishedRelease) -> Result<Vec<u8>, UpdateError> {
        let id = ChunkId::try_from(&release.manifest_id[..]).map_err(|_| UpdateError::WrongManifest)?;
        let total = release.manifest_size;
        if total as usize > signature::MAX {
            return Err(UpdateError::WrongManifest);
        }
        let mut bytes = Vec::new();
        let mut requested = 0;
        while bytes.len() < total as usize {
            while requested < total && self.requested.len() < 2 {
                let length = PART.min(total - requested);
                self.request_range(&id, requested, length, total).await?;
                requested += length;
            }
            bytes.extend_from_slice(
                &self.next_range().await.map_err(|error| not_found(error, UpdateError::ReleaseWithdrawn))?,
            );
        }
        if ChunkId::of(&bytes) == id { Ok(bytes) } else { Err(UpdateError::WrongManifest) }
    }

    /// Asks for bytes of a chunk or manifest that has `total` of them; [`Self::next_range`] gives them, in the order of
    /// asking. Ask for little enough that the requests fit into a socket: a few mebibytes.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn request_range(
        &mut self,
        id: &ChunkId,
        offset: u32,
        length: u32,
        total: u32,
    ) -> Result<(), ClientError> {
        let mut messages = Vec::new();
        self.requested.push_back(RequestedRange { first_request: self.request + 1, length, total });
        for start in (0..length).step_by(PIECE as usize) {
            self.request += 1;
            let piece = GetPiece {
                id: id.as_bytes().to_vec(),
                offset: offset + start,
                length: PIECE.min(length - start),
            };
            messages.push(Message::request(opcode::GET_PIECE, self.request, &piece));
        }
        self.connection.send(&messages).await
    }

    /// The answer to the oldest open request.
    ///
    /// # Errors
    /// The server refuses, does not keep to what was asked for, or the connection is lost.
    pub async fn next_range(&mut self) -> Result<Vec<u8>, ClientError> {
        let Some(RequestedRange { first_request, length, total }) = self.requested.pop_front() else {
            return Err(ClientError::UntrustedServer("nothing was asked for"));
        };
        let mut bytes = Vec::with_capacity(length as usize);
        let mut request = first_request;
        while bytes.len() < length as usize {
            let piece: Piece = self.reply(request, opcode::GET_PIECE).await?.decode()?;
            let left = length as usize - bytes.len();
            if piece.total != total || piece.data.len() != left.min(PIECE as usize) {
                return Err(ClientError::UntrustedServer("a piece has another size"));
            }
            bytes.extend_from_slice(&piece.data);
            request += 1;
        }
        Ok(bytes)
    }

    async fn reply(&mut self, request: u32, opcode: u16) -> Result<Message, ClientError> {
        let reply = timeout(self.config.timing.idle_timeout, self.connection.next());
        let message = reply.await.map_err(|_| ClientError::Timeout("a piece of the update"))??;
        if message.opcode != opcode || message.head.request() != Some(request) {
            return Err(ClientError::Unexpected {
                opcode: message.opcode,
                waiting_for: "a piece of the update",
            });
        }
        Ok(message)
    }
}

/// `then`, if the server does not have what it was asked for.
pub(super) fn not_found(error: ClientError, then: UpdateError) -> UpdateError {
    match error {
        ClientError::Refused(refusal) if refusal.code == ErrorCode::NotFound => then,
        other => other.into(),
    }
}
