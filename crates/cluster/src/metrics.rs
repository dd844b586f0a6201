//! Metrics of membership, the same in all daemons.

use metrics::{counter, describe_counter, describe_gauge, gauge};

/// Calls and connections of peers that were refused, by reason.
pub(crate) const REFUSED: &str = "shardkeep_cluster_refused_peers_total";
/// Registries that hold this instance's lease.
pub(crate) const REGISTRIES: &str = "shardkeep_cluster_registries_count";
/// Times that this instance lost its last lease.
pub(crate) const REGISTRIES_LOST: &str = "shardkeep_cluster_registries_lost_total";
/// Failed registrations and heartbeats.
pub(crate) const REGISTER_FAILURES: &str = "shardkeep_cluster_register_failures_total";
/// Watch streams that broke or could not be opened.
pub(crate) const WATCH_FAILURES: &str = "shardkeep_cluster_watch_failures_total";
/// Instances that are up, by kind, for the kinds that this daemon follows.
pub(crate) const INSTANCES: &str = "shardkeep_cluster_instances_count";
pub(crate) const BATCHED_CALLS: &str = "shardkeep_cluster_batched_calls_total";
pub(crate) const BATCHED_REQUESTS: &str = "shardkeep_cluster_batched_requests_total";
pub(crate) const BATCHED_FAILURES: &str = "shardkeep_cluster_batched_failures_total";

/// Time at which the certificate of this instance expires.
pub(crate) const CERTIFICATE_EXPIRY: &str = "shardkeep_cluster_certificate_expiry_timestamp_seconds";

pub(crate) fn describe() {
    describe_gauge!(
        CERTIFICATE_EXPIRY,
        "Time at which the certificate of this instance expires, in seconds since the Unix epoch"
    );
    describe_counter!(REFUSED, "Calls and connections of peers that were refused, by reason");
    describe_gauge!(REGISTRIES, "Registries that hold this instance's lease");
    describe_counter!(REGISTRIES_LOST, "Times that this instance lost its last registry lease");
    describe_counter!(REGISTER_FAILURES, "Failed registrations and heartbeats");
    describe_counter!(WATCH_FAILURES, "Registry watches that broke or could not be opened");
    describe_gauge!(INSTANCES, "Instances that are up, by kind, for the kinds that this daemon follows");
    describe_counter!(BATCHED_CALLS, "Batched calls, by batch");
    describe_counter!(BATCHED_REQUESTS, "Requests sent in batched calls, by batch");
    describe_counter!(BATCHED_FAILURES, "Requests of batched calls that got no reply, by batch and reason");
    for reason in REFUSAL_REASONS {
        counter!(REFUSED, "reason" => reason).increment(0);
    }
    gauge!(REGISTRIES).set(0.0);
}

/// Values of the label `reason` of [`REFUSED`].
const REFUSAL_REASONS: [&str; 5] = ["handshake", "nameless", "unknown_method", "kind", "world"];
