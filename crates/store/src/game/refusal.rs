//! Why the database says no. A refusal is final for this request; an [`Error`] is the database's trouble.

use shardkeep_types::{CharacterId, Epoch, ItemId, Term};

use super::Holder;
use crate::Error;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    Invalid(String),
    #[error("there is no such character")]
    NoSuchCharacter(CharacterId),
    /// The caller does not own the character any more.
    #[error("stale epoch: character {character} is owned under epoch {epoch}")]
    StaleEpoch { character: CharacterId, epoch: Epoch },
    /// The caller does not lead the world any more.
    #[error("stale term: the world is led under term {0}")]
    StaleTerm(Term),
    #[error("the action id has been used for another request")]
    ActionConflict,
    #[error("the action id lies below the kept window")]
    ActionTooOld,
    #[error("item {0} is not where it is taken from")]
    NotHeld(ItemId),
    #[error("{0} has not enough coins")]
    InsufficientCoins(Holder),
    #[error("the name is taken")]
    NameTaken,
    #[error("the account has {0} characters in this world, which is the limit")]
    TooManyCharacters(u32),
    #[error("an action stays in one world")]
    AcrossWorlds,
}

impl Refusal {
    /// Name of the refusal in metrics and in the replies of services.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::NoSuchCharacter(_) => "no_such_character",
            Self::StaleEpoch { .. } => "stale_epoch",
            Self::StaleTerm(_) => "stale_term",
            Self::ActionConflict => "action_conflict",
            Self::ActionTooOld => "action_too_old",
            Self::NotHeld(_) => "not_held",
            Self::InsufficientCoins(_) => "insufficient_coins",
            Self::NameTaken => "name_taken",
            Self::TooManyCharacters(_) => "too_many_characters",
            Self::AcrossWorlds => "across_worlds",
        }
    }
}

/// A refusal of the rules, or trouble of the database.
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
