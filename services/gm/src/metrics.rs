//! Every metric of this daemon.

use ::metrics::{counter, describe_counter, describe_gauge, gauge};

const COMMANDS: &str = "shardkeep_gm_commands_total";
const SIGN_INS: &str = "shardkeep_gm_sign_ins_total";
const REQUESTS: &str = "shardkeep_gm_web_requests_total";
const VIEWERS: &str = "shardkeep_gm_map_viewers";
const ONLINE: &str = "shardkeep_gm_players_online";
const PICTURES: &str = "shardkeep_gm_map_pictures_total";

pub(crate) fn describe() {
    describe_counter!(COMMANDS, "Commands of operators, by command and outcome");
    describe_counter!(SIGN_INS, "Attempts to sign in, by outcome");
    describe_counter!(REQUESTS, "Web requests, by class of status");
    describe_gauge!(VIEWERS, "Browsers that watch the live map");
    describe_gauge!(ONLINE, "Avatars the worlds report");
    describe_counter!(PICTURES, "Pictures of the live map put together");
}

pub(crate) fn command(command: &'static str, outcome: &'static str) {
    counter!(COMMANDS, "command" => command, "outcome" => outcome).increment(1);
}

pub(crate) fn sign_in(outcome: &'static str) {
    counter!(SIGN_INS, "outcome" => outcome).increment(1);
}

pub(crate) fn request(status: u16) {
    let class = match status {
        0..=299 => "ok",
        300..=399 => "redirect",
        400..=499 => "refused",
        _ => "failed",
    };
    counter!(REQUESTS, "class" => class).increment(1);
}

pub(crate) fn viewers(count: usize) {
    gauge!(VIEWERS).set(count as f64);
}

pub(crate) fn online(count: usize) {
    gauge!(ONLINE).set(count as f64);
}

pub(crate) fn picture() {
    counter!(PICTURES).increment(1);
}
