//! The only SQLite: one thread, one writer.
//!
//! # Invariants
//!
//! **Order.** Every sample gets a row number from one counter, over all devices and boots. After a start it goes on behind
//! the greatest number that was ever committed. Commands and plans share another counter, events and notices a third.
//! The thread takes requests in the order of their queue, each in a transaction of its own or none.
//!
//! **Durability.** Commands, results, plans, held setpoints, baselines, events, notices and kept values are on the disk,
//! synced, before they are answered; those that nobody waits for are written in their order as soon as they come to the
//! head of the queue, and tried again while the disk refuses. Telemetry waits in memory and is committed every
//! `commit_every` together with the cursors, the ledgers of writes and what running commands have delivered, in one
//! transaction with full sync.
//!
//! **Acknowledgement.** Each uplink has one cursor: the set of rows that arrived at its other side (contiguous up to
//! somewhere, and ranges above, since live values overtake the backlog). Rows that never came to the store count as
//! acknowledged: there is nothing to send. What is written of a cursor is cut at the greatest row on disk, so a row number
//! that is given again after a crash is never taken for acknowledged. An acknowledgement lost in a crash means that a
//! sample is sent twice: receivers drop equal `(boot, device, seq)`. A new uplink begins at the present end; the cursor of
//! one that was removed stays but holds nothing back.
//!
//! **Loss.** A power cut loses the telemetry of the last commit interval: it is not counted here, but is seen as
//! a gap between the last `seq` of one boot and the first of the next. All other loss is counted in
//! [`StoreStatus::dropped`](crate::model::StoreStatus): samples that found the queue full, the oldest in memory when the
//! disk refuses for long (more than 3,600 wait), samples deleted for want of room before every uplink had them, and
//! samples in damaged pieces of the file. Telemetry older than `retention` goes once every cursor has passed it; above
//! `max_bytes` the oldest goes in any case. Nothing is deleted by age while the clock is not to be trusted. Damage
//! to the file never stops the store: it is set aside, a new one begun, and what must not be forgotten is copied over as
//! far as it can be read.
//!
//! **Decisions** wait in memory like telemetry and go to the disk with it, or with the next result of a command, so that a
//! command that did anything is named by the decision on disk. They are kept for 30 days whatever `retention` is, and
//! the newest of each device for ever; bounded by a number a day, and for want of room they go after the telemetry, or
//! before it where they take more than their share. All loss is counted in
//! [`StoreStatus::dropped_decisions`](crate::model::StoreStatus). When derd was not running is known from marks: see [`Gap`].
//!
//! **Time.** Samples that were taken while the clock was not to be trusted get their right time, by the monotonic clock, as
//! soon as it is: those of this run, in memory and on the disk. What was sent before stays as it was sent, marked
//! `untrusted`.
//!
//! **What is written** is counted in [`StoreStatus::written_bytes_today`](crate::model::StoreStatus) from the frames of
//! SQLite's log and the pages copied back from it. The file system's own writing comes on top.
//!
//! # Layout
//!
//! - `handle`: what others see. `thread`: takes their requests, `asks` does them; `deferred` keeps what the disk refused.
//! - `telemetry`, with `blob` and `ranges` (both pure): samples and cursors. `restamp` corrects their times.
//! - `journal`: commands, plans, held setpoints, baselines, events, notices. `delivered`: the energy of running commands.
//! - `decisions`, with `packed` (pure), `runs` and `along`: the journal of decisions, and when derd was running.
//! - `history` and `retention`: done in small pieces between requests.
//! - `file` opens and replaces the file, `written` counts, `sql` has what all of them need.

mod along;
mod asks;
mod blob;
mod decisions;
mod deferred;
mod delivered;
mod file;
mod handle;
mod history;
mod journal;
mod packed;
mod ranges;
mod restamp;
mod retention;
mod runs;
mod sql;
mod telemetry;
#[cfg(test)]
mod tests;
mod thread;
mod varint;
mod written;

pub use decisions::{DECISIONS_KEPT, DecisionRow, Gap};
#[cfg(test)]
pub(crate) use handle::Ask;
pub use handle::{
    Admitted, BacklogPage, HistoryQuery, HistoryRow, NewCommand, Notice, NoticeBody, OpenCommand, OutboxItem,
    StoreError, StoreHandle, StoredPlan,
};
#[cfg(test)]
pub(crate) use thread::{Ends, Worker};

use crate::model::{StoreStatus, UplinkName};
use crate::runtime::Clock;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, watch};

/// Requests that wait for the store's thread. Samples are dropped and counted when it is full; all else waits.
const QUEUE: usize = 512;
/// Samples that a slow listener to live values may lag behind before it loses the oldest.
const LIVE: usize = 256;

/// How the store works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// The database. Its folder must exist.
    pub path: PathBuf,
    /// Time between commits of telemetry: what a power cut may lose.
    pub commit_every: Duration,
    /// How long telemetry is kept.
    pub retention: Duration,
    /// What the database may take on disk, bytes.
    pub max_bytes: u64,
    /// The uplinks for which telemetry and notices are kept until they are confirmed. Never `local`.
    pub uplinks: Vec<UplinkName>,
}

impl StoreSettings {
    /// The defaults: a commit each minute, 30 days, 512 MiB, no uplinks.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            commit_every: Duration::from_secs(60),
            retention: Duration::from_secs(30 * 24 * 3600),
            max_bytes: 512 << 20,
            uplinks: Vec::new(),
        }
    }
}

/// The store's thread: it ends after [`StoreHandle::stop`], or when the last handle is gone.
#[derive(Debug)]
pub struct StoreThread(std::thread::JoinHandle<()>);

impl StoreThread {
    /// Wait for the end of the thread; blocks. Did it end in order.
    #[must_use]
    pub fn join(self) -> bool {
        self.0.join().is_ok()
    }

    /// Has it ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

/// The key in [`StoreHandle::meta`] of the newest trusted wall time, ms since 1970, as of the last commit of telemetry.
pub const LAST_WALL_MS: &str = "last_wall_ms";

/// Open the database, whatever stands there, and start its thread.
///
/// # Errors
/// The folder is missing or not writable, the disk has no room for an empty database, or another process has it open.
pub fn open(settings: StoreSettings, clock: Clock) -> Result<(StoreHandle, StoreThread), StoreError> {
    let failed =
        |error: std::io::Error| StoreError::Sqlite { attempt: "starting the store", reason: error.to_string() };
    let (asks_tx, asks) = mpsc::channel(QUEUE);
    let (live, _) = broadcast::channel(LIVE);
    let (outbox, outbox_rx) = watch::channel(0);
    let (status, status_rx) = watch::channel(StoreStatus::default());
    let dropped = Arc::new(AtomicU64::new(0));
    let ends = thread::Ends { asks, dropped: Arc::clone(&dropped), outbox, status };
    let worker = thread::Worker::new(settings, clock, ends)?;
    let next_row = Arc::new(AtomicU64::new(worker.telemetry.last_row() + 1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
    let thread =
        std::thread::Builder::new().name("store".to_owned()).spawn(move || worker.run(&runtime)).map_err(failed)?;
    let handle = StoreHandle { asks: asks_tx, live, next_row, dropped, outbox: outbox_rx, status: status_rx };
    Ok((handle, StoreThread(thread)))
}
