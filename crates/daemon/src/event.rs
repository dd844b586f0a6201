//! Player events: what happened to players, as structured records that operators search and bill by.
//! They are tracing events of the target `event`; the logs daemon keeps their fields in columns of their own.

/// The target of every player event.
pub const TARGET: &str = "event";

/// Records a player event: a name in snake case, then fields as in [`tracing::info!`].
///
/// Every event names what it is about with the same fields, as far as it knows them: `account` (number), `character`
/// (number), `session`, `world` (number). Never put a secret into an event.
///
/// ```
/// let account = 7u64;
/// shardkeep_daemon::event!("login", account, address = "203.0.113.9", outcome = "ok");
/// ```
#[macro_export]
macro_rules! event {
    ($name:literal $(, $($fields:tt)*)?) => {
        $crate::tracing::info!(target: $crate::event::TARGET, event = $name, $($($fields)*)?)
    };
}
