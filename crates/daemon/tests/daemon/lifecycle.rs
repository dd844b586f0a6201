//! A daemon from its start to its end: ready, drain, grace time, failure, and the admin endpoints.

use std::time::Duration;

use shardkeep_daemon::{BoundAddresses, DaemonConfig, Running, Settings, launch};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::service::{Act, Config, Idle};

async fn start(act: Act, daemon: DaemonConfig) -> Running {
    let service = Config { act, store: "postgres://game:hunter2@db/game".into(), ..Config::default() };
    launch::<Idle>(Settings { daemon, service, ..Settings::default() }).await.unwrap()
}

fn config() -> DaemonConfig {
    DaemonConfig { name: "idle-1".into(), ..DaemonConfig::default() }
}

/// Status line and body of the answer to a GET request.
async fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[tokio::test]
async fn admin_endpoints_report_state_and_mask_secrets() {
    let mut running = start(Act::Wait, config()).await;
    let admin = running.ready().await.unwrap().admin;
    assert!(get(&admin, "/livez").await.0.contains("200"));
    assert_eq!(get(&admin, "/readyz").await.1, "ready\n");
    let (_, metrics) = get(&admin, "/metrics").await;
    for name in ["cpu_milliseconds_total", "resident_bytes", "open_files", "max_files", "start_time_seconds"]
    {
        assert!(metrics.contains(&format!("shardkeep_process_{name} ")), "{name}: {metrics}");
    }
    let (_, shown) = get(&admin, "/config").await;
    assert!(shown.contains("postgres://game:***@db/game") && !shown.contains("hunter2"), "{shown}");
    // A task in progress keeps the endpoints open.
    let (finish, told) = tokio::sync::oneshot::channel::<()>();
    running.daemon().tasks().spawn(told);
    running.daemon().drain("test");
    let (status, body) = get(&admin, "/readyz").await;
    assert!(status.contains("503") && body == "draining\n");
    finish.send(()).unwrap();
    running.join().await.unwrap();
}

#[tokio::test]
async fn obstacle_of_one_part_makes_a_ready_daemon_unready() {
    let mut running = start(Act::Wait, config()).await;
    let admin = running.ready().await.unwrap().admin;
    let daemon = running.daemon().clone();
    daemon.not_ready_because("store", Some("the disk is full".into()));
    daemon.not_ready_because("registry", Some("no registry lease".into()));
    let (status, body) = get(&admin, "/readyz").await;
    assert!(status.contains("503"), "{status}");
    assert_eq!(body, "not ready: no registry lease; the disk is full\n");
    daemon.not_ready_because("registry", None);
    assert_eq!(get(&admin, "/readyz").await.1, "not ready: the disk is full\n");
    daemon.not_ready_because("store", None);
    assert_eq!(get(&admin, "/readyz").await.1, "ready\n");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn admin_page_of_the_service_is_served_as_json() {
    let mut running = start(Act::Wait, config()).await;
    let admin = running.ready().await.unwrap().admin;
    assert!(get(&admin, "/targets").await.0.contains("404"));
    running.daemon().add_admin_page("/targets", || "[]".to_owned());
    let (status, body) = get(&admin, "/targets").await;
    assert!(status.contains("200") && body == "[]", "{status} {body}");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn drain_waits_for_work_in_flight() {
    let mut running = start(Act::Wait, config()).await;
    running.ready().await.unwrap();
    let daemon = running.daemon().clone();
    let (finish, told) = tokio::sync::oneshot::channel::<()>();
    let work = daemon.tasks().spawn(async move { told.await.is_ok() });
    daemon.drain("test");
    // The service has returned; the daemon waits for the task.
    let lifecycle = tokio::spawn(running.join());
    assert!(!daemon.finished().is_cancelled() && !lifecycle.is_finished());
    finish.send(()).unwrap();
    lifecycle.await.unwrap().unwrap();
    assert!(work.await.unwrap(), "the work was dropped");
    assert!(daemon.finished().is_cancelled());
}

#[tokio::test]
async fn grace_timeout_stops_an_unfinished_service() {
    let mut running =
        start(Act::NeverFinish, DaemonConfig { grace: Duration::from_millis(50), ..config() }).await;
    running.ready().await.unwrap();
    let stopped = running.daemon().stopped();
    running.stop().await.unwrap();
    assert!(stopped.is_cancelled());
}

#[tokio::test]
async fn failed_task_ends_the_daemon_with_an_error() {
    for act in [Act::Panic, Act::FailTask, Act::Fail] {
        let running = start(act, config()).await;
        assert!(running.join().await.is_err(), "{act:?}");
    }
}

#[tokio::test]
async fn announce_file_holds_the_bound_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/idle-1.json");
    let mut running = start(Act::Wait, DaemonConfig { announce: Some(path.clone()), ..config() }).await;
    let bound = running.ready().await.unwrap();
    let written = async {
        loop {
            if let Ok(text) = std::fs::read(&path) {
                break serde_json::from_slice::<BoundAddresses>(&text).unwrap();
            }
            tokio::task::yield_now().await;
        }
    };
    let written = tokio::time::timeout(Duration::from_secs(20), written).await.unwrap();
    assert_eq!(written, bound);
    assert_eq!((written.name.as_str(), written.client.as_str()), ("idle-1", "203.0.113.1:4000"));
    running.stop().await.unwrap();
}

#[tokio::test]
async fn taken_port_error_names_the_setting() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = taken.local_addr().unwrap().to_string();
    let settings = Settings { daemon: DaemonConfig { admin, ..config() }, ..Settings::<Config>::default() };
    let Err(error) = launch::<Idle>(settings).await else { panic!() };
    assert!(format!("{error:#}").contains("daemon.admin moves them"), "{error:#}");
}
