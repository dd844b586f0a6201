//! Gateways among stand-ins, over real sockets and mutual TLS.

use std::{
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use shardkeep_auth::ticket::Ticket;
use shardkeep_cluster::{Leadership, Node, certs};
use shardkeep_daemon::{ClusterConfig, Daemon, DaemonConfig, Running, Settings, launch};
use shardkeep_gateway::{Config, Gateway};
use shardkeep_link::{BackendSpec, Route};
use shardkeep_rpc::{
    accounts::revocations_server::RevocationsServer,
    batched_call::outcome,
    billing::billing_server::BillingServer,
    gateway::{Admission, AdmitRequest, gateway_client::GatewayClient},
    registry::registry_server::RegistryServer,
    world::world_server::WorldServer,
};
use shardkeep_testkit::FakeRegistry;
use shardkeep_types::{BackendKind, DaemonKind, Secret, TicketId, WorldId};
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::{Status, service::Routes, transport::Channel};

use crate::{
    backend::Backend,
    login::StandInLogin,
    player::Player,
    world::{StandInBilling, StandInWorld},
};

/// Longest wait for something that should happen at once, on a busy machine.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct Cluster {
    folder: TempDir,
    pub(crate) world: StandInWorld,
    pub(crate) billing: StandInBilling,
    pub(crate) login: Node,
    registries: Vec<String>,
    members: Vec<(Daemon, Node)>,
    tickets: AtomicU8,
}

impl Cluster {
    /// A registry, billing, and a login daemon to admit players.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        certs::make_ca(folder.path()).unwrap();
        let billing = StandInBilling::default();
        let mut members = Vec::new();
        let node = join(&folder, &[], &mut members, DaemonKind::Registry, "registry-1").await;
        node.serve(Routes::new(RegistryServer::new(FakeRegistry::default())));
        let registries = vec![node.grpc_address()];
        let node = join(&folder, &registries, &mut members, DaemonKind::Billing, "billing-1").await;
        node.serve(Routes::new(BillingServer::new(billing.clone())));
        let login = join(&folder, &registries, &mut members, DaemonKind::Login, "login-1").await;
        let (world, tickets) = (StandInWorld::default(), AtomicU8::new(0));
        Self { folder, world, billing, login, registries, members, tickets }
    }

    /// A login daemon that gateways follow.
    pub(crate) async fn followed_login(&mut self) -> StandInLogin {
        let login = StandInLogin::default();
        let node = self.member(DaemonKind::Login, "login-2").await;
        node.serve(Routes::new(RevocationsServer::new(login.clone())));
        login
    }

    /// A world that leads, with its link. All worlds share what they know of sessions.
    pub(crate) async fn world(&mut self, name: &str, term: u64) -> Backend {
        let spec = spec(BackendKind::WORLD, 0x3000, 0x3fff);
        let node = self.member(DaemonKind::World, name).await;
        node.set_leadership(Leadership::Leader);
        node.set_attribute("term", term.to_string());
        let backend = Backend::new(&node, spec);
        node.serve(Routes::new(backend.hub.service()).add_service(WorldServer::new(self.world.named(name))));
        backend
    }

    pub(crate) async fn zone(&mut self, name: &str) -> Backend {
        self.backend(DaemonKind::Zone, name, spec(BackendKind::ZONE, 0x1000, 0x1fff)).await
    }

    pub(crate) async fn backend(&mut self, kind: DaemonKind, name: &str, spec: BackendSpec) -> Backend {
        let node = self.member(kind, name).await;
        let backend = Backend::new(&node, spec);
        node.serve(Routes::new(backend.hub.service()));
        backend
    }

    async fn member(&mut self, kind: DaemonKind, name: &str) -> Node {
        join(&self.folder, &self.registries, &mut self.members, kind, name).await
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
        let mut running = launch::<Gateway>(settings).await.unwrap();
        running.ready().await.unwrap();
        self.wait_for_gateway(name).await;
        running
    }

    pub(crate) fn gateway_settings(&self, name: &str) -> Settings<Config> {
        let mut settings = settings::<Config>(&self.folder, &self.registries, DaemonKind::Gateway, name);
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
        self.member(DaemonKind::Gm, "gm-1").await
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

async fn join(
    folder: &TempDir,
    registries: &[String],
    members: &mut Vec<(Daemon, Node)>,
    kind: DaemonKind,
    name: &str,
) -> Node {
    let daemon = Daemon::new(kind, name);
    let node = Node::join(&settings::<()>(folder, registries, kind, name), &daemon, kind).await.unwrap();
    members.push((daemon, node.clone()));
    node
}

fn settings<C: Default>(
    folder: &TempDir,
    registries: &[String],
    kind: DaemonKind,
    name: &str,
) -> Settings<C> {
    let world = match kind {
        DaemonKind::World | DaemonKind::Zone => 1,
        _ => 0,
    };
    let files = certs::issue(folder.path(), kind, name, WorldId(world)).unwrap();
    Settings {
        daemon: DaemonConfig { name: name.into(), grace: Duration::from_secs(3), ..DaemonConfig::default() },
        cluster: ClusterConfig {
            registries: registries.to_vec(),
            ca: files.ca,
            cert: files.cert,
            key: files.key,
            heartbeat: Duration::from_millis(100),
            world,
            ..ClusterConfig::default()
        },
        ..Settings::default()
    }
}
