//! Logging in, as states that consume each other (`docs/protocol.md`, section 7): nothing can be said out of turn.
//!
//! ```text
//! Door ── greet ──▶ Challenged ── prove ──▶ WorldSelect ── select ──▶ Boarding (any number of them)
//! ```

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use shardkeep_auth::{
    AccountName, Transcript, hybrid,
    login_keys::LoginKeys,
    puzzle, registration,
    srp::{Credentials, Group, Parameters, Verifier},
    ticket::{Ticket, TicketChain},
};
use shardkeep_types::Secret;
use shardkeep_wire::{
    Head, Kind, Message, opcode,
    payload::{
        AccountSession, BeginSecondFactor, Challenge, ChangePassword, ConfirmSecondFactor, ErrorCode,
        Finished, GatewayOffer, Hello, LaneAddress, ListSessions, LogOutEverywhere, LoggedOutEverywhere,
        NewAccount, PasswordChanged, Ping, Proof, Puzzle, Register, Registered, Registration,
        RemoveSecondFactor, SecondFactor, SecondFactorBegun, SecondFactorConfirmed, SelectWorld, SessionList,
        Verified, Welcome, World, WorldList,
    },
    preface::Service,
    seal::Suite,
};
use tokio::time::timeout;

use crate::{
    ClientError, Config,
    handshake::reply,
    random,
    raw::Connection,
    resolve::{self, LOGIN_PORT},
};

/// Requests of the handshake carry this number; those after it rise from here.
const FIRST_REQUEST: u32 = 1;

/// Puzzles solved for one login before the server is called unreasonable.
const MAX_PUZZLES: usize = 4;

/// Selections that were given up before their answer came.
const MAX_SKIPPED_TICKETS: u32 = 16;

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
        let attempt = async {
            Box::pin(Box::pin(LoginConnection::open(config, address)).await?.log_in(account, password)).await
        };
        match attempt.await {
            Err(error) if another_server_may_succeed(&error) => last = error,
            done => return done,
        }
    }
    Err(last)
}

/// The same with a second factor: `code` is what the authenticator shows; after TWO_CODES, two of them in a row. Without
/// one a server that wants it answers SECOND_FACTOR.
pub async fn log_in_with_code(
    config: &Config,
    zone: &str,
    account: &str,
    password: &str,
    code: &str,
) -> Result<WorldSelect, ClientError> {
    let addresses = find(config, zone).await?;
    let mut last = ClientError::Timeout("an address of the login service");
    for address in addresses {
        let attempt = async {
            let login_connection = LoginConnection::open(config, address).await?;
            Box::pin(login_connection.log_in_with_code(account, password, Some(code))).await
        };
        match attempt.await {
            Err(error) if another_server_may_succeed(&error) => last = error,
            done => return done,
        }
    }
    Err(last)
}

/// Whether another server may do better: this one is gone, full or leaving.
fn another_server_may_succeed(error: &ClientError) -> bool {
    match error {
        ClientError::Connect { .. }
        | ClientError::Io(_)
        | ClientError::ClosedBeforeReply(_)
        | ClientError::Timeout(_) => true,
        ClientError::Refused(refusal) => matches!(refusal.code, ErrorCode::Unavailable | ErrorCode::Draining),
        _ => false,
    }
}

/// Addresses of the zone's login servers, in the order to try them.
pub async fn find(config: &Config, zone: &str) -> Result<Vec<SocketAddr>, ClientError> {
    resolve::service(config, &format!("login.{zone}"), LOGIN_PORT).await
}

/// Connected; nothing said yet.
#[derive(Debug)]
pub struct LoginConnection {
    connection: Connection,
    address: SocketAddr,
    config: Config,
}

impl LoginConnection {
    pub async fn open(config: &Config, address: SocketAddr) -> Result<Self, ClientError> {
        let connection = connect(config, address).await?;
        Ok(Self { connection, address, config: config.clone() })
    }

    /// The whole handshake, within its time.
    pub async fn log_in(self, account: &str, password: &str) -> Result<WorldSelect, ClientError> {
        self.log_in_with_code(account, password, None).await
    }

    /// The same, with the code of the second factor for servers that ask for it.
    pub async fn log_in_with_code(
        self,
        account: &str,
        password: &str,
        code: Option<&str>,
    ) -> Result<WorldSelect, ClientError> {
        let credentials = Credentials::new(AccountName::normalise(account)?, password)?;
        let within = self.config.timing.handshake;
        let handshake = async { Box::pin(self.send_hello(credentials)).await?.prove_with_code(code).await };
        timeout(within, handshake).await.map_err(|_| ClientError::Timeout("the login server's answer"))?
    }

    /// Registers an account at the region of this public key. The registration is sealed, so that a server between cannot
    /// read it. `token` is an invitation, or empty. Returns the account's id. The account can then log in, also on this
    /// connection.
    pub async fn register(
        &mut self,
        region: &[u8; 32],
        account: &str,
        password: &str,
        token: &str,
    ) -> Result<u64, ClientError> {
        let name = AccountName::normalise(account)?;
        let ChangePassword { group, salt, verifier } = new_verifier(&name, password)?;
        let wanted =
            Registration { account: name.to_string(), group, salt, verifier, token: token.to_owned() };
        let fresh = Secret::new(random::bytes::<32>()?);
        let preface = self.connection.binding();
        let plaintext = Secret::new(wanted.encode_to_vec());
        let sealed = registration::seal(region, &preface, &fresh, plaintext.expose())
            .map_err(|_| ClientError::UntrustedServer("that is no region's key"))?;
        let request = Register { key: sealed.key.to_vec(), sealed: sealed.sealed, puzzle: Vec::new() };
        let within = self.config.timing.handshake;
        let answer =
            timeout(within, self.call_with_puzzle(opcode::REGISTER, request.encode_to_vec(), "Registered"))
                .await;
        let (_, answer) = answer.map_err(|_| ClientError::Timeout("the answer to the registration"))??;
        let registered: Registered = answer.decode()?;
        let opened = sealed.reply.open(&registered.sealed);
        let opened = opened.map_err(|_| ClientError::UntrustedServer("it has not the region's key"))?;
        let account = NewAccount::decode(&opened[..])
            .map_err(|_| ClientError::UntrustedServer("its answer to the registration is no answer"))?;
        Ok(account.account_id)
    }

    /// Says who wants to come in, and works for it if the server is crowded.
    pub async fn send_hello(mut self, credentials: Credentials) -> Result<Challenged, ClientError> {
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
        let (hello, answer) =
            self.call_with_puzzle(opcode::HELLO, hello.encode_to_vec(), "Challenge").await?;

        let mut transcript = Transcript::new(&self.connection.binding());
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

    /// The request that the server took, and its answer. A puzzle is bound to the bytes of the request, and its answer
    /// stands behind them.
    async fn call_with_puzzle(
        &mut self,
        opcode: u16,
        unsolved_payload: Vec<u8>,
        waiting_for: &'static str,
    ) -> Result<(Message, Message), ClientError> {
        let mut payload = Bytes::from(unsolved_payload.clone());
        for solved in 0..=MAX_PUZZLES {
            let request = Message::new(opcode, Head::Request(FIRST_REQUEST), payload);
            let answer = self.call(&request, solved > 0, waiting_for).await?;
            if answer.opcode == opcode {
                return Ok((request, answer));
            }
            let Puzzle { token, bits } = answer.decode()?;
            let solving = tokio::task::spawn_blocking(move || puzzle::solve(&token, bits)).await;
            let answer =
                solving.ok().flatten().ok_or(ClientError::UntrustedServer("it asks for too much work"))?;
            let field = Hello { puzzle: answer.to_vec(), ..Hello::default() }.encode_to_vec();
            payload = [&unsolved_payload[..], &field].concat().into();
        }
        Err(ClientError::UntrustedServer("it takes no answer to its puzzles"))
    }

    /// A server may have hung up on a `Hello` while its puzzle was solved: then the answer is as good on a new connection.
    async fn call(
        &mut self,
        request: &Message,
        solved: bool,
        waiting_for: &'static str,
    ) -> Result<Message, ClientError> {
        match self.call_once(request, waiting_for).await {
            Err(ClientError::Io(_)) if solved && request.opcode == opcode::HELLO => {
                self.connection = connect(&self.config, self.address).await?;
                self.call_once(request, waiting_for).await
            }
            Err(ClientError::Io(error)) if is_disconnect(&error) => {
                Err(ClientError::ClosedBeforeReply(self.address))
            }
            done => done,
        }
    }

    async fn call_once(
        &mut self,
        request: &Message,
        waiting_for: &'static str,
    ) -> Result<Message, ClientError> {
        self.connection.send(std::slice::from_ref(request)).await?;
        let answer = self.connection.next().await?;
        let expected = answer.opcode == request.opcode || answer.opcode == opcode::PUZZLE;
        if expected && answer.head.request() == Some(FIRST_REQUEST) {
            Ok(answer)
        } else {
            Err(ClientError::Unexpected { opcode: answer.opcode, waiting_for })
        }
    }
}

/// However a system says that the other side has closed.
fn is_disconnect(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

async fn connect(config: &Config, address: SocketAddr) -> Result<Connection, ClientError> {
    Connection::open_any(config, address, Service::Login).await
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
    pub async fn prove(self) -> Result<WorldSelect, ClientError> {
        self.prove_with_code(None).await
    }

    /// The same, with the code of the second factor if the server asks for it.
    pub async fn prove_with_code(mut self, code: Option<&str>) -> Result<WorldSelect, ClientError> {
        let Challenge { group, salt, b, suite, key_share, .. } = &self.challenge;
        let suite = Suite::from_number(*suite).filter(|suite| self.config.suites.contains(suite));
        let suite = suite.ok_or(ClientError::UntrustedServer("it chose a suite that was not offered"))?;
        if !Group::from_bits(*group).is_some_and(|group| self.config.groups.contains(&group)) {
            return Err(ClientError::UntrustedServer("it chose a group that was not offered"));
        }
        let hybrid = match (self.offer.take(), key_share.is_empty()) {
            (_, true) => None,
            (Some(offer), false) => Some(offer.accept(key_share)?),
            (None, false) => {
                return Err(ClientError::UntrustedServer("it shares a key that was not offered"));
            }
        };
        let private_key = random::secret::<32>()?;
        let answer = self.credentials.answer(&Parameters { group: *group, salt, b }, &private_key)?;

        let proof = Proof { a: answer.public().to_vec(), m1: answer.m1().to_vec() };
        let proof = Message::request(opcode::PROOF, FIRST_REQUEST, &proof);
        self.connection.send(std::slice::from_ref(&proof)).await?;
        let message = reply(&mut self.connection, opcode::PROOF, "Verified").await?;
        let verified: Verified = message.decode()?;

        self.transcript.add(&proof.to_bytes());
        let th1 = self.transcript.hash();
        let shared =
            answer.verify(&verified.m2).map_err(|_| ClientError::UntrustedServer("its proof is wrong"))?;
        let keys = LoginKeys::derive(&shared, hybrid.as_ref(), &th1);
        if !keys.server_finished(&th1).matches(&verified.finished) {
            return Err(ClientError::UntrustedServer("the conversation was altered"));
        }
        self.transcript.add(&message.to_bytes());
        self.finish(suite, keys, code).await
    }

    async fn finish(
        mut self,
        suite: Suite,
        keys: LoginKeys,
        code: Option<&str>,
    ) -> Result<WorldSelect, ClientError> {
        let finished = keys.client_finished(&self.transcript.hash()).as_bytes().to_vec();
        self.connection.use_keys(suite, keys.client.clone(), keys.server.clone())?;
        let finished = Message::request(opcode::FINISHED, FIRST_REQUEST, &Finished { finished });
        self.connection.send(&[finished]).await?;
        let answer = reply(&mut self.connection, opcode::FINISHED, "Welcome").await;
        let welcome = match (answer, code) {
            (Err(ClientError::Refused(refusal)), Some(code)) if refusal.code == ErrorCode::SecondFactor => {
                let code = SecondFactor { code: code.to_owned() };
                self.connection
                    .send(&[Message::request(opcode::SECOND_FACTOR, FIRST_REQUEST, &code)])
                    .await?;
                reply(&mut self.connection, opcode::SECOND_FACTOR, "Welcome").await?
            }
            (answer, _) => answer?,
        };
        let welcome = welcome.decode()?;
        let mut select = WorldSelect {
            account: self.credentials.account().to_string(),
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
    /// As normalised.
    account: String,
    connection: Connection,
    welcome: Welcome,
    worlds: Vec<World>,
    chain: TicketChain,
    request: u32,
    ping: Duration,
}

/// The gateway's address and the ticket to attach with.
#[derive(Debug)]
pub struct GatewayTicket {
    /// host:port
    pub gateway: String,
    /// Lanes of the gateway at other addresses.
    pub lanes: Vec<LaneAddress>,
    pub ticket: Ticket,
    pub lifetime: Duration,
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
        self.update_worlds(&message)?;
        Ok(&self.worlds)
    }

    /// Asks for a gateway to this world. Revokes the ticket before.
    pub async fn select(&mut self, world_id: u32) -> Result<GatewayTicket, ClientError> {
        let offer: GatewayOffer =
            self.call(opcode::SELECT_WORLD, &SelectWorld { world_id }).await?.decode()?;
        let ticket = self.next_ticket(offer.ticket_index)?;
        let lifetime = Duration::from_millis(offer.ticket_lifetime_ms.into());
        Ok(GatewayTicket { gateway: offer.gateway, lanes: offer.lanes, ticket, lifetime })
    }

    /// Where the account is in a world, or about to be.
    pub async fn sessions(&mut self) -> Result<Vec<AccountSession>, ClientError> {
        let list: SessionList = self.call(opcode::LIST_SESSIONS, &ListSessions {}).await?.decode()?;
        Ok(list.sessions)
    }

    /// Ends every session and every other login of the account; how many sessions that were. This connection stays.
    pub async fn log_out_everywhere(&mut self) -> Result<u32, ClientError> {
        let reply = self.call(opcode::LOG_OUT_EVERYWHERE, &LogOutEverywhere {}).await?;
        Ok(reply.decode::<LoggedOutEverywhere>()?.sessions_ended)
    }

    /// Replaces the password. Sessions of the old one end, and this connection stays.
    pub async fn change_password(&mut self, new: &str) -> Result<u32, ClientError> {
        let change = new_verifier(&AccountName::normalise(&self.account)?, new)?;
        let reply = self.call(opcode::CHANGE_PASSWORD, &change).await?;
        Ok(reply.decode::<PasswordChanged>()?.sessions_ended)
    }

    /// A secret for an authenticator; it counts once [`Self::confirm_second_factor`] has given a code of it.
    pub async fn begin_second_factor(&mut self) -> Result<SecondFactorBegun, ClientError> {
        Ok(self.call(opcode::BEGIN_SECOND_FACTOR, &BeginSecondFactor {}).await?.decode()?)
    }

    /// Makes logins require a code. Sessions without one end, and this connection stays.
    pub async fn confirm_second_factor(&mut self, code: &str) -> Result<u32, ClientError> {
        let code = ConfirmSecondFactor { code: code.to_owned() };
        let reply = self.call(opcode::CONFIRM_SECOND_FACTOR, &code).await?;
        Ok(reply.decode::<SecondFactorConfirmed>()?.sessions_ended)
    }

    pub async fn remove_second_factor(&mut self, code: &str) -> Result<(), ClientError> {
        let code = RemoveSecondFactor { code: code.to_owned() };
        self.call(opcode::REMOVE_SECOND_FACTOR, &code).await.map(drop)
    }

    /// The reply to a request; lists that come before it are kept.
    async fn call(&mut self, opcode: u16, payload: &impl prost::Message) -> Result<Message, ClientError> {
        self.request += 1;
        self.connection.send(&[Message::request(opcode, self.request, payload)]).await?;
        loop {
            let message = self.next().await?;
            match message.head.request() {
                Some(request) if request == self.request && message.opcode == opcode => return Ok(message),
                // Answers a request that was given up here; if it was a selection, its ticket is skipped.
                Some(request) if request < self.request => {}
                _ => self.update_worlds(&message)?,
            }
        }
    }

    fn next_ticket(&mut self, index: u32) -> Result<Ticket, ClientError> {
        let skipped =
            index.checked_sub(self.chain.next_index()).filter(|skipped| *skipped <= MAX_SKIPPED_TICKETS);
        for _ in 0..skipped.ok_or(ClientError::UntrustedServer("its ticket is not the next of the chain"))? {
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

    fn update_worlds(&mut self, message: &Message) -> Result<(), ClientError> {
        let (opcode, waiting_for) = (message.opcode, "WorldList");
        if opcode != opcode::WORLD_LIST || message.kind() != Kind::Event {
            return Err(ClientError::Unexpected { opcode, waiting_for });
        }
        let list: WorldList = message.decode()?;
        self.worlds = list.worlds;
        Ok(())
    }
}

/// The values that a server keeps of a password.
fn new_verifier(account: &AccountName, password: &str) -> Result<ChangePassword, ClientError> {
    let verifier = Verifier::create(Group::Bits2048, account, password, random::bytes()?)?;
    Ok(ChangePassword {
        group: verifier.group().bits(),
        salt: verifier.salt().to_vec(),
        verifier: verifier.verifier().expose().clone(),
    })
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt as _, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn server_closing_after_preface_lets_login_try_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 12]).await.unwrap();
        });
        let login_connection = LoginConnection::open(&Config::default(), address).await.unwrap();
        let error = login_connection.log_in("alice", "wrong deployment").await.err().unwrap();
        assert!(matches!(error, ClientError::ClosedBeforeReply(at) if at == address), "{error}");
        assert!(another_server_may_succeed(&error), "the next one may be the right one");
        server.await.unwrap();
    }
}
