//! Times since the Unix epoch as text in UTC. Times after the year 9999 are shown as its last moment.

use jiff::Timestamp;

/// Milliseconds since the Unix epoch as `2026-11-21 23:59`.
pub fn utc_minute(ms: u64) -> String {
    timestamp(ms).strftime("%Y-%m-%d %H:%M").to_string()
}

/// Milliseconds since the Unix epoch in the form of RFC 3339, without fractions of a second: `2026-11-21T23:59:07Z`.
pub fn utc_second(ms: u64) -> String {
    timestamp(ms).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Milliseconds since the Unix epoch in the form of RFC 3339: `2026-11-21T23:59:07.250Z`.
pub fn utc_millisecond(ms: u64) -> String {
    timestamp(ms).strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// Milliseconds since the Unix epoch of a time in the form of RFC 3339. `None` if it is not one, or before the epoch.
pub fn parse_utc(text: &str) -> Option<u64> {
    let time: Timestamp = text.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok()
}

fn timestamp(ms: u64) -> Timestamp {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_milliseconds_are_formatted_in_utc() {
        assert_eq!(utc_minute(0), "1970-01-01 00:00");
        assert_eq!(utc_minute(951_827_696_000), "2000-02-29 12:34");
        assert_eq!(utc_second(1_795_310_437_123), "2026-11-22T01:20:37Z");
        assert_eq!(utc_millisecond(1_795_310_437_023), "2026-11-22T01:20:37.023Z");
        assert_eq!(parse_utc("2026-11-22T01:20:37.023Z"), Some(1_795_310_437_023));
        assert_eq!((parse_utc("1960-01-01T00:00:00Z"), parse_utc("soon")), (None, None));
        assert!(utc_minute(u64::MAX).starts_with("9999-12-30"), "{}", utc_minute(u64::MAX));
    }
}
