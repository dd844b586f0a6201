//! Development certificates: a certificate authority (CA) in a folder, and certificates that name kind, instance and
//! world. A production cluster brings certificates of another CA with the same names (see [`crate::Peer`]).
//!
//! | file | content |
//! | --- | --- |
//! | `ca.pem`, `ca.key` | the CA |
//! | `<name>.pem`, `<name>.key` | one instance, from [`issue`] |
//! | `<kind>.pem`, `<kind>.key` | all replicas of a kind, from [`issue_shared`] |
//! | `players.pem`, `players.key` | what login and gateways show to players, from [`issue_players`] |
//! | `issued` | serial number and file name of every certificate that the CA has signed |
//! | `revoked.pem` | the revocation list, from [`revoke`] |
//!
//! Only the owner can read a key. Every function may be called again: it keeps a file that is valid, and replaces a
//! certificate that expires within [`RENEW_BEFORE`].

mod authority;
mod files;
mod issue;
mod revoke;

pub use authority::{CERTIFICATE_LIFETIME, RENEW_BEFORE, make_ca};
pub use files::Files;
pub use issue::{issue, issue_players, issue_shared};
pub use revoke::revoke;
