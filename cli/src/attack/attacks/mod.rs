//! The attacks, one file each. Every one goes on for as long as its pace lets it, and counts what became of each try.

mod account_probing;
mod closed_windows;
mod connect_flood;
mod dns_flood;
mod dns_malformed;
mod flood;
mod garbage;
mod half_open;
mod out_of_phase;
mod quic_noise;
mod replays;
mod size_bombs;
mod slow_readers;
mod slow_writers;
mod ticket_guessing;
mod upgrades;
mod wrong_passwords;

use std::{sync::Arc, time::Duration};

use shardkeep_client::wire::{Message, opcode, payload::Hello};
use tokio::{task::JoinSet, time::Instant};

use super::{
    attacker::Field,
    insider::Insider,
    line::{End, Line},
    loopback::Loopback,
    orders::{Account, Attack},
    pace::Pace,
    source,
    tally::Tally,
};

/// How long a server may take to answer or refuse what it need not wait for.
const ANSWER: Duration = Duration::from_secs(10);

pub async fn run(attack: Attack, field: Arc<Field>, tally: Arc<Tally>) {
    let attacking: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = match attack {
        Attack::ConnectFlood => Box::pin(connect_flood::run(field, tally)),
        Attack::HalfOpen => Box::pin(half_open::run(field, tally)),
        Attack::SlowReaders => Box::pin(slow_readers::run(field, tally)),
        Attack::SlowWriters => Box::pin(slow_writers::run(field, tally)),
        Attack::Garbage => Box::pin(garbage::run(field, tally)),
        Attack::Replays => Box::pin(replays::run(field, tally)),
        Attack::OutOfPhase => Box::pin(out_of_phase::run(field, tally)),
        Attack::TicketGuessing => Box::pin(ticket_guessing::run(field, tally)),
        Attack::AccountProbing => Box::pin(account_probing::run(field, tally)),
        Attack::SizeBombs => Box::pin(size_bombs::run(field, tally)),
        Attack::WrongPasswords => Box::pin(wrong_passwords::run(field, tally)),
        Attack::ClosedWindows => Box::pin(closed_windows::run(field, tally)),
        Attack::QuicNoise => Box::pin(quic_noise::run(field, tally)),
        Attack::Upgrades => Box::pin(upgrades::run(field, tally)),
        Attack::DnsFlood => Box::pin(dns_flood::run(field, tally)),
        Attack::DnsMalformed => Box::pin(dns_malformed::run(field, tally)),
    };
    attacking.await;
}

/// Connects to a target and lets `each` deal with it, attempt after attempt, each on a task of its own.
async fn by_connection<F>(
    field: Arc<Field>,
    tally: Arc<Tally>,
    mut target: impl FnMut() -> Option<(Loopback, F)>,
) where
    F: AsyncAttempt,
{
    let (mut pace, places, mut running) = (field.pace(), field.places(), JoinSet::new());
    while pace.next().await {
        let Some((target, attempt)) = target() else { return };
        let Some(place) = places.take(field.until()).await else { break };
        while running.try_join_next().is_some() {}
        tally.attempt();
        let (field, tally) = (field.clone(), tally.clone());
        running.spawn(async move {
            let _place = place;
            match Line::open(target).await {
                Ok(line) => attempt.go(line, &field, &tally).await,
                Err(error) => tally.refused(super::line::unopened(&error)),
            }
        });
    }
    running.join_all().await;
}

/// What an attack does with one connection.
trait AsyncAttempt: Send + 'static {
    fn go(self, line: Line, field: &Field, tally: &Tally) -> impl Future<Output = ()> + Send;
}

/// The session to attack from: the one that is there already, or a new one, tried for as long as the attack goes on.
async fn aboard(
    insider: Option<Insider>,
    field: &Field,
    account: &Account,
    pace: &mut Pace,
    tally: &Tally,
) -> Option<Insider> {
    if insider.is_some() {
        return insider;
    }
    loop {
        match Insider::board(field, account).await {
            Ok(here) => return Some(here),
            Err(error) => tally.remark(&format!("no session to attack from: {error:#}")),
        }
        if !pace.pause(ANSWER / 10).await || !pace.next().await {
            return None;
        }
    }
}

/// Until when an answer is waited for.
fn soon(field: &Field) -> Instant {
    (Instant::now() + ANSWER).min(field.until())
}

/// Counts an attempt of which anything but a refusal is wrong: what the server answers as it answers the honest.
fn refused_or_breach(tally: &Tally, end: &End, line: &Line, what: &str) {
    match end {
        End::Answered(_) => tally.breach(&format!("{what} was answered with {}", end.word())),
        End::Open => tally.accepted("still open"),
        _ => tally.refused(&end.word()),
    }
    tally.held(line.age());
}

/// An honest client's first message.
fn hello(account: &str) -> Message {
    let hello = Hello {
        account: account.to_owned(),
        suites: vec![1, 2],
        groups: vec![2048],
        random: source::random::<32>().to_vec(),
        client_version: 1_000_000,
        ..Hello::default()
    };
    Message::request(opcode::HELLO, 1, &hello)
}

/// A name that no account has.
fn nobody() -> String {
    let mut name = String::from("nobody");
    source::random::<6>().iter().for_each(|byte| name.push(char::from(b'a' + byte % 26)));
    name
}
