//! The attacks, one file each. Each attack makes attempts at the rate of the plan and counts their results.

mod account_probing;
mod closed_windows;
mod connect_flood;
mod dns_flood;
mod dns_malformed;
mod garbage;
mod half_open;
mod out_of_phase;
mod quic_noise;
mod replays;
mod size_bombs;
mod slow_http;
mod slow_readers;
mod slow_writers;
mod ticket_guessing;
mod upgrades;
mod wrong_passwords;

use std::sync::Arc;

use crate::{attack_plan::Attack, context::AttackContext, tally::Tally};

pub async fn run(attack: Attack, ctx: Arc<AttackContext>, tally: Arc<Tally>) {
    let attacking: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = match attack {
        Attack::ConnectFlood => Box::pin(connect_flood::run(ctx, tally)),
        Attack::HalfOpen => Box::pin(half_open::run(ctx, tally)),
        Attack::SlowReaders => Box::pin(slow_readers::run(ctx, tally)),
        Attack::SlowWriters => Box::pin(slow_writers::run(ctx, tally)),
        Attack::Garbage => Box::pin(garbage::run(ctx, tally)),
        Attack::Replays => Box::pin(replays::run(ctx, tally)),
        Attack::OutOfPhase => Box::pin(out_of_phase::run(ctx, tally)),
        Attack::TicketGuessing => Box::pin(ticket_guessing::run(ctx, tally)),
        Attack::AccountProbing => Box::pin(account_probing::run(ctx, tally)),
        Attack::SizeBombs => Box::pin(size_bombs::run(ctx, tally)),
        Attack::WrongPasswords => Box::pin(wrong_passwords::run(ctx, tally)),
        Attack::ClosedWindows => Box::pin(closed_windows::run(ctx, tally)),
        Attack::QuicNoise => Box::pin(quic_noise::run(ctx, tally)),
        Attack::Upgrades => Box::pin(upgrades::run(ctx, tally)),
        Attack::SlowHttp => Box::pin(slow_http::run(ctx, tally)),
        Attack::DnsFlood => Box::pin(dns_flood::run(ctx, tally)),
        Attack::DnsMalformed => Box::pin(dns_malformed::run(ctx, tally)),
    };
    attacking.await;
}
