//! The metrics of the ai daemon.

use std::time::Duration;

use ::metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use shardkeep_behavior::Behaviour;

const CREATURES: &str = "shardkeep_ai_creatures_thought_for_total";
const BATCHES: &str = "shardkeep_ai_batches_total";
const BATCH_SECONDS: &str = "shardkeep_ai_batch_seconds";
const PATHS: &str = "shardkeep_ai_paths_searched_total";
const REFUSED: &str = "shardkeep_ai_refused_total";
const STREAMS: &str = "shardkeep_ai_streams";

pub(crate) fn describe() {
    describe_counter!(CREATURES, "Decisions made, by the behaviour chosen");
    describe_counter!(BATCHES, "Batches of perceptions answered");
    describe_histogram!(BATCH_SECONDS, "Time to think for one batch");
    describe_counter!(PATHS, "Paths searched on walk grids");
    describe_counter!(REFUSED, "Streams ended for a fault in a batch, by reason");
    describe_gauge!(STREAMS, "Streams of zones open now");
}

pub(crate) fn batch(took: Duration, paths: u32, chosen: impl Iterator<Item = (Behaviour, u64)>) {
    counter!(BATCHES).increment(1);
    histogram!(BATCH_SECONDS).record(took);
    counter!(PATHS).increment(paths.into());
    for (behaviour, count) in chosen.filter(|(_, count)| *count > 0) {
        counter!(CREATURES, "behaviour" => behaviour.as_str()).increment(count);
    }
}

pub(crate) fn refused(reason: &'static str) {
    counter!(REFUSED, "reason" => reason).increment(1);
}

pub(crate) fn streams(change: f64) {
    gauge!(STREAMS).increment(change);
}
