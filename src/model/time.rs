//! Wall time, monotonic time and how far the wall clock may be trusted.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A wall-clock instant, UTC, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// The last instant that RFC 3339 can write: 9999-12-31T23:59:59.999Z, in ms.
const LAST_MS: i64 = 253_402_300_799_999;

impl Timestamp {
    /// The end of what has no end: the last instant there is.
    pub const FOREVER: Self = Self(LAST_MS);

    /// From milliseconds since the epoch; clamped to the years 1970 to 9999.
    #[must_use]
    pub const fn from_ms(ms: i64) -> Self {
        Self(if ms < 0 {
            0
        } else if ms > LAST_MS {
            LAST_MS
        } else {
            ms
        })
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn ms(self) -> i64 {
        self.0
    }

    /// `None` for what has no end.
    #[must_use]
    pub const fn if_ends(self) -> Option<Self> {
        if self.0 >= LAST_MS { None } else { Some(self) }
    }

    /// This instant moved later by `by`, stopping at the end of year 9999.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self::from_ms(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(LAST_MS)))
    }

    /// This instant moved earlier by `by`, stopping at 1970.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self::from_ms(self.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(LAST_MS)))
    }

    /// Time from `earlier` to this instant; zero when `earlier` is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339, UTC, with milliseconds: `2026-11-20T12:00:00.000Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(t) => write!(f, "{t:.3}"),
            Err(_) => f.write_str("9999-12-31T23:59:59.999Z"),
        }
    }
}

impl FromStr for Timestamp {
    type Err = String;
    /// Any RFC 3339 instant with an offset.
    fn from_str(text: &str) -> Result<Self, String> {
        let read = |text: &str| text.parse::<jiff::Timestamp>();
        // The last day of the year 9999 is how people write "for ever", and a day more than the library reads.
        if let Some(rest) = text.strip_prefix("9999-12-3")
            && read(text).is_err()
            && read(&format!("9998-12-3{rest}")).is_ok()
        {
            return Ok(Self(LAST_MS));
        }
        let t = read(text).map_err(|_| format!("`{text}` is not an RFC 3339 time such as 2026-11-20T12:00:00.000Z"))?;
        let ms = t.as_millisecond();
        if (0..=LAST_MS).contains(&ms) {
            Ok(Self(ms))
        } else {
            Err(format!("`{text}` is outside the years 1970 to 9999"))
        }
    }
}

/// A monotonic instant of this process, in milliseconds. It never jumps and says nothing about the date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(u64);

impl Mono {
    /// From milliseconds on the process's own scale.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds on the process's own scale.
    #[must_use]
    pub const fn ms(self) -> u64 {
        self.0
    }

    /// This instant moved later by `by`.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Time from `earlier` to this instant; zero when `earlier` is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// How far wall time may be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClockState {
    /// The kernel says that it is synchronised.
    Synced,
    /// Synchronised once since boot, or a plausible battery-backed clock: good enough for plans.
    Holdover,
    /// Neither: wall-clock plans hold the safe state.
    Untrusted,
}

impl ClockState {
    /// The word used in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Holdover => "holdover",
            Self::Untrusted => "untrusted",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_round_trip() {
        let t: Timestamp = "2026-11-20T13:00:00.25+01:00".parse().unwrap();
        assert_eq!(t.to_string(), "2026-11-20T12:00:00.250Z");
        assert!("2026-11-20T13:00:00".parse::<Timestamp>().is_err(), "no offset");
        assert!("1969-01-01T00:00:00Z".parse::<Timestamp>().is_err());
        assert_eq!(Timestamp::from_ms(i64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
        for forever in ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999Z", "9999-12-31T00:00:00+01:00"] {
            assert_eq!(forever.parse(), Ok(Timestamp::from_ms(i64::MAX)), "{forever}");
        }
        for wrong in ["9999-12-31", "9999-12-31T25:00:00Z", "9999-12-32T00:00:00Z"] {
            assert!(wrong.parse::<Timestamp>().is_err(), "{wrong}");
        }
        assert_eq!(Timestamp::from_ms(0).to_string(), "1970-01-01T00:00:00.000Z");
    }
}
