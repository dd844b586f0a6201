//! Chunking: cut positions that depend on the content (FastCDC, Xia et al. 2020). Bytes inserted at the front of a
//! large file move the cuts instead of changing every later chunk.

use std::io::{self, Read};

use fastcdc::v2020::{self, StreamCDC};

use crate::{ChunkId, chunk};

/// Minimum, average and maximum length of a chunk. The manifest contains them, because a client that looks for
/// chunks in its files must cut as the builder did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunking {
    min: u32,
    average: u32,
    max: u32,
}

impl Default for Chunking {
    /// A quarter of a mebibyte on average: a gibibyte of files has a manifest of about 170 KiB, and a small edit
    /// costs one or two chunks.
    fn default() -> Self {
        Self { min: 64 << 10, average: 256 << 10, max: chunk::MAX }
    }
}

impl Chunking {
    /// `None` unless the numbers are even, increasing, and within the limits of the algorithm and [`chunk::MAX`].
    pub fn new(min: u32, average: u32, max: u32) -> Option<Self> {
        let rises = min <= average && average <= max;
        let possible = min as usize >= v2020::MINIMUM_MIN
            && average as usize >= v2020::AVERAGE_MIN
            && max as usize >= v2020::MAXIMUM_MIN;
        let even = [min, average, max].iter().all(|size| size.is_multiple_of(2));
        (rises && possible && even && max <= chunk::MAX).then_some(Self { min, average, max })
    }

    pub fn min(&self) -> u32 {
        self.min
    }

    pub fn average(&self) -> u32 {
        self.average
    }

    pub fn max(&self) -> u32 {
        self.max
    }

    /// The chunks of a reader, in order. Keeps at most two chunks in memory.
    pub fn cut<R: Read>(&self, reader: R) -> Cuts<R> {
        let [min, average, max] = [self.min, self.average, self.max].map(|size| size as usize);
        Cuts(StreamCDC::new(reader, min, average, max))
    }
}

/// See [`Chunking::cut`].
pub struct Cuts<R: Read>(StreamCDC<R>);

/// A chunk of a cut file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    pub id: ChunkId,
    pub offset: u64,
    pub content: Vec<u8>,
}

impl Cut {
    pub fn size(&self) -> u32 {
        u32::try_from(self.content.len()).expect("a chunk has at most 1 MiB")
    }
}

impl<R: Read> Iterator for Cuts<R> {
    type Item = io::Result<Cut>;

    fn next(&mut self) -> Option<io::Result<Cut>> {
        let cut = self.0.next()?.map_err(io::Error::from);
        Some(cut.map(|cut| Cut { id: ChunkId::of(&cut.data), offset: cut.offset, content: cut.data }))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Small chunks, so that tests need little data.
    pub(crate) fn small() -> Chunking {
        Chunking::new(64, 256, 1_024).unwrap()
    }

    /// Pseudo-random bytes, the same for the same seed.
    pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        hasher.finalize_xof().fill(&mut bytes);
        bytes
    }

    fn ids(bytes: &[u8]) -> Vec<ChunkId> {
        small().cut(bytes).map(|cut| cut.unwrap().id).collect()
    }

    #[test]
    fn chunks_join_to_the_file() {
        let bytes = noise(1, 50_000);
        let mut joined = Vec::new();
        for cut in small().cut(&bytes[..]) {
            let cut = cut.unwrap();
            assert_eq!(cut.offset, joined.len() as u64);
            assert!(cut.content.len() <= 1_024);
            joined.extend_from_slice(&cut.content);
        }
        assert_eq!(joined, bytes);
        assert_eq!(ids(b""), []);
    }

    #[test]
    fn small_edit_changes_few_chunks() {
        let before = noise(2, 100_000);
        let mut after = before.clone();
        after.splice(10..10, *b"a new line");
        after[50_000] ^= 1;
        let old: HashSet<ChunkId> = ids(&before).into_iter().collect();
        let (new, total) = (ids(&after).into_iter().filter(|id| !old.contains(id)).count(), old.len());
        assert!(total > 100 && new <= 6, "{new} of {total} are new");
    }

    #[test]
    fn invalid_chunk_sizes_are_refused() {
        assert!(Chunking::new(64, 256, 1_024).is_some());
        for (min, average, max) in
            [(62, 256, 1_024), (64, 254, 1_024), (64, 256, 1_022), (65, 256, 1_024), (512, 256, 1_024)]
        {
            assert_eq!(Chunking::new(min, average, max), None);
        }
        assert_eq!(Chunking::new(64, 256, chunk::MAX + 2), None);
        let usual = Chunking::default();
        assert_eq!(Chunking::new(usual.min, usual.average, usual.max), Some(usual));
    }
}
