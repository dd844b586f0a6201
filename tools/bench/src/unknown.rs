//! Tests whether the time of login's answers tells which accounts exist. Attempts with existing and with unknown names take
//! turns, each on a new connection and with a wrong password. The names repeat, and the order changes from turn to turn.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use shardkeep_client::{ClientError, Config, raw::Connection};
use shardkeep_wire::{
    Message, opcode,
    payload::{Hello, Proof},
    preface::{Preface, Service},
};

use crate::{
    fixture::{self, Fixture},
    mann_whitney,
    table::{Benchmark, Outcome, Row},
};

const DURATION: Duration = Duration::from_secs(20);
const MAX_ATTEMPTS: usize = 4_000;
/// Names of each kind.
const NAMES: usize = 8;
const GROUP: u32 = 2048;
/// Some number below the group's prime; the server must do its whole work to find that it proves nothing.
const PUBLIC: [u8; 256] = [5; 256];

pub const UNKNOWN: Benchmark = Benchmark {
    name: "unknown",
    label: "login's answers about accounts that exist, beside some that do not: medians, and ranks (Mann-Whitney)",
    target: "1.0, within 3.3 standard deviations",
    run,
};

fn run() -> Result<Outcome> {
    fixture::runtime()?.block_on(measure())
}

async fn measure() -> Result<Outcome> {
    let fixture = Fixture::shared().await?;
    let names = |prefix| (0..NAMES).map(move |number| format!("{prefix}{number}")).collect::<Vec<_>>();
    let (existing, absent) = (names("benchknown"), names("benchabsent"));
    for name in &existing {
        fixture.cluster.account(name, "correct horse battery staple").await?;
    }
    let login = fixture.cluster.announcement("login-1")?.client;
    let (begin, mut known, mut unknown) = (Instant::now(), Times::default(), Times::default());
    let mut count = 0;
    while begin.elapsed() < DURATION && count < MAX_ATTEMPTS {
        let (one, other) = (&existing[count % NAMES], &absent[count % NAMES]);
        if (count / NAMES).is_multiple_of(2) {
            known.add(attempt(&fixture.config, &login, one).await?);
            unknown.add(attempt(&fixture.config, &login, other).await?);
        } else {
            unknown.add(attempt(&fixture.config, &login, other).await?);
            known.add(attempt(&fixture.config, &login, one).await?);
        }
        count += 1;
    }
    eprintln!("  {count} attempts of each kind");
    let mut rows = Vec::new();
    for (case, ranked, known, unknown) in [
        ("Hello to Challenge", "the same, by rank", known.challenges, unknown.challenges),
        ("Proof to refusal", "the same, by rank", known.refusals, unknown.refusals),
    ] {
        let compared =
            mann_whitney::compare(&seconds(&known), &seconds(&unknown)).context("too few attempts")?;
        let (known, unknown) = (median(known)?, median(unknown)?);
        let show = |time: Duration| format!("{:.0} us", time.as_secs_f64() * 1e6);
        rows.push(Row {
            case,
            ours: format!("{} exists", show(known)),
            peer: format!("{} does not", show(unknown)),
            ratio: Some(known.as_secs_f64() / unknown.as_secs_f64()),
        });
        rows.push(Row {
            case: ranked,
            ours: format!("slower with a chance of {:.3}", compared.probability_larger),
            peer: format!("0.5; {:+.1} standard deviations", compared.deviations),
            ratio: Some(compared.probability_larger / 0.5),
        });
    }
    Ok(Outcome::Rows(rows))
}

fn seconds(times: &[Duration]) -> Vec<f64> {
    times.iter().map(Duration::as_secs_f64).collect()
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
