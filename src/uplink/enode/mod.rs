//! Enode: what its charge schedules mean here.

pub mod schedule;
#[cfg(test)]
mod tests;
mod wire;
