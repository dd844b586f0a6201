//! Accounts of the ledger: who holds items and coins, where they come from, where they end.

use std::{fmt, str::FromStr};

use shardkeep_types::{CellId, CharacterId, MapId, Position, WorldId};

use super::Refusal;

/// A ledger account. As text: `c:<character>`, `g:<world>:<map>:<cell x>:<cell y>`, `mint:<reason>`, `burn:<reason>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    Character(CharacterId),
    /// The ground of a cell.
    Ground(WorldId, CellId),
    /// An origin. It holds nothing; the journal says what came from it.
    Mint(String),
    /// An end. It holds nothing; the journal says what went there.
    Burn(String),
}

impl Holder {
    /// Whether it can have something.
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

    /// What goes to the ground lies in that cell; what does not, lies nowhere.
    pub(super) fn check_position(&self, at: Option<Position>) -> Result<(), Refusal> {
        let fits = match self {
            Self::Ground(_, cell) => at.is_some_and(|at| at.x_mm >= 0 && at.y_mm >= 0 && at.cell() == *cell),
            _ => at.is_none(),
        };
        if fits { Ok(()) } else { Err(Refusal::Invalid(format!("{at:?} is no place in {self}"))) }
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
#[error("{0:?} is no ledger account")]
pub struct MalformedHolder(pub String);

impl FromStr for Holder {
    type Err = MalformedHolder;

    fn from_str(text: &str) -> Result<Self, MalformedHolder> {
        parse(text).ok_or_else(|| MalformedHolder(text.chars().take(64).collect()))
    }
}

fn parse(text: &str) -> Option<Holder> {
    let (kind, rest) = text.split_once(':')?;
    let reason = || (!rest.is_empty() && rest.len() <= 64).then(|| rest.to_owned());
    let holder = match kind {
        "c" => Holder::Character(CharacterId(rest.parse().ok()?)),
        "g" => {
            let mut parts = rest.split(':');
            let world = WorldId(parts.next()?.parse().ok()?);
            let map = MapId(parts.next()?.parse().ok()?);
            let cell = CellId { map, x: parts.next()?.parse().ok()?, y: parts.next()?.parse().ok()? };
            Holder::Ground(world, cell)
        }
        "mint" => Holder::Mint(reason()?),
        "burn" => Holder::Burn(reason()?),
        _ => return None,
    };
    // One account has one name: "c:07" and "g:1:1:2:3:4" are nobody.
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

    #[test]
    fn position_is_required_on_ground_only() {
        let ground: Holder = "g:1:1:0:0".parse().unwrap();
        let at = |x_mm| Some(Position::new(MapId(1), x_mm, 5));
        assert_eq!(ground.check_position(at(31_999)), Ok(()));
        for wrong in [None, at(32_000), at(-1)] {
            assert!(ground.check_position(wrong).is_err());
        }
        let hands = Holder::Character(CharacterId(1));
        assert!(hands.check_position(at(0)).is_err());
        assert_eq!(hands.check_position(None), Ok(()));
    }
}
