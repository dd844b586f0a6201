//! Keys derived from a login's shared secret (protocol section 7): the record keys of the login connection, the
//! first link of the ticket chain, and two MACs that protect the plain messages against changes.

use crate::{
    crypto::{Key, Mac, MacKey, extract_parts, mac},
    hybrid::HybridSecret,
    ticket::TicketChain,
};

/// Everything derived from `K` and the transcript of `Hello`, `Challenge` and `Proof`.
#[derive(Debug)]
pub struct LoginKeys {
    /// Seals the client's records.
    pub client: Key,
    /// Seals the server's records.
    pub server: Key,
    pub chain: TicketChain,
    server_finished: Key,
    client_finished: Key,
}

impl LoginKeys {
    /// `shared` is SRP's `K`, `hybrid` the secret of the key shares if both sides sent one, `th1` the hash of the
    /// transcript after `Proof`.
    pub fn derive(shared: &Key, hybrid: Option<&HybridSecret>, th1: &[u8; 32]) -> Self {
        let hybrid: &[u8] = hybrid.map_or(&[], |secret| secret.expose());
        let root = MacKey::prk(&extract_parts(th1, &[shared.expose(), hybrid]));
        Self {
            client: root.expand("shardkeep v1 login client key"),
            server: root.expand("shardkeep v1 login server key"),
            chain: TicketChain::new(root.expand("shardkeep v1 ticket chain")),
            server_finished: root.expand("shardkeep v1 login server finished"),
            client_finished: root.expand("shardkeep v1 login client finished"),
        }
    }

    /// `Verified.finished`, over the transcript up to `Proof`.
    pub fn server_finished(&self, th1: &[u8; 32]) -> Mac {
        mac(&self.server_finished, &[th1])
    }

    /// `Finished.finished`, over the transcript up to `Verified`.
    pub fn client_finished(&self, th2: &[u8; 32]) -> Mac {
        mac(&self.client_finished, &[th2])
    }
}
