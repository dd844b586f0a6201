//! A moment as a calendar in UTC shows it, for lines that people read.

use std::fmt;

const MS_PER_DAY: u64 = 86_400_000;

/// Shown as `2026-11-21 23:59 UTC`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UtcDateTime {
    pub year: u64,
    pub month: u64,
    pub day: u64,
    pub hour: u64,
    pub minute: u64,
    pub second: u64,
}

impl UtcDateTime {
    /// From milliseconds since the Unix epoch, by Howard Hinnant's "chrono-compatible low-level date algorithms",
    /// `civil_from_days`.
    pub const fn from_unix_ms(ms: u64) -> Self {
        let (days, second_of_day) = (ms / MS_PER_DAY + 719_468, ms / 1_000 % 86_400);
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        Self {
            year: year_of_era + era * 400 + (month <= 2) as u64,
            month,
            day: day_of_year - (153 * shifted + 2) / 5 + 1,
            hour: second_of_day / 3_600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
        }
    }
}

impl fmt::Display for UtcDateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour, minute, .. } = self;
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_milliseconds_convert_to_utc_date_time() {
        let shown = |ms| UtcDateTime::from_unix_ms(ms).to_string();
        assert_eq!(shown(0), "1970-01-01 00:00 UTC");
        assert_eq!(shown(951_827_696_000), "2000-02-29 12:34 UTC");
        assert_eq!(shown(1_795_305_540_000), "2026-11-21 23:59 UTC");
        assert_eq!(UtcDateTime::from_unix_ms(1_795_310_437_123).second, 37);
        assert!(
            UtcDateTime::from_unix_ms(u64::MAX).year > 500_000_000,
            "what nobody means is shown all the same"
        );
    }
}
