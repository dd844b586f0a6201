//! Every metric of billing.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Calls by `call` and `outcome` (`ok` or the reason).
pub(crate) const CALLS: &str = "shardkeep_billing_calls_total";
pub(crate) const CALL_SECONDS: &str = "shardkeep_billing_call_seconds";
pub(crate) const REPORTS: &str = "shardkeep_billing_reports_total";
pub(crate) const MALFORMED: &str = "shardkeep_billing_malformed_reports_total";
pub(crate) const CREDITED: &str = "shardkeep_billing_credited_hours_total";
pub(crate) const RUNNING_OUT: &str = "shardkeep_billing_running_out_count";
pub(crate) const WARNINGS: &str = "shardkeep_billing_warnings_total";
pub(crate) const KICKS: &str = "shardkeep_billing_kicks_total";
/// Errors of the database by `error`.
pub(crate) const STORE_ERRORS: &str = "shardkeep_billing_store_errors_total";
/// Gateways that did not accept a warning or a disconnect.
pub(crate) const UNREACHED: &str = "shardkeep_billing_unreached_gateways_total";

pub(crate) fn describe() {
    describe_counter!(CALLS, "Calls by call and outcome");
    describe_histogram!(CALL_SECONDS, Unit::Seconds, "Time to answer a call");
    describe_counter!(REPORTS, "Reports of session clocks accepted");
    describe_counter!(MALFORMED, "Malformed reports, which are dropped");
    describe_counter!(CREDITED, "Prepaid hours in requests for credit, repeats included");
    describe_gauge!(RUNNING_OUT, "Prepaid accounts that play and have less than ten minutes left");
    describe_counter!(WARNINGS, "Warnings to players whose play time is nearly used up");
    describe_counter!(KICKS, "Sessions ended because their time was over");
    describe_counter!(STORE_ERRORS, "Errors of the database by error");
    shardkeep_daemon::zero_counters(
        STORE_ERRORS,
        "error",
        &["unavailable", "access_denied", "busy", "contention", "corrupt", "statement"],
    );
    describe_counter!(UNREACHED, "Gateways that did not accept a warning or a disconnect");
}
