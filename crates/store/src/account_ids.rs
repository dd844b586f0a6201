//! Account ids that are never assigned twice, even by a store that was restored from a backup.
//!
//! A counter alone would go back with its store. It would then assign ids under which the stores of other daemons
//! still hold characters or play time. So each new id is also at least the number of milliseconds since 2026 began,
//! on the database's clock. Ids assigned before the restore are smaller, unless more than a thousand accounts per
//! second were created all the time.

/// The value of the counter after an id is assigned; the id is one less.
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
