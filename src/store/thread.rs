//! The store's thread: takes asks one by one, and between them does what is due.

use super::along::Along;
use super::decisions::Decisions;
use super::deferred::Deferred;
use super::delivered::Delivered;
use super::file::{self, SetAside};
use super::handle::{Ask, HistoryRow, Next, StoreError, answer};
use super::history::HistoryJob;
use super::restamp::Restamp;
use super::runs::Runs;
use super::sql::{Attempt, set_meta};
use super::telemetry::{RING, Telemetry};
use super::written::Written;
use super::{StoreSettings, journal, retention};
use crate::model::{ClockState, DeviceId, Event, EventState, Mono, Severity, StoreStatus};
use crate::runtime::Clock;
use rusqlite::Connection;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// The loop turns at least this often, so that its progress can be seen.
const TURN: Duration = Duration::from_secs(1);
/// After a failed write the next attempt comes no sooner.
pub(super) const RETRY: Duration = Duration::from_secs(10);
/// Asks taken in one turn before what is due gets its turn.
const BURST: usize = 64;
/// History queries under way at once.
pub(super) const JOBS: usize = 4;

type HistoryReply = oneshot::Sender<Result<Vec<HistoryRow>, StoreError>>;

/// The ends of the handle's channels.
pub(crate) struct Ends {
    pub(crate) asks: mpsc::Receiver<Ask>,
    /// Samples that found the queue full.
    pub(crate) dropped: Arc<AtomicU64>,
    pub(crate) outbox: watch::Sender<u64>,
    pub(crate) status: watch::Sender<StoreStatus>,
}

/// What is due when, on the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) commit: Mono,
    pub(super) retry: Mono,
    pub(super) restamp: Mono,
    pub(super) status: Mono,
    pub(super) retention: retention::Due,
}

/// Everything the thread owns.
pub(crate) struct Worker {
    pub(super) settings: StoreSettings,
    pub(super) clock: Clock,
    pub(super) ends: Ends,
    pub(crate) conn: Connection,
    pub(crate) telemetry: Telemetry,
    pub(super) decisions: Decisions,
    pub(super) runs: Runs,
    pub(super) written: Written,
    pub(super) restamp: Restamp,
    pub(super) jobs: VecDeque<(HistoryJob, HistoryReply)>,
    pub(super) deferred: Deferred,
    pub(super) delivered: Delivered,
    /// Ledgers of writes that are not on the disk yet.
    pub(super) wear: BTreeMap<DeviceId, String>,
    pub(super) due: Due,
    pub(super) status: StoreStatus,
    pub(super) full: retention::Full,
    /// The last commit of telemetry failed: that a smaller write succeeds does not mean that all is well.
    pub(super) is_stuck: bool,
}

impl Worker {
    pub(crate) fn new(settings: StoreSettings, clock: Clock, ends: Ends) -> Result<Self, StoreError> {
        let mut opened = file::open(&settings.path, clock.now())?;
        let mut loaded = load(&opened.conn, &settings, &clock);
        // Damage where the check at the opening has not looked.
        if let Some(error) = loaded.as_ref().err().filter(|error| file::is_damage(error)) {
            let reason = error.to_string();
            drop(opened);
            opened = file::replace(&settings.path, clock.now(), reason)?;
            loaded = load(&opened.conn, &settings, &clock);
        }
        let (telemetry, decisions, runs, written, restamp) = loaded.attempt("reading the database")?;
        let mut worker = Self {
            due: Due { commit: clock.mono().plus(settings.commit_every), ..Due::default() },
            settings,
            clock,
            ends,
            conn: opened.conn,
            telemetry,
            decisions,
            runs,
            written,
            restamp,
            jobs: VecDeque::new(),
            deferred: Deferred::default(),
            delivered: Delivered::default(),
            wear: BTreeMap::new(),
            status: StoreStatus::default(),
            full: retention::Full::default(),
            is_stuck: false,
        };
        if let Some(aside) = opened.set_aside {
            worker.tell_damage(&aside);
        }
        worker.refresh_status();
        Ok(worker)
    }

    /// Until told to stop, or nobody is left to tell.
    pub(crate) fn run(mut self, runtime: &tokio::runtime::Runtime) {
        let stopped = loop {
            let wait = if self.jobs.is_empty() { self.until_due() } else { Duration::ZERO };
            let first = runtime.block_on(async { tokio::time::timeout(wait, self.ends.asks.recv()).await });
            let next = match first {
                Ok(Some(ask)) => self.burst(ask),
                Ok(None) => break None,
                Err(_elapsed) if self.jobs.is_empty() => {
                    self.due.status = Mono::default();
                    Next::Go
                }
                Err(_elapsed) => Next::Go,
            };
            if let Next::Stop(reply) = next {
                break Some(reply);
            }
            self.guarded("its own work", Self::turn);
        };
        self.ends.asks.close();
        while let Ok(ask) = self.ends.asks.try_recv() {
            self.guarded("a last request", |worker| {
                let _next = worker.handle(ask);
            });
        }
        self.retry_deferred();
        if let Err(error) = self.commit_all() {
            tracing::error!(%error, samples = self.telemetry.pending().len(), "telemetry was lost at the end");
        }
        // The last connection to close copies the log back.
        drop(self.conn);
        if let Some(Err(())) = stopped.map(|reply| reply.send(())) {
            tracing::debug!("nobody waited for the store's end");
        }
    }

    fn until_due(&self) -> Duration {
        if self.is_dirty() { self.due.commit.since(self.clock.mono()).min(TURN) } else { TURN }
    }

    fn burst(&mut self, first: Ask) -> Next {
        let mut ask = Some(first);
        for taken in 1..=BURST {
            let Some(now) = ask.take() else { break };
            let mut next = Next::Go;
            self.guarded("a request", |worker| next = worker.handle(now));
            if let Next::Stop(_) = next {
                return next;
            }
            // What is taken out of the queue must be handled: none after the last.
            ask = if taken < BURST { self.ends.asks.try_recv().ok() } else { None };
        }
        Next::Go
    }

    /// A fault of our own in one request must not end the thread. SQLite's transactions roll back by themselves.
    fn guarded(&mut self, what: &'static str, work: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            tracing::error!(what, "the store failed within");
            self.status.error = Some(format!("the store failed within {what}"));
        }
    }

    /// What is due, in small pieces.
    pub(crate) fn turn(&mut self) {
        let mono = self.clock.mono();
        if !self.deferred.is_empty() && mono >= self.due.retry {
            self.retry_deferred();
        }
        self.restamp();
        let is_full = self.telemetry.pending().len() >= RING && self.status.error.is_none();
        if self.is_dirty() && (mono >= self.due.commit || is_full) {
            // The outcome is kept in the status.
            let _tried = self.commit().is_err();
        }
        if let Err(error) = self.housekeeping() {
            self.failed(&error);
        }
        if let Some((mut job, reply)) = self.jobs.pop_front() {
            match job.step(&self.conn, &self.telemetry).attempt("reading history") {
                Ok(None) if !reply.is_closed() => self.jobs.push_back((job, reply)),
                Ok(found) => answer(reply, Ok(found.unwrap_or_default())),
                Err(error) => answer(reply, Err(error)),
            }
        }
        self.status.turns += 1;
        if mono >= self.due.status {
            self.due.status = mono.plus(TURN);
            self.refresh_status();
        }
    }

    fn is_dirty(&self) -> bool {
        self.telemetry.is_dirty()
            || self.decisions.is_dirty()
            || !self.delivered.is_empty()
            || !self.wear.is_empty()
            || self.runs.is_due(&self.clock, self.settings.commit_every)
    }

    /// Give what was taken before the clock could be trusted its right time, once it can.
    fn restamp(&mut self) {
        if self.restamp.is_waiting() && self.clock.state() != ClockState::Untrusted {
            let (now, mono) = (self.clock.now(), self.clock.mono());
            self.restamp.trusted(now, mono, self.telemetry.pending_mut());
        }
        if !self.restamp.is_due() || self.clock.mono() < self.due.restamp {
            return;
        }
        match self.restamp.step(&self.conn).attempt("giving samples their right time") {
            Ok(None) => {}
            Ok(Some(samples)) => {
                self.wrote();
                tracing::info!(samples, "samples taken before the clock was right got their right time");
                let text = format!(
                    "The clock can be trusted now. Samples that were taken before and got their right time: {samples}."
                );
                self.own_event(Severity::Info, "clock_restamped", text, EventState::Raised);
            }
            Err(error) => {
                self.due.restamp = self.clock.mono().plus(RETRY);
                self.failed(&error);
            }
        }
    }

    /// Commit telemetry, cursors and decisions.
    pub(crate) fn commit(&mut self) -> Result<(), StoreError> {
        if self.is_dirty() {
            return self.commit_all();
        }
        self.due.commit = self.clock.mono().plus(self.settings.commit_every);
        Ok(())
    }

    pub(super) fn commit_all(&mut self) -> Result<(), StoreError> {
        self.due.commit = self.clock.mono().plus(self.settings.commit_every);
        let now = self.clock.now();
        let trusted = self.clock.state() != ClockState::Untrusted;
        let (written, wear, delivered) = (&mut self.written, &self.wear, &self.delivered);
        let mut along = None;
        let done = self.telemetry.commit(&self.conn, |tx| {
            journal::set_wear(tx, wear)?;
            along = Some(Along::write(tx, &self.decisions, &self.runs, &self.clock)?);
            if trusted {
                set_meta(tx, super::LAST_WALL_MS, &now.ms().to_string())?;
            }
            delivered.write(tx)?;
            written.keep(tx, now)
        });
        match done {
            Ok(()) => {
                self.delivered.clear();
                self.is_stuck = false;
                self.wrote_along(along);
                self.wear.clear();
                self.wrote();
                Ok(())
            }
            Err(error) => {
                self.is_stuck = true;
                self.due.commit = self.clock.mono().plus(RETRY.min(self.settings.commit_every).max(TURN));
                if file::is_damage(&error) {
                    self.replace_file(&error.to_string());
                }
                let error = StoreError::Sqlite { attempt: "writing telemetry", reason: error.to_string() };
                self.failed(&error);
                Err(error)
            }
        }
    }

    /// The file went bad under our hands: go on with a new one.
    pub(super) fn replace_file(&mut self, reason: &str) {
        let Ok(placeholder) = Connection::open_in_memory() else { return };
        drop(std::mem::replace(&mut self.conn, placeholder));
        match file::replace(&self.settings.path, self.clock.now(), reason.to_owned()) {
            Ok(opened) => {
                self.conn = opened.conn;
                self.telemetry.moved();
                self.decisions.moved(&self.conn);
                self.runs.moved(&self.conn);
                self.written.moved();
                self.due.commit = Mono::default();
                if let Some(aside) = opened.set_aside {
                    self.tell_damage(&aside);
                }
            }
            Err(error) => tracing::error!(%error, "the store has no file"),
        }
    }

    fn tell_damage(&mut self, aside: &SetAside) {
        tracing::error!(path = %aside.path.display(), reason = aside.reason, "the database was damaged and set aside");
        let text = format!(
            "The database was damaged ({}) and set aside as {}. {} entries were saved from it; stored telemetry begins anew.",
            aside.reason,
            aside.path.display(),
            aside.saved
        );
        self.own_event(Severity::Warning, "store_damaged", text, EventState::Raised);
    }

    pub(super) fn own_event(&mut self, severity: Severity, code: &str, text: String, state: EventState) {
        let event = Event { ts: self.clock.now(), severity, device: None, code: code.to_owned(), text, state };
        self.write_or_defer(Ask::Event(Box::new(event)));
    }

    fn housekeeping(&mut self) -> Result<(), StoreError> {
        let trusted = (self.clock.state() != ClockState::Untrusted).then(|| self.clock.now());
        let mono = self.clock.mono();
        let done = self.due.retention.work(
            &self.conn,
            (&mut self.telemetry, &mut self.decisions),
            &mut self.full,
            &self.settings,
            mono,
            trusted,
        );
        let done = done.attempt("deleting what is old");
        if let Ok(retention::Done { wrote: false, .. }) = done {
            return Ok(());
        }
        let _any = self.note_written();
        if let Some((text, state)) = done?.event {
            self.own_event(Severity::Warning, "store_full", text, state);
        }
        Ok(())
    }

    /// Did the last transaction write anything.
    pub(super) fn note_written(&mut self) -> bool {
        let now = self.clock.now();
        let noted = self.written.note(&self.conn, now);
        let done = noted.and_then(|wrote| self.written.checkpoint(&self.conn, now, false).map(|()| wrote));
        done.unwrap_or_else(|error| {
            self.failed(&StoreError::Sqlite { attempt: "copying the log back", reason: error.to_string() });
            false
        })
    }

    pub(super) fn wrote_along(&mut self, along: Option<Along>) {
        if let Some(along) = along {
            along.done(&mut self.decisions, &mut self.runs);
        }
    }

    /// After each good transaction.
    pub(super) fn wrote(&mut self) {
        if self.note_written() && !self.is_stuck && self.status.error.take().is_some() {
            tracing::info!("the store writes again");
            self.own_event(
                Severity::Critical,
                "store_failing",
                "The store writes again.".to_owned(),
                EventState::Cleared,
            );
            self.due.status = Mono::default();
        }
    }

    pub(super) fn failed(&mut self, error: &StoreError) {
        let text = error.to_string();
        if self.status.error.is_none() {
            tracing::error!(error = text, "the store does not write");
            self.defer(Ask::Event(Box::new(Event {
                ts: self.clock.now(),
                severity: Severity::Critical,
                device: None,
                code: "store_failing".to_owned(),
                text: format!("The store does not write: {text}."),
                state: EventState::Raised,
            })));
            self.due.status = Mono::default();
        }
        self.status.error = Some(text);
    }

    fn refresh_status(&mut self) {
        let size = |suffix| std::fs::metadata(file::with_suffix(&self.settings.path, suffix)).map_or(0, |m| m.len());
        self.status.bytes = size("") + size("-wal");
        self.status.rows = self.telemetry.rows();
        // A fault in reading shows up where somebody asks for the data.
        self.status.oldest = self.telemetry.oldest(&self.conn).unwrap_or(self.status.oldest);
        self.status.written_bytes_today = self.written.today(self.clock.now());
        self.status.dropped = self.telemetry.dropped + self.ends.dropped.load(Ordering::Relaxed);
        self.status.dropped_decisions = self.decisions.dropped;
        self.ends.status.send_replace(self.status.clone());
    }

    pub(super) fn announce(&self) {
        self.ends.outbox.send_modify(|n| *n += 1);
    }

    /// A write that somebody waits for: when it is good they go on before anything else is done with the disk.
    pub(super) fn reply<T>(
        &mut self,
        attempt: &'static str,
        done: rusqlite::Result<T>,
        reply: oneshot::Sender<Result<T, StoreError>>,
    ) {
        let done = match done {
            Ok(value) => {
                answer(reply, Ok(value));
                return self.wrote();
            }
            Err(error) => Err(self.not_written(attempt, &error)),
        };
        answer(reply, done);
    }

    pub(super) fn not_written(&mut self, attempt: &'static str, fault: &rusqlite::Error) -> StoreError {
        let error = StoreError::Sqlite { attempt, reason: fault.to_string() };
        self.failed(&error);
        if file::is_damage(fault) {
            self.replace_file(&fault.to_string());
        }
        error
    }
}

/// All that is read of the disk at the start.
type Loaded = (Telemetry, Decisions, Runs, Written, Restamp);

/// What is known of the disk.
fn load(conn: &Connection, settings: &StoreSettings, clock: &Clock) -> rusqlite::Result<Loaded> {
    match journal::drop_foreign_notices(conn, &settings.uplinks) {
        Err(error) if !file::is_damage(&error) => tracing::warn!(%error, "notices nobody fetches were not deleted"),
        done => done?,
    }
    let telemetry = Telemetry::open(conn, &settings.uplinks)?;
    let written = Written::new(conn, &settings.path)?;
    Ok((telemetry, Decisions::open(conn)?, Runs::open(conn, clock)?, written, Restamp::open(conn)?))
}
