//! `shardkeep patch` as a person uses it: the real tool, its exit codes, and an update that is killed.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Longest wait for something, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

fn patch(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardkeep"));
    command.arg("patch").args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    patch(arguments).output().unwrap()
}

fn run_ok(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The exit code and what is said about it.
fn run_failing(arguments: &[&str]) -> (i32, String) {
    let output = run(arguments);
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// Ends with this value.
struct PatchServer {
    child: Child,
    address: String,
}

impl PatchServer {
    fn start(store: &str, limit: &str) -> Self {
        let mut child = patch(&[
            "serve",
            "--store",
            store,
            "--listen",
            "127.0.0.1:0",
            "--bandwidth-per-connection",
            limit,
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().to_owned();
        Self { child, address }
    }
}

impl Drop for PatchServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let words = std::iter::repeat_with(|| {
        // xorshift64 (Marsaglia 2003)
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

/// Bytes that really stand on the disk below a folder.
fn written(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(it) if it.is_dir() => written(&entry.path()),
            Ok(it) => it.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// What `serve` says on standard error until it has said all of this.
fn serve_stderr(arguments: &[&str], all: &[&str]) -> String {
    let line = [&["serve", "--listen", "127.0.0.1:0"], arguments].concat();
    let mut child = patch(&line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = String::new();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    while !all.iter().all(|part| stderr.contains(part)) {
        assert!(lines.read_line(&mut stderr).unwrap() > 0, "it ended after: {stderr}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    stderr
}

#[test]
fn release_is_built_signed_served_and_fetched() {
    let temporary = tempfile::tempdir().unwrap();
    let at = |name: &str| temporary.path().join(name).display().to_string();
    let (release, store, key, game) = (at("release"), at("store"), at("key"), at("game"));
    fs::create_dir_all(temporary.path().join("release/data")).unwrap();
    let content = noise(42, 3 << 20);
    fs::write(temporary.path().join("release/data/world.pak"), &content).unwrap();
    fs::write(temporary.path().join("release/readme.txt"), "hello\n".repeat(50_000)).unwrap();

    let public = run_ok(&["keygen", "--key", &key]).trim().to_owned();
    assert_eq!(run_failing(&["keygen", "--key", &key]).0, 1, "a key is not overwritten");
    let build = ["build", &release, "--store", &store, "--release", "1.0.0", "--client-version", "1.0.0"];
    assert!(run_ok(&build).contains("release 1.0.0 (1): 2 files"));
    assert!(run_failing(&["verify", "--store", &store]).1.contains("nothing is published"));
    run_ok(&["sign", "--store", &store, "--key", &key]);
    let current = temporary.path().join("store/current");
    let signed = fs::read(&current).unwrap();
    run_ok(&["sign", "--store", &store, "--key", &key]);
    assert_ne!(fs::read(&current).unwrap(), signed, "the same release has a newer signature");
    assert!(run_ok(&["verify", "--store", &store, "--public-key", &public]).contains("chunks are good"));
    let other = "0".repeat(64);
    assert_eq!(run_failing(&["verify", "--store", &store, "--public-key", &other]).0, 3);

    // Killed in the middle.
    let server = PatchServer::start(&store, "524288");
    let fetch =
        ["fetch", "--server", &server.address, "--to", &game, "--public-key", &public, "--connections", "2"];
    let mut first = patch(&fetch).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let stage = temporary.path().join("game/.shardkeep/stage");
    let until = Instant::now() + TIMEOUT;
    while written(&stage) < 1 << 20 {
        assert!(Instant::now() < until && first.try_wait().unwrap().is_none(), "it fetches");
        thread::yield_now();
    }
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(!temporary.path().join("game/data").exists());
    let before = written(&stage);
    drop(server);

    // Without the bandwidth limit, the interrupted download continues.
    let server = PatchServer::start(&store, "0");
    let fetch = ["fetch", "--server", &server.address, "--to", &game, "--public-key", &public];
    let stdout = run_ok(&fetch);
    assert!(stdout.contains("2 files written"), "{stdout}");
    assert!(fs::read(temporary.path().join("game/data/world.pak")).unwrap() == content);
    assert!(
        before >= 1 << 20 && !stdout.contains("3.0") && !stdout.contains("3.1"),
        "{stdout} after {before} bytes"
    );
    assert!(run_ok(&fetch).contains("it was already"));

    // A launcher tells these failures apart by the exit code.
    let (code, stderr) =
        run_failing(&["fetch", "--server", &server.address, "--to", &game, "--public-key", &other]);
    assert!(code == 3 && stderr.contains("not trusted"), "{code} {stderr}");
    let file = at("release/readme.txt");
    let (code, stderr) =
        run_failing(&["fetch", "--server", &server.address, "--to", &file, "--public-key", &public]);
    assert!(code == 4 && stderr.contains("readme.txt"), "{code} {stderr}");
    let gone = server.address.clone();
    drop(server);
    let unreachable = ["fetch", "--server", &gone, "--to", &game, "--public-key", &public, "--patience", "0"];
    assert_eq!(run_failing(&unreachable).0, 5);
}

#[test]
fn store_damage_is_detected_and_repaired() {
    let temporary = tempfile::tempdir().unwrap();
    let at = |name: &str| temporary.path().join(name).display().to_string();
    let (release, store, key) = (at("release"), at("store"), at("key"));
    fs::create_dir(&release).unwrap();
    fs::write(temporary.path().join("release/a"), noise(1, 100_000)).unwrap();
    run_ok(&["keygen", "--key", &key]);
    let build = |name| ["build", &release, "--store", &store, "--release", name, "--client-version", "1.0.0"];
    run_ok(&build("1"));
    run_ok(&["sign", "--store", &store, "--key", &key]);
    let folders = fs::read_dir(temporary.path().join("store/chunks")).unwrap();
    let chunk =
        folders.flat_map(|it| fs::read_dir(it.unwrap().path()).unwrap()).next().unwrap().unwrap().path();
    let mut bytes = fs::read(&chunk).unwrap();
    bytes[100] ^= 1;
    fs::write(&chunk, &bytes).unwrap();
    let (code, stderr) = run_failing(&["verify", "--store", &store]);
    assert!(code == 3 && stderr.contains(chunk.file_name().unwrap().to_str().unwrap()), "{code} {stderr}");

    // `serve` and `sign` report a damaged chunk and another key.
    fs::write(&chunk, &bytes[..99]).unwrap();
    let other = at("other");
    run_ok(&["keygen", "--key", &other]);
    let stderr = serve_stderr(&["--store", &store], &["release=1", "1 chunks of release 1"]);
    assert!(stderr.contains("missing or have another size"), "{stderr}");
    let strange = "0".repeat(64);
    serve_stderr(&["--store", &store, "--public-key", &strange], &["no release to publish"]);

    // The next build repairs the damaged chunk, and also a chunk that an interrupted copy has truncated.
    assert!(run_ok(&build("2")).contains("1 chunks of earlier builds were damaged"));
    assert_ne!(fs::read(&chunk).unwrap(), bytes);
    fs::write(&chunk, &bytes[..500]).unwrap();
    assert!(run_ok(&build("2")).contains("1 chunks of earlier builds were damaged"));
    assert!(!run_ok(&build("2")).contains("damaged"));
    // A release that has lost a chunk since, or whose content is another, is not signed.
    let sign = ["sign", "--store", &store, "--key", &key];
    for damage in [|at: &Path, _: &[u8]| fs::remove_file(at), |at: &Path, bytes: &[u8]| fs::write(at, bytes)]
    {
        damage(&chunk, &bytes).unwrap();
        let (code, stderr) = run_failing(&sign);
        assert!(code == 1 && stderr.contains("build the release again"), "{code} {stderr}");
        run_ok(&build("2"));
    }
    let signed = run(&["sign", "--store", &store, "--key", &other]);
    let stderr = String::from_utf8_lossy(&signed.stderr);
    assert!(signed.status.success() && stderr.contains("published before is signed by"), "{stderr}");
    assert!(run_ok(&["verify", "--store", &store]).contains("release 2 (2)"));
    // A name that some systems cannot store is refused.
    fs::write(temporary.path().join("release/con.txt"), "x").unwrap();
    let (code, stderr) = run_failing(&build("3"));
    assert!(code == 1 && stderr.contains("con.txt") && stderr.contains("device"), "{code} {stderr}");
}
