//! A patch day: a thousand clients fetch the release from the login daemon at once, beside nginx handing out the same
//! chunk files over plain HTTP.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    pin::pin,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use shardkeep_client::update::{Options, UpdateConnection, trusted_manifest};
use shardkeep_patch::{Manifest, PublicKey, layout};
use shardkeep_testkit::binary;
use shardkeep_wire::{
    Message, opcode,
    payload::GetPiece,
    preface::{Preface, Service},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    task::JoinSet,
    time::sleep,
};

use crate::{
    fixture::{self, Fixture},
    host, peer,
    table::{Benchmark, Outcome, Row},
};

const CLIENTS: usize = 1_000;
/// A quarter of the release that is meant, so that it is made in seconds; the chunks have the size that they always have.
const RELEASE_SIZE: usize = 256 << 20;
const FILES: usize = 4;
/// Chunks that each client fetches (about 10 MiB), from another part of the release.
const CHUNKS_PER_CLIENT: usize = 32;
const SAMPLE_INTERVAL: Duration = Duration::from_millis(50);
const GIB: f64 = 1_073_741_824.0;
/// Most bytes of data in a piece.
const PIECE: u32 = 61_440;

pub const PATCH: Benchmark = Benchmark {
    name: "patch",
    label: "1,000 clients at once fetch 32 chunks each, about 10 MiB, of a release of 256 MiB",
    target: "flat memory",
    run,
};

fn run() -> Result<Outcome> {
    fixture::runtime()?.block_on(measure())
}

async fn measure() -> Result<Outcome> {
    let fixture = Fixture::shared().await?;
    let login = fixture.cluster.announcement("login-1")?;
    let address: SocketAddr = login.client.parse().context("the login daemon's address")?;
    let _store = Store(&fixture.patches);
    let manifest = publish(fixture, address).await?;
    let preface = Preface::new(Service::Update, fixture.config.deployment).encode();
    let ours =
        measure_server(login.pid, &manifest, move |requests| fetch(address, preface, requests)).await?;

    let port = host::free_port()?;
    let peer = match peer::nginx_files(port, &fixture.patches)? {
        Some(nginx) => {
            Some(measure_server(nginx.pid(), &manifest, move |requests| get(port, requests)).await?)
        }
        None => None,
    };
    let cost = |seconds: f64| format!("{seconds:.2} CPU s/GiB");
    let memory = |kib: f64| format!("+{:.1} MiB", kib / 1_024.0);
    Ok(Outcome::Rows(vec![
        Row::compared("CPU of the server", ours.cpu, peer.as_ref().map(|it| it.cpu), cost, "nginx", "nginx"),
        Row::compared(
            "its memory at most",
            ours.memory_growth,
            peer.as_ref().map(|it| it.memory_growth),
            memory,
            "nginx",
            "nginx",
        ),
    ]))
}

/// Removed when all is measured.
struct Store<'a>(&'a Path);

impl Drop for Store<'_> {
    fn drop(&mut self) {
        // Nothing else is to be done about what cannot be removed from a temporary folder.
        let _ = std::fs::remove_dir_all(self.0);
    }
}

/// Makes the release, as an operator would, and waits until it is noticed.
async fn publish(fixture: &Fixture, address: SocketAddr) -> Result<Manifest> {
    let folder = tempfile::Builder::new().prefix("shardkeep-bench-").tempdir()?;
    let (release, key) = (folder.path().join("release"), folder.path().join("key"));
    std::fs::create_dir(&release)?;
    for number in 0..FILES {
        std::fs::write(release.join(format!("{number}.pak")), noise(number as u64, RELEASE_SIZE / FILES))?;
    }
    let [release, key, store] =
        [&release, &key, &fixture.patches].map(|it| it.to_string_lossy().into_owned());
    let public: PublicKey = tool(&["keygen", "--key", &key])?.trim().parse()?;
    let build = ["build", &release, "--store", &store, "--release", "1.0.0", "--client-version", "1.0.0"];
    tool(&[&build[..], &["--level", "1"]].concat())?;
    tool(&["sign", "--store", &store, "--key", &key])?;
    let options = Options::new(folder.path(), public);
    loop {
        if UpdateConnection::open(&fixture.config, address).await?.release().await.is_ok() {
            return Ok(trusted_manifest(&fixture.config, &[address], &options).await?);
        }
        sleep(SAMPLE_INTERVAL).await;
    }
}

fn tool(arguments: &[&str]) -> Result<String> {
    let output = Command::new(binary()?).arg("patch").args(arguments).output()?;
    ensure!(output.status.success(), "patch {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        // xorshift64 (Marsaglia 2003)
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

struct ServerCost {
    /// CPU seconds for each GiB.
    cpu: f64,
    /// KiB of resident memory above the start, at most.
    memory_growth: f64,
}

/// The requests of a client: ids and sizes of stored chunks.
type ChunkRequests = Vec<(shardkeep_patch::ChunkId, u32)>;

async fn measure_server<F: Future<Output = Result<u64>> + Send + 'static>(
    pid: u32,
    manifest: &Manifest,
    client: impl Fn(ChunkRequests) -> F,
) -> Result<ServerCost> {
    let (cpu, before) = (host::cpu_of(pid)?, host::resident_kib(pid)?);
    let chunks = manifest.chunks();
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let from = number * chunks.len() / CLIENTS;
        let requests =
            chunks.iter().cycle().skip(from).take(CHUNKS_PER_CLIENT).map(|chunk| (chunk.id, chunk.stored));
        clients.spawn(client(requests.collect()));
    }
    let mut most = before;
    let mut all = pin!(async {
        let mut bytes = 0;
        while let Some(client) = clients.join_next().await {
            bytes += client??;
        }
        anyhow::Ok(bytes)
    });
    let bytes = loop {
        tokio::select! {
            bytes = &mut all => break bytes?,
            () = sleep(SAMPLE_INTERVAL) => most = most.max(host::resident_kib(pid)?),
        }
    };
    let cpu = host::cpu_of(pid)? - cpu;
    eprintln!("  {:.2} GiB from process {pid}", bytes as f64 / GIB);
    Ok(ServerCost { cpu: cpu.as_secs_f64() / (bytes as f64 / GIB), memory_growth: (most - before) as f64 })
}

/// One of our clients; it throws away what it gets.
async fn fetch(address: SocketAddr, preface: [u8; 12], requests: ChunkRequests) -> Result<u64> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&preface).await?;
    let mut buffer = vec![0; 1 << 16];
    let mut bytes = 0;
    for (id, stored) in requests {
        let offsets = (0..stored).step_by(PIECE as usize);
        let mut record = bytes::BytesMut::from(&[0, 0][..]);
        for offset in offsets.clone() {
            let piece = GetPiece { id: id.as_bytes().to_vec(), offset, length: PIECE.min(stored - offset) };
            Message::request(opcode::GET_PIECE, 1, &piece).encode(&mut record);
        }
        let length = u16::try_from(record.len() - 2)?.to_le_bytes();
        record[..2].copy_from_slice(&length);
        stream.write_all(&record).await?;
        for _ in offsets {
            let length = usize::from(stream.read_u16_le().await?);
            stream.read_exact(&mut buffer[..length]).await?;
            ensure!(buffer[..3] == [1, 0x81, 0x01], "refused");
        }
        bytes += u64::from(stored);
    }
    Ok(bytes)
}

/// The same over HTTP, on one connection.
async fn get(port: u16, requests: ChunkRequests) -> Result<u64> {
    let mut stream = BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?);
    stream.get_ref().set_nodelay(true)?;
    let mut buffer = vec![0; 1 << 16];
    let mut bytes = 0;
    for (id, stored) in requests {
        let request = format!("GET /{} HTTP/1.1\r\nHost: patches\r\n\r\n", layout::chunk(&id));
        stream.write_all(request.as_bytes()).await?;
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        ensure!(line.contains(" 200 "), "nginx says {line:?}");
        while line.trim() != "" {
            line.clear();
            stream.read_line(&mut line).await?;
        }
        let mut left = stored as usize;
        while left > 0 {
            let most = left.min(buffer.len());
            let read = stream.read(&mut buffer[..most]).await?;
            ensure!(read > 0, "nginx closed");
            left -= read;
        }
        bytes += u64::from(stored);
    }
    Ok(bytes)
}
