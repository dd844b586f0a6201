//! Instructions that a gateway executes for a relayed request, for a published message and for an attach.
//!
//! The gateway runs on a separate thread under valgrind's callgrind, which counts each thread apart. Clients and doubles
//! run on another thread and do not count. Two runs of different length give the cost of one more operation.
//!
//! ```text
//! cargo test --release -p shardkeep-gateway --test gateway -- --ignored --nocapture instructions::report
//! ```

use std::{env, fs, path::Path, process::Command, sync::Arc, time::Duration};

use shardkeep_daemon::{Settings, launch};
use shardkeep_gateway::{Config, Gateway};
use shardkeep_link::{PublishKind, ServerMessage, SessionChange};
use shardkeep_testkit::http_get;
use shardkeep_types::{BackendKind, DaemonKind, Epoch};
use shardkeep_wire::{Head, Message, opcode, payload::Pong};
use tokio::{runtime, time::timeout};

use crate::{
    cell,
    cluster::{Cluster, TEST_TIMEOUT, spec},
    player::Player,
};

/// The variable that tells a test under valgrind how many operations to run.
const OPERATIONS: &str = "SHARDKEEP_OPERATIONS";
const OPCODE: u16 = 0x8001;
/// Requests under way at once. A batch of a link then carries many, as under load.
const WINDOW: usize = 50;
const SUBSCRIBERS: usize = 10;
const PAYLOAD: [u8; 64] = [7; 64];

#[test]
#[ignore = "runs itself under valgrind, which takes minutes"]
fn report() {
    for (workload, unit, few, many) in [
        ("relay", "request with its reply", 500, 4_500),
        ("publish", "copy of a published message", 1_000, 9_000),
        ("attach", "attach", 40, 160),
    ] {
        let counted = instructions(workload, many) - instructions(workload, few);
        println!("{workload}: {} instructions per {unit}", counted / (many - few));
    }
}

/// Instructions of the gateway's thread while the workload runs.
fn instructions(workload: &str, operations: u64) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--separate-threads=yes"])
        .arg(format!("--callgrind-out-file={}/out", folder.path().display()))
        .arg(env::current_exe().unwrap())
        .args(["--ignored", "--exact", &format!("instructions::{workload}")])
        .env(OPERATIONS, operations.to_string())
        .output()
        .expect("valgrind is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let files = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    files.filter_map(|file| thread_total(&file)).sum()
}

/// The total of a thread's file, if it is the gateway's thread.
fn thread_total(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).unwrap();
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    text.contains("run_gateway_thread\n").then(|| total.expect("a total").trim().parse().unwrap())
}

/// Operations to run; `None`: the test was not started by [`report`].
fn operations() -> Option<usize> {
    env::var(OPERATIONS).ok().map(|count| count.parse().expect("a number of operations"))
}

fn run(workload: impl AsyncFnOnce(usize)) {
    if let Some(operations) = operations() {
        runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(workload(operations));
    }
}

/// Starts the gateway on a separate thread, which ends with the process.
async fn start_gateway(cluster: &Cluster) {
    let mut settings = cluster.gateway_settings("gateway-1");
    // Nothing but the workload costs instructions.
    settings.cluster.heartbeat = Duration::from_secs(20);
    settings.service.billing_interval = Duration::from_secs(60);
    // Subscribers only read, and valgrind is slow.
    settings.service.idle = Duration::from_secs(600);
    std::thread::spawn(move || run_gateway_thread(settings));
    cluster.wait_for_gateway("gateway-1").await;
}

#[inline(never)]
fn run_gateway_thread(settings: Settings<Config>) {
    runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let _running = launch::<Gateway>(settings).await.unwrap();
        std::future::pending::<()>().await;
    });
}

#[test]
#[ignore = "started by `report`"]
fn relay() {
    run(async |operations| {
        let mut cluster = Cluster::start().await;
        let mut world = cluster.world("world-1", 1).await;
        let mut range = spec(BackendKind::FIRST_CUSTOM, 0x8000, 0x80ff);
        (range.routes[0].rate, range.routes[0].burst) = (1_000_000, 1_000_000);
        let mut echo = cluster.backend(DaemonKind::Backend, "echo-1", range).await;
        start_gateway(&cluster).await;
        let mut player = cluster.player("gateway-1", 7).await;
        world.session(player.session, SessionChange::Joined).await;
        let gateway = echo.session(player.session, SessionChange::Joined).await;
        let numbers: Vec<u32> = (1..).take(operations).collect();
        for window in numbers.chunks(WINDOW) {
            let requests: Vec<_> = window
                .iter()
                .map(|number| Message::new(OPCODE, Head::Request(*number), PAYLOAD[..].to_vec().into()))
                .collect();
            player.connection.send(&requests).await.unwrap();
            let mut replies = Vec::new();
            while replies.len() < window.len() {
                let asked = echo.delivered(player.session).await;
                replies
                    .extend(asked.into_iter().map(|it| ServerMessage::reply(OPCODE, it.request, it.payload)));
            }
            // One item each, as of different sessions.
            for reply in replies {
                echo.hub.send(&gateway, &[player.session], vec![reply]);
            }
            for _ in window {
                player.next().await.unwrap();
            }
            player.acknowledge().await;
        }
    });
}

#[test]
#[ignore = "started by `report`"]
fn publish() {
    run(async |operations| {
        let mut cluster = Cluster::start().await;
        let mut world = cluster.world("world-1", 1).await;
        let mut zone = cluster.zone("zone-1").await;
        start_gateway(&cluster).await;
        let gateway = Arc::from("gateway-1");
        let mut players = Vec::new();
        for account in 1..=SUBSCRIBERS as u64 {
            let player = cluster.player("gateway-1", account).await;
            world.session(player.session, SessionChange::Joined).await;
            world.hub.bind(&gateway, player.session, BackendKind::ZONE, "zone-1", Epoch(1));
            zone.bound(player.session).await;
            zone.hub.subscribe(&gateway, player.session, &[cell(1)], false);
            players.push(player);
        }
        zone.watched(cell(1)).await;
        for number in 0..operations / SUBSCRIBERS {
            let kind = if number % 50 == 0 { PublishKind::Keyframe } else { PublishKind::Delta };
            let message = ServerMessage::state(0x1081, 1, cell(1).number(), PAYLOAD[..].to_vec());
            zone.hub.publish(cell(1), Epoch(1), kind, message);
            for player in &mut players {
                timeout(TEST_TIMEOUT, player.next()).await.expect("a message").unwrap();
            }
        }
    });
}

#[test]
#[ignore = "started by `report`"]
fn attach() {
    run(async |operations| {
        let mut cluster = Cluster::start().await;
        let _world = cluster.world("world-1", 1).await;
        start_gateway(&cluster).await;
        let address = cluster.address("gateway-1");
        let mut players = Vec::with_capacity(operations);
        for account in 1..=operations as u64 {
            let ticket = cluster.ticket("gateway-1", account).await;
            players.push(Player::attach(&address, &ticket).await.expect("attached"));
        }
    });
}

/// Prints how often the two threads of a gateway, and the threads of two zones, wait for the lock of the groups and for the
/// locks of the hubs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints a measurement"]
async fn report_lock_waits() {
    const ROUNDS: usize = 2_000;
    const PLAYERS: u64 = 40;
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let mut zones = [cluster.zone("zone-1").await, cluster.zone("zone-2").await];
    let running = cluster.gateway("gateway-1").await;
    let gateway = Arc::from("gateway-1");
    let mut readers = Vec::new();
    for account in 1..=PLAYERS {
        let player = cluster.player("gateway-1", account).await;
        let zone = account as usize % 2;
        world.session(player.session, SessionChange::Joined).await;
        let name = ["zone-1", "zone-2"][zone];
        world.hub.bind(&gateway, player.session, BackendKind::ZONE, name, Epoch(1));
        zones[zone].bound(player.session).await;
        zones[zone].hub.subscribe(&gateway, player.session, &[cell(zone as u64)], false);
        readers.push(player);
    }
    let mut tasks = Vec::new();
    for mut player in readers {
        tasks.push(tokio::spawn(async move {
            // The last message of the zone ends the task.
            let mut read = 0;
            while player.next().await.is_ok_and(|message| message.payload.len() > 1) {
                read += 1;
                if read % 500 == 0 {
                    player.send(Message::event(opcode::PONG, &Pong { value: 0 })).await;
                }
            }
        }));
    }
    for (number, zone) in zones.iter().enumerate() {
        let hub = zone.hub.clone();
        tokio::spawn(async move {
            for round in 0..=ROUNDS {
                let kind = if round % 50 == 0 { PublishKind::Keyframe } else { PublishKind::Delta };
                let size = if round == ROUNDS { 1 } else { PAYLOAD.len() };
                let message = ServerMessage::state(0x1081, 1, number as u64, vec![7; size]);
                hub.publish(cell(number as u64), Epoch(1), kind, message);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }
    for task in tasks {
        timeout(6 * TEST_TIMEOUT, task).await.expect("the last message").unwrap();
    }
    let (_, metrics) = http_get(&running.daemon().bound().admin, "/metrics").await.unwrap();
    for name in ["gateway_published", "gateway_fanned_out", "gateway_group_lock_waits", "link_hub_lock_waits"]
    {
        let line = metrics.lines().find(|line| line.starts_with(&format!("shardkeep_{name}_total")));
        println!("{}", line.unwrap_or("no waits"));
    }
}
