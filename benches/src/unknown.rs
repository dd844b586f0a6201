//! Whether the time of login's answers tells which accounts exist. Both kinds of attempts take turns, each on a
//! connection of its own, with a password that is wrong.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use shardkeep_client::{ClientError, Config, raw::Connection};
use shardkeep_wire::{
    Message, opcode,
    payload::{Hello, Proof},
    preface::{Preface, Service},
};

use crate::{
    site::{self, Site},
    table::{Measure, Outcome, Row},
};

const TIME: Duration = Duration::from_secs(12);
const MOST: usize = 1_000;
const GROUP: u32 = 2048;
/// Some number below the group's prime; the server must do its whole work to find that it proves nothing.
const PUBLIC: [u8; 256] = [5; 256];

pub const UNKNOWN: Measure = Measure {
    name: "unknown",
    what: "login's answers about an account that exists, beside one that does not, medians",
    reach: "1.0, give or take noise",
    run,
};

fn run() -> Result<Outcome> {
    site::runtime()?.block_on(measure())
}

async fn measure() -> Result<Outcome> {
    let site = Site::shared().await?;
    site.cluster.account("benchknown", "correct horse battery staple").await?;
    let login = site.cluster.announced("login-1")?.client;
    let (begin, mut known, mut unknown) = (Instant::now(), Times::default(), Times::default());
    let mut count = 0;
    while begin.elapsed() < TIME && count < MOST {
        known.add(attempt(&site.config, &login, "benchknown").await?);
        unknown.add(attempt(&site.config, &login, &format!("nobody{count}")).await?);
        count += 1;
    }
    eprintln!("  {count} attempts of each kind");
    let row = |case, known: Duration, unknown: Duration| {
        let show = |time: Duration| format!("{:.0} us", time.as_secs_f64() * 1e6);
        Row {
            case,
            ours: format!("{} exists", show(known)),
            peer: format!("{} does not", show(unknown)),
            ratio: Some(known.as_secs_f64() / unknown.as_secs_f64()),
        }
    };
    Ok(Outcome::Rows(vec![
        row("Hello to Challenge", median(known.challenges)?, median(unknown.challenges)?),
        row("Proof to refusal", median(known.refusals)?, median(unknown.refusals)?),
    ]))
}

#[derive(Default)]
struct Times {
    challenges: Vec<Duration>,
    refusals: Vec<Duration>,
}

impl Times {
    fn add(&mut self, (challenge, refusal): (Duration, Duration)) {
        self.challenges.push(challenge);
        self.refusals.push(refusal);
    }
}

fn median(mut times: Vec<Duration>) -> Result<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied().context("nothing was measured")
}

/// The times of `Challenge` and of the refusal of a wrong proof.
async fn attempt(config: &Config, login: &str, account: &str) -> Result<(Duration, Duration)> {
    let preface = Preface::new(Service::Login, config.deployment);
    let mut connection = Connection::open(login.parse()?, preface, config.timing.connect).await?;
    let hello = Hello {
        account: account.to_owned(),
        suites: config.suites.iter().map(|suite| suite.number()).collect(),
        groups: vec![GROUP],
        random: vec![1; 32],
        client_version: config.client_version,
        ..Hello::default()
    };
    let begin = Instant::now();
    connection.send(&[Message::request(opcode::HELLO, 1, &hello)]).await?;
    connection.next().await.context("no challenge")?;
    let challenge = begin.elapsed();

    let proof = Proof { a: PUBLIC.to_vec(), m1: vec![0; 32] };
    let begin = Instant::now();
    connection.send(&[Message::request(opcode::PROOF, 1, &proof)]).await?;
    match connection.next().await {
        Err(ClientError::Refused(_)) => Ok((challenge, begin.elapsed())),
        Err(error) => Err(error).context("instead of a refusal"),
        Ok(_) => bail!("a proof made of nothing was taken"),
    }
}
