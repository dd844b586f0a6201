//! UDP: one thread per socket receives, answers and sends. A thread that blocks in the kernel needs two system calls per
//! batch. A task of the async runtime would also pay for each wake-up.

use std::{net::UdpSocket, thread};

use anyhow::Context;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{batch::Batch, responder::Responder};

/// Answers queries until `stop`.
pub(crate) async fn serve(
    socket: UdpSocket,
    responder: Responder,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (done, ended) = oneshot::channel();
    // supervision: a panic drops `done`, and this task fails.
    thread::Builder::new()
        .name("dns-udp".into())
        .spawn(move || done.send(answer(&socket, responder, &stop)))
        .context("can not start a thread")?;
    ended.await.context("the thread has panicked")?
}

fn answer(socket: &UdpSocket, mut responder: Responder, stop: &CancellationToken) -> anyhow::Result<()> {
    let mut batch = Batch::new(socket).context("UDP socket")?;
    while !stop.is_cancelled() {
        if batch.receive(socket).context("receive")? == 0 {
            continue;
        }
        let now = responder.now();
        batch.answer(|packet, from, out| responder.answer(packet, from, now, out));
        let unsent = batch.send(socket);
        let counters = responder.counters();
        counters.batches.increment(1);
        counters.unsent.increment(unsent);
    }
    Ok(())
}
