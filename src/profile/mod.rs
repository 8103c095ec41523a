//! The catalogue of device models: what to read, how to decode it, how to control it. Pure after loading.

mod io;

pub use io::{Answer, HttpMethod, Refusal, Request, Space, WriteFunction};
