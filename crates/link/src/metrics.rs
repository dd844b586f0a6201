//! Every metric of links, of both sides. `side` is `backend` or `gateway`.

use metrics::{Unit, describe_counter, describe_gauge};

pub(crate) const RESETS: &str = "shardkeep_link_resets_total";
pub(crate) const FRESH: &str = "shardkeep_link_fresh_total";
pub(crate) const DROPPED: &str = "shardkeep_link_dropped_total";
pub(crate) const OVERFLOWS: &str = "shardkeep_link_overflows_total";
pub(crate) const REFUSED: &str = "shardkeep_link_refused_total";
pub(crate) const ITEMS: &str = "shardkeep_link_items_total";
pub(crate) const BATCHES: &str = "shardkeep_link_batches_total";
pub(crate) const HELD_LOST: &str = "shardkeep_link_held_lost_total";
pub(crate) const HUB_LOCK_WAITS: &str = "shardkeep_link_hub_lock_waits_total";
pub(crate) const LINKS: &str = "shardkeep_link_open";

/// Call once in a daemon that uses links.
pub fn describe() {
    describe_counter!(RESETS, "Streams of links that ended, by side");
    describe_counter!(FRESH, "Links opened new instead of resumed, by side");
    describe_counter!(DROPPED, "State messages left out because a link was full, by side");
    describe_counter!(OVERFLOWS, "Links reset because the queue of reliable items was full, by side");
    describe_counter!(REFUSED, "Items refused, by side and reason");
    describe_counter!(ITEMS, "Items sent, by side");
    describe_counter!(BATCHES, "Batches sent, by side");
    describe_counter!(
        HELD_LOST,
        "Items kept for a moving session that were dropped: too many, or the session did not arrive"
    );
    describe_counter!(HUB_LOCK_WAITS, "Times that a thread of a backend found the lock of its hub taken");
    describe_gauge!(LINKS, Unit::Count, "Streams of links that are open, by side");
}
