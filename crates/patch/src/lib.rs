//! Patches: the content of a release, its signature, and the steps of a client from its installed files to the
//! published release. This crate is pure: bytes and readers are arguments, bytes and plans are results. It opens no
//! file and no socket.
//!
//! ```text
//! files ──▶ chunking ──▶ chunk::store ──▶ (store of chunks)
//!                └────▶ Builder ──▶ Manifest ──▶ signature::sign ──▶ (published release)
//! (published release) ──▶ Signed::trusted ──▶ Manifest ──▶ Scan of installed files ──▶ Plan
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
