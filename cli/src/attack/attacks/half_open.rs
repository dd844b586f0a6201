//! Handshakes that stop half-way: after the preface, or after the Challenge.

use std::sync::Arc;

use shardkeep_client::wire::preface::Service;

use super::{AsyncAttempt, Field, Line, Tally, by_connection, hello, nobody};
use crate::attack::{
    line::{End, preface},
    source,
};

struct Half {
    service: Service,
    hello: bool,
}

pub async fn run(field: Arc<Field>, tally: Arc<Tally>) {
    let doors = field.clone();
    by_connection(field, tally, || {
        let (service, target) = doors.player_door()?;
        Some((target, Half { hello: service == Service::Login && source::below(2) == 0, service }))
    })
    .await;
}

impl AsyncAttempt for Half {
    async fn go(self, mut line: Line, field: &Field, tally: &Tally) {
        let mut sent = line.send(&preface(self.service, field.deployment())).await;
        if self.hello && sent.is_ok() {
            let name = field.victim().map_or_else(nobody, str::to_owned);
            sent = line.say(&hello(&name)).await;
        }
        let end = match sent {
            Ok(()) => line.end(field.until()).await,
            Err(_) => End::Reset,
        };
        tally.held(line.age());
        match end {
            End::Open => tally.accepted("still open"),
            end => tally.refused(&end.word()),
        }
    }
}
