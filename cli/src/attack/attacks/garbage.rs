//! What is no protocol of ours: noise, other protocols, noise after a good preface, noise in good records.

use std::sync::Arc;

use shardkeep_client::wire::preface::Service;

use super::{AsyncAttempt, Field, Line, Tally, by_connection, refused_or_breach, soon};
use crate::attack::{
    attacker::Door,
    line::{End, plain, preface},
    source,
};

/// Greetings of protocols that scanners try on any port.
const FOREIGN: [&[u8]; 5] = [
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"*1\r\n$4\r\nPING\r\n",
];

struct Noise(Vec<u8>);

pub async fn run(field: Arc<Field>, tally: Arc<Tally>) {
    let doors = field.clone();
    by_connection(field, tally, || {
        let door = doors.door();
        let service = if matches!(door, Door::Login(_)) { Service::Login } else { Service::Gateway };
        let opening = preface(service, doors.deployment());
        let mut noise = vec![0; 12 + source::below(2_000)];
        source::fill(&mut noise);
        let bytes = match source::below(4) {
            0 => noise,
            1 => source::pick(&FOREIGN).map_or_else(Vec::new, |foreign| foreign.to_vec()),
            2 => [&opening[..], &noise].concat(),
            _ => [&opening[..], &plain(&noise)].concat(),
        };
        Some((door.at(), Noise(bytes)))
    })
    .await;
}

impl AsyncAttempt for Noise {
    async fn go(self, mut line: Line, field: &Field, tally: &Tally) {
        let end = match line.send(&self.0).await {
            Ok(()) => match line.answer(soon(field)).await.0 {
                // The name server answers noise that happens to be a query.
                End::Answered(_) => line.end(soon(field)).await,
                end => end,
            },
            Err(_) => End::Reset,
        };
        refused_or_breach(tally, &end, &line, "noise");
    }
}
