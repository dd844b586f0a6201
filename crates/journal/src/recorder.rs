//! Encodes what happens to a simulation. It does no I/O: the caller passes the batches to a [`Sink`](crate::Sink) and
//! reports those that were lost.

use shardkeep_sim::{Input, SCHEMA, Sim, rules::TICK_MS};
use shardkeep_types::SpaceId;

use crate::format::{Header, RecordRef, append_block, encode, file_start};

/// Records of this time are written together.
const BATCH_MS: u64 = 200;
/// Records of more bytes are written at the next tick.
const BATCH_BYTES: usize = 64 << 10;
/// The state hash is recorded once per this time.
const HASH_MS: u64 = 1_000;
/// How long after a loss the recorder begins again, with a snapshot.
const RETRY_MS: u64 = 2_000;

/// Where the records come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub release: String,
    pub zone: String,
    pub incarnation: u64,
    pub seed: u64,
}

/// When a chunk ends and the next one begins, with a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub chunk_bytes: u64,
    pub chunk_ms: u64,
}

/// Bytes for the end of a chunk file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub space: SpaceId,
    /// The batch is the start of the chunk that begins at this time.
    pub begins: Option<u64>,
    pub incarnation: u64,
    pub bytes: Vec<u8>,
    /// The number of records in it.
    pub records: u64,
}

/// Records one space.
#[derive(Debug)]
pub struct Recorder {
    origin: Origin,
    policy: Policy,
    space: SpaceId,
    /// The start of a chunk, which the next batch contains.
    begins: Option<(u64, Vec<u8>)>,
    /// Encoded records of the next batch.
    records: Vec<u8>,
    count: u64,
    chunk_start: u64,
    chunk_bytes: u64,
    batch_at: u64,
    hash_at: u64,
    /// Records were lost. Nothing is recorded until this time.
    resumes_at: Option<u64>,
    lost: u64,
}

impl Recorder {
    /// Begins with the present state of the simulation.
    pub fn new(origin: Origin, policy: Policy, sim: &Sim) -> Self {
        let mut recorder = Self {
            origin,
            policy,
            space: sim.space(),
            begins: None,
            records: Vec::new(),
            count: 0,
            chunk_start: 0,
            chunk_bytes: 0,
            batch_at: 0,
            hash_at: 0,
            resumes_at: None,
            lost: 0,
        };
        recorder.begin_chunk(sim);
        recorder
    }

    /// Records an input. Call it before or after the simulation applies it, in the same order.
    pub fn input(&mut self, input: &Input) {
        self.record(&RecordRef::Input(input));
    }

    /// Records a tick, before the inputs that the tick causes.
    pub fn tick(&mut self, now: u64) {
        self.record(&RecordRef::Tick { now });
    }

    /// Ends a tick, when the inputs that it caused have been recorded. Returns what is due to be written.
    pub fn end_tick(&mut self, sim: &Sim) -> Option<Batch> {
        let now = sim.now();
        if let Some(resumes_at) = self.resumes_at {
            if now >= resumes_at {
                self.begin_chunk(sim);
            }
            return None;
        }
        if now >= self.hash_at {
            self.record(&RecordRef::Hash(sim.state_hash()));
            self.hash_at = now - now % HASH_MS + HASH_MS;
        }
        let ends = self.chunk_bytes + self.records.len() as u64 >= self.policy.chunk_bytes
            || now >= self.chunk_start.saturating_add(self.policy.chunk_ms);
        if !ends && now < self.batch_at && self.records.len() < BATCH_BYTES {
            return None;
        }
        let batch = self.take_batch(now);
        if ends {
            self.begin_chunk(sim);
        }
        batch
    }

    /// Returns the records that are not written yet. The simulation ends.
    pub fn finish(&mut self, sim: &Sim) -> Option<Batch> {
        if self.resumes_at.is_some() {
            return None;
        }
        self.record(&RecordRef::Hash(sim.state_hash()));
        self.take_batch(sim.now())
    }

    /// A batch with this many records was not written, so later ones make no sense without a new snapshot.
    pub fn lost(&mut self, records: u64, now: u64) {
        self.lost += records + std::mem::take(&mut self.count);
        self.begins = None;
        self.records.clear();
        self.resumes_at = Some(now.saturating_add(RETRY_MS));
    }

    fn record(&mut self, record: &RecordRef<'_>) {
        if self.resumes_at.is_some() {
            self.lost += 1;
            return;
        }
        encode(record, &mut self.records);
        self.count += 1;
    }

    fn begin_chunk(&mut self, sim: &Sim) {
        let now = sim.now();
        let Origin { release, zone, incarnation, seed } = self.origin.clone();
        let header = Header {
            release,
            schema: SCHEMA,
            zone,
            incarnation,
            space: self.space,
            map: sim.map().name.to_owned(),
            map_hash: sim.map().hash(),
            seed,
            tick_ms: TICK_MS,
            start_ms: now,
        };
        self.begins = Some((now, file_start(&header)));
        (self.chunk_start, self.chunk_bytes) = (now, 0);
        self.resumes_at = None;
        self.batch_at = now + BATCH_MS;
        if self.lost > 0 {
            let records = std::mem::take(&mut self.lost);
            self.record(&RecordRef::Gap { records });
        }
        self.record(&RecordRef::Snapshot(&sim.snapshot()));
    }

    fn take_batch(&mut self, now: u64) -> Option<Batch> {
        self.batch_at = now + BATCH_MS;
        if self.records.is_empty() {
            return None;
        }
        let (begins, mut bytes) =
            self.begins.take().map_or((None, Vec::new()), |(at, bytes)| (Some(at), bytes));
        append_block(&self.records, &mut bytes);
        self.records.clear();
        self.chunk_bytes += bytes.len() as u64;
        Some(Batch {
            space: self.space,
            begins,
            incarnation: self.origin.incarnation,
            bytes,
            records: std::mem::take(&mut self.count),
        })
    }
}
