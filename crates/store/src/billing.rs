//! Play time: the clock of each session as gateways report it, prepaid hours, and a double-entry ledger of time.
//!
//! A report is the state of a clock, not a difference: repeating it, losing one between, or two gateways reporting
//! the same session changes nothing. What a clock gained is charged once, under the lock of the account's plan.

mod clocks;
mod ledger;
mod prepaid;
#[cfg(test)]
mod tests;

pub use clocks::ClockReport;
pub use ledger::{BillingError, LowBalance, PlanStatus};
pub use prepaid::PrepaidCursor;

use crate::Database;

/// The tables of [`Schema::Billing`](crate::Schema::Billing). Clones share the database.
#[derive(Debug, Clone)]
pub struct Billing {
    database: Database,
}

impl Billing {
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}
