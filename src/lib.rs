//! derd, the DER daemon: an on-premises edge gateway for home energy.
#![doc = include_str!("ARCHITECTURE.md")]

pub mod model;
pub mod runtime;
pub mod sim;
