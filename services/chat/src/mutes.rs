//! The mutes of characters. Every replica keeps the table and publishes it again and again. The mute that was issued
//! last wins, so all tables become equal.

use std::collections::{HashMap, hash_map::Entry};

use shardkeep_names::fold;

use crate::envelope::Mute;

/// Characters that may be muted at once. Overflow: the mute is refused.
const MAX_MUTES: usize = 10_000;
/// How long the end of a mute is remembered, so that an older message of another replica does not restore the mute.
const RETENTION_MS: u64 = 600_000;

/// Too many characters are muted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_MUTES} characters are muted already")]
pub(crate) struct TooManyMutes;

#[derive(Debug, Default)]
pub(crate) struct Mutes(HashMap<String, Mute>);

impl Mutes {
    /// The end of the character's mute, in milliseconds since the Unix epoch.
    pub(crate) fn until(&self, name: &str, now_ms: u64) -> Option<u64> {
        self.0.get(&fold(name)).map(|mute| mute.until_ms).filter(|&until| until > now_ms)
    }

    /// Applies a mute, unless a later one is known.
    pub(crate) fn set(&mut self, mut mute: Mute, now_ms: u64) -> Result<(), TooManyMutes> {
        mute.name = fold(&mute.name);
        self.forget(now_ms);
        let full = self.0.len() >= MAX_MUTES;
        match self.0.entry(mute.name.clone()) {
            Entry::Occupied(mut known) => {
                if known.get().issued_ms < mute.issued_ms {
                    known.insert(mute);
                }
            }
            Entry::Vacant(_) if full => return Err(TooManyMutes),
            Entry::Vacant(free) => {
                free.insert(mute);
            }
        }
        Ok(())
    }

    /// The mutes to publish.
    pub(crate) fn all(&mut self, now_ms: u64) -> Vec<Mute> {
        self.forget(now_ms);
        self.0.values().cloned().collect()
    }

    fn forget(&mut self, now_ms: u64) {
        self.0.retain(|_, mute| mute.until_ms > now_ms || mute.issued_ms + RETENTION_MS > now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mute(name: &str, until_ms: u64, issued_ms: u64) -> Mute {
        Mute { name: name.into(), until_ms, issued_ms }
    }

    #[test]
    fn mute_expires_and_ignores_case_of_names() {
        let mut mutes = Mutes::default();
        mutes.set(mute("Ann", 100, 1), 1).unwrap();
        assert_eq!(mutes.until("aNN", 99), Some(100));
        assert_eq!(mutes.until("Ann", 100), None);
        assert_eq!(mutes.until("Ben", 1), None);
    }

    #[test]
    fn latest_mute_wins_in_any_order() {
        let (earlier, later) = (mute("ann", 100, 1), mute("ann", 0, 2));
        for updates in [[earlier.clone(), later.clone()], [later, earlier]] {
            let mut mutes = Mutes::default();
            updates.into_iter().for_each(|update| mutes.set(update, 3).unwrap());
            assert_eq!(mutes.until("ann", 3), None);
        }
    }

    #[test]
    fn expired_mutes_are_removed_after_retention() {
        let mut mutes = Mutes::default();
        mutes.set(mute("ann", 100, 1), 1).unwrap();
        assert_eq!(mutes.all(RETENTION_MS).len(), 1);
        assert_eq!(mutes.all(RETENTION_MS + 1).len(), 0);
    }

    #[test]
    fn mute_table_is_bounded() {
        let mut mutes = Mutes::default();
        for number in 0..MAX_MUTES {
            mutes.set(mute(&number.to_string(), u64::MAX, 1), 1).unwrap();
        }
        assert_eq!(mutes.set(mute("one more", u64::MAX, 1), 1), Err(TooManyMutes));
        assert_eq!(mutes.set(mute("7", 0, 2), 1), Ok(()));
    }
}
