//! The formulas of protocol section 7 that client and server share: RFC 5054's padded `k` and `u`, RFC 2945's `K`,
//! `M1` and `M2`, all over SHA-256.

use shardkeep_types::Secret;
use zeroize::Zeroizing;

use super::{Group, SrpError, group::Parameters};
use crate::{
    AccountName, WorkCounter,
    bignum::{ArithmeticError, Number},
    crypto::{Key, sha256},
};

/// `PAD(x)`: leading zero bytes up to the length of `N`. `x` must not be longer.
fn pad(group: Group, x: &[u8]) -> Vec<u8> {
    let mut padded = vec![0; group.bytes().saturating_sub(x.len())];
    padded.extend_from_slice(x);
    padded
}

pub(super) fn k(group: Group) -> Result<Number, ArithmeticError> {
    let Parameters { n_bytes, g_bytes, .. } = group.parameters();
    Number::from_bytes(&sha256(&[n_bytes, &pad(group, g_bytes)]))
}

pub(super) fn x(account: &AccountName, password: &[u8], salt: &[u8]) -> Result<Number, ArithmeticError> {
    let inner = Zeroizing::new(sha256(&[account.as_str().as_bytes(), b":", password]));
    Number::from_bytes(&*Zeroizing::new(sha256(&[salt, &*inner])))
}

/// Computes `u`. Refuses zero.
pub(super) fn u(group: Group, a: &[u8], b: &[u8]) -> Result<Number, SrpError> {
    let u = Number::from_bytes(&sha256(&[&pad(group, a), &pad(group, b)]))?;
    if u.is_zero() { Err(SrpError::Degenerate) } else { Ok(u) }
}

/// Computes `K` from `S`.
pub(super) fn shared(s: &Number) -> Key {
    Secret::new(sha256(&[&Zeroizing::new(s.to_bytes())]))
}

/// The values that both proofs of `K` cover.
pub(super) struct Exchange<'a> {
    pub(super) group: Group,
    pub(super) account: &'a AccountName,
    pub(super) salt: &'a [u8],
    pub(super) a: &'a [u8],
    pub(super) b: &'a [u8],
}

impl Exchange<'_> {
    pub(super) fn m1(&self, shared: &Key) -> [u8; 32] {
        let Parameters { n_bytes, g_bytes, .. } = self.group.parameters();
        let mut mixed = sha256(&[n_bytes]);
        let g_hash = sha256(&[&pad(self.group, g_bytes)]);
        mixed.iter_mut().zip(g_hash).for_each(|(byte, other)| *byte ^= other);
        let account = sha256(&[self.account.as_str().as_bytes()]);
        sha256(&[&mixed, &account, self.salt, self.a, self.b, shared.expose()])
    }
}

pub(super) fn m2(a: &[u8], m1: &[u8; 32], shared: &Key) -> [u8; 32] {
    sha256(&[a, m1, shared.expose()])
}

/// `g ^ exponent`. Uses the group's table if the exponent is short enough, as all secrets of this protocol are.
pub(super) fn power_of_g(
    group: Group,
    exponent: &Number,
    work: &mut WorkCounter,
) -> Result<Number, ArithmeticError> {
    let parameters = group.parameters();
    match parameters.powers_of_g.power(&parameters.n, exponent)? {
        Some(power) => {
            work.exponentiations += 1;
            Ok(power)
        }
        None => parameters.n.power(&parameters.g, exponent, work),
    }
}

/// Parses the peer's public number: not empty, no leading zero byte, not longer than `N`, not 0 modulo `N`. Checks
/// lengths before it calculates.
pub(super) fn public_number(group: Group, bytes: &[u8]) -> Result<Number, SrpError> {
    if bytes.is_empty() || bytes[0] == 0 || bytes.len() > group.bytes() {
        return Err(SrpError::Malformed("public number"));
    }
    let number = group.parameters().n.reduce(&Number::from_bytes(bytes)?)?;
    if number.is_zero() { Err(SrpError::Degenerate) } else { Ok(number) }
}
