//! The search for characters by name, for operators.

use shardkeep_names::confusable_key;
use shardkeep_types::{AccountId, CharacterId, WorldId};

use super::tables::Game;
use crate::{Error, sql};

/// A character in the result of a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundCharacter {
    pub id: CharacterId,
    pub account: AccountId,
    pub world: WorldId,
    pub name: String,
}

impl Game {
    /// Characters of all worlds whose names begin with `prefix` or with a text that looks like it, without regard to
    /// case: at most `limit`. It reads the names of all characters, so it takes longer in a larger database.
    pub async fn find_by_name(&self, prefix: &str, limit: u32) -> Result<Vec<FoundCharacter>, Error> {
        let select = sql("SELECT id, account, world, name FROM characters \
             WHERE substr(name_key, 1, length($1)) = $1 ORDER BY name_key, world LIMIT $2");
        let rows = self.database().fetch_all(select.bind(confusable_key(prefix)).bind(limit)).await?;
        let found = rows.into_iter().map(|mut row| {
            Ok(FoundCharacter {
                id: CharacterId(row.take()?),
                account: AccountId(row.take()?),
                world: WorldId(row.take()?),
                name: row.take()?,
            })
        });
        found.collect()
    }
}
