//! Every metric of the bus.

pub(crate) const LOST: &str = "shardkeep_bus_lost_total";
pub(crate) const DROPPED: &str = "shardkeep_bus_dropped_total";
pub(crate) const PUBLISHED: &str = "shardkeep_bus_published_total";
pub(crate) const CONNECTED: &str = "shardkeep_bus_connected";
pub(crate) const GAPS: &str = "shardkeep_bus_gaps_total";

/// Registers the descriptions with the process's recorder.
pub fn describe() {
    metrics::describe_counter!(LOST, "Messages that a slow subscriber lost");
    metrics::describe_counter!(DROPPED, "Messages that never reached Redis, by reason: full or old");
    for reason in ["full", "old"] {
        metrics::counter!(DROPPED, "reason" => reason).increment(0);
    }
    metrics::describe_counter!(PUBLISHED, "Messages sent to Redis");
    metrics::describe_gauge!(
        CONNECTED,
        "1 while a heartbeat arrives over Redis and the topics are subscribed"
    );
    metrics::describe_counter!(
        GAPS,
        "Interruptions of the connection to Redis, by side (publish, subscribe), each of which may have lost messages"
    );
}
