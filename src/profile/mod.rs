//! The catalogue of device models: what to read, how to decode it, how to control it. Pure after loading.
//!
//! A [`Profile`] is data (TOML, see `config/profiles`). A [`Driver`] is one device read and controlled by its
//! profile, as a state machine without I/O: it says what to ask, it is told what was answered. Three protocols:
//! SunSpec with discovery, Modbus register maps, and JSON over HTTP.
//!
//! What every driver guarantees for what it returns from [`Driver::decode`]: no N/A marker, NaN or impossible value
//! is ever a number; an energy counter never falls, save for a reset that three reads confirm.

#![cfg_attr(not(test), deny(clippy::as_conversions))]

mod catalogue;
mod charger;
mod driver;
mod gate;
mod io;
mod json;
mod keys;
mod load;
mod map;
mod program;
mod sections;
mod spec;
mod sunspec;
mod words;

#[cfg(test)]
mod tests;

pub use catalogue::{Catalogue, ProfileFault};
pub use driver::{Driver, Step};
pub use io::{Answer, HttpMethod, Refusal, Request, Space, WriteFunction};
pub use program::{Check, Program, Target, Verdict};
pub use spec::{Pace, Profile, Transport};
