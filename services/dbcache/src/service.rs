//! The gRPC service: checks callers, converts messages, counts and measures each call.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use shardkeep_cluster::Peer;
use shardkeep_rpc::{
    Malformed,
    batched_call::check_request_count,
    dbcache::{
        Character, CharacterCount, CharacterName, CheckConservationReply, CheckConservationRequest,
        ClaimRequest, CountCharactersReply, CountCharactersRequest, CreateCharacterRequest,
        FindCharactersReply, FindCharactersRequest, HardAction, HardResult, LeadReply, LeadRequest,
        ListCharactersReply, ListCharactersRequest, LoadGroundReply, LoadGroundRequest, LoadLayoutReply,
        LoadLayoutRequest, LoadRequest, LookupActionReply, LookupActionRequest, ReleaseReply, ReleaseRequest,
        ReownReply, ReownRequest, SaveSoftReply, SaveSoftRequest, StoreLayoutReply, StoreLayoutRequest,
        TransferReply, TransferRequest, db_cache_server::DbCache,
    },
};
use shardkeep_store::game::REOWN_LIMIT;
use shardkeep_types::{AccountId, CharacterId};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use crate::{
    caller::{caller_of, check_name, check_world},
    convert,
    core::Core,
    error::CallError,
    issuance, layout,
    metrics::{APPLIED, CALL_SECONDS, CALLS, REPEATED},
};

/// The most characters in one answer to FindCharacters.
const MAX_FOUND_CHARACTERS: u32 = 1_000;

/// Clones share the core and the call tracker.
#[derive(Clone)]
pub(crate) struct DbCacheService {
    core: Arc<Core>,
    calls: Arc<CallTracker>,
}

/// The calls in progress, and whether new calls are admitted.
#[derive(Default)]
pub(crate) struct CallTracker {
    running: TaskTracker,
    started: AtomicU64,
}

impl CallTracker {
    /// The number of calls that began so far.
    pub(crate) fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// Admits no new calls, and waits for the calls in progress.
    pub(crate) async fn finish(&self) {
        self.running.close();
        self.running.wait().await;
    }
}

impl DbCacheService {
    pub(crate) fn new(core: Arc<Core>, calls: Arc<CallTracker>) -> Self {
        Self { core, calls }
    }

    /// Counts and measures a call.
    async fn call<Q, R, F>(
        &self,
        name: &'static str,
        request: Request<Q>,
        answer: impl FnOnce(Arc<Core>, Peer, Q) -> F,
    ) -> Result<Response<R>, Status>
    where
        F: Future<Output = Result<R, CallError>>,
    {
        let begin = Instant::now();
        let peer = Peer::of(&request)?;
        let caller = peer.clone();
        self.calls.started.fetch_add(1, Ordering::Relaxed);
        let result = if self.calls.running.is_closed() {
            Err(CallError::Draining)
        } else {
            let _running = self.calls.running.token();
            answer(self.core.clone(), peer, request.into_inner()).await
        };
        let outcome = result.as_ref().map_or_else(CallError::label, |_| "ok");
        if let Err(error) = &result
            && outcome == "forbidden"
        {
            tracing::warn!(peer = %caller, call = name, %error, "a call that the certificate does not allow");
        }
        metrics::counter!(CALLS, "call" => name, "outcome" => outcome).increment(1);
        metrics::histogram!(CALL_SECONDS, "call" => name).record(begin.elapsed());
        Ok(Response::new(result?))
    }
}

#[tonic::async_trait]
impl DbCache for DbCacheService {
    async fn list_characters(
        &self,
        request: Request<ListCharactersRequest>,
    ) -> Result<Response<ListCharactersReply>, Status> {
        self.call("list_characters", request, |core, peer, request: ListCharactersRequest| async move {
            let world = check_world(&peer, request.world)?;
            let characters = core.list(AccountId(request.account), world).await?;
            Ok(ListCharactersReply { characters: characters.into_iter().map(convert::character).collect() })
        })
        .await
    }

    async fn count_characters(
        &self,
        request: Request<CountCharactersRequest>,
    ) -> Result<Response<CountCharactersReply>, Status> {
        self.call("count_characters", request, |core, _, request: CountCharactersRequest| async move {
            check_request_count("accounts", &request.accounts)?;
            let accounts: Vec<_> = request.accounts.into_iter().map(AccountId).collect();
            let found = core.count(&accounts).await?;
            let counts = accounts.iter().map(|account| {
                let by_world = found.get(account).into_iter().flatten();
                CharacterCount { by_world: by_world.map(|(world, count)| (world.0, *count)).collect() }
            });
            Ok(CountCharactersReply { counts: counts.collect() })
        })
        .await
    }

    async fn find_characters(
        &self,
        request: Request<FindCharactersRequest>,
    ) -> Result<Response<FindCharactersReply>, Status> {
        self.call("find_characters", request, |core, _, request: FindCharactersRequest| async move {
            let FindCharactersRequest { name_prefix, limit } = request;
            if name_prefix.is_empty() {
                return Err(Malformed::new("name_prefix", "must not be empty").into());
            }
            if !(1..=MAX_FOUND_CHARACTERS).contains(&limit) {
                let message = format!("{limit} is not 1 to {MAX_FOUND_CHARACTERS}");
                return Err(Malformed::new("limit", message).into());
            }
            let characters = core.find_by_name(&name_prefix, limit).await?.into_iter().map(|found| {
                let (id, account, world) = (found.id.0, found.account.0, found.world.0);
                CharacterName { id, account, world, name: found.name }
            });
            Ok(FindCharactersReply { characters: characters.collect() })
        })
        .await
    }

    async fn create_character(
        &self,
        request: Request<CreateCharacterRequest>,
    ) -> Result<Response<Character>, Status> {
        self.call("create_character", request, |core, peer, request: CreateCharacterRequest| async move {
            check_world(&peer, request.world)?;
            let new = convert::new_character(request)?;
            issuance::check_new_character(&new)?;
            Ok(convert::character(core.create(&new).await?))
        })
        .await
    }

    async fn claim(&self, request: Request<ClaimRequest>) -> Result<Response<Character>, Status> {
        self.call("claim", request, |core, peer, request: ClaimRequest| async move {
            check_world(&peer, request.world)?;
            let claim = convert::claim(request)?;
            Ok(convert::character(core.claim(&claim).await?))
        })
        .await
    }

    async fn transfer(&self, request: Request<TransferRequest>) -> Result<Response<TransferReply>, Status> {
        self.call("transfer", request, |core, peer, request: TransferRequest| async move {
            check_name(&peer, &request.from_zone)?;
            let transfer = convert::transfer(caller_of(&peer)?, request)?;
            Ok(TransferReply { epoch: core.transfer(&transfer).await?.0 })
        })
        .await
    }

    async fn reown(&self, request: Request<ReownRequest>) -> Result<Response<ReownReply>, Status> {
        self.call("reown", request, |core, peer, request: ReownRequest| async move {
            check_world(&peer, request.world)?;
            let reown = convert::reown(request)?;
            let characters = core.reown(&reown).await?;
            let more = characters.len() == REOWN_LIMIT;
            Ok(ReownReply { characters: characters.iter().map(convert::reowned).collect(), more })
        })
        .await
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseReply>, Status> {
        self.call("release", request, |core, peer, request| async move {
            let release = convert::release(caller_of(&peer)?, request)?;
            core.release(&release).await?;
            Ok(ReleaseReply {})
        })
        .await
    }

    async fn load(&self, request: Request<LoadRequest>) -> Result<Response<Character>, Status> {
        self.call("load", request, |core, peer, request: LoadRequest| async move {
            let caller = caller_of(&peer)?;
            let character = core.load(CharacterId(request.character), &caller).await?;
            let owned = caller.owns(character.owner.as_ref());
            Ok(if owned { convert::character(character) } else { convert::ownership(character) })
        })
        .await
    }

    async fn save_soft(&self, request: Request<SaveSoftRequest>) -> Result<Response<SaveSoftReply>, Status> {
        self.call("save_soft", request, |core, peer, request: SaveSoftRequest| async move {
            let caller = caller_of(&peer)?;
            let states = request.states.into_iter().map(convert::soft).collect::<Result<_, Malformed>>()?;
            let stale = core.save_soft(&caller, states);
            Ok(SaveSoftReply { stale: stale.into_iter().map(|character| character.0).collect() })
        })
        .await
    }

    async fn commit(&self, request: Request<HardAction>) -> Result<Response<HardResult>, Status> {
        self.call("commit", request, |core, peer, request| async move {
            let action = convert::hard_action((*caller_of(&peer)?).clone(), request)?;
            issuance::check_action(&action)?;
            let result = core.commit(action).await?;
            metrics::counter!(if result.applied { APPLIED } else { REPEATED }).increment(1);
            Ok(convert::hard_result(result))
        })
        .await
    }

    async fn lookup_action(
        &self,
        request: Request<LookupActionRequest>,
    ) -> Result<Response<LookupActionReply>, Status> {
        self.call("lookup_action", request, |core, peer, request: LookupActionRequest| async move {
            let caller = caller_of(&peer)?;
            let action = request.action.ok_or_else(|| Malformed::missing("action"))?;
            let action = convert::action_id(action)?;
            Ok(convert::action_lookup(core.lookup_action(&caller, &action).await?))
        })
        .await
    }

    async fn load_ground(
        &self,
        request: Request<LoadGroundRequest>,
    ) -> Result<Response<LoadGroundReply>, Status> {
        self.call("load_ground", request, |core, peer, request: LoadGroundRequest| async move {
            let world = check_world(&peer, request.world)?;
            let cells = request.cells.ok_or_else(|| Malformed::missing("cells"))?.try_into()?;
            let after = request.after.map(convert::ground_cursor).transpose()?;
            Ok(convert::ground(core.load_ground(world, cells, after).await?))
        })
        .await
    }

    async fn lead(&self, request: Request<LeadRequest>) -> Result<Response<LeadReply>, Status> {
        self.call("lead", request, |core, peer, request: LeadRequest| async move {
            check_world(&peer, request.world)?;
            check_name(&peer, &request.holder)?;
            let bid = convert::bid(request)?;
            Ok(convert::lead(core.lead(&bid).await?))
        })
        .await
    }

    async fn load_layout(
        &self,
        request: Request<LoadLayoutRequest>,
    ) -> Result<Response<LoadLayoutReply>, Status> {
        self.call("load_layout", request, |core, peer, request: LoadLayoutRequest| async move {
            let world = check_world(&peer, request.world)?;
            let after = request.after.map(layout::cursor).transpose()?;
            Ok(layout::page(core.load_layout(world, after).await?))
        })
        .await
    }

    async fn store_layout(
        &self,
        request: Request<StoreLayoutRequest>,
    ) -> Result<Response<StoreLayoutReply>, Status> {
        self.call("store_layout", request, |core, peer, request: StoreLayoutRequest| async move {
            check_world(&peer, request.world)?;
            let change = layout::change(request)?;
            Ok(StoreLayoutReply { revision: core.store_layout(&change).await? })
        })
        .await
    }

    async fn check_conservation(
        &self,
        request: Request<CheckConservationRequest>,
    ) -> Result<Response<CheckConservationReply>, Status> {
        self.call("check_conservation", request, |core, _, _| async move {
            Ok(convert::conservation(core.check_conservation().await?))
        })
        .await
    }
}
