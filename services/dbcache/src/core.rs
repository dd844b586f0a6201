//! The work of dbcache behind gRPC. Hard actions go through the group commit, soft state through the write-behind
//! queue, everything else straight to the database. While the database does not answer, each call is repeated until its
//! deadline.

use std::{collections::HashMap, future::Future, path::PathBuf, sync::Arc, time::Duration};

use shardkeep_cluster::Backoff;
use shardkeep_store::{
    Error,
    game::{
        ActionId, ActionLookup, Caller, Character, Claim, Committer, Conservation, FoundCharacter, Game,
        GameError, GroundCursor, GroundPage, HardAction, HardResult, LayoutChange, LayoutCursor, LayoutPage,
        Leadership, LeadershipBid, MAX_LAYOUT_ROWS, NewCharacter, OnceKey, Refusal, Release, Reown, Reowned,
        Reward, SoftState, Transfer,
    },
};
use shardkeep_types::{AccountId, CellRect, CharacterId, Epoch, WorldId};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    fault_point,
    metrics::{BORDER_REWARDS, FLUSH_SECONDS, STORE_ERRORS},
    soft::{FlushBatch, SoftQueue},
};

/// An attempt to write a batch that takes longer counts as a failure of the database.
pub(crate) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// Soft states in one statement.
const FLUSH_BATCH_SIZE: usize = 1_000;
/// Items and generations in one page of ground: well below the limit of a message.
const GROUND_PAGE: usize = 10_000;

pub(crate) struct Core {
    game: Game,
    committer: Committer,
    soft: SoftQueue,
    database_timeout: Duration,
    data_dir: PathBuf,
    /// Held by each flush. Two flushes at once would write the same states twice.
    flush_lock: Mutex<()>,
}

impl Core {
    pub(crate) fn new(
        game: Game,
        committer: Committer,
        soft: SoftQueue,
        database_timeout: Duration,
        data_dir: PathBuf,
    ) -> Self {
        Self { game, committer, soft, database_timeout, data_dir, flush_lock: Mutex::new(()) }
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

    /// One attempt only: after an unknown outcome, a repeat could find its own name taken.
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

    pub(crate) async fn reown(&self, reown: &Reown) -> Result<Vec<Reowned>, GameError> {
        // Writes the last soft states of the dead zone.
        self.with_retry(|| self.flush()).await?;
        let characters = self.with_retry(|| self.game.reown(reown)).await?;
        for moved in &characters {
            self.soft.begin_epoch(moved.character, moved.epoch);
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

    pub(crate) async fn load(&self, character: CharacterId, caller: &Caller) -> Result<Character, GameError> {
        self.flush_character(character).await?;
        self.with_retry(|| self.game.load(character, caller)).await
    }

    /// Does not wait for the database. Returns the characters that the caller is known not to own any more.
    pub(crate) fn save_soft(&self, caller: &Arc<Caller>, states: Vec<SoftState>) -> Vec<CharacterId> {
        self.soft.accept(caller, states)
    }

    pub(crate) async fn commit(&self, action: HardAction) -> Result<HardResult, GameError> {
        // An invalid action takes no place in the queue.
        action.check()?;
        let (caller, reason) = (action.caller.clone(), action.reason.clone());
        let (once, reward) = (action.once, action.reward);
        let deadline = self.deadline();
        let committed = timeout_at(deadline, self.committer.commit(action, deadline)).await;
        let result = committed.unwrap_or_else(|_| Err(Error::timed_out().into()));
        match &result {
            Ok(result) if result.applied => {
                fault_point::after_commit(&self.data_dir, &reason);
                if let (true, Some(once), Some(reward)) = (result.border_reward, once, reward) {
                    audit_border_reward(&caller, once, reward);
                }
            }
            Err(GameError::Refused(Refusal::StaleEpoch { character, epoch })) => {
                self.soft.begin_epoch(*character, *epoch);
            }
            _ => {}
        }
        result
    }

    pub(crate) async fn lookup_action(
        &self,
        caller: &Caller,
        action: &ActionId,
    ) -> Result<ActionLookup, GameError> {
        self.with_retry(|| self.game.lookup_action(caller, action)).await
    }

    pub(crate) async fn load_ground(
        &self,
        world: WorldId,
        cells: CellRect,
        after: Option<GroundCursor>,
    ) -> Result<GroundPage, GameError> {
        self.with_retry(|| self.game.load_ground(world, cells, after, GROUND_PAGE)).await
    }

    pub(crate) async fn lead(&self, bid: &LeadershipBid) -> Result<Leadership, GameError> {
        self.with_retry(|| self.game.lead(bid)).await
    }

    pub(crate) async fn load_layout(
        &self,
        world: WorldId,
        after: Option<LayoutCursor>,
    ) -> Result<LayoutPage, GameError> {
        self.with_retry(|| self.game.load_layout(world, after, MAX_LAYOUT_ROWS)).await
    }

    pub(crate) async fn store_layout(&self, change: &LayoutChange) -> Result<u64, GameError> {
        self.with_retry(|| self.game.store_layout(change)).await
    }

    /// Reads the whole journal, so it has no deadline.
    pub(crate) async fn check_conservation(&self) -> Result<Conservation, GameError> {
        Ok(self.game.check_conservation().await?)
    }

    pub(crate) fn hard_queue_len(&self) -> usize {
        self.committer.pending()
    }

    pub(crate) fn soft_queue_is_empty(&self) -> bool {
        self.soft.is_empty()
    }

    /// Writes the queue. After an error the rest stays queued.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        let _guard = self.flush_lock.lock().await;
        for batch in self.soft.pending_batches(FLUSH_BATCH_SIZE) {
            self.write(&batch).await?;
        }
        Ok(())
    }

    async fn write(&self, batch: &FlushBatch) -> Result<(), Error> {
        let begin = Instant::now();
        let saved = timeout(ATTEMPT_TIMEOUT, self.game.save_soft(&batch.writes())).await;
        let outcomes = saved.unwrap_or_else(|_| Err(Error::timed_out()))?;
        metrics::histogram!(FLUSH_SECONDS).record(begin.elapsed());
        self.soft.mark_written(batch, &outcomes);
        Ok(())
    }

    /// Writes the queued states of this character before its row is read or changes its owner.
    async fn flush_character(&self, character: CharacterId) -> Result<(), GameError> {
        if self.soft.pending_of(character).writes().is_empty() {
            return Ok(());
        }
        self.with_retry(|| async {
            let _guard = self.flush_lock.lock().await;
            self.write(&self.soft.pending_of(character)).await
        })
        .await
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.database_timeout
    }

    /// Repeats an idempotent attempt while the database does not answer, until the deadline.
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

/// Records the one exception to the rule that a zone acts only for characters that it owns.
fn audit_border_reward(caller: &Caller, once: OnceKey, reward: Reward) {
    metrics::counter!(BORDER_REWARDS).increment(1);
    shardkeep_daemon::event!(
        "border_reward",
        character = reward.fence.character.0,
        world = caller.world().0,
        zone = caller.zone(),
        space = once.spawn.space.0,
        spawn = once.spawn.number,
        generation = once.generation,
        coins = reward.coins,
        experience = reward.experience,
    );
}
