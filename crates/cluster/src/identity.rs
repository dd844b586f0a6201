//! The certificate of this instance, with which it proves its name, and the checks of its peers' certificates.
//!
//! Both follow the files while the daemon runs: [`Identity::reload`] reads them again, and every later handshake uses
//! the new content. Open connections learn by [`Identity::version`] that they must check their peer again.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context;
use parking_lot::{Mutex, RwLock};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        ResolvesClientCert, Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject,
    },
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use shardkeep_types::Secret;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{Peer, peer};

/// The revocation list, in the folder of the CA's certificate. The file is optional.
pub(crate) const REVOKED: &str = "revoked.pem";

/// Certificate, key and authority of one instance.
pub struct Identity {
    peer: Peer,
    files: IdentityFiles,
    /// Content of the files at the last reading.
    content: Mutex<Content>,
    credentials: RwLock<Arc<Credentials>>,
    version: AtomicU64,
}

struct IdentityFiles {
    ca: PathBuf,
    chain: PathBuf,
    key: PathBuf,
}

#[derive(PartialEq, Eq)]
struct Content {
    ca: Vec<u8>,
    chain: Vec<u8>,
    key: Secret<Vec<u8>>,
    revoked: Option<Vec<u8>>,
}

/// Everything that a handshake needs.
#[derive(Debug)]
struct Credentials {
    own: Arc<CertifiedKey>,
    clients: Arc<dyn ClientCertVerifier>,
    servers: Arc<dyn ServerCertVerifier>,
    /// Seconds since the Unix epoch at which the certificate in `own` expires.
    expires: i64,
}

impl Identity {
    /// Reads and checks the three PEM files, and `revoked.pem` beside the CA's certificate.
    ///
    /// # Errors
    /// When a file is missing or unreadable, or the certificate names no instance, is not signed by this authority,
    /// or has expired or been revoked.
    pub fn load(ca: &Path, chain: &Path, key: &Path) -> anyhow::Result<Self> {
        let files = IdentityFiles { ca: ca.into(), chain: chain.into(), key: key.into() };
        let content = files.read()?;
        let (peer, credentials) = files.credentials(&content)?;
        Ok(Self {
            peer,
            files,
            content: Mutex::new(content),
            credentials: RwLock::new(Arc::new(credentials)),
            version: AtomicU64::new(0),
        })
    }

    /// Reads the files again if they have changed. Returns whether new content is in force.
    ///
    /// # Errors
    /// When the new content is unusable or of another instance. The previous content then stays in force, and the next
    /// call returns `Ok(false)` until the files change again.
    pub(crate) fn reload(&self) -> anyhow::Result<bool> {
        let fresh = self.files.read()?;
        {
            let mut content = self.content.lock();
            if *content == fresh {
                return Ok(false);
            }
            *content = fresh;
        }
        let (peer, credentials) = self.files.credentials(&self.content.lock())?;
        let same_name = peer.is_shared() || peer.name == self.peer.name;
        anyhow::ensure!(
            same_name && peer.kind == self.peer.kind && peer.world == self.peer.world,
            "{} is now the certificate of {}, and this is {}",
            self.files.chain.display(),
            peer.uri(),
            self.peer.uri()
        );
        *self.credentials.write() = Arc::new(credentials);
        self.version.fetch_add(1, Ordering::Release);
        Ok(true)
    }

    /// Rises with every reload.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Seconds since the Unix epoch at which the certificate of this instance expires.
    pub(crate) fn expires(&self) -> i64 {
        self.credentials().expires
    }

    /// Whether a peer with this certificate may stay connected.
    pub(crate) fn check_peer(&self, certificate: &CertificateDer<'_>) -> io::Result<()> {
        let checked = self.credentials().clients.verify_client_cert(certificate, &[], UnixTime::now());
        checked.map(drop).map_err(io::Error::other)
    }

    /// The name of this instance, as its peers see it.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Sets the name of this replica if its certificate is shared by all replicas of the kind.
    pub(crate) fn set_replica_name(&mut self, name: &str) {
        if self.peer.is_shared() {
            name.clone_into(&mut self.peer.name);
        }
    }

    /// Demands a certificate of the same authority from every caller. Sessions are not resumed, because resumption
    /// skips the check of the certificate.
    pub(crate) fn server_config(self: &Arc<Self>) -> ServerConfig {
        let live = Arc::new(Live(self.clone()));
        let mut config =
            ServerConfig::builder().with_client_cert_verifier(live.clone()).with_cert_resolver(live);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    /// Accepts servers of the same authority only.
    pub(crate) fn client_config(self: &Arc<Self>) -> ClientConfig {
        let live = Arc::new(Live(self.clone()));
        let mut config = ClientConfig::builder()
            .dangerous()
            .with_custom_certificate_verifier(live.clone())
            .with_client_cert_resolver(live);
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    fn credentials(&self) -> Arc<Credentials> {
        self.credentials.read().clone()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.peer).finish()
    }
}

impl IdentityFiles {
    fn read(&self) -> anyhow::Result<Content> {
        let read =
            |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let revoked = self.revoked();
        Ok(Content {
            ca: read(&self.ca)?,
            chain: read(&self.chain)?,
            key: Secret::new(read(&self.key)?),
            revoked: if revoked.exists() { Some(read(&revoked)?) } else { None },
        })
    }

    fn revoked(&self) -> PathBuf {
        self.ca.with_file_name(REVOKED)
    }

    fn credentials(&self, content: &Content) -> anyhow::Result<(Peer, Credentials)> {
        install_provider();
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&content.ca) {
            roots.add(root.with_context(|| format!("{}", self.ca.display()))?)?;
        }
        let roots = Arc::new(roots);
        let list = content.revoked.as_deref().unwrap_or_default();
        let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(list)
            .collect::<Result<_, _>>()
            .with_context(|| format!("{}", self.revoked().display()))?;
        let clients = WebPkiClientVerifier::builder(roots.clone())
            .with_crls(lists.clone())
            .only_check_end_entity_revocation()
            // While the CA changes, the list of one CA says nothing about certificates of the other.
            .allow_unknown_revocation_status()
            .build()
            .with_context(|| format!("{} holds no certificate", self.ca.display()))?;
        let servers = WebPkiServerVerifier::builder(roots)
            .with_crls(lists)
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status()
            .build()?;
        let chain = || format!("{}", self.chain.display());
        let certificates: Vec<_> =
            CertificateDer::pem_slice_iter(&content.chain).collect::<Result<_, _>>().with_context(chain)?;
        let leaf = certificates.first().with_context(|| format!("{} holds no certificate", chain()))?;
        clients
            .verify_client_cert(leaf, &[], UnixTime::now())
            .with_context(|| format!("{} is not signed by {}, or not valid", chain(), self.ca.display()))?;
        let peer = peer::of_certificate(leaf).with_context(chain)?;
        let (_, parsed) = X509Certificate::from_der(leaf).ok().with_context(chain)?;
        let expires = parsed.validity().not_after.timestamp();
        let key = PrivateKeyDer::from_pem_slice(content.key.expose()).context("private key")?;
        let provider = CryptoProvider::get_default().context("no cryptography provider")?;
        let own = CertifiedKey::from_der(certificates.clone(), key, provider)
            .with_context(|| format!("{} does not belong to {}", self.key.display(), chain()))?;
        Ok((peer, Credentials { own: Arc::new(own), clients, servers, expires }))
    }
}

/// The credentials that are in force at each handshake.
#[derive(Debug)]
struct Live(Arc<Identity>);

impl ClientCertVerifier for Live {
    /// No hints: they would name the CA to every stranger, and each peer has one certificate only.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0.credentials().clients.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.credentials().clients.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.credentials().clients.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.credentials().clients.supported_verify_schemes()
    }
}

impl ServerCertVerifier for Live {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let servers = self.0.credentials().servers.clone();
        servers.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.credentials().servers.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.credentials().servers.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.credentials().servers.supported_verify_schemes()
    }
}

impl ResolvesServerCert for Live {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.credentials().own.clone())
    }
}

impl ResolvesClientCert for Live {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.credentials().own.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Makes aws-lc-rs the provider of this process. A provider that is already installed stays, so that all parts of the
/// process use the same one.
fn install_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
