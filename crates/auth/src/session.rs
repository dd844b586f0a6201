//! Attaching and resuming a session (protocol sections 9 and 11). The holder of a ticket key or resume key proves it
//! by a MAC over both sides' fresh randomness, and both derive new keys from the whole exchange. This uses only
//! symmetric cryptography, so a gateway admits a player in microseconds.
//!
//! ```
//! use shardkeep_auth::session::{Proof, SessionKeys};
//! # let (key, preface, id) = (shardkeep_types::Secret::new([7; 32]), [0; 12], [1; 16]);
//! // Client: the value of `Attach.mac`, and the expected value of `Attached.mac`.
//! let proof = Proof::attach(&key);
//! let mac = proof.client(&preface, &id, &[2; 32], &[1, 2]);
//! let expected = proof.server(&preface, b"the Attach message", &[3; 32], 1, 0);
//! // Both sides, after the MACs are checked:
//! let keys = SessionKeys::derive(&key, &preface, b"the Attach message", b"the Attached message");
//! # assert!(!mac.matches(expected.as_bytes())); let _ = keys;
//! ```

use crate::crypto::{Key, Mac, MacKey, expand, extract, sha256};

/// Value of `Attached.key`.
pub mod key_source {
    /// Attach: the ticket key.
    pub const TICKET: u8 = 0;
    /// Resume: the resume key of the gateway.
    pub const GATEWAY: u8 = 1;
    /// Resume: the resume key of the world.
    pub const WORLD: u8 = 2;
}

/// Proof of possession of a ticket key or resume key, for either side.
pub struct Proof(MacKey);

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proof(***)")
    }
}

impl Proof {
    /// Proof for `Attach`, by the ticket's key.
    pub fn attach(ticket_key: &Key) -> Self {
        Self(MacKey::prk(&expand(ticket_key, "shardkeep v1 attach mac")))
    }

    /// Proof for `Resume`, by the gateway's or the world's resume key.
    pub fn resume(resume_key: &Key) -> Self {
        Self(MacKey::prk(&expand(resume_key, "shardkeep v1 resume mac")))
    }

    /// `Attach.mac`, `Resume.gateway_mac` or `Resume.world_mac`. `preface` is that of [`crate::ChannelBinding`],
    /// `id` the ticket's or session's id, `random` the client's 32 bytes, `suites` the offered numbers in order,
    /// known or not (more than 255 match nothing).
    pub fn client(&self, preface: &[u8], id: &[u8; 16], random: &[u8; 32], suites: &[u8]) -> Mac {
        let count = u8::try_from(suites.len()).unwrap_or(u8::MAX);
        self.0.mac(&[b"client", preface, id, random, &[count], suites])
    }

    /// `Attached.mac`. `request` is the whole `Attach` or `Resume` message as sent, `random` the server's 32 bytes,
    /// `suite` the chosen one, `key` one of [`key_source`].
    pub fn server(&self, preface: &[u8], request: &[u8], random: &[u8; 32], suite: u8, key: u8) -> Mac {
        self.0.mac(&[b"server", &sha256(&[preface, request]), random, &[suite, key]])
    }
}

/// Keys of a session on one connection, and resume keys for the next.
#[derive(Debug, Clone)]
pub struct SessionKeys {
    /// Seals the client's records.
    pub client: Key,
    /// Seals the server's records.
    pub server: Key,
    /// Seals the server's datagrams, on lanes that have them.
    pub datagrams: Key,
    /// Replaces the gateway's resume key once the client has confirmed.
    pub gateway_resume: Key,
    /// Replaces the world's resume key after an attach, or a resume that used it.
    pub world_resume: Key,
}

impl SessionKeys {
    /// `key` is the proved key, `request` the whole `Attach` or `Resume` message, `attached` the whole reply, both
    /// without the record length.
    pub fn derive(key: &Key, preface: &[u8], request: &[u8], attached: &[u8]) -> Self {
        let secret = MacKey::prk(&extract(&sha256(&[preface, request, attached]), key));
        Self {
            client: secret.expand("shardkeep v1 session client key"),
            server: secret.expand("shardkeep v1 session server key"),
            datagrams: secret.expand("shardkeep v1 session datagram key"),
            gateway_resume: secret.expand("shardkeep v1 gateway resume"),
            world_resume: secret.expand("shardkeep v1 world resume"),
        }
    }
}
