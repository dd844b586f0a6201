//! Reaches players through all live gateways, because billing does not know which gateway has a session.

use std::{future::Future, time::Duration};

use futures::future::join_all;
use shardkeep_cluster::{Directory, Instance, Node, State};
use shardkeep_rpc::gateway::{
    AnnounceRequest, KickRequest, announce_request::To, gateway_client::GatewayClient, kick_request::Selector,
};
use shardkeep_types::{AccountId, DaemonKind};
use tokio::time::timeout;
use tonic::{Request, Response, Status, transport::Channel};

use crate::{enforce::PlayerNotifier, metrics::UNREACHED};

const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// `PLAY_TIME_OVER` of the client protocol's error codes, see proto/client/transport.proto.
const PLAY_TIME_OVER: u32 = 16;

pub(crate) struct Gateways {
    node: Node,
    directory: Directory,
}

impl Gateways {
    pub(crate) fn new(node: Node) -> Self {
        let directory = node.directory(DaemonKind::Gateway);
        Self { node, directory }
    }

    /// Calls each gateway. A gateway that does not answer is called again at the next check.
    async fn call_all<T, F>(&self, call: impl Fn(GatewayClient<Channel>) -> F) -> Vec<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let alive = |gateway: &Instance| matches!(gateway.state, State::Up | State::Draining);
        let asked = self.directory.all().into_iter().filter(alive).map(|gateway| {
            let channel = self.node.channel(DaemonKind::Gateway, &gateway.grpc_address);
            let answer = call(GatewayClient::new(channel));
            async move {
                let answer = timeout(CALL_TIMEOUT, answer).await;
                let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
                answer.inspect_err(|status| {
                    metrics::counter!(UNREACHED).increment(1);
                    tracing::warn!(gateway = gateway.id.name, %status, "a gateway did not accept a call; the next check repeats it");
                })
            }
        });
        join_all(asked).await.into_iter().flatten().map(Response::into_inner).collect()
    }
}

impl PlayerNotifier for Gateways {
    async fn announce(&self, account: AccountId, text: String) -> u32 {
        let replies = self.call_all(|mut gateway| {
            let request = AnnounceRequest { text: text.clone(), to: Some(To::Account(account.0)) };
            async move { gateway.announce(with_deadline(request)).await }
        });
        replies.await.iter().map(|reply| reply.reached).sum()
    }

    async fn kick(&self, account: AccountId) -> u32 {
        let replies = self.call_all(|mut gateway| {
            let detail = "your play time is used up".to_owned();
            let request =
                KickRequest { selector: Some(Selector::Account(account.0)), code: PLAY_TIME_OVER, detail };
            async move { gateway.kick(with_deadline(request)).await }
        });
        replies.await.iter().map(|reply| reply.ended).sum()
    }
}

fn with_deadline<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}
