//! Validated identifiers: the only way in is parsing, so an id in hand is good.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Ids of devices, plans, uplinks and gateways: `[a-z0-9][a-z0-9_-]{0,63}`.
    #[error("`{0}` is not an id: 1 to 64 of a-z, 0-9, - and _, beginning with a letter or digit")]
    Pattern(String),
    /// Command ids: 1 to 128 characters without control characters.
    #[error("a command id has 1 to 128 printable characters")]
    Command,
}

fn well_formed(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=64).contains(&bytes.len())
        && bytes[0] != b'-'
        && bytes[0] != b'_'
        && bytes.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                if well_formed(text) { Ok(Self(text.into())) } else { Err(IdError::Pattern(text.to_owned())) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id_type! {
    /// One device of the site, as named in the configuration.
    DeviceId
}
id_type! {
    /// One gateway: the client id at a broker and the root of its topics.
    GatewayId
}
id_type! {
    /// One schedule or plan document.
    PlanId
}
id_type! {
    /// One connection to the outside. The local API and the command line are the uplink `local`.
    UplinkName
}

impl UplinkName {
    /// The owner's own channel: page, local API, command line.
    #[must_use]
    pub fn local() -> Self {
        Self("local".into())
    }
}

/// The sender's id of a command: 1 to 128 printable characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(Arc<str>);

impl CommandId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CommandId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let length = text.chars().count();
        if (1..=128).contains(&length) && !text.chars().any(char::is_control) {
            Ok(Self(text.into()))
        } else {
            Err(IdError::Command)
        }
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_ids() {
        for good in ["a", "0", "pv", "pv-1", "a_b", &"x".repeat(64)] {
            assert!(good.parse::<DeviceId>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "_a", "PV", "a b", "a/b", "a+", "a#", "ü", &"x".repeat(65)] {
            assert!(bad.parse::<DeviceId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn command_ids() {
        assert!("c-1 äß".parse::<CommandId>().is_ok());
        assert!("".parse::<CommandId>().is_err());
        assert!("a\n".parse::<CommandId>().is_err());
        assert!("x".repeat(129).parse::<CommandId>().is_err());
    }
}
