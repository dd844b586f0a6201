//! Servers that do what a test tells them: the cryptography is real, the game is not.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use shardkeep_auth::{
    AccountName, Key, Preface as PrefaceBytes, Transcript, WorkCounter,
    login_keys::LoginKeys,
    puzzle::{self, PuzzleIssuer},
    session::{Proof as KeyProof, SessionKeys, key_source},
    srp::{Group, Verifier},
    ticket::Ticket,
};
use shardkeep_types::{Secret, SessionId, TicketId};
use shardkeep_wire::{
    Message, Side, opcode,
    payload::{
        Attach, Attached, Challenge, Confirm, Error, ErrorCode, Finished, GatewayOffer, Hello, KeyUpdate,
        Proof, Puzzle, Resume, SelectWorld, SessionReady, Verified, Welcome, World, WorldList,
    },
    preface::{Preface, Service, deployment_tag},
    record::{Decoder, Writer},
    seal::{Opener, Sealer, Suite},
    session::{Bounds, Inbox, Outbox},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Mutex as AsyncMutex, mpsc},
};

pub(crate) const SESSION: SessionId = SessionId([5; 16]);

/// One client's connection, seen from the server.
struct Peer {
    stream: TcpStream,
    preface: PrefaceBytes,
    inbound: BytesMut,
    record: Bytes,
    crypt: Option<(Sealer, Opener)>,
}

impl Peer {
    async fn accept(mut stream: TcpStream, service: Service) -> io::Result<Self> {
        let mut preface = [0; 12];
        stream.read_exact(&mut preface).await?;
        Preface::new(service, deployment_tag("dev")).accept(&preface).expect("a good preface");
        Ok(Self { stream, preface, inbound: BytesMut::new(), record: Bytes::new(), crypt: None })
    }

    async fn receive(&mut self) -> io::Result<Message> {
        loop {
            if let Some(message) = Message::split_from(&mut self.record).expect("whole messages") {
                if message.opcode == opcode::KEY_UPDATE {
                    assert!(self.record.is_empty(), "KeyUpdate is the last message of its record");
                    self.crypt.as_mut().unwrap().1.update().unwrap();
                }
                return Ok(message);
            }
            if let Some(mut body) = Decoder::new(Side::Client).next(&mut self.inbound).expect("good records")
            {
                if let Some((_, opener)) = &mut self.crypt {
                    opener.open(&mut body).expect("records open");
                }
                self.record = body.freeze();
            } else if self.stream.read_buf(&mut self.inbound).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn send(&mut self, messages: &[Message]) -> io::Result<()> {
        let mut out = BytesMut::new();
        let mut writer = Writer::begin(&mut out, Side::Server);
        messages.iter().for_each(|message| writer.push(message).unwrap());
        match &mut self.crypt {
            Some((sealer, _)) => writer.seal(sealer).unwrap(),
            None => writer.plain(),
        }
        self.stream.write_all(&out).await
    }

    fn seal(&mut self, suite: Suite, client: Key, server: Key) {
        assert!(self.record.is_empty(), "nothing plain follows");
        self.crypt = Some((Sealer::new(suite, server).unwrap(), Opener::new(suite, client).unwrap()));
    }
}

fn worlds(count: u32) -> Message {
    let worlds =
        (1..=count).map(|id| World { id, name: format!("world {id}"), ..World::default() }).collect();
    Message::event(opcode::WORLD_LIST, &WorldList { worlds })
}

/// A login server for `alice` with password `secret`; its tickets are known to `gateway`.
pub(crate) async fn login(gateway: &Gateway, offer: SocketAddr) -> SocketAddr {
    login_with_puzzle(gateway, offer, PuzzleMode::None).await
}

/// Whether the login server has its clients work first.
#[derive(Clone, Copy)]
pub(crate) enum PuzzleMode {
    None,
    KeepsOpen,
    Disconnects,
}

pub(crate) async fn login_with_puzzle(
    gateway: &Gateway,
    offer: SocketAddr,
    puzzle_mode: PuzzleMode,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shared = gateway.shared.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let shared = shared.clone();
            tokio::spawn(async move { serve_login(stream, &shared, offer, puzzle_mode).await });
        }
    });
    address
}

async fn serve_login(
    stream: TcpStream,
    shared: &Shared,
    offer: SocketAddr,
    puzzle_mode: PuzzleMode,
) -> io::Result<()> {
    let mut peer = Peer::accept(stream, Service::Login).await?;
    let mut transcript = Transcript::new(&peer.preface);
    let mut hello_message = peer.receive().await?;
    let (puzzles, lifetime) = (PuzzleIssuer::new(Secret::new([4; 32])), Duration::from_secs(30));
    match (puzzle_mode, puzzle::split(&hello_message.payload)) {
        (PuzzleMode::None, _) => {}
        (_, (hello, Some(answer))) => {
            puzzles.check(&[0; 16], hello, answer, 1_000, lifetime).expect("the client has solved it");
        }
        (_, (hello, None)) => {
            let token = puzzles.make(&[0; 16], hello, 1_000, 7).to_vec();
            let request = hello_message.head.request().unwrap();
            peer.send(&[Message::reply(opcode::PUZZLE, request, &Puzzle { token, bits: 7 })]).await?;
            if matches!(puzzle_mode, PuzzleMode::Disconnects) {
                return Ok(());
            }
            hello_message = peer.receive().await?;
            let (hello, answer) = puzzle::split(&hello_message.payload);
            puzzles
                .check(&[0; 16], hello, answer.unwrap(), 1_000, lifetime)
                .expect("the client has solved it");
        }
    }
    let hello: Hello = hello_message.decode().unwrap();
    let suite = Suite::choose(&hello.suites).unwrap();
    let alice = AccountName::normalise("alice").unwrap();
    let verifier = match hello.account.as_str() {
        "alice" => Verifier::create(Group::Bits2048, &alice, "secret", [9; 16]).unwrap(),
        _ => Verifier::decoy(Group::Bits2048, alice, &Secret::new([1; 32])),
    };
    let mut work = WorkCounter::default();
    let srp = verifier.challenge(&Secret::new([2; 32]), &mut work).unwrap();
    let challenge = Challenge {
        group: 2_048,
        salt: srp.salt().to_vec(),
        b: srp.public().to_vec(),
        suite: suite.number(),
        random: vec![3; 32],
        key_share: Vec::new(),
    };
    let challenge = Message::reply(opcode::HELLO, hello_message.head.request().unwrap(), &challenge);
    peer.send(std::slice::from_ref(&challenge)).await?;
    let proof_message = peer.receive().await?;
    for message in [&hello_message, &challenge, &proof_message] {
        transcript.add(&message.to_bytes());
    }
    let (th1, request) = (transcript.hash(), proof_message.head.request().unwrap());
    let proof: Proof = proof_message.decode().unwrap();
    let Ok(srp) = srp.verify(&proof.a, &proof.m1, &mut work) else {
        return peer.send(&[Message::error_reply(request, &Error::of(ErrorCode::Denied, ""))]).await;
    };
    let mut keys = LoginKeys::derive(srp.shared(), None, &th1);
    let finished = keys.server_finished(&th1).as_bytes().to_vec();
    let verified = Message::reply(opcode::PROOF, request, &Verified { m2: srp.m2().to_vec(), finished });
    peer.send(std::slice::from_ref(&verified)).await?;
    transcript.add(&verified.to_bytes());
    peer.seal(suite, keys.client.clone(), keys.server.clone());

    let message = peer.receive().await?;
    let finished: Finished = message.decode().unwrap();
    assert!(keys.client_finished(&transcript.hash()).matches(&finished.finished));
    let welcome = Welcome { account_id: 7, play_time_left_ms: Some(1_000) };
    peer.send(&[Message::reply(opcode::FINISHED, message.head.request().unwrap(), &welcome), worlds(2)])
        .await?;
    loop {
        let message = peer.receive().await?;
        let request = message.head.request().unwrap();
        let answer = match message.decode::<SelectWorld>().unwrap().world_id {
            1 => {
                let Ticket { index, id, key } = keys.chain.take();
                shared.tickets.lock().unwrap().insert(id, key);
                let gateway = offer.to_string();
                let offer = GatewayOffer {
                    gateway,
                    ticket_index: index,
                    ticket_lifetime_ms: 60_000,
                    lanes: Vec::new(),
                };
                Message::reply(opcode::SELECT_WORLD, request, &offer)
            }
            _ => Message::error_reply(request, &Error::of(ErrorCode::NotFound, "no such world")),
        };
        // A change of the list comes between request and reply, as it may.
        peer.send(&[worlds(3), answer]).await?;
    }
}

/// The test's commands to the gateway.
pub(crate) enum GatewayCommand {
    Send(Vec<Message>),
    /// Acknowledge everything received.
    Ack,
    UpdateKey,
    /// Drop the connection.
    DropConnection,
}

/// The session, wherever it is served.
struct Session {
    outbox: Outbox,
    inbox: Inbox,
    gateway_key: Key,
    world_key: Key,
}

#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) tickets: Mutex<HashMap<TicketId, Key>>,
    session: Mutex<Option<Session>>,
    /// The next resume finds the log lost, and uses the world's key.
    pub(crate) lose_log: Mutex<bool>,
    /// Answers to the next attaches and resumes, instead of success.
    pub(crate) refuse_with: Mutex<Vec<ErrorCode>>,
    /// Breaks the next proof of ours.
    pub(crate) corrupt_proof: Mutex<bool>,
}

/// A gateway, or several that share a session.
pub(crate) struct Gateway {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<GatewayCommand>,
    /// Every message of a session, with the gateway that got it.
    pub(crate) seen: mpsc::UnboundedReceiver<(usize, Message)>,
    /// Resumed sessions: which gateway, and the client's count.
    pub(crate) resumed: mpsc::UnboundedReceiver<(usize, u64)>,
}

type CommandQueue<'a> = tokio::sync::MutexGuard<'a, mpsc::UnboundedReceiver<GatewayCommand>>;

struct GatewayHandler {
    at: usize,
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    commands: Arc<AsyncMutex<mpsc::UnboundedReceiver<GatewayCommand>>>,
    seen: mpsc::UnboundedSender<(usize, Message)>,
    resumed: mpsc::UnboundedSender<(usize, u64)>,
}

impl Gateway {
    pub(crate) async fn start(count: usize) -> Self {
        let mut listeners = Vec::new();
        for _ in 0..count {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let addresses: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let shared = Arc::new(Shared::default());
        let (commands, commands_receiver) = mpsc::unbounded_channel();
        let commands_receiver = Arc::new(AsyncMutex::new(commands_receiver));
        let (seen_sender, seen) = mpsc::unbounded_channel();
        let (resumed_sender, resumed) = mpsc::unbounded_channel();
        for (at, listener) in listeners.into_iter().enumerate() {
            let handler = Arc::new(GatewayHandler {
                at,
                addresses: addresses.clone(),
                shared: shared.clone(),
                commands: commands_receiver.clone(),
                seen: seen_sender.clone(),
                resumed: resumed_sender.clone(),
            });
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let handler = handler.clone();
                    tokio::spawn(async move { handler.serve(stream).await });
                }
            });
        }
        Self { addresses, shared, commands, seen, resumed }
    }

    /// A ticket that this gateway expects.
    pub(crate) fn issue_ticket(&self) -> shardkeep_client::login::GatewayTicket {
        let (id, key) = (TicketId([4; 16]), Secret::new([6; 32]));
        self.shared.tickets.lock().unwrap().insert(id, key.clone());
        shardkeep_client::login::GatewayTicket {
            gateway: self.addresses[0].to_string(),
            lanes: Vec::new(),
            ticket: Ticket { index: 0, id, key },
            lifetime: super::TEST_TIMEOUT,
        }
    }

    pub(crate) fn command(&self, command: GatewayCommand) {
        self.commands.send(command).unwrap();
    }

    pub(crate) fn send(&self, message: Message) {
        self.command(GatewayCommand::Send(vec![message]));
    }

    /// The next message of the session that is not about the connection, and the number of the connection.
    pub(crate) async fn next(&mut self) -> (usize, Message) {
        loop {
            let (at, message) = super::with_timeout(self.seen.recv()).await.unwrap();
            if message.opcode >= 0x0100 {
                return (at, message);
            }
        }
    }

    /// The next message with this opcode.
    pub(crate) async fn expect(&mut self, opcode: u16) -> Message {
        self.expect_after(opcode, |_| {}).await
    }

    /// The next message with this opcode; `before` sees what came earlier.
    pub(crate) async fn expect_after(&mut self, opcode: u16, mut before: impl FnMut(Message)) -> Message {
        loop {
            let (_, message) = super::with_timeout(self.seen.recv()).await.unwrap();
            if message.opcode == opcode {
                return message;
            }
            before(message);
        }
    }
}

impl GatewayHandler {
    async fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let mut peer = Peer::accept(stream, Service::Gateway).await?;
        let message = peer.receive().await?;
        let number = message.head.request().unwrap();
        let refused = self.shared.refuse_with.lock().unwrap().pop();
        if let Some(code) = refused {
            let refusal = Message::error_event(&Error::of(code, ""));
            return peer.send(&[refusal]).await;
        }
        let lose_log = std::mem::take(&mut *self.shared.lose_log.lock().unwrap());
        let (key, key_kind, suites) = match message.opcode {
            opcode::ATTACH => {
                let Attach { ticket_id, random, suites, mac } = message.decode().unwrap();
                let id = TicketId::try_from(&ticket_id[..]).unwrap();
                let key = self.shared.tickets.lock().unwrap().remove(&id).unwrap();
                assert!(client_mac(&KeyProof::attach(&key), &peer, id.0, &random, &suites).matches(&mac));
                (key, key_source::TICKET, suites)
            }
            opcode::RESUME => {
                let Resume { session_id, random, suites, gateway_mac, world_mac } = message.decode().unwrap();
                assert_eq!(session_id, SESSION.0);
                let session = self.shared.session.lock().unwrap();
                let session = session.as_ref().unwrap();
                let (key, key_kind, mac) = match lose_log {
                    true => (&session.world_key, key_source::WORLD, world_mac),
                    false => (&session.gateway_key, key_source::GATEWAY, gateway_mac),
                };
                assert!(client_mac(&KeyProof::resume(key), &peer, SESSION.0, &random, &suites).matches(&mac));
                (key.clone(), key_kind, suites)
            }
            other => panic!("opcode {other:#06x} begins nothing"),
        };
        let suite = Suite::choose(&suites).unwrap();
        let proof = match key_kind {
            key_source::TICKET => KeyProof::attach(&key),
            _ => KeyProof::resume(&key),
        };
        let request = message.to_bytes();
        let mut mac =
            proof.server(&peer.preface, &request, &[8; 32], suite as u8, key_kind).as_bytes().to_vec();
        mac[0] ^= u8::from(std::mem::take(&mut *self.shared.corrupt_proof.lock().unwrap()));
        let attached = Attached { random: vec![8; 32], suite: suite.number(), mac, key: key_kind.into() };
        let attached = Message::reply(message.opcode, number, &attached);
        peer.send(std::slice::from_ref(&attached)).await?;
        let keys = SessionKeys::derive(&key, &peer.preface, &request, &attached.to_bytes());
        peer.seal(suite, keys.client.clone(), keys.server.clone());
        let confirm = peer.receive().await?;
        let Confirm { received } = confirm.decode().unwrap();

        // Once the connection before is done with the session.
        let commands = self.commands.lock().await;
        let (ready, again) = self.take_session(keys, key_kind, received);
        if key_kind != key_source::TICKET {
            let _ = self.resumed.send((self.at, received));
        }
        peer.send(&[Message::reply(opcode::CONFIRM, confirm.head.request().unwrap(), &ready)]).await?;
        for bytes in again {
            let mut bytes = bytes;
            peer.send(&[Message::split_from(&mut bytes).unwrap().unwrap()]).await?;
        }
        self.serve_session(peer, commands).await
    }

    fn take_session(&self, keys: SessionKeys, key_kind: u8, received: u64) -> (SessionReady, Vec<Bytes>) {
        let mut slot = self.shared.session.lock().unwrap();
        let mut session = slot.take().unwrap_or_else(|| Session {
            outbox: Outbox::new(Bounds::SERVER),
            inbox: Inbox::default(),
            gateway_key: keys.gateway_resume.clone(),
            world_key: keys.world_resume.clone(),
        });
        session.gateway_key = keys.gateway_resume;
        if key_kind != key_source::GATEWAY {
            session.world_key = keys.world_resume;
            session.outbox.restart();
            session.inbox.restart();
        }
        let continued = key_kind == key_source::GATEWAY;
        let again =
            if continued { session.outbox.resume_from(received).unwrap().cloned().collect() } else { vec![] };
        let ready = SessionReady {
            session_id: SESSION.0.to_vec(),
            received: session.inbox.received(),
            continued,
            link_loss_ms: 60_000,
            gateway: self.addresses[self.at].to_string(),
            any_gateway: self.addresses.last().unwrap().to_string(),
            lanes: Vec::new(),
        };
        *slot = Some(session);
        (ready, again)
    }

    async fn serve_session(&self, mut peer: Peer, mut commands: CommandQueue<'_>) -> io::Result<()> {
        loop {
            tokio::select! {
                message = peer.receive() => {
                    let message = message?;
                    if message.is_reliable() {
                        let mut session = self.shared.session.lock().unwrap();
                        session.as_mut().unwrap().inbox.receive(std::time::Instant::now());
                    }
                    if message.opcode == opcode::ACK {
                        let ack: shardkeep_wire::payload::Ack = message.decode().unwrap();
                        let mut session = self.shared.session.lock().unwrap();
                        session.as_mut().unwrap().outbox.acknowledge(ack.received).unwrap();
                    }
                    let _ = self.seen.send((self.at, message));
                }
                command = commands.recv() => match command {
                    None | Some(GatewayCommand::DropConnection) => return Ok(()),
                    Some(command) => self.execute(command, &mut peer).await?,
                },
            }
        }
    }

    async fn execute(&self, command: GatewayCommand, peer: &mut Peer) -> io::Result<()> {
        match command {
            GatewayCommand::Send(messages) => {
                for message in messages.iter().filter(|message| message.is_reliable()) {
                    let mut session = self.shared.session.lock().unwrap();
                    session.as_mut().unwrap().outbox.push(message.to_bytes()).unwrap();
                }
                peer.send(&messages).await
            }
            GatewayCommand::Ack => {
                let received = self.shared.session.lock().unwrap().as_mut().unwrap().inbox.acknowledge();
                let ack = shardkeep_wire::payload::Ack { received };
                peer.send(&[Message::event(opcode::ACK, &ack)]).await
            }
            GatewayCommand::UpdateKey => {
                peer.send(&[Message::event(opcode::KEY_UPDATE, &KeyUpdate {})]).await?;
                peer.crypt.as_mut().unwrap().0.update().unwrap();
                Ok(())
            }
            GatewayCommand::DropConnection => Ok(()),
        }
    }
}

fn client_mac(
    proof: &KeyProof,
    peer: &Peer,
    id: [u8; 16],
    random: &[u8],
    suites: &[i32],
) -> shardkeep_auth::Mac {
    let suites: Vec<u8> = suites.iter().map(|suite| *suite as u8).collect();
    proof.client(&peer.preface, &id, random.try_into().unwrap(), &suites)
}
