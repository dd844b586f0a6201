//! Player events: structured records of what happened to players, for search and billing. They are tracing events
//! with the target `event`. The logs daemon stores each of their fields in a separate column.

/// The target of every player event.
pub const TARGET: &str = "event";

/// Records a player event: a name in snake case, then fields as in [`tracing::info!`].
///
/// Events share the names of their common fields: `account` (number), `character` (number), `session`, `world`
/// (number). Never put a secret into an event.
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
