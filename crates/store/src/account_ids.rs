//! Numbers of accounts: never given out twice, also by a store that was restored to an earlier state.
//!
//! A counter alone goes back with its store, and would give a newcomer the number under which another daemon's store
//! still keeps the characters or the play time of somebody else. So it also keeps up with the database's clock: the next
//! number is at least the number of milliseconds since 2026 began. Whatever was given out before a store was lost is
//! then below, as long as not more than a thousand accounts a second were made all the time in between.

/// What a counter is set to when a number is taken; the number is one less.
macro_rules! advanced_counter {
    ($counter:literal) => {
        concat!(
            "1 + CASE WHEN ",
            $counter,
            " > {now_ms} - 1767225600000 THEN ",
            $counter,
            " ELSE {now_ms} - 1767225600000 END"
        )
    };
}

pub(crate) use advanced_counter;
