//! A dbcache without a database: owners, epochs and items in memory, fenced as the contract says. It can lose the
//! answer to what it has done, once or for good.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use shardkeep_rpc::{common::Position, dbcache::*};
use tonic::{Request, Response, Status};

#[derive(Clone, Default)]
pub(crate) struct StandInDatabase(Arc<Mutex<State>>);

/// What becomes of the answer to a call that was carried out.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ReplyMode {
    #[default]
    Delivered,
    /// The first is lost; a repeat is answered.
    LostOnce,
    /// Whoever waits for it waits for ever, as if he had died.
    Hang,
}

#[derive(Default)]
struct State {
    characters: BTreeMap<u64, Character>,
    /// Everything that lies on the ground: which account, and where.
    ground: BTreeMap<u64, (String, GroundItem)>,
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

    fn holder(&self, item: u64) -> Option<String> {
        let owner = self.characters.values().find(|it| it.items.iter().any(|own| own.id == item));
        owner
            .map(|it| format!("c:{}", it.id))
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
            if action.items.iter().any(|part| self.holder(part.item).as_ref() != Some(&part.from)) {
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
        match part.to.strip_prefix("c:") {
            Some(id) => self.characters.get_mut(&id.parse().unwrap()).unwrap().items.push(item),
            None => {
                let ground_item = GroundItem { item: Some(item), position: part.at };
                self.ground.insert(part.item, (part.to.clone(), ground_item));
            }
        }
    }
}

impl StandInDatabase {
    /// Player `number`'s character, with one item, given to a zone.
    pub(crate) fn claim(&self, number: u8, position: Position, zone: &str, incarnation: u64) -> Character {
        let id = u64::from(number);
        let mut state = self.0.lock().unwrap();
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

    pub(crate) fn set_reply_mode(&self, answer: ReplyMode) {
        self.0.lock().unwrap().answer = answer;
    }

    pub(crate) fn character(&self, number: u8) -> Character {
        self.0.lock().unwrap().characters[&u64::from(number)].clone()
    }

    /// How many hard actions took effect.
    pub(crate) fn applied(&self) -> u64 {
        self.0.lock().unwrap().applied
    }

    async fn reply<T>(&self, done: Result<T, Status>) -> Result<Response<T>, Status> {
        let done = done?;
        let answer = self.0.lock().unwrap().answer();
        match answer {
            ReplyMode::Delivered => Ok(Response::new(done)),
            ReplyMode::LostOnce => Err(Status::unavailable("lost")),
            ReplyMode::Hang => std::future::pending().await,
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }
}

fn not_implemented<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not in this test"))
}

#[tonic::async_trait]
impl db_cache_server::DbCache for StandInDatabase {
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

    async fn load_ground(&self, _: Request<LoadGroundRequest>) -> Result<Response<LoadGroundReply>, Status> {
        let items = self.with(|state| state.ground.values().map(|(_, ground_item)| *ground_item).collect());
        Ok(Response::new(LoadGroundReply { items, ..LoadGroundReply::default() }))
    }

    async fn list_characters(
        &self,
        _: Request<ListCharactersRequest>,
    ) -> Result<Response<ListCharactersReply>, Status> {
        not_implemented()
    }
    async fn count_characters(
        &self,
        _: Request<CountCharactersRequest>,
    ) -> Result<Response<CountCharactersReply>, Status> {
        not_implemented()
    }

    async fn find_characters(
        &self,
        _: Request<FindCharactersRequest>,
    ) -> Result<Response<FindCharactersReply>, Status> {
        not_implemented()
    }

    async fn create_character(
        &self,
        _: Request<CreateCharacterRequest>,
    ) -> Result<Response<Character>, Status> {
        not_implemented()
    }
    async fn claim(&self, _: Request<ClaimRequest>) -> Result<Response<Character>, Status> {
        not_implemented()
    }
    async fn reown(&self, _: Request<ReownRequest>) -> Result<Response<ReownReply>, Status> {
        not_implemented()
    }
    async fn lead(&self, _: Request<LeadRequest>) -> Result<Response<LeadReply>, Status> {
        not_implemented()
    }
    async fn check_conservation(
        &self,
        _: Request<CheckConservationRequest>,
    ) -> Result<Response<CheckConservationReply>, Status> {
        not_implemented()
    }
}
