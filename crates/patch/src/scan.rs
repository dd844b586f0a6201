//! Scan of a disk for parts of a release: complete files, chunks in other files, and staged files of an earlier
//! attempt. The scan reads and hashes everything. It trusts no name, size or date.

use std::{
    collections::HashMap,
    io::{self, Read},
};

use crate::{Chunk, ChunkId, File, Manifest, ReleasePath};

/// Location of a chunk's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkLocation {
    pub path: ReleasePath,
    pub offset: u64,
}

/// Result of a scan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScanResult {
    /// By file number: whether the installed file is complete.
    pub whole: Vec<bool>,
    /// By chunk number: its location in the installed files.
    pub locations: HashMap<u32, ChunkLocation>,
    /// By file number: which of its chunks are in the staged file.
    pub staged: HashMap<u32, Vec<bool>>,
}

/// Scans for the chunks of one manifest.
pub struct Scan<'a> {
    manifest: &'a Manifest,
    wanted: HashMap<ChunkId, u32>,
    files: HashMap<&'a ReleasePath, u32>,
    found: ScanResult,
}

impl<'a> Scan<'a> {
    pub fn new(manifest: &'a Manifest) -> Self {
        let number = |at: usize| u32::try_from(at).expect("a manifest keeps to its bounds");
        let chunks = manifest.chunks().iter().enumerate();
        let files = manifest.files().iter().enumerate();
        Self {
            manifest,
            wanted: chunks.map(|(at, chunk)| (chunk.id, number(at))).collect(),
            files: files.map(|(at, file)| (&file.path, number(at))).collect(),
            found: ScanResult { whole: vec![false; manifest.files().len()], ..ScanResult::default() },
        }
    }

    /// Scans an installed file of any release.
    ///
    /// # Errors
    /// Errors of the reader.
    pub fn installed(&mut self, path: &ReleasePath, reader: impl Read) -> io::Result<()> {
        let (manifest, file) = (self.manifest, self.files.get(path).copied());
        let mut expected = file.map(|at| manifest.files()[at as usize].chunks.iter());
        let mut whole = file.is_some();
        for cut in manifest.chunking().cut(reader) {
            let cut = cut?;
            let chunk = self.wanted.get(&cut.id).copied();
            whole &= chunk.is_some() && expected.as_mut().and_then(Iterator::next).copied() == chunk;
            if let Some(chunk) = chunk {
                let place = || ChunkLocation { path: path.clone(), offset: cut.offset };
                self.found.locations.entry(chunk).or_insert_with(place);
            }
        }
        whole &= expected.is_some_and(|mut rest| rest.next().is_none());
        if let Some(at) = file {
            self.found.whole[at as usize] = whole;
        }
        Ok(())
    }

    /// Scans the staged file of a file: which chunks are in place.
    ///
    /// # Errors
    /// Errors of the reader.
    pub fn staged(&mut self, file: u32, mut reader: impl Read) -> io::Result<()> {
        let manifest = self.manifest;
        let file_chunks = manifest.file_chunks(&manifest.files()[file as usize]);
        let mut buffer = Vec::new();
        let mut present = Vec::new();
        for (_, chunk) in file_chunks {
            buffer.clear();
            reader.by_ref().take(chunk.size.into()).read_to_end(&mut buffer)?;
            present.push(chunk_matches(chunk, &buffer));
        }
        self.found.staged.insert(file, present);
        Ok(())
    }

    pub fn finish(self) -> ScanResult {
        self.found
    }
}

/// Whether the content belongs to this chunk.
pub fn chunk_matches(chunk: &Chunk, content: &[u8]) -> bool {
    content.len() == chunk.size as usize && ChunkId::of(content) == chunk.id
}

/// Name of the staged file. It is derived from the content, so that another release can continue it.
pub fn staged_name(manifest: &Manifest, file: &File) -> String {
    let mut hasher = blake3::Hasher::new();
    for (_, chunk) in manifest.file_chunks(file) {
        hasher.update(chunk.id.as_bytes());
    }
    // Two files with the same content need two staged files.
    hasher.update(file.path.as_str().as_bytes());
    hasher.finalize().to_hex().as_str()[..40].to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{chunking::tests::noise, manifest::tests::manifest_of};

    fn path(path: &str) -> ReleasePath {
        ReleasePath::new(path).unwrap()
    }

    #[test]
    fn scan_finds_whole_files_and_moved_chunks() {
        let (a, b) = (noise(1, 20_000), noise(2, 20_000));
        let manifest = manifest_of(&BTreeMap::from([
            ("a".into(), a.clone()),
            ("b".into(), b.clone()),
            ("e".into(), vec![]),
        ]));
        let mut scan = Scan::new(&manifest);
        scan.installed(&path("a"), &a[..]).unwrap();
        // The file was moved and is a little longer.
        scan.installed(&path("old/b"), &[&b"new"[..], &b].concat()[..]).unwrap();
        scan.installed(&path("b"), &b[..19_999]).unwrap();
        let found = scan.finish();
        assert_eq!(found.whole, [true, false, false]);
        let missing = manifest.chunks().len() - found.locations.len();
        assert!(missing <= 1, "{missing} of {}", manifest.chunks().len());

        let mut scan = Scan::new(&manifest);
        scan.installed(&path("a"), &[&a[..], b"more"].concat()[..]).unwrap();
        scan.installed(&path("e"), &b""[..]).unwrap();
        assert_eq!(scan.finish().whole, [false, false, true]);
    }

    #[test]
    fn scan_finds_valid_chunks_of_staged_file() {
        let a = noise(1, 10_000);
        let manifest = manifest_of(&BTreeMap::from([("a".into(), a.clone())]));
        let second = manifest.file_chunks(&manifest.files()[0]).nth(1).unwrap().0;
        let mut altered = a.clone();
        altered[usize::try_from(second).unwrap()] ^= 1;
        let mut scan = Scan::new(&manifest);
        scan.staged(0, &altered[..9_999]).unwrap();
        let present = &scan.finish().staged[&0];
        let last = present.len() - 1;
        assert!(
            present.iter().enumerate().all(|(at, chunk_matches)| *chunk_matches == (at != 1 && at != last))
        );
    }

    #[test]
    fn staged_name_depends_on_content_and_path() {
        let manifest = manifest_of(&BTreeMap::from([("a".into(), noise(1, 99)), ("b".into(), noise(1, 99))]));
        let [a, b] = [0, 1].map(|at| staged_name(&manifest, &manifest.files()[at]));
        assert!(a != b && a.len() == 40);
    }
}
