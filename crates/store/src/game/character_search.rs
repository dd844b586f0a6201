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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shardkeep_types::{Position, SpaceId};

    use super::*;
    use crate::{
        Database, Schema,
        game::{NewCharacter, NoCache},
    };

    #[tokio::test]
    async fn character_is_found_by_the_beginning_of_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("game.db").display());
        let game = Game::new(Database::open(&url, Schema::Game).await.unwrap(), Arc::new(NoCache));
        for (world, name) in [(1, "Demob"), (2, "demon"), (1, "Ada")] {
            let new = NewCharacter {
                account: AccountId(7),
                world: WorldId(world),
                name: name.into(),
                start: Position::flat(SpaceId(1), 5, 5),
                items: Vec::new(),
                coins: 0,
                limit: 9,
            };
            game.create(&new).await.unwrap();
        }
        let found = async |prefix: &str| {
            let found = game.find_by_name(prefix, 10).await.unwrap();
            found.into_iter().map(|it| (it.world.0, it.name)).collect::<Vec<_>>()
        };
        assert_eq!(found("dEMo").await, [(1, "Demob".to_owned()), (2, "demon".to_owned())]);
        assert!(found("emo").await.is_empty());
    }
}
