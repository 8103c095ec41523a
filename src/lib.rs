//! derd, the DER daemon: an on-premises edge gateway for home energy.
//!
#![doc = include_str!("ARCHITECTURE.md")]

pub mod app;
pub mod cli;
pub mod command;
pub mod config;
pub mod control;
pub mod device;
pub mod link;
pub mod model;
pub mod observe;
pub mod plan;
pub mod profile;
pub mod runtime;
pub mod sim;
pub mod store;
pub mod uplink;
pub mod web;
pub mod wire;

#[cfg(test)]
mod tidy;
#[cfg(test)]
mod week;
