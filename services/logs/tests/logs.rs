//! The daemon's services over a real socket: OTLP in, SQL out, on any day.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::{
    collector::logs::v1::{
        ExportLogsServiceRequest, logs_service_client::LogsServiceClient,
        logs_service_server::LogsService as _,
    },
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use shardkeep_logs::{Archive, Clock, Config, ForwardHandle, LogsError, QueryService, Receiver, Writer};
use shardkeep_rpc::{
    logs::{QueryReply, QueryRequest, logs_client::LogsClient},
    tonic::{
        Code, Request, Response, Status,
        transport::{Channel, Server},
    },
};
use shardkeep_testkit::SmallDisk;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

/// Longest wait for the writer, on a busy machine.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);
const DAY: u64 = 86_400;
/// 2026-11-22, one minute before midnight.
const EVENING: u64 = 1_795_392_000 - 60;

/// A logs daemon without a cluster around it.
struct Collector {
    now: Arc<AtomicU64>,
    stop: CancellationToken,
    writer: JoinHandle<()>,
    channel: Channel,
}

impl Collector {
    async fn start(folder: &Path, config: Config) -> Self {
        Self::start_forwarding(folder, config, None).await
    }

    async fn start_forwarding(folder: &Path, config: Config, forward: Option<ForwardHandle>) -> Self {
        Self::start_at(folder, config, forward, "127.0.0.1:0").await
    }

    async fn start_at(folder: &Path, config: Config, forward: Option<ForwardHandle>, address: &str) -> Self {
        let now = Arc::new(AtomicU64::new(EVENING));
        let seconds = Arc::clone(&now);
        let clock: Clock = Arc::new(move || UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::SeqCst)));
        let archive = Archive::open(folder).unwrap();
        let (writer, queue) = Writer::new(archive.clone(), &config, Arc::clone(&clock));
        let stop = CancellationToken::new();
        let writer = tokio::spawn(writer.run(stop.clone(), stop.clone()));
        let listener = TcpListener::bind(address).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = Server::builder()
            .add_service(Receiver::new(queue, Arc::clone(&clock), forward).into_server())
            .add_service(QueryService::new(archive, &config, clock).into_server());
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
        Self { now, stop, writer, channel }
    }

    async fn send(&self, records: Vec<LogRecord>) -> i64 {
        let name = |key: &str, value: &str| KeyValue {
            key: key.into(),
            value: Some(text(value)),
            ..KeyValue::default()
        };
        let attributes = vec![name("service.name", "zone"), name("service.instance.id", "zone-1")];
        let request = ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                resource: Some(Resource { attributes, ..Resource::default() }),
                scope_logs: vec![ScopeLogs { log_records: records, ..ScopeLogs::default() }],
                ..ResourceLogs::default()
            }],
        };
        let reply = LogsServiceClient::new(self.channel.clone()).export(request).await.unwrap().into_inner();
        reply.partial_success.map_or(0, |partial| partial.rejected_log_records)
    }

    async fn ask(&self, request: QueryRequest) -> Result<QueryReply, Status> {
        LogsClient::new(self.channel.clone()).query(request).await.map(Response::into_inner)
    }

    async fn select(&self, sql: &str) -> Result<Vec<Vec<String>>, Status> {
        let reply = self.ask(QueryRequest { sql: sql.into(), ..Default::default() }).await?;
        Ok(reply.rows.into_iter().map(|row| row.values).collect())
    }

    /// Queries until the writer has written this many records.
    async fn wait_for_records(&self, count: usize) {
        let wanted = [[count.to_string()]];
        let arrived = tokio::time::timeout(ARRIVAL_TIMEOUT, async {
            while self.select("SELECT count(*) FROM log").await.unwrap() != wanted {
                tokio::task::yield_now().await;
            }
        });
        arrived.await.unwrap_or_else(|_| panic!("{count} records did not arrive"));
    }
}

fn text(value: &str) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(value.into())) }
}

fn record(message: &str, seconds: u64, attributes: &[(&str, &str)]) -> LogRecord {
    LogRecord {
        time_unix_nano: seconds * 1_000_000_000,
        severity_number: 9,
        body: Some(text(message)),
        attributes: attributes
            .iter()
            .map(|(key, value)| KeyValue {
                key: (*key).into(),
                value: Some(text(value)),
                ..KeyValue::default()
            })
            .collect(),
        ..LogRecord::default()
    }
}

fn fast_flush() -> Config {
    Config { flush: Duration::from_millis(1), ..Config::default() }
}

#[tokio::test]
async fn exported_records_are_found_by_query_and_search() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Collector::start(folder.path(), fast_flush()).await;
    let login =
        record("logged in", EVENING, &[("event", "login"), ("account", "7"), ("address", "203.0.113.9")]);
    logs.send(vec![login, record("the tick took long", EVENING + 1, &[])]).await;
    logs.wait_for_records(2).await;

    let columns =
        "SELECT time, daemon, instance, level, message, event, account, attributes FROM log ORDER BY time";
    let rows = logs.select(columns).await.unwrap();
    assert_eq!(
        rows[0],
        [
            r#""2026-11-22T23:59:00.000000Z""#,
            r#""zone""#,
            r#""zone-1""#,
            r#""INFO""#,
            r#""logged in""#,
            r#""login""#,
            r#""7""#,
            r#""{\"address\":\"203.0.113.9\"}""#,
        ]
    );
    assert_eq!(logs.select("SELECT message FROM log WHERE account = 7").await.unwrap(), [[r#""logged in""#]]);
    let descending = logs.select("SELECT message FROM log ORDER BY time DESC").await.unwrap();
    assert_eq!(descending[0], [r#""the tick took long""#], "the wrapping keeps the order");

    let search = |search: &str| QueryRequest {
        sql: "SELECT count(*) FROM log".into(),
        search: search.into(),
        ..Default::default()
    };
    assert_eq!(logs.ask(search("NEAR(tick took)")).await.unwrap().rows[0].values, ["1"]);
    assert_eq!(logs.ask(search("\"203.0.113.9\"")).await.unwrap().rows[0].values, ["1"]);
    assert_eq!(logs.ask(search("it's \"")).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn files_roll_over_daily_and_queries_span_days() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { retention_days: 2, ..fast_flush() };
    let logs = Collector::start(folder.path(), config).await;
    logs.send(vec![record("before midnight", EVENING, &[])]).await;
    logs.wait_for_records(1).await;
    logs.now.store(EVENING + 120, Ordering::SeqCst);
    let late = record("late, before midnight too", EVENING + 1, &[]);
    let lost_in_time = record("claims the year 1970", 5, &[]);
    logs.send(vec![late, record("after midnight", EVENING + 120, &[]), lost_in_time]).await;
    logs.wait_for_records(4).await;

    let count = |days: &[&str]| QueryRequest {
        sql: "SELECT count(*) FROM log".into(),
        days: days.iter().map(|day| (*day).to_owned()).collect(),
        ..Default::default()
    };
    assert_eq!(logs.ask(count(&["2026-11-22"])).await.unwrap().rows[0].values, ["2"]);
    assert_eq!(logs.ask(count(&["2026-11-23"])).await.unwrap().rows[0].values, ["2"]);
    assert_eq!(logs.ask(count(&["2020-01-01"])).await.unwrap().rows[0].values, ["0"]);

    logs.now.store(EVENING + 120 + DAY, Ordering::SeqCst);
    logs.send(vec![record("a day later", EVENING + 120 + DAY, &[])]).await;
    logs.wait_for_records(3).await;
    assert!(!folder.path().join("2026-11-22.db").exists(), "two days are kept");
    assert!(folder.path().join("2026-11-23.db").exists());
}

#[tokio::test]
async fn full_disk_delays_records_and_loses_none() {
    let Some(disk) = SmallDisk::mount(4 << 20) else { return };
    let archive = Archive::open(disk.path()).unwrap();
    let clock: Clock = Arc::new(|| UNIX_EPOCH + Duration::from_secs(EVENING));
    let (writer, queue) = Writer::new(archive, &fast_flush(), Arc::clone(&clock));
    let (sender, mut reports) = mpsc::unbounded_channel();
    let writer = writer.on_outage(move |cause| drop(sender.send(cause)));
    let (stop, give_up) = (CancellationToken::new(), CancellationToken::new());
    let writer = tokio::spawn(writer.run(stop.clone(), give_up));
    let receiver = Receiver::new(queue, clock, None);
    let send = async |message: &str| {
        let scope_logs =
            vec![ScopeLogs { log_records: vec![record(message, EVENING, &[])], ..Default::default() }];
        let resource_logs = vec![ResourceLogs { scope_logs, ..Default::default() }];
        receiver.export(Request::new(ExportLogsServiceRequest { resource_logs })).await.unwrap();
    };
    disk.fill();
    send(&"x".repeat(1_000_000)).await;
    assert!(reports.recv().await.flatten().is_some(), "no cause");
    send("meanwhile").await;
    disk.free();
    assert_eq!(reports.recv().await, Some(None), "the files can be written again");
    stop.cancel();
    writer.await.unwrap();
    let logs = Collector::start(disk.path(), fast_flush()).await;
    logs.wait_for_records(2).await;
}

#[tokio::test]
async fn statements_other_than_reads_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Collector::start(folder.path(), fast_flush()).await;
    logs.send(vec![record("precious", EVENING, &[])]).await;
    logs.wait_for_records(1).await;
    let elsewhere = folder.path().join("elsewhere.db");
    for sql in [
        "DELETE FROM log".into(),
        "SELECT 1; DELETE FROM day0.log".into(),
        "SELECT 1) ; DELETE FROM day0.log; --".into(),
        "WITH x AS (SELECT 1) DELETE FROM day0.log".into(),
        "PRAGMA query_only = OFF".into(),
        "SELECT * FROM pragma_query_only(0)".into(),
        format!("ATTACH '{}' AS other", elsewhere.display()),
        "SELECT load_extension('/tmp/evil.so')".into(),
        "SELECT writefile('/tmp/evil', 'x')".into(),
        "SELECT readfile('/etc/passwd')".into(),
        "SELECT fts5(1) FROM log, nothing".into(),
        "SELECT * FROM (DELETE FROM day0.log RETURNING *)".into(),
    ] {
        let status = logs.select(&sql).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{sql}: {status}");
    }
    assert!(!elsewhere.exists());
    assert_eq!(logs.select("SELECT message FROM log").await.unwrap(), [[r#""precious""#]]);
}

#[tokio::test]
async fn query_reads_the_log_view_only() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Collector::start(folder.path(), fast_flush()).await;
    logs.send(vec![record("precious", EVENING, &[("gold", "7")])]).await;
    logs.wait_for_records(1).await;
    for sql in [
        "SELECT * FROM pragma_database_list",
        "SELECT * FROM day0.sqlite_schema",
        "SELECT * FROM sqlite_schema",
        "SELECT * FROM temp.sqlite_schema",
        "SELECT * FROM day0.log",
        "SELECT * FROM day0.log_text",
        "SELECT * FROM day0.log_text_config",
        "WITH log AS (SELECT * FROM day0.log_text_data) SELECT * FROM log",
        "SELECT * FROM pragma_table_info('log')",
        "SELECT (SELECT sql FROM day0.sqlite_schema LIMIT 1) FROM log",
    ] {
        let status = logs.select(sql).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{sql}: {status}");
    }
    let gold = "SELECT value FROM log, json_each(attributes) WHERE key = 'gold'";
    assert_eq!(logs.select(gold).await.unwrap(), [[r#""7""#]]);
    let search = QueryRequest {
        sql: "WITH found AS (SELECT message FROM log) SELECT upper(message) FROM found".into(),
        search: "precious".into(),
        ..Default::default()
    };
    assert_eq!(logs.ask(search).await.unwrap().rows[0].values, [r#""PRECIOUS""#]);
}

#[tokio::test]
async fn oversized_value_is_refused_and_later_queries_work() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Collector::start(folder.path(), fast_flush()).await;
    let long = format!("SELECT '{}'", "x".repeat(100_000));
    for sql in ["SELECT randomblob(490000000)", "SELECT zeroblob(2000000)", &long] {
        let status = logs.select(sql).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    assert_eq!(logs.select("SELECT 1").await.unwrap(), [["1"]]);
}

#[tokio::test]
async fn log_files_are_private_to_their_owner() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let days = folder.path().join("days");
    let logs = Collector::start(&days, fast_flush()).await;
    logs.send(vec![record("secret", EVENING, &[])]).await;
    logs.wait_for_records(1).await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&days), 0o700);
    for file in ["2026-11-22.db", "2026-11-22.db-wal"] {
        assert_eq!(mode(&days.join(file)), 0o600, "{file}");
    }
}

#[tokio::test]
async fn clock_jump_beyond_retention_removes_no_log() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Collector::start(folder.path(), fast_flush()).await;
    logs.send(vec![record("before the jump", EVENING, &[])]).await;
    logs.wait_for_records(1).await;
    logs.now.store(EVENING + 400 * DAY, Ordering::SeqCst);
    logs.send(vec![record("after the jump", EVENING + 400 * DAY, &[])]).await;
    logs.wait_for_records(1).await;
    assert!(folder.path().join("2026-11-22.db").exists());
}

#[tokio::test]
async fn oldest_logs_are_removed_at_the_size_limit() {
    const LIMIT: u64 = 16 << 20;
    let folder = tempfile::tempdir().unwrap();
    let config = Config { max_bytes: LIMIT, ..fast_flush() };
    let logs = Collector::start(folder.path(), config).await;
    logs.send(vec![record("a day before", EVENING, &[])]).await;
    logs.wait_for_records(1).await;
    logs.now.store(EVENING + DAY, Ordering::SeqCst);
    let bytes = || -> u64 {
        let files = std::fs::read_dir(folder.path()).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    };
    // Three times what the limit allows.
    let mut number = 0u64;
    for _ in 0..48 {
        let batch = (0..100).map(|_| {
            number += 1;
            let text = format!("{number} {}", "0123456789abcdef".repeat(512 + number as usize % 32));
            record(&text, EVENING + DAY, &[])
        });
        logs.send(batch.collect()).await;
        let newest = format!("SELECT count(*) FROM log WHERE message LIKE '{number} %'");
        let written = tokio::time::timeout(ARRIVAL_TIMEOUT, async {
            while logs.select(&newest).await.unwrap() != [["1"]] {
                tokio::task::yield_now().await;
            }
        });
        written.await.expect("the batch is written");
    }
    assert!(!folder.path().join("2026-11-22.db").exists(), "the oldest day goes first");
    assert!(bytes() < 2 * LIMIT, "{} bytes", bytes());
    let first = logs.select("SELECT count(*) FROM log WHERE message LIKE '1 %'").await.unwrap();
    assert_eq!(first, [["0"]], "then the oldest records of the last day");
}

#[tokio::test]
async fn queries_are_bounded_in_rows_time_and_days() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { query_rows: 3, query_time: Duration::from_millis(50), ..fast_flush() };
    let logs = Collector::start(folder.path(), config).await;
    let count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT";
    let reply =
        logs.ask(QueryRequest { sql: format!("{count} i FROM n"), ..Default::default() }).await.unwrap();
    assert_eq!((reply.rows.len(), reply.truncated), (3, true));
    assert_eq!(reply.columns, ["i"]);
    let endless = logs.select(&format!("{count} count(*) FROM n")).await.unwrap_err();
    assert_eq!(endless.code(), Code::DeadlineExceeded, "{endless}");
    let large = logs.select(&format!("{count} randomblob(1000000) FROM n")).await.unwrap();
    assert_eq!(large.len(), 1, "a reply is no larger than a message may be");
    let days = (10..21).map(|day| format!("2026-11-{day}")).collect();
    let many =
        logs.ask(QueryRequest { sql: "SELECT 1".into(), days, ..Default::default() }).await.unwrap_err();
    assert_eq!(many.code(), Code::InvalidArgument);
    let wrong = QueryRequest { sql: "SELECT 1".into(), days: vec!["../x".into()], ..Default::default() };
    assert_eq!(logs.ask(wrong).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn queue_overflow_is_reported_and_queue_drained_on_stop() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { queue: 10, flush: Duration::from_secs(3600), ..Config::default() };
    let mut logs = Collector::start(folder.path(), config).await;
    // The writer takes the first record and then waits for others for an hour.
    logs.send(vec![record("first", EVENING, &[])]).await;
    logs.wait_for_records(1).await;
    let rejected = logs.send((0..12).map(|_| record("more", EVENING, &[])).collect()).await;
    assert_eq!(rejected, 2);
    logs.stop.cancel();
    (&mut logs.writer).await.unwrap();
    assert_eq!(logs.select("SELECT count(*) FROM log").await.unwrap(), [["11"]]);
}

#[tokio::test]
async fn forwarding_retries_until_outside_collector_is_up() {
    let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // An address that is free until the collector starts.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (forward, forwarder) = ForwardHandle::to(&format!("http://{address}")).unwrap();
    tokio::spawn(forwarder.run(CancellationToken::new()));
    let logs = Collector::start_forwarding(inside.path(), fast_flush(), Some(forward)).await;
    logs.send(vec![record("before the collector is there", EVENING, &[])]).await;
    logs.wait_for_records(1).await;
    let collector = Collector::start_at(outside.path(), fast_flush(), None, &address.to_string()).await;
    collector.wait_for_records(1).await;
    logs.send(vec![record("and after", EVENING, &[])]).await;
    collector.wait_for_records(2).await;
}

#[tokio::test]
async fn archive_folder_is_locked_to_one_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let first = Archive::open(folder.path()).unwrap();
    let second = Archive::open(folder.path()).unwrap_err();
    assert!(
        matches!(second, LogsError::FolderInUse(_)) && second.to_string().contains("data_dir"),
        "{second}"
    );
    drop(first);
    Archive::open(folder.path()).unwrap();
}
