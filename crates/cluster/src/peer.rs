//! The identity of a caller, as its certificate states it.
//!
//! A certificate names its instance in two subject alternative names: the URI `shardkeep://<kind>/<name>?world=<n>`,
//! which a server reads, and the DNS name `<kind>.shardkeep.internal`, which a client checks like any host name.
//!
//! Replicas that an orchestrator scales may share a certificate with the name `*`. It proves kind and world, but not the
//! name: the replica states its name in the `user-agent` of each call.

use rustls::pki_types::CertificateDer;
use shardkeep_types::{DaemonKind, WorldId};
use tonic::{Request, Status};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

const SCHEME: &str = "shardkeep://";
/// Name in the certificate that all replicas of a kind share.
pub(crate) const SHARED_NAME: &str = "*";

/// A caller, as its certificate names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub kind: DaemonKind,
    pub name: String,
    /// 0: the whole region.
    pub world: WorldId,
    certificate: PeerCertificate,
}

/// The certificate of a caller: its serial number, and whether all replicas of the kind share it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerCertificate {
    /// In hexadecimal. Empty for a [`Peer`] that was made without a certificate.
    pub serial: String,
    pub shared: bool,
}

impl Peer {
    /// A peer without a certificate, for tests and for the issue of certificates.
    pub fn new(kind: DaemonKind, name: impl Into<String>, world: WorldId) -> Self {
        Self { kind, name: name.into(), world, certificate: PeerCertificate::default() }
    }

    /// The same peer with this certificate.
    #[must_use]
    pub fn with_certificate(self, certificate: PeerCertificate) -> Self {
        Self { certificate, ..self }
    }

    pub fn certificate(&self) -> &PeerCertificate {
        &self.certificate
    }

    /// The caller of this request.
    ///
    /// # Errors
    /// `Unauthenticated` when the request did not come through [`crate::Node::serve`].
    pub fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        request
            .extensions()
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Status::unauthenticated("no peer certificate"))
    }

    /// Whether the name is missing: the certificate is shared, and the replica has not stated its name yet.
    pub(crate) fn is_shared(&self) -> bool {
        self.name == SHARED_NAME
    }

    /// The replica behind a shared certificate, by the name that it states (`<kind>/<name> …`).
    pub(crate) fn with_replica_name(&self, user_agent: &str) -> Option<Self> {
        let (kind, name) = user_agent.split(' ').next()?.split_once('/')?;
        let valid = kind.parse() == Ok(self.kind) && is_instance_name(name);
        valid.then(|| Self { name: name.to_owned(), ..self.clone() })
    }

    pub(crate) fn uri(&self) -> String {
        format!("{SCHEME}{}/{}?world={}", self.kind, self.name, self.world)
    }

    fn from_uri(uri: &str) -> Option<Self> {
        let (kind, rest) = uri.strip_prefix(SCHEME)?.split_once('/')?;
        let (name, world) = rest.split_once("?world=")?;
        if name.is_empty() {
            return None;
        }
        Some(Self::new(kind.parse().ok()?, name, WorldId(world.parse().ok()?)))
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// The certificate names no instance of a cluster.
#[derive(Debug, thiserror::Error)]
#[error("the certificate names no instance ({SCHEME}<kind>/<name>?world=<n>)")]
pub struct InvalidPeerCertificate;

pub(crate) fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Peer, InvalidPeerCertificate> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| InvalidPeerCertificate)?;
    let names = parsed.subject_alternative_name().ok().flatten().ok_or(InvalidPeerCertificate)?;
    let peer = names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Peer::from_uri(uri),
        _ => None,
    });
    let peer = peer.ok_or(InvalidPeerCertificate)?;
    let shared = peer.is_shared();
    Ok(peer.with_certificate(PeerCertificate { serial: parsed.raw_serial_as_string(), shared }))
}

/// Whether this may name an instance: 1 to 63 letters, digits, `-`, `_` or `.`, the first a letter or digit.
pub(crate) fn is_instance_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    name.len() <= 63 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain)
}

pub(crate) fn dns_name(kind: DaemonKind) -> String {
    format!("{kind}.shardkeep.internal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_uri_round_trips() {
        let peer = Peer::new(DaemonKind::Zone, "zone-2", WorldId(7));
        assert_eq!(peer.uri(), "shardkeep://zone/zone-2?world=7");
        assert_eq!(Peer::from_uri(&peer.uri()), Some(peer));
        for wrong in ["", "https://zone/a?world=1", "shardkeep://ufo/a?world=1", "shardkeep://zone/?world=1"]
        {
            assert_eq!(Peer::from_uri(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn shared_certificate_accepts_only_valid_replica_names() {
        let shared = Peer::new(DaemonKind::Zone, SHARED_NAME, WorldId(7));
        let peer = shared.with_replica_name("zone/zone-ab12 tonic/0.14.9").unwrap();
        assert_eq!(peer, Peer { name: "zone-ab12".into(), ..shared.clone() });
        for wrong in ["", "tonic/0.14.9", "world/zone-1", "zone/", "zone/*", "zone/a/b"] {
            assert_eq!(shared.with_replica_name(wrong), None, "{wrong}");
        }
    }
}
