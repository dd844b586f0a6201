//! An attacker with an account of its own: a real session, used for what no honest client does.

use std::time::Duration;

use anyhow::{Context as _, Result};
use shardkeep_client::{
    Config,
    lanes::Lane,
    login::{Boarding, Door, WorldSelect},
    raw::{self, Connection, Established, ResumeKeys},
    wire::{
        Head, Message,
        preface::{Preface, Service},
    },
};
use tokio::time::timeout;

use super::{attacker::Field, loopback::Loopback, orders::Account};

/// What has not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct Insider {
    pub connection: Connection,
    pub established: Established,
    gateway: Loopback,
    config: Config,
    requests: u32,
}

/// Logs in, and waits for the list of worlds.
pub async fn log_in(field: &Field, account: &Account) -> Result<WorldSelect> {
    let at = field.login().context("no login server")?;
    let door = Door::open(&field.config, at.address()).await?;
    let mut worlds = door.log_in(&account.name, &account.password).await?;
    let listed = async {
        while worlds.worlds().iter().all(|it| it.id != field.world()) {
            worlds.next_worlds().await?;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, listed).await.context("the world is not listed")??;
    Ok(worlds)
}

/// What an account is told after the login: a gateway, and the ticket for it.
pub async fn ticket(field: &Field, account: &Account) -> Result<(Loopback, Boarding)> {
    let boarding = log_in(field, account).await?.select(field.world()).await?;
    let address: std::net::SocketAddr = boarding.gateway.parse().context("the gateway's address")?;
    Ok((Loopback::try_from(address)?, boarding))
}

/// A connection to a gateway that has said nothing yet.
pub async fn connect(field: &Field, gateway: Loopback) -> Result<Connection> {
    let preface = Preface::new(Service::Gateway, field.deployment());
    Ok(Connection::open(gateway.address(), preface, PATIENCE).await?)
}

impl Insider {
    /// Over another lane, with settings of its own.
    pub async fn board_on(field: &Field, lane: Lane, config: Config, account: &Account) -> Result<Self> {
        let (gateway, boarding) = ticket(field, account).await?;
        let mut connection = Connection::open_on(&config, lane, gateway.address(), Service::Gateway).await?;
        let attaching = raw::attach(&mut connection, &config, &boarding.ticket);
        let established = timeout(PATIENCE, attaching).await.context("no answer to Attach")??;
        Ok(Self { connection, established, gateway, config, requests: 0 })
    }

    pub async fn board(field: &Field, account: &Account) -> Result<Self> {
        let (gateway, boarding) = ticket(field, account).await?;
        Self::with_ticket(field, gateway, &boarding).await
    }

    pub async fn with_ticket(field: &Field, gateway: Loopback, boarding: &Boarding) -> Result<Self> {
        let mut connection = connect(field, gateway).await?;
        let config = field.config.clone();
        let attaching = raw::attach(&mut connection, &config, &boarding.ticket);
        let established = timeout(PATIENCE, attaching).await.context("no answer to Attach")??;
        Ok(Self { connection, established, gateway, config, requests: 0 })
    }

    /// The same session on a new connection.
    pub async fn come_back(&mut self, field: &Field) -> Result<()> {
        let mut connection = connect(field, self.gateway).await?;
        let (session, keys) = (self.established.session, ResumeKeys::of(&self.established));
        let resuming = raw::resume(&mut connection, &self.config, session, &keys, 0);
        let established = timeout(PATIENCE, resuming).await.context("no answer to Resume")??;
        self.connection = connection;
        self.established = established;
        Ok(())
    }

    pub fn gateway(&self) -> Loopback {
        self.gateway
    }

    /// A request with a number of its own.
    pub fn request(&mut self, opcode: u16, payload: &impl prost::Message) -> (u32, Message) {
        self.requests += 1;
        (self.requests, Message::request(opcode, self.requests, payload))
    }

    /// The reply to a request, an error included. `None`: it did not come in time.
    pub async fn reply(&mut self, request: u32) -> Result<Option<Message>> {
        let waiting = async {
            loop {
                let message = self.connection.receive().await?;
                if message.head == Head::Reply(request) {
                    return anyhow::Ok(Some(message));
                }
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or(Ok(None))
    }

    /// Reads until the server closes; how many replies to `request` came before. `None`: it stays open.
    pub async fn closes(&mut self, request: u32) -> Option<usize> {
        let mut replies = 0;
        let reading = async {
            while let Ok(message) = self.connection.receive().await {
                replies += usize::from(message.head == Head::Reply(request));
            }
        };
        let closed = timeout(PATIENCE, reading).await.is_ok();
        closed.then_some(replies)
    }
}
