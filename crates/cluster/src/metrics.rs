//! Every metric of membership: the same in all daemons.

use metrics::{describe_counter, describe_gauge};

/// Calls and connections of peers that were turned away, by reason.
pub(crate) const REFUSED: &str = "shardkeep_cluster_refused_peers_total";
/// Registries that hold this instance's lease at the moment.
pub(crate) const REGISTRIES: &str = "shardkeep_cluster_registries_count";
/// Failed registrations and heartbeats.
pub(crate) const REGISTER_FAILURES: &str = "shardkeep_cluster_register_failures_total";
/// Watch streams that broke or could not be opened.
pub(crate) const WATCH_FAILURES: &str = "shardkeep_cluster_watch_failures_total";
/// Instances that are up, in the live view of each kind that this daemon follows.
pub(crate) const INSTANCES: &str = "shardkeep_cluster_instances_count";
/// Calls that carry many questions, the questions, and those that got no answer, by what is asked.
pub(crate) const GATHERED_CALLS: &str = "shardkeep_cluster_gathered_calls_total";
pub(crate) const GATHERED_QUESTIONS: &str = "shardkeep_cluster_gathered_questions_total";
pub(crate) const GATHERED_UNANSWERED: &str = "shardkeep_cluster_gathered_unanswered_total";

pub(crate) fn describe() {
    describe_counter!(REFUSED, "Calls and connections of peers that were turned away, by reason");
    describe_gauge!(REGISTRIES, "Registries that hold this instance's lease");
    describe_counter!(REGISTER_FAILURES, "Failed registrations and heartbeats");
    describe_counter!(WATCH_FAILURES, "Registry watches that broke or could not be opened");
    describe_gauge!(INSTANCES, "Instances that are up, by kind, as far as this daemon follows them");
    describe_counter!(GATHERED_CALLS, "Calls that carry many questions, by what is asked");
    describe_counter!(GATHERED_QUESTIONS, "Questions that calls for many carried, by what is asked");
    describe_counter!(
        GATHERED_UNANSWERED,
        "Questions that got no answer from a call for many, by what is asked and why"
    );
}
