//! Layers of TOML and environment -> raw tables -> checked [`Settings`]. Knows each room's settings; no room knows it.
//!
//! A fault never stops the reading: all faults are listed at once, each with key, value, reason and, for an unknown
//! key, the nearest known name.

mod check;
mod layers;
mod reader;
mod units;

#[cfg(test)]
mod tests;

pub use check::{LinkPace, Settings, StoreConfig, WebConfig, check};
pub use layers::{DEFAULT_PATH, DEFAULTS, Layers, Source};
pub use reader::Fault;
pub use units::parse_duration;
