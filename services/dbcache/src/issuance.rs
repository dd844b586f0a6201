//! Limits on what a caller creates and destroys. [`RULES`] lists the reasons that each kind of caller may use, and the
//! most that one call may mint or burn for it. A stolen certificate therefore cannot mint more than a game would.

use std::{collections::BTreeMap, fmt};

use shardkeep_store::game::{Caller, HardAction, Holder, NewCharacter};
use shardkeep_types::DaemonKind;

use crate::error::CallError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    Mint,
    Burn,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mint => "mint",
            Self::Burn => "burn",
        })
    }
}

/// The amounts that one call mints or burns for one reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Amount {
    stacks: u64,
    /// The sum of the counts of all minted stacks. Burned stacks have any count.
    items: u64,
    coins: u64,
    experience: u64,
}

struct Rule {
    caller: DaemonKind,
    direction: Direction,
    reason: &'static str,
    limit: Amount,
}

const RULES: [Rule; 2] = [
    // Everything that one dead creature leaves.
    Rule {
        caller: DaemonKind::Zone,
        direction: Direction::Mint,
        reason: "loot",
        limit: Amount { stacks: 16, items: 100, coins: 1_000, experience: 1_000 },
    },
    // Everything that one new character owns.
    Rule {
        caller: DaemonKind::World,
        direction: Direction::Mint,
        reason: "starter",
        limit: Amount { stacks: 64, items: 1_000, coins: 1_000_000, experience: 0 },
    },
];

/// Checks everything that an action mints and burns.
///
/// # Errors
/// [`CallError::Forbidden`] with the reason or the limit.
pub(crate) fn check_action(action: &HardAction) -> Result<(), CallError> {
    let caller = match action.caller {
        Caller::Zone { .. } => DaemonKind::Zone,
        Caller::World(_) => DaemonKind::World,
    };
    let mut amounts: BTreeMap<(Direction, &str), Amount> = BTreeMap::new();
    let mut amount = |direction, reason, add: Amount| {
        let sum = amounts.entry((direction, reason)).or_default();
        sum.stacks += add.stacks;
        sum.items += add.items;
        sum.coins = sum.coins.saturating_add(add.coins);
        sum.experience = sum.experience.saturating_add(add.experience);
    };
    for part in &action.mints {
        let add = Amount { stacks: 1, items: part.count.into(), ..Amount::default() };
        amount(Direction::Mint, &*action.reason, add);
    }
    if let Some(reward) = &action.reward {
        let coins = reward.coins.unsigned_abs();
        let add = Amount { coins, experience: reward.experience, ..Amount::default() };
        amount(Direction::Mint, &*action.reason, add);
    }
    for part in &action.coins {
        let add = Amount { coins: part.amount.unsigned_abs(), ..Amount::default() };
        if let Holder::Mint(reason) = &part.from {
            amount(Direction::Mint, &**reason, add);
        }
        if let Holder::Burn(reason) = &part.to {
            amount(Direction::Burn, &**reason, add);
        }
    }
    for part in &action.items {
        if let Holder::Burn(reason) = &part.to {
            amount(Direction::Burn, &**reason, Amount { stacks: 1, ..Amount::default() });
        }
    }
    amounts.into_iter().try_for_each(|((direction, reason), amount)| check(caller, direction, reason, amount))
}

/// Checks what a new character owns.
///
/// # Errors
/// [`CallError::Forbidden`] with the limit.
pub(crate) fn check_new_character(new: &NewCharacter) -> Result<(), CallError> {
    let amount = Amount {
        stacks: new.items.len() as u64,
        items: new.items.iter().map(|(_, count)| u64::from(*count)).sum(),
        coins: new.coins.unsigned_abs(),
        experience: 0,
    };
    check(DaemonKind::World, Direction::Mint, "starter", amount)
}

fn check(caller: DaemonKind, direction: Direction, reason: &str, amount: Amount) -> Result<(), CallError> {
    let rules = || RULES.iter().filter(|rule| rule.caller == caller && rule.direction == direction);
    let Some(rule) = rules().find(|rule| rule.reason == reason) else {
        let allowed: Vec<_> = rules().map(|rule| rule.reason).collect();
        let allowed = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
        return Err(CallError::Forbidden(format!(
            "a {caller} may not {direction} for the reason {reason:?}; allowed reasons: {allowed}"
        )));
    };
    let limit = rule.limit;
    let parts = [
        ("stacks", amount.stacks, limit.stacks),
        ("items", amount.items, limit.items),
        ("coins", amount.coins, limit.coins),
        ("experience", amount.experience, limit.experience),
    ];
    match parts.into_iter().find(|(_, amount, limit)| amount > limit) {
        Some((what, amount, limit)) => Err(CallError::Forbidden(format!(
            "a {caller} may {direction} at most {limit} {what} per call for the reason {reason:?}, not {amount}"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(checked: Result<(), CallError>) -> String {
        checked.unwrap_err().to_string()
    }

    #[test]
    fn unknown_reason_is_refused_with_allowed_ones() {
        let amount = Amount { stacks: 1, ..Amount::default() };
        let quest = message(check(DaemonKind::Zone, Direction::Mint, "quest", amount));
        assert_eq!(quest, "a zone may not mint for the reason \"quest\"; allowed reasons: loot");
        let burn = message(check(DaemonKind::Zone, Direction::Burn, "loot", amount));
        assert_eq!(burn, "a zone may not burn for the reason \"loot\"; allowed reasons: none");
        assert!(check(DaemonKind::World, Direction::Mint, "loot", amount).is_err());
        assert!(check(DaemonKind::Login, Direction::Mint, "loot", amount).is_err());
    }

    #[test]
    fn amount_above_limit_is_refused() {
        let limit = RULES[0].limit;
        assert!(check(DaemonKind::Zone, Direction::Mint, "loot", limit).is_ok());
        for above in [
            Amount { stacks: limit.stacks + 1, ..limit },
            Amount { items: limit.items + 1, ..limit },
            Amount { coins: limit.coins + 1, ..limit },
            Amount { experience: limit.experience + 1, ..limit },
        ] {
            assert!(message(check(DaemonKind::Zone, Direction::Mint, "loot", above)).contains("at most"));
        }
    }
}
