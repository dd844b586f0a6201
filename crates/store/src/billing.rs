//! Play time: the clocks of sessions as gateways report them, prepaid hours, and a double-entry ledger of time.
//!
//! A report is the state of a clock, not a difference. So repeated, lost and concurrent reports of one session change
//! nothing. The time that a clock gains is charged once, under a lock on the account's plan.

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
