//! A login process among stand-ins for other daemons.

use std::{path::PathBuf, process::Stdio, time::Duration};

use shardkeep_auth::{
    AccountName,
    srp::{Group, Verifier},
};
use shardkeep_cluster::{Dialer, Leadership, Node, OperatorName, certs};
use shardkeep_daemon::{ClusterConfig, Daemon, DaemonConfig, Settings};
use shardkeep_rpc::{
    accounts::{
        Account, CreateRequest, ShowRequest, accounts_client::AccountsClient,
        revocations_client::RevocationsClient, show_request::Selector,
    },
    billing::billing_server::BillingServer,
    gateway::gateway_server::GatewayServer,
    registry::registry_server::RegistryServer,
};
use shardkeep_testkit::{FakeRegistry, wait_until};
use shardkeep_types::{DaemonKind, WorldId};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};
use tonic::{service::Routes, transport::Channel};

use crate::{
    player::Player,
    stand_ins::{StandInBilling, StandInGateway},
};

/// Longest wait for an event that takes a moment on an idle machine.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The gateway address that players are told.
pub(crate) const GATEWAY_ADDRESS: &str = "gateway.example:7200";

pub(crate) struct Cluster {
    pub(crate) folder: TempDir,
    pub(crate) gateway: StandInGateway,
    registry: Node,
    process: Child,
    bound: Bound,
    operator: Dialer,
    settings: Vec<String>,
    // Dropping them would end the stand-ins.
    members: Vec<(Daemon, Node)>,
}

struct Bound {
    grpc: String,
    admin: String,
    client: String,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// `settings` as for `--set`; `{folder}` stands for the cluster's folder.
    pub(crate) async fn start_with(settings: &[&str]) -> Self {
        Self::start_in(new_folder(), settings).await
    }

    /// Starts another region: a second cluster with the same certificate authority.
    pub(crate) async fn start_region(&self, settings: &[&str]) -> Self {
        let folder = new_folder();
        for file in ["ca.pem", "ca.key"] {
            std::fs::copy(self.folder.path().join(file), folder.path().join(file)).unwrap();
        }
        Self::start_in(folder, settings).await
    }

    async fn start_in(folder: TempDir, settings: &[&str]) -> Self {
        certs::make_ca(folder.path()).unwrap();
        let registry = member(&folder, DaemonKind::Registry, "registry-1", 0, &[]).await;
        registry.1.serve(Routes::new(RegistryServer::new(FakeRegistry::default())));
        let gateway = StandInGateway::default();
        let files = certs::issue(folder.path(), DaemonKind::Cli, "cli", WorldId(0)).unwrap();
        let name = OperatorName::parse("tester").unwrap();
        let operator = Dialer::with_operator(files.load().unwrap().into(), &name);
        let settings = filled_in(settings, &folder);
        let (process, bound) = spawn(&folder, &registry.1.grpc_address(), &settings).await;
        let mut cluster = Self {
            folder,
            gateway: gateway.clone(),
            registry: registry.1.clone(),
            process,
            bound,
            operator,
            settings,
            members: vec![registry],
        };
        let node = cluster.member(DaemonKind::Gateway, "gateway-1", 0).await;
        node.set_client_address(GATEWAY_ADDRESS.into());
        node.serve(Routes::new(GatewayServer::new(gateway)));
        cluster
    }

    /// A registered daemon that serves nothing yet.
    pub(crate) async fn member(&mut self, kind: DaemonKind, name: &str, world: u32) -> Node {
        let member = member(&self.folder, kind, name, world, &[self.registry.grpc_address()]).await;
        self.members.push(member.clone());
        member.1
    }

    /// The leader of a world that is up and has room.
    pub(crate) async fn world(&mut self, id: u32, name: &str) -> Node {
        let node = self.member(DaemonKind::World, &format!("world-{id}"), id).await;
        for (key, value) in [("name", name), ("capacity", "100"), ("online", "25")] {
            node.set_attribute(key, value.to_owned());
        }
        node.set_leadership(Leadership::Leader);
        node.serve(Routes::default());
        node
    }

    pub(crate) async fn billing(&mut self, billing: StandInBilling) {
        let node = self.member(DaemonKind::Billing, "billing-1", 0).await;
        node.serve(Routes::new(BillingServer::new(billing)));
    }

    pub(crate) async fn connect(&self) -> Player {
        Player::connect(&self.bound.client).await
    }

    pub(crate) fn accounts(&self) -> AccountsClient<Channel> {
        AccountsClient::new(self.operator.channel(DaemonKind::Login, &self.bound.grpc))
    }

    pub(crate) fn revocations_as_operator(&self) -> RevocationsClient<Channel> {
        RevocationsClient::new(self.operator.channel(DaemonKind::Login, &self.bound.grpc))
    }

    /// The service that gateways follow.
    pub(crate) fn revocations(&self) -> RevocationsClient<Channel> {
        let files = certs::issue(self.folder.path(), DaemonKind::Gateway, "follower", WorldId(0)).unwrap();
        let dialer = Dialer::new(files.load().unwrap().into());
        RevocationsClient::new(dialer.channel(DaemonKind::Login, &self.bound.grpc))
    }

    pub(crate) async fn account(&self, name: &str, password: &str) -> u64 {
        let request = new_account(name, password);
        self.accounts().create(request).await.unwrap().into_inner().account
    }

    /// The sum of a metric over all label sets that contain `label`.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> f64 {
        let text = self.get("/metrics").await;
        let samples = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])) && line.contains(label)
        });
        samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    async fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.bound.admin).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    /// The process's standard error.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("login.log")).unwrap()
    }

    /// The address for other regions.
    pub(crate) fn grpc_address(&self) -> &str {
        &self.bound.grpc
    }

    pub(crate) async fn is_ready(&self) -> bool {
        self.get("/readyz").await.starts_with("HTTP/1.0 200")
    }

    pub(crate) fn client_address(&self) -> &str {
        &self.bound.client
    }

    pub(crate) async fn show(&self, name: &str) -> Account {
        let selector = Some(Selector::Name(name.to_owned()));
        self.accounts().show(ShowRequest { selector }).await.unwrap().into_inner()
    }

    /// Waits for the end of the process; true if it ended with success.
    pub(crate) async fn wait_for_exit(&mut self) -> bool {
        timeout(TEST_TIMEOUT, self.process.wait()).await.expect("it drains").unwrap().success()
    }

    pub(crate) async fn signal(&self, signal: &str) {
        let id = self.process.id().expect("it runs").to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &id]).status().await.unwrap();
        assert!(sent.success());
    }

    /// Kills the process, starts another one with these settings, and waits until that one ends. Returns its
    /// standard error.
    pub(crate) async fn refuses_to_start_with(&mut self, settings: &[&str]) -> String {
        self.process.kill().await.unwrap();
        std::fs::remove_file(self.folder.path().join("login.log")).unwrap();
        let settings = filled_in(settings, &self.folder);
        let (mut process, _) = begin(&self.folder, &self.registry.grpc_address(), &settings);
        let status = timeout(TEST_TIMEOUT, process.wait()).await.expect("it ends").unwrap();
        assert!(!status.success());
        self.log()
    }

    /// Kills the process, and starts another one on the same store with these settings.
    pub(crate) async fn restart_with(&mut self, settings: &[&str]) {
        self.settings = filled_in(settings, &self.folder);
        drop(self.process.kill().await);
        let (process, bound) = spawn(&self.folder, &self.registry.grpc_address(), &self.settings).await;
        (self.process, self.bound) = (process, bound);
    }

    pub(crate) async fn kill(&mut self) {
        self.process.kill().await.unwrap();
    }

    /// Kills the process, and starts another one on the same store.
    pub(crate) async fn restart(&mut self) {
        self.process.kill().await.unwrap();
        let (process, bound) = spawn(&self.folder, &self.registry.grpc_address(), &self.settings).await;
        (self.process, self.bound) = (process, bound);
    }
}

pub(crate) fn new_account(name: &str, password: &str) -> CreateRequest {
    account_in(Group::Bits2048, name, password)
}

pub(crate) fn account_in(group: Group, name: &str, password: &str) -> CreateRequest {
    let normal = AccountName::normalise(name).unwrap();
    let verifier = Verifier::create(group, &normal, password, [7; 16]).unwrap();
    CreateRequest {
        name: name.to_owned(),
        group: verifier.group().bits(),
        salt: verifier.salt().to_vec(),
        verifier: verifier.verifier().expose().clone(),
    }
}

async fn member(
    folder: &TempDir,
    kind: DaemonKind,
    name: &str,
    world: u32,
    registries: &[String],
) -> (Daemon, Node) {
    let files = certs::issue(folder.path(), kind, name, WorldId(world)).unwrap();
    let settings = Settings::<()> {
        daemon: DaemonConfig { name: name.into(), ..DaemonConfig::default() },
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
    };
    let daemon = Daemon::new(kind, name);
    let node = Node::join(&settings, &daemon, kind).await.unwrap();
    (daemon, node)
}

fn filled_in(settings: &[&str], folder: &TempDir) -> Vec<String> {
    let here = folder.path().display().to_string();
    settings.iter().map(|set| set.replace("{folder}", &here)).collect()
}

fn new_folder() -> TempDir {
    tempfile::Builder::new().prefix("shardkeep-login-").tempdir().unwrap()
}

/// Starts the process. Returns the file in which it announces its addresses.
fn begin(folder: &TempDir, registry: &str, settings: &[String]) -> (Child, PathBuf) {
    let at = |name: &str| folder.path().join(name);
    let files = certs::issue(folder.path(), DaemonKind::Login, "login-1", WorldId(0)).unwrap();
    let announce = at("login.json");
    drop(std::fs::remove_file(&announce));
    let path = |path: PathBuf| path.display().to_string();
    let mut sets = vec![
        "login.listen=127.0.0.1:0".to_owned(),
        format!("daemon.data_dir={}", path(at("var"))),
        format!("daemon.announce={}", path(announce.clone())),
        format!("cluster.registries={registry}"),
        format!("cluster.ca={}", path(files.ca)),
        format!("cluster.cert={}", path(files.cert)),
        format!("cluster.key={}", path(files.key)),
        "log.filter=trace".to_owned(),
        "log.otlp=off".to_owned(),
    ];
    sets.extend(settings.iter().cloned());
    let log = std::fs::File::options().create(true).append(true).open(at("login.log")).unwrap();
    let process = Command::new(env!("CARGO_BIN_EXE_shardkeep-login"))
        .args(sets.iter().flat_map(|set| ["--set", set]))
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    (process, announce)
}

async fn spawn(folder: &TempDir, registry: &str, settings: &[String]) -> (Child, Bound) {
    let (mut process, announce) = begin(folder, registry, settings);
    let log = folder.path().join("login.log");
    let announced = wait_until("login announces its addresses", async || {
        let ended = process.try_wait().unwrap();
        assert!(ended.is_none(), "{}", std::fs::read_to_string(&log).unwrap());
        Ok(std::fs::read_to_string(&announce).ok())
    });
    let text = announced.await.unwrap();
    let field = |name: &str| {
        let start = text.find(&format!("\"{name}\": \"")).unwrap() + name.len() + 5;
        text[start..].split('"').next().unwrap().to_owned()
    };
    (process, Bound { grpc: field("grpc"), admin: field("admin"), client: field("client") })
}
