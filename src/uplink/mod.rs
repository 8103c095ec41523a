//! One task per connection to the outside: an MQTT broker or a cloud. None deletes anything, and none delays another:
//! each has its own cursor in the store.

pub mod enode;
pub mod gridshare;
pub mod mapping;
pub mod mqtt;
pub mod texture;

use std::fmt;
use std::time::Duration;

/// A secret: never shown by `Debug`, and therefore never in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keep this text secret.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself: for the wire only.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// How much of the telemetry an uplink sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cadence {
    /// Every sample.
    Poll,
    /// The first sample of each device in each interval of this length (intervals are counted from 1970, UTC).
    Every(Duration),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "Secret(..)");
    }
}
