//! Lists the characters of a player and creates new ones.

use std::sync::Arc;

use shardkeep_link::ServerMessage;
use shardkeep_names::fold;
use shardkeep_rpc::{
    dbcache::{
        Character, CreateCharacterRequest, ListCharactersRequest, Stack, db_cache_client::DbCacheClient,
    },
    reason,
};
use shardkeep_types::{AccountId, Position, WorldId};
use shardkeep_wire::{
    opcode,
    payload::{CharacterCreated, CharacterList, CharacterSummary, ErrorCode},
};
use tokio::sync::Semaphore;
use tonic::{Status, transport::Channel};

use crate::{
    config::WorldConfig,
    domain::replies::{refusal, reply},
    edge::call::call,
    metrics::BUSY,
};

/// Requests to the database at the same time. Overflow: the request is refused and the client retries; counter BUSY.
const MAX_CONCURRENT: usize = 64;

/// The items of a new character, by template (`docs/protocol.md`, section 15): apples, a sword, a lantern.
const STARTER_ITEMS: [Stack; 3] =
    [Stack { template: 1, count: 5 }, Stack { template: 4, count: 1 }, Stack { template: 6, count: 1 }];

#[derive(Clone)]
pub(crate) struct Lobby {
    world: WorldId,
    limit: u32,
    coins: u32,
    permits: Arc<Semaphore>,
}

impl Lobby {
    pub(crate) fn new(world: WorldId, config: &WorldConfig) -> Self {
        Self {
            world,
            limit: config.characters,
            coins: config.starter_coins,
            permits: Arc::new(Semaphore::new(MAX_CONCURRENT)),
        }
    }

    pub(crate) async fn list(
        &self,
        database: Option<DbCacheClient<Channel>>,
        account: AccountId,
        request: u64,
    ) -> ServerMessage {
        let (Some(mut database), Ok(_permit)) = (database, self.permits.try_acquire()) else {
            return busy(request);
        };
        match self.characters(&mut database, account).await {
            Ok(characters) => {
                let characters = characters.iter().map(summary).collect();
                reply(opcode::LIST_CHARACTERS, request, &CharacterList { characters, limit: self.limit })
            }
            Err(status) => refused(request, &status),
        }
    }

    pub(crate) async fn create(
        &self,
        database: Option<DbCacheClient<Channel>>,
        account: AccountId,
        name: String,
        start: Position,
        request: u64,
    ) -> ServerMessage {
        let (Some(mut database), Ok(_permit)) = (database, self.permits.try_acquire()) else {
            return busy(request);
        };
        let db_request = CreateCharacterRequest {
            account: account.0,
            world: self.world.0,
            name: name.clone(),
            start: Some(start.into()),
            items: STARTER_ITEMS.to_vec(),
            coins: self.coins.into(),
            limit: self.limit,
        };
        let created = match call(database.create_character(db_request)).await {
            // The name may be taken by an earlier attempt of this request, whose answer was lost.
            Err(status) if reason(&status) == Some("name_taken") => {
                let known = self.characters(&mut database, account).await.unwrap_or_default();
                known.into_iter().find(|known| fold(&known.name) == fold(&name)).ok_or(status)
            }
            created => created,
        };
        match created {
            Ok(character) => {
                let created = CharacterCreated { character: Some(summary(&character)) };
                reply(opcode::CREATE_CHARACTER, request, &created)
            }
            Err(status) => refused(request, &status),
        }
    }

    async fn characters(
        &self,
        database: &mut DbCacheClient<Channel>,
        account: AccountId,
    ) -> Result<Vec<Character>, Status> {
        let db_request = ListCharactersRequest { account: account.0, world: self.world.0 };
        call(database.list_characters(db_request)).await.map(|reply| reply.characters)
    }
}

fn summary(character: &Character) -> CharacterSummary {
    CharacterSummary { id: character.id, name: character.name.clone(), level: level(character.experience) }
}

/// Level n begins at 100 (n − 1)² points of experience.
fn level(experience: u64) -> u32 {
    u32::try_from((experience / 100).isqrt()).unwrap_or(u32::MAX).saturating_add(1)
}

fn busy(request: u64) -> ServerMessage {
    metrics::counter!(BUSY).increment(1);
    refusal(request, ErrorCode::Unavailable, "try again in a moment")
}

fn refused(request: u64, status: &Status) -> ServerMessage {
    match reason(status) {
        Some("name_taken") => {
            refusal(request, ErrorCode::Refused, "this name, or one that looks like it, is taken")
        }
        Some("too_many_characters") => {
            refusal(request, ErrorCode::Refused, "the account has no room for another character")
        }
        Some("invalid") => refusal(request, ErrorCode::Refused, status.message()),
        _ => {
            tracing::warn!(%status, "the database did not serve a character list");
            refusal(request, ErrorCode::Unavailable, "try again in a moment")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_needs_quadratic_experience() {
        assert_eq!([0, 99, 100, 399, 400, 10_000].map(level), [1, 1, 2, 2, 3, 11]);
    }
}
