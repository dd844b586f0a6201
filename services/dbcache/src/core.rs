//! What dbcache does, apart from gRPC: hard actions through the group commit, soft state through the write-behind,
//! everything else straight to the database; with patience while that is away.

use std::{collections::HashMap, future::Future, time::Duration};

use shardkeep_cluster::Backoff;
use shardkeep_store::{
    Error,
    game::{
        Bid, Character, Claim, Committer, Conservation, Game, GameError, Ground, HardAction, HardResult,
        Lead, NewCharacter, Refusal, Release, Reown, SoftState, Transfer,
    },
};
use shardkeep_types::{AccountId, CellRect, CharacterId, Epoch, WorldId};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    ATTEMPT,
    metrics::{FLUSH_SECONDS, SOFT_WRITTEN, STORE_ERRORS},
    soft::Soft,
};

/// Soft states in one statement.
const PIECE: usize = 1_000;

pub(crate) struct Core {
    game: Game,
    committer: Committer,
    soft: Soft,
    patience: Duration,
    /// One flush at a time, so that an older state never overtakes a newer one.
    flushing: Mutex<()>,
}

impl Core {
    pub(crate) fn new(game: Game, committer: Committer, soft: Soft, patience: Duration) -> Self {
        Self { game, committer, soft, patience, flushing: Mutex::new(()) }
    }

    pub(crate) async fn list(&self, account: AccountId, world: WorldId) -> Result<Vec<Character>, GameError> {
        self.patiently(|| self.game.list(account, world)).await
    }

    pub(crate) async fn count(
        &self,
        accounts: &[AccountId],
    ) -> Result<HashMap<AccountId, Vec<(WorldId, u32)>>, GameError> {
        self.patiently(|| self.game.count(accounts)).await
    }

    /// Tried once: a repeat after an unknown outcome would find its own name taken.
    pub(crate) async fn create(&self, new: &NewCharacter) -> Result<Character, GameError> {
        let created = timeout_at(self.deadline(), self.game.create(new)).await;
        created.unwrap_or_else(|_| Err(Error::away().into()))
    }

    pub(crate) async fn claim(&self, claim: &Claim) -> Result<Character, GameError> {
        self.settle(claim.character).await?;
        let character = self.patiently(|| self.game.claim(claim)).await?;
        self.soft.begin_epoch(character.id, character.epoch);
        Ok(character)
    }

    pub(crate) async fn transfer(&self, transfer: &Transfer) -> Result<Epoch, GameError> {
        if transfer.soft.is_none() {
            self.settle(transfer.character).await?;
        }
        let epoch = self.patiently(|| self.game.transfer(transfer)).await?;
        self.soft.begin_epoch(transfer.character, epoch);
        Ok(epoch)
    }

    pub(crate) async fn reown(&self, reown: &Reown) -> Result<Vec<Character>, GameError> {
        // The dead zone's last words.
        self.patiently(|| self.flush()).await?;
        let characters = self.patiently(|| self.game.reown(reown)).await?;
        for character in &characters {
            self.soft.begin_epoch(character.id, character.epoch);
        }
        Ok(characters)
    }

    pub(crate) async fn release(&self, release: &Release) -> Result<(), GameError> {
        if release.soft.is_none() {
            self.settle(release.character).await?;
        }
        self.patiently(|| self.game.release(release)).await?;
        self.soft.begin_epoch(release.character, release.epoch.next());
        Ok(())
    }

    pub(crate) async fn load(&self, character: CharacterId) -> Result<Character, GameError> {
        self.settle(character).await?;
        self.patiently(|| self.game.load(character)).await
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
        let result = committed.unwrap_or_else(|_| Err(Error::away().into()));
        if let Err(GameError::Refused(Refusal::StaleEpoch { character, epoch })) = &result {
            self.soft.begin_epoch(*character, *epoch);
        }
        result
    }

    pub(crate) async fn load_ground(&self, world: WorldId, cells: CellRect) -> Result<Ground, GameError> {
        self.patiently(|| self.game.load_ground(world, cells)).await
    }

    pub(crate) async fn lead(&self, bid: &Bid) -> Result<Lead, GameError> {
        self.patiently(|| self.game.lead(bid)).await
    }

    /// Takes as long as the journal is long.
    pub(crate) async fn conserve(&self) -> Result<Conservation, GameError> {
        Ok(self.game.conserve().await?)
    }

    pub(crate) fn hard_waiting(&self) -> usize {
        self.committer.waiting()
    }

    pub(crate) fn soft_is_written(&self) -> bool {
        self.soft.is_empty()
    }

    /// Writes what waits. What cannot be written waits on.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        let _one_at_a_time = self.flushing.lock().await;
        for taken in self.soft.take(PIECE) {
            let begin = Instant::now();
            let saved = timeout(ATTEMPT, self.game.save_soft(&taken.states())).await;
            let stale = saved.unwrap_or_else(|_| Err(Error::away()))?;
            metrics::histogram!(FLUSH_SECONDS).record(begin.elapsed());
            metrics::counter!(SOFT_WRITTEN).increment((taken.len() - stale.len()) as u64);
            self.soft.written(&taken, &stale);
        }
        Ok(())
    }

    /// Writes the state that waits for this character, before its row is read or changes hands.
    async fn settle(&self, character: CharacterId) -> Result<(), GameError> {
        if self.soft.of(character).is_none() {
            return Ok(());
        }
        self.patiently(|| async {
            let _one_at_a_time = self.flushing.lock().await;
            match self.soft.of(character) {
                Some(state) => self.game.save_soft(&[state]).await.map(drop),
                None => Ok(()),
            }
        })
        .await
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.patience
    }

    /// Tries again while the database is away, until the patience is over. For what may be repeated.
    async fn patiently<T, E, F>(&self, attempt: impl Fn() -> F) -> Result<T, GameError>
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
                Err(_) => return Err(Error::away().into()),
            };
            let Some(trouble) = error.store() else { return Err(error) };
            metrics::counter!(STORE_ERRORS, "error" => trouble.label()).increment(1);
            if !trouble.retryable() || timeout_at(deadline, backoff.wait()).await.is_err() {
                return Err(error);
            }
        }
    }
}
