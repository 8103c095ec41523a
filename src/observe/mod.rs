//! What the gateway says of itself: logs, status, health, metrics.
//!
//! The [`Board`] only reads the watch cells in which each task keeps its own word; nothing waits for it and it costs
//! nothing while nobody asks.

mod board;
mod logging;
mod metrics;
mod progress;
#[cfg(test)]
pub(crate) mod tests;

pub use board::{Board, BoardParts};
pub use logging::{LogError, init_logging};
