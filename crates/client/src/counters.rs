//! Counts of a session's events.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counts while the session runs.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
        }

        /// The counts at one moment.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            pub(crate) fn counts(&self) -> Counts {
                Counts { $($name: self.$name.load(Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Connections lost.
    losses,
    /// Resumes with the log intact.
    resumes,
    /// Resumes without the log: both sides count reliable messages from 0 again.
    fresh_resumes,
    /// Attempts to resume that failed.
    failed_resumes,
    /// `Redirect` events followed.
    redirects,
    /// Reliable messages sent again, the log being intact.
    replayed,
    /// Requests sent again, the log being lost.
    repeated,
    /// Key updates sent.
    key_updates,
    sent_messages,
    sent_bytes,
    received_messages,
    received_bytes,
    /// Datagrams that were the server's and new.
    datagrams,
    /// Replies that came after the request had timed out.
    late_replies,
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    add(counter, 1);
}

pub(crate) fn add(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Relaxed);
}
