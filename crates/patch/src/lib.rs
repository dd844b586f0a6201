//! Patches: what a release is made of, how that is signed, and what a client must do to get from what it has to what
//! is published. Pure: bytes and readers come in as arguments, bytes and plans come out; nothing here opens a file or
//! knows a socket.
//!
//! ```text
//! files ──▶ chunking ──▶ chunk::store ──▶ (store of chunks)
//!                └────▶ Builder ──▶ Manifest ──▶ signature::sign ──▶ (what is published)
//! (what is published) ──▶ Signed::trusted ──▶ Manifest ──▶ Scan of what is there ──▶ Plan
//! ```

pub mod chunk;
pub mod chunking;
pub mod fuzz;
pub mod layout;
pub mod manifest;
pub mod path;
pub mod plan;
pub mod scan;
pub mod signature;

pub use chunk::{ChunkError, ChunkId};
pub use chunking::Chunking;
pub use manifest::{Builder, Chunk, File, Manifest, ManifestError, Release};
pub use path::{PathError, ReleasePath};
pub use plan::{Plan, Source, plan};
pub use scan::{Scan, ScanResult};
pub use signature::{PublicKey, SignedError, SignedManifest, SigningKey};
