//! Client side of every lane.

use std::{
    fmt, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use quinn::{Endpoint, crypto::rustls::QuicClientConfig};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem, pem::PemObject},
    version::TLS13,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{
    Lane, Stream, quic,
    rewind::Rewind,
    tls::{HTTP_PROTOCOL, PLAYER_CERTIFICATE_NAME, QUIC_PROTOCOL, io_error, provider},
    websocket::{Transport, WebSocket},
};

/// Which server certificates a client accepts on QUIC and `wss`.
#[derive(Debug, Clone, Default)]
pub enum Trust {
    /// Any certificate. The password and the ticket prove the server anyway. On QUIC they also prove the TLS
    /// connection, so an attacker in between is detected before anything confidential is sent.
    #[default]
    AnyCertificate,
    /// Certificates of these authorities with this name.
    Authority { roots: Arc<RootCertStore>, name: ServerName<'static> },
}

#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("can not read {file}: {source}")]
    Read { file: PathBuf, source: pem::Error },
    #[error("{file}: {source}")]
    Certificate { file: PathBuf, source: rustls::Error },
    #[error("{0:?} is no name for a server")]
    Name(String),
}

impl Trust {
    /// Trusts the authorities in this PEM file. `name` is the required name of certificates, by default
    /// [`PLAYER_CERTIFICATE_NAME`].
    ///
    /// # Errors
    /// Fails if the file or the name is invalid.
    pub fn authority(file: &Path, name: Option<&str>) -> Result<Self, TrustError> {
        let read_error = |source| TrustError::Read { file: file.to_owned(), source };
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_file_iter(file).map_err(read_error)? {
            let certificate_error = |source| TrustError::Certificate { file: file.to_owned(), source };
            roots.add(root.map_err(read_error)?).map_err(certificate_error)?;
        }
        let name = name.unwrap_or(PLAYER_CERTIFICATE_NAME);
        let name = ServerName::try_from(name.to_owned()).map_err(|_| TrustError::Name(name.to_owned()))?;
        Ok(Self::Authority { roots: Arc::new(roots), name })
    }
}

/// Opens connections and remembers data that makes the next connection to the same server faster. Clones share it.
#[derive(Clone)]
pub struct Connector(Arc<ConnectorInner>);

/// In a separate allocation, because configurations that contain a connector are moved and copied.
struct ConnectorInner {
    name: ServerName<'static>,
    quic: quinn::ClientConfig,
    tls: TlsConnector,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("name", &self.0.name).finish_non_exhaustive()
    }
}

impl Default for Connector {
    /// # Panics
    /// Never: these settings are constant, and a test builds them.
    fn default() -> Self {
        Self::new(&Trust::AnyCertificate).expect("TLS 1.3 with its own cipher suites")
    }
}

impl Connector {
    /// # Errors
    /// Errors of the TLS library; none is expected.
    pub fn new(trust: &Trust) -> io::Result<Self> {
        Self::with_window(trust, quic::CLIENT_WINDOW)
    }

    /// A connector with a limit on unread bytes per QUIC connection: for clients with little memory, and for tests
    /// of servers with clients that do not read.
    ///
    /// # Errors
    /// Fails like [`Self::new`].
    pub fn with_window(trust: &Trust, window: u32) -> io::Result<Self> {
        let name = match trust {
            Trust::AnyCertificate => ServerName::try_from(PLAYER_CERTIFICATE_NAME).map_err(io_error)?,
            Trust::Authority { name, .. } => name.clone(),
        };
        let quic = QuicClientConfig::try_from(tls(trust, QUIC_PROTOCOL)?).map_err(io_error)?;
        let mut quic = quinn::ClientConfig::new(Arc::new(quic));
        quic.transport_config(quic::client_transport(window));
        let tls = TlsConnector::from(Arc::new(tls(trust, HTTP_PROTOCOL)?));
        Ok(Self(Arc::new(ConnectorInner { name, quic, tls })))
    }

    /// Connects without sending protocol bytes. The caller limits the time.
    ///
    /// # Errors
    /// Fails if no server answers, it uses another protocol, or its certificate is not trusted.
    pub async fn connect(&self, lane: Lane, address: SocketAddr) -> io::Result<Stream> {
        if lane == Lane::Quic {
            return Ok(Stream::Quic(Box::new(Box::pin(self.quic(address)).await?)));
        }
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        match lane {
            Lane::Wss => {
                let stream = Rewind::new(Bytes::new(), stream);
                let stream = Box::pin(self.0.tls.connect(self.0.name.clone(), stream)).await?;
                let transport = Transport::Tls(Box::new(stream.into()));
                Ok(Stream::WebSocket(Box::new(Box::pin(WebSocket::connect(address, transport)).await?)))
            }
            Lane::Ws => {
                let transport = Transport::Plain(Rewind::new(Bytes::new(), stream));
                Ok(Stream::WebSocket(Box::new(Box::pin(WebSocket::connect(address, transport)).await?)))
            }
            Lane::Tcp | Lane::Quic => Ok(Stream::Tcp(stream)),
        }
    }

    /// Uses one socket per connection, so that each can change its network independently.
    async fn quic(&self, address: SocketAddr) -> io::Result<quic::Stream> {
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let endpoint = Endpoint::client(any)?;
        let name = self.0.name.to_str();
        let connecting = endpoint.connect_with(self.0.quic.clone(), address, &name).map_err(io_error)?;
        let connection = connecting.await?;
        let streams = connection.open_bi().await?;
        quic::Stream::new(connection, streams, Some(endpoint))
    }
}

fn tls(trust: &Trust, protocol: &[u8]) -> io::Result<ClientConfig> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_protocol_versions(&[&TLS13]).map_err(io_error)?;
    let mut config = match trust {
        Trust::Authority { roots, .. } => builder.with_root_certificates(roots.clone()).with_no_client_auth(),
        Trust::AnyCertificate => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAnyCertificate(provider)))
            .with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

/// Verifies only that the server holds the key of its certificate.
#[derive(Debug)]
struct AcceptAnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
