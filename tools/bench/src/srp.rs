//! Logins per second of one core: the server's whole share of an SRP6a login, beside the three modular exponentiations
//! that no implementation can do without, in OpenSSL.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crypto_bigint::{
    Odd, U256, U2048,
    modular::{MontyForm, MontyParams},
};
use num_bigint::BigUint;
use shardkeep_auth::{
    AccountName, WorkCounter,
    srp::{Answer, Challenge, Credentials, Group, Parameters, Verifier},
};
use shardkeep_types::Secret;

use crate::{
    host,
    table::{Benchmark, Outcome, Row},
};

const DURATION: Duration = Duration::from_secs(3);
/// The server's `b`.
const SECRET: [u8; 32] = [7; 32];
/// RFC 5054, appendix A, 2048-bit group.
const N: &str = "AC6BDB41324A9A9BF166DE5E1389582FAF72B6651987EE07FC3192943DB56050A37329CBB4A099ED8193E0757767A13DD52312AB\
4B03310DCD7F48A9DA04FD50E8083969EDB767B0CF6095179A163AB3661A05FBD5FAAAE82918A9962F0B93B855F97993EC975EEAA80D740ADBF4FF74\
7359D041D5C33EA71D281E446B14773BCA97B43A23FB801676BD207A436C6481F1D2B9078717461A5B9D32E688F87748544523B524B0D57D5EA77A27\
75D2ECFA032CFBDBF52FB3786160279004E57AE6AF874E7303CE53299CCC041C7BC308D82A5698F3A8D0C38271AE35F8E9DBFBB694B5C803D89F7AE4\
35DE236D525F54759B65E372FCD68EF20FA7111F9E4AFF73";

/// Two exponentiations with a 256-bit exponent: what a proof costs.
type Pair = fn(&Numbers) -> bool;

/// Other libraries for big numbers: a constant-time one in pure Rust, and a common one that is not constant-time.
const OTHER_LIBRARIES: [(&str, &str, Pair); 2] = [
    ("a proof, beside two exponentiations", "crypto-bigint", crypto_bigint),
    ("a proof, beside two exponentiations", "num-bigint", num_bigint),
];

pub const LOGINS: Benchmark = Benchmark {
    name: "srp",
    label: "SRP6a logins per core-second (2048 bits, server side)",
    target: ">= 1.0 (three exponentiations in OpenSSL)",
    run,
};

fn run() -> Result<Outcome> {
    let Some(peer) = openssl()? else { return Ok(Outcome::Skipped(HOW_TO_INSTALL.into())) };
    let row = |case, ours: f64, peer: f64, of: &str| Row {
        case,
        ours: format!("{ours:.0} /s"),
        peer: format!("{peer:.0} /s {of}"),
        ratio: Some(ours / peer),
    };
    let login = Login::new(2048)?;
    let (logins, challenges) =
        (per_second(|| login.complete())?, per_second(|| login.challenge().map(drop))?);
    let proofs = 1.0 / (1.0 / logins - 1.0 / challenges);
    let mut rows = vec![
        row("", logins, peer, "OpenSSL"),
        row("the challenge, by the table for g", challenges, 3.0 * peer, "OpenSSL, any base"),
        row("the proof", proofs, 1.5 * peer, "OpenSSL, any base"),
    ];
    let numbers = Numbers::new()?;
    for (case, library, pair) in OTHER_LIBRARIES {
        let pairs = per_second(|| {
            ensure!(pair(&numbers), "a power that is nothing");
            Ok(())
        })?;
        rows.push(row(case, proofs, pairs, library));
    }
    for (case, bits) in [("group of 3072 bits", 3072), ("group of 4096 bits", 4096)] {
        let login = Login::new(bits)?;
        rows.push(row(case, per_second(|| login.complete())?, peer, "OpenSSL with 2048"));
    }
    Ok(Outcome::Rows(rows))
}

pub const HOW_TO_INSTALL: &str = "apt install python3 libssl3";

/// Three exponentiations per core-second of the installed OpenSSL.
pub fn openssl() -> Result<Option<f64>> {
    let script = host::file("peers/openssl_modexp.py");
    let printed = host::output("python3", &[&script.to_string_lossy(), &DURATION.as_secs().to_string(), N])?;
    printed.map(|printed| printed.trim().parse().context("the peer printed no number")).transpose()
}

/// The server's steps alone: the client's answers are made beforehand, for a fixed `b`.
struct Login {
    account: AccountName,
    group: Group,
    salt: Vec<u8>,
    verifier: Secret<Vec<u8>>,
    answer: Answer,
}

impl Login {
    fn new(bits: u32) -> Result<Self> {
        let group = Group::from_bits(bits).context("a group of ours")?;
        let account = AccountName::normalise("bench")?;
        let stored = Verifier::create(group, &account, "correct horse", [9; 16])?;
        let (salt, verifier) = (stored.salt().to_vec(), stored.stored_form()?);
        let challenge = stored.challenge(&Secret::new(SECRET), &mut WorkCounter::default())?;
        let parameters = Parameters { group: bits, salt: challenge.salt(), b: challenge.public() };
        let credentials = Credentials::new(account.clone(), "correct horse")?;
        let answer = credentials.answer(&parameters, &Secret::new([5; 32]))?;
        Ok(Self { account, group, salt, verifier, answer })
    }

    fn challenge(&self) -> Result<Challenge> {
        let (salt, verifier) = (self.salt.clone(), self.verifier.clone());
        let stored = Verifier::stored(self.account.clone(), self.group.bits(), salt, verifier)?;
        Ok(stored.challenge(&Secret::new(SECRET), &mut WorkCounter::default())?)
    }

    fn complete(&self) -> Result<()> {
        self.challenge()?.verify(self.answer.public(), self.answer.m1(), &mut WorkCounter::default())?;
        Ok(())
    }
}

fn per_second(once: impl Fn() -> Result<()>) -> Result<f64> {
    let (mut count, started) = (0u32, host::own_cpu());
    while host::own_cpu() - started < DURATION {
        once()?;
        count += 1;
    }
    Ok(f64::from(count) / (host::own_cpu() - started).as_secs_f64())
}

/// A modulus, a base and an exponent as bytes, the highest first.
struct Numbers {
    n: Vec<u8>,
    base: Vec<u8>,
    exponent: Vec<u8>,
}

impl Numbers {
    fn new() -> Result<Self> {
        let digit = |at: usize| u8::from_str_radix(&N[at..at + 2], 16);
        let n = (0..N.len()).step_by(2).map(digit).collect::<Result<Vec<u8>, _>>()?;
        Ok(Self { base: vec![0x5a; n.len()], exponent: vec![0xa5; 32], n })
    }
}

fn crypto_bigint(numbers: &Numbers) -> bool {
    let Some(n) = Odd::new(U2048::from_be_slice(&numbers.n)).into_option() else { return false };
    let base = MontyForm::new(&U2048::from_be_slice(&numbers.base), MontyParams::new(n));
    let exponent = U256::from_be_slice(&numbers.exponent);
    base.pow(&exponent).pow(&exponent).retrieve() != U2048::ZERO
}

fn num_bigint(numbers: &Numbers) -> bool {
    let [n, base, exponent] =
        [&numbers.n, &numbers.base, &numbers.exponent].map(|bytes| BigUint::from_bytes_be(bytes));
    base.modpow(&exponent, &n).modpow(&exponent, &n).bits() > 0
}
