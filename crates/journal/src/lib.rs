//! The journal of a space: every input and every tick of its simulation in order, on disk, so that a run can be replayed.
//!
//! [`Recorder`] encodes, without I/O. [`Journal`] writes on a separate thread and never blocks a tick. [`Chunk`] reads,
//! and [`Replay`] runs the records again and compares the state hashes.

mod format;
mod history;
mod reader;
mod recorder;
mod replay;
mod writer;

pub use format::{EXTENSION, Header, Record};
pub use history::History;
pub use reader::{Chunk, ChunkFile, Fault, FileError, Item, list};
pub use recorder::{Batch, Origin, Policy, Recorder};
pub use replay::{Break, Observer, Replay, Report, Span};
pub use writer::{Journal, Sink, describe};

/// Parses arbitrary bytes as a chunk. Nothing in them may cause a panic.
pub fn fuzz(bytes: &[u8]) {
    if let Ok(mut chunk) = Chunk::parse(bytes.to_vec()) {
        while let Ok(Some(_)) = chunk.next_item() {}
    }
}
