//! Clock, retry, supervision, shutdown: what every task needs and nothing that it does.

mod clock;
mod retry;
mod supervisor;

pub use clock::Clock;
pub use retry::Retry;
pub use supervisor::{Exit, Shutdown, ShutdownSwitch, Supervisor};
