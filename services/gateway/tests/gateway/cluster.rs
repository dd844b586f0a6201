//! Gateways among doubles of other daemons, over real sockets and mutual TLS.

use std::{
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use shardkeep_auth::ticket::Ticket;
use shardkeep_cluster::{Leadership, Node};
use shardkeep_daemon::{Running, Settings};
use shardkeep_gateway::{Config, Gateway};
use shardkeep_link::{BackendSpec, Route};
use shardkeep_rpc::{
    accounts::revocations_server::RevocationsServer,
    batched_call::outcome,
    billing::billing_server::BillingServer,
    gateway::{Admission, AdmitRequest, gateway_client::GatewayClient},
    world::world_server::WorldServer,
};
use shardkeep_testkit::{FakeBackend, FakeBilling, FakeCluster, FakeLogin, FakeWorld};
use shardkeep_types::{BackendKind, DaemonKind, Secret, TicketId, WorldId};
use tokio::time::timeout;
use tonic::{Status, service::Routes, transport::Channel};

use crate::player::Player;

/// Longest wait for something that should happen at once, on a busy machine.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct Cluster {
    members: FakeCluster,
    pub(crate) world: FakeWorld,
    pub(crate) billing: FakeBilling,
    pub(crate) login: Node,
    tickets: AtomicU8,
}

impl Cluster {
    /// A registry, billing, and a login daemon to admit players.
    pub(crate) async fn start() -> Self {
        let (mut members, billing) = (FakeCluster::start().await, FakeBilling::default());
        let server = Routes::new(BillingServer::new(billing.clone()));
        members.serve(DaemonKind::Billing, "billing-1", server).await;
        let login = members.member(DaemonKind::Login, "login-1").await;
        Self { members, world: FakeWorld::default(), billing, login, tickets: AtomicU8::new(0) }
    }

    /// A login daemon that gateways follow.
    pub(crate) async fn followed_login(&mut self) -> FakeLogin {
        let login = FakeLogin::default();
        let server = Routes::new(RevocationsServer::new(login.clone()));
        self.members.serve(DaemonKind::Login, "login-2", server).await;
        login
    }

    /// A world that leads, with its link. All worlds share what they know of sessions.
    pub(crate) async fn world(&mut self, name: &str, term: u64) -> FakeBackend {
        let spec = spec(BackendKind::WORLD, 0x3000, 0x3fff);
        let node = self.members.member(DaemonKind::World, name).await;
        node.set_leadership(Leadership::Leader);
        node.set_attribute("term", term.to_string());
        let backend = FakeBackend::new(&node, spec);
        node.serve(Routes::new(backend.hub.service()).add_service(WorldServer::new(self.world.named(name))));
        backend
    }

    pub(crate) async fn zone(&mut self, name: &str) -> FakeBackend {
        self.backend(DaemonKind::Zone, name, spec(BackendKind::ZONE, 0x1000, 0x1fff)).await
    }

    pub(crate) async fn backend(&mut self, kind: DaemonKind, name: &str, spec: BackendSpec) -> FakeBackend {
        let node = self.members.member(kind, name).await;
        let backend = FakeBackend::new(&node, spec);
        node.serve(Routes::new(backend.hub.service()));
        backend
    }

    pub(crate) async fn gateway(&self, name: &str) -> Running {
        self.gateway_with(name, |_| {}).await
    }

    /// A gateway that is ready and known to login.
    pub(crate) async fn gateway_with(&self, name: &str, change: impl FnOnce(&mut Config)) -> Running {
        self.gateway_as(name, |settings| change(&mut settings.service)).await
    }

    pub(crate) async fn gateway_as(&self, name: &str, change: impl FnOnce(&mut Settings<Config>)) -> Running {
        let mut settings = self.gateway_settings(name);
        change(&mut settings);
        let running = self.members.launch::<Gateway>(settings).await;
        self.wait_for_gateway(name).await;
        running
    }

    pub(crate) fn gateway_settings(&self, name: &str) -> Settings<Config> {
        let mut settings = self.members.settings::<Config>(DaemonKind::Gateway, name);
        settings.daemon.grace = Duration::from_secs(3);
        settings.service.listen = "127.0.0.1:0".into();
        settings.service.billing_interval = Duration::from_secs(1);
        settings.service.move_within = TEST_TIMEOUT;
        settings
    }

    /// Waits until the registry lists the gateway.
    pub(crate) async fn wait_for_gateway(&self, name: &str) {
        let mut gateways = self.login.directory(DaemonKind::Gateway);
        let seen = async {
            while !gateways.up().iter().any(|gateway| gateway.id.name == name) {
                gateways.changed().await;
            }
        };
        timeout(TEST_TIMEOUT, seen).await.expect("the registry knows the gateway");
    }

    pub(crate) fn gateway_client(&self, gateway: &str) -> GatewayClient<Channel> {
        self.gateway_client_as(&self.login, gateway)
    }

    /// An operator's console.
    pub(crate) async fn operator(&mut self) -> Node {
        self.members.member(DaemonKind::Gm, "gm-1").await
    }

    pub(crate) fn gateway_client_as(&self, node: &Node, gateway: &str) -> GatewayClient<Channel> {
        let gateway = self.login.directory(DaemonKind::Gateway).get(gateway).unwrap();
        GatewayClient::new(node.channel(DaemonKind::Gateway, &gateway.grpc_address))
    }

    /// A ticket of the account, admitted at the gateway.
    pub(crate) async fn ticket(&self, gateway: &str, account: u64) -> Ticket {
        self.admit(gateway, account).await.unwrap()
    }

    /// The same, if the gateway takes it.
    pub(crate) async fn admit(&self, gateway: &str, account: u64) -> Result<Ticket, Status> {
        let (ticket, admission) = self.admission(account);
        let request = AdmitRequest { admissions: vec![admission] };
        let reply = self.gateway_client(gateway).admit(request).await?.into_inner();
        outcome(reply.admitted[0].code, &reply.admitted[0].detail)?;
        Ok(ticket)
    }

    /// A new ticket of the account, and what a gateway is to know of it.
    pub(crate) fn admission(&self, account: u64) -> (Ticket, Admission) {
        self.admission_of(account, 1)
    }

    /// A ticket of a later login, admitted at the gateway.
    pub(crate) async fn later_ticket(&self, gateway: &str, account: u64, generation: u64) -> Ticket {
        let (ticket, admission) = self.admission_of(account, generation);
        self.gateway_client(gateway).admit(AdmitRequest { admissions: vec![admission] }).await.unwrap();
        ticket
    }

    fn admission_of(&self, account: u64, generation: u64) -> (Ticket, Admission) {
        let number = self.tickets.fetch_add(1, Ordering::Relaxed) + 1;
        let ticket = Ticket { index: 0, id: TicketId([number; 16]), key: Secret::new([number; 32]) };
        let admission = Admission {
            ticket_id: ticket.id.0.to_vec(),
            ticket_key: ticket.key.expose().to_vec(),
            account,
            account_name: format!("account-{account}"),
            generation,
            world: 1,
            lifetime_ms: 60_000,
        };
        (ticket, admission)
    }

    /// A player with a session at the gateway.
    pub(crate) async fn player(&self, gateway: &str, account: u64) -> Player {
        let ticket = self.ticket(gateway, account).await;
        Player::attach(&self.address(gateway), &ticket).await.expect("attached")
    }

    /// Where players reach the gateway.
    pub(crate) fn address(&self, gateway: &str) -> String {
        self.login.directory(DaemonKind::Gateway).get(gateway).unwrap().client_address
    }
}

/// A backend of world 1 that serves these opcodes.
pub(crate) fn spec(kind: BackendKind, first: u16, last: u16) -> BackendSpec {
    let routes = vec![Route { first, last, max_payload: 1_024, rate: 100, burst: 100 }];
    BackendSpec { kind, world: WorldId(1), routes, auto_bind: kind >= BackendKind::CHAT }
}
