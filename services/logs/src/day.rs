//! Days of the UTC calendar, which name the files, and the times of records.

use std::{
    fmt,
    str::FromStr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// The source of the time; tests replace it.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

const DAY_MICROS: i64 = 86_400_000_000;

/// A UTC day, shown as `YYYY-MM-DD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Day(i64);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a day of the form YYYY-MM-DD")]
pub struct InvalidDay(String);

impl Day {
    /// The day of a moment given in microseconds since the Unix epoch.
    pub fn from_micros(micros: i64) -> Self {
        Self(micros.div_euclid(DAY_MICROS))
    }

    pub fn of(time: SystemTime) -> Self {
        Self::from_micros(micros(time))
    }

    #[must_use]
    pub fn before(self, days: u32) -> Self {
        Self(self.0 - i64::from(days))
    }

    /// Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.
    fn civil(self) -> (i64, i64, i64) {
        let shifted = self.0 + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        (year_of_era + era * 400 + i64::from(month <= 2), month, day)
    }

    /// `days_from_civil` of the same source.
    fn from_civil(year: i64, month: i64, day: i64) -> Self {
        let year = year - i64::from(month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let shifted_month = if month > 2 { month - 3 } else { month + 9 };
        let of_year = (153 * shifted_month + 2) / 5 + day - 1;
        let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
        Self(era * 146_097 + of_era - 719_468)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl FromStr for Day {
    type Err = InvalidDay;

    fn from_str(text: &str) -> Result<Self, InvalidDay> {
        let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u16>().ok().map(i64::from);
        let parsed = match (number(0..4), number(5..7), number(8..10)) {
            (Some(year), Some(month @ 1..=12), Some(day @ 1..=31)) => {
                Some(Self::from_civil(year, month, day))
            }
            _ => None,
        };
        // Also refuses days that do not exist, such as 2026-02-31.
        parsed.filter(|day| day.to_string() == text).ok_or_else(|| InvalidDay(text.to_owned()))
    }
}

/// Microseconds since the Unix epoch.
pub(crate) fn micros(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
    }
}

/// `YYYY-MM-DDTHH:MM:SS.ffffffZ`, which sorts as text and which SQLite's date functions understand.
pub(crate) fn timestamp(micros: i64) -> String {
    let of_day = micros.rem_euclid(DAY_MICROS);
    let (seconds, fraction) = (of_day / 1_000_000, of_day % 1_000_000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{}T{hours:02}:{minutes:02}:{seconds:02}.{fraction:06}Z", Day::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn day_round_trips_through_text() {
        for text in ["1970-01-01", "2000-02-29", "2026-11-22", "1969-12-31", "2100-03-01"] {
            assert_eq!(text.parse::<Day>().unwrap().to_string(), text);
        }
        assert_eq!("1970-01-02".parse(), Ok(Day(1)));
        assert_eq!(("2026-03-01".parse::<Day>().unwrap()).before(1).to_string(), "2026-02-28");
    }

    #[test]
    fn malformed_days_are_refused() {
        for text in [
            "",
            "today",
            "2026-02-31",
            "2026-1-01",
            "2026-01-01 ",
            "2026/01/01",
            "../../passwd",
            "+026-01-01",
        ] {
            assert!(text.parse::<Day>().is_err(), "{text}");
        }
    }

    #[test]
    fn timestamps_are_formatted_in_utc() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(timestamp(1_795_310_437_123_456), "2026-11-22T01:20:37.123456Z");
        assert_eq!(timestamp(-1), "1969-12-31T23:59:59.999999Z");
    }
}
