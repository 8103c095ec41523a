//! What happens to the devices when derd is gone: a will on disk for each device that would keep its setpoint for ever, and
//! the small program (`derd-guard`) that carries the wills out when the daemon stays dead.
//!
//! A will holds everything that it takes: where the device is, how gently it must be asked, the literal requests and their
//! proof. Neither SQLite, nor profiles, nor discovery, nor configuration is needed, and `derd-guard` reads none of them.
//!
//! # Layout
//!
//! * `will`: one will, and its file
//! * `journal`: the daemon's side: written, synced and renamed before the first setpoint, removed when the end was verified
//! * `lock`: who lives: two locked files that a dead process frees
//! * `vigil`: for how long the daemon has been dead; pure
//! * `act`: a will carried out over its link
//! * `watch`: the loop of `derd-guard`
//!
//! # The locks
//!
//! The daemon holds `daemon.lock` as long as it lives; `derd-guard` holds `acting.lock` for one will at a time, and takes it
//! *before* it looks whether the daemon lives. The daemon takes its own lock first and then waits until `acting.lock` is
//! free. So never do both speak to a device, whoever comes first.

mod act;
mod journal;
mod lock;
mod vigil;
mod watch;
mod will;

#[cfg(test)]
mod tests;

pub(crate) use act::over;
pub use act::{Fault, lead_back};
pub use journal::{Journal, Leftovers, Put};
pub use watch::{Options, once, watch};
pub use will::{Will, WillError};

use std::path::{Path, PathBuf};

/// The folder of the wills in the data folder.
#[must_use]
pub fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("guard")
}
