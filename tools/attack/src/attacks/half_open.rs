//! Handshakes that stop half-way: after the preface, or after the Challenge.

use std::sync::Arc;

use shardkeep_client::wire::preface::Service;

use crate::{
    attempt::{ConnectionAttack, hello, run_per_connection, unknown_account},
    connection::{ConnectionEnd, RawConnection, preface},
    context::AttackContext,
    source,
    tally::Tally,
};

struct HalfOpen {
    service: Service,
    hello: bool,
}

pub async fn run(ctx: Arc<AttackContext>, tally: Arc<Tally>) {
    let targets = ctx.clone();
    run_per_connection(ctx, tally, || {
        let (service, target) = targets.player_endpoint()?;
        Some((target, HalfOpen { hello: service == Service::Login && source::below(2) == 0, service }))
    })
    .await;
}

impl ConnectionAttack for HalfOpen {
    async fn execute(self, mut connection: RawConnection, ctx: &AttackContext, tally: &Tally) {
        let mut sent = connection.send(&preface(self.service, ctx.deployment())).await;
        if self.hello && sent.is_ok() {
            let name = ctx.victim().map_or_else(unknown_account, str::to_owned);
            sent = connection.send_message(&hello(&name)).await;
        }
        let end = match sent {
            Ok(()) => connection.end(ctx.until()).await,
            Err(_) => ConnectionEnd::Reset,
        };
        tally.record_duration(connection.age());
        match end {
            ConnectionEnd::Open => tally.accepted("still open"),
            end => tally.refused(&end.label()),
        }
    }
}
