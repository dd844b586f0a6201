//! Calls to the database and to zones. The database fences each step by term or epoch, so each step is safe to
//! repeat. After a failure, the next attempt begins with the database's state.

mod layout;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shardkeep_cluster::{Backoff, Directory, MESSAGE_LIMIT, Node};
use shardkeep_rpc::{
    dbcache::{self, Character, ReownedCharacter, db_cache_client::DbCacheClient},
    session_id,
    zone::{self, zone_client::ZoneClient},
};
use shardkeep_types::{CharacterId, DaemonKind, InstanceId, Position, SessionId, Term, WorldId};
use tokio::sync::{Semaphore, watch};
use tonic::{Code, Response, Status, transport::Channel};

use crate::{
    domain::{
        effect::Work,
        placements::{PlaceError, Placement},
        presence::Avatar,
        request::start_position,
        zone::ZoneView,
        zones::View,
    },
    edge::{call::call, convert, lobby::Lobby, service::Handle},
    metrics::{PLACE_SECONDS, PLACED, REOWNED},
};

/// How long a player waits for a zone before the entry is refused.
const PLACE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the world tries to free a character without a player. After that, the next Enter or the next term frees
/// it.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(120);
/// Failed admissions at the zone that has the avatar, before the character is claimed for the zone at its position.
const MAX_ADMIT_FAILURES: u32 = 3;
/// Concurrent placements and releases; further ones wait.
const MAX_CONCURRENT: usize = 64;

/// Shared by all tasks of the world.
#[derive(Clone)]
pub(crate) struct Worker {
    node: Node,
    databases: Directory,
    view: watch::Receiver<Arc<View>>,
    handle: Handle,
    lobby: Lobby,
    permits: Arc<Semaphore>,
}

type Database = DbCacheClient<Channel>;

/// Why a call failed; the caller retries.
type RetryReason = String;

impl Worker {
    pub(crate) fn new(node: Node, view: watch::Receiver<Arc<View>>, handle: Handle, lobby: Lobby) -> Self {
        let databases = node.directory(DaemonKind::Dbcache);
        let permits = Arc::new(Semaphore::new(MAX_CONCURRENT));
        Self { node, databases, view, handle, lobby, permits }
    }

    pub(crate) async fn run(self, work: Work) {
        match work {
            Work::ListCharacters { session, request, account } => {
                let answer = self.lobby.list(self.database(), account, request).await;
                self.handle.tell(move |app, _| app.send(session, answer)).await;
            }
            Work::CreateCharacter { session, request, account, name, start } => {
                let answer = self.lobby.create(self.database(), account, name, start, request).await;
                self.handle.tell(move |app, _| app.send(session, answer)).await;
            }
            Work::PlaceAvatar(placement) => {
                let result = self.place(&placement).await;
                self.handle.tell(move |app, now| app.placed(now, &placement, result)).await;
            }
            Work::ReleaseCharacter { character, session, reason } => {
                self.release_character(character, session, reason).await;
                self.handle.tell(move |app, now| app.released(now, session, character)).await;
            }
            Work::Reown { dead, successor } => {
                let avatars = self.reown(&dead, &successor).await;
                self.handle.tell(move |app, now| app.reowned(now, &avatars)).await;
            }
            Work::LoadLayout { term } => self.load_layout(term).await,
            Work::StoreLayout { term, change } => self.store_layout(term, &change).await,
        }
    }

    fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    fn world(&self) -> WorldId {
        self.node.world()
    }

    /// A client of any dbcache that is up.
    fn database(&self) -> Option<Database> {
        let address = self.databases.least_loaded()?.grpc_address;
        Some(
            DbCacheClient::new(self.node.channel(DaemonKind::Dbcache, &address))
                .max_decoding_message_size(MESSAGE_LIMIT)
                .max_encoding_message_size(MESSAGE_LIMIT),
        )
    }

    fn require_database(&self) -> Result<Database, RetryReason> {
        self.database().ok_or_else(|| "no dbcache is up".to_owned())
    }

    fn zone(&self, zone: &ZoneView) -> ZoneClient<Channel> {
        ZoneClient::new(self.node.channel(DaemonKind::Zone, zone.grpc_address()))
            .max_encoding_message_size(MESSAGE_LIMIT)
    }

    /// The term under which a command may be issued now.
    fn term(&self) -> Result<Term, RetryReason> {
        self.view().term(Instant::now()).ok_or_else(|| "the world's lease is not in force".to_owned())
    }

    async fn place(&self, placement: &Placement) -> Result<Avatar, PlaceError> {
        let begun = Instant::now();
        let _permit = self.permits.acquire().await.map_err(|_| PlaceError::Unavailable)?;
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut failures = 0;
        let result = loop {
            match self.try_place(placement, failures).await {
                Ok(result) => break result,
                Err(why) => tracing::debug!(character = %placement.character(), why, "not placed yet"),
            }
            failures += 1;
            if begun.elapsed() > PLACE_TIMEOUT {
                break Err(PlaceError::Unavailable);
            }
            backoff.wait().await;
        };
        let outcome = match &result {
            Ok(_) => "ok",
            Err(PlaceError::NotFound) => "not_found",
            Err(PlaceError::Unavailable) => "unavailable",
        };
        metrics::counter!(PLACED, "outcome" => outcome).increment(1);
        metrics::histogram!(PLACE_SECONDS).record(begun.elapsed().as_secs_f64());
        result
    }

    /// One attempt: at the zone that already has the character for this session, or at the zone of its position.
    async fn try_place(
        &self,
        placement: &Placement,
        failures: u32,
    ) -> Result<Result<Avatar, PlaceError>, RetryReason> {
        let term = self.term()?;
        let Some(character) = self.load(placement.character()).await? else {
            return Ok(Err(PlaceError::NotFound));
        };
        if !convert::belongs_to(&character, placement.account(), self.world()) {
            return Ok(Err(PlaceError::NotFound));
        }
        let view = self.view();
        if let Some(owner) = view.live_zone(&character.owner, character.owner_incarnation) {
            if character.session == placement.session().as_bytes() && failures < MAX_ADMIT_FAILURES {
                return self.admit(placement, owner, character, term).await.map(Ok);
            }
            // The zone saves the character before it lets it go. If it does not, the higher epoch of the claim fences
            // it.
            if let Err(why) = self.evict(owner, &character, "taken over").await {
                tracing::debug!(character = character.id, why, "the zone did not let go before the claim");
            }
        }
        let at = character.position.map(Position::try_from).transpose().map_err(|error| error.to_string())?;
        // Avatars of closed spaces return to space 1.
        let at = at.filter(|at| view.is_open(at.space));
        let start = start_position(placement.account().0);
        let cell = at.unwrap_or(start).cell();
        let owner = view.zone_of(cell).ok_or_else(|| format!("nobody owns cell {cell}"))?;
        let claim = dbcache::ClaimRequest {
            character: character.id,
            world: self.world().0,
            term: term.0,
            zone: owner.id().name.clone(),
            incarnation: owner.id().incarnation,
            account: placement.account().0,
            session: placement.session().as_bytes().to_vec(),
        };
        let mut database = self.require_database()?;
        let mut character = retryable(database.claim(claim)).await?;
        if at.is_none() {
            character.position = Some(start.into());
        }
        self.admit(placement, owner, character, term).await.map(Ok)
    }

    async fn admit(
        &self,
        placement: &Placement,
        zone: &ZoneView,
        character: Character,
        term: Term,
    ) -> Result<Avatar, RetryReason> {
        let request = zone::AdmitRequest {
            session: placement.session().as_bytes().to_vec(),
            session_epoch: placement.session_epoch().0,
            account: placement.account().0,
            character: Some(character.clone()),
            term: term.0,
        };
        let admitted = retryable(self.zone(zone).admit(request)).await?;
        convert::admitted(character, placement.session(), zone.id(), admitted.position)
            .map_err(|error| error.to_string())
    }

    async fn evict(&self, zone: &ZoneView, character: &Character, reason: &str) -> Result<(), RetryReason> {
        let request =
            zone::EvictRequest { character: character.id, epoch: character.epoch, reason: reason.to_owned() };
        retryable(self.zone(zone).evict(request)).await.map(drop)
    }

    async fn load(&self, character: CharacterId) -> Result<Option<Character>, RetryReason> {
        let mut database = self.require_database()?;
        match call(database.load(dbcache::LoadRequest { character: character.0 })).await {
            Ok(character) => Ok(Some(character)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(retry_reason(&status)),
        }
    }

    /// Frees a character that its session has left, unless another session has it now.
    async fn release_character(&self, character: CharacterId, session: SessionId, reason: &str) {
        let begun = Instant::now();
        let Ok(_permit) = self.permits.acquire().await else { return };
        let mut backoff = Backoff::default();
        // The epoch at which its zone was already asked to evict it.
        let mut evicted = None;
        while begun.elapsed() < RELEASE_TIMEOUT {
            match self.try_release(character, session, reason, &mut evicted).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(why) => {
                    tracing::debug!(%character, why, "not let go yet");
                    backoff.wait().await;
                }
            }
        }
        tracing::warn!(%character, "gave up letting go of a character; whoever enters with it next takes it over");
    }

    /// `true` when nothing is left to do.
    async fn try_release(
        &self,
        character: CharacterId,
        session: SessionId,
        reason: &str,
        evicted: &mut Option<u64>,
    ) -> Result<bool, RetryReason> {
        self.term()?;
        let Some(character) = self.load(character).await? else { return Ok(true) };
        if character.owner.is_empty() || character.session != session.as_bytes() {
            return Ok(true);
        }
        let view = self.view();
        match view.live_zone(&character.owner, character.owner_incarnation) {
            Some(owner) if *evicted != Some(character.epoch) => {
                self.evict(owner, &character, reason).await?;
                *evicted = Some(character.epoch);
            }
            // The zone is dead, or reports that it does not have the character.
            _ => {
                let release =
                    dbcache::ReleaseRequest { character: character.id, epoch: character.epoch, soft: None };
                retryable(self.require_database()?.release(release)).await?;
            }
        }
        Ok(false)
    }

    /// Gives a dead zone's avatars to its successor. Retries until this succeeds or the term ends.
    async fn reown(&self, dead: &InstanceId, successor: &InstanceId) -> Vec<(CharacterId, SessionId)> {
        let Some(term) = self.view().held_term() else { return Vec::new() };
        let request = dbcache::ReownRequest {
            world: self.world().0,
            term: term.0,
            from_zone: dead.name.clone(),
            from_incarnation: dead.incarnation,
            to_zone: successor.name.clone(),
            to_incarnation: successor.incarnation,
        };
        let mut backoff = Backoff::default();
        loop {
            if self.view().held_term() != Some(term) {
                return Vec::new();
            }
            let attempt = match self.term() {
                Ok(_) => self.try_reown(&request).await,
                Err(paused) => Err(paused),
            };
            match attempt {
                Ok(avatars) => return avatars,
                Err(why) => tracing::warn!(dead = dead.name, why, "avatars of a dead zone not moved yet"),
            }
            backoff.wait().await;
        }
    }

    async fn try_reown(
        &self,
        request: &dbcache::ReownRequest,
    ) -> Result<Vec<(CharacterId, SessionId)>, RetryReason> {
        let mut moved = Vec::new();
        loop {
            let reply = retryable(self.require_database()?.reown(request.clone())).await?;
            metrics::counter!(REOWNED).increment(reply.characters.len() as u64);
            let played =
                |it: &ReownedCharacter| Some((CharacterId(it.character), session_id(&it.session).ok()?));
            moved.extend(reply.characters.iter().filter_map(played));
            if !reply.more {
                return Ok(moved);
            }
        }
    }
}

async fn retryable<T>(answer: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, RetryReason> {
    call(answer).await.map_err(|status| retry_reason(&status))
}

fn retry_reason(status: &Status) -> RetryReason {
    format!("{:?}: {}", status.code(), status.message())
}
