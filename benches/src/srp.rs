//! Logins per second of one core: the server's whole share of an SRP6a login, beside the three modular exponentiations
//! that no implementation can do without, in OpenSSL.

use std::time::Duration;

use anyhow::{Context as _, Result};
use shardkeep_auth::{
    AccountName, Work,
    srp::{Credentials, Group, Parameters, Verifier},
};
use shardkeep_types::Secret;

use crate::{
    host,
    table::{Measure, Outcome, Row},
};

const TIME: Duration = Duration::from_secs(3);
/// RFC 5054, appendix A, 2048-bit group.
const N: &str = "AC6BDB41324A9A9BF166DE5E1389582FAF72B6651987EE07FC3192943DB56050A37329CBB4A099ED8193E0757767A13DD52312AB\
4B03310DCD7F48A9DA04FD50E8083969EDB767B0CF6095179A163AB3661A05FBD5FAAAE82918A9962F0B93B855F97993EC975EEAA80D740ADBF4FF74\
7359D041D5C33EA71D281E446B14773BCA97B43A23FB801676BD207A436C6481F1D2B9078717461A5B9D32E688F87748544523B524B0D57D5EA77A27\
75D2ECFA032CFBDBF52FB3786160279004E57AE6AF874E7303CE53299CCC041C7BC308D82A5698F3A8D0C38271AE35F8E9DBFBB694B5C803D89F7AE4\
35DE236D525F54759B65E372FCD68EF20FA7111F9E4AFF73";

pub const LOGINS: Measure = Measure {
    name: "srp",
    what: "SRP6a logins per core-second (2048 bits, server side)",
    reach: ">= 1.0 (three exponentiations in OpenSSL)",
    run,
};

fn run() -> Result<Outcome> {
    let Some(printed) = host::output(
        "python3",
        &[&host::file("peers/openssl_modexp.py").to_string_lossy(), &TIME.as_secs().to_string(), N],
    )?
    else {
        return Ok(Outcome::Skipped("apt install python3 libssl3".into()));
    };
    let peer: f64 = printed.trim().parse().context("the peer printed no number")?;
    let ours = logins_per_second()?;
    Ok(Outcome::Rows(vec![Row {
        case: "",
        ours: format!("{ours:.0} /s"),
        peer: format!("{peer:.0} /s OpenSSL"),
        ratio: Some(ours / peer),
    }]))
}

/// The server's steps alone: the client's answers are made beforehand, for a fixed `b`.
fn logins_per_second() -> Result<f64> {
    let account = AccountName::normalise("bench")?;
    let secret = Secret::new([7; 32]);
    let verifier = || Verifier::create(Group::Bits2048, &account, "correct horse", [9; 16]);
    let stored = verifier()?;
    let (salt, v) = (stored.salt().to_vec(), stored.verifier().clone());
    let challenge = stored.challenge(&secret, &mut Work::default())?;
    let parameters = Parameters { group: 2048, salt: challenge.salt(), b: challenge.public() };
    let answer =
        Credentials::new(account.clone(), "correct horse")?.answer(&parameters, &Secret::new([5; 32]))?;

    let (mut count, started) = (0u32, host::own_cpu());
    while host::own_cpu() - started < TIME {
        let stored = Verifier::stored(account.clone(), 2048, salt.clone(), v.clone())?;
        let challenge = stored.challenge(&secret, &mut Work::default())?;
        challenge.verify(answer.public(), answer.m1(), &mut Work::default())?;
        count += 1;
    }
    Ok(f64::from(count) / (host::own_cpu() - started).as_secs_f64())
}
