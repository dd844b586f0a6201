//! The metrics of dbcache.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Calls by `call` and `outcome` (`ok` or the reason).
pub(crate) const CALLS: &str = "shardkeep_dbcache_calls_total";
pub(crate) const CALL_SECONDS: &str = "shardkeep_dbcache_call_seconds";
pub(crate) const APPLIED: &str = "shardkeep_dbcache_hard_actions_total";
pub(crate) const REPEATED: &str = "shardkeep_dbcache_repeated_actions_total";
pub(crate) const BATCHES: &str = "shardkeep_dbcache_batches_total";
pub(crate) const BATCH_ACTIONS: &str = "shardkeep_dbcache_batch_actions";
pub(crate) const BATCH_SECONDS: &str = "shardkeep_dbcache_batch_seconds";
pub(crate) const HARD_WAITING: &str = "shardkeep_dbcache_hard_waiting_count";
pub(crate) const HARD_WAITING_LIMIT: &str = "shardkeep_dbcache_hard_waiting_limit";
pub(crate) const SOFT_WAITING: &str = "shardkeep_dbcache_soft_waiting_count";
pub(crate) const SOFT_COALESCED: &str = "shardkeep_dbcache_soft_coalesced_total";
pub(crate) const SOFT_WRITTEN: &str = "shardkeep_dbcache_soft_written_total";
pub(crate) const SOFT_DROPPED: &str = "shardkeep_dbcache_soft_dropped_total";
pub(crate) const SOFT_STALE: &str = "shardkeep_dbcache_soft_stale_total";
pub(crate) const FLUSH_SECONDS: &str = "shardkeep_dbcache_flush_seconds";
pub(crate) const SOFT_FORBIDDEN: &str = "shardkeep_dbcache_soft_forbidden_total";
pub(crate) const BORDER_REWARDS: &str = "shardkeep_dbcache_border_rewards_total";
/// Failures of the database by `error`.
pub(crate) const STORE_ERRORS: &str = "shardkeep_dbcache_store_errors_total";
pub(crate) const CACHE_HITS: &str = "shardkeep_dbcache_cache_hits_total";
pub(crate) const CACHE_MISSES: &str = "shardkeep_dbcache_cache_misses_total";

pub(crate) fn describe() {
    describe_counter!(CALLS, "Calls by call and outcome");
    describe_histogram!(CALL_SECONDS, Unit::Seconds, "Time to answer a call");
    describe_counter!(APPLIED, "Hard actions that took effect");
    describe_counter!(REPEATED, "Repeated hard actions, answered with their stored result");
    describe_counter!(BATCHES, "Transactions of hard actions, failed ones included");
    describe_histogram!(BATCH_ACTIONS, "Hard actions in a transaction");
    describe_histogram!(BATCH_SECONDS, Unit::Seconds, "Time of a transaction of hard actions");
    describe_gauge!(HARD_WAITING, "Hard actions that wait for a transaction");
    describe_gauge!(HARD_WAITING_LIMIT, "Most hard actions that may wait: the setting `hard_queue`");
    describe_gauge!(SOFT_WAITING, "Characters whose soft state waits to be written");
    describe_counter!(SOFT_COALESCED, "Soft states replaced by a newer one before they were written");
    describe_counter!(SOFT_WRITTEN, "Soft states written, or superseded by a written one");
    describe_counter!(SOFT_DROPPED, "Soft states dropped because too many waited");
    describe_counter!(SOFT_STALE, "Soft states of an earlier epoch");
    describe_counter!(SOFT_FORBIDDEN, "Soft states refused because another zone owns the character");
    describe_counter!(BORDER_REWARDS, "Rewards to characters of another zone");
    describe_histogram!(FLUSH_SECONDS, Unit::Seconds, "Time to write a batch of soft states");
    describe_counter!(STORE_ERRORS, "Failures of the database by error");
    shardkeep_daemon::zero_counters(
        STORE_ERRORS,
        "error",
        &["unavailable", "access_denied", "busy", "contention", "corrupt", "statement"],
    );
    describe_counter!(CACHE_HITS, "Holdings found in the cache at the requested version");
    describe_counter!(CACHE_MISSES, "Holdings read from the database");
}
