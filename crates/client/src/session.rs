//! A session as its player holds it: requests with replies, events as they come, and a life that outlasts sockets.
//! One task drives it; handles are cheap, and the session ends when the last is dropped.

mod driver;
mod pending;
mod queues;
mod resume;
mod shared;
mod sink;
mod stale_filter;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use shardkeep_lanes::Lane;
use shardkeep_types::SessionId;
use shardkeep_wire::{Head, Message, Side, opcode, payload::Logout};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    ClientError, Config, SessionEnd, counters::Counts, handshake, login::GatewayTicket, raw::Connection,
};

use driver::Driver;
use shared::{Command, Shared};
pub use sink::{Event, Events, Sink, events};

/// Commands that wait for the driver. Bound: this many; overflow: the caller waits.
const COMMAND_QUEUE: usize = 64;

/// Handle of a session. Clones share it.
#[derive(Debug, Clone)]
pub struct Session {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    ended: watch::Receiver<Option<SessionEnd>>,
    reply: Duration,
    closed: CancellationToken,
    /// Stops the driver with the last handle.
    _stop_on_drop: Arc<DropGuard>,
}

impl Session {
    /// Boards with a fresh ticket, and keeps the session alive from then on. Messages go to `sink` as they come.
    pub async fn attach(
        config: &Config,
        gateway_ticket: GatewayTicket,
        sink: impl Sink,
    ) -> Result<Self, ClientError> {
        let attaching = Box::pin(Self::attach_in_time(config, gateway_ticket, sink));
        timeout(config.timing.handshake, attaching)
            .await
            .map_err(|_| ClientError::Timeout("the gateway's answer"))?
    }

    async fn attach_in_time(
        config: &Config,
        gateway_ticket: GatewayTicket,
        sink: impl Sink,
    ) -> Result<Self, ClientError> {
        let GatewayTicket { gateway, lanes, ticket, .. } = gateway_ticket;
        let mut connection = Connection::open_gateway(config, &gateway, &lanes).await?;
        let established = handshake::attach(&mut connection, config, &ticket).await?;
        Ok(Self::start(config.clone(), connection, established, sink))
    }

    /// Takes over a session that was attached by hand (see [`crate::raw`]).
    pub fn start(
        config: Config,
        connection: Connection,
        established: handshake::Established,
        sink: impl Sink,
    ) -> Self {
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE);
        let (ended_sender, ended) = watch::channel(None);
        let gateway = established.ready.gateway.clone();
        let shared = Arc::new(Shared::new(established.session, gateway, connection.lane()));
        let closed = CancellationToken::new();
        let reply = config.timing.reply;
        let mut driver = Driver::new(config, established, sink, receiver, shared.clone());
        let stop = closed.clone();
        tokio::spawn(async move {
            let end = driver.run(connection, stop).await;
            tracing::debug!(%end, "session over");
            // Before the driver goes, and with it whoever waits for a reply: they ask why.
            ended_sender.send_replace(Some(end));
            drop(driver);
        });
        Self { commands, shared, ended, reply, _stop_on_drop: Arc::new(closed.clone().drop_guard()), closed }
    }

    pub fn id(&self) -> SessionId {
        self.shared.id()
    }

    /// host:port of the gateway that serves the session, as it names itself.
    pub fn gateway(&self) -> String {
        self.shared.gateway()
    }

    /// The lane it is on now, or was on last.
    pub fn lane(&self) -> Lane {
        self.shared.lane()
    }

    pub fn counts(&self) -> Counts {
        self.shared.counters().counts()
    }

    /// Sends a request and waits for its reply, over any number of lost connections. `within`: see [`Self::call_raw`].
    pub async fn call<R: prost::Message + Default>(
        &self,
        opcode: u16,
        payload: &impl prost::Message,
        within: impl Into<Option<Duration>>,
    ) -> Result<R, ClientError> {
        let reply = self.call_raw(opcode, payload.encode_to_vec().into(), within).await?;
        if reply.opcode != opcode {
            return Err(ClientError::Unexpected {
                opcode: reply.opcode,
                waiting_for: "the reply to a request",
            });
        }
        Ok(reply.decode()?)
    }

    /// Like [`Self::call`], undecoded. `within` is how long to wait, `None` the configured time. A request that was
    /// given up may still happen: only one with an action id may be sent again.
    pub async fn call_raw(
        &self,
        opcode: u16,
        payload: Bytes,
        within: impl Into<Option<Duration>>,
    ) -> Result<Message, ClientError> {
        check_size(Message::new(opcode, Head::Request(u32::MAX), payload.as_ref()).encoded_len())?;
        let within = within.into().unwrap_or(self.reply);
        let (answer, reply) = oneshot::channel();
        let waiting = async {
            self.command(Command::Request { opcode, payload, answer }).await?;
            // The driver drops what waits only when the session ends.
            reply.await.unwrap_or_else(|_| Err(self.ended_error()))
        };
        timeout(within, waiting).await.unwrap_or(Err(ClientError::Timeout("the reply to a request")))
    }

    /// Sends an event. Reliable ones (see [`Message::is_reliable`]) arrive once, unless their log is lost with a gateway.
    pub async fn send_event(&self, opcode: u16, payload: Bytes) -> Result<(), ClientError> {
        self.send(Message::new(opcode, Head::Event, payload)).await
    }

    /// Sends a state message, which replaces one of the same opcode, class and key that was not sent yet.
    pub async fn send_state(
        &self,
        opcode: u16,
        class: u8,
        key: u64,
        payload: Bytes,
    ) -> Result<(), ClientError> {
        self.send(Message::new(opcode, Head::State { class, key }, payload)).await
    }

    async fn send(&self, message: Message) -> Result<(), ClientError> {
        check_size(message.encoded_len())?;
        self.command(Command::Send(message)).await
    }

    /// Ends the session at the server, and waits until it is over. A server that cannot be reached in the time of a
    /// reply is not waited for: the session is forgotten here, and ends there when it is missed.
    pub async fn logout(&self) -> SessionEnd {
        let sent =
            self.call_raw(opcode::LOGOUT, prost::Message::encode_to_vec(&Logout {}).into(), None).await;
        if let Err(ClientError::Ended(end)) = sent {
            return end;
        }
        self.close();
        self.ended().await
    }

    /// Drops the session here, without a word to the server.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Waits until the session is over, and says why.
    pub async fn ended(&self) -> SessionEnd {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(SessionEnd::Closed),
            Err(_) => SessionEnd::Closed,
        }
    }

    /// Why the session is over, if it is.
    pub fn end(&self) -> Option<SessionEnd> {
        self.ended.borrow().clone()
    }

    /// Drops the connection without a word, as a network does. The session resumes by itself.
    pub async fn drop_connection(&self) -> Result<(), ClientError> {
        self.command(Command::DropConnection).await
    }

    /// Changes the key of what this side sends, before it is due.
    pub async fn update_key(&self) -> Result<(), ClientError> {
        self.command(Command::UpdateKey).await
    }

    async fn command(&self, command: Command) -> Result<(), ClientError> {
        self.commands.send(command).await.map_err(|_| self.ended_error())
    }

    fn ended_error(&self) -> ClientError {
        ClientError::Ended(self.end().unwrap_or(SessionEnd::Closed))
    }
}

fn check_size(length: usize) -> Result<(), ClientError> {
    if length > Side::Client.max_plaintext() { Err(ClientError::TooLarge(length)) } else { Ok(()) }
}
