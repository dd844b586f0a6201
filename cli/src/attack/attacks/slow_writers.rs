//! An honest opening, a byte at a time.

use std::{sync::Arc, time::Duration};

use shardkeep_client::wire::preface::Service;
use tokio::time::Instant;

use super::{AsyncAttempt, Field, Line, Tally, by_connection, hello, nobody};
use crate::attack::{
    attacker::Door,
    line::{End, plain, preface},
    source,
};

/// One byte each: within the server's patience with a silent client, far beyond it with a handshake.
const BYTE: Duration = Duration::from_millis(150);

struct Slow(Vec<u8>);

pub async fn run(field: Arc<Field>, tally: Arc<Tally>) {
    let doors = field.clone();
    by_connection(field, tally, || {
        let door = doors.door();
        let opening = match door {
            Door::Login(_) => {
                let hello = plain(&hello(&nobody()).to_bytes());
                [&preface(Service::Login, doors.deployment())[..], &hello].concat()
            }
            Door::Gateway(_) => {
                let record = plain(&source::random::<200>());
                [&preface(Service::Gateway, doors.deployment())[..], &record].concat()
            }
            // A length, and the query that it promises.
            Door::Dns(_) => [&[0, 200][..], &[0; 200]].concat(),
        };
        Some((door.at(), Slow(opening)))
    })
    .await;
}

impl AsyncAttempt for Slow {
    async fn go(self, mut line: Line, field: &Field, tally: &Tally) {
        let mut end = End::Open;
        for byte in &self.0 {
            if Instant::now() >= field.until() || line.send(&[*byte]).await.is_err() {
                break;
            }
            end = line.end((Instant::now() + BYTE).min(field.until())).await;
            if end != End::Open {
                break;
            }
        }
        if end == End::Open {
            end = line.end(field.until()).await;
        }
        tally.held(line.age());
        match end {
            End::Open => tally.accepted("still open"),
            end => tally.refused(&end.word()),
        }
    }
}
