//! Why the database refuses a request. A refusal is final for this request; an [`Error`] is a failure of the database.

use shardkeep_types::{CharacterId, Epoch, ItemId, Term};

use super::holder::Holder;
use crate::Error;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    Invalid(String),
    #[error("character {0} does not exist")]
    NoSuchCharacter(CharacterId),
    /// The certificate of the caller does not allow the request.
    #[error("{0}")]
    Forbidden(String),
    #[error("stale epoch: character {character} has epoch {epoch} now")]
    StaleEpoch { character: CharacterId, epoch: Epoch },
    #[error("stale term: the world has term {0} now")]
    StaleTerm(Term),
    #[error("stale revision: the layout has revision {0} now")]
    StaleRevision(u64),
    #[error("the action id belongs to another request: continue above the character's last action id")]
    ActionConflict,
    #[error("the action id is too old: continue above the character's last action id")]
    ActionTooOld,
    #[error("action id {id} is too far ahead: the last one is {last}, continue with {last} + 1")]
    ActionTooFar { id: u64, last: u64 },
    #[error("item {0} is not where the action takes it from")]
    NotHeld(ItemId),
    #[error("{0} holds too few coins")]
    InsufficientCoins(Holder),
    #[error("character {0} holds as many stacks as it may")]
    InventoryFull(CharacterId),
    #[error("another character of this world has the name")]
    NameTaken,
    #[error("the account has {0} characters in this world, which is the limit")]
    TooManyCharacters(u32),
}

impl Refusal {
    /// The name of the refusal in metrics and in replies.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::NoSuchCharacter(_) => "no_such_character",
            Self::Forbidden(_) => "forbidden",
            Self::StaleEpoch { .. } => "stale_epoch",
            Self::StaleTerm(_) => "stale_term",
            Self::StaleRevision(_) => "stale_revision",
            Self::ActionConflict => "action_conflict",
            Self::ActionTooOld => "action_too_old",
            Self::ActionTooFar { .. } => "action_too_far",
            Self::InventoryFull(_) => "inventory_full",
            Self::NotHeld(_) => "not_held",
            Self::InsufficientCoins(_) => "insufficient_coins",
            Self::NameTaken => "name_taken",
            Self::TooManyCharacters(_) => "too_many_characters",
        }
    }
}

/// A refusal, or a failure of the database.
#[derive(Debug, thiserror::Error)]
pub enum GameError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Store(#[from] Error),
}

impl GameError {
    pub fn label(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.label(),
            Self::Store(error) => error.label(),
        }
    }

    pub fn store(&self) -> Option<&Error> {
        match self {
            Self::Refused(_) => None,
            Self::Store(error) => Some(error),
        }
    }
}
