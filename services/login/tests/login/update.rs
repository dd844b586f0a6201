//! The update service with the client of a launcher: every file arrives, whatever fails on the way, and players can
//! log in meanwhile.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    sync::{Arc, atomic::AtomicUsize, atomic::Ordering::SeqCst},
    time::Duration,
};

use shardkeep_client::{
    Config,
    update::{Options, Progress, UpdateConnection, UpdateError, UpdateSummary, update},
};
use shardkeep_daemon::unix_millis;
use shardkeep_lanes::Lane;
use shardkeep_patch::{
    Builder, Chunk, Chunking, PublicKey, Release, ReleasePath, SignedError, SigningKey, chunk, layout,
};
use shardkeep_testkit::wait_until;
use shardkeep_update::{StandaloneConfig, serve_standalone};
use shardkeep_wire::{
    opcode,
    payload::{ErrorCode, GetPiece, GetRelease, Hello, Piece, PublishedRelease},
    preface::{Preface, Service, deployment_tag},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{Cluster, TEST_TIMEOUT},
    player::Player,
};

type Files = BTreeMap<&'static str, Vec<u8>>;

/// A store, and the key that signs its releases.
struct Publisher {
    folder: TempDir,
    key: SigningKey,
}

impl Publisher {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("shardkeep-store-").tempdir().unwrap();
        Self { folder, key: SigningKey::from_seed(&[7; 32]).unwrap() }
    }

    fn setting(&self) -> String {
        format!("login.patches.dir={}", self.folder.path().display())
    }

    /// Publishes a release. Returns how many bytes a new client fetches.
    fn publish(&self, sequence: u64, files: &Files) -> u64 {
        let chunking = Chunking::new(8 << 10, 32 << 10, 128 << 10).unwrap();
        let name = format!("1.2.{sequence}");
        let mut builder = Builder::new(Release { name, sequence, client_version: 1_002_003 }, chunking);
        for (path, content) in files {
            let chunks = chunking.cut(&content[..]).map(|cut| {
                let cut = cut.unwrap();
                let stored = chunk::store(&cut.content, 3);
                self.put(&layout::chunk(&cut.id), &stored);
                Chunk { id: cut.id, size: cut.size(), stored: u32::try_from(stored.len()).unwrap() }
            });
            builder.add(ReleasePath::new(path).unwrap(), false, chunks.collect());
        }
        let manifest = builder.finish().unwrap();
        self.put(layout::CURRENT, &self.key.sign(&manifest, unix_millis()));
        manifest.total_stored()
    }

    fn put(&self, path: &str, content: &[u8]) {
        let (at, aside) = (self.folder.path().join(path), self.folder.path().join("aside"));
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(&aside, content).unwrap();
        fs::rename(aside, at).unwrap();
    }

    /// Serves the store without login, until the test ends.
    async fn serve(&self) -> SocketAddr {
        let patches =
            shardkeep_update::Config { dir: self.folder.path().display().to_string(), ..Default::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let standalone = StandaloneConfig { patches, deployment: "dev".to_owned() };
            serve_standalone(listener, &standalone, CancellationToken::new()).await
        });
        address
    }

    fn chunks(&self) -> Vec<std::path::PathBuf> {
        let folders = fs::read_dir(self.folder.path().join(layout::CHUNKS)).unwrap();
        folders
            .flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap())
            .map(|it| it.unwrap().path())
            .collect()
    }
}

/// Bytes that do not compress. The same seed gives the same bytes.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64 (Marsaglia 2003)
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn files() -> Files {
    Files::from([
        ("data/meadow.pak", noise(1, 400_000)),
        ("data/forest.pak", [noise(2, 100_000), noise(1, 100_000)].concat()),
        ("readme.txt", b"once upon a time\n".repeat(5_000)),
        ("empty", vec![]),
    ])
}

fn address(cluster: &Cluster) -> SocketAddr {
    cluster.client_address().parse().unwrap()
}

fn options(to: &Path, key: PublicKey) -> Options {
    Options { connections: 3, patience: TEST_TIMEOUT, ..Options::new(to, key) }
}

async fn fetch(address: SocketAddr, options: &Options) -> Result<UpdateSummary, UpdateError> {
    fetch_as(&Config::default(), address, options).await
}

async fn fetch_as(
    config: &Config,
    address: SocketAddr,
    options: &Options,
) -> Result<UpdateSummary, UpdateError> {
    timeout(TEST_TIMEOUT * 2, update(config, &[address], options, &Progress::shared()))
        .await
        .expect("it ends")
}

async fn fetch_from(servers: &[SocketAddr], options: &Options) -> Result<UpdateSummary, UpdateError> {
    let (config, progress) = (Config::default(), Progress::shared());
    timeout(TEST_TIMEOUT * 2, update(&config, servers, options, &progress)).await.expect("it ends")
}

/// Waits until the server publishes this release.
async fn published(address: SocketAddr, sequence: u64) -> PublishedRelease {
    let offered = wait_until("the server offers the release", async || {
        let mut server = UpdateConnection::open(&Config::default(), address).await?;
        Ok(server.release().await.ok().filter(|release| release.sequence == sequence))
    });
    offered.await.unwrap()
}

fn installed(folder: &Path, files: &Files) {
    for (path, content) in files {
        assert!(fs::read(folder.join(path)).unwrap() == *content, "{path} differs");
    }
}

fn preface() -> [u8; 12] {
    Preface::new(Service::Update, deployment_tag("dev")).encode()
}

/// A proxy. `tamper` may change or cut the bytes of the server. It gets the number of the connection, the position
/// of the bytes in the stream, and the bytes.
async fn tampering_proxy(
    server: SocketAddr,
    tamper: impl Fn(usize, usize, &mut Vec<u8>) -> bool + Clone + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (number, tamper) = (count.fetch_add(1, SeqCst), tamper.clone());
            tokio::spawn(async move {
                let (mut from_client, mut to_client) = client.into_split();
                let Ok(server) = TcpStream::connect(server).await else { return };
                let (mut from_server, mut to_server) = server.into_split();
                let asking =
                    tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let (mut position, mut buffer) = (0, vec![0; 16_384]);
                while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
                    let mut sent = buffer[..read].to_vec();
                    let goes_on = tamper(number, position, &mut sent);
                    position += read;
                    if to_client.write_all(&sent).await.is_err() || !goes_on {
                        break;
                    }
                }
                asking.abort();
            });
        }
    });
    address
}

#[tokio::test]
async fn release_is_fetched_over_every_lane() {
    let publisher = Publisher::new();
    let total = publisher.publish(1, &files());
    let cluster = Cluster::start_with(&[&publisher.setting()]).await;
    published(address(&cluster), 1).await;
    for lane in Lane::ALL {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { lanes: vec![lane], ..Config::default() };
        let options = options(folder.path(), publisher.key.public());
        let done = fetch_as(&config, address(&cluster), &options).await.unwrap();
        assert_eq!((done.fetched_bytes, done.lost), (total, 0), "{lane}");
        installed(folder.path(), &files());
    }
}

#[tokio::test]
async fn outdated_client_fetches_update_from_login() {
    let publisher = Publisher::new();
    let total = publisher.publish(1, &files());
    let cluster = Cluster::start_with(&[&publisher.setting(), "login.min_client_version=1002003"]).await;
    published(address(&cluster), 1).await;

    let mut player = cluster.connect().await;
    let refused = player.hello("alice").await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::UpdateRequired);
    assert!(refused.detail.contains("service 3"), "{}", refused.detail);

    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), publisher.key.public());
    let done = fetch(address(&cluster), &options).await.unwrap();
    assert_eq!((done.fetched_bytes, done.corrupted, done.lost, done.written), (total, 0, 0, 4));
    installed(folder.path(), &files());
    let sent = cluster.metric("shardkeep_login_update_sent_bytes_total", "").await;
    assert!(sent >= total as f64, "{sent}");

    let mut player = cluster.connect().await;
    player.version = done.release.client_version;
    player.hello("alice").await.unwrap();
    // A second update changes nothing, whether it reads every file or trusts the record.
    for quick in [false, true] {
        let again = fetch(address(&cluster), &Options { quick, ..options.clone() }).await.unwrap();
        assert_eq!((again.fetched_bytes, again.written, again.removed), (0, 0, 0));
    }
}

#[tokio::test]
async fn update_resumes_after_cut_connections() {
    let publisher = Publisher::new();
    let total = publisher.publish(1, &files());
    let cluster = Cluster::start_with(&[&publisher.setting()]).await;
    published(address(&cluster), 1).await;
    // Each connection passes a different number of bytes, from none to a few chunks.
    let cut = tampering_proxy(address(&cluster), |number, position, sent| {
        let most = number * 41_113 % 300_000;
        sent.truncate(most.saturating_sub(position));
        position + sent.len() < most
    });
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), publisher.key.public());
    let done = fetch(cut.await, &options).await.unwrap();
    assert!(done.lost > 0);
    assert_eq!((done.fetched_bytes, done.corrupted), (total, 0), "no chunk is counted twice");
    installed(folder.path(), &files());
}

#[tokio::test]
async fn aborted_update_resumes_where_it_stopped() {
    let publisher = Publisher::new();
    let total = publisher.publish(1, &files());
    let cluster =
        Cluster::start_with(&[&publisher.setting(), "login.patches.bandwidth_per_connection=262144"]).await;
    published(address(&cluster), 1).await;
    let folder = tempfile::tempdir().unwrap();
    let slow = Options { connections: 1, ..options(folder.path(), publisher.key.public()) };
    let progress = Progress::shared();
    let server = address(&cluster);
    let first = tokio::spawn({
        let (slow, progress) = (slow.clone(), progress.clone());
        async move { update(&Config::default(), &[server], &slow, &progress).await.map(drop) }
    });
    let some = async || Ok((progress.fetched() >= total / 4).then_some(()));
    wait_until("a quarter is fetched", some).await.unwrap();
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert!(!folder.path().join("readme.txt").exists(), "nothing is in its place before everything is here");

    let second = wait_until("the folder is free", async || {
        match fetch(server, &options(folder.path(), publisher.key.public())).await {
            // A write of the first update may still hold the folder.
            Err(UpdateError::Locked(_)) => Ok(None),
            done => Ok(Some(done?)),
        }
    });
    let second = second.await.unwrap();
    assert!(second.fetched_bytes <= total - total / 4, "{} of {total}", second.fetched_bytes);
    assert!(cluster.metric("shardkeep_login_update_throttled_pieces_total", "").await > 0.0);
    installed(folder.path(), &files());
}

#[tokio::test]
async fn corrupt_chunk_is_refused_and_fetched_again() {
    let publisher = Publisher::new();
    let total = publisher.publish(1, &files());
    let cluster = Cluster::start_with(&[&publisher.setting()]).await;
    published(address(&cluster), 1).await;
    let folder = tempfile::tempdir().unwrap();
    let one = Options { connections: 1, ..options(folder.path(), publisher.key.public()) };
    // The first connection fetches the manifest. One byte of the first chunk on the second connection is changed.
    let bent = tampering_proxy(address(&cluster), |number, position, sent| {
        if number == 1 && (position..position + sent.len()).contains(&4_000) {
            sent[4_000 - position] ^= 1;
        }
        true
    });
    let done = fetch(bent.await, &one).await.unwrap();
    assert_eq!((done.corrupted, done.lost, done.fetched_bytes), (1, 1, total));
    installed(folder.path(), &files());

    // A permanently damaged chunk ends the update with the chunk's name. After a repair, the rest is fetched.
    let victim = publisher.chunks().into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let good = fs::read(&victim).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    fs::write(&victim, bad).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let one = Options { to: folder.path().to_owned(), ..one };
    let error = fetch(address(&cluster), &one).await.unwrap_err();
    let name = victim.file_name().unwrap().to_str().unwrap();
    assert!(matches!(&error, UpdateError::Chunk { id, times: 5, .. } if id.to_string() == name), "{error}");
    assert!(!folder.path().join("readme.txt").exists());
    fs::write(&victim, good).unwrap();
    let done = fetch(address(&cluster), &one).await.unwrap();
    assert!(done.fetched_bytes < total && done.corrupted == 0, "{done:?}");
    installed(folder.path(), &files());
}

#[tokio::test]
async fn release_signed_by_another_key_is_refused() {
    let publisher = Publisher::new();
    publisher.publish(1, &files());
    let stranger = SigningKey::from_seed(&[8; 32]).unwrap().public();
    let cluster = Cluster::start_with(&[&publisher.setting()]).await;
    published(address(&cluster), 1).await;
    let folder = tempfile::tempdir().unwrap();
    let error = fetch(address(&cluster), &options(folder.path(), stranger)).await.unwrap_err();
    let signer = publisher.key.public();
    assert!(matches!(error, UpdateError::Signed(SignedError::UntrustedKey(key)) if key == signer), "{error}");
    assert!(!folder.path().join("readme.txt").exists());

    // A server with the key in its settings does not publish the release.
    let pinned = format!("login.patches.key={stranger}");
    let cluster =
        Cluster::start_with(&[&publisher.setting(), &pinned, "login.min_client_version=2000000"]).await;
    let refused = wait_until("the release is refused", async || {
        let count = cluster.metric("shardkeep_login_update_releases_total", "refused").await;
        Ok((count >= 1.0).then_some(()))
    });
    refused.await.unwrap();
    let mut client = Player::raw(cluster.client_address(), &preface()).await;
    let answer = client.ask(opcode::GET_RELEASE, &GetRelease {}).await.unwrap_err();
    assert_eq!(answer.code, ErrorCode::Unavailable);
    let outdated = cluster.connect().await.hello("alice").await.unwrap_err();
    assert!(!outdated.detail.contains("service 3"), "{}", outdated.detail);
}

#[tokio::test]
async fn new_release_fetches_only_changed_chunks() {
    let publisher = Publisher::new();
    let total = publisher.publish(1, &files());
    let cluster = Cluster::start_with(&[&publisher.setting()]).await;
    published(address(&cluster), 1).await;
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), publisher.key.public());
    fetch(address(&cluster), &options).await.unwrap();
    fs::write(folder.path().join("data/screenshot.png"), "the player's own").unwrap();
    // An installed file is damaged.
    fs::write(folder.path().join("readme.txt"), "scribble").unwrap();

    let mut next = files();
    next.get_mut("data/meadow.pak").unwrap().splice(200_000..200_000, *b"a path through the meadow");
    next.remove("empty");
    next.insert("data/river/river.pak", noise(3, 20_000));
    publisher.publish(2, &next);
    published(address(&cluster), 2).await;
    let done = fetch(address(&cluster), &options).await.unwrap();
    assert!(done.fetched_bytes < total / 2, "{} of {total}", done.fetched_bytes);
    assert_eq!((done.written, done.removed, done.release.sequence), (3, 1, 2));
    installed(folder.path(), &next);
    assert!(!folder.path().join("empty").exists());
    assert!(folder.path().join("data/screenshot.png").exists());

    // An older release is published. Clients do not go back to it unless they are told to.
    publisher.publish(1, &files());
    published(address(&cluster), 1).await;
    let error = fetch(address(&cluster), &options).await.unwrap_err();
    assert!(matches!(error, UpdateError::Older { installed: 2, offered: 1 }), "{error}");
    fetch(address(&cluster), &Options { allow_older: true, ..options.clone() }).await.unwrap();
    installed(folder.path(), &files());
}

#[tokio::test]
async fn newest_release_is_fetched_during_rollout() {
    let (ahead, behind) = (Publisher::new(), Publisher::new());
    let mut next = files();
    next.insert("data/river.pak", noise(3, 200_000));
    behind.publish(1, &files());
    ahead.publish(2, &next);
    let (new, old) = (ahead.serve().await, behind.serve().await);
    published(new, 2).await;
    published(old, 1).await;
    for servers in [[new, old], [old, new]] {
        let folder = tempfile::tempdir().unwrap();
        let options = options(folder.path(), ahead.key.public());
        let newest = async {
            // If the machine stalls for a second, the other server's answer may come too late for one attempt.
            while fetch_from(&servers, &options).await.unwrap().release.sequence < 2 {}
        };
        timeout(TEST_TIMEOUT, newest).await.expect("the newest is fetched");
        installed(folder.path(), &next);
        assert_eq!(fetch_from(&[old, new], &options).await.unwrap().written, 0);
        let error = fetch_from(&[old], &options).await.unwrap_err();
        assert!(matches!(error, UpdateError::Older { installed: 2, offered: 1 }), "{error}");
    }
}

#[tokio::test]
async fn missing_chunks_are_fetched_from_another_server() {
    let [first, second, stranger, empty] = [(); 4].map(|()| Publisher::new());
    let total = first.publish(1, &files());
    second.publish(1, &files());
    let stranger = Publisher { key: SigningKey::from_seed(&[8; 32]).unwrap(), ..stranger };
    stranger.publish(9, &Files::from([("virus", noise(9, 1_000))]));
    let chunks = first.chunks();
    for (at, chunk) in chunks.iter().enumerate() {
        let lost = chunk.strip_prefix(first.folder.path()).unwrap();
        let publisher = if at % 2 == 0 { &first } else { &second };
        fs::remove_file(publisher.folder.path().join(lost)).unwrap();
    }
    let [half, other_half, virus] = [first.serve().await, second.serve().await, stranger.serve().await];
    for (server, sequence) in [(half, 1), (other_half, 1), (virus, 9)] {
        published(server, sequence).await;
    }
    // One server has no release, and no server listens at the other address.
    let nothing = empty.serve().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), first.key.public());
    let done = fetch_from(&[nothing, nobody, virus, half, other_half], &options).await.unwrap();
    assert_eq!((done.fetched_bytes, done.release.sequence), (total, 1));
    installed(folder.path(), &files());

    // The error names the missing chunk.
    let folder = tempfile::tempdir().unwrap();
    let impatient = Options { to: folder.path().to_owned(), patience: Duration::ZERO, ..options };
    let error = fetch_from(&[half], &impatient).await.unwrap_err();
    let lost = |id: &str| chunks.iter().any(|chunk| chunk.ends_with(id));
    assert!(matches!(&error, UpdateError::MissingChunk(id) if lost(&id.to_string())), "{error}");
}

#[tokio::test]
async fn release_replaced_during_fetch_restarts_with_newest() {
    let publisher = Publisher::new();
    publisher.publish(1, &Files::from([("readme.txt", noise(4, 300_000))]));
    let server = publisher.serve().await;
    published(server, 1).await;
    // Only the manifest comes through, until the store has another release.
    let cut = Arc::new(AtomicUsize::new(0));
    let bridge = tampering_proxy(server, {
        let cut = cut.clone();
        move |number, _, sent| {
            let goes_on = number == 0 || cut.load(SeqCst) == usize::MAX;
            if !goes_on {
                sent.clear();
                let _ = cut.compare_exchange(0, 1, SeqCst, SeqCst);
            }
            goes_on
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), publisher.key.public());
    let fetching = tokio::spawn(async move { fetch_from(&[bridge], &options).await });
    let begun = async || Ok((cut.load(SeqCst) != 0).then_some(()));
    wait_until("the fetch has begun", begun).await.unwrap();
    for chunk in publisher.chunks() {
        fs::remove_file(chunk).unwrap();
    }
    publisher.publish(2, &files());
    published(server, 2).await;
    cut.store(usize::MAX, SeqCst);
    assert_eq!(fetching.await.unwrap().unwrap().release.sequence, 2);
    installed(folder.path(), &files());
}

#[tokio::test]
async fn logins_succeed_while_update_service_is_full() {
    const FETCHING: usize = 24;
    let publisher = Publisher::new();
    publisher.publish(1, &files());
    let cluster = Cluster::start_with(&[
        &publisher.setting(),
        "login.patches.bandwidth=524288",
        "login.patches.bandwidth_per_connection=0",
        "login.patches.max_connections=24",
        "login.max_connections=8",
    ])
    .await;
    cluster.account("alice", "right").await;
    let release = published(address(&cluster), 1).await;
    let piece = GetPiece { id: release.manifest_id, offset: 0, length: 61_440 };
    let mut fetching = Vec::new();
    while fetching.len() < FETCHING {
        let mut client = Player::raw(cluster.client_address(), &preface()).await;
        // The server may not have noticed yet that the previous client disconnected.
        if client.ask(opcode::GET_PIECE, &piece).await.is_ok() {
            fetching.push(client);
        }
    }
    for client in &mut fetching {
        for _ in 0..200 {
            client.send(opcode::GET_PIECE, &piece).await;
        }
    }
    let refused = Player::raw(cluster.client_address(), &preface()).await.last_error().await;
    assert_eq!(refused, Some(ErrorCode::Unavailable));
    assert_eq!(cluster.metric("shardkeep_login_update_connections", "").await, 24.0);
    // More connections than the bound on players: clients that fetch use other slots.
    for _ in 0..4 {
        let mut player = cluster.connect().await;
        player.log_in("alice", "right").await.unwrap();
    }
    let busy = cluster.metric("shardkeep_login_update_throttled_pieces_total", "").await;
    assert!(busy > 0.0, "the line was full");
}

#[tokio::test]
async fn full_update_service_evicts_from_largest_network() {
    let publisher = Publisher::new();
    publisher.publish(1, &files());
    let cluster = Cluster::start_with(&[&publisher.setting(), "login.patches.max_connections=4"]).await;
    published(address(&cluster), 1).await;
    let mut idle = Vec::new();
    while idle.len() < 4 {
        let mut client = Player::raw(cluster.client_address(), &preface()).await;
        // The server may not have noticed yet that the previous client disconnected.
        if client.ask(opcode::GET_RELEASE, &GetRelease {}).await.is_ok() {
            idle.push(client);
        }
    }
    let refused = Player::raw(cluster.client_address(), &preface()).await.last_error().await;
    assert_eq!(refused, Some(ErrorCode::Unavailable), "not for its own");
    let mut other = Player::raw_from([127, 0, 1, 1], cluster.client_address(), &preface()).await;
    other.ask(opcode::GET_RELEASE, &GetRelease {}).await.unwrap();
    assert_eq!(idle[0].last_error().await, None, "the oldest");
    idle[1].ask(opcode::GET_RELEASE, &GetRelease {}).await.unwrap();
    let displaced = cluster.metric("shardkeep_login_connections_refused_total", "update_displaced").await;
    assert_eq!(displaced, 1.0);
}

#[tokio::test]
async fn invalid_piece_request_is_refused() {
    let publisher = Publisher::new();
    publisher.publish(1, &files());
    let cluster = Cluster::start_with(&[&publisher.setting()]).await;
    let release = published(address(&cluster), 1).await;
    let mut client = Player::raw(cluster.client_address(), &preface()).await;
    let piece = |id: &[u8], offset, length| GetPiece { id: id.to_vec(), offset, length };
    let id = &release.manifest_id[..];
    let size = release.manifest_size;
    for (wanted, code) in [
        (piece(&[0; 31], 0, 1), ErrorCode::Refused),
        (piece(&[0; 32], 0, 1), ErrorCode::NotFound),
        (piece(id, 0, 0), ErrorCode::Refused),
        (piece(id, 0, 61_441), ErrorCode::Refused),
        (piece(id, size, 1), ErrorCode::Refused),
        (piece(id, u32::MAX, 61_440), ErrorCode::Refused),
    ] {
        assert_eq!(client.ask(opcode::GET_PIECE, &wanted).await.unwrap_err().code, code, "{wanted:?}");
    }
    // The last piece of the file; the connection stays open.
    let last: Piece =
        client.ask(opcode::GET_PIECE, &piece(id, size - 7, 61_440)).await.unwrap().decode().unwrap();
    assert_eq!((last.total, last.data.len()), (size, 7));
    let hello = Hello { account: "alice".into(), ..Hello::default() };
    assert_eq!(client.ask(opcode::HELLO, &hello).await.unwrap_err().code, ErrorCode::OutOfPhase);
    assert!(client.ask(opcode::GET_RELEASE, &GetRelease {}).await.is_ok());
    let mut player = cluster.connect().await;
    assert_eq!(
        player.ask(opcode::GET_RELEASE, &GetRelease {}).await.unwrap_err().code,
        ErrorCode::OutOfPhase
    );

    // A login server without patches says so.
    let cluster = Cluster::start().await;
    let mut client = Player::raw(cluster.client_address(), &preface()).await;
    assert_eq!(client.last_error().await, Some(ErrorCode::NotFound));
}
