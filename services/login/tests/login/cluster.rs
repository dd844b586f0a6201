//! A login process among doubles of other daemons.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use shardkeep_auth::{
    AccountName,
    srp::{Group, Verifier},
};
use shardkeep_cluster::{Leadership, Node, certs};
use shardkeep_rpc::{
    accounts::{
        Account, CreateRequest, ShowRequest, accounts_client::AccountsClient,
        revocations_client::RevocationsClient, show_request::Selector,
    },
    billing::billing_server::BillingServer,
    gateway::gateway_server::GatewayServer,
};
use shardkeep_testkit::{FakeBilling, FakeCluster, FakeGateway, http_get, wait_until};
use shardkeep_types::{DaemonKind, WorldId};
use tokio::{
    process::{Child, Command},
    time::timeout,
};
use tonic::{service::Routes, transport::Channel};

use crate::player::Player;

/// Longest wait for an event that takes a moment on an idle machine.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The gateway address that players are told.
pub(crate) const GATEWAY_ADDRESS: &str = "gateway.example:7200";

pub(crate) struct Cluster {
    members: FakeCluster,
    pub(crate) gateway: FakeGateway,
    process: Child,
    bound: Bound,
    settings: Vec<String>,
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
        Self::start_among(FakeCluster::start().await, settings).await
    }

    /// Starts another region: a second cluster with the same certificate authority.
    pub(crate) async fn start_region(&self, settings: &[&str]) -> Self {
        Self::start_among(self.members.start_region().await, settings).await
    }

    async fn start_among(members: FakeCluster, settings: &[&str]) -> Self {
        let gateway = FakeGateway::default();
        let settings = filled_in(settings, members.folder());
        let (process, bound) = spawn(&members, &settings).await;
        let mut cluster = Self { members, gateway: gateway.clone(), process, bound, settings };
        let node = cluster.member(DaemonKind::Gateway, "gateway-1").await;
        node.set_client_address(GATEWAY_ADDRESS.into());
        node.serve(Routes::new(GatewayServer::new(gateway)));
        cluster
    }

    /// A registered daemon that serves nothing yet.
    pub(crate) async fn member(&mut self, kind: DaemonKind, name: &str) -> Node {
        self.members.member(kind, name).await
    }

    pub(crate) fn folder(&self) -> &Path {
        self.members.folder()
    }

    /// The leader of a world that is up and has room.
    pub(crate) async fn world(&mut self, id: u32, name: &str) -> Node {
        let node = self.members.member_of(WorldId(id), DaemonKind::World, &format!("world-{id}")).await;
        for (key, value) in [("name", name), ("capacity", "100"), ("online", "25")] {
            node.set_attribute(key, value.to_owned());
        }
        node.set_leadership(Leadership::Leader);
        node.serve(Routes::default());
        node
    }

    pub(crate) async fn billing(&mut self, billing: FakeBilling) {
        let server = Routes::new(BillingServer::new(billing));
        self.members.serve(DaemonKind::Billing, "billing-1", server).await;
    }

    pub(crate) async fn connect(&self) -> Player {
        Player::connect(&self.bound.client).await
    }

    pub(crate) fn accounts(&self) -> AccountsClient<Channel> {
        AccountsClient::new(self.channel(DaemonKind::Cli, "cli"))
    }

    pub(crate) fn revocations_as_operator(&self) -> RevocationsClient<Channel> {
        RevocationsClient::new(self.channel(DaemonKind::Cli, "cli"))
    }

    /// The service that gateways follow.
    pub(crate) fn revocations(&self) -> RevocationsClient<Channel> {
        RevocationsClient::new(self.channel(DaemonKind::Gateway, "follower"))
    }

    fn channel(&self, caller: DaemonKind, name: &str) -> Channel {
        self.members.channel(caller, name, DaemonKind::Login, &self.bound.grpc)
    }

    pub(crate) async fn account(&self, name: &str, password: &str) -> u64 {
        let request = new_account(name, password);
        self.accounts().create(request).await.unwrap().into_inner().account
    }

    /// The sum of a metric over all label sets that contain `label`.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> f64 {
        let (_, text) = http_get(&self.bound.admin, "/metrics").await.unwrap();
        let samples = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])) && line.contains(label)
        });
        samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// The process's standard error.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("login.log")).unwrap()
    }

    /// The address for other regions.
    pub(crate) fn grpc_address(&self) -> &str {
        &self.bound.grpc
    }

    pub(crate) async fn is_ready(&self) -> bool {
        http_get(&self.bound.admin, "/readyz").await.unwrap().0 == 200
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
        std::fs::remove_file(self.folder().join("login.log")).unwrap();
        let settings = filled_in(settings, self.folder());
        let (mut process, _) = begin(&self.members, &settings);
        let status = timeout(TEST_TIMEOUT, process.wait()).await.expect("it ends").unwrap();
        assert!(!status.success());
        self.log()
    }

    /// Kills the process, and starts another one on the same store with these settings.
    pub(crate) async fn restart_with(&mut self, settings: &[&str]) {
        self.settings = filled_in(settings, self.folder());
        drop(self.process.kill().await);
        let (process, bound) = spawn(&self.members, &self.settings).await;
        (self.process, self.bound) = (process, bound);
    }

    pub(crate) async fn kill(&mut self) {
        self.process.kill().await.unwrap();
    }

    /// Kills the process, and starts another one on the same store.
    pub(crate) async fn restart(&mut self) {
        self.process.kill().await.unwrap();
        let (process, bound) = spawn(&self.members, &self.settings).await;
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

fn filled_in(settings: &[&str], folder: &Path) -> Vec<String> {
    let here = folder.display().to_string();
    settings.iter().map(|set| set.replace("{folder}", &here)).collect()
}

/// Starts the process. Returns the file in which it announces its addresses.
fn begin(members: &FakeCluster, settings: &[String]) -> (Child, PathBuf) {
    let at = |name: &str| members.folder().join(name);
    let files = certs::issue(members.folder(), DaemonKind::Login, "login-1", WorldId(0)).unwrap();
    let announce = at("login.json");
    drop(std::fs::remove_file(&announce));
    let path = |path: PathBuf| path.display().to_string();
    let mut sets = vec![
        "login.listen=127.0.0.1:0".to_owned(),
        format!("daemon.data_dir={}", path(at("var"))),
        format!("daemon.announce={}", path(announce.clone())),
        format!("cluster.registries={}", members.registries().join(",")),
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

async fn spawn(members: &FakeCluster, settings: &[String]) -> (Child, Bound) {
    let (mut process, announce) = begin(members, settings);
    let log = members.folder().join("login.log");
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
