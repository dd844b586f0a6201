//! Decides which days the retention period has ended for, without trusting a clock that jumps.
//!
//! The day of the last decision is kept in a file. A clock more than one day ahead of it may be wrong: a removal on its
//! word could delete every log. Such a clock must first run for one day.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tracing::warn;

use crate::Day;

/// How long a clock that jumped must run on before its day is trusted.
const TRUST_AFTER: Duration = Duration::from_secs(86_400);
const FILE: &str = "retention-day";

pub(crate) struct Retention {
    file: PathBuf,
    days: u32,
    /// The latest day that the clock was trusted to have reached.
    trusted: Option<Day>,
    /// The day of the last removal.
    applied: Option<Day>,
    jumped: Option<Jump>,
}

/// A clock that is not trusted yet.
struct Jump {
    since: Instant,
    /// The last day that this clock has shown.
    day: Day,
}

impl Retention {
    /// Keeps `days` days, today included. An empty folder has nothing to lose, so its first day is trusted.
    ///
    /// # Errors
    /// When the file of the last decision cannot be read.
    pub(crate) fn open(folder: &Path, days: u32, empty: bool, today: Day) -> io::Result<Self> {
        let file = folder.join(FILE);
        let trusted = match fs::read_to_string(&file) {
            Ok(text) => text.trim().parse().ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => empty.then_some(today),
            Err(error) => return Err(error),
        };
        Ok(Self { file, days, trusted, applied: None, jumped: None })
    }

    /// The first day to keep, when a removal is due.
    pub(crate) fn oldest_day_to_keep(&mut self, today: Day, now: Instant) -> Option<Day> {
        if self.applied == Some(today) {
            return None;
        }
        if !self.is_near(today) && !self.has_run_long_enough(today, now) {
            return None;
        }
        self.trusted = Some(today);
        self.applied = Some(today);
        self.jumped = None;
        if let Err(error) = fs::write(&self.file, today.to_string()) {
            warn!(%error, file = %self.file.display(), "the day of the last retention cannot be kept");
        }
        Some(today.before(self.days - 1))
    }

    /// A clock that goes back removes nothing too early.
    fn is_near(&self, today: Day) -> bool {
        self.trusted.is_some_and(|trusted| today.before(1) <= trusted)
    }

    fn has_run_long_enough(&mut self, today: Day, now: Instant) -> bool {
        if let Some(jump) = &mut self.jumped
            && jump.day <= today
            && today.before(1) <= jump.day
        {
            jump.day = today;
            return now.saturating_duration_since(jump.since) >= TRUST_AFTER;
        }
        let trusted = self.trusted.map_or_else(|| "unknown".to_owned(), |day| day.to_string());
        warn!(
            %today, %trusted,
            "the clock is more than a day ahead of the last known day; no log file is removed until this daemon has run for \
             a day (check the clock of this machine)"
        );
        self.jumped = Some(Jump { since: now, day: today });
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn day(text: &str) -> Day {
        text.parse().unwrap()
    }

    fn open(folder: &Path, empty: bool, today: &str) -> Retention {
        Retention::open(folder, 14, empty, day(today)).unwrap()
    }

    #[test]
    fn each_new_day_moves_the_oldest_day_once() {
        let (folder, now) = (tempfile::tempdir().unwrap(), Instant::now());
        let mut retention = open(folder.path(), true, "2026-11-22");
        assert_eq!(retention.oldest_day_to_keep(day("2026-11-22"), now), Some(day("2026-11-09")));
        assert_eq!(retention.oldest_day_to_keep(day("2026-11-22"), now), None);
        assert_eq!(retention.oldest_day_to_keep(day("2026-11-23"), now), Some(day("2026-11-10")));
    }

    #[test]
    fn clock_that_jumps_is_trusted_only_after_a_day() {
        let (folder, start) = (tempfile::tempdir().unwrap(), Instant::now());
        let mut retention = open(folder.path(), true, "2026-11-22");
        retention.oldest_day_to_keep(day("2026-11-22"), start);
        assert_eq!(retention.oldest_day_to_keep(day("2027-01-01"), start), None);
        assert_eq!(retention.oldest_day_to_keep(day("2027-01-01"), start + 23 * HOUR), None);
        let trusted = retention.oldest_day_to_keep(day("2027-01-02"), start + 24 * HOUR);
        assert_eq!(trusted, Some(day("2026-12-20")));
    }

    #[test]
    fn second_jump_starts_the_wait_again() {
        let (folder, start) = (tempfile::tempdir().unwrap(), Instant::now());
        let mut retention = open(folder.path(), true, "2026-11-22");
        assert_eq!(retention.oldest_day_to_keep(day("2027-01-01"), start), None);
        assert_eq!(retention.oldest_day_to_keep(day("2040-01-01"), start + 23 * HOUR), None);
        assert_eq!(retention.oldest_day_to_keep(day("2040-01-01"), start + 25 * HOUR), None);
    }

    #[test]
    fn corrected_clock_is_trusted_at_once() {
        let (folder, start) = (tempfile::tempdir().unwrap(), Instant::now());
        let mut retention = open(folder.path(), true, "2026-11-22");
        assert_eq!(retention.oldest_day_to_keep(day("2027-01-01"), start), None);
        assert_eq!(retention.oldest_day_to_keep(day("2026-11-23"), start + HOUR), Some(day("2026-11-10")));
        assert_eq!(retention.oldest_day_to_keep(day("2027-01-01"), start + 30 * HOUR), None, "a new wait");
    }

    #[test]
    fn restart_does_not_make_a_jumped_clock_trusted() {
        let (folder, now) = (tempfile::tempdir().unwrap(), Instant::now());
        open(folder.path(), true, "2026-11-22").oldest_day_to_keep(day("2026-11-22"), now);
        let mut restarted = open(folder.path(), false, "2027-01-01");
        assert_eq!(restarted.oldest_day_to_keep(day("2027-01-01"), now), None);
        let mut without_file = open(tempfile::tempdir().unwrap().path(), false, "2027-01-01");
        assert_eq!(without_file.oldest_day_to_keep(day("2027-01-01"), now), None, "files of unknown age");
    }
}
