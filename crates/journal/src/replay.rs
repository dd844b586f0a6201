//! Runs the records of a journal again, and compares the state hashes.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use shardkeep_sim::{Event, Input, Map, SCHEMA, Sim, SnapshotError};
use shardkeep_types::{SpaceId, utc_millisecond};

use crate::{
    format::{Header, Record},
    reader::{Chunk, ChunkFile, FileError, Item},
};

/// The part of a journal to replay. Times are in milliseconds, as in the simulation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    pub space: Option<SpaceId>,
    pub from: Option<u64>,
    pub to: Option<u64>,
}

/// Follows a replay within the span. `sim` is the state after the input or the tick.
pub trait Observer {
    fn input(&mut self, sim: &Sim, input: &Input);
    fn events(&mut self, sim: &Sim, events: &[Event]);
    fn tick(&mut self, sim: &Sim);
}

/// A place where the replay is not continuous.
#[derive(Debug, thiserror::Error)]
pub enum Break {
    #[error("{}: the zone could not write {records} records before this chunk", .file.display())]
    Gap { file: PathBuf, records: u64 },
    #[error("{}: the chunk before this one ends earlier, because records are missing or the space ended in between", .file.display())]
    Missing { file: PathBuf },
    #[error("{}: the file ends in the middle of a block at byte {offset}, because the zone was killed", .file.display())]
    Torn { file: PathBuf, offset: usize },
    #[error("{}: {error}", .file.display())]
    Unreadable { file: PathBuf, error: io::Error },
    #[error("{}: {error}", .file.display())]
    Damaged { file: PathBuf, error: FileError },
    #[error("{}: it was recorded by shardkeep {release} with another version of the simulation (schema {found:016x}, this program has {SCHEMA:016x}): replay it with the program that recorded it", .file.display())]
    OtherVersion { file: PathBuf, release: String, found: u64 },
    #[error("{}: this program has no map {map:?} with the hash {found:016x}", .file.display())]
    OtherMap { file: PathBuf, map: String, found: u64 },
    #[error("{}: at byte {offset}: {error}", .file.display())]
    Snapshot { file: PathBuf, offset: usize, error: SnapshotError },
    #[error("{}: at byte {offset}: record {number} has no snapshot before it", .file.display())]
    NoSnapshot { file: PathBuf, offset: usize, number: u64 },
    #[error("{}: the replay differs at record {number} (byte {offset}), at {} ({at_ms} ms): the zone had the state hash {recorded:016x}, the replay has {replayed:016x}", .file.display(), utc_millisecond(*.at_ms))]
    Difference { file: PathBuf, offset: usize, number: u64, at_ms: u64, recorded: u64, replayed: u64 },
}

impl Break {
    /// Whether the journal or the replay is wrong. A gap, and a file that ends early, are not: the zone has said so, or was
    /// killed.
    pub fn is_failure(&self) -> bool {
        !matches!(self, Self::Gap { .. } | Self::Torn { .. } | Self::Missing { .. })
    }
}

/// The result of a replay.
#[derive(Debug, Default)]
pub struct Report {
    pub chunks: u64,
    pub ticks: u64,
    pub inputs: u64,
    /// State hashes that are equal.
    pub hashes: u64,
    /// Times of the first and the last tick.
    pub first_ms: Option<u64>,
    pub last_ms: Option<u64>,
    pub breaks: Vec<Break>,
}

impl Report {
    pub fn is_failure(&self) -> bool {
        self.breaks.iter().any(Break::is_failure)
    }
}

/// A replay of some chunks.
pub struct Replay<'a> {
    span: Span,
    observer: &'a mut dyn Observer,
    /// Called with the number of bytes that have been replayed.
    progress: &'a mut dyn FnMut(u64),
    report: Report,
}

/// The state at the end of a chunk, if all of it was replayed.
struct End {
    header: Header,
    sim: Sim,
}

impl<'a> Replay<'a> {
    pub fn new(span: Span, observer: &'a mut dyn Observer, progress: &'a mut dyn FnMut(u64)) -> Self {
        Self { span, observer, progress, report: Report::default() }
    }

    /// Replays the chunks of [`list`](crate::list).
    pub fn run(mut self, mut files: Vec<ChunkFile>) -> Report {
        // One space after another, and each run of the zone from its start.
        let key = |file: &ChunkFile| (file.path.parent().map(Path::to_owned), file.incarnation);
        files.sort_by_key(|file| (key(file), file.start_ms));
        let mut end = None;
        for (at, file) in files.iter().enumerate() {
            let next = files.get(at + 1).filter(|next| key(next) == key(file));
            let previous = at.checked_sub(1).filter(|&before| key(&files[before]) == key(file));
            let is_before = next.is_some_and(|next| self.span.from.is_some_and(|from| next.start_ms <= from));
            let is_after = self.span.to.is_some_and(|to| file.start_ms > to);
            if is_before || is_after {
                end = None;
                continue;
            }
            let is_continued = previous.is_some() && end.is_some();
            end = self.chunk(file, end.take().filter(|_| is_continued));
        }
        self.report
    }

    fn chunk(&mut self, file: &ChunkFile, before: Option<End>) -> Option<End> {
        let path = || file.path.clone();
        let result = match Chunk::read(&file.path) {
            Ok(Ok(chunk)) if self.span.space.is_some_and(|space| space != chunk.header.space) => return None,
            Ok(Ok(chunk)) => self.records(file, chunk, before),
            Ok(Err(error)) => Err(Break::Damaged { file: path(), error }),
            Err(error) => Err(Break::Unreadable { file: path(), error }),
        };
        self.report.chunks += 1;
        result.unwrap_or_else(|found| {
            self.report.breaks.push(found);
            None
        })
    }

    fn records(
        &mut self,
        file: &ChunkFile,
        mut chunk: Chunk,
        before: Option<End>,
    ) -> Result<Option<End>, Break> {
        let path = || file.path.clone();
        let map = map_of(&chunk.header, &file.path)?;
        let mut before = before.filter(|end| end.header.space == chunk.header.space);
        let mut sim: Option<Sim> = None;
        let mut position = 0;
        loop {
            let item = chunk.next_item().map_err(|error| Break::Damaged { file: path(), error })?;
            let Some(Item { offset, number, record }) = item else { break };
            (self.progress)((chunk.position() - position) as u64);
            position = chunk.position();
            let differs = |sim: &Sim, recorded, replayed| Break::Difference {
                file: path(),
                offset,
                number,
                at_ms: sim.now(),
                recorded,
                replayed,
            };
            match (record, &mut sim) {
                (Record::Gap { records }, _) => {
                    before = None;
                    self.report.breaks.push(Break::Gap { file: path(), records });
                }
                (Record::Snapshot(bytes), _) => {
                    let restored = Sim::restore(map.clone(), &bytes).map_err(|error| Break::Snapshot {
                        file: path(),
                        offset,
                        error,
                    })?;
                    if let Some(End { sim: previous, .. }) = before.take() {
                        let (recorded, replayed) = (restored.state_hash(), previous.state_hash());
                        if previous.now() != restored.now() {
                            self.report.breaks.push(Break::Missing { file: path() });
                        } else if recorded != replayed {
                            return Err(differs(&restored, recorded, replayed));
                        }
                    }
                    sim = Some(restored);
                }
                (_, None) => return Err(Break::NoSnapshot { file: path(), offset, number }),
                (Record::Tick { now }, Some(_)) if self.span.to.is_some_and(|to| now > to) => {
                    return Ok(None);
                }
                (Record::Tick { now }, Some(sim)) => self.tick(sim, now),
                (Record::Input(input), Some(sim)) => self.input(sim, input),
                (Record::Hash(recorded), Some(sim)) => {
                    let replayed = sim.state_hash();
                    if recorded != replayed {
                        return Err(differs(sim, recorded, replayed));
                    }
                    self.report.hashes += 1;
                }
            }
        }
        if chunk.is_torn() {
            self.report.breaks.push(Break::Torn { file: path(), offset: chunk.position() });
            return Ok(None);
        }
        Ok(sim.map(|sim| End { header: chunk.header, sim }))
    }

    fn tick(&mut self, sim: &mut Sim, now: u64) {
        let events = sim.tick(now);
        self.report.ticks += 1;
        self.report.first_ms = Some(self.report.first_ms.map_or(now, |first| first.min(now)));
        self.report.last_ms = self.report.last_ms.max(Some(now));
        if self.is_in_span(sim) {
            self.observer.events(sim, &events);
            self.observer.tick(sim);
        }
    }

    fn input(&mut self, sim: &mut Sim, input: Input) {
        self.report.inputs += 1;
        if self.is_in_span(sim) {
            let events = sim.apply(input.clone());
            self.observer.input(sim, &input);
            self.observer.events(sim, &events);
        } else {
            sim.apply(input);
        }
    }

    fn is_in_span(&self, sim: &Sim) -> bool {
        self.span.from.is_none_or(|from| sim.now() >= from)
    }
}

/// The map of a chunk, if this program simulates as the one that recorded it.
fn map_of(header: &Header, file: &Path) -> Result<Arc<Map>, Break> {
    if header.schema != SCHEMA {
        let (release, found) = (header.release.clone(), header.schema);
        return Err(Break::OtherVersion { file: file.to_owned(), release, found });
    }
    let map = Map::named(&header.map).filter(|map| map.hash() == header.map_hash);
    map.map(Arc::new).ok_or_else(|| Break::OtherMap {
        file: file.to_owned(),
        map: header.map.clone(),
        found: header.map_hash,
    })
}
