//! What dbcache does, apart from gRPC: hard actions through the group commit, soft state through the write-behind,
//! everything else straight to the database; with patience while that is away.

use std::{collections::HashMap, future::Future, time::Duration};

use shardkeep_cluster::Backoff;
use shardkeep_store::{
    Error,
    game::{
        Character, Claim, Committer, Conservation, FoundCharacter, Game, GameError, Ground, HardAction,
        HardResult, Leadership, LeadershipBid, NewCharacter, Refusal, Release, Reown, SoftState, Transfer,
    },
};
use shardkeep_types::{AccountId, CellRect, CharacterId, Epoch, WorldId};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    ATTEMPT_TIMEOUT,
    metrics::{FLUSH_SECONDS, SOFT_WRITTEN, STORE_ERRORS},
    soft::SoftQueue,
};

/// Soft states in one statement.
const FLUSH_BATCH_SIZE: usize = 1_000;

pub(crate) struct Core {
    game: Game,
    committer: Committer,
    soft: SoftQueue,
    database_timeout: Duration,
    /// One flush at a time, so that an older state never overtakes a newer one.
    flush_lock: Mutex<()>,
}

impl Core {
    pub(crate) fn new(game: Game, committer: Committer, soft: SoftQueue, database_timeout: Duration) -> Self {
        Self { game, committer, soft, database_timeout, flush_lock: Mutex::new(()) }
    }

    pub(crate) async fn list(&self, account: AccountId, world: WorldId) -> Result<Vec<Character>, GameError> {
        self.with_retry(|| self.game.list(account, world)).await
    }

    pub(crate) async fn count(
        &self,
        accounts: &[AccountId],
    ) -> Result<HashMap<AccountId, Vec<(WorldId, u32)>>, GameError> {
        self.with_retry(|| self.game.count(accounts)).await
    }

    pub(crate) async fn find_by_name(
        &self,
        prefix: &str,
        limit: u32,
    ) -> Result<Vec<FoundCharacter>, GameError> {
        self.with_retry(|| self.game.find_by_name(prefix, limit)).await
    }

    /// Tried once: a repeat after an unknown outcome would find its own name taken.
    pub(crate) async fn create(&self, new: &NewCharacter) -> Result<Character, GameError> {
        let created = timeout_at(self.deadline(), self.game.create(new)).await;
        created.unwrap_or_else(|_| Err(Error::timed_out().into()))
    }

    pub(crate) async fn claim(&self, claim: &Claim) -> Result<Character, GameError> {
        self.flush_character(claim.character).await?;
        let character = self.with_retry(|| self.game.claim(claim)).await?;
        self.soft.begin_epoch(character.id, character.epoch);
        Ok(character)
    }

    pub(crate) async fn transfer(&self, transfer: &Transfer) -> Result<Epoch, GameError> {
        if transfer.soft.is_none() {
            self.flush_character(transfer.character).await?;
        }
        let epoch = self.with_retry(|| self.game.transfer(transfer)).await?;
        self.soft.begin_epoch(transfer.character, epoch);
        Ok(epoch)
    }

    pub(crate) async fn reown(&self, reown: &Reown) -> Result<Vec<Character>, GameError> {
        // The dead zone's last words.
        self.with_retry(|| self.flush()).await?;
        let characters = self.with_retry(|| self.game.reown(reown)).await?;
        for character in &characters {
            self.soft.begin_epoch(character.id, character.epoch);
        }
        Ok(characters)
    }

    pub(crate) async fn release(&self, release: &Release) -> Result<(), GameError> {
        if release.soft.is_none() {
            self.flush_character(release.character).await?;
        }
        self.with_retry(|| self.game.release(release)).await?;
        self.soft.begin_epoch(release.character, release.epoch.next());
        Ok(())
    }

    pub(crate) async fn load(&self, character: CharacterId) -> Result<Character, GameError> {
        self.flush_character(character).await?;
        self.with_retry(|| self.game.load(character)).await
    }

    /// Never waits for the database; returns the characters whose epoch is known to be over.
    pub(crate) fn save_soft(&self, states: Vec<SoftState>) -> Vec<CharacterId> {
        self.soft.accept(states)
    }

    pub(crate) async fn commit(&self, action: HardAction) -> Result<HardResult, GameError> {
        // Refused here, so that it does not take a place in the queue.
        action.check()?;
        let deadline = self.deadline();
        let committed = timeout_at(deadline, self.committer.commit(action, deadline)).await;
        let result = committed.unwrap_or_else(|_| Err(Error::timed_out().into()));
        if let Err(GameError::Refused(Refusal::StaleEpoch { character, epoch })) = &result {
            self.soft.begin_epoch(*character, *epoch);
        }
        result
    }

    pub(crate) async fn load_ground(&self, world: WorldId, cells: CellRect) -> Result<Ground, GameError> {
        self.with_retry(|| self.game.load_ground(world, cells)).await
    }

    pub(crate) async fn lead(&self, bid: &LeadershipBid) -> Result<Leadership, GameError> {
        self.with_retry(|| self.game.lead(bid)).await
    }

    /// Takes as long as the journal is long.
    pub(crate) async fn check_conservation(&self) -> Result<Conservation, GameError> {
        Ok(self.game.check_conservation().await?)
    }

    pub(crate) fn hard_queue_len(&self) -> usize {
        self.committer.pending()
    }

    pub(crate) fn soft_queue_is_empty(&self) -> bool {
        self.soft.is_empty()
    }

    /// Writes what waits. What cannot be written waits on.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        let _guard = self.flush_lock.lock().await;
        for batch in self.soft.pending_batches(FLUSH_BATCH_SIZE) {
            let begin = Instant::now();
            let saved = timeout(ATTEMPT_TIMEOUT, self.game.save_soft(&batch.states())).await;
            let stale = saved.unwrap_or_else(|_| Err(Error::timed_out()))?;
            metrics::histogram!(FLUSH_SECONDS).record(begin.elapsed());
            metrics::counter!(SOFT_WRITTEN).increment((batch.len() - stale.len()) as u64);
            self.soft.mark_written(&batch, &stale);
        }
        Ok(())
    }

    /// Writes the state that waits for this character, before its row is read or changes hands.
    async fn flush_character(&self, character: CharacterId) -> Result<(), GameError> {
        if self.soft.pending_state(character).is_none() {
            return Ok(());
        }
        self.with_retry(|| async {
            let _guard = self.flush_lock.lock().await;
            match self.soft.pending_state(character) {
                Some(state) => self.game.save_soft(&[state]).await.map(drop),
                None => Ok(()),
            }
        })
        .await
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.database_timeout
    }

    /// Tries again while the database is away, until the patience is over. For what may be repeated.
    async fn with_retry<T, E, F>(&self, attempt: impl Fn() -> F) -> Result<T, GameError>
    where
        E: Into<GameError>,
        F: Future<Output = Result<T, E>>,
    {
        let deadline = self.deadline();
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
        loop {
            let error = match timeout_at(deadline, attempt()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error.into(),
                Err(_) => return Err(Error::timed_out().into()),
            };
            let Some(store_error) = error.store() else { return Err(error) };
            metrics::counter!(STORE_ERRORS, "error" => store_error.label()).increment(1);
            if !store_error.retryable() || timeout_at(deadline, backoff.wait()).await.is_err() {
                return Err(error);
            }
        }
    }
}
