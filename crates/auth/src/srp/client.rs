//! Client side of SRP6a: answers a challenge, then verifies that the server knows the verifier.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use shardkeep_names::{PasswordError, prepare_password};
use shardkeep_types::Secret;

use super::{
    Group, SrpError,
    formula::{self, Exchange},
};
use crate::{AccountName, WorkCounter, bignum::Number, crypto::Key};

/// An account name and its prepared password. Nothing reads the password back.
#[derive(Debug, Clone)]
pub struct Credentials {
    account: AccountName,
    password: Secret<String>,
}

/// The fields of `Challenge`.
#[derive(Clone, Copy)]
pub struct Parameters<'a> {
    /// Bits of `N`.
    pub group: u32,
    pub salt: &'a [u8],
    pub b: &'a [u8],
}

impl Credentials {
    /// # Errors
    /// The password is empty, too long, or has a forbidden character.
    pub fn new(account: AccountName, password: &str) -> Result<Self, PasswordError> {
        Ok(Self { account, password: Secret::new(prepare_password(password)?) })
    }

    pub fn account(&self) -> &AccountName {
        &self.account
    }

    /// `secret` is `a`: 32 bytes of fresh randomness.
    ///
    /// # Errors
    /// Fails if the group is unknown, a number is out of bounds, or `B` would reveal the password.
    pub fn answer(&self, challenge: &Parameters<'_>, secret: &Key) -> Result<Answer, SrpError> {
        let group = Group::from_bits(challenge.group).ok_or(SrpError::UnknownGroup)?;
        if challenge.salt.is_empty() || challenge.salt.len() > 64 {
            return Err(SrpError::Malformed("salt"));
        }
        let (n, work) = (&group.parameters().n, &mut WorkCounter::default());
        let b = formula::public_number(group, challenge.b)?;
        let a = Number::from_bytes(secret.expose())?;
        let public = formula::power_of_g(group, &a, work)?.to_bytes();

        let u = formula::u(group, &public, challenge.b)?;
        let x = formula::x(&self.account, self.password.expose().as_bytes(), challenge.salt)?;
        let kv = n.multiply(&formula::k(group)?, &formula::power_of_g(group, &x, work)?)?;
        let s = n.power(&n.subtract(&b, &kv)?, &u.multiply_add(&x, &a)?, work)?;
        let shared = formula::shared(&s);

        let exchange =
            Exchange { group, account: &self.account, salt: challenge.salt, a: &public, b: challenge.b };
        let m1 = exchange.m1(&shared);
        Ok(Answer { m2: Secret::new(formula::m2(&public, &m1, &shared)), public, m1, shared })
    }
}

/// The client's proof. Waits for the server's proof.
#[derive(Debug)]
pub struct Answer {
    public: Vec<u8>,
    m1: [u8; 32],
    m2: Secret<[u8; 32]>,
    shared: Key,
}

impl Answer {
    /// `A`, as sent.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    pub fn m1(&self) -> &[u8; 32] {
        &self.m1
    }

    /// Verifies the server's proof and returns `K`.
    ///
    /// # Errors
    /// Fails if the server does not know the account's verifier.
    pub fn verify(self, m2: &[u8]) -> Result<Key, SrpError> {
        match verify_slices_are_equal(self.m2.expose(), m2) {
            Ok(()) => Ok(self.shared),
            Err(_) => Err(SrpError::Denied),
        }
    }
}
