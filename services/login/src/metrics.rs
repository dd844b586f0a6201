//! Every metric of this daemon.

use std::time::Duration;

use ::metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const CONNECTIONS: &str = "shardkeep_login_connections";
const ACCEPTED: &str = "shardkeep_login_connections_accepted_total";
const REFUSED: &str = "shardkeep_login_connections_refused_total";
const ENDED: &str = "shardkeep_login_connections_ended_total";
const VIOLATIONS: &str = "shardkeep_login_violations_total";
const LOGINS: &str = "shardkeep_login_logins_total";
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
const FORGOTTEN: &str = "shardkeep_login_limits_forgotten_total";

pub(crate) fn describe() {
    describe_gauge!(CONNECTIONS, "Connections of players open now");
    describe_counter!(ACCEPTED, "Connections accepted");
    describe_counter!(REFUSED, "Connections closed because a bound was reached, by bound");
    describe_counter!(ENDED, "Connections ended, by why and whose fault");
    describe_counter!(VIOLATIONS, "Messages that the opcode table does not allow, by what is wrong");
    describe_counter!(LOGINS, "Logins, by outcome");
    describe_counter!(THROTTLED, "Logins refused by a rate limit, by limit");
    describe_histogram!(LOGIN_SECONDS, "From the preface to Welcome");
    describe_counter!(EXPONENTIATIONS, "Modular exponentiations done");
    describe_histogram!(POOL_WAIT_SECONDS, "Time a login waited for a thread of the exponentiation pool");
    describe_histogram!(POOL_WORK_SECONDS, "Time a login's exponentiations took on their thread");
    describe_gauge!(POOL_WAITING, "Logins that wait for a thread of the exponentiation pool");
    describe_counter!(POOL_REFUSED, "Logins that got no turn at the exponentiation pool, by why");
    describe_counter!(PUZZLES, "Puzzles given out, and answers to them, by outcome");
    describe_gauge!(PUZZLE_BITS, "Zero bits that puzzles ask for now; 0: none are asked");
    describe_counter!(
        KEY_SHARES,
        "Logins that got beyond Hello, by whether a post-quantum key share was used"
    );
    describe_counter!(OFFERS, "Answers to SelectWorld, by outcome");
    describe_counter!(GATEWAY_CALLS, "Calls to gateways, by call and outcome");
    describe_counter!(WORLD_LISTS, "World lists pushed to clients");
    describe_counter!(COMMANDS, "Operators' commands on accounts, by command");
    describe_counter!(FORGOTTEN, "Keys of rate limits forgotten because too many were remembered");
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

pub(crate) fn ended(why: &'static str, fault: &'static str) {
    counter!(ENDED, "why" => why, "fault" => fault).increment(1);
}

pub(crate) fn violation(label: &'static str) {
    counter!(VIOLATIONS, "what" => label).increment(1);
}

pub(crate) fn login(outcome: &'static str) {
    counter!(LOGINS, "outcome" => outcome).increment(1);
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

pub(crate) fn pool_refused(why: &'static str) {
    counter!(POOL_REFUSED, "why" => why).increment(1);
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

pub(crate) fn limits_forgotten(keys: usize) {
    counter!(FORGOTTEN).increment(keys as u64);
}
