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
    Options, PAUSE, Progress, Server, Stage, UpdateError, blocking,
    choose::{Chosen, is_replaced},
    install::Install,
    server::not_found,
};
use crate::{ClientError, Config, random};

/// Chunks asked for ahead on one connection.
const AHEAD: usize = 3;
/// How often one chunk may come wrong.
const WRONG: u32 = 5;
/// Servers are asked no more often whether a release of which one lacks something is still the one to fetch.
const ASK_AGAIN: Duration = Duration::from_secs(3);

struct Job {
    manifest: Arc<Manifest>,
    plan: Plan,
    install: Arc<Install>,
    progress: Arc<Progress>,
    /// Places in the plan's needs. Shrinks to nothing.
    missing: Mutex<VecDeque<usize>>,
    wrong: Mutex<HashMap<usize, u32>>,
    /// Told when a server lacks a chunk.
    lacking: Arc<Notify>,
    /// When something came last.
    came: Mutex<Instant>,
}

/// Copies what is here, fetches the rest, and gives the plan back when all is written.
pub(super) async fn fetch(
    config: &Config,
    servers: &[SocketAddr],
    options: &Options,
    progress: &Arc<Progress>,
    install: &Arc<Install>,
    release: &Chosen,
    plan: Plan,
) -> Result<Plan, UpdateError> {
    let lacking = Arc::new(Notify::new());
    let job = Job {
        manifest: release.manifest.clone(),
        plan,
        install: install.clone(),
        progress: progress.clone(),
        missing: Mutex::default(),
        wrong: Mutex::default(),
        lacking: lacking.clone(),
        came: Mutex::new(Instant::now()),
    };
    let job = blocking(move || job.copy().map(|()| job)).await?;
    let stored = |place: &usize| job.stored(*place);
    let (missing, bytes) = {
        let missing = job.missing.lock();
        (missing.len(), missing.iter().map(|place| u64::from(stored(place))).sum::<u64>())
    };
    progress.enter(Stage::Fetch, bytes);
    *job.came.lock() = Instant::now();
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
    let gone = async {
        loop {
            lacking.notified().await;
            if replaced().await {
                return;
            }
            sleep(ASK_AGAIN).await;
        }
    };
    let mut gone = Box::pin(gone);
    let mut failed = None;
    loop {
        let worker = tokio::select! {
            worker = workers.join_next() => worker,
            () = &mut gone => return Err(UpdateError::Gone),
        };
        match worker {
            Some(Ok(Ok(()))) => {}
            // The disk is full: the others cannot do better.
            Some(Ok(Err(error))) if !error.is_of_this_connection() => return Err(error),
            Some(Ok(Err(error))) => failed = Some(error),
            Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
            None => break,
        }
    }
    match Arc::into_inner(job) {
        Some(job) if job.missing.lock().is_empty() => Ok(job.plan),
        _ if matches!(failed, Some(UpdateError::Lacking(_))) && replaced().await => Err(UpdateError::Gone),
        _ => Err(failed.unwrap_or_else(|| ClientError::Timeout("a chunk").into())),
    }
}

impl Job {
    /// Everything that need not be fetched. What turns out to be another than it was is fetched after all.
    fn copy(&self) -> Result<(), UpdateError> {
        let here = self.plan.needs.iter().filter(|need| need.from != Source::Fetched);
        let bytes = here.map(|need| u64::from(self.manifest.chunks()[need.chunk as usize].size)).sum();
        self.progress.enter(Stage::Copy, bytes);
        for (place, need) in self.plan.needs.iter().enumerate() {
            match self.install.read(&self.manifest, need) {
                Some(content) => {
                    self.install.write(need, &content)?;
                    self.progress.advance(content.len() as u64);
                }
                None => self.missing.lock().push_back(place),
            }
        }
        Ok(())
    }

    fn stored(&self, place: usize) -> u32 {
        self.manifest.chunks()[self.plan.needs[place].chunk as usize].stored
    }

    /// One connection after another, until nothing is missing.
    async fn work(
        self: &Arc<Self>,
        config: &Config,
        servers: &[SocketAddr],
        patience: Duration,
    ) -> Result<(), UpdateError> {
        let (mut pause, mut came) = (PAUSE.0, *self.came.lock());
        for address in servers.iter().cycle() {
            let mut under_way = VecDeque::new();
            let result = self.over_one(config, *address, &mut under_way).await;
            self.missing.lock().extend(under_way);
            let error = match result {
                Ok(()) => return Ok(()),
                Err(error) if error.is_of_this_connection() => error,
                Err(fatal) => return Err(fatal),
            };
            if !matches!(error, UpdateError::Lacking(_)) {
                self.progress.count_lost();
            }
            let last = *self.came.lock();
            if last.elapsed() >= patience {
                return Err(error);
            }
            pause = if last > came { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
            came = last;
            sleep(random::jitter(pause)).await;
        }
        Err(ClientError::Timeout("an address of the update service").into())
    }

    /// `under_way` holds what was asked for and is not written yet.
    async fn over_one(
        self: &Arc<Self>,
        config: &Config,
        address: SocketAddr,
        under_way: &mut VecDeque<usize>,
    ) -> Result<(), UpdateError> {
        let mut server = Server::open(config, address).await?;
        loop {
            while under_way.len() < AHEAD {
                let Some(place) = self.missing.lock().pop_front() else { break };
                under_way.push_back(place);
                let chunk = &self.manifest.chunks()[self.plan.needs[place].chunk as usize];
                server.ask(&chunk.id, 0, chunk.stored, chunk.stored).await?;
            }
            let Some(&place) = under_way.front() else { return Ok(()) };
            let stored = server.take().await.map_err(|error| self.lacks(place, error))?;
            match self.write(place, stored).await {
                Err(Failure::Wrong(error)) => self.was_wrong(place, error)?,
                Err(Failure::Update(error)) => return Err(error),
                Ok(bytes) => {
                    under_way.pop_front();
                    self.progress.count_fetched(bytes);
                    *self.came.lock() = Instant::now();
                    continue;
                }
            }
            // Perhaps another server, or at least another connection, has it right.
            return Err(ClientError::Imposter("a chunk is not what its name says").into());
        }
    }

    /// The server may lag behind others, or be ahead of this release.
    fn lacks(&self, place: usize, error: ClientError) -> UpdateError {
        let id = self.manifest.chunks()[self.plan.needs[place].chunk as usize].id;
        let error = not_found(error, UpdateError::Lacking(id));
        if matches!(error, UpdateError::Lacking(_)) {
            self.lacking.notify_one();
        }
        error
    }

    async fn write(self: &Arc<Self>, place: usize, stored: Vec<u8>) -> Result<u64, Failure> {
        let job = self.clone();
        let work = move || {
            let need = &job.plan.needs[place];
            let wanted = &job.manifest.chunks()[need.chunk as usize];
            let content = match chunk::restore(&stored, &wanted.id, wanted.size) {
                Ok(content) => content,
                Err(error) => return Ok(Err(Failure::Wrong(error))),
            };
            job.install.write(need, &content)?;
            Ok::<_, UpdateError>(Ok(stored.len() as u64))
        };
        blocking(work).await.map_err(Failure::Update)?
    }

    fn was_wrong(&self, place: usize, error: ChunkError) -> Result<(), UpdateError> {
        self.progress.count_corrupted();
        let mut wrong = self.wrong.lock();
        let times = wrong.entry(place).or_insert(0);
        *times += 1;
        if *times < WRONG {
            return Ok(());
        }
        let id = self.manifest.chunks()[self.plan.needs[place].chunk as usize].id;
        Err(UpdateError::Chunk { id, times: *times, error })
    }
}

enum Failure {
    Wrong(ChunkError),
    Update(UpdateError),
}
