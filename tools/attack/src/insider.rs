//! An attacker with an account: a real session that sends what no honest client sends.

use std::time::Duration;

use anyhow::{Context as _, Result};
use shardkeep_client::{
    Config,
    lanes::Lane,
    login::{GatewayTicket, LoginConnection, WorldSelect},
    raw::{self, Connection, Established, ResumeKeys},
    wire::{
        Head, Message,
        preface::{Preface, Service},
    },
};
use tokio::time::timeout;

use crate::{attack_plan::Account, context::AttackContext, loopback::Loopback};

/// Longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

pub struct Insider {
    pub connection: Connection,
    pub established: Established,
    gateway: Loopback,
    config: Config,
    requests: u32,
}

/// Logs in, and waits for the list of worlds.
pub async fn log_in(ctx: &AttackContext, account: &Account) -> Result<WorldSelect> {
    let at = ctx.login().context("no login server")?;
    let login_connection = LoginConnection::open(&ctx.config, at.address()).await?;
    let mut worlds = login_connection.log_in(&account.name, &account.password).await?;
    let listed = async {
        while worlds.worlds().iter().all(|it| it.id != ctx.world()) {
            worlds.next_worlds().await?;
        }
        anyhow::Ok(())
    };
    timeout(ANSWER_TIMEOUT, listed).await.context("the world is not listed")??;
    Ok(worlds)
}

/// Logs in, and returns a gateway and the ticket for it.
pub async fn ticket(ctx: &AttackContext, account: &Account) -> Result<(Loopback, GatewayTicket)> {
    let gateway_ticket = log_in(ctx, account).await?.select(ctx.world()).await?;
    let address: std::net::SocketAddr = gateway_ticket.gateway.parse().context("the gateway's address")?;
    Ok((Loopback::try_from(address)?, gateway_ticket))
}

/// A connection to a gateway after the preface.
pub async fn connect(ctx: &AttackContext, gateway: Loopback) -> Result<Connection> {
    let preface = Preface::new(Service::Gateway, ctx.deployment());
    Ok(Connection::open(gateway.address(), preface, ANSWER_TIMEOUT).await?)
}

impl Insider {
    /// Attaches over another lane, with other settings.
    pub async fn attach_session_on(
        ctx: &AttackContext,
        lane: Lane,
        config: Config,
        account: &Account,
    ) -> Result<Self> {
        let (gateway, gateway_ticket) = ticket(ctx, account).await?;
        let mut connection = Connection::open_on(&config, lane, gateway.address(), Service::Gateway).await?;
        let attaching = raw::attach(&mut connection, &config, &gateway_ticket.ticket);
        let established = timeout(ANSWER_TIMEOUT, attaching).await.context("no answer to Attach")??;
        Ok(Self { connection, established, gateway, config, requests: 0 })
    }

    pub async fn attach_session(ctx: &AttackContext, account: &Account) -> Result<Self> {
        let (gateway, gateway_ticket) = ticket(ctx, account).await?;
        Self::with_ticket(ctx, gateway, &gateway_ticket).await
    }

    pub async fn with_ticket(
        ctx: &AttackContext,
        gateway: Loopback,
        gateway_ticket: &GatewayTicket,
    ) -> Result<Self> {
        let mut connection = connect(ctx, gateway).await?;
        let config = ctx.config.clone();
        let attaching = raw::attach(&mut connection, &config, &gateway_ticket.ticket);
        let established = timeout(ANSWER_TIMEOUT, attaching).await.context("no answer to Attach")??;
        Ok(Self { connection, established, gateway, config, requests: 0 })
    }

    /// The same session on a new connection.
    pub async fn resume_session(&mut self, ctx: &AttackContext) -> Result<()> {
        let mut connection = connect(ctx, self.gateway).await?;
        let (session, keys) = (self.established.session, ResumeKeys::of(&self.established));
        let resuming = raw::resume(&mut connection, &self.config, session, &keys, 0);
        let established = timeout(ANSWER_TIMEOUT, resuming).await.context("no answer to Resume")??;
        self.connection = connection;
        self.established = established;
        Ok(())
    }

    pub fn gateway(&self) -> Loopback {
        self.gateway
    }

    /// A request with the next number.
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
        timeout(ANSWER_TIMEOUT, waiting).await.unwrap_or(Ok(None))
    }

    /// Reads until the server closes; how many replies to `request` came before. `None`: it stays open.
    pub async fn wait_for_close(&mut self, request: u32) -> Option<usize> {
        let mut replies = 0;
        let reading = async {
            while let Ok(message) = self.connection.receive().await {
                replies += usize::from(message.head == Head::Reply(request));
            }
        };
        let closed = timeout(ANSWER_TIMEOUT, reading).await.is_ok();
        closed.then_some(replies)
    }
}
