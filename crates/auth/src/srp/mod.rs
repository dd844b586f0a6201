//! SRP6a: the client proves the password without sending it, and both sides derive a shared secret. The types
//! enforce the order: each step consumes the one before, so no step can be repeated or skipped.
//!
//! ```text
//! client                                        server
//!   Credentials                                   Verifier  (of the account, or a decoy)
//!       │         ── account ──────────────▶          │ challenge(b)
//!       │         ◀───── group, salt, B ────      Challenge
//!       │ answer(…, a)                                │
//!   Answer        ── A, M1 ────────────────▶          │ verify(A, M1)
//!       │         ◀──────────────────── M2 ──     Session → K
//!       │ verify(M2)
//!       ▼ K
//! ```
//!
//! ```
//! use shardkeep_auth::{AccountName, WorkCounter, srp::{Credentials, Group, Verifier, Parameters}};
//! use shardkeep_types::Secret;
//!
//! # fn main() -> Result<(), shardkeep_auth::srp::SrpError> {
//! let account = AccountName::normalise("Alice").unwrap();
//! // When the account is created:
//! let verifier = Verifier::create(Group::Bits2048, &account, "secret", [9; 16])?;
//!
//! let mut work = WorkCounter::default();
//! let challenge = verifier.challenge(&Secret::new([2; 32]), &mut work)?;
//! let received = Parameters { group: 2048, salt: challenge.salt(), b: challenge.public() };
//! let answer = Credentials::new(account, "secret").unwrap().answer(&received, &Secret::new([3; 32]))?;
//! let session = challenge.verify(answer.public(), answer.m1(), &mut work)?;
//! let k = answer.verify(session.m2())?;
//! assert_eq!(&k, session.shared());
//! assert_eq!(work.exponentiations, 3);
//! # Ok(()) }
//! ```

mod client;
mod formula;
mod group;
mod server;

pub use client::{Answer, Credentials, Parameters};
pub use group::Group;
pub use server::{Challenge, Session, Verifier};

use shardkeep_names::PasswordError;

use crate::bignum::ArithmeticError;

/// Length of an account's salt.
pub const SALT_BYTES: usize = 16;

/// Reason why an exchange failed. All but the last are the peer's fault.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SrpError {
    #[error("malformed {0}")]
    Malformed(&'static str),
    #[error("a public number is 0 modulo N, or u is 0")]
    Degenerate,
    #[error("a group this side does not know")]
    UnknownGroup,
    #[error("wrong proof")]
    Denied,
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Arithmetic(#[from] ArithmeticError),
}

impl SrpError {
    /// Metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Degenerate => "degenerate",
            Self::UnknownGroup => "unknown_group",
            Self::Denied => "denied",
            Self::Password(_) => "password",
            Self::Arithmetic(_) => "arithmetic",
        }
    }
}
