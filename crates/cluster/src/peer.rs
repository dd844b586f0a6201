//! Who calls: the identity in a peer's certificate.
//!
//! A certificate names its instance in two subject alternative names: the URI `shardkeep://<kind>/<name>?world=<n>`,
//! which a server reads, and the DNS name `<kind>.shardkeep.internal`, which a client checks like any host name.

use rustls::pki_types::CertificateDer;
use shardkeep_types::{DaemonKind, WorldId};
use tonic::{Request, Status};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

const SCHEME: &str = "shardkeep://";

/// The caller, from its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub kind: DaemonKind,
    pub name: String,
    /// 0: of the whole region.
    pub world: WorldId,
}

impl Peer {
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

    pub(crate) fn uri(&self) -> String {
        format!("{SCHEME}{}/{}?world={}", self.kind, self.name, self.world)
    }

    fn from_uri(uri: &str) -> Option<Self> {
        let (kind, rest) = uri.strip_prefix(SCHEME)?.split_once('/')?;
        let (name, world) = rest.split_once("?world=")?;
        if name.is_empty() {
            return None;
        }
        Some(Self { kind: kind.parse().ok()?, name: name.to_owned(), world: WorldId(world.parse().ok()?) })
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// The certificate names nobody of this cluster.
#[derive(Debug, thiserror::Error)]
#[error("the certificate names no instance ({SCHEME}<kind>/<name>?world=<n>)")]
pub struct NotAnInstance;

pub(crate) fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Peer, NotAnInstance> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| NotAnInstance)?;
    let names = parsed.subject_alternative_name().ok().flatten().ok_or(NotAnInstance)?;
    names
        .value
        .general_names
        .iter()
        .find_map(|name| match name {
            GeneralName::URI(uri) => Peer::from_uri(uri),
            _ => None,
        })
        .ok_or(NotAnInstance)
}

pub(crate) fn dns_name(kind: DaemonKind) -> String {
    format!("{kind}.shardkeep.internal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_survive_uris() {
        let peer = Peer { kind: DaemonKind::Zone, name: "zone-2".into(), world: WorldId(7) };
        assert_eq!(peer.uri(), "shardkeep://zone/zone-2?world=7");
        assert_eq!(Peer::from_uri(&peer.uri()), Some(peer));
        for wrong in ["", "https://zone/a?world=1", "shardkeep://ufo/a?world=1", "shardkeep://zone/?world=1"]
        {
            assert_eq!(Peer::from_uri(wrong), None, "{wrong}");
        }
    }
}
