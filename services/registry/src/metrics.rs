//! Metrics of the registry.

use metrics::{counter, describe_counter, describe_gauge};

use crate::error::RegistryError;

/// Instances by kind and state.
pub(crate) const INSTANCES: &str = "shardkeep_registry_instances_count";
pub(crate) const REGISTRATIONS: &str = "shardkeep_registry_registrations_total";
pub(crate) const HEARTBEATS: &str = "shardkeep_registry_heartbeats_total";
pub(crate) const EXPIRED: &str = "shardkeep_registry_expired_leases_total";
/// Offline instances dropped to make room.
pub(crate) const EVICTED: &str = "shardkeep_registry_evicted_instances_total";
pub(crate) const WATCHERS: &str = "shardkeep_registry_watchers_count";
pub(crate) const CUT: &str = "shardkeep_registry_cut_watchers_total";
/// Calls refused, by reason.
pub(crate) const REFUSED: &str = "shardkeep_registry_refused_calls_total";

pub(crate) fn describe() {
    describe_gauge!(INSTANCES, "Instances by kind and state");
    describe_counter!(REGISTRATIONS, "Instances that registered or changed their addresses");
    describe_counter!(HEARTBEATS, "Heartbeats received");
    describe_counter!(EXPIRED, "Leases that ran out");
    describe_counter!(EVICTED, "Offline instances dropped to make room");
    describe_gauge!(WATCHERS, "Open watch streams");
    describe_counter!(CUT, "Watchers cut because they did not keep up");
    describe_counter!(REFUSED, "Calls refused, by reason");
    for reason in RegistryError::LABELS {
        counter!(REFUSED, "reason" => reason).increment(0);
    }
}
