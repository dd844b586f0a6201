//! Many connections that each ask, wait for the answer, and ask again, while one server process is watched.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use shardkeep_client::session::Session;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{MissedTickBehavior, interval_at, sleep},
};

use crate::host;

const WARM_UP: Duration = Duration::from_secs(1);
const TIME: Duration = Duration::from_secs(4);
const STORM_DURATION: Duration = Duration::from_secs(5);
/// For what a server still does after its last client has left.
const SETTLE: Duration = Duration::from_millis(500);
pub const REQUEST: [u8; 64] = [0x5a; 64];

/// One connection's way to ask.
pub trait Client: Send + 'static {
    fn round_trip(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// The cost for the server.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    pub trips_per_second: f64,
    pub cpu_per_trip: Duration,
}

/// Runs all clients, each at `interval` or as fast as answers come, and watches the CPU time of the server `pid`.
pub async fn drive<C: Client>(
    clients: Vec<C>,
    interval: Option<Duration>,
    pid: u32,
) -> Result<(Cost, Vec<C>)> {
    let (round_trips, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, begin) = (u32::try_from(clients.len())?, tokio::time::Instant::now());
    let mut running = JoinSet::new();
    for (index, mut client) in (0u32..).zip(clients) {
        let (round_trips, stop) = (round_trips.clone(), stop.clone());
        let mut ticks = interval.map(|interval| interval_at(begin + interval * index / count, interval));
        ticks.iter_mut().for_each(|ticks| ticks.set_missed_tick_behavior(MissedTickBehavior::Delay));
        running.spawn(async move {
            while !stop.load(Relaxed) {
                if let Some(ticks) = &mut ticks {
                    ticks.tick().await;
                }
                client.round_trip().await?;
                round_trips.fetch_add(1, Relaxed);
            }
            anyhow::Ok(client)
        });
    }
    sleep(WARM_UP).await;
    let (cpu, before, start) = (host::cpu_of(pid)?, round_trips.load(Relaxed), Instant::now());
    sleep(TIME).await;
    let (cpu, made, took) = (host::cpu_of(pid)? - cpu, round_trips.load(Relaxed) - before, start.elapsed());
    stop.store(true, Relaxed);
    let mut clients = Vec::new();
    while let Some(client) = running.join_next().await {
        clients.push(client??);
    }
    ensure!(made > 0, "no round trip was made");
    let cpu_per_trip = Duration::from_secs_f64(cpu.as_secs_f64() / made as f64);
    Ok((Cost { trips_per_second: made as f64 / took.as_secs_f64(), cpu_per_trip }, clients))
}

/// How many times `once` succeeds for each CPU second of the processes, called with the number of the client; it says
/// whether there is more to do.
pub async fn per_cpu_second<F: Future<Output = Result<bool>> + Send>(
    pids: &[u32],
    clients: usize,
    once: impl Fn(usize) -> F + Clone + Send + Sync + 'static,
) -> Result<f64> {
    let cpu = || pids.iter().map(|pid| host::cpu_of(*pid)).sum::<Result<Duration>>();
    let (done, end, before) = (Arc::new(AtomicU64::new(0)), Instant::now() + STORM_DURATION, cpu()?);
    let mut running: JoinSet<Result<()>> = JoinSet::new();
    for client in 0..clients {
        let (once, done) = (once.clone(), done.clone());
        running.spawn(async move {
            while Instant::now() < end && Box::pin(once(client)).await? {
                done.fetch_add(1, Relaxed);
            }
            Ok(())
        });
    }
    while let Some(client) = running.join_next().await {
        client??;
    }
    sleep(SETTLE).await;
    let (done, cpu) = (done.load(Relaxed), cpu()? - before);
    ensure!(done > 0 && !cpu.is_zero(), "nothing was done");
    Ok(done as f64 / cpu.as_secs_f64())
}

/// Asks a backend through a gateway, sealed.
pub struct SealedClient {
    pub session: Session,
    pub opcode: u16,
}

impl Client for SealedClient {
    async fn round_trip(&mut self) -> Result<()> {
        let reply = self.session.call_raw(self.opcode, Bytes::from_static(&REQUEST), None).await?;
        ensure!(reply.payload[..] == REQUEST, "another answer");
        Ok(())
    }
}

/// Asks an echo server in plain bytes.
pub struct PlainClient(pub TcpStream);

impl Client for PlainClient {
    async fn round_trip(&mut self) -> Result<()> {
        self.0.write_all(&REQUEST).await?;
        let mut answer = REQUEST;
        self.0.read_exact(&mut answer).await?;
        Ok(())
    }
}

/// Connections to a port of this machine.
pub async fn connections(port: u16, count: usize) -> Result<Vec<TcpStream>> {
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        let stream =
            TcpStream::connect(("127.0.0.1", port)).await.context("the relay takes no connection")?;
        stream.set_nodelay(true)?;
        connections.push(stream);
    }
    Ok(connections)
}

/// Starts a server that sends every message back. Returns its port.
pub async fn echo_server() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.set_nodelay(true)?;
                let mut buffer = [0; 4_096];
                loop {
                    let read = stream.read(&mut buffer).await?;
                    if read == 0 {
                        return std::io::Result::Ok(());
                    }
                    stream.write_all(&buffer[..read]).await?;
                }
            });
        }
    });
    Ok(port)
}
