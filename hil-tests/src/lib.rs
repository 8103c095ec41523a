//! Harness of the end-to-end tests: the real binary, a real broker, simulated devices, nothing shared with derd's own
//! code but the simulators.
//!
//! Tests wait for conditions with a deadline; none sleeps for a guess.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a harness fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a harness lives in real time")]

mod broker;
mod daemon;
mod guard;
mod home;
mod peer;
mod wait;

pub use broker::{Broker, BrokerOptions, Message, Subscriber, publish};
pub use daemon::{Daemon, Output, cli, derd_binary};
pub use guard::{Guard, guard_binary};
pub use home::{config_for, now_rfc3339, rfc3339_in};
pub use peer::{Framing, ModbusPeer, SerialLine};
pub use wait::{eventually, free_port, pass, stays, wait_for};
