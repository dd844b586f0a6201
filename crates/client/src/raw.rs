//! One connection, record by record, without sessions or checks. The rest of the client is built on it. Tests use it to
//! send bytes that no honest client sends.

use std::{collections::VecDeque, io, net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use shardkeep_auth::{ChannelBinding, Key};
use shardkeep_lanes::{Lane, Stream};
use shardkeep_wire::{
    Message, Side, WireError,
    datagram::DatagramOpener,
    message::MessageError,
    opcode,
    payload::{LaneAddress, Ping, Pong},
    preface::{Preface, Service},
    record::{Decoder, HEADER, Writer},
    seal::{Opener, Sealer, Suite},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{ClientError, Config, resolve};

pub use crate::handshake::{Established, ResumeKeys, attach, attach_with, resume};

/// A connection to a server, plain at first.
#[derive(Debug)]
pub struct Connection {
    pub(crate) stream: Stream,
    pub(crate) inbound: BytesMut,
    pub(crate) outbound: BytesMut,
    // Apart, because keys are large and futures that hold a connection are moved and multiplied.
    pub(crate) crypt: Option<Box<Crypt>>,
    preface: Preface,
    /// Messages of the record read last.
    buffered: VecDeque<Message>,
}

/// Both directions, once sealed.
#[derive(Debug)]
pub(crate) struct Crypt {
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    /// For the server's datagrams, once there is a session.
    pub(crate) datagrams: Option<DatagramOpener>,
}

impl Connection {
    /// Connects over TCP; the preface leaves with the first record, or with [`Self::send_preface`].
    pub async fn open(address: SocketAddr, preface: Preface, within: Duration) -> Result<Self, ClientError> {
        let connecting = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Stream::Tcp(stream))
        };
        Ok(Self::with_stream(connect_within(address, within, connecting).await?, preface))
    }

    /// Connects over this lane.
    pub async fn open_on(
        config: &Config,
        lane: Lane,
        address: SocketAddr,
        service: Service,
    ) -> Result<Self, ClientError> {
        let connecting = config.connector.connect(lane, address);
        let stream = connect_within(address, config.timing.connect, connecting).await?;
        Ok(Self::with_stream(stream, config.preface(service)))
    }

    /// Connects over the first of the configured lanes that goes.
    pub(crate) async fn open_any(
        config: &Config,
        address: SocketAddr,
        service: Service,
    ) -> Result<Self, ClientError> {
        let mut last = ClientError::Timeout("a lane to connect by");
        for lane in &config.lanes {
            match Box::pin(Self::open_on(config, *lane, address, service)).await {
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    tracing::debug!(%lane, %address, %error, "no connection");
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// Connects to a gateway over the first of the configured lanes that goes, each at its own address.
    pub(crate) async fn open_gateway(
        config: &Config,
        gateway: &str,
        lanes: &[LaneAddress],
    ) -> Result<Self, ClientError> {
        let mut last = ClientError::Timeout("an address of the gateway");
        for (lane, address) in resolve::gateway(config, gateway, lanes).await? {
            match Box::pin(Self::open_on(config, lane, address, Service::Gateway)).await {
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    tracing::debug!(%lane, %address, %error, "no connection");
                    last = error;
                }
            }
        }
        Err(last)
    }

    fn with_stream(stream: Stream, preface: Preface) -> Self {
        let outbound = BytesMut::from(&preface.encode()[..]);
        let (inbound, buffered) = (BytesMut::with_capacity(4_096), VecDeque::new());
        Self { stream, inbound, outbound, crypt: None, preface, buffered }
    }

    pub fn preface(&self) -> Preface {
        self.preface
    }

    pub fn lane(&self) -> Lane {
        self.stream.lane()
    }

    /// The start of this connection's transcripts.
    pub(crate) fn binding(&self) -> ChannelBinding {
        ChannelBinding::new(&self.preface.encode(), self.stream.exporter())
    }

    /// Goes on from another port, as a device does that changes its network; only QUIC can.
    pub fn migrate(&self) -> io::Result<()> {
        self.stream.migrate()
    }

    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    pub async fn send_preface(&mut self) -> Result<(), ClientError> {
        self.flush().await
    }

    /// Forgets the preface that was not sent yet.
    pub fn discard_preface(&mut self) {
        self.outbound.clear();
    }

    /// Sends one record with these messages, sealed if the connection is.
    pub async fn send(&mut self, messages: &[Message]) -> Result<(), ClientError> {
        let mut plaintext = BytesMut::new();
        messages.iter().for_each(|message| message.encode(&mut plaintext));
        self.send_record(&plaintext).await
    }

    /// Sends one record with this content, whatever it is.
    pub async fn send_record(&mut self, plaintext: &[u8]) -> Result<(), ClientError> {
        let mut writer = Writer::begin(&mut self.outbound, Side::Client);
        writer.push_encoded(plaintext).map_err(|_| ClientError::TooLarge(plaintext.len()))?;
        match &mut self.crypt {
            Some(crypt) => writer.seal(&mut crypt.sealer)?,
            None => writer.plain(),
        }
        self.flush().await
    }

    /// Sends bytes as they are, after whatever was waiting (the preface).
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.outbound.extend_from_slice(bytes);
        self.flush().await
    }

    /// Seals one record as [`Self::send`] would, and returns it instead: to bend it, cut it, or send it twice.
    pub fn seal(&mut self, messages: &[Message]) -> Result<BytesMut, ClientError> {
        let mut record = BytesMut::new();
        let mut writer = Writer::begin(&mut record, Side::Client);
        for message in messages {
            writer.push(message).map_err(|_| ClientError::TooLarge(message.encoded_len()))?;
        }
        match &mut self.crypt {
            Some(crypt) => writer.seal(&mut crypt.sealer)?,
            None => writer.plain(),
        }
        Ok(record)
    }

    /// The next message, whatever it is.
    pub async fn receive(&mut self) -> Result<Message, ClientError> {
        loop {
            if let Some(message) = self.buffered.pop_front() {
                return Ok(message);
            }
            let body = self.receive_record().await?;
            self.unpack(body)?;
        }
    }

    /// The next message that is not about the connection itself: pings are answered, new keys are taken, and an
    /// `Error` event is an error.
    pub async fn next(&mut self) -> Result<Message, ClientError> {
        loop {
            let message = self.receive().await?;
            match message.opcode {
                opcode::PING => {
                    let Ping { value } = message.decode()?;
                    self.send(&[Message::event(opcode::PONG, &Pong { value })]).await?;
                }
                opcode::PONG | opcode::KEY_UPDATE => {}
                opcode::ERROR => {
                    let error: shardkeep_wire::payload::Error = message.decode()?;
                    return Err(ClientError::Refused(error.into()));
                }
                _ => return Ok(message),
            }
        }
    }

    /// The next record's body, still sealed if the connection is.
    pub async fn receive_record(&mut self) -> Result<BytesMut, ClientError> {
        loop {
            if let Some(body) = Decoder::new(Side::Server).next(&mut self.inbound)? {
                return Ok(body);
            }
            if self.stream.read_buf(&mut self.inbound).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// Reads until the server closes; true if it did so without another whole record.
    pub async fn wait_for_close(&mut self) -> bool {
        self.buffered.is_empty() && self.receive_record().await.is_err()
    }

    /// Seals all further records. Further messages in the last plain record are malformed.
    pub fn use_keys(&mut self, suite: Suite, client: Key, server: Key) -> Result<(), ClientError> {
        if let Some(plain) = self.buffered.front() {
            return Err(ClientError::Unexpected { opcode: plain.opcode, waiting_for: "sealed records" });
        }
        let (sealer, opener) = (Sealer::new(suite, client)?, Opener::new(suite, server)?);
        self.crypt = Some(Box::new(Crypt { sealer, opener, datagrams: None }));
        Ok(())
    }

    /// Datagrams of the server open with this key.
    pub(crate) fn use_datagrams(&mut self, suite: Suite, key: Key) -> Result<(), ClientError> {
        if let Some(crypt) = &mut self.crypt {
            crypt.datagrams = Some(DatagramOpener::new(suite, key)?);
        }
        Ok(())
    }

    /// The messages of the next datagram that is new.
    pub async fn receive_datagram(&mut self) -> Result<Vec<Message>, ClientError> {
        loop {
            let datagram = self.stream.datagram().await?;
            let opener = self.crypt.as_mut().and_then(|crypt| crypt.datagrams.as_mut());
            let Some(opener) = opener else { continue };
            if let Some(mut opened) = opener.open(&datagram)? {
                let mut messages = Vec::new();
                while let Some(message) = Message::split_from(&mut opened.messages)? {
                    messages.push(message);
                }
                return Ok(messages);
            }
        }
    }

    /// Announces and takes the next key for what this side sends.
    pub async fn update_key(&mut self) -> Result<(), ClientError> {
        self.send(&[key_update()]).await?;
        if let Some(crypt) = &mut self.crypt {
            crypt.sealer.update()?;
        }
        Ok(())
    }

    fn unpack(&mut self, mut body: BytesMut) -> Result<(), ClientError> {
        if let Some(crypt) = &mut self.crypt {
            crypt.opener.open(&mut body)?;
        }
        let mut plaintext = body.freeze();
        while let Some(message) = Message::split_from(&mut plaintext)? {
            if message.opcode == opcode::KEY_UPDATE {
                self.crypt.as_mut().map_or(Ok(()), |crypt| crypt.update_opener_key(&plaintext))?;
            }
            self.buffered.push_back(message);
        }
        Ok(())
    }

    /// A message of a record that was read whole.
    pub(crate) fn pop_buffered(&mut self) -> Option<Message> {
        self.buffered.pop_front()
    }

    async fn flush(&mut self) -> Result<(), ClientError> {
        self.stream.write_all_buf(&mut self.outbound).await?;
        self.stream.flush().await?;
        Ok(())
    }
}

impl Crypt {
    /// The record ended with a `KeyUpdate`; `rest` is what stands after it.
    pub(crate) fn update_opener_key(&mut self, rest: &Bytes) -> Result<(), WireError> {
        if !rest.is_empty() {
            return Err(MessageError::Truncated.into());
        }
        Ok(self.opener.update()?)
    }
}

async fn connect_within(
    address: SocketAddr,
    within: Duration,
    connecting: impl Future<Output = io::Result<Stream>>,
) -> Result<Stream, ClientError> {
    let connected = timeout(within, connecting).await;
    let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    connected.map_err(|source| ClientError::Connect { address, source })
}

/// The last message under a key.
pub fn key_update() -> Message {
    Message::event(opcode::KEY_UPDATE, &shardkeep_wire::payload::KeyUpdate {})
}

/// A record's bytes with `length` in front that need not be true.
pub fn forge_record(length: u16, body: &[u8]) -> BytesMut {
    let mut record = BytesMut::with_capacity(HEADER + body.len());
    record.extend_from_slice(&length.to_le_bytes());
    record.extend_from_slice(body);
    record
}
