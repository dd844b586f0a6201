//! A gateway that records the calls it receives.

use std::time::Duration;

use parking_lot::Mutex;
use shardkeep_cluster::Node;
use shardkeep_daemon::Daemon;
use shardkeep_rpc::{
    gateway::{
        AdmitReply, AdmitRequest, AnnounceReply, AnnounceRequest, KickReply, KickRequest, ListCostsReply,
        ListCostsRequest, ListSessionsReply, ListSessionsRequest, MoveSessionReply, MoveSessionRequest,
        RevokeAccountReply, RevokeAccountRequest, RevokeTicketReply, RevokeTicketRequest,
        announce_request::To,
        gateway_server::{Gateway, GatewayServer},
        kick_request::Selector,
    },
    registry::registry_server::RegistryServer,
};
use shardkeep_testkit::FakeRegistry;
use shardkeep_types::DaemonKind;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, service::Routes};

use crate::TestEnv;

/// The time limit for events that happen at once on an idle machine.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct FakeGateway {
    pub(crate) registry: String,
    received: mpsc::UnboundedReceiver<String>,
    daemons: Vec<Daemon>,
}

impl FakeGateway {
    /// The next call that the gateway receives.
    pub(crate) async fn received(&mut self) -> String {
        tokio::time::timeout(TEST_TIMEOUT, self.received.recv()).await.expect("an order in time").unwrap()
    }

    pub(crate) fn end(self) {
        for daemon in self.daemons {
            daemon.drain("test");
            daemon.finished().cancel();
        }
    }
}

pub(crate) async fn gateway(env: &TestEnv) -> FakeGateway {
    let (sender, received) = mpsc::unbounded_channel();
    let registry = Daemon::new(DaemonKind::Registry, "registry-1");
    let node =
        Node::join(&env.settings::<()>(DaemonKind::Registry), &registry, DaemonKind::Registry).await.unwrap();
    node.serve(Routes::new(RegistryServer::new(FakeRegistry::default())));
    let address = node.grpc_address();

    let gateway = Daemon::new(DaemonKind::Gateway, "gateway-1");
    let mut settings = env.settings::<()>(DaemonKind::Gateway);
    settings.cluster.registries = vec![address.clone()];
    let node = Node::join(&settings, &gateway, DaemonKind::Gateway).await.unwrap();
    node.serve(Routes::new(GatewayServer::new(RecordingGateway { sender: Mutex::new(sender) })));
    FakeGateway { registry: address, received, daemons: vec![gateway, registry] }
}

struct RecordingGateway {
    sender: Mutex<mpsc::UnboundedSender<String>>,
}

#[tonic::async_trait]
impl Gateway for RecordingGateway {
    async fn kick(&self, request: Request<KickRequest>) -> Result<Response<KickReply>, Status> {
        let KickRequest { selector: Some(Selector::Account(account)), code, .. } = request.into_inner()
        else {
            return Err(Status::invalid_argument("who"));
        };
        let _ = self.sender.lock().send(format!("{account}: kicked with {code}"));
        Ok(Response::new(KickReply { ended: 1 }))
    }

    async fn announce(&self, request: Request<AnnounceRequest>) -> Result<Response<AnnounceReply>, Status> {
        let AnnounceRequest { text, to: Some(To::Account(account)) } = request.into_inner() else {
            return Err(Status::invalid_argument("to"));
        };
        let _ = self.sender.lock().send(format!("{account}: {text}"));
        Ok(Response::new(AnnounceReply { reached: 1 }))
    }

    async fn admit(&self, _: Request<AdmitRequest>) -> Result<Response<AdmitReply>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn revoke_ticket(
        &self,
        _: Request<RevokeTicketRequest>,
    ) -> Result<Response<RevokeTicketReply>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn revoke_account(
        &self,
        _: Request<RevokeAccountRequest>,
    ) -> Result<Response<RevokeAccountReply>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn move_session(
        &self,
        _: Request<MoveSessionRequest>,
    ) -> Result<Response<MoveSessionReply>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn list_costs(&self, _: Request<ListCostsRequest>) -> Result<Response<ListCostsReply>, Status> {
        Err(Status::unimplemented("stand-in"))
    }

    async fn list_sessions(
        &self,
        _: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsReply>, Status> {
        Err(Status::unimplemented("not asked here"))
    }
}
