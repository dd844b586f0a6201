//! TLS 1.3 for QUIC and `wss`, by aws-lc-rs alone. The hybrid X25519MLKEM768 comes first, so that a future quantum computer
//! cannot read what is recorded today.

use std::{io, path::PathBuf, sync::Arc, time::SystemTime};

use parking_lot::Mutex;
use rustls::{
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};
use tracing::{info, warn};

use crate::Settings;

/// The name in certificates for players that the development authority makes, and for which clients look by default.
pub const PLAYER_CERTIFICATE_NAME: &str = "players.shardkeep.internal";
/// Protocol that QUIC connections negotiate (ALPN): the client protocol, in one stream.
pub(crate) const QUIC_PROTOCOL: &[u8] = b"shardkeep/1";
/// Protocol that `wss` connections negotiate.
pub(crate) const HTTP_PROTOCOL: &[u8] = b"http/1.1";
/// Label of the exporter (RFC 8446, section 7.5) that binds a login or a session to its TLS connection.
pub(crate) const EXPORTER: &[u8] = b"EXPORTER-shardkeep-v1";

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("cannot read {file}: {source}")]
    Read { file: PathBuf, source: pem::Error },
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    let kx_groups = vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1];
    Arc::new(CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() })
}

/// The certificate that players see on QUIC and `wss`. Files that have changed are read again at the next handshake.
#[derive(Debug, Clone)]
pub(crate) struct ServerCertificate(Arc<Reloading>);

#[derive(Debug)]
struct Reloading {
    /// Certificate chain and private key; `None`: the certificate was made at the start.
    files: Option<[PathBuf; 2]>,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    stamps: Option<[Stamp; 2]>,
}

/// Modification time and length of a file.
type Stamp = (SystemTime, u64);

impl ServerCertificate {
    /// Loads the certificate of the settings, or makes one for this process. No authority signs the latter, and none
    /// needs to: on QUIC, the proofs of login and attach cover the TLS connection itself.
    pub(crate) fn load(settings: &Settings) -> Result<Self, CertificateError> {
        let files = match (&settings.certificate, &settings.key) {
            (Some(certificate), Some(key)) => Some([certificate.clone(), key.clone()]),
            _ => None,
        };
        let stamps = files.as_ref().and_then(stamps);
        let key = Arc::new(files.as_ref().map_or_else(self_signed, read)?);
        let current = Mutex::new(Current { key, stamps });
        Ok(Self(Arc::new(Reloading { files, current })))
    }

    /// Session tickets let a client return without a signature. 0-RTT stays off, because a third party could replay
    /// it.
    pub(crate) fn server(&self, protocol: &[u8]) -> Result<rustls::ServerConfig, CertificateError> {
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(self.0.clone());
        config.alpn_protocols = vec![protocol.to_vec()];
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        Ok(config)
    }
}

impl ResolvesServerCert for Reloading {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut current = self.current.lock();
        if let Some(files) = &self.files
            && let Some(stamps) = stamps(files)
            && current.stamps != Some(stamps)
        {
            // Also after an error, so that it is logged once. A certificate without its new key is such an error; the key
            // changes the stamps again.
            current.stamps = Some(stamps);
            match read(files) {
                Ok(key) => {
                    current.key = Arc::new(key);
                    info!(certificate = %files[0].display(), "certificate of players reloaded");
                }
                Err(error) => {
                    warn!(%error, "certificate of players not reloaded; the old one stays in use");
                }
            }
        }
        Some(current.key.clone())
    }
}

fn stamps(files: &[PathBuf; 2]) -> Option<[Stamp; 2]> {
    let stamp = |file: &PathBuf| {
        let metadata = std::fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    Some([stamp(&files[0])?, stamp(&files[1])?])
}

fn read(files: &[PathBuf; 2]) -> Result<CertifiedKey, CertificateError> {
    let [certificate, key] = files;
    let read_error = |file: &PathBuf| {
        let file = file.clone();
        move |source| CertificateError::Read { file, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(read_error(certificate))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(read_error(key))?;
    Ok(CertifiedKey::from_der(chain, key, &provider())?)
}

fn self_signed() -> Result<CertifiedKey, CertificateError> {
    let made = rcgen::generate_simple_self_signed([PLAYER_CERTIFICATE_NAME.to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    Ok(CertifiedKey::from_der(vec![made.cert.der().clone()], key.into(), &provider())?)
}

/// Wraps an error of another library.
pub(crate) fn io_error(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(error)
}
