//! A session of which the story chooses every byte, for what no honest client says.

use anyhow::{Context as _, Result, bail};
use shardkeep_client::{
    ClientError, Config,
    login::GatewayTicket,
    raw::{self, Connection, Established},
    wire::{
        Head, Kind, Message, opcode,
        payload::{
            CharacterCreated, CharacterList, CreateCharacter, Enter, Entered, Error, ErrorCode,
            ListCharacters,
        },
        preface::{Preface, Service},
    },
};
use shardkeep_testkit::Cluster;
use shardkeep_types::EntityId;
use tokio::time::timeout;

use crate::{PASSWORD, TIMEOUT, WORLD, config, log_in};

pub struct RawSession {
    pub connection: Connection,
    pub established: Established,
    requests: u32,
}

impl RawSession {
    /// Takes an account that exists to a session.
    pub async fn attach(cluster: &Cluster, name: &str) -> Result<Self> {
        let gateway_ticket = log_in(cluster, name, PASSWORD).await?.select(WORLD).await?;
        Ok(Self::attach_with_ticket(&config(cluster)?, &gateway_ticket).await?)
    }

    /// Attaches with a ticket, whatever it is worth.
    pub async fn attach_with_ticket(
        config: &Config,
        gateway_ticket: &GatewayTicket,
    ) -> Result<Self, ClientError> {
        let mut connection = Self::connect(config, &gateway_ticket.gateway).await?;
        let attaching = raw::attach(&mut connection, config, &gateway_ticket.ticket);
        let established =
            timeout(TIMEOUT, attaching).await.unwrap_or(Err(ClientError::Timeout("the gateway's answer")))?;
        Ok(Self { connection, established, requests: 0 })
    }

    /// A connection to a gateway that has said nothing yet.
    pub async fn connect(config: &Config, gateway: &str) -> Result<Connection, ClientError> {
        let address = gateway.parse().map_err(|_| ClientError::Timeout("an address of the gateway"))?;
        Connection::open(address, Preface::new(Service::Gateway, config.deployment), TIMEOUT).await
    }

    /// Makes a character and enters the world with it.
    pub async fn enter(&mut self, name: &str) -> Result<EntityId> {
        let list: CharacterList = self.call(opcode::LIST_CHARACTERS, &ListCharacters {}).await?.decode()?;
        let character = match list.characters.into_iter().next() {
            Some(character) => character,
            None => {
                let create = CreateCharacter { name: name.to_owned() };
                let created: CharacterCreated =
                    self.call(opcode::CREATE_CHARACTER, &create).await?.decode()?;
                created.character.context("no character in the reply")?
            }
        };
        let entered: Entered =
            self.call(opcode::ENTER, &Enter { character_id: character.id }).await?.decode()?;
        Ok(EntityId(entered.entity_id))
    }

    /// The reply to a request; fails on a refusal.
    pub async fn call(&mut self, opcode: u16, payload: &impl prost::Message) -> Result<Message> {
        let request = self.say(opcode, payload).await?;
        let reply = self.reply(request).await?;
        if reply.opcode == opcode::ERROR {
            bail!("opcode {opcode:#06x} was refused: {:?}", reply.decode::<Error>()?);
        }
        Ok(reply)
    }

    /// The code with which a request is refused.
    pub async fn refusal(&mut self, opcode: u16, payload: &impl prost::Message) -> Result<ErrorCode> {
        let request = self.say(opcode, payload).await?;
        let reply = self.reply(request).await?;
        anyhow::ensure!(reply.opcode == opcode::ERROR, "opcode {opcode:#06x} was not refused");
        Ok(reply.decode::<Error>()?.code())
    }

    /// Sends a request and does not wait for its reply. Returns its number.
    pub async fn say(&mut self, opcode: u16, payload: &impl prost::Message) -> Result<u32, ClientError> {
        self.requests += 1;
        self.connection.send(&[Message::request(opcode, self.requests, payload)]).await?;
        Ok(self.requests)
    }

    async fn reply(&mut self, request: u32) -> Result<Message> {
        let waiting = async {
            loop {
                let message = self.connection.receive().await?;
                if message.head == Head::Reply(request) {
                    return Ok(message);
                }
            }
        };
        timeout(TIMEOUT, waiting).await.context("no reply in time")?
    }
}

/// The server's last word on a connection that it ends; `None`: not a word.
pub async fn connection_end(connection: &mut Connection) -> Result<Option<ErrorCode>> {
    let ending = async {
        loop {
            match connection.receive().await {
                Err(_) => return Ok(None),
                Ok(message) if message.opcode == opcode::ERROR && message.kind() == Kind::Event => {
                    return Ok(Some(message.decode::<Error>()?.code()));
                }
                Ok(_) => {}
            }
        }
    };
    timeout(TIMEOUT, ending).await.context("the connection does not end")?
}
