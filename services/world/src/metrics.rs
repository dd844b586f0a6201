//! Every metric of the world daemon.

pub(crate) const ONLINE: &str = "shardkeep_world_avatars";
pub(crate) const SESSIONS: &str = "shardkeep_world_sessions";
pub(crate) const QUEUE: &str = "shardkeep_world_queue_length";
pub(crate) const LEADER: &str = "shardkeep_world_leader";
pub(crate) const TERM: &str = "shardkeep_world_term";
pub(crate) const PARTITION: &str = "shardkeep_world_partition_changes_total";
pub(crate) const SPACES: &str = "shardkeep_world_spaces";
pub(crate) const SECTORS: &str = "shardkeep_world_sectors";
pub(crate) const UNOWNED_SECTORS: &str = "shardkeep_world_sectors_without_owner";
pub(crate) const MIGRATIONS: &str = "shardkeep_world_migrations";
pub(crate) const LAYOUT_RETRIES: &str = "shardkeep_world_layout_retries_total";
pub(crate) const PLACED: &str = "shardkeep_world_placements_total";
pub(crate) const PLACE_SECONDS: &str = "shardkeep_world_placement_seconds";
pub(crate) const ENTERED: &str = "shardkeep_world_entered_total";
pub(crate) const LEFT: &str = "shardkeep_world_left_total";
pub(crate) const REOWNED: &str = "shardkeep_world_reowned_total";
pub(crate) const CALLS: &str = "shardkeep_world_calls_total";
pub(crate) const BUSY: &str = "shardkeep_world_busy_total";
pub(crate) const LEAD_FAILURES: &str = "shardkeep_world_lease_failures_total";
pub(crate) const WATCHERS_LOST: &str = "shardkeep_world_watchers_lost_total";

pub(crate) fn describe() {
    metrics::describe_gauge!(ONLINE, "Sessions that have an avatar in the world or are getting one");
    metrics::describe_gauge!(SESSIONS, "Sessions in the directory");
    metrics::describe_gauge!(QUEUE, "Sessions in the entry queue");
    metrics::describe_gauge!(LEADER, "1 while this instance leads the world");
    metrics::describe_gauge!(TERM, "Term under which this instance leads; 0 as a standby");
    metrics::describe_counter!(PARTITION, "Layouts announced to the zones");
    metrics::describe_gauge!(SPACES, "Spaces of the announced layout");
    metrics::describe_gauge!(SECTORS, "Sectors of the announced layout");
    metrics::describe_gauge!(UNOWNED_SECTORS, "Sectors of the announced layout that no zone owns");
    metrics::describe_gauge!(MIGRATIONS, "Sectors whose former owner still hands over avatars");
    metrics::describe_counter!(
        LAYOUT_RETRIES,
        "Attempts to load or store the layout that failed and are repeated"
    );
    metrics::describe_counter!(PLACED, "Placements of avatars in zones, by outcome");
    shardkeep_daemon::zero_counters(PLACED, "outcome", &["ok", "not_found", "unavailable"]);
    metrics::describe_histogram!(PLACE_SECONDS, "Time to place an avatar in a zone");
    metrics::describe_counter!(ENTERED, "Avatars that entered the world");
    metrics::describe_counter!(LEFT, "Sessions that ended and avatars that left");
    metrics::describe_counter!(REOWNED, "Avatars moved from dead zones");
    metrics::describe_counter!(CALLS, "gRPC calls, by name and code");
    metrics::describe_counter!(BUSY, "Requests refused because too many were in flight");
    metrics::describe_counter!(LEAD_FAILURES, "Bids for the leadership that failed");
    metrics::describe_counter!(WATCHERS_LOST, "Streams of presence ended because the watcher was too slow");
}
