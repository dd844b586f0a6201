//! WebSockets that go wrong: an upgrade that stops half-way, one with silence behind it, frames of noise, frames without
//! a mask, text, and lengths that lie.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    attempt::{ANSWER_TIMEOUT, ConnectionAttack, answer_deadline, run_per_connection},
    connection::{ConnectionEnd, RawConnection, preface},
    context::AttackContext,
    source,
    tally::Tally,
};

const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// A header that never ends.
const LONG: usize = 32 << 10;

struct Upgrade {
    opening: Vec<u8>,
    /// Waits for as long as the server bears it; else until it has judged what came.
    silent: bool,
}

pub async fn run(ctx: Arc<AttackContext>, tally: Arc<Tally>) {
    let targets = ctx.clone();
    run_per_connection(ctx, tally, || {
        let (service, target) = targets.player_endpoint()?;
        Some((target, upgrade(&preface(service, targets.deployment()))))
    })
    .await;
}

fn upgrade(preface: &[u8]) -> Upgrade {
    let mut noise = vec![0; 12 + source::below(500)];
    source::fill(&mut noise);
    // Reserved bits: else it may be the beginning of a frame whose rest the server waits for, as it should.
    noise[0] |= 0x70;
    let (behind, silent) = match source::below(7) {
        0 => return Upgrade { opening: UPGRADE[..UPGRADE.len() / 2].to_vec(), silent: true },
        1 => {
            let endless = [&UPGRADE[..UPGRADE.len() - 2], b"X: ", &[b'x'; LONG][..]].concat();
            return Upgrade { opening: endless, silent: true };
        }
        2 => (Vec::new(), true),
        3 => (noise, false),
        // Whole, and without the mask that a client's frames must have.
        4 => ([&[0x82, 12][..], preface].concat(), false),
        5 => (masked(0x81, preface), false),
        // A frame of 2^63 - 1 bytes.
        _ => ([&[0x82, 0xff, 0x7f][..], &[0xff; 7], &[0; 4], preface].concat(), false),
    };
    Upgrade { opening: [UPGRADE, &behind].concat(), silent }
}

/// A frame of at most 125 bytes, masked with zeros.
fn masked(head: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap_or_default().min(125);
    [&[head, 0x80 | length, 0, 0, 0, 0], &payload[..length.into()]].concat()
}

impl ConnectionAttack for Upgrade {
    async fn execute(self, mut connection: RawConnection, ctx: &AttackContext, tally: &Tally) {
        let judged_by = Instant::now() + ANSWER_TIMEOUT;
        let until = if self.silent { ctx.until() } else { answer_deadline(ctx) };
        let end = match connection.send(&self.opening).await {
            Ok(()) => connection.read_until_close(until).await,
            Err(_) => ConnectionEnd::Reset,
        };
        tally.record_duration(connection.age());
        match end {
            // The end of the attack may leave the server less time than it has.
            ConnectionEnd::Open if self.silent || until < judged_by => tally.accepted("still open"),
            ConnectionEnd::Open => tally.breach("a WebSocket's nonsense was borne"),
            end => tally.refused(&end.label()),
        }
    }
}
