//! A player who says exactly what the test wants, over a real socket.

use shardkeep_auth::ticket::Ticket;
use shardkeep_client::{
    ClientError, Config,
    config::Timing,
    lanes::Lane,
    raw::{self, Connection, Established, ResumeKeys},
};
use shardkeep_types::{Secret, SessionId};
use shardkeep_wire::{
    Head, Message, opcode,
    payload::{Ack, Error, ErrorCode, Ping},
    preface::Service,
};
use tokio::{sync::watch, time::timeout};

use crate::cluster::TEST_TIMEOUT;

pub(crate) struct Player {
    pub(crate) connection: Connection,
    pub(crate) session: SessionId,
    pub(crate) established: Established,
    keys: ResumeKeys,
    /// Reliable messages of the server so far.
    pub(crate) received: u64,
}

pub(crate) async fn connect(address: &str) -> Connection {
    connect_on(Lane::Tcp, address).await
}

pub(crate) async fn connect_on(lane: Lane, address: &str) -> Connection {
    let config =
        Config { timing: Timing { connect: TEST_TIMEOUT, ..Timing::default() }, ..Config::default() };
    Connection::open_on(&config, lane, address.parse().unwrap(), Service::Gateway).await.unwrap()
}

impl Player {
    /// Attaches as a patient client does: a gateway that does not know the world's leader yet leaves the ticket good.
    pub(crate) async fn attach(address: &str, ticket: &Ticket) -> Result<Self, ClientError> {
        Self::attach_on(Lane::Tcp, address, ticket).await
    }

    pub(crate) async fn attach_on(lane: Lane, address: &str, ticket: &Ticket) -> Result<Self, ClientError> {
        let patient = async {
            loop {
                match Self::attach_once(lane, address, ticket).await {
                    Err(ClientError::Refused(refusal)) if refusal.code == ErrorCode::Unavailable => {}
                    result => break result,
                }
            }
        };
        timeout(TEST_TIMEOUT, patient).await.expect("the world is led")
    }

    async fn attach_once(lane: Lane, address: &str, ticket: &Ticket) -> Result<Self, ClientError> {
        let mut connection = connect_on(lane, address).await;
        let config = Config::default();
        let attaching = raw::attach(&mut connection, &config, ticket);
        let established = timeout(TEST_TIMEOUT, attaching).await.expect("an answer")?;
        let keys = ResumeKeys {
            gateway: established.keys.gateway_resume.clone(),
            world: established.keys.world_resume.clone(),
        };
        Ok(Self { connection, session: established.session, established, keys, received: 0 })
    }

    /// Resumes like one who never learns how that ended: with the next attempt everything is as before.
    pub(crate) async fn resume_and_discard(&mut self, address: &str) -> Result<(), ClientError> {
        let mut connection = connect(address).await;
        let config = Config::default();
        let resuming = raw::resume(&mut connection, &config, self.session, &self.keys, self.received);
        timeout(TEST_TIMEOUT, resuming).await.expect("an answer").map(drop)
    }

    /// Resumes on a new connection; the old one is dropped.
    pub(crate) async fn resume(&mut self, address: &str) -> Result<(), ClientError> {
        self.resume_on(Lane::Tcp, address).await
    }

    pub(crate) async fn resume_on(&mut self, lane: Lane, address: &str) -> Result<(), ClientError> {
        let mut connection = connect_on(lane, address).await;
        let config = Config::default();
        let resuming = raw::resume(&mut connection, &config, self.session, &self.keys, self.received);
        let established = timeout(TEST_TIMEOUT, resuming).await.expect("an answer")?;
        self.keys.gateway = established.keys.gateway_resume.clone();
        if established.key == 2 {
            self.keys.world = established.keys.world_resume.clone();
        }
        if !established.ready.continued {
            self.received = 0;
        }
        (self.connection, self.established) = (connection, established);
        Ok(())
    }

    /// Comes to the gateway, and is gone once that has claimed the session.
    pub(crate) async fn resume_until_claimed(&mut self, address: &str, mut claimed: watch::Receiver<u32>) {
        claimed.mark_unchanged();
        let coming = async {
            tokio::select! {
                resumed = self.resume(address) => panic!("nobody has answered: {resumed:?}"),
                claimed = claimed.changed() => claimed.unwrap(),
            }
        };
        timeout(TEST_TIMEOUT, coming).await.expect("claimed");
    }

    /// From now on only the world's key proves the session.
    pub(crate) fn forget_gateway_key(&mut self) {
        self.keys.gateway = Secret::new([0; 32]);
    }

    pub(crate) async fn request(&mut self, opcode: u16, request: u32, payload: &'static [u8]) {
        self.send(Message::new(opcode, Head::Request(request), payload.into())).await;
    }

    pub(crate) async fn send(&mut self, message: Message) {
        self.connection.send(&[message]).await.unwrap();
    }

    /// Returns when the gateway has taken in what was said before.
    pub(crate) async fn ping(&mut self) {
        self.send(Message::event(opcode::PING, &Ping { value: 7 })).await;
        loop {
            let message = timeout(TEST_TIMEOUT, self.connection.receive()).await.expect("a message").unwrap();
            self.received += u64::from(message.is_reliable());
            match message.opcode {
                opcode::PONG => return,
                opcode::ACK => {}
                _ => panic!("{message:?}"),
            }
        }
    }

    pub(crate) async fn acknowledge(&mut self) {
        let received = self.received;
        self.send(Message::event(opcode::ACK, &Ack { received })).await;
    }

    /// The next message, acknowledgements left out.
    pub(crate) async fn next(&mut self) -> Result<Message, ClientError> {
        loop {
            let message = timeout(TEST_TIMEOUT, self.connection.next()).await.expect("a message")?;
            self.received += u64::from(message.is_reliable());
            if message.opcode != opcode::ACK {
                return Ok(message);
            }
        }
    }

    /// The text of the next message, which must be of this opcode.
    pub(crate) async fn text(&mut self, opcode: u16) -> String {
        let message = self.next().await.unwrap();
        assert_eq!(message.opcode, opcode, "{message:?}");
        String::from_utf8(message.payload.to_vec()).unwrap()
    }

    /// The error that answers a request.
    pub(crate) async fn refusal(&mut self, request: u32) -> ErrorCode {
        // `Connection::next` takes an `Error` reply for the end of the connection, so it is read as it comes.
        loop {
            let message = timeout(TEST_TIMEOUT, self.connection.receive()).await.expect("a message").unwrap();
            self.received += u64::from(message.is_reliable());
            if message.head == Head::Reply(request) {
                assert_eq!(message.opcode, opcode::ERROR);
                return message.decode::<Error>().unwrap().code();
            }
        }
    }

    /// Why the connection ends; what comes before is forgotten.
    pub(crate) async fn end(&mut self) -> Option<ErrorCode> {
        self.closing_error().await.map(|error| error.code())
    }

    pub(crate) async fn closing_error(&mut self) -> Option<Error> {
        loop {
            let message = timeout(TEST_TIMEOUT, self.connection.receive()).await.expect("an end").ok()?;
            if (message.opcode, message.head) == (opcode::ERROR, Head::Event) {
                return Some(message.decode::<Error>().unwrap());
            }
        }
    }
}

/// The code with which an attempt was refused.
pub(crate) fn refused<T>(result: Result<T, ClientError>) -> ErrorCode {
    match result {
        Err(ClientError::Refused(refusal)) => refusal.code,
        Err(other) => panic!("broken, not refused: {other}"),
        Ok(_) => panic!("not refused"),
    }
}
