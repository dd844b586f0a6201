//! The metrics of the zone.

use std::time::Duration;

use ::metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use shardkeep_sim::{Counts, Ring};

const TICK_SECONDS: &str = "shardkeep_zone_tick_seconds";
const SPACES: &str = "shardkeep_zone_spaces";
const STAGE_SECONDS: &str = "shardkeep_zone_tick_stage_seconds";
const OVERRUNS: &str = "shardkeep_zone_tick_overruns_total";
const AVATARS: &str = "shardkeep_zone_avatars";
const CREATURES: &str = "shardkeep_zone_creatures";
const CELLS: &str = "shardkeep_zone_cells_owned";
const INPUTS: &str = "shardkeep_zone_inputs_total";
const REFUSED: &str = "shardkeep_zone_requests_refused_total";
const PUBLISHED: &str = "shardkeep_zone_cells_published_total";
const PUBLISHED_BYTES: &str = "shardkeep_zone_published_bytes_total";
const ENTRIES: &str = "shardkeep_zone_cell_entries_total";
const DEFERRED: &str = "shardkeep_zone_cell_entries_deferred_total";
const DEATHS: &str = "shardkeep_zone_deaths_total";
const COMMITS: &str = "shardkeep_zone_commits_total";
const COMMIT_SECONDS: &str = "shardkeep_zone_commit_seconds";
const HANDOVERS: &str = "shardkeep_zone_handovers_total";
const HANDOVER_SECONDS: &str = "shardkeep_zone_handover_seconds";
const SPAWNS_GIVEN: &str = "shardkeep_zone_spawns_given_total";
const SNAPSHOTS: &str = "shardkeep_zone_snapshots_total";
const ADMITTED: &str = "shardkeep_zone_avatars_admitted_total";
const RELEASED: &str = "shardkeep_zone_avatars_released_total";
const SAVED: &str = "shardkeep_zone_soft_states_saved_total";
const STALE: &str = "shardkeep_zone_ownership_lost_total";
const DROPPED: &str = "shardkeep_zone_queue_dropped_total";
const GROUND_FAILURES: &str = "shardkeep_zone_ground_load_failures_total";
const TOO_LARGE: &str = "shardkeep_zone_messages_too_large_total";
const PEER_FRAMES: &str = "shardkeep_zone_peer_frames_total";
const INTENTS: &str = "shardkeep_zone_intents_total";

pub(crate) fn describe() {
    describe_histogram!(TICK_SECONDS, "Duration of a tick; the limit is 0.05");
    describe_gauge!(SPACES, "Spaces that tick in this zone");
    describe_histogram!(STAGE_SECONDS, "Duration of a stage of a tick, by stage and map");
    describe_counter!(OVERRUNS, "Ticks that took longer than 0.05 s");
    describe_gauge!(AVATARS, "Avatars simulated");
    describe_gauge!(CREATURES, "Creatures alive");
    describe_gauge!(CELLS, "Cells of the sectors owned");
    describe_counter!(INPUTS, "Client messages accepted, by kind");
    describe_counter!(REFUSED, "Client messages refused, by reason");
    describe_counter!(PUBLISHED, "Cell messages published, by ring and form");
    describe_counter!(PUBLISHED_BYTES, "Bytes of cell messages published");
    describe_counter!(ENTRIES, "Entities in cell messages");
    describe_counter!(DEFERRED, "Entities of crowded cells that waited for a later tick");
    describe_counter!(DEATHS, "Deaths of creatures and avatars");
    describe_counter!(COMMITS, "Hard actions, by reason and outcome");
    describe_histogram!(COMMIT_SECONDS, "Time from a hard action's request to its outcome");
    describe_counter!(HANDOVERS, "Hand-overs to another zone, by outcome");
    describe_histogram!(
        HANDOVER_SECONDS,
        "Duration of a hand-over. The avatar moves meanwhile; its hard actions wait"
    );
    describe_counter!(SPAWNS_GIVEN, "Spawns given to the new zone of their sector, by outcome");
    describe_counter!(SNAPSHOTS, "Snapshots for the buddy zone, by outcome");
    describe_counter!(ADMITTED, "Avatars admitted, by origin");
    describe_counter!(RELEASED, "Avatars saved and released, by outcome");
    describe_counter!(SAVED, "Soft states written behind");
    describe_counter!(STALE, "Avatars dropped because another zone owns them in the database");
    describe_counter!(DROPPED, "Messages dropped at full queues, by queue");
    describe_counter!(GROUND_FAILURES, "Failed attempts to load a page of the ground");
    describe_counter!(TOO_LARGE, "Messages to players that were not sent because they exceed the limit");
    describe_counter!(PEER_FRAMES, "Frames to and from neighbours, by direction");
    describe_counter!(INTENTS, "Intents received from the AI");
}

pub(crate) fn tick(took: Duration, overrun: bool) {
    histogram!(TICK_SECONDS).record(took);
    if overrun {
        counter!(OVERRUNS).increment(1);
    }
}

/// The share of one space in the gauges and counters of its zone.
#[derive(Debug, Default)]
pub(crate) struct Reported {
    population: [usize; 3],
    counts: Counts,
}

impl Reported {
    pub(crate) fn population(&mut self, avatars: usize, creatures: usize, cells: usize) {
        let now = [avatars, creatures, cells];
        for (name, (now, before)) in
            [AVATARS, CREATURES, CELLS].into_iter().zip(now.iter().zip(self.population))
        {
            gauge!(name).increment(*now as f64 - before as f64);
        }
        self.population = now;
    }

    pub(crate) fn counts(&mut self, now: Counts) {
        let before = std::mem::replace(&mut self.counts, now);
        counter!(ENTRIES).increment(now.entries - before.entries);
        counter!(DEFERRED).increment(now.deferred - before.deferred);
        counter!(DEATHS).increment(now.deaths - before.deaths);
    }
}

impl Drop for Reported {
    fn drop(&mut self) {
        self.population(0, 0, 0);
    }
}

pub(crate) fn input(kind: &'static str) {
    counter!(INPUTS, "kind" => kind).increment(1);
}

pub(crate) fn refused(reason: &'static str) {
    counter!(REFUSED, "reason" => reason).increment(1);
}

pub(crate) fn published(ring: Ring, keyframe: bool, bytes: usize) {
    let ring = match ring {
        Ring::Near => "near",
        Ring::Outer => "outer",
    };
    let form = if keyframe { "keyframe" } else { "delta" };
    counter!(PUBLISHED, "ring" => ring, "form" => form).increment(1);
    counter!(PUBLISHED_BYTES).increment(bytes as u64);
}

pub(crate) fn spaces(count: usize) {
    gauge!(SPACES).set(count as f64);
}

pub(crate) fn stage(stage: &'static str, map: &'static str, took: Duration) {
    histogram!(STAGE_SECONDS, "stage" => stage, "map" => map).record(took);
}

pub(crate) fn committed(reason: &'static str, outcome: &'static str, took: Duration) {
    counter!(COMMITS, "reason" => reason, "outcome" => outcome).increment(1);
    histogram!(COMMIT_SECONDS, "reason" => reason).record(took);
}

pub(crate) fn handed_over(outcome: &'static str, took: Duration) {
    counter!(HANDOVERS, "outcome" => outcome).increment(1);
    histogram!(HANDOVER_SECONDS).record(took);
}

pub(crate) fn spawns_given(outcome: &'static str, count: usize) {
    counter!(SPAWNS_GIVEN, "outcome" => outcome).increment(count as u64);
}

pub(crate) fn mirrored(outcome: &'static str) {
    counter!(SNAPSHOTS, "outcome" => outcome).increment(1);
}

pub(crate) fn admitted(from: &'static str) {
    counter!(ADMITTED, "from" => from).increment(1);
}

pub(crate) fn released(outcome: &'static str) {
    counter!(RELEASED, "outcome" => outcome).increment(1);
}

pub(crate) fn saved(states: usize) {
    counter!(SAVED).increment(states as u64);
}

pub(crate) fn ownership_lost() {
    counter!(STALE).increment(1);
}

pub(crate) fn dropped(queue: &'static str) {
    counter!(DROPPED, "queue" => queue).increment(1);
}

pub(crate) fn ground_load_failed() {
    counter!(GROUND_FAILURES).increment(1);
}

pub(crate) fn message_too_large() {
    counter!(TOO_LARGE).increment(1);
}

pub(crate) fn peer_frame(direction: &'static str) {
    counter!(PEER_FRAMES, "direction" => direction).increment(1);
}

pub(crate) fn intents(count: usize) {
    counter!(INTENTS).increment(count as u64);
}
