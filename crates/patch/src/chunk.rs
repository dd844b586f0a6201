//! A chunk: a piece of a file, named by the BLAKE3 of its content, and its stored form. Content from a store or
//! server is trusted only after it is hashed.

use std::fmt;

/// Maximum length of a chunk's content.
pub const MAX: u32 = 1 << 20;
/// Content is stored compressed only if that saves at least a sixteenth.
const MIN_SAVING_DIVISOR: usize = 16;

const RAW: u8 = 0;
const ZSTD: u8 = 1;

/// BLAKE3 of a chunk's content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId([u8; 32]);

impl ChunkId {
    pub const LENGTH: usize = 32;

    pub fn of(content: &[u8]) -> Self {
        Self(*blake3::hash(content).as_bytes())
    }

    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<&[u8]> for ChunkId {
    type Error = std::array::TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(Self)
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkId({self})")
    }
}

/// The received bytes are not the requested chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    #[error("a stored chunk of no bytes")]
    Empty,
    #[error("a stored chunk in the unknown form {0}")]
    Form(u8),
    #[error("a stored chunk of {found} bytes for {content} bytes of content")]
    Stored { found: usize, content: u32 },
    #[error("the compressed form is damaged")]
    Compression,
    #[error("{found} bytes of content instead of {wanted}")]
    Size { found: usize, wanted: u32 },
    #[error("the content is not what its name says")]
    Content,
}

impl ChunkError {
    /// Metric label with few distinct values.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Empty => "chunk_empty",
            Self::Form(_) => "chunk_form",
            Self::Stored { .. } => "chunk_stored_size",
            Self::Compression => "chunk_compression",
            Self::Size { .. } => "chunk_size",
            Self::Content => "chunk_content",
        }
    }
}

/// The stored form: a format byte, then the content or, if it is shorter, a zstd frame.
pub fn store(content: &[u8], level: i32) -> Vec<u8> {
    let compressed = zstd::bulk::compress(content, level).ok();
    let compressed = compressed.filter(|it| it.len() + content.len() / MIN_SAVING_DIVISOR < content.len());
    let (form, bytes) = match &compressed {
        Some(compressed) => (ZSTD, &compressed[..]),
        None => (RAW, content),
    };
    let mut stored = Vec::with_capacity(1 + bytes.len());
    stored.push(form);
    stored.extend_from_slice(bytes);
    stored
}

/// Maximum length of the stored form for content of this length.
pub const fn max_stored_size(content: u32) -> u32 {
    content + 1
}

/// Returns the content of a stored chunk if it has this id and size. Allocates at most `size` bytes, whatever the
/// stored bytes claim.
///
/// # Errors
/// Fails if the bytes are not that chunk.
pub fn restore(stored: &[u8], id: &ChunkId, size: u32) -> Result<Vec<u8>, ChunkError> {
    let (form, rest) = stored.split_first().ok_or(ChunkError::Empty)?;
    if size > MAX || stored.len() > max_stored_size(size) as usize {
        return Err(ChunkError::Stored { found: stored.len(), content: size });
    }
    let content = match *form {
        RAW => rest.to_vec(),
        ZSTD => zstd::bulk::decompress(rest, size as usize).map_err(|_| ChunkError::Compression)?,
        other => return Err(ChunkError::Form(other)),
    };
    if content.len() != size as usize {
        return Err(ChunkError::Size { found: content.len(), wanted: size });
    }
    if ChunkId::of(&content) != *id {
        return Err(ChunkError::Content);
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn compressible_content_is_compressed() {
        let (repetitive, size) = ([7; 100_000], 100_000);
        let stored = store(&repetitive, 3);
        assert!(stored.len() < 1_000 && stored[0] == ZSTD);
        assert_eq!(restore(&stored, &ChunkId::of(&repetitive), size).unwrap(), repetitive);
        assert_eq!(store(b"short", 3), *b"\0short");
    }

    #[test]
    fn invalid_stored_chunk_gives_specific_error() {
        let id = ChunkId::of(b"content");
        let restored = |stored: &[u8], size| restore(stored, &id, size).unwrap_err();
        assert_eq!(restored(&[], 7), ChunkError::Empty);
        assert_eq!(restored(b"\x02content", 7), ChunkError::Form(2));
        assert_eq!(restored(b"\0contents", 7), ChunkError::Stored { found: 9, content: 7 });
        assert_eq!(restored(b"\0conten", 7), ChunkError::Size { found: 6, wanted: 7 });
        assert_eq!(restored(b"\0contenT", 7), ChunkError::Content);
        assert_eq!(restored(b"\x01content", 7), ChunkError::Compression);
        assert_eq!(restored(b"\0", u32::MAX).label(), "chunk_stored_size");
    }

    #[test]
    fn decompression_bomb_is_refused() {
        let mut bomb = vec![ZSTD];
        bomb.extend_from_slice(&zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap());
        let stored = u32::try_from(bomb.len()).unwrap();
        assert_eq!(restore(&bomb, &ChunkId::of(b""), stored), Err(ChunkError::Compression));
    }

    proptest! {
        #[test]
        fn content_round_trips(content in proptest::collection::vec(0u8..4, 0..3_000), level in 1i32..10) {
            let stored = store(&content, level);
            let size = u32::try_from(content.len()).unwrap();
            prop_assert!(stored.len() <= max_stored_size(size) as usize);
            prop_assert_eq!(restore(&stored, &ChunkId::of(&content), size), Ok(content));
        }

        #[test]
        fn altered_chunk_never_restores_other_content(
            content in proptest::collection::vec(0u8..4, 1..2_000),
            at: proptest::sample::Index,
            flip in 1u8..=255,
        ) {
            let mut stored = store(&content, 3);
            let at = at.index(stored.len());
            stored[at] ^= flip;
            let size = u32::try_from(content.len()).unwrap();
            // A flipped bit of the frame may have no effect, but the content never changes.
            if let Ok(restored) = restore(&stored, &ChunkId::of(&content), size) {
                prop_assert_eq!(restored, content);
            }
        }
    }
}
