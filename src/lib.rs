//! derd, the DER daemon: an on-premises edge gateway for home energy.
#![doc = include_str!("ARCHITECTURE.md")]

pub mod command;
pub mod control;
pub mod model;
pub mod plan;
pub mod profile;
pub mod runtime;
pub mod store;
pub mod uplink;
pub mod wire;
