//! A dbcache that keeps owners, epochs and items in memory, with the fences of the real one. It can lose
//! the answer to a call that took effect, once or always, and refuse to load the ground.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use shardkeep_rpc::{common::Position, dbcache::*};
use shardkeep_types::{CharacterId, WorldId};
use tonic::{Request, Response, Status};

use super::unimplemented_calls;

#[derive(Clone, Default)]
pub struct FakeDatabase(Arc<Mutex<State>>);

/// How the database answers a call that took effect.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum ReplyMode {
    #[default]
    Delivered,
    /// The first answer is lost; a repeat is answered.
    LostOnce,
    /// The caller waits forever.
    Hang,
}

#[derive(Default)]
struct State {
    characters: BTreeMap<u64, Character>,
    /// Account and position of everything on the ground, by item.
    ground: BTreeMap<u64, (LedgerAccount, GroundItem)>,
    ground_fails: bool,
    /// Results by character and action id.
    stored: BTreeMap<(u64, u64), Vec<u8>>,
    applied: u64,
    answer: ReplyMode,
}

impl State {
    fn answer(&mut self) -> ReplyMode {
        let answer = self.answer;
        if answer == ReplyMode::LostOnce {
            self.answer = ReplyMode::Delivered;
        }
        answer
    }

    fn holder(&self, item: u64) -> Option<LedgerAccount> {
        let owner = self.characters.values().find(|it| it.items.iter().any(|own| own.id == item));
        owner
            .map(|it| CharacterId(it.id).into())
            .or_else(|| self.ground.get(&item).map(|(cell, _)| cell.clone()))
    }

    fn commit(&mut self, action: &HardAction) -> Result<HardResult, Status> {
        let id = action.action.as_ref().unwrap();
        let key = (id.character, id.id);
        let known = self.stored.get(&key).cloned();
        if known.as_ref().is_some_and(|digest| *digest != id.digest) {
            return Err(Status::already_exists("another request"));
        }
        if known.is_none() {
            for fence in &action.fences {
                if self.characters[&fence.character].epoch != fence.epoch {
                    return Err(Status::aborted("stale epoch"));
                }
            }
            if action.items.iter().any(|part| self.holder(part.item) != part.from) {
                return Err(Status::failed_precondition("not held"));
            }
            action.items.iter().for_each(|part| self.move_item(part));
            self.stored.insert(key, id.digest.clone());
            self.characters.get_mut(&id.character).unwrap().last_action = id.id;
            self.applied += 1;
        }
        let touched = action.fences.iter().map(|fence| self.characters[&fence.character].clone());
        Ok(HardResult { applied: known.is_none(), minted: Vec::new(), characters: touched.collect() })
    }

    fn move_item(&mut self, part: &MoveItem) {
        let mut item = self.ground.remove(&part.item).map(|(_, ground_item)| ground_item.item.unwrap());
        for character in self.characters.values_mut() {
            if let Some(at) = character.items.iter().position(|own| own.id == part.item) {
                item = Some(character.items.remove(at));
            }
        }
        let item = item.unwrap();
        let to = part.to.clone().unwrap();
        match to.account.as_ref().unwrap() {
            ledger_account::Account::Character(id) => {
                self.characters.get_mut(id).unwrap().items.push(item);
            }
            _ => {
                let ground_item = GroundItem { item: Some(item), position: part.at };
                self.ground.insert(part.item, (to, ground_item));
            }
        }
    }
}

impl FakeDatabase {
    /// Player `number`'s character, with one item, given to a zone.
    pub fn claim(&self, number: u8, position: Position, zone: &str, incarnation: u64) -> Character {
        let id = u64::from(number);
        let mut state = self.0.lock();
        let character = state.characters.entry(id).or_insert_with(|| Character {
            id,
            account: id,
            world: 1,
            name: format!("player-{number}"),
            position: Some(position),
            health: 100,
            items: vec![Item { id: 1_000 + id, template: 4, count: 1 }],
            coins: 10,
            session: vec![number; 16],
            ..Character::default()
        });
        character.owner = zone.to_owned();
        character.owner_incarnation = incarnation;
        character.epoch += 1;
        character.clone()
    }

    /// Puts an item on the ground.
    pub fn add_ground_item(&self, id: u64, position: Position) {
        let at = shardkeep_types::Position::try_from(position).unwrap();
        let item = Item { id, template: 1, count: 1 };
        let ground_item = GroundItem { item: Some(item), position: Some(position) };
        self.with(|state| state.ground.insert(id, ((WorldId(1), at.cell()).into(), ground_item)));
    }

    /// Gives player `number`'s character this many stacks more.
    pub fn add_stacks(&self, number: u8, count: u64) {
        let stacks = (0..count).map(|id| Item { id: 100_000 + id, template: 1, count: 1 });
        let id = u64::from(number);
        self.with(|state| state.characters.get_mut(&id).unwrap().items.extend(stacks));
    }

    /// Whether `LoadGround` fails.
    pub fn set_ground_fails(&self, fails: bool) {
        self.with(|state| state.ground_fails = fails);
    }

    pub fn set_reply_mode(&self, answer: ReplyMode) {
        self.0.lock().answer = answer;
    }

    pub fn character(&self, number: u8) -> Character {
        self.0.lock().characters[&u64::from(number)].clone()
    }

    /// How many hard actions took effect.
    pub fn applied(&self) -> u64 {
        self.0.lock().applied
    }

    async fn reply<T>(&self, done: Result<T, Status>) -> Result<Response<T>, Status> {
        let done = done?;
        let answer = self.0.lock().answer();
        match answer {
            ReplyMode::Delivered => Ok(Response::new(done)),
            ReplyMode::LostOnce => Err(Status::unavailable("lost")),
            ReplyMode::Hang => std::future::pending().await,
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock())
    }
}

#[tonic::async_trait]
impl db_cache_server::DbCache for FakeDatabase {
    async fn transfer(&self, request: Request<TransferRequest>) -> Result<Response<TransferReply>, Status> {
        let request = request.into_inner();
        let done = self.with(|state| {
            let character = state.characters.get_mut(&request.character).unwrap();
            let happened = character.owner == request.to_zone && character.epoch == request.epoch + 1;
            if !happened && (character.owner != request.from_zone || character.epoch != request.epoch) {
                return Err(Status::aborted("stale epoch"));
            }
            character.owner = request.to_zone;
            character.owner_incarnation = request.to_incarnation;
            character.epoch = request.epoch + 1;
            Ok(TransferReply { epoch: character.epoch })
        });
        self.reply(done).await
    }

    async fn commit(&self, request: Request<HardAction>) -> Result<Response<HardResult>, Status> {
        let done = self.with(|state| state.commit(request.get_ref()));
        self.reply(done).await
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseReply>, Status> {
        let request = request.into_inner();
        self.with(|state| {
            let character = state.characters.get_mut(&request.character).unwrap();
            if character.epoch != request.epoch {
                return Err(Status::aborted("stale epoch"));
            }
            character.owner.clear();
            character.epoch += 1;
            character.position = request.soft.and_then(|soft| soft.position);
            Ok(Response::new(ReleaseReply {}))
        })
    }

    async fn load(&self, request: Request<LoadRequest>) -> Result<Response<Character>, Status> {
        let character = self.with(|state| state.characters.get(&request.into_inner().character).cloned());
        character.map(Response::new).ok_or_else(|| Status::not_found("nobody"))
    }

    async fn save_soft(&self, request: Request<SaveSoftRequest>) -> Result<Response<SaveSoftReply>, Status> {
        let states = request.into_inner().states;
        let stale = |soft: &SoftState| {
            self.with(|state| state.characters.get(&soft.character).is_none_or(|it| it.epoch != soft.epoch))
        };
        let stale = states.iter().filter(|soft| stale(soft)).map(|soft| soft.character).collect();
        Ok(Response::new(SaveSoftReply { stale }))
    }

    async fn lookup_action(
        &self,
        request: Request<LookupActionRequest>,
    ) -> Result<Response<LookupActionReply>, Status> {
        let action = request.into_inner().action.unwrap();
        self.with(|state| match state.stored.get(&(action.character, action.id)) {
            Some(digest) if *digest != action.digest => Err(Status::already_exists("another request")),
            stored => Ok(Response::new(LookupActionReply {
                found: stored.is_some(),
                minted: Vec::new(),
                character: Some(state.characters[&action.character].clone()),
            })),
        })
    }

    /// Pages of two items.
    async fn load_ground(
        &self,
        request: Request<LoadGroundRequest>,
    ) -> Result<Response<LoadGroundReply>, Status> {
        let after = match request.into_inner().after.and_then(|cursor| cursor.after) {
            Some(ground_cursor::After::Item(place)) => place.item,
            _ => 0,
        };
        self.with(|state| {
            if state.ground_fails {
                return Err(Status::out_of_range("the answer is too large"));
            }
            let rest = state.ground.range(after + 1..);
            let items: Vec<GroundItem> = rest.map(|(_, (_, item))| *item).take(2).collect();
            let last = items.get(1).map(|last| GroundPlace { y_mm: 0, item: last.item.unwrap().id });
            let next = last.map(|last| GroundCursor { after: Some(ground_cursor::After::Item(last)) });
            Ok(Response::new(LoadGroundReply { items, next, ..LoadGroundReply::default() }))
        })
    }

    unimplemented_calls! {
        list_characters(ListCharactersRequest) -> ListCharactersReply;
        count_characters(CountCharactersRequest) -> CountCharactersReply;
        find_characters(FindCharactersRequest) -> FindCharactersReply;
        create_character(CreateCharacterRequest) -> Character;
        claim(ClaimRequest) -> Character;
        reown(ReownRequest) -> ReownReply;
        lead(LeadRequest) -> LeadReply;
        load_layout(LoadLayoutRequest) -> LoadLayoutReply;
        store_layout(StoreLayoutRequest) -> StoreLayoutReply;
        check_conservation(CheckConservationRequest) -> CheckConservationReply;
    }
}
