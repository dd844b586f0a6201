//! A test client: the parts of a client that a login needs, and ways to break the protocol.

use std::time::Duration;

use bytes::BytesMut;
use shardkeep_auth::{
    AccountName, Transcript, hybrid,
    login_keys::LoginKeys,
    puzzle,
    srp::{Answer, Credentials, Parameters},
    ticket::TicketChain,
};
use shardkeep_types::Secret;
use shardkeep_wire::{
    Head, Message, Side, opcode,
    payload::{
        self, Challenge, ErrorCode, Finished, GatewayOffer, Hello, Proof, SelectWorld, Verified, Welcome,
        WorldList,
    },
    preface::{Preface, Service, deployment_tag},
    record::{Decoder, Writer},
    seal::{Opener, Sealer, Suite},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::cluster::TEST_TIMEOUT;

pub(crate) struct Player {
    stream: TcpStream,
    inbox: BytesMut,
    record: bytes::Bytes,
    seals: Option<(Sealer, Opener)>,
    transcript: Transcript,
    request: u32,
    pub(crate) version: u32,
    pub(crate) suites: Vec<i32>,
    pub(crate) groups: Vec<u32>,
    /// Offers a key share.
    pub(crate) offer: Option<hybrid::Offer>,
    pub(crate) chain: Option<TicketChain>,
    /// The last world list.
    pub(crate) worlds: Option<WorldList>,
}

/// An error of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: ErrorCode,
    pub(crate) retry_after: Duration,
    pub(crate) detail: String,
}

pub(crate) type Outcome<T> = Result<T, Refused>;

/// The payload of `Hello` with the answer to the puzzle.
pub(crate) fn solved(hello: &[u8], puzzle: &Message) -> Vec<u8> {
    let payload::Puzzle { token, bits } = puzzle.decode().unwrap();
    [hello, &[0x7a, 33], &puzzle::solve(&token, bits).unwrap()].concat()
}

impl Player {
    pub(crate) fn preface() -> [u8; 12] {
        Preface::new(Service::Login, deployment_tag("dev")).encode()
    }

    pub(crate) async fn connect(address: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&Self::preface()).await.unwrap();
        Self::on(stream)
    }

    fn on(stream: TcpStream) -> Self {
        Self {
            stream,
            inbox: BytesMut::new(),
            record: bytes::Bytes::new(),
            seals: None,
            transcript: Transcript::new(&Self::preface()),
            request: 0,
            version: 1_000_000,
            suites: vec![1, 2],
            groups: vec![2048, 3072, 4096],
            offer: None,
            chain: None,
            worlds: None,
        }
    }

    /// Like [`Self::raw`], from another loopback address.
    pub(crate) async fn raw_from(client: [u8; 4], address: &str, bytes: &[u8]) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((client, 0).into()).unwrap();
        let mut stream = socket.connect(address.parse().unwrap()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        Self::on(stream)
    }

    pub(crate) async fn raw(address: &str, bytes: &[u8]) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        Self::on(stream)
    }

    pub(crate) async fn log_in(&mut self, account: &str, password: &str) -> Outcome<Welcome> {
        let challenge = self.hello(account).await?;
        let answer = self.answer(account, password, &challenge);
        self.finish(&challenge, answer).await
    }

    /// The steps from the proof on.
    pub(crate) async fn finish(&mut self, challenge: &Challenge, answer: Answer) -> Outcome<Welcome> {
        let keys = self.prove(challenge, answer).await?;
        self.finished(keys).await
    }

    /// The last step of the handshake.
    pub(crate) async fn finished(&mut self, keys: LoginKeys) -> Outcome<Welcome> {
        let finished = keys.client_finished(&self.transcript.hash());
        self.chain = Some(keys.chain);
        let finished = Finished { finished: finished.as_bytes().to_vec() };
        self.ask(opcode::FINISHED, &finished).await.map(|reply| reply.decode().unwrap())
    }

    /// Sends `Hello`, and solves a puzzle if the server sends one.
    pub(crate) async fn hello(&mut self, account: &str) -> Outcome<Challenge> {
        let hello = self.hello_payload(account);
        let answer = self.send_hello(&hello).await?;
        let answer = match answer.opcode {
            opcode::PUZZLE => self.send_hello(&solved(&hello, &answer)).await?,
            _ => answer,
        };
        assert_eq!(answer.opcode, opcode::HELLO);
        Ok(answer.decode().unwrap())
    }

    pub(crate) fn hello_payload(&self, account: &str) -> Vec<u8> {
        let hello = Hello {
            account: account.to_owned(),
            suites: self.suites.clone(),
            groups: self.groups.clone(),
            random: vec![0x11; 32],
            client_version: self.version,
            key_share: self.offer.as_ref().map(|offer| offer.public().to_vec()).unwrap_or_default(),
            puzzle: Vec::new(),
        };
        prost::Message::encode_to_vec(&hello)
    }

    /// Sends this `Hello` and returns the challenge or the puzzle. The transcript begins with it.
    pub(crate) async fn send_hello(&mut self, payload: &[u8]) -> Outcome<Message> {
        self.transcript = Transcript::new(&Self::preface());
        self.request_raw(opcode::HELLO, payload).await
    }

    /// Sends a request with this payload.
    pub(crate) async fn request_raw(&mut self, opcode: u16, payload: &[u8]) -> Outcome<Message> {
        self.request += 1;
        let request = Head::Request(self.request);
        self.send_message(&Message::new(opcode, request, payload.to_vec().into())).await;
        self.reply(self.request).await
    }

    pub(crate) fn answer(&self, account: &str, password: &str, challenge: &Challenge) -> Answer {
        let credentials = Credentials::new(AccountName::normalise(account).unwrap(), password).unwrap();
        let parameters = Parameters { group: challenge.group, salt: &challenge.salt, b: &challenge.b };
        credentials.answer(&parameters, &Secret::new([0x22; 32])).unwrap()
    }

    /// Sends the proof, checks the server's proof, and seals the records that follow.
    pub(crate) async fn prove(&mut self, challenge: &Challenge, answer: Answer) -> Outcome<LoginKeys> {
        let proof = Proof { a: answer.public().to_vec(), m1: answer.m1().to_vec() };
        let request = self.send(opcode::PROOF, &proof).await;
        let th1 = self.transcript.hash();
        let reply = self.reply(request).await?;
        let verified: Verified = reply.decode().unwrap();
        let hybrid = match (self.offer.take(), &challenge.key_share[..]) {
            (Some(offer), share @ [_, ..]) => Some(offer.accept(share).unwrap()),
            (_, share) => {
                assert!(share.is_empty());
                None
            }
        };
        let keys = LoginKeys::derive(&answer.verify(&verified.m2).unwrap(), hybrid.as_ref(), &th1);
        assert!(keys.server_finished(&th1).matches(&verified.finished));
        let suite = Suite::from_number(challenge.suite).unwrap();
        self.seals = Some((
            Sealer::new(suite, keys.client.clone()).unwrap(),
            Opener::new(suite, keys.server.clone()).unwrap(),
        ));
        Ok(keys)
    }

    pub(crate) async fn select(&mut self, world_id: u32) -> Outcome<GatewayOffer> {
        self.ask(opcode::SELECT_WORLD, &SelectWorld { world_id }).await.map(|reply| reply.decode().unwrap())
    }

    /// Sends a request about the account, and retries if it came too fast.
    pub(crate) async fn request<R: Default + prost::Message>(
        &mut self,
        opcode: u16,
        payload: &impl prost::Message,
    ) -> Outcome<R> {
        loop {
            match self.ask(opcode, payload).await {
                Err(refused) if refused.code == ErrorCode::TooFast => {
                    tokio::time::sleep(refused.retry_after).await;
                }
                reply => return reply.map(|reply| reply.decode().unwrap()),
            }
        }
    }

    /// Reads until a world list satisfies `wanted`.
    pub(crate) async fn worlds_until(&mut self, wanted: impl Fn(&WorldList) -> bool) -> WorldList {
        loop {
            if let Some(list) = self.worlds.take_if(|list| wanted(list)) {
                return list;
            }
            let message = self.receive().await.expect("the connection stays");
            assert!(message.opcode == opcode::WORLD_LIST || message.opcode == opcode::PING);
        }
    }

    pub(crate) async fn ask(&mut self, opcode: u16, payload: &impl prost::Message) -> Outcome<Message> {
        let request = self.send(opcode, payload).await;
        self.reply(request).await
    }

    /// The reply to this request, or the error that ended the connection.
    pub(crate) async fn reply(&mut self, request: u32) -> Outcome<Message> {
        loop {
            let message = self.receive().await.expect("an answer before the end");
            if message.opcode == opcode::ERROR {
                let error: payload::Error = message.decode().unwrap();
                return Err(Refused {
                    code: error.code(),
                    retry_after: Duration::from_millis(error.retry_after_ms.into()),
                    detail: error.detail,
                });
            }
            if message.head == Head::Reply(request) {
                return Ok(message);
            }
        }
    }

    pub(crate) async fn send(&mut self, opcode: u16, payload: &impl prost::Message) -> u32 {
        self.request += 1;
        self.send_message(&Message::request(opcode, self.request, payload)).await;
        self.request
    }

    pub(crate) async fn send_message(&mut self, message: &Message) {
        let mut record = BytesMut::new();
        let mut writer = Writer::begin(&mut record, Side::Client);
        writer.push(message).unwrap();
        match &mut self.seals {
            Some((sealer, _)) => writer.seal(sealer).unwrap(),
            None => {
                self.transcript.add(&message.to_bytes());
                writer.plain();
            }
        }
        self.send_bytes(&record).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        // The server may have closed the connection; its last messages are still readable.
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next message; `None` at the end of the connection.
    pub(crate) async fn receive(&mut self) -> Option<Message> {
        let message = timeout(TEST_TIMEOUT, self.receive_late()).await.expect("something comes")?;
        if self.seals.is_none() && message.opcode != opcode::ERROR {
            self.transcript.add(&message.to_bytes());
        }
        if message.opcode == opcode::WORLD_LIST {
            self.worlds = Some(message.decode().unwrap());
        }
        Some(message)
    }

    async fn receive_late(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = Message::split_from(&mut self.record).unwrap() {
                return Some(message);
            }
            if let Some(mut body) = Decoder::new(Side::Server).next(&mut self.inbox).unwrap() {
                if let Some((_, opener)) = &mut self.seals {
                    opener.open(&mut body).unwrap();
                }
                self.record = body.freeze();
                continue;
            }
            match self.stream.read_buf(&mut self.inbox).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Reads to the end of the connection, and returns the last error.
    pub(crate) async fn last_error(&mut self) -> Option<ErrorCode> {
        let mut last = None;
        while let Some(message) = self.receive().await {
            if message.opcode == opcode::ERROR {
                last = Some(message.decode::<payload::Error>().unwrap().code());
            }
        }
        last
    }

    /// Seals a message and flips one bit of the record.
    pub(crate) async fn send_forged(&mut self, message: &Message) {
        let (sealer, _) = self.seals.as_mut().unwrap();
        let mut record = BytesMut::new();
        let mut writer = Writer::begin(&mut record, Side::Client);
        writer.push(message).unwrap();
        writer.seal(sealer).unwrap();
        let last = record.len() - 1;
        record[last] ^= 1;
        self.send_bytes(&record).await;
    }

    /// Updates the key of this direction as the protocol requires.
    pub(crate) async fn update_key(&mut self) {
        self.send_message(&Message::event(opcode::KEY_UPDATE, &payload::KeyUpdate {})).await;
        self.seals.as_mut().unwrap().0.update().unwrap();
    }
}
