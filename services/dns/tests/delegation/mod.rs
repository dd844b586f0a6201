//! The delegation of docs/operations.md with real resolvers: a parent zone in BIND names two DNS daemons, and BIND or
//! Unbound resolves through it. Resolvers follow a delegation to port 53 only, so each test runs again in a network
//! namespace, where that port is free. A test prints why it is skipped when a program is missing.

use std::{
    collections::HashSet,
    fmt::Write as _,
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use shardkeep_cluster::State;
use shardkeep_daemon::Running;
use shardkeep_types::DaemonKind;
use tokio::{
    net::UdpSocket,
    time::{interval, timeout},
};

use crate::{TEST_TIMEOUT, env::TestEnv, question};

/// Set in the process that runs inside the network namespace.
const INSIDE: &str = "SHARDKEEP_TEST_IN_NAMESPACE";
const PARENT: &str = "127.0.0.10";
const NAME_SERVERS: [(&str, &str); 2] = [("ns1", "127.0.0.11"), ("ns2", "127.0.0.12")];
const RESOLVER: &str = "127.0.0.13";
/// A resolver gives up on a look-up, and answers SERVFAIL, within this time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Several times the TTL of the answers, so that resolvers ask again and again.
const LOOKUP_TIME: Duration = Duration::from_secs(6);
const LOOKUP_INTERVAL: Duration = Duration::from_millis(40);
const LOOKUPS: [(&str, RecordType); 5] = [
    ("login.shardkeep.test.", RecordType::A),
    ("gateway.shardkeep.test.", RecordType::A),
    ("_shardkeep._tcp.login.shardkeep.test.", RecordType::SRV),
    ("ns1.shardkeep.test.", RecordType::A),
    ("shardkeep.test.", RecordType::NS),
];

#[test]
fn bind_resolves_every_lookup_through_the_delegation() {
    in_network_namespace("bind_resolves_every_lookup_through_the_delegation", &["named"], |folder| {
        let options = format!(
            "directory \"{}\"; listen-on {{ {RESOLVER}; }}; listen-on-v6 {{ none; }}; recursion yes; \
             dnssec-validation no; pid-file none; session-keyfile none;",
            folder.display()
        );
        let config = format!(
            "options {{ {options} }};\ncontrols {{}};\nzone \".\" {{ type hint; file \"hints\"; }};\n"
        );
        start_named(folder, "resolver", &config)
    });
}

#[test]
fn unbound_resolves_every_lookup_through_the_delegation() {
    in_network_namespace(
        "unbound_resolves_every_lookup_through_the_delegation",
        &["named", "unbound"],
        |folder| {
            let config = format!(
                "server:\n interface: {RESOLVER}\n do-not-query-localhost: no\n module-config: \"iterator\"\n \
                 root-hints: \"{}\"\n local-zone: \"test.\" nodefault\n chroot: \"\"\n username: \"\"\n \
                 pidfile: \"\"\n use-syslog: no\n do-daemonize: no\n\
                 remote-control:\n control-enable: no\n",
                folder.join("hints").display()
            );
            let path = folder.join("unbound.conf");
            std::fs::write(&path, config).unwrap();
            let mut command = Command::new("unbound");
            command.args(["-d", "-c"]).arg(path);
            Server::start(command, folder, "unbound")
        },
    );
}

/// Runs this test again in a network namespace with a loopback interface. There it starts the cluster and the
/// resolver, and checks every look-up.
fn in_network_namespace(test: &str, programs: &[&str], resolver: impl FnOnce(&Path) -> Server) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        return runtime.unwrap().block_on(resolve_everything(resolver));
    }
    for program in programs.iter().chain(&["unshare", "ip"]) {
        if !installed(program) {
            println!("skipped: {program} is not installed");
            return;
        }
    }
    // BIND listens only on addresses that the interface has.
    let mut prepare = "ip link set lo up".to_owned();
    for address in [PARENT, RESOLVER] {
        write!(prepare, " && ip addr add {address}/8 dev lo").unwrap();
    }
    // Root needs no user namespace, and some containers forbid them; other users need one.
    let namespaces = [&["--net"][..], &["--user", "--map-root-user", "--net"]];
    let usable = |options: &&&[&str]| {
        let tried = Command::new("unshare").args(**options).args(["sh", "-c", &prepare]).output();
        tried.is_ok_and(|output| output.status.success())
    };
    let Some(options) = namespaces.iter().find(usable) else {
        println!("skipped: this machine allows no network namespace");
        return;
    };
    let inside = Command::new("unshare")
        .args(*options)
        .args(["sh", "-c", &format!("{prepare} && exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("delegation::{test}"), "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let printed = [inside.stdout, inside.stderr].concat();
    assert!(inside.status.success(), "{}", String::from_utf8_lossy(&printed));
}

fn installed(program: &str) -> bool {
    Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output()
        .is_ok_and(|it| it.status.success())
}

async fn resolve_everything(resolver: impl FnOnce(&Path) -> Server) {
    let env = TestEnv::start().await;
    let mut daemons: Vec<Running> = Vec::new();
    for (name, address) in NAME_SERVERS {
        let instance = format!("dns-{name}");
        let launched = env.launch_with(&instance, |config| {
            config.listen = format!("{address}:53");
            config.ttl_s = 1;
            config.negative_ttl_s = 1;
            config.name_servers = NAME_SERVERS
                .map(|(name, address)| (name.to_owned(), vec![address.parse::<IpAddr>().unwrap()]))
                .into();
        });
        let mut daemon = launched.await;
        daemon.ready().await.unwrap();
        daemons.push(daemon);
    }
    // Two replicas at one address, as behind one address translation.
    for (kind, name, address) in [
        (DaemonKind::Login, "login-1", "203.0.113.1:3724"),
        (DaemonKind::Login, "login-2", "203.0.113.1:3725"),
        (DaemonKind::Gateway, "gateway-1", "203.0.113.2:4000"),
    ] {
        env.announce(kind, name, address, State::Up);
    }
    let folder = tempfile::tempdir().unwrap();
    let _parent = parent(folder.path());
    let _resolver = resolver(folder.path());
    let server = SocketAddr::new(RESOLVER.parse().unwrap(), 53);
    let mut last = String::new();
    let first = async {
        while let Err(failure) = lookup(server, "login.shardkeep.test.", RecordType::A).await {
            last = failure;
        }
    };
    let found = timeout(TEST_TIMEOUT, first).await;
    assert!(found.is_ok(), "the resolver does not find the zone: {last}");

    let (mut asked, mut failures) = (0, Vec::new());
    let began = Instant::now();
    let mut ticks = interval(LOOKUP_INTERVAL);
    while began.elapsed() < LOOKUP_TIME {
        ticks.tick().await;
        for (name, kind) in LOOKUPS {
            asked += 1;
            if let Err(failure) = lookup(server, name, kind).await {
                failures.push(failure);
            }
        }
    }
    assert!(failures.is_empty(), "{} of {asked} look-ups fail, the first: {}", failures.len(), failures[0]);
    for daemon in daemons {
        daemon.stop().await.unwrap();
    }
}

/// One look-up by a recursive resolver. It fails when there is no answer, or a record occurs twice.
async fn lookup(server: SocketAddr, name: &str, kind: RecordType) -> Result<(), String> {
    let mut message = question(name, kind);
    message.metadata.recursion_desired = true;
    let answer = exchange(server, &message.to_vec().unwrap()).await;
    let answer = Message::from_vec(&answer.map_err(|error| format!("{name} {kind}: {error}"))?).unwrap();
    if answer.response_code != ResponseCode::NoError || answer.answers.is_empty() {
        return Err(format!("{name} {kind}: {}, {} answers", answer.response_code, answer.answers.len()));
    }
    let records: HashSet<String> = answer.answers.iter().map(ToString::to_string).collect();
    if records.len() != answer.answers.len() {
        return Err(format!("{name} {kind}: a record occurs twice: {:?}", answer.answers));
    }
    Ok(())
}

async fn exchange(server: SocketAddr, packet: &[u8]) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(server).await?;
    socket.send(packet).await?;
    let mut buffer = vec![0; 65_535];
    let length = timeout(ANSWER_TIMEOUT, socket.recv(&mut buffer)).await??;
    buffer.truncate(length);
    Ok(buffer)
}

/// A root zone that delegates `shardkeep.test` as docs/operations.md describes.
fn parent(folder: &Path) -> Server {
    let mut zone = format!(
        "$TTL 86400\n. SOA a.root. hostmaster.root. 1 3600 600 86400 60\n. NS a.root.\na.root. A {PARENT}\n"
    );
    for (name, address) in NAME_SERVERS {
        writeln!(zone, "shardkeep.test. NS {name}.shardkeep.test.").unwrap();
        writeln!(zone, "{name}.shardkeep.test. A {address}").unwrap();
    }
    std::fs::write(folder.join("root.zone"), zone).unwrap();
    std::fs::write(folder.join("hints"), format!(". 3600 NS a.root.\na.root. 3600 A {PARENT}\n")).unwrap();
    let options = format!(
        "directory \"{}\"; listen-on {{ {PARENT}; }}; listen-on-v6 {{ none; }}; recursion no; \
         dnssec-validation no; pid-file none; session-keyfile none;",
        folder.display()
    );
    let config = format!(
        "options {{ {options} }};\ncontrols {{}};\nzone \".\" {{ type primary; file \"root.zone\"; }};\n"
    );
    start_named(folder, "parent", &config)
}

fn start_named(folder: &Path, name: &str, config: &str) -> Server {
    let path = folder.join(format!("{name}.conf"));
    std::fs::write(&path, config).unwrap();
    let mut command = Command::new("named");
    command.args(["-g", "-c"]).arg(path);
    Server::start(command, folder, name)
}

/// A name server that ends with this value.
struct Server(Child);

impl Server {
    fn start(mut command: Command, folder: &Path, name: &str) -> Self {
        let log = std::fs::File::create(folder.join(format!("{name}.log"))).unwrap();
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
