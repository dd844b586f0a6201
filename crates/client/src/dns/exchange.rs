//! One question and its answer: UDP first, TCP when the answer is truncated, and repeats after a timeout.

use std::{io, net::SocketAddr};

use hickory_proto::{
    op::{Edns, Message, MessageType, Query, ResponseCode},
    rr::{Name, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::{Resolver, error::DnsError};

/// Largest UDP answer we ask for: fits every common path (DNS flag day 2020).
const UDP_PAYLOAD: u16 = 1_232;

impl Resolver {
    pub(super) async fn lookup(&self, name: &Name, kind: RecordType) -> Result<Message, DnsError> {
        let mut last = DnsError::Timeout { server: self.server };
        for _ in 0..self.attempts {
            match timeout(self.timeout, self.attempt(name, kind)).await {
                Ok(Ok(response)) => return check_response(response, name),
                Ok(Err(error)) => last = error,
                Err(_) => last = DnsError::Timeout { server: self.server },
            }
        }
        Err(last)
    }

    async fn attempt(&self, name: &Name, kind: RecordType) -> Result<Message, DnsError> {
        let mut query = Message::query();
        query.add_query(Query::query(name.clone(), kind));
        query.set_edns(Edns::new().set_max_payload(UDP_PAYLOAD).clone());
        let bytes = query.to_vec().map_err(|source| DnsError::Name { name: name.to_string(), source })?;

        let response = self.exchange_udp(&query, &bytes).await.map_err(|source| self.io(source))?;
        if !response.metadata.truncation {
            return Ok(response);
        }
        let bytes = self.exchange_tcp(&bytes).await.map_err(|source| self.io(source))?;
        let response = Message::from_vec(&bytes)
            .map_err(|error| DnsError::Malformed { server: self.server, reason: error.to_string() })?;
        if !is_answer_to(&response, &query) {
            return Err(DnsError::Malformed {
                server: self.server,
                reason: "an answer to nothing asked".into(),
            });
        }
        Ok(response)
    }

    /// Ignores datagrams that do not answer the question, because any host can send one.
    async fn exchange_udp(&self, query: &Message, bytes: &[u8]) -> io::Result<Message> {
        let local: SocketAddr =
            if self.server.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(local).await?;
        socket.connect(self.server).await?;
        socket.send(bytes).await?;
        let mut buffer = [0; UDP_PAYLOAD as usize];
        loop {
            let length = socket.recv(&mut buffer).await?;
            match Message::from_vec(&buffer[..length]) {
                Ok(response) if is_answer_to(&response, query) => return Ok(response),
                _ => {}
            }
        }
    }

    async fn exchange_tcp(&self, query: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(self.server).await?;
        let length = u16::try_from(query.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
        let mut response = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut response).await?;
        Ok(response)
    }

    fn io(&self, source: io::Error) -> DnsError {
        DnsError::Io { server: self.server, source }
    }
}

fn is_answer_to(response: &Message, query: &Message) -> bool {
    response.metadata.message_type == MessageType::Response
        && response.metadata.id == query.metadata.id
        && response.queries == query.queries
}

fn check_response(response: Message, name: &Name) -> Result<Message, DnsError> {
    match response.metadata.response_code {
        ResponseCode::NoError => Ok(response),
        code => Err(DnsError::Refused { name: name.clone(), code }),
    }
}
