//! An honest opening, a byte at a time.

use std::{sync::Arc, time::Duration};

use shardkeep_client::wire::preface::Service;
use tokio::time::Instant;

use crate::{
    attempt::{ConnectionAttack, hello, run_per_connection, unknown_account},
    connection::{ConnectionEnd, RawConnection, plain_record, preface},
    context::{AttackContext, Endpoint},
    source,
    tally::Tally,
};

/// One byte each: within the server's patience with a silent client, far beyond it with a handshake.
const BYTE: Duration = Duration::from_millis(150);

struct SlowWrite(Vec<u8>);

pub async fn run(ctx: Arc<AttackContext>, tally: Arc<Tally>) {
    let targets = ctx.clone();
    run_per_connection(ctx, tally, || {
        let endpoint = targets.endpoint();
        let opening = match endpoint {
            Endpoint::Login(_) => {
                let hello = plain_record(&hello(&unknown_account()).to_bytes());
                [&preface(Service::Login, targets.deployment())[..], &hello].concat()
            }
            Endpoint::Gateway(_) => {
                let record = plain_record(&source::random::<200>());
                [&preface(Service::Gateway, targets.deployment())[..], &record].concat()
            }
            // A length, and the query that it promises.
            Endpoint::Dns(_) => [&[0, 200][..], &[0; 200]].concat(),
        };
        Some((endpoint.at(), SlowWrite(opening)))
    })
    .await;
}

impl ConnectionAttack for SlowWrite {
    async fn execute(self, mut connection: RawConnection, ctx: &AttackContext, tally: &Tally) {
        let mut end = ConnectionEnd::Open;
        for byte in &self.0 {
            if Instant::now() >= ctx.until() || connection.send(&[*byte]).await.is_err() {
                break;
            }
            end = connection.end((Instant::now() + BYTE).min(ctx.until())).await;
            if end != ConnectionEnd::Open {
                break;
            }
        }
        if end == ConnectionEnd::Open {
            end = connection.end(ctx.until()).await;
        }
        tally.record_duration(connection.age());
        match end {
            ConnectionEnd::Open => tally.accepted("still open"),
            end => tally.refused(&end.label()),
        }
    }
}
