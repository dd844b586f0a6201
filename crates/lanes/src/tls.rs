//! TLS 1.3 for QUIC and `wss`, with aws-lc-rs only and the hybrid X25519MLKEM768 first, so that a quantum computer
//! cannot read recorded traffic later.

use std::{io, path::PathBuf, sync::Arc};

use rustls::{
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem, pem::PemObject},
    version::TLS13,
};

use crate::Settings;

/// Name in players' certificates of the development CA, which clients expect.
pub const PLAYER_CERTIFICATE_NAME: &str = "players.shardkeep.internal";
/// ALPN of QUIC connections.
pub(crate) const QUIC_PROTOCOL: &[u8] = b"shardkeep/1";
/// ALPN of `wss` connections.
pub(crate) const HTTP_PROTOCOL: &[u8] = b"http/1.1";
/// Label of the exporter (RFC 8446, section 7.5) that binds a login or a session to its TLS connection.
pub(crate) const EXPORTER: &[u8] = b"EXPORTER-shardkeep-v1";

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("can not read {file}: {source}")]
    Read { file: PathBuf, source: pem::Error },
    #[error("can not make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    let kx_groups = vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1];
    Arc::new(CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() })
}

/// A certificate chain for players, with its key.
pub(crate) struct ServerCertificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl ServerCertificate {
    /// Loads the configured certificate, or creates one for this process. No client trusts the latter, and on QUIC
    /// none has to: the proofs of login and attach cover the TLS connection.
    pub(crate) fn load(settings: &Settings) -> Result<Self, CertificateError> {
        let (Some(certificate), Some(key)) = (&settings.certificate, &settings.key) else {
            let made = rcgen::generate_simple_self_signed([PLAYER_CERTIFICATE_NAME.to_owned()])?;
            let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
            return Ok(Self { chain: vec![made.cert.der().clone()], key: key.into() });
        };
        let read_error = |file: &PathBuf| {
            let file = file.clone();
            move |source| CertificateError::Read { file, source }
        };
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(read_error(certificate))?;
        Ok(Self { chain, key: PrivateKeyDer::from_pem_file(key).map_err(read_error(key))? })
    }

    /// Tickets let a client resume TLS without a signature. Early data (0-RTT) is off, because it can be replayed.
    pub(crate) fn server(&self, protocol: &[u8]) -> Result<rustls::ServerConfig, CertificateError> {
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![protocol.to_vec()];
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        Ok(config)
    }
}

/// Wraps an error of another library as an I/O error.
pub(crate) fn io_error(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(error)
}
