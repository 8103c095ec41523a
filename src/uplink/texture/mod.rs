//! Texture: what its schedules mean here.

mod mode;
pub mod schedule;
#[cfg(test)]
mod tests;
mod wire;
