//! Every metric of this daemon.

use std::time::Duration;

use ::metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use shardkeep_lanes::Lane;

const CONNECTIONS: &str = "shardkeep_login_connections";
const ACCEPTED: &str = "shardkeep_login_connections_accepted_total";
const REFUSED: &str = "shardkeep_login_connections_refused_total";
const ENDED: &str = "shardkeep_login_connections_ended_total";
const VIOLATIONS: &str = "shardkeep_login_violations_total";
const LOGINS: &str = "shardkeep_login_logins_total";
const RETRIES: &str = "shardkeep_login_quic_retries_total";
const THROTTLED: &str = "shardkeep_login_throttled_total";
const LOGIN_SECONDS: &str = "shardkeep_login_handshake_seconds";
const EXPONENTIATIONS: &str = "shardkeep_login_exponentiations_total";
const POOL_WAIT_SECONDS: &str = "shardkeep_login_pool_wait_seconds";
const POOL_WORK_SECONDS: &str = "shardkeep_login_pool_work_seconds";
const POOL_WAITING: &str = "shardkeep_login_pool_waiting";
const POOL_REFUSED: &str = "shardkeep_login_pool_refused_total";
const PUZZLES: &str = "shardkeep_login_puzzles_total";
const PUZZLE_BITS: &str = "shardkeep_login_puzzle_bits";
const KEY_SHARES: &str = "shardkeep_login_key_shares_total";
const OFFERS: &str = "shardkeep_login_gateway_offers_total";
const GATEWAY_CALLS: &str = "shardkeep_login_gateway_calls_total";
const WORLD_LISTS: &str = "shardkeep_login_world_lists_pushed_total";
const COMMANDS: &str = "shardkeep_login_account_commands_total";
const EVICTED: &str = "shardkeep_login_limits_evicted_total";
const REVOCATIONS: &str = "shardkeep_login_revocations_total";
const FOLLOWERS: &str = "shardkeep_login_revocation_followers";
const FOLLOWERS_CUT: &str = "shardkeep_login_revocation_followers_cut_total";
const SECOND_FACTORS: &str = "shardkeep_login_second_factors_total";
const PREPAID_KNOWN: &str = "shardkeep_login_prepaid_accounts";
const REGISTRATIONS: &str = "shardkeep_login_registrations_total";
const CENTRAL_HELLOS: &str = "shardkeep_login_central_hellos_total";
const CENTRAL_CALLS: &str = "shardkeep_login_central_calls_total";
const CENTRAL_CALL_SECONDS: &str = "shardkeep_login_central_call_seconds";
const CENTRAL_FULL: &str = "shardkeep_login_central_lookups_overflowed_total";
const CENTRAL_ACTIVATIONS: &str = "shardkeep_login_central_activations_total";
const CENTRAL_APPLIED: &str = "shardkeep_login_central_changes_total";
const CENTRAL_LAG: &str = "shardkeep_login_central_lag_seconds";
const CENTRAL_REQUESTS: &str = "shardkeep_login_central_requests_total";
const CENTRAL_FOLLOWERS: &str = "shardkeep_login_central_followers";

pub(crate) fn describe() {
    describe_gauge!(CONNECTIONS, "Connections of players open now");
    describe_counter!(ACCEPTED, "Connections accepted");
    describe_counter!(REFUSED, "Connections closed because a bound was reached, by bound");
    describe_counter!(ENDED, "Connections ended, by reason and side at fault");
    for (why, fault) in [
        ("busy", "us"),
        ("internal", "us"),
        ("unavailable", "peer"),
        ("central_unavailable", "peer"),
        ("no_gateway", "peer"),
        ("world_unavailable", "peer"),
    ] {
        counter!(ENDED, "why" => why, "fault" => fault).increment(0);
    }
    describe_counter!(VIOLATIONS, "Messages that the opcode table does not allow, by violation");
    describe_counter!(LOGINS, "Logins, by lane (tcp, quic, ws, wss) and outcome");
    describe_counter!(
        RETRIES,
        "QUIC handshakes answered with Retry, which makes the client prove its address"
    );
    describe_counter!(THROTTLED, "Logins refused by a rate limit, by limit");
    shardkeep_daemon::zero_counters(
        THROTTLED,
        "limit",
        &["attempts", "failures", "failures_of_address", "failures_of_account", "codes", "registrations"],
    );
    describe_histogram!(LOGIN_SECONDS, "From the preface to Welcome");
    describe_counter!(EXPONENTIATIONS, "Modular exponentiations done");
    describe_histogram!(POOL_WAIT_SECONDS, "Time a login waited for a thread of the exponentiation pool");
    describe_histogram!(POOL_WORK_SECONDS, "Time a login's exponentiations took on their thread");
    describe_gauge!(POOL_WAITING, "Logins that wait for a thread of the exponentiation pool");
    describe_counter!(POOL_REFUSED, "Logins refused by the exponentiation pool, by reason");
    shardkeep_daemon::zero_counters(
        POOL_REFUSED,
        "why",
        &["account", "closed", "displaced", "full", "late", "wait"],
    );
    describe_counter!(PUZZLES, "Puzzles given out, and answers to them, by outcome");
    describe_gauge!(PUZZLE_BITS, "Zero bits that puzzles ask for now; 0: none are asked");
    describe_counter!(KEY_SHARES, "Logins after Hello, by whether a post-quantum key share was used");
    describe_counter!(OFFERS, "Answers to SelectWorld, by outcome");
    describe_counter!(GATEWAY_CALLS, "Calls to gateways, by call and outcome");
    describe_counter!(WORLD_LISTS, "World lists pushed to clients");
    describe_counter!(COMMANDS, "Operators' commands on accounts, by command");
    describe_counter!(EVICTED, "Keys of rate limits forgotten because too many were remembered");
    describe_counter!(REVOCATIONS, "Raised session generations sent to gateways");
    describe_gauge!(FOLLOWERS, "Gateways that follow the revocations of this replica");
    describe_counter!(FOLLOWERS_CUT, "Gateways cut because they did not keep up; they connect again");
    describe_counter!(SECOND_FACTORS, "Codes of second factors, by outcome");
    describe_gauge!(
        PREPAID_KNOWN,
        "Prepaid accounts that billing has told of; -1: unknown, so billing is asked at every login"
    );
    prepaid_known(None);
    describe_counter!(REGISTRATIONS, "Registrations by players, by outcome");
    describe_counter!(
        CENTRAL_HELLOS,
        "Hellos in a region with a central store, by whether the central store answered in time"
    );
    describe_counter!(CENTRAL_CALLS, "Calls of this region to the central store, by call and outcome");
    describe_histogram!(CENTRAL_CALL_SECONDS, "Response time of the central store, by call");
    describe_counter!(
        CENTRAL_FULL,
        "Lookups at the central store that were refused because too many were waiting"
    );
    describe_counter!(CENTRAL_ACTIVATIONS, "Accounts that a first login has made active in this region");
    describe_counter!(CENTRAL_APPLIED, "Changed accounts received from the central store, by outcome");
    shardkeep_daemon::zero_counters(CENTRAL_APPLIED, "outcome", &["failed", "unreadable"]);
    describe_gauge!(
        CENTRAL_LAG,
        "Age of the last message from the central store, which sends changes or that there are none"
    );
    describe_counter!(CENTRAL_REQUESTS, "Requests of regions to the central store at this replica, by call");
    describe_gauge!(
        CENTRAL_FOLLOWERS,
        "Login replicas of other regions that follow the central store at this replica"
    );
}

pub(crate) fn connections(change: f64) {
    gauge!(CONNECTIONS).increment(change);
    if change > 0.0 {
        counter!(ACCEPTED).increment(1);
    }
}

pub(crate) fn refused(bound: &'static str) {
    counter!(REFUSED, "bound" => bound).increment(1);
}

pub(crate) fn ended(reason: &'static str, fault: &'static str) {
    counter!(ENDED, "why" => reason, "fault" => fault).increment(1);
}

pub(crate) fn violation(label: &'static str) {
    counter!(VIOLATIONS, "what" => label).increment(1);
}

pub(crate) fn login(lane: Lane, outcome: &'static str) {
    counter!(LOGINS, "lane" => lane.as_str(), "outcome" => outcome).increment(1);
}

pub(crate) fn retries(so_far: u64) {
    counter!(RETRIES).absolute(so_far);
}

pub(crate) fn throttled(limit: &'static str) {
    counter!(THROTTLED, "limit" => limit).increment(1);
}

pub(crate) fn welcomed(took: Duration) {
    histogram!(LOGIN_SECONDS).record(took);
}

pub(crate) fn worked(exponentiations: u32, waited: Duration, worked: Duration) {
    counter!(EXPONENTIATIONS).increment(exponentiations.into());
    histogram!(POOL_WAIT_SECONDS).record(waited);
    histogram!(POOL_WORK_SECONDS).record(worked);
}

pub(crate) fn pool_waiting(jobs: usize) {
    gauge!(POOL_WAITING).set(jobs as f64);
}

pub(crate) fn pool_refused(reason: &'static str) {
    counter!(POOL_REFUSED, "why" => reason).increment(1);
}

pub(crate) fn puzzle(outcome: &'static str) {
    counter!(PUZZLES, "outcome" => outcome).increment(1);
}

pub(crate) fn puzzle_bits(bits: u32) {
    gauge!(PUZZLE_BITS).set(bits);
}

pub(crate) fn key_share(used: bool) {
    counter!(KEY_SHARES, "used" => if used { "yes" } else { "no" }).increment(1);
}

pub(crate) fn offer(outcome: &'static str) {
    counter!(OFFERS, "outcome" => outcome).increment(1);
}

pub(crate) fn gateway_call(call: &'static str, ok: bool) {
    counter!(GATEWAY_CALLS, "call" => call, "outcome" => if ok { "ok" } else { "failed" }).increment(1);
}

pub(crate) fn world_list_pushed() {
    counter!(WORLD_LISTS).increment(1);
}

pub(crate) fn command(command: &'static str) {
    counter!(COMMANDS, "command" => command).increment(1);
}

pub(crate) fn limits_evicted(keys: usize) {
    counter!(EVICTED).increment(keys as u64);
}

pub(crate) fn revocations(count: usize) {
    counter!(REVOCATIONS).increment(count as u64);
}

pub(crate) fn followers(change: f64) {
    gauge!(FOLLOWERS).increment(change);
}

pub(crate) fn follower_cut() {
    counter!(FOLLOWERS_CUT).increment(1);
}

pub(crate) fn second_factor(outcome: &'static str) {
    counter!(SECOND_FACTORS, "outcome" => outcome).increment(1);
}

pub(crate) fn prepaid_known(accounts: Option<usize>) {
    gauge!(PREPAID_KNOWN).set(accounts.map_or(-1.0, |count| count as f64));
}

pub(crate) fn registration(outcome: &'static str) {
    counter!(REGISTRATIONS, "outcome" => outcome).increment(1);
}

pub(crate) fn central_hello(on_time: bool) {
    counter!(CENTRAL_HELLOS, "when" => if on_time { "on_time" } else { "late" }).increment(1);
}

pub(crate) fn central_call(call: &'static str, outcome: &'static str, took: Duration) {
    counter!(CENTRAL_CALLS, "call" => call, "outcome" => outcome).increment(1);
    histogram!(CENTRAL_CALL_SECONDS, "call" => call).record(took);
}

pub(crate) fn central_lookups_full() {
    counter!(CENTRAL_FULL).increment(1);
}

pub(crate) fn central_activated() {
    counter!(CENTRAL_ACTIVATIONS).increment(1);
}

pub(crate) fn central_applied(outcome: &'static str) {
    counter!(CENTRAL_APPLIED, "outcome" => outcome).increment(1);
}

pub(crate) fn central_lag(lag: Duration) {
    gauge!(CENTRAL_LAG).set(lag.as_secs_f64());
}

pub(crate) fn central_request(call: &'static str) {
    counter!(CENTRAL_REQUESTS, "call" => call).increment(1);
}

pub(crate) fn central_followers(change: f64) {
    gauge!(CENTRAL_FOLLOWERS).increment(change);
}
