//! Layout of a patch store, which is a plain folder that any file server can serve.
//!
//! ```text
//! current          the published signed manifest, replaced by renaming
//! unsigned         the last built manifest, until it is signed
//! chunks/ab/ab12…  stored form of each chunk, named by the BLAKE3 of its content; never changed
//! ```

use crate::ChunkId;

pub const CURRENT: &str = "current";
pub const UNSIGNED: &str = "unsigned";
pub const CHUNKS: &str = "chunks";

/// Path of a chunk in the store.
pub fn chunk(id: &ChunkId) -> String {
    let name = id.to_string();
    format!("{CHUNKS}/{}/{name}", &name[..2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_path_starts_with_hash_prefix() {
        let id = ChunkId::new([0xab; 32]);
        assert_eq!(chunk(&id), format!("chunks/ab/{}", "ab".repeat(32)));
    }
}
