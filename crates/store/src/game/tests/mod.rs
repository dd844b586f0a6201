//! Tests of the rules of game state, on both engines.

mod actions;
mod chaos;
mod layout;
mod ownership;

use std::sync::Arc;

use shardkeep_testkit::Postgres;
use shardkeep_types::{AccountId, CharacterId, Position, SessionId, SpaceId, SpawnId, Term, WorldId};
use tempfile::TempDir;

use super::*;
use crate::{Database, Schema};

const WORLD: WorldId = WorldId(1);

fn spawn(number: u32) -> SpawnId {
    SpawnId { space: SpaceId(1), number }
}

/// Keeps the files or the server of a test database.
enum TestStore {
    Sqlite(TempDir),
    Postgres(Postgres),
}

impl TestStore {
    fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    async fn postgres() -> Self {
        Self::Postgres(Postgres::start().await)
    }

    async fn open(&self) -> Game {
        let url = match self {
            Self::Sqlite(folder) => format!("sqlite:{}", folder.path().join("game.db").display()),
            Self::Postgres(server) => server.url(),
        };
        Game::new(Database::open(&url, Schema::Game).await.unwrap(), Arc::new(NoCache))
    }
}

/// Makes a test of each scenario on each engine.
macro_rules! on_both_engines {
    ($($scenario:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $scenario() {
                let store = super::TestStore::sqlite();
                super::$scenario(&store.open().await).await;
            })+
        }
        mod postgres {
            $(#[tokio::test]
            async fn $scenario() {
                let store = super::TestStore::postgres().await;
                super::$scenario(&store.open().await).await;
            })+
        }
    };
}
use on_both_engines;

/// A zone of [`WORLD`] as a caller.
fn caller(name: &str) -> Arc<Caller> {
    Arc::new(Caller::Zone { world: WORLD, name: name.to_owned() })
}

/// An action of the zone `west` that does nothing yet.
fn action(reason: &str) -> HardAction {
    HardAction {
        caller: Caller::clone(&caller("west")),
        action: None,
        other_actions: Vec::new(),
        once: None,
        fences: Vec::new(),
        items: Vec::new(),
        mints: Vec::new(),
        coins: Vec::new(),
        reward: None,
        reason: reason.to_owned(),
    }
}

async fn load(game: &Game, id: CharacterId) -> Character {
    game.load(id, &caller("west")).await.unwrap()
}

fn zone(name: &str) -> Owner {
    Owner { zone: name.to_owned(), incarnation: 7 }
}

fn drop_position() -> Position {
    Position::flat(SpaceId(1), 500_000, 512_000)
}

/// The ledger account of the cell that contains [`drop_position`].
fn ground() -> Holder {
    Holder::Ground(WORLD, drop_position().cell())
}

fn held_by(character: &Character) -> Holder {
    Holder::Character(character.id)
}

async fn term(game: &Game) -> Term {
    let bid = LeadershipBid { world: WORLD, holder: "world-1".to_owned(), incarnation: 1, ttl_ms: 60_000 };
    game.lead(&bid).await.unwrap().term
}

fn new_character(name: &str) -> NewCharacter {
    NewCharacter {
        account: AccountId(1),
        world: WORLD,
        name: name.to_owned(),
        start: drop_position(),
        items: vec![(1, 1), (2, 5)],
        coins: 100,
        limit: 8,
    }
}

/// A character that the zone `west` owns.
async fn create_claimed(game: &Game, name: &str) -> Character {
    let character = game.create(&new_character(name)).await.unwrap();
    game.claim(&claim(&character, term(game).await)).await.unwrap()
}

fn claim(character: &Character, term: Term) -> Claim {
    Claim {
        character: character.id,
        account: character.account,
        world: character.world,
        term,
        zone: zone("west"),
        session: SessionId([9; 16]),
    }
}

fn fence(character: &Character) -> Fence {
    Fence { character: character.id, epoch: character.epoch }
}

fn action_id(character: &Character, id: u64) -> ActionId {
    ActionId { character: character.id, id, digest: [id as u8; 16] }
}

async fn one(game: &Game, action: &HardAction) -> Result<HardResult, Refusal> {
    game.commit(std::slice::from_ref(action)).await.unwrap().pop().unwrap()
}

fn drop_item(character: &Character, id: u64, item: usize) -> HardAction {
    HardAction {
        action: Some(action_id(character, id)),
        fences: vec![fence(character)],
        items: vec![MoveItem {
            item: character.items[item].id,
            from: held_by(character),
            to: ground(),
            at: Some(drop_position()),
        }],
        ..action("drop")
    }
}

async fn assert_conserved(game: &Game) -> Conservation {
    let found = game.check_conservation().await.unwrap();
    assert!(found.holds(), "{:#?}", found.faults);
    found
}
