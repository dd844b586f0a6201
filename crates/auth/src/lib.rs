//! Who is a player: the SRP6a login, the keys that follow from it, the chain of single-use tickets, and the proofs
//! by which a session is attached and resumed. Pure: randomness comes in as an argument, no clock, no socket.
//! `docs/protocol.md` is the same thing for people (sections 7, 8, 9 and 11), with the vectors the tests read.

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
pub use name::{AccountName, NameError, PasswordError, check_password};

/// The 12 bytes that open every connection, as sent.
pub type Preface = [u8; 12];
