//! Guest accounts of the local cluster: one for each terminal, because a second login of an account ends the first.

use std::fs::TryLockError;

use anyhow::{Context as _, Result, bail};
use shardkeep_types::FileLock;

use crate::data_dir::DataDir;

/// Terminals of one user at once.
const MAX_GUESTS: u8 = 26;

/// A guest that this process alone uses, for as long as the value lives.
pub struct Guest {
    user: String,
    /// From 1.
    number: u8,
    _lock: FileLock,
}

impl Guest {
    /// Takes the first guest of this user that no other terminal uses.
    ///
    /// # Errors
    /// When all guests are in use, or the data directory cannot be written.
    pub fn take(dir: &DataDir) -> Result<Self> {
        let user: String = std::env::var("USER").unwrap_or_default().to_lowercase();
        let user: String = user.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
        Self::take_as(if user.is_empty() { "one" } else { &user }, dir)
    }

    fn take_as(user: &str, dir: &DataDir) -> Result<Self> {
        dir.create()?;
        for number in 1..=MAX_GUESTS {
            let path = dir.run().join(format!("{}.lock", account_name(user, number)));
            match FileLock::take(&path) {
                Ok(lock) => return Ok(Self { user: user.to_owned(), number, _lock: lock }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
        }
        bail!("all {MAX_GUESTS} guests of {user} play already: name an account")
    }

    pub fn account(&self) -> String {
        account_name(&self.user, self.number)
    }

    pub fn character(&self) -> String {
        character_name(&format!("guest{}", self.user), self.number)
    }
}

fn account_name(user: &str, number: u8) -> String {
    if number == 1 { format!("guest-{user}") } else { format!("guest-{user}-{number}") }
}

/// A character name from an account name: 3 to 16 letters, the last of which tells guests apart.
pub fn character_name(account: &str, number: u8) -> String {
    let mut name: String = account.chars().filter(char::is_ascii_alphabetic).take(15).collect();
    while name.len() < 3 {
        name.push('a');
    }
    if number > 1 {
        name.push(char::from(b'a' + (number - 1) % 26));
    }
    name[..1].make_ascii_uppercase();
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_terminal_takes_another_guest() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::new(folder.path()).unwrap();
        let first = Guest::take_as("ann", &dir).unwrap();
        let second = Guest::take_as("ann", &dir).unwrap();
        assert_eq!((first.account(), first.character()), ("guest-ann".into(), "Guestann".into()));
        assert_eq!((second.account(), second.character()), ("guest-ann-2".into(), "Guestannb".into()));
        drop(first);
        assert_eq!(
            Guest::take_as("ann", &dir).unwrap().account(),
            "guest-ann",
            "the first one is free again"
        );
    }

    #[test]
    fn guest_beyond_the_last_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::new(folder.path()).unwrap();
        let all: Vec<Guest> = (0..MAX_GUESTS).map(|_| Guest::take_as("ann", &dir).unwrap()).collect();
        let names: std::collections::HashSet<String> = all.iter().map(Guest::character).collect();
        assert_eq!(names.len(), usize::from(MAX_GUESTS));
        assert!(Guest::take_as("ann", &dir).err().unwrap().to_string().contains("name an account"));
    }

    #[test]
    fn character_name_has_3_to_16_letters() {
        assert_eq!(character_name("7", 1), "Aaa");
        assert_eq!(character_name("a-very-long-account-name", 2), "Averylongaccounb");
    }
}
