//! A dbcache without a database: it keeps owners, epochs and leadership in memory, with the fences of the contract.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use shardkeep_rpc::{dbcache::*, with_reason};
use tonic::{Request, Response, Status};

#[derive(Clone, Default)]
pub(crate) struct StandInDatabase(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    characters: BTreeMap<u64, Character>,
    leader: Option<(String, u64, Instant)>,
    term: u64,
    layout: LoadLayoutReply,
    /// Whether changes of the layout fail.
    layout_fails: bool,
    refused_layouts: u32,
}

impl State {
    fn fence(&self, term: u64) -> Result<(), Status> {
        if term == self.term {
            Ok(())
        } else {
            Err(with_reason(Status::failed_precondition("another term"), "stale_term"))
        }
    }
}

impl StandInDatabase {
    pub(crate) fn character(&self, id: u64) -> Character {
        self.0.lock().unwrap().characters[&id].clone()
    }

    /// Moves a character to a space.
    pub(crate) fn set_space(&self, id: u64, space: u32) {
        let mut state = self.0.lock().unwrap();
        state.characters.get_mut(&id).unwrap().position.as_mut().unwrap().space = space;
    }

    /// The stored layout.
    pub(crate) fn layout(&self) -> LoadLayoutReply {
        self.0.lock().unwrap().layout.clone()
    }

    /// How many changes of the layout have failed.
    pub(crate) fn refused_layouts(&self) -> u32 {
        self.0.lock().unwrap().refused_layouts
    }

    pub(crate) fn set_layout_fails(&self, fails: bool) {
        self.0.lock().unwrap().layout_fails = fails;
    }

    /// Releases a character as its zone does.
    pub(crate) fn release_character(&self, id: u64, epoch: u64) {
        let mut state = self.0.lock().unwrap();
        let character = state.characters.get_mut(&id).unwrap();
        if character.epoch == epoch {
            character.owner.clear();
            character.epoch += 1;
        }
    }
}

#[tonic::async_trait]
impl db_cache_server::DbCache for StandInDatabase {
    async fn list_characters(
        &self,
        request: Request<ListCharactersRequest>,
    ) -> Result<Response<ListCharactersReply>, Status> {
        let account = request.into_inner().account;
        let state = self.0.lock().unwrap();
        let own = state.characters.values().filter(|character| character.account == account);
        Ok(Response::new(ListCharactersReply { characters: own.cloned().collect() }))
    }

    async fn count_characters(
        &self,
        _: Request<CountCharactersRequest>,
    ) -> Result<Response<CountCharactersReply>, Status> {
        Err(Status::unimplemented("count_characters"))
    }

    async fn find_characters(
        &self,
        _: Request<FindCharactersRequest>,
    ) -> Result<Response<FindCharactersReply>, Status> {
        Err(Status::unimplemented("find_characters"))
    }

    async fn create_character(
        &self,
        request: Request<CreateCharacterRequest>,
    ) -> Result<Response<Character>, Status> {
        let request = request.into_inner();
        let mut state = self.0.lock().unwrap();
        let same = |character: &Character| character.name.eq_ignore_ascii_case(&request.name);
        if state.characters.values().any(same) {
            return Err(with_reason(Status::already_exists("taken"), "name_taken"));
        }
        let character = Character {
            id: 1 + state.characters.len() as u64,
            account: request.account,
            world: request.world,
            name: request.name,
            position: request.start,
            coins: request.coins,
            ..Character::default()
        };
        state.characters.insert(character.id, character.clone());
        Ok(Response::new(character))
    }

    async fn claim(&self, request: Request<ClaimRequest>) -> Result<Response<Character>, Status> {
        let request = request.into_inner();
        let mut state = self.0.lock().unwrap();
        state.fence(request.term)?;
        let character =
            state.characters.get_mut(&request.character).ok_or_else(|| Status::not_found("nobody"))?;
        character.owner = request.zone;
        character.owner_incarnation = request.incarnation;
        character.session = request.session;
        character.epoch += 1;
        Ok(Response::new(character.clone()))
    }

    async fn reown(&self, request: Request<ReownRequest>) -> Result<Response<ReownReply>, Status> {
        let request = request.into_inner();
        let mut state = self.0.lock().unwrap();
        state.fence(request.term)?;
        let orphans = state.characters.values_mut().filter(|character| {
            character.owner == request.from_zone && character.owner_incarnation <= request.from_incarnation
        });
        let moved = orphans.map(|character| {
            character.owner.clone_from(&request.to_zone);
            character.owner_incarnation = request.to_incarnation;
            character.epoch += 1;
            let (character, epoch, session) = (character.id, character.epoch, character.session.clone());
            ReownedCharacter { character, epoch, session }
        });
        Ok(Response::new(ReownReply { characters: moved.collect(), more: false }))
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseReply>, Status> {
        let request = request.into_inner();
        self.release_character(request.character, request.epoch);
        Ok(Response::new(ReleaseReply {}))
    }

    async fn load(&self, request: Request<LoadRequest>) -> Result<Response<Character>, Status> {
        let state = self.0.lock().unwrap();
        let character = state.characters.get(&request.into_inner().character);
        character.cloned().map(Response::new).ok_or_else(|| Status::not_found("nobody"))
    }

    async fn lead(&self, request: Request<LeadRequest>) -> Result<Response<LeadReply>, Status> {
        let LeadRequest { holder, incarnation, ttl_ms, .. } = request.into_inner();
        let now = Instant::now();
        let mut state = self.0.lock().unwrap();
        let free = match &state.leader {
            Some((holder_name, incarnations, until)) => {
                *until <= now || *holder_name == holder && *incarnations <= incarnation
            }
            None => true,
        };
        if free {
            let same = matches!(&state.leader, Some((holder_name, holder_incarnation, _)) if *holder_name == holder && *holder_incarnation == incarnation);
            state.term += u64::from(!same);
            state.leader = Some((holder, incarnation, now + Duration::from_millis(ttl_ms.into())));
        }
        let (holder, _, until) = state.leader.clone().unwrap();
        let left_ms = until.saturating_duration_since(now).as_millis().try_into().unwrap();
        Ok(Response::new(LeadReply { leader: free, term: state.term, holder, left_ms }))
    }

    async fn transfer(&self, _: Request<TransferRequest>) -> Result<Response<TransferReply>, Status> {
        Err(Status::unimplemented("transfer"))
    }

    async fn save_soft(&self, _: Request<SaveSoftRequest>) -> Result<Response<SaveSoftReply>, Status> {
        Err(Status::unimplemented("save_soft"))
    }

    async fn commit(&self, _: Request<HardAction>) -> Result<Response<HardResult>, Status> {
        Err(Status::unimplemented("commit"))
    }

    async fn lookup_action(
        &self,
        _: Request<LookupActionRequest>,
    ) -> Result<Response<LookupActionReply>, Status> {
        Err(Status::unimplemented("lookup_action"))
    }

    async fn load_ground(&self, _: Request<LoadGroundRequest>) -> Result<Response<LoadGroundReply>, Status> {
        Err(Status::unimplemented("load_ground"))
    }

    async fn load_layout(&self, _: Request<LoadLayoutRequest>) -> Result<Response<LoadLayoutReply>, Status> {
        Ok(Response::new(self.layout()))
    }

    async fn store_layout(
        &self,
        request: Request<StoreLayoutRequest>,
    ) -> Result<Response<StoreLayoutReply>, Status> {
        let change = request.into_inner();
        let mut state = self.0.lock().unwrap();
        state.fence(change.term)?;
        if state.layout_fails {
            state.refused_layouts += 1;
            return Err(Status::unavailable("the database does not answer"));
        }
        let layout = &mut state.layout;
        if layout.revision != change.revision {
            return Err(with_reason(Status::aborted("another revision"), "stale_revision"));
        }
        let LoadLayoutReply { revision, next_space, next_sector, spaces, sectors, .. } = layout;
        (*revision, *next_space, *next_sector) = (change.revision + 1, change.next_space, change.next_sector);
        let spaces_gone =
            |id| change.removed_spaces.contains(&id) || change.spaces.iter().any(|it| it.space == id);
        spaces.retain(|it| !spaces_gone(it.space));
        spaces.extend(change.spaces.clone());
        let sectors_gone =
            |id| change.removed_sectors.contains(&id) || change.sectors.iter().any(|it| it.sector == id);
        sectors.retain(|it| !sectors_gone(it.sector));
        sectors.extend(change.sectors.clone());
        sectors.sort_by_key(|it| it.sector);
        Ok(Response::new(StoreLayoutReply { revision: *revision }))
    }

    async fn check_conservation(
        &self,
        _: Request<CheckConservationRequest>,
    ) -> Result<Response<CheckConservationReply>, Status> {
        Err(Status::unimplemented("conserve"))
    }
}
