//! Accounts of the ledger: holders of items and coins, their origins and their ends.

use std::{fmt, str::FromStr};

use shardkeep_types::{CellId, CharacterId, SpaceId, WorldId};

/// The most bytes in the reason of a mint or burn account.
const MAX_REASON: usize = 64;

/// A ledger account. The tables store it as text: `c:<character>`, `g:<world>:<map>:<cell x>:<cell y>`,
/// `mint:<reason>`, `burn:<reason>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    Character(CharacterId),
    /// The ground of a cell.
    Ground(WorldId, CellId),
    /// An origin. It holds nothing; the journal records what came from it.
    Mint(String),
    /// An end. It holds nothing; the journal records what went there.
    Burn(String),
}

impl Holder {
    /// Checks an account that was not read from text.
    ///
    /// # Errors
    /// When the reason of a mint or burn account is empty or longer than 64 bytes.
    pub fn check(self) -> Result<Self, MalformedHolder> {
        match &self {
            Self::Mint(reason) | Self::Burn(reason) if reason.is_empty() || reason.len() > MAX_REASON => {
                Err(MalformedHolder(self.to_string().chars().take(MAX_REASON).collect()))
            }
            _ => Ok(self),
        }
    }

    /// Whether the account can hold items and coins.
    pub fn holds(&self) -> bool {
        matches!(self, Self::Character(_) | Self::Ground(..))
    }

    pub fn character(&self) -> Option<CharacterId> {
        match self {
            Self::Character(id) => Some(*id),
            _ => None,
        }
    }

    pub(super) fn world(&self) -> Option<WorldId> {
        match self {
            Self::Ground(world, _) => Some(*world),
            _ => None,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Character(id) => write!(f, "c:{id}"),
            Self::Ground(world, cell) => write!(f, "g:{world}:{cell}"),
            Self::Mint(reason) => write!(f, "mint:{reason}"),
            Self::Burn(reason) => write!(f, "burn:{reason}"),
        }
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a ledger account")]
pub struct MalformedHolder(pub String);

impl FromStr for Holder {
    type Err = MalformedHolder;

    fn from_str(text: &str) -> Result<Self, MalformedHolder> {
        parse(text).ok_or_else(|| MalformedHolder(text.chars().take(MAX_REASON).collect()))
    }
}

fn parse(text: &str) -> Option<Holder> {
    let (kind, rest) = text.split_once(':')?;
    let reason = || (!rest.is_empty() && rest.len() <= MAX_REASON).then(|| rest.to_owned());
    let holder = match kind {
        "c" => Holder::Character(CharacterId(rest.parse().ok()?)),
        "g" => {
            let mut parts = rest.split(':');
            let world = WorldId(parts.next()?.parse().ok()?);
            let space = SpaceId(parts.next()?.parse().ok()?);
            let cell = CellId { space, x: parts.next()?.parse().ok()?, y: parts.next()?.parse().ok()? };
            Holder::Ground(world, cell)
        }
        "mint" => Holder::Mint(reason()?),
        "burn" => Holder::Burn(reason()?),
        _ => return None,
    };
    // Each account has one text. "c:07" and "g:1:1:2:3:4" are refused.
    (holder.to_string() == text).then_some(holder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holder_round_trips_through_text() {
        for text in ["c:7", "g:1:2:3:65535", "mint:loot", "burn:fee"] {
            assert_eq!(text.parse::<Holder>().unwrap().to_string(), text);
        }
        for text in
            ["", "c", "c:", "c:07", "c:+7", "c:-1", "g:1:2:3", "g:1:2:3:4:5", "g:1:2:3:65536", "mint:", "x:1"]
        {
            assert!(text.parse::<Holder>().is_err(), "{text}");
        }
    }
}
