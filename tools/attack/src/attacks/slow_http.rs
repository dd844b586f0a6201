//! HTTP requests to the console and the admin ports, one byte at a time. A share of the attempts are honest requests, which
//! must be answered meanwhile.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use crate::{
    attempt::{ConnectionAttack, answer_deadline, run_per_connection},
    connection::{ConnectionEnd, RawConnection},
    context::AttackContext,
    loopback::Loopback,
    source,
    tally::Tally,
};

/// Pause before each byte of a request.
const BYTE: Duration = Duration::from_millis(250);
/// One in this many attempts is an honest request.
const HONEST_SHARE: usize = 10;

enum HttpRequest {
    Slow,
    /// From the address of honest players.
    Honest(Loopback),
}

pub async fn run(ctx: Arc<AttackContext>, tally: Arc<Tally>) {
    let targets = ctx.clone();
    run_per_connection(ctx, tally, || {
        let target = targets.http()?;
        let honest = source::below(HONEST_SHARE) == 0;
        Some((target, if honest { HttpRequest::Honest(target) } else { HttpRequest::Slow }))
    })
    .await;
}

impl ConnectionAttack for HttpRequest {
    async fn execute(self, mut connection: RawConnection, ctx: &AttackContext, tally: &Tally) {
        match self {
            Self::Slow => send_slowly(&mut connection, ctx, tally).await,
            Self::Honest(target) => {
                let until = answer_deadline(ctx);
                match timeout_at(until, honest_request(target)).await {
                    Ok(Ok(true)) => tally.accepted("honest request answered"),
                    // The end of the attack may leave the server less time than it has.
                    Err(_) if until >= ctx.until() => tally.accepted("still open"),
                    _ => tally.breach(&format!("{target} did not answer an honest request")),
                }
            }
        }
    }
}

async fn send_slowly(connection: &mut RawConnection, ctx: &AttackContext, tally: &Tally) {
    let request = b"GET / HTTP/1.1\r\nhost: localhost\r\nx-filler: ".iter().chain(std::iter::repeat(&b'x'));
    let mut end = ConnectionEnd::Open;
    for byte in request {
        if Instant::now() >= ctx.until() {
            break;
        }
        if connection.send(&[*byte]).await.is_err() {
            end = ConnectionEnd::Reset;
            break;
        }
        end = connection.read_until_close((Instant::now() + BYTE).min(ctx.until())).await;
        if end != ConnectionEnd::Open {
            break;
        }
    }
    tally.record_duration(connection.age());
    match end {
        ConnectionEnd::Open => tally.accepted("still open"),
        end => tally.refused(&end.label()),
    }
}

/// Whether the server answers with HTTP.
async fn honest_request(target: Loopback) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(target.address()).await?;
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut start = [0; 5];
    stream.read_exact(&mut start).await?;
    Ok(&start == b"HTTP/")
}
