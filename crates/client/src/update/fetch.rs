//! Fetching: several connections share one list of missing chunks. A chunk is verified before it is written; one that
//! came wrong, that the server lacks, or whose connection was lost, goes back to the list, and another server is asked.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use shardkeep_patch::{ChunkError, Manifest, Plan, Source, chunk};
use tokio::{sync::Notify, task::JoinSet, time::sleep};

use super::{
    blocking::blocking,
    error::UpdateError,
    install::Install,
    options::{Options, PAUSE},
    progress::{Progress, Stage},
    selection::{TrustedRelease, is_replaced},
    server::{UpdateConnection, not_found},
};
use crate::{ClientError, Config, random};

/// Chunks asked for ahead on one connection.
const PIPELINE_DEPTH: usize = 3;
/// How often one chunk may come wrong.
const MAX_CORRUPT: u32 = 5;
/// When a server lacks a part of a release, the client checks at most this often whether the release is superseded.
const REPLACED_CHECK_INTERVAL: Duration = Duration::from_secs(3);

struct Job {
    manifest: Arc<Manifest>,
    plan: Plan,
    install: Arc<Install>,
    progress: Arc<Progress>,
    /// Places in the plan's needs. Shrinks to nothing.
    missing: Mutex<VecDeque<usize>>,
    corrupt_counts: Mutex<HashMap<usize, u32>>,
    /// Told when a server lacks a chunk.
    chunk_missing: Arc<Notify>,
    /// When something came last.
    last_progress: Mutex<Instant>,
}

/// Copies what is here, fetches the rest, and gives the plan back when all is written.
pub(super) async fn fetch(
    config: &Config,
    servers: &[SocketAddr],
    options: &Options,
    progress: &Arc<Progress>,
    install: &Arc<Install>,
    release: &TrustedRelease,
    plan: Plan,
) -> Result<Plan, UpdateError> {
    let chunk_missing = Arc::new(Notify::new());
    let job = Job {
        manifest: release.manifest.clone(),
        plan,
        install: install.clone(),
        progress: progress.clone(),
        missing: Mutex::default(),
        corrupt_counts: Mutex::default(),
        chunk_missing: chunk_missing.clone(),
        last_progress: Mutex::new(Instant::now()),
    };
    let job = blocking(move || job.copy().map(|()| job)).await?;
    let stored = |index: &usize| job.stored(*index);
    let (missing, bytes) = {
        let missing = job.missing.lock();
        (missing.len(), missing.iter().map(|index| u64::from(stored(index))).sum::<u64>())
    };
    progress.begin_stage(Stage::Fetch, bytes);
    *job.last_progress.lock() = Instant::now();
    let job = Arc::new(job);
    let mut workers = JoinSet::new();
    for number in 0..options.connections.min(missing) {
        let (job, config, patience) = (job.clone(), config.clone(), options.patience);
        let mut servers = servers.to_vec();
        let first = number % servers.len().max(1);
        servers.rotate_left(first);
        workers.spawn(async move { Box::pin(job.work(&config, &servers, patience)).await });
    }
    let replaced = || is_replaced(config, servers, &options.keys, release);
    let withdrawn = async {
        loop {
            chunk_missing.notified().await;
            if replaced().await {
                return;
            }
            sleep(REPLACED_CHECK_INTERVAL).await;
        }
    };
    let mut withdrawn = Box::pin(withdrawn);
    let mut failed = None;
    loop {
        let worker = tokio::select! {
            worker = workers.join_next() => worker,
            () = &mut withdrawn => return Err(UpdateError::ReleaseWithdrawn),
        };
        match worker {
            Some(Ok(Ok(()))) => {}
            // The disk is full: the others cannot do better.
            Some(Ok(Err(error))) if !error.another_connection_may_succeed() => return Err(error),
            Some(Ok(Err(error))) => failed = Some(error),
            Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
            None => break,
        }
    }
    match Arc::into_inner(job) {
        Some(job) if job.missing.lock().is_empty() => Ok(job.plan),
        _ if matches!(failed, Some(UpdateError::MissingChunk(_))) && replaced().await => {
            Err(UpdateError::ReleaseWithdrawn)
        }
        _ => Err(failed.unwrap_or_else(|| ClientError::Timeout("a chunk").into())),
    }
}

impl Job {
    /// Copies the chunks that local files hold. A chunk that has changed since the scan is fetched.
    fn copy(&self) -> Result<(), UpdateError> {
        let here = self.plan.missing_chunks.iter().filter(|need| need.from != Source::Fetched);
        let bytes = here.map(|need| u64::from(self.manifest.chunks()[need.chunk as usize].size)).sum();
        self.progress.begin_stage(Stage::Copy, bytes);
        for (index, need) in self.plan.missing_chunks.iter().enumerate() {
            match self.install.read(&self.manifest, need) {
                Some(content) => {
                    self.install.write(need, &content)?;
                    self.progress.advance(content.len() as u64);
                }
                None => self.missing.lock().push_back(index),
            }
        }
        Ok(())
    }

    fn stored(&self, index: usize) -> u32 {
        self.manifest.chunks()[self.plan.missing_chunks[index].chunk as usize].stored
    }

    /// One connection after another, until nothing is missing.
    async fn work(
        self: &Arc<Self>,
        config: &Config,
        servers: &[SocketAddr],
        patience: Duration,
    ) -> Result<(), UpdateError> {
        let (mut pause, mut last_progress) = (PAUSE.0, *self.last_progress.lock());
        for address in servers.iter().cycle() {
            let mut in_flight = VecDeque::new();
            let result = self.fetch_from(config, *address, &mut in_flight).await;
            self.missing.lock().extend(in_flight);
            let error = match result {
                Ok(()) => return Ok(()),
                Err(error) if error.another_connection_may_succeed() => error,
                Err(fatal) => return Err(fatal),
            };
            if !matches!(error, UpdateError::MissingChunk(_)) {
                self.progress.count_lost();
            }
            let last = *self.last_progress.lock();
            if last.elapsed() >= patience {
                return Err(error);
            }
            pause = if last > last_progress { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
            last_progress = last;
            sleep(random::jitter(pause)).await;
        }
        Err(ClientError::Timeout("an address of the update service").into())
    }

    /// `in_flight` holds what was asked for and is not written yet.
    async fn fetch_from(
        self: &Arc<Self>,
        config: &Config,
        address: SocketAddr,
        in_flight: &mut VecDeque<usize>,
    ) -> Result<(), UpdateError> {
        let mut server = UpdateConnection::open(config, address).await?;
        loop {
            while in_flight.len() < PIPELINE_DEPTH {
                let Some(index) = self.missing.lock().pop_front() else { break };
                in_flight.push_back(index);
                let chunk = &self.manifest.chunks()[self.plan.missing_chunks[index].chunk as usize];
                server.request_range(&chunk.id, 0, chunk.stored, chunk.stored).await?;
            }
            let Some(&index) = in_flight.front() else { return Ok(()) };
            let stored = server.next_range().await.map_err(|error| self.report_missing(index, error))?;
            match self.write(index, stored).await {
                Err(Failure::Corrupt(error)) => self.record_corrupt(index, error)?,
                Err(Failure::Update(error)) => return Err(error),
                Ok(bytes) => {
                    in_flight.pop_front();
                    self.progress.count_fetched(bytes);
                    *self.last_progress.lock() = Instant::now();
                    continue;
                }
            }
            // Perhaps another server, or at least another connection, has it right.
            return Err(ClientError::UntrustedServer("a chunk is not what its name says").into());
        }
    }

    /// The server may lag behind others, or be ahead of this release.
    fn report_missing(&self, index: usize, error: ClientError) -> UpdateError {
        let id = self.manifest.chunks()[self.plan.missing_chunks[index].chunk as usize].id;
        let error = not_found(error, UpdateError::MissingChunk(id));
        if matches!(error, UpdateError::MissingChunk(_)) {
            self.chunk_missing.notify_one();
        }
        error
    }

    async fn write(self: &Arc<Self>, index: usize, stored: Vec<u8>) -> Result<u64, Failure> {
        let job = self.clone();
        let work = move || {
            let need = &job.plan.missing_chunks[index];
            let wanted = &job.manifest.chunks()[need.chunk as usize];
            let content = match chunk::restore(&stored, &wanted.id, wanted.size) {
                Ok(content) => content,
                Err(error) => return Ok(Err(Failure::Corrupt(error))),
            };
            job.install.write(need, &content)?;
            Ok::<_, UpdateError>(Ok(stored.len() as u64))
        };
        blocking(work).await.map_err(Failure::Update)?
    }

    fn record_corrupt(&self, index: usize, error: ChunkError) -> Result<(), UpdateError> {
        self.progress.count_corrupted();
        let mut corrupt_counts = self.corrupt_counts.lock();
        let times = corrupt_counts.entry(index).or_insert(0);
        *times += 1;
        if *times < MAX_CORRUPT {
            return Ok(());
        }
        let id = self.manifest.chunks()[self.plan.missing_chunks[index].chunk as usize].id;
        Err(UpdateError::Chunk { id, times: *times, error })
    }
}

enum Failure {
    Corrupt(ChunkError),
    Update(UpdateError),
}
