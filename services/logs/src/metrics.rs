//! Every metric of this daemon.

use std::time::Duration;

use ::metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const RECEIVED: &str = "shardkeep_logs_records_received_total";
const WRITTEN: &str = "shardkeep_logs_records_written_total";
const LOST: &str = "shardkeep_logs_records_lost_total";
const FORWARDED: &str = "shardkeep_logs_records_forwarded_total";
const BATCH_SECONDS: &str = "shardkeep_logs_write_seconds";
const WAITING: &str = "shardkeep_logs_queue_records";
const QUERIES: &str = "shardkeep_logs_queries_total";
const QUERY_SECONDS: &str = "shardkeep_logs_query_seconds";
const DAYS: &str = "shardkeep_logs_days_kept";
const BYTES: &str = "shardkeep_logs_storage_bytes";
const BYTES_LIMIT: &str = "shardkeep_logs_storage_limit_bytes";
const REMOVED: &str = "shardkeep_logs_removed_for_space_total";

pub(crate) fn describe() {
    describe_counter!(RECEIVED, "Records received, by daemon kind");
    describe_counter!(WRITTEN, "Records written to the daily files");
    describe_counter!(
        LOST,
        "Records lost: queue (full), store (not written), forward (queue full) or refused (by the outside collector)"
    );
    describe_counter!(FORWARDED, "Records passed on to the outside collector");
    describe_histogram!(BATCH_SECONDS, "Time to write one batch");
    describe_gauge!(WAITING, "Records waiting to be written");
    describe_counter!(QUERIES, "Queries, by outcome");
    describe_histogram!(QUERY_SECONDS, "Time to answer a query");
    describe_gauge!(DAYS, "Daily files kept");
    describe_gauge!(BYTES, "Bytes of the daily files");
    describe_gauge!(BYTES_LIMIT, "Bytes that the daily files may take (logs.max_bytes)");
    describe_counter!(
        REMOVED,
        "Removals before the end of the retention period, because the files reached logs.max_bytes"
    );
}

pub(crate) fn received(daemon: &str, records: usize) {
    // Strangers may call themselves anything; only kinds of daemons become labels.
    let daemon = daemon.parse::<shardkeep_types::DaemonKind>().map_or("other", |kind| kind.as_str());
    counter!(RECEIVED, "daemon" => daemon).increment(records as u64);
}

pub(crate) fn written(records: usize, took: Duration) {
    counter!(WRITTEN).increment(records as u64);
    histogram!(BATCH_SECONDS).record(took);
}

pub(crate) fn lost(reason: &'static str, records: usize) {
    counter!(LOST, "reason" => reason).increment(records as u64);
}

pub(crate) fn forwarded(records: usize) {
    counter!(FORWARDED).increment(records as u64);
}

pub(crate) fn waiting(records: usize) {
    gauge!(WAITING).set(records as f64);
}

pub(crate) fn query(outcome: &'static str, took: Duration) {
    counter!(QUERIES, "outcome" => outcome).increment(1);
    histogram!(QUERY_SECONDS).record(took);
}

pub(crate) fn storage(days: usize, bytes: u64, limit: u64) {
    gauge!(DAYS).set(days as f64);
    gauge!(BYTES).set(bytes as f64);
    gauge!(BYTES_LIMIT).set(limit as f64);
    counter!(REMOVED).increment(0);
}

pub(crate) fn removed_for_space() {
    counter!(REMOVED).increment(1);
}
