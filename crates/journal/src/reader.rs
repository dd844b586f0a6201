//! Reads chunk files. A damaged file gives an error with the place of the fault, and never a panic.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::format::{BLOCK_HEAD, EXTENSION, Header, MAGIC, PREFIX_LEN, Record, VERSION};

/// A chunk file. The order is that of the recording.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChunkFile {
    pub start_ms: u64,
    pub incarnation: u64,
    pub path: PathBuf,
}

impl ChunkFile {
    /// From the file's name. `None` if it is not the name of a chunk.
    fn of(path: PathBuf) -> Option<Self> {
        if path.extension()? != EXTENSION {
            return None;
        }
        let (start, incarnation) = path.file_stem()?.to_str()?.split_once('-')?;
        let start_ms = start.parse().ok()?;
        let incarnation = u64::from_str_radix(incarnation, 16).ok()?;
        Some(Self { start_ms, incarnation, path })
    }
}

/// All chunks in a folder and the folders in it, or the one chunk of a file.
pub fn list(folder: &Path) -> io::Result<Vec<ChunkFile>> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                // Links could lead in a circle.
                if !entry.file_type()?.is_symlink() {
                    waiting.push(entry.path());
                }
            }
        } else {
            fs::metadata(&path)?;
            found.extend(ChunkFile::of(path));
        }
    }
    found.sort();
    Ok(found)
}

/// A fault in a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("this is not a journal: it does not begin with {:?}", String::from_utf8_lossy(&MAGIC))]
    NotAJournal,
    #[error("the journal has format {found}, and this version of shardkeep reads format {VERSION}")]
    OtherFormat { found: u32 },
    #[error("the head of a block is damaged: its checksum does not match")]
    BlockHead,
    #[error("a block of {length} bytes is damaged: its checksum does not match")]
    Block { length: usize },
    #[error("a block has a valid checksum, but its records cannot be read")]
    Records,
    #[error("the file ends within its header")]
    NoHeader,
}

/// A fault, and the offset of the block with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset}: {fault}")]
pub struct FileError {
    pub offset: usize,
    pub fault: Fault,
}

/// A record and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Offset of its block in the file.
    pub offset: usize,
    /// Number of the record in the chunk, from 0.
    pub number: u64,
    pub record: Record,
}

/// A chunk in memory.
#[derive(Debug, Clone)]
pub struct Chunk {
    pub header: Header,
    bytes: Vec<u8>,
    /// The block of the next record, and the rest of its payload.
    block: usize,
    at: usize,
    block_end: usize,
    number: u64,
    torn: bool,
}

impl Chunk {
    pub fn read(path: &Path) -> io::Result<Result<Self, FileError>> {
        Ok(Self::parse(fs::read(path)?))
    }

    pub fn parse(bytes: Vec<u8>) -> Result<Self, FileError> {
        let error = |offset, fault| FileError { offset, fault };
        let Some((magic, rest)) = bytes.split_first_chunk::<8>() else {
            let starts_well = MAGIC.starts_with(&bytes);
            return Err(error(0, if starts_well { Fault::NoHeader } else { Fault::NotAJournal }));
        };
        if *magic != MAGIC {
            return Err(error(0, Fault::NotAJournal));
        }
        let Some(version) = rest.first_chunk::<4>() else { return Err(error(8, Fault::NoHeader)) };
        match u32::from_le_bytes(*version) {
            VERSION => {}
            found => return Err(error(8, Fault::OtherFormat { found })),
        }
        let (start, end) = match block_at(&bytes, PREFIX_LEN)? {
            Some(payload) => payload,
            None => return Err(error(PREFIX_LEN, Fault::NoHeader)),
        };
        let header =
            postcard::from_bytes(&bytes[start..end]).map_err(|_| error(PREFIX_LEN, Fault::Records))?;
        Ok(Self { header, bytes, block: PREFIX_LEN, at: end, block_end: end, number: 0, torn: false })
    }

    /// The next record; `None` at the end. The end may be in the middle of a block: see [`is_torn`](Self::is_torn).
    pub fn next_item(&mut self) -> Result<Option<Item>, FileError> {
        while self.at == self.block_end {
            self.block = self.block_end;
            let Some((start, end)) = block_at(&self.bytes, self.block)? else {
                self.torn = self.block < self.bytes.len();
                return Ok(None);
            };
            (self.at, self.block_end) = (start, end);
        }
        let payload = &self.bytes[self.at..self.block_end];
        let (record, rest) = postcard::take_from_bytes::<Record>(payload)
            .map_err(|_| FileError { offset: self.block, fault: Fault::Records })?;
        self.at = self.block_end - rest.len();
        let number = self.number;
        self.number += 1;
        Ok(Some(Item { offset: self.block, number, record }))
    }

    /// Whether the file ended in the middle of a block, because the writer was killed. Known at the end.
    pub fn is_torn(&self) -> bool {
        self.torn
    }

    /// Bytes of the file that have been read.
    pub fn position(&self) -> usize {
        self.at
    }
}

/// The range of the payload of the block at `offset`. `None`: the file ends before the block does.
fn block_at(bytes: &[u8], offset: usize) -> Result<Option<(usize, usize)>, FileError> {
    let rest = bytes.get(offset..).unwrap_or_default();
    let Some((head, rest)) = rest.split_first_chunk::<BLOCK_HEAD>() else { return Ok(None) };
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if crc32fast::hash(&head[..8]) != number(8) {
        return Err(FileError { offset, fault: Fault::BlockHead });
    }
    let length = number(0) as usize;
    let Some(payload) = rest.get(..length) else { return Ok(None) };
    if crc32fast::hash(payload) != number(4) {
        return Err(FileError { offset, fault: Fault::Block { length } });
    }
    let start = offset + BLOCK_HEAD;
    Ok(Some((start, start + length)))
}
