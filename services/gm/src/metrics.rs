//! The metrics of this daemon.

use ::metrics::{counter, describe_counter, describe_gauge, gauge};

const COMMANDS: &str = "shardkeep_gm_commands_total";
const SIGN_INS: &str = "shardkeep_gm_sign_ins_total";
const REQUESTS: &str = "shardkeep_gm_web_requests_total";
const VIEWERS: &str = "shardkeep_gm_map_viewers";
const LIVE_PAGES: &str = "shardkeep_gm_live_pages";
const ONLINE: &str = "shardkeep_gm_players_online";
const PICTURES: &str = "shardkeep_gm_map_pictures_total";

pub(crate) fn describe() {
    describe_counter!(COMMANDS, "Operators' commands, by command and outcome");
    describe_counter!(SIGN_INS, "Sign-in attempts, by outcome");
    describe_counter!(REQUESTS, "Web requests, by class of status code");
    describe_gauge!(VIEWERS, "Browsers that show the live map");
    describe_gauge!(LIVE_PAGES, "Browsers with a page that updates itself");
    describe_gauge!(ONLINE, "Avatars that the worlds report");
    describe_counter!(PICTURES, "Pictures of the live map that were composed");
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

pub(crate) fn live_pages(count: usize) {
    gauge!(LIVE_PAGES).set(count as f64);
}

pub(crate) fn online(count: usize) {
    gauge!(ONLINE).set(count as f64);
}

pub(crate) fn picture() {
    counter!(PICTURES).increment(1);
}
