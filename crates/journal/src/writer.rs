//! Writes batches to chunk files, on a separate thread. The thread may wait for the disk; a tick never does.
//!
//! Batches of all spaces of a zone share one queue. A batch that finds no room in it, or that cannot be written, is lost:
//! its [`Sink`] says so, and the recorder begins a new chunk later. Data reaches the disk itself (`fdatasync`) every
//! five seconds and at the end of a chunk, so a crash of the process loses nothing that was written, and a crash of the
//! machine loses about five seconds.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use ::metrics::{counter, describe_counter, describe_gauge, gauge};
use shardkeep_types::SpaceId;

use crate::{
    format::EXTENSION,
    reader::{self, ChunkFile},
    recorder::Batch,
};

/// Bounds of the queue. Overflow: the batch is lost and counted, and the recorder begins again with a snapshot.
const QUEUE: usize = 1_024;
const QUEUE_BYTES: u64 = 32 << 20;
const SYNC_INTERVAL: Duration = Duration::from_secs(5);

const BYTES: &str = "shardkeep_journal_bytes_total";
const LOST: &str = "shardkeep_journal_records_lost_total";
const ERRORS: &str = "shardkeep_journal_write_errors_total";
const SIZE: &str = "shardkeep_journal_size_bytes";

/// Describes the metrics of this module.
pub fn describe() {
    describe_counter!(BYTES, "Bytes written to the journal");
    describe_counter!(LOST, "Records missing in the journal, by reason: the queue was full, or the disk");
    describe_counter!(ERRORS, "Failed attempts to write to the journal");
    describe_gauge!(SIZE, "Bytes of all chunk files of this zone's journal");
}

enum Message {
    Batch(Batch, Arc<AtomicBool>),
    Flush(SyncSender<()>),
    Close,
}

/// The journal of a zone: a folder, and the thread that writes to it.
#[derive(Debug)]
pub struct Journal {
    queue: SyncSender<Message>,
    queued_bytes: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    /// Begins to write below `folder`, which may hold the chunks of earlier runs. All chunks together take at most
    /// `max_bytes`.
    pub fn start(folder: &Path, max_bytes: u64) -> io::Result<Self> {
        let mut writer = Writer::open(folder, max_bytes)?;
        let (queue, messages) = sync_channel(QUEUE);
        let queued_bytes = Arc::new(AtomicU64::new(0));
        let bytes = queued_bytes.clone();
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || write_all(&mut writer, &messages, &bytes))?;
        Ok(Self { queue, queued_bytes, thread: Some(thread) })
    }

    /// A handle for one space.
    pub fn sink(&self) -> Sink {
        Sink { queue: self.queue.clone(), queued_bytes: self.queued_bytes.clone(), failed: Arc::default() }
    }

    /// Blocks until everything that is queued has been written or lost.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.queue.send(Message::Flush(done)).is_ok() {
            // An error means that the thread has ended, so nothing is queued.
            let _ = written.recv();
        }
    }

    /// Writes what is queued and ends the thread. Blocks until then.
    pub fn close(mut self) {
        let _ = self.queue.send(Message::Close);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's thread has panicked");
        }
    }
}

/// Passes batches of one space to the journal's thread.
#[derive(Debug)]
pub struct Sink {
    queue: SyncSender<Message>,
    queued_bytes: Arc<AtomicU64>,
    /// The chunk of this space could not be written. Batches are lost until a new one begins.
    failed: Arc<AtomicBool>,
}

impl Sink {
    /// Returns whether the batch, and all before it in this chunk, are written or queued. Never blocks.
    pub fn write(&self, batch: Batch) -> bool {
        if batch.begins.is_some() {
            self.failed.store(false, Ordering::Relaxed);
        } else if self.failed.load(Ordering::Relaxed) {
            counter!(LOST, "reason" => "disk").increment(batch.records);
            return false;
        }
        let (bytes, records) = (batch.bytes.len() as u64, batch.records);
        let queued = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let is_full = queued.saturating_add(bytes) > QUEUE_BYTES;
        if is_full || self.queue.try_send(Message::Batch(batch, self.failed.clone())).is_err() {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            counter!(LOST, "reason" => "queue").increment(records);
            return false;
        }
        true
    }
}

fn write_all(writer: &mut Writer, messages: &Receiver<Message>, queued_bytes: &AtomicU64) {
    let mut synced = Instant::now();
    loop {
        match messages.recv_timeout(SYNC_INTERVAL) {
            Ok(Message::Batch(batch, failed)) => {
                queued_bytes.fetch_sub(batch.bytes.len() as u64, Ordering::Relaxed);
                if !writer.write(&batch) {
                    counter!(LOST, "reason" => "disk").increment(batch.records);
                    failed.store(true, Ordering::Relaxed);
                }
            }
            Ok(Message::Flush(done)) => {
                let _ = done.send(());
            }
            Ok(Message::Close) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if synced.elapsed() >= SYNC_INTERVAL {
            writer.sync();
            synced = Instant::now();
        }
    }
    writer.sync();
}

#[derive(Debug)]
struct OpenChunk {
    file: File,
    chunk: ChunkFile,
    bytes: u64,
    synced: bool,
}

/// The files of a journal.
#[derive(Debug)]
struct Writer {
    folder: PathBuf,
    max_bytes: u64,
    open: BTreeMap<SpaceId, OpenChunk>,
    /// Finished chunks and their sizes, oldest first.
    closed: BTreeMap<ChunkFile, u64>,
    total: u64,
    /// The last attempt failed. The cause is logged once.
    failing: bool,
}

impl Writer {
    fn open(folder: &Path, max_bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut closed = BTreeMap::new();
        for chunk in reader::list(folder)? {
            let bytes = fs::metadata(&chunk.path)?.len();
            closed.insert(chunk, bytes);
        }
        let total = closed.values().sum();
        Ok(Self {
            folder: folder.to_owned(),
            max_bytes,
            open: BTreeMap::new(),
            closed,
            total,
            failing: false,
        })
    }

    /// Returns whether the batch is in its file.
    fn write(&mut self, batch: &Batch) -> bool {
        if batch.begins.is_none() && !self.open.contains_key(&batch.space) {
            return false;
        }
        let result = self.try_write(batch);
        gauge!(SIZE).set(self.total as f64);
        match result {
            Ok(()) => {
                counter!(BYTES).increment(batch.bytes.len() as u64);
                if std::mem::take(&mut self.failing) {
                    tracing::info!(folder = %self.folder.display(), "the journal is written again");
                }
                true
            }
            Err(error) => {
                counter!(ERRORS).increment(1);
                if !std::mem::replace(&mut self.failing, true) {
                    let folder = self.folder.display();
                    tracing::error!(%folder, space = %batch.space, %error, "the journal cannot be written and has a gap; the zone tries again");
                }
                self.abandon(batch.space);
                false
            }
        }
    }

    fn try_write(&mut self, batch: &Batch) -> io::Result<()> {
        if let Some(start_ms) = batch.begins {
            self.close_chunk(batch.space);
            self.make_room(batch.bytes.len() as u64)?;
            self.open_chunk(batch, start_ms)?;
        } else {
            self.make_room(batch.bytes.len() as u64)?;
        }
        let Some(open) = self.open.get_mut(&batch.space) else { return Ok(()) };
        open.file.write_all(&batch.bytes)?;
        open.bytes += batch.bytes.len() as u64;
        open.synced = false;
        self.total += batch.bytes.len() as u64;
        Ok(())
    }

    fn open_chunk(&mut self, batch: &Batch, start_ms: u64) -> io::Result<()> {
        let folder = self.folder.join(format!("space-{}", batch.space));
        fs::create_dir_all(&folder)?;
        let chunk = ChunkFile {
            start_ms,
            incarnation: batch.incarnation,
            path: folder.join(format!("{start_ms:015}-{:016x}.{EXTENSION}", batch.incarnation)),
        };
        let file = OpenOptions::new().write(true).create_new(true).open(&chunk.path)?;
        self.open.insert(batch.space, OpenChunk { file, chunk, bytes: 0, synced: true });
        Ok(())
    }

    /// Removes the oldest finished chunks until there is room for more bytes.
    fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        while self.total.saturating_add(bytes) > self.max_bytes {
            let Some((chunk, size)) = self.closed.pop_first() else {
                return Err(io::Error::new(
                    io::ErrorKind::QuotaExceeded,
                    "the chunks in use take all bytes that the setting journal.max_bytes allows: raise it",
                ));
            };
            self.total = self.total.saturating_sub(size);
            match fs::remove_file(&chunk.path) {
                Ok(()) => {
                    // Fails when the folder has other chunks.
                    let _ = chunk.path.parent().map(fs::remove_dir);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(file = %chunk.path.display(), %error, "an old chunk of the journal cannot be removed");
                }
            }
        }
        Ok(())
    }

    fn close_chunk(&mut self, space: SpaceId) {
        if let Some(open) = self.open.remove(&space) {
            sync(&open);
            self.closed.insert(open.chunk, open.bytes);
        }
    }

    /// Ends a chunk of which the last batch may be in the file in part. The part is cut off, so that the reader finds no
    /// torn block.
    fn abandon(&mut self, space: SpaceId) {
        let Some(open) = self.open.remove(&space) else { return };
        if open.bytes == 0 {
            let _ = fs::remove_file(&open.chunk.path);
            return;
        }
        let _ = open.file.set_len(open.bytes);
        self.closed.insert(open.chunk, open.bytes);
    }

    fn sync(&mut self) {
        for open in self.open.values_mut().filter(|open| !open.synced) {
            sync(open);
            open.synced = true;
        }
    }
}

/// The next write reports a failing disk, so this function only logs.
fn sync(open: &OpenChunk) {
    if let Err(error) = open.file.sync_data() {
        tracing::debug!(file = %open.chunk.path.display(), %error, "the journal is not synced");
    }
}
