//! A login daemon that only reports revocations and closures.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::StreamExt;
use parking_lot::Mutex;
use shardkeep_rpc::accounts::{
    Closures, HeldSession, HeldSessions, Revocation, RevocationList, revocations_server::Revocations,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};

const HEARTBEAT: Duration = Duration::from_millis(200);

#[derive(Clone, Default)]
pub struct FakeLogin {
    floors: Arc<Mutex<BTreeMap<u64, Revocation>>>,
    /// Every session that gateways have reported.
    held: watch::Sender<Vec<HeldSession>>,
    /// The closed worlds.
    pub closed: watch::Sender<Closures>,
    /// How often all streams were cut.
    cut: watch::Sender<u64>,
}

impl FakeLogin {
    /// Revokes the account's sessions below the generation. Gateways learn it when they ask.
    pub fn revoke(&self, account: u64, below_generation: u64, code: u32) {
        let revocation = Revocation { account, below_generation, code, detail: "because".into() };
        self.floors.lock().insert(account, revocation);
    }

    /// Ends every stream.
    pub fn cut(&self) {
        self.cut.send_modify(|times| *times += 1);
    }

    /// Waits until a gateway has reported this session.
    pub async fn heard(&self, account: u64, generation: u64) {
        let mut held = self.held.subscribe();
        let wanted = HeldSession { account, generation };
        held.wait_for(|held| held.contains(&wanted)).await.unwrap();
    }

    fn outdated(&self, holding: &HeldSessions) -> Vec<Revocation> {
        let floors = self.floors.lock();
        let found = holding.held.iter().filter_map(|held| {
            floors.get(&held.account).filter(|floor| floor.below_generation > held.generation)
        });
        found.cloned().collect()
    }
}

#[tonic::async_trait]
impl Revocations for FakeLogin {
    type FollowStream = BoxStream<RevocationList>;

    async fn follow(
        &self,
        request: Request<Streaming<HeldSessions>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let (mut holding, this) = (request.into_inner(), self.clone());
        let (out, lists) = mpsc::channel(4);
        let mut cut = self.cut.subscribe();
        let mut closed = self.closed.subscribe();
        closed.mark_changed();
        tokio::spawn(async move {
            loop {
                let mut closures = None;
                let revocations = tokio::select! {
                    _ = cut.changed() => return,
                    _ = closed.changed() => {
                        closures = Some(closed.borrow_and_update().clone());
                        Vec::new()
                    }
                    held = holding.next() => match held {
                        Some(Ok(held)) => {
                            let outdated = this.outdated(&held);
                            this.held.send_modify(|all| all.extend(held.held));
                            outdated
                        }
                        _ => return,
                    },
                    () = tokio::time::sleep(HEARTBEAT) => Vec::new(),
                };
                if out.send(Ok(RevocationList { revocations, closures })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(lists))))
    }
}
