//! The only place that reads a clock.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

/// A moment of civil time, in milliseconds since 1970-01-01T00:00:00Z. Written and read as RFC 3339.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This moment and `duration` more; stays at the last representable moment rather than overflow.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000).ok().and_then(|t| t.format(&Rfc3339).ok());
        match text {
            Some(text) => f.write_str(&text),
            None => write!(f, "{} ms since 1970", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = String;

    /// A moment in RFC 3339.
    ///
    /// # Errors
    /// A text that shows how one is written.
    fn from_str(text: &str) -> Result<Self, String> {
        let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(|error| format!("{error}; write it as `2027-01-31T00:00:00Z`"))?;
        i64::try_from(moment.unix_timestamp_nanos().div_euclid(1_000_000)).map(Self).map_err(|error| error.to_string())
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A day of civil time (UTC), counted from 1970-01-01. Written and read as `2026-01-31`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub i32);

impl Day {
    const FORMAT: &'static [BorrowedFormatItem<'static>] = format_description!("[year]-[month]-[day]");
    /// The Julian day of 1970-01-01.
    const FIRST: i32 = 2_440_588;

    /// The day of a moment.
    #[must_use]
    pub fn of(moment: Timestamp) -> Self {
        let days = moment.0.div_euclid(86_400_000);
        Self(i32::try_from(days).unwrap_or(if days < 0 { i32::MIN } else { i32::MAX }))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = self.0.checked_add(Self::FIRST).and_then(|day| Date::from_julian_day(day).ok());
        match date.and_then(|date| date.format(Self::FORMAT).ok()) {
            Some(text) => f.pad(&text),
            None => write!(f, "day {} since 1970", self.0),
        }
    }
}

impl FromStr for Day {
    type Err = NoDay;
    fn from_str(text: &str) -> Result<Self, NoDay> {
        let date = Date::parse(text, Self::FORMAT).map_err(|_| NoDay(text.chars().take(40).collect()))?;
        Ok(Self(date.to_julian_day() - Self::FIRST))
    }
}

impl serde::Serialize for Day {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text that is no day.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a day: expected one as `2026-01-31`")]
pub struct NoDay(String);

/// A moment on the clock that leases are counted by, in nanoseconds since boot. It goes on while the machine sleeps
/// and the process is stopped, which `std::time::Instant` does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(pub u64);

impl BootTime {
    /// This moment and `duration` more.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long from `earlier` to this moment; zero if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The present moment of civil time: for expiry, audit and logs, never for leases.
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The present moment of `CLOCK_BOOTTIME`.
#[must_use]
pub fn boot_time() -> BootTime {
    let now = clock_gettime(ClockId::Boottime);
    BootTime(u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_written_as_rfc_3339() {
        assert_eq!(Timestamp(1_700_000_000_123).to_string(), "2023-11-14T22:13:20.123Z");
    }

    #[test]
    fn a_day_is_read_as_it_is_written() {
        for (moment, text) in [(0, "1970-01-01"), (-1, "1969-12-31"), (1_700_000_000_123, "2023-11-14"), (1_709_164_800_000, "2024-02-29")]
        {
            let day = Day::of(Timestamp(moment));
            assert_eq!((day.to_string().as_str(), text.parse()), (text, Ok(day)));
        }
        for wrong in ["", "2023-02-29", "2023-1-1", "2023-11-14T00:00:00Z"] {
            assert!(wrong.parse::<Day>().is_err(), "{wrong}");
        }
        assert_eq!(Day::of(Timestamp(i64::MAX)).to_string(), "day 2147483647 since 1970");
    }
}
