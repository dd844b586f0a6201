//! The certificate of this instance, and the TLS settings with which it authenticates itself and checks peers.

use std::{path::Path, sync::Arc};

use anyhow::Context;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use shardkeep_types::{DaemonKind, Secret};
use tonic::transport::{Certificate, ClientTlsConfig};

use crate::{Peer, peer};

/// Certificate, key and authority of one instance, read once at its start.
pub struct Identity {
    peer: Peer,
    ca_pem: Vec<u8>,
    chain_pem: Vec<u8>,
    key_pem: Secret<Vec<u8>>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Identity {
    /// Reads and checks the three PEM files.
    ///
    /// # Errors
    /// When a file is missing or unreadable, names no instance, or is not signed by this authority.
    pub fn load(ca: &Path, chain: &Path, key: &Path) -> anyhow::Result<Self> {
        install_provider();
        let read =
            |path: &Path| std::fs::read(path).with_context(|| format!("can not read {}", path.display()));
        let (ca_pem, chain_pem, key_pem) = (read(ca)?, read(chain)?, Secret::new(read(key)?));
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&ca_pem) {
            roots.add(root.with_context(|| format!("{}", ca.display()))?)?;
        }
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
            .build()
            .with_context(|| format!("{} holds no certificate", ca.display()))?;
        let leaf =
            CertificateDer::from_pem_slice(&chain_pem).with_context(|| format!("{}", chain.display()))?;
        verifier
            .verify_client_cert(&leaf, &[], UnixTime::now())
            .with_context(|| format!("{} is not signed by {}", chain.display(), ca.display()))?;
        let peer = peer::of_certificate(&leaf).with_context(|| format!("{}", chain.display()))?;
        Ok(Self { peer, ca_pem, chain_pem, key_pem, verifier })
    }

    /// The identity of this instance, as its peers see it.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Sets the name of this replica, if its certificate is shared.
    pub(crate) fn set_replica_name(&mut self, name: &str) {
        if self.peer.is_shared() {
            name.clone_into(&mut self.peer.name);
        }
    }

    /// Requires a certificate of the same authority from every caller.
    pub(crate) fn server_config(&self) -> anyhow::Result<ServerConfig> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.chain_pem).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.expose()).context("private key")?;
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(self.verifier.clone())
            .with_single_cert(chain, key)
            .context("the private key does not belong to the certificate")?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    /// Accepts only peers whose certificate is of this kind.
    pub(crate) fn client_config(&self, kind: DaemonKind) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.ca_pem))
            .identity(tonic::transport::Identity::from_pem(&self.chain_pem, self.key_pem.expose()))
            .domain_name(peer::dns_name(kind))
    }
}

/// Makes aws-lc-rs the provider of this process. An installed provider stays, so that all parts of the process use
/// the same one.
fn install_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
