//! Days of the UTC calendar, which name the files, and the times of records.

use std::{
    fmt,
    str::FromStr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use jiff::{
    Span, Timestamp,
    civil::{Date, DateTime},
    tz::Offset,
};

/// The source of the time; tests replace it.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// A UTC day, shown as `YYYY-MM-DD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Day(Date);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a day of the form YYYY-MM-DD")]
pub struct InvalidDay(String);

impl Day {
    /// The day of a moment given in microseconds since the Unix epoch.
    pub fn from_micros(micros: i64) -> Self {
        Self(date_time(micros).date())
    }

    pub fn of(time: SystemTime) -> Self {
        Self::from_micros(micros(time))
    }

    #[must_use]
    pub fn before(self, days: u32) -> Self {
        let span = Span::new().try_days(i64::from(days)).ok();
        Self(span.and_then(|span| self.0.checked_sub(span).ok()).unwrap_or(Date::MIN))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Day {
    type Err = InvalidDay;

    fn from_str(text: &str) -> Result<Self, InvalidDay> {
        let parsed = text.parse().ok().map(Self);
        // The parser accepts other forms of a date too.
        parsed.filter(|day| day.to_string() == text).ok_or_else(|| InvalidDay(text.to_owned()))
    }
}

/// The moment in UTC. Moments outside of the years -9999 to 9999 become the nearest one inside.
fn date_time(micros: i64) -> DateTime {
    let limit = if micros < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Offset::UTC.to_datetime(Timestamp::from_microsecond(micros).unwrap_or(limit))
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
    date_time(micros).strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn day_round_trips_through_text() {
        for text in ["1970-01-01", "2000-02-29", "2026-11-22", "1969-12-31", "2100-03-01"] {
            assert_eq!(text.parse::<Day>().unwrap().to_string(), text);
        }
        assert_eq!("1970-01-02".parse(), Ok(Day::from_micros(86_400_000_000)));
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
