//! derd, the DER daemon: an on-premises edge gateway for home energy.
#![doc = include_str!("ARCHITECTURE.md")]

pub mod device;
pub mod link;
pub mod command;
pub mod control;
pub mod model;
pub mod observe;
pub mod plan;
pub mod profile;
pub mod runtime;
pub mod store;
pub mod web;
pub mod uplink;
pub mod wire;
pub mod sim;
