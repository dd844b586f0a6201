//! The manifest: every file of a release as a list of chunks. A manifest has exactly one encoding, so that its bytes
//! can be signed. Decoding validates everything before it returns a [`Manifest`].

use std::collections::{HashMap, HashSet};

use shardkeep_wire::{
    cursor::{Cursor, Truncated},
    varint::{self, VarintError},
};

use crate::{ChunkId, Chunking, PathError, ReleasePath, chunk};

pub const MAGIC: [u8; 4] = *b"SKPM";
pub const VERSION: u8 = 1;
/// Maximum length of an encoded manifest.
pub const MAX_BYTES: usize = 64 << 20;
/// Maximum number of different chunks: a quarter of a tebibyte of files with the default chunk size.
pub const MAX_CHUNKS: usize = 1 << 20;
pub const MAX_FILES: usize = 1 << 18;
/// Maximum number of references to chunks, over all files.
pub const MAX_REFERENCES: usize = 1 << 22;
/// Maximum length of a release's name.
pub const MAX_NAME: usize = 64;

/// Encoded length of a chunk in the table.
const CHUNK: usize = ChunkId::LENGTH + 8;
/// Minimum encoded length of a file.
const FILE: usize = 1 + 2 + 1 + 1;
const EXECUTABLE: u8 = 1;

/// Identity of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// For people: ASCII letters and digits, `.`, `_`, `+` and `-`.
    pub name: String,
    /// Increases with each published release. A client refuses a lower one than it has.
    pub sequence: u64,
    /// Version that the client of this release sends in `Hello`: major · 1,000,000 + minor · 1,000 + patch.
    pub client_version: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    pub id: ChunkId,
    /// Bytes of content, 1 to [`chunk::MAX`].
    pub size: u32,
    /// Bytes of its stored form.
    pub stored: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub path: ReleasePath,
    pub executable: bool,
    /// Indices into [`Manifest::chunks`]. The concatenated contents are the file.
    pub chunks: Vec<u32>,
}

/// A validated manifest. Files are sorted by path. Chunks are in the order of their first use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    release: Release,
    chunking: Chunking,
    chunks: Vec<Chunk>,
    files: Vec<File>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("not a manifest")]
    WrongMagic,
    #[error("version {0} of manifests is not known here")]
    Version(u8),
    #[error("the bytes end inside the manifest")]
    Truncated,
    #[error("{0} bytes after the end of the manifest")]
    Trailing(usize),
    #[error("{0}")]
    Varint(VarintError),
    #[error("more {item} than {limit}")]
    TooMany { item: &'static str, limit: usize },
    #[error("a release's name is 1 to {MAX_NAME} ASCII letters, digits, `.`, `_`, `+` and `-`")]
    Name,
    #[error("chunks are cut at impossible sizes")]
    Chunking,
    #[error("chunk {0} has an impossible size")]
    ChunkSize(ChunkId),
    #[error("chunk {0} stands in the table twice")]
    DuplicateChunk(ChunkId),
    #[error("a file needs a chunk that is not in the table, or not there yet")]
    NoSuchChunk,
    #[error("{0} chunks of the table are needed by no file")]
    Unused(usize),
    #[error("reserved bits are set in the flags {0:#04x} of a file")]
    Flags(u8),
    #[error("{0}")]
    Path(#[from] PathError),
    #[error("{0} is not in order")]
    Order(ReleasePath),
    #[error("{0} and another file have one name on systems that ignore case or Unicode normalisation")]
    DuplicatePath(ReleasePath),
    #[error("{0} is a file and a folder")]
    FileAndFolder(ReleasePath),
}

impl ManifestError {
    /// Metric label with few distinct values.
    pub fn label(&self) -> &'static str {
        match self {
            Self::WrongMagic => "manifest_foreign",
            Self::Version(_) => "manifest_version",
            Self::Truncated => "manifest_truncated",
            Self::Trailing(_) => "manifest_trailing",
            Self::Varint(_) => "manifest_varint",
            Self::TooMany { .. } => "manifest_too_many",
            Self::Name => "manifest_name",
            Self::Chunking => "manifest_chunking",
            Self::ChunkSize(_) => "manifest_chunk_size",
            Self::DuplicateChunk(_) => "manifest_chunk_twice",
            Self::NoSuchChunk => "manifest_no_such_chunk",
            Self::Unused(_) => "manifest_unused",
            Self::Flags(_) => "manifest_flags",
            Self::Path(error) => error.label(),
            Self::Order(_) => "manifest_order",
            Self::DuplicatePath(_) => "manifest_path_twice",
            Self::FileAndFolder(_) => "manifest_file_and_folder",
        }
    }
}

impl From<Truncated> for ManifestError {
    fn from(_: Truncated) -> Self {
        Self::Truncated
    }
}

impl From<VarintError> for ManifestError {
    fn from(error: VarintError) -> Self {
        match error {
            VarintError::Truncated => Self::Truncated,
            other => Self::Varint(other),
        }
    }
}

impl Manifest {
    pub fn release(&self) -> &Release {
        &self.release
    }

    pub fn chunking(&self) -> Chunking {
        self.chunking
    }

    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// The chunks of a file with their offsets in it.
    pub fn file_chunks<'a>(&'a self, file: &'a File) -> impl Iterator<Item = (u64, &'a Chunk)> {
        let mut offset = 0;
        file.chunks.iter().map(move |chunk_index| {
            let chunk = &self.chunks[*chunk_index as usize];
            let at = offset;
            offset += u64::from(chunk.size);
            (at, chunk)
        })
    }

    /// Bytes of a file.
    pub fn size(&self, file: &File) -> u64 {
        file.chunks.iter().map(|chunk_index| u64::from(self.chunks[*chunk_index as usize].size)).sum()
    }

    /// Bytes of all files.
    pub fn total_size(&self) -> u64 {
        self.files.iter().map(|file| self.size(file)).sum()
    }

    /// Total length of the stored forms of all chunks: the download of a new client.
    pub fn total_stored(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.stored)).sum()
    }

    /// Encodes the manifest. The encoding is unique.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + CHUNK * self.chunks.len());
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        out.extend_from_slice(&self.release.sequence.to_le_bytes());
        let sizes = [self.chunking.min(), self.chunking.average(), self.chunking.max()];
        for number in [self.release.client_version].into_iter().chain(sizes) {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(u8::try_from(self.release.name.len()).expect("a checked name is short"));
        out.extend_from_slice(self.release.name.as_bytes());
        out.extend_from_slice(&count(self.chunks.len()));
        for chunk in &self.chunks {
            out.extend_from_slice(chunk.id.as_bytes());
            out.extend_from_slice(&chunk.size.to_le_bytes());
            out.extend_from_slice(&chunk.stored.to_le_bytes());
        }
        out.extend_from_slice(&count(self.files.len()));
        let mut first_unused = 0;
        for file in &self.files {
            out.push(if file.executable { EXECUTABLE } else { 0 });
            let path = file.path.as_str().as_bytes();
            out.extend_from_slice(&u16::try_from(path.len()).expect("a path is short").to_le_bytes());
            out.extend_from_slice(path);
            varint::encode(file.chunks.len() as u64, &mut out);
            for &chunk_index in &file.chunks {
                let is_new = chunk_index == first_unused;
                varint::encode(if is_new { 0 } else { u64::from(chunk_index) + 1 }, &mut out);
                first_unused += u32::from(is_new);
            }
        }
        out
    }

    /// Decodes and validates. Allocates in proportion to the given bytes, whatever counts they claim.
    ///
    /// # Errors
    /// Fails if the bytes are not the encoding of a manifest.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_BYTES {
            return Err(ManifestError::TooMany { item: "bytes", limit: MAX_BYTES });
        }
        let mut cursor = Cursor::new(bytes);
        if cursor.array() != Ok(MAGIC) {
            return Err(ManifestError::WrongMagic);
        }
        let version = cursor.u8()?;
        if version != VERSION {
            return Err(ManifestError::Version(version));
        }
        let (sequence, client_version) = (cursor.u64()?, cursor.u32()?);
        let chunking = Chunking::new(cursor.u32()?, cursor.u32()?, cursor.u32()?);
        let chunking = chunking.ok_or(ManifestError::Chunking)?;
        let length = cursor.u8()?;
        let name = std::str::from_utf8(cursor.bytes(length.into())?).map_err(|_| ManifestError::Name)?;
        let release = Release { name: name.to_owned(), sequence, client_version };
        let chunks = chunks(&mut cursor)?;
        let files = files(&mut cursor, chunks.len())?;
        if !cursor.is_empty() {
            return Err(ManifestError::Trailing(cursor.rest().len()));
        }
        let manifest = Self { release, chunking, chunks, files };
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), ManifestError> {
        check_name(&self.release.name)?;
        let mut ids = HashSet::with_capacity(self.chunks.len());
        for chunk in &self.chunks {
            let possible = (1..=self.chunking.max()).contains(&chunk.size)
                && (1..=chunk::max_stored_size(chunk.size)).contains(&chunk.stored);
            if !possible {
                return Err(ManifestError::ChunkSize(chunk.id));
            }
            if !ids.insert(chunk.id) {
                return Err(ManifestError::DuplicateChunk(chunk.id));
            }
        }
        self.check_paths()
    }

    fn check_paths(&self) -> Result<(), ManifestError> {
        for pair in self.files.windows(2) {
            if pair[0].path >= pair[1].path {
                return Err(ManifestError::Order(pair[1].path.clone()));
            }
        }
        let mut names = HashSet::with_capacity(self.files.len());
        for file in &self.files {
            if !names.insert(file.path.folded()) {
                return Err(ManifestError::DuplicatePath(file.path.clone()));
            }
        }
        for file in &self.files {
            if file.path.folded_parents().any(|parent| names.contains(&parent)) {
                return Err(ManifestError::FileAndFolder(file.path.clone()));
            }
        }
        Ok(())
    }
}

fn count(count: usize) -> [u8; 4] {
    u32::try_from(count).expect("a checked manifest keeps to its bounds").to_le_bytes()
}

fn check_name(name: &str) -> Result<(), ManifestError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
    let good = (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(allowed);
    if good { Ok(()) } else { Err(ManifestError::Name) }
}

/// Reads a count and checks that the remaining bytes can contain as many items.
fn checked_count(
    claimed: u64,
    limit: usize,
    each: usize,
    cursor: &Cursor<'_>,
    item: &'static str,
) -> Result<usize, ManifestError> {
    let claimed = usize::try_from(claimed).unwrap_or(usize::MAX);
    if claimed > limit {
        return Err(ManifestError::TooMany { item, limit });
    }
    if claimed.saturating_mul(each) > cursor.rest().len() {
        return Err(ManifestError::Truncated);
    }
    Ok(claimed)
}

fn chunks(cursor: &mut Cursor<'_>) -> Result<Vec<Chunk>, ManifestError> {
    let claimed = cursor.u32()?;
    let count = checked_count(claimed.into(), MAX_CHUNKS, CHUNK, cursor, "chunks")?;
    let mut chunks = Vec::with_capacity(count);
    for _ in 0..count {
        let id = ChunkId::new(cursor.array()?);
        chunks.push(Chunk { id, size: cursor.u32()?, stored: cursor.u32()? });
    }
    Ok(chunks)
}

fn files(cursor: &mut Cursor<'_>, chunks: usize) -> Result<Vec<File>, ManifestError> {
    let claimed = cursor.u32()?;
    let count = checked_count(claimed.into(), MAX_FILES, FILE, cursor, "files")?;
    let mut files = Vec::with_capacity(count);
    let (mut used, mut references) = (0, 0);
    for _ in 0..count {
        let flags = cursor.u8()?;
        if flags & !EXECUTABLE != 0 {
            return Err(ManifestError::Flags(flags));
        }
        let length = cursor.u16()?;
        let path = ReleasePath::from_bytes(cursor.bytes(length.into())?)?;
        let claimed = cursor.varint()?;
        let count = checked_count(claimed, MAX_REFERENCES - references, 1, cursor, "mentions of chunks")?;
        references += count;
        let mut chunk_indexes = Vec::with_capacity(count);
        for _ in 0..count {
            chunk_indexes.push(chunk_index(cursor.varint()?, &mut used, chunks)?);
        }
        files.push(File { path, executable: flags & EXECUTABLE != 0, chunks: chunk_indexes });
    }
    if used < chunks {
        return Err(ManifestError::Unused(chunks - used));
    }
    Ok(files)
}

/// 0 is the first unused chunk of the table; n is the used chunk number n − 1.
fn chunk_index(reference: u64, used: &mut usize, chunks: usize) -> Result<u32, ManifestError> {
    let chunk_index = match reference {
        0 if *used < chunks => {
            *used += 1;
            *used - 1
        }
        n if n >= 1 && n <= *used as u64 => usize::try_from(n - 1).map_err(|_| ManifestError::NoSuchChunk)?,
        _ => return Err(ManifestError::NoSuchChunk),
    };
    u32::try_from(chunk_index).map_err(|_| ManifestError::NoSuchChunk)
}

/// Builds a manifest from files in any order.
#[derive(Debug, Clone)]
pub struct Builder {
    release: Release,
    chunking: Chunking,
    files: Vec<(ReleasePath, bool, Vec<Chunk>)>,
}

impl Builder {
    pub fn new(release: Release, chunking: Chunking) -> Self {
        Self { release, chunking, files: Vec::new() }
    }

    pub fn add(&mut self, path: ReleasePath, executable: bool, chunks: Vec<Chunk>) {
        self.files.push((path, executable, chunks));
    }

    /// # Errors
    /// Fails for an invalid release name, two conflicting paths, or an exceeded limit.
    pub fn finish(mut self) -> Result<Manifest, ManifestError> {
        self.files.sort_by(|a, b| a.0.cmp(&b.0));
        let (mut chunks, mut chunk_indexes) = (Vec::new(), HashMap::new());
        let mut references = 0;
        let mut files = Vec::with_capacity(self.files.len());
        for (path, executable, listed) in self.files {
            references += listed.len();
            let mut chunk_index = |chunk: Chunk| {
                *chunk_indexes.entry(chunk.id).or_insert_with(|| {
                    chunks.push(chunk);
                    u32::try_from(chunks.len() - 1).unwrap_or(u32::MAX)
                })
            };
            files.push(File { path, executable, chunks: listed.into_iter().map(&mut chunk_index).collect() });
        }
        for (item, count, limit) in [
            ("chunks", chunks.len(), MAX_CHUNKS),
            ("files", files.len(), MAX_FILES),
            ("mentions of chunks", references, MAX_REFERENCES),
        ] {
            if count > limit {
                return Err(ManifestError::TooMany { item, limit });
            }
        }
        let manifest = Manifest { release: self.release, chunking: self.chunking, chunks, files };
        manifest.check()?;
        Ok(manifest)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        chunk::store,
        chunking::tests::{noise, small},
    };

    pub(crate) fn release() -> Release {
        Release { name: "1.2.3".into(), sequence: 7, client_version: 1_002_003 }
    }

    /// A manifest of these files.
    pub(crate) fn manifest_of(files: &BTreeMap<String, Vec<u8>>) -> Manifest {
        let mut builder = Builder::new(release(), small());
        for (path, content) in files {
            let chunks = small().cut(&content[..]).map(|cut| {
                let cut = cut.unwrap();
                let stored = u32::try_from(store(&cut.content, 3).len()).unwrap();
                Chunk { id: cut.id, size: cut.size(), stored }
            });
            builder.add(ReleasePath::new(path).unwrap(), path.ends_with("game"), chunks.collect());
        }
        builder.finish().unwrap()
    }

    pub(crate) fn sample() -> Manifest {
        let same = noise(1, 5_000);
        manifest_of(&BTreeMap::from([
            ("data/a.pak".to_owned(), [same.clone(), noise(2, 3_000)].concat()),
            ("data/b.pak".to_owned(), same),
            ("empty".to_owned(), vec![]),
            ("game".to_owned(), noise(3, 100)),
        ]))
    }

    fn decoded(change: impl FnOnce(&mut Vec<u8>)) -> Result<Manifest, ManifestError> {
        let mut bytes = sample().encode();
        change(&mut bytes);
        Manifest::decode(&bytes)
    }

    /// Offset of the table of chunks.
    const TABLE: usize = 4 + 1 + 8 + 16 + 1 + 5;

    fn with_paths(paths: &[&str]) -> Result<Manifest, ManifestError> {
        let mut builder = Builder::new(release(), small());
        for path in paths {
            builder.add(ReleasePath::new(path).unwrap(), false, vec![]);
        }
        builder.finish()
    }

    #[test]
    fn identical_chunks_are_listed_once() {
        let manifest = sample();
        let mentions: usize = manifest.files().iter().map(|file| file.chunks.len()).sum();
        assert!(mentions > manifest.chunks().len());
        assert_eq!(manifest.total_size(), 13_100);
        assert!(manifest.files()[3].executable && !manifest.files()[0].executable);
        assert_eq!(manifest.size(&manifest.files()[2]), 0);
        let (offset, _) = manifest.file_chunks(&manifest.files()[0]).nth(1).unwrap();
        assert_eq!(offset, u64::from(manifest.chunks()[0].size));
    }

    #[test]
    fn invalid_manifest_gives_specific_error() {
        use ManifestError::*;
        let id = sample().chunks()[0].id;
        assert_eq!(decoded(|bytes| bytes[0] ^= 1), Err(WrongMagic));
        assert_eq!(decoded(|bytes| bytes[4] = 9), Err(Version(9)));
        assert_eq!(decoded(|bytes| bytes.push(0)), Err(Trailing(1)));
        assert_eq!(decoded(|bytes| bytes[17] = 65), Err(Chunking));
        assert_eq!(decoded(|bytes| bytes[30] = b'/'), Err(Name));
        assert_eq!(decoded(|bytes| bytes[TABLE + 3] = 1), Err(TooMany { item: "chunks", limit: MAX_CHUNKS }));
        assert_eq!(decoded(|bytes| bytes[TABLE + 1] = 0xff), Err(Truncated));
        assert_eq!(decoded(|bytes| bytes[TABLE + 4 + 35] = 1), Err(ChunkSize(id)));
        assert_eq!(
            decoded(|bytes| bytes.copy_within(TABLE + 4..TABLE + 4 + CHUNK, TABLE + 4 + CHUNK)),
            Err(DuplicateChunk(id))
        );
        let files = TABLE + 4 + CHUNK * sample().chunks().len();
        assert_eq!(decoded(|bytes| bytes[files + 4] = 2), Err(Flags(2)));
        assert_eq!(decoded(|bytes| bytes[files + 7] = b'/'), Err(Path(PathError::Absolute)));
        assert!(matches!(decoded(|bytes| bytes[files + 7] = b'z'), Err(Order(_))));
        let first = files + 4 + 3 + "data/a.pak".len() + 1;
        assert_eq!(decoded(|bytes| bytes[first] = 9), Err(NoSuchChunk));
        assert_eq!(decoded(|bytes| bytes[first + 1] = 1), Err(Unused(1)));
    }

    #[test]
    fn colliding_paths_are_refused() {
        use ManifestError::*;
        let path = |path| ReleasePath::new(path).unwrap();
        assert!(with_paths(&["a/b", "a/c", "ab"]).is_ok());
        assert_eq!(with_paths(&["a", "a"]), Err(Order(path("a"))));
        assert_eq!(with_paths(&["Data/x", "data/X"]), Err(DuplicatePath(path("data/X"))));
        assert_eq!(with_paths(&["data", "Data/x/y"]), Err(FileAndFolder(path("Data/x/y"))));
        assert_eq!(with_paths(&["cafe\u{301}", "caf\u{e9}"]), Err(DuplicatePath(path("caf\u{e9}"))));
        assert_eq!(with_paths(&["STRASSE", "stra\u{df}e"]), Err(DuplicatePath(path("stra\u{df}e"))));
    }

    #[test]
    fn truncated_manifest_is_refused() {
        let bytes = sample().encode();
        for end in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn manifest_round_trips(
            files in proptest::collection::btree_map("[a-f]{1,3}(/[g-k]{1,2})?", (0u64..4, 0usize..4_000), 0..8)
        ) {
            let files: BTreeMap<String, Vec<u8>> = files
                .iter()
                .filter(|(path, _)| !files.keys().any(|other| other.starts_with(&format!("{path}/"))))
                .map(|(path, (seed, length))| (path.clone(), noise(*seed, *length)))
                .collect();
            let manifest = manifest_of(&files);
            prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
        }

        #[test]
        fn manifest_encoding_is_canonical(
            mutations in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..3)
        ) {
            let mut bytes = sample().encode();
            for (at, byte) in mutations {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(manifest) = Manifest::decode(&bytes) {
                prop_assert_eq!(manifest.encode(), bytes);
            }
        }
    }
}
