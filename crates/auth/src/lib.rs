//! Authentication of players: SRP6a login, the keys derived from it, the chain of single-use tickets, and the proofs
//! that attach and resume a session. This crate is pure: randomness is an argument, and there is no clock and no
//! socket. `docs/protocol.md` specifies the same (sections 7, 8, 9 and 11) and contains the vectors that the tests
//! read.

mod bignum;
mod binding;
mod crypto;
pub mod fuzz;
pub mod hybrid;
pub mod login_keys;
mod name;
pub mod puzzle;
pub mod registration;
pub mod session;
pub mod srp;
pub mod ticket;
pub mod totp;

pub use bignum::WorkCounter;
pub use binding::ChannelBinding;
pub use crypto::{Key, Mac, Transcript};
pub use name::{AccountName, NameError};
pub use shardkeep_names::{PasswordError, prepare_password};

/// The 12 bytes that open every connection, as sent.
pub type Preface = [u8; 12];
