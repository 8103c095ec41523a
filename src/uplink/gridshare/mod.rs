//! Gridshare: what its overlay plans, operation modes and tariffs mean here.

pub mod mode;
pub mod plan;
pub mod tariff;
#[cfg(test)]
mod tests;
mod wire;
