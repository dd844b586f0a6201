//! The one cluster of real processes that all measures share, and the measures' way in: as `login` would, they move
//! tickets to a gateway, so that a session costs no login.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use shardkeep_auth::{
    AccountName, Key,
    srp::{Group, Verifier},
    ticket::Ticket,
};
use shardkeep_client::{
    Config,
    raw::{self, Connection, Established},
};
use shardkeep_cluster::{Dialer, OperatorName, certs};
use shardkeep_rpc::{
    accounts::{CreateRequest, accounts_client::AccountsClient},
    batched_call::outcome,
    gateway::{Admission, AdmitRequest, gateway_client::GatewayClient},
};
use shardkeep_testkit::{Announcement, Cluster, Stores};
use shardkeep_types::{DaemonKind, TicketId, WorldId};
use shardkeep_wire::preface::{Preface, Service};
use tokio::{runtime::Runtime, sync::OnceCell};

pub const WORLD: u32 = 1;
const TICKET_LIFETIME: Duration = Duration::from_secs(300);
const MAX_CONCURRENT: usize = 32;
/// Measures log in and fail more often than a player may, measure logins and not puzzles, and draw more answers; accounts
/// are kept all the same.
const SETTINGS: &str = r#"
[dns.rate]
answers_per_s = 1000000
burst = 1000000
exempt = []

[login.puzzle]
mode = "never"
[login.limits]
attempts = { burst = 1000000, every = "1ms" }
failures = { burst = 1000000, every = "1ms" }
failures_of_address = { burst = 1000000, every = "1ms" }
failures_of_account = { burst = 1000000, every = "1ms" }
[login.patches]
bandwidth = 0
bandwidth_per_connection = 0
max_connections_per_address = 2048
"#;

pub struct Fixture {
    pub cluster: Cluster,
    /// From `shardkeep up` to "daemons ready".
    pub ready: Duration,
    pub config: Config,
    /// Where login looks for patches; there is nothing at first.
    pub patches: PathBuf,
    login: Dialer,
    tickets: AtomicU64,
}

/// The runtime that clients and echo servers live on.
pub fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: std::sync::OnceLock<Runtime> = std::sync::OnceLock::new();
    if RUNTIME.get().is_none() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let _ = RUNTIME.set(runtime);
    }
    RUNTIME.get().context("the runtime was set")
}

impl Fixture {
    /// Starts the cluster with the first measure that wants it. It ends with this process.
    pub async fn shared() -> Result<&'static Self> {
        static FIXTURE: OnceCell<Fixture> = OnceCell::const_new();
        FIXTURE.get_or_try_init(Self::start).await
    }

    async fn start() -> Result<Self> {
        eprintln!("  starting a cluster");
        let begin = Instant::now();
        let patches = std::env::temp_dir().join(format!("shardkeep-bench-patches-{}", std::process::id()));
        let settings = format!("{SETTINGS}dir = {patches:?}\n");
        let cluster = Cluster::start_with(Stores::default(), Some(&settings)).await?;
        let ready = begin.elapsed();
        let files =
            certs::issue(&cluster.data_dir().join("tls"), DaemonKind::Login, "login-bench", WorldId(0))?;
        let login = Dialer::new(files.load()?.into());
        let mut config = Config::default();
        config.timing.connect = Duration::from_secs(5);
        Ok(Self { cluster, ready, config, patches, login, tickets: AtomicU64::new(1) })
    }

    /// Tickets that the gateway expects, each of another account.
    pub async fn tickets(&self, gateway: &Announcement, count: usize) -> Result<Vec<Ticket>> {
        let client = GatewayClient::new(self.login.channel(DaemonKind::Gateway, &gateway.grpc));
        let admit = |_| {
            let mut client = client.clone();
            async move {
                let ticket = self.ticket();
                let request = AdmitRequest { admissions: vec![admission(&ticket)] };
                let reply = client.admit(request).await.context("the gateway takes no ticket")?.into_inner();
                let admitted = reply.admitted.first().context("the gateway says nothing of a ticket")?;
                outcome(admitted.code, &admitted.detail).context("the gateway takes no ticket")?;
                anyhow::Ok(ticket)
            }
        };
        stream::iter(0..count).map(admit).buffer_unordered(MAX_CONCURRENT).try_collect().await
    }

    fn ticket(&self) -> Ticket {
        ticket(self.tickets.fetch_add(1, Relaxed))
    }

    /// Makes accounts, as an operator does.
    pub async fn accounts(&self, names: &[String], password: &str) -> Result<()> {
        let tls = self.cluster.data_dir().join("tls");
        let files = certs::issue(&tls, DaemonKind::Cli, "operator-bench", WorldId(0))?;
        let name = OperatorName::parse("bench").context("the name of the operator")?;
        let operator = Dialer::with_operator(files.load()?.into(), &name);
        let login = self.cluster.announcement("login-1")?;
        let client = AccountsClient::new(operator.channel(DaemonKind::Login, &login.grpc));
        let create = |name: &String| {
            let (name, password, mut client) = (name.clone(), password.to_owned(), client.clone());
            async move {
                let request = tokio::task::spawn_blocking(move || new_account(&name, &password)).await??;
                client.create(request).await.context("no account was made")?;
                anyhow::Ok(())
            }
        };
        stream::iter(names).map(create).buffer_unordered(MAX_CONCURRENT).try_collect().await
    }

    /// A sealed connection with a session on it.
    pub async fn attach(&self, gateway: &Announcement, ticket: &Ticket) -> Result<(Connection, Established)> {
        attach(&self.config, &gateway.client, ticket).await
    }
}

/// The ticket of this number, which a second process can compute.
pub fn ticket(number: u64) -> Ticket {
    let (mut id, mut key) = ([0; 16], [7; 32]);
    id[..8].copy_from_slice(&number.to_le_bytes());
    key[..8].copy_from_slice(&number.to_le_bytes());
    Ticket { index: 0, id: TicketId(id), key: Key::new(key) }
}

pub fn number(ticket: &Ticket) -> u64 {
    ticket.id.0.iter().take(8).rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// A sealed connection to the gateway at this address, with a session on it.
pub async fn attach(config: &Config, gateway: &str, ticket: &Ticket) -> Result<(Connection, Established)> {
    let preface = Preface::new(Service::Gateway, config.deployment);
    let address = gateway.parse().context("the gateway's address")?;
    let mut connection = Connection::open(address, preface, config.timing.connect).await?;
    let established = raw::attach(&mut connection, config, ticket).await?;
    Ok((connection, established))
}

fn new_account(name: &str, password: &str) -> Result<CreateRequest> {
    let name = AccountName::normalise(name)?;
    let verifier = Verifier::create(Group::Bits2048, &name, password, [7; 16])?;
    let (salt, verified) = (verifier.salt().to_vec(), verifier.verifier().expose().clone());
    Ok(CreateRequest { name: name.to_string(), group: verifier.group().bits(), salt, verifier: verified })
}

fn admission(ticket: &Ticket) -> Admission {
    let number = number(ticket);
    Admission {
        ticket_id: ticket.id.0.to_vec(),
        ticket_key: ticket.key.expose().to_vec(),
        // Far from the accounts that logins make.
        account: 1_000_000 + number,
        account_name: format!("bench{number}"),
        generation: 1,
        world: WORLD,
        lifetime_ms: u32::try_from(TICKET_LIFETIME.as_millis()).unwrap_or(u32::MAX),
    }
}
