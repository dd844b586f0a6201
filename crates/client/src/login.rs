//! Logging in, as states that consume each other (`docs/protocol.md`, section 7): nothing can be said out of turn.
//!
//! ```text
//! Door ── greet ──▶ Challenged ── prove ──▶ WorldSelect ── select ──▶ Boarding (any number of them)
//! ```

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use shardkeep_auth::{
    AccountName, Transcript, hybrid,
    login_keys::LoginKeys,
    puzzle,
    srp::{Credentials, Group, Parameters},
    ticket::{Chain, Ticket},
};
use shardkeep_wire::{
    Head, Kind, Message, opcode,
    payload::{
        Challenge, ErrorCode, Finished, GatewayOffer, Hello, Ping, Proof, Puzzle, SelectWorld, Verified,
        Welcome, World, WorldList,
    },
    preface::Service,
    seal::Suite,
};
use tokio::time::timeout;

use crate::{
    ClientError, Config,
    handshake::reply,
    names::{self, LOGIN_PORT},
    random,
    raw::Connection,
};

/// Requests of the handshake carry this number; those after it rise from here.
const FIRST_REQUEST: u32 = 1;

/// Puzzles solved for one login before the server is called unreasonable.
const PUZZLES: usize = 4;

/// Selections that were given up before their answer came.
const MOST_SKIPPED: u32 = 16;

/// Everything up to the world list: finds `login.<zone>`, tries its servers in order, proves the password.
pub async fn log_in(
    config: &Config,
    zone: &str,
    account: &str,
    password: &str,
) -> Result<WorldSelect, ClientError> {
    let addresses = find(config, zone).await?;
    let mut last = ClientError::Timeout("an address of the login service");
    for address in addresses {
        let attempt = async { Box::pin(Door::open(config, address).await?.log_in(account, password)).await };
        match attempt.await {
            Err(error) if is_of_this_server(&error) => last = error,
            done => return done,
        }
    }
    Err(last)
}

/// Whether another server may do better: this one is gone, full or leaving.
fn is_of_this_server(error: &ClientError) -> bool {
    match error {
        ClientError::Connect { .. } | ClientError::Io(_) | ClientError::Timeout(_) => true,
        ClientError::Refused(refusal) => matches!(refusal.code, ErrorCode::Unavailable | ErrorCode::Draining),
        _ => false,
    }
}

/// Addresses of the zone's login servers, in the order to try them.
pub async fn find(config: &Config, zone: &str) -> Result<Vec<SocketAddr>, ClientError> {
    names::service(config, &format!("login.{zone}"), LOGIN_PORT).await
}

/// Connected; nothing said yet.
#[derive(Debug)]
pub struct Door {
    connection: Connection,
    address: SocketAddr,
    config: Config,
}

impl Door {
    pub async fn open(config: &Config, address: SocketAddr) -> Result<Self, ClientError> {
        let connection = connect(config, address).await?;
        Ok(Self { connection, address, config: config.clone() })
    }

    /// The whole handshake, within its time.
    pub async fn log_in(self, account: &str, password: &str) -> Result<WorldSelect, ClientError> {
        let credentials = Credentials::new(AccountName::normalise(account)?, password)?;
        let within = self.config.timing.handshake;
        let handshake = async { Box::pin(self.greet(credentials)).await?.prove().await };
        timeout(within, handshake).await.map_err(|_| ClientError::Timeout("the login server's answer"))?
    }

    /// Says who wants to come in, and works for it if the server is crowded.
    pub async fn greet(mut self, credentials: Credentials) -> Result<Challenged, ClientError> {
        let offer = if self.config.key_share { Some(hybrid::Offer::new(&random::secret()?)?) } else { None };
        let hello = Hello {
            account: credentials.account().to_string(),
            suites: self.config.suite_numbers(),
            groups: self.config.groups.iter().map(|group| group.bits()).collect(),
            random: random::bytes::<32>()?.to_vec(),
            client_version: self.config.client_version,
            key_share: offer.as_ref().map(|offer| offer.public().to_vec()).unwrap_or_default(),
            puzzle: Vec::new(),
        };
        let (hello, answer) = self.say_hello(&hello).await?;

        let mut transcript = Transcript::new(&self.connection.preface().encode());
        transcript.add(&hello.to_bytes());
        transcript.add(&answer.to_bytes());
        let challenge = answer.decode()?;
        Ok(Challenged {
            connection: self.connection,
            config: self.config,
            credentials,
            challenge,
            offer,
            transcript,
        })
    }

    /// The `Hello` that the server took, and its `Challenge`. The puzzle is bound to the bytes of `Hello`, and its
    /// answer stands behind them.
    async fn say_hello(&mut self, hello: &Hello) -> Result<(Message, Message), ClientError> {
        let unanswered = Bytes::from(hello.encode_to_vec());
        let mut payload = unanswered.clone();
        for solved in 0..=PUZZLES {
            let hello = Message::new(opcode::HELLO, Head::Request(FIRST_REQUEST), payload);
            let answer = self.ask(&hello, solved > 0).await?;
            if answer.opcode == opcode::HELLO {
                return Ok((hello, answer));
            }
            let Puzzle { token, bits } = answer.decode()?;
            let solving = tokio::task::spawn_blocking(move || puzzle::solve(&token, bits)).await;
            let answer = solving.ok().flatten().ok_or(ClientError::Imposter("it asks for too much work"))?;
            let field = Hello { puzzle: answer.to_vec(), ..Hello::default() }.encode_to_vec();
            payload = [&unanswered[..], &field].concat().into();
        }
        Err(ClientError::Imposter("it takes no answer to its puzzles"))
    }

    /// A server may have hung up while its puzzle was solved: then the answer is as good on a new connection.
    async fn ask(&mut self, hello: &Message, solved: bool) -> Result<Message, ClientError> {
        match self.ask_here(hello).await {
            Err(ClientError::Io(_)) if solved => {
                self.connection = connect(&self.config, self.address).await?;
                self.ask_here(hello).await
            }
            done => done,
        }
    }

    async fn ask_here(&mut self, hello: &Message) -> Result<Message, ClientError> {
        self.connection.send(std::slice::from_ref(hello)).await?;
        let answer = self.connection.next().await?;
        let expected = matches!(answer.opcode, opcode::HELLO | opcode::PUZZLE);
        if expected && answer.head.request() == Some(FIRST_REQUEST) {
            Ok(answer)
        } else {
            Err(ClientError::Unexpected { opcode: answer.opcode, waiting_for: "Challenge" })
        }
    }
}

async fn connect(config: &Config, address: SocketAddr) -> Result<Connection, ClientError> {
    Connection::open(address, config.preface(Service::Login), config.timing.connect).await
}

/// The server has sent its half of SRP.
pub struct Challenged {
    connection: Connection,
    config: Config,
    credentials: Credentials,
    challenge: Challenge,
    offer: Option<hybrid::Offer>,
    transcript: Transcript,
}

impl Challenged {
    /// Proves the password, and has the server prove that it knew it.
    pub async fn prove(mut self) -> Result<WorldSelect, ClientError> {
        let Challenge { group, salt, b, suite, key_share, .. } = &self.challenge;
        let suite = Suite::from_number(*suite).filter(|suite| self.config.suites.contains(suite));
        let suite = suite.ok_or(ClientError::Imposter("it chose a suite that was not offered"))?;
        if !Group::from_bits(*group).is_some_and(|group| self.config.groups.contains(&group)) {
            return Err(ClientError::Imposter("it chose a group that was not offered"));
        }
        let hybrid = match (self.offer.take(), key_share.is_empty()) {
            (_, true) => None,
            (Some(offer), false) => Some(offer.accept(key_share)?),
            (None, false) => return Err(ClientError::Imposter("it shares a key that was not offered")),
        };
        let ours = random::secret::<32>()?;
        let answer = self.credentials.answer(&Parameters { group: *group, salt, b }, &ours)?;

        let proof = Proof { a: answer.public().to_vec(), m1: answer.m1().to_vec() };
        let proof = Message::request(opcode::PROOF, FIRST_REQUEST, &proof);
        self.connection.send(std::slice::from_ref(&proof)).await?;
        let message = reply(&mut self.connection, opcode::PROOF, "Verified").await?;
        let verified: Verified = message.decode()?;

        self.transcript.add(&proof.to_bytes());
        let th1 = self.transcript.hash();
        let shared = answer.verify(&verified.m2).map_err(|_| ClientError::Imposter("its proof is wrong"))?;
        let keys = LoginKeys::derive(&shared, hybrid.as_ref(), &th1);
        if !keys.server_finished(&th1).matches(&verified.finished) {
            return Err(ClientError::Imposter("the conversation was altered"));
        }
        self.transcript.add(&message.to_bytes());
        self.finish(suite, keys).await
    }

    async fn finish(mut self, suite: Suite, keys: LoginKeys) -> Result<WorldSelect, ClientError> {
        let finished = keys.client_finished(&self.transcript.hash()).as_bytes().to_vec();
        self.connection.use_keys(suite, keys.client.clone(), keys.server.clone())?;
        let finished = Message::request(opcode::FINISHED, FIRST_REQUEST, &Finished { finished });
        self.connection.send(&[finished]).await?;
        let welcome = reply(&mut self.connection, opcode::FINISHED, "Welcome").await?.decode()?;
        let mut select = WorldSelect {
            connection: self.connection,
            welcome,
            worlds: Vec::new(),
            chain: keys.chain,
            request: FIRST_REQUEST,
            ping: self.config.timing.ping,
        };
        select.next_worlds().await?;
        Ok(select)
    }
}

/// Logged in. Stays useful until the player is in a world: another one can be chosen without a password.
#[derive(Debug)]
pub struct WorldSelect {
    connection: Connection,
    welcome: Welcome,
    worlds: Vec<World>,
    chain: Chain,
    request: u32,
    ping: Duration,
}

/// What it takes to attach: where, and the ticket.
#[derive(Debug)]
pub struct Boarding {
    /// host:port
    pub gateway: String,
    pub ticket: Ticket,
    pub lives: Duration,
}

impl WorldSelect {
    pub fn account(&self) -> u64 {
        self.welcome.account_id
    }

    /// Prepaid time, where the plan meters it.
    pub fn play_time_left(&self) -> Option<Duration> {
        self.welcome.play_time_left_ms.map(Duration::from_millis)
    }

    /// The list as last pushed.
    pub fn worlds(&self) -> &[World] {
        &self.worlds
    }

    /// Waits for the list to change, keeping the connection alive meanwhile.
    pub async fn next_worlds(&mut self) -> Result<&[World], ClientError> {
        let message = self.next().await?;
        self.take_list(&message)?;
        Ok(&self.worlds)
    }

    /// Asks for a gateway to this world. Revokes the ticket before.
    pub async fn select(&mut self, world_id: u32) -> Result<Boarding, ClientError> {
        self.request += 1;
        let request = Message::request(opcode::SELECT_WORLD, self.request, &SelectWorld { world_id });
        self.connection.send(&[request]).await?;
        let offer: GatewayOffer = loop {
            let message = self.next().await?;
            match message.head.request() {
                Some(request) if request == self.request && message.opcode == opcode::SELECT_WORLD => {
                    break message.decode()?;
                }
                // Answers a selection that was given up here; its ticket is skipped below.
                Some(request) if request < self.request => {}
                _ => self.take_list(&message)?,
            }
        };
        let ticket = self.take_ticket(offer.ticket_index)?;
        let lives = Duration::from_millis(offer.ticket_lives_ms.into());
        Ok(Boarding { gateway: offer.gateway, ticket, lives })
    }

    fn take_ticket(&mut self, index: u32) -> Result<Ticket, ClientError> {
        let skipped = index.checked_sub(self.chain.next_index()).filter(|skipped| *skipped <= MOST_SKIPPED);
        for _ in 0..skipped.ok_or(ClientError::Imposter("its ticket is not the next of the chain"))? {
            self.chain.take();
        }
        Ok(self.chain.take())
    }

    async fn next(&mut self) -> Result<Message, ClientError> {
        loop {
            match timeout(self.ping, self.connection.next()).await {
                Ok(message) => return message,
                Err(_) => self.connection.send(&[Message::event(opcode::PING, &Ping { value: 0 })]).await?,
            }
        }
    }

    fn take_list(&mut self, message: &Message) -> Result<(), ClientError> {
        let (opcode, waiting_for) = (message.opcode, "WorldList");
        if opcode != opcode::WORLD_LIST || message.kind() != Kind::Event {
            return Err(ClientError::Unexpected { opcode, waiting_for });
        }
        let list: WorldList = message.decode()?;
        self.worlds = list.worlds;
        Ok(())
    }
}
