//! Metrics of the update service. Their names begin with `shardkeep_login`, because a login daemon exports them.

use std::time::Duration;

use ::metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

/// Login describes this one: its own connections count there too.
const REFUSED: &str = "shardkeep_login_connections_refused_total";
/// Login describes this one, too.
const VIOLATIONS: &str = "shardkeep_login_violations_total";
const CONNECTIONS: &str = "shardkeep_login_update_connections";
const BYTES: &str = "shardkeep_login_update_sent_bytes_total";
const PIECES: &str = "shardkeep_login_update_pieces_total";
const CHUNKS: &str = "shardkeep_login_update_chunks_total";
const REQUESTS_REFUSED: &str = "shardkeep_login_update_refused_total";
const THROTTLED: &str = "shardkeep_login_update_throttled_pieces_total";
const WAIT_SECONDS: &str = "shardkeep_login_update_wait_seconds";
const COLD_READS: &str = "shardkeep_login_update_cold_reads_total";
const RELEASES: &str = "shardkeep_login_update_releases_total";

pub(crate) fn describe() {
    describe_gauge!(CONNECTIONS, "Open connections that fetch patches");
    describe_counter!(BYTES, "Bytes of manifests and chunks sent");
    describe_counter!(PIECES, "Pieces of manifests and chunks sent");
    describe_counter!(CHUNKS, "Manifests and chunks of which the last piece was sent");
    describe_counter!(REQUESTS_REFUSED, "Requests that the update service refused, by code");
    describe_counter!(THROTTLED, "Pieces that waited for bandwidth");
    describe_histogram!(WAIT_SECONDS, "How long a piece waited for bandwidth, of the pieces that waited");
    describe_counter!(COLD_READS, "Pieces that were read from the disk before they were sent");
    describe_counter!(RELEASES, "Releases found in the store of patches, by outcome");
}

pub(crate) fn refused(bound: &'static str) {
    counter!(REFUSED, "bound" => bound).increment(1);
}

pub(crate) fn violation(label: &'static str) {
    counter!(VIOLATIONS, "what" => label).increment(1);
}

pub(crate) fn connections(change: f64) {
    gauge!(CONNECTIONS).increment(change);
}

pub(crate) fn sent(bytes: u32, last: bool) {
    counter!(BYTES).increment(bytes.into());
    counter!(PIECES).increment(1);
    if last {
        counter!(CHUNKS).increment(1);
    }
}

pub(crate) fn request_refused(code: &'static str) {
    counter!(REQUESTS_REFUSED, "code" => code).increment(1);
}

pub(crate) fn throttled(wait: Duration) {
    counter!(THROTTLED).increment(1);
    histogram!(WAIT_SECONDS).record(wait);
}

pub(crate) fn cold_read() {
    counter!(COLD_READS).increment(1);
}

pub(crate) fn release_published(ok: bool) {
    counter!(RELEASES, "outcome" => if ok { "published" } else { "refused" }).increment(1);
}
