//! The journal of decisions: why each device did what it did, at any time of the last 30 days.
//!
//! Rows wait in memory, can be read there, and go to the disk with the next commit of telemetry or the next command result,
//! whichever comes first. A row stands by its wall time: after the clock was set back, what was decided later stands before.

use super::handle::{Ask, StoreError, StoreHandle};
use super::packed::{MAX_TEXT, pack, unpack};
use super::sql::{number, set_number, to_i64, to_u64};
use crate::model::{ClockState, DeviceId, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long decisions are kept. The one in force at the beginning stays as well.
pub const DECISIONS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// Decisions of one device and day (UTC) that are kept as they come; then at most one a minute.
const A_DAY: u32 = 1000;
/// Decisions of one device that wait in memory; then a newer one takes the place of the last.
const WAITING: usize = 256;
/// Rows deleted by size in one go reach over so much time.
const SLICE_MS: i64 = DAY_MS / 4;
/// The share of the allowed size that decisions may take while telemetry is deleted for want of room: one in so many.
const SHARE: u64 = 4;
const DAY_MS: i64 = 86_400_000;
const MINUTE_MS: i64 = 60_000;
/// Where the device's number begins in an id: below lies the time in ms, which fits until the year 2527.
const DEVICE: i64 = 1 << 44;
/// What SQLite takes for a row besides its text, bytes, about.
const ROW_BYTES: usize = 16;

/// What control decided for a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionRow {
    /// When.
    pub at: Timestamp,
    /// How far the clock was to be trusted then.
    pub clock: ClockState,
    /// The decision as control worded it (`wire::explain_json`).
    pub json: String,
    /// Was derd running at the time that was asked about (see [`StoreHandle::not_running`]).
    pub was_running: bool,
}

/// A stretch of time in which derd was not running, or left no trace of it: from the last mark of one run to the start of the
/// next. Marks are made with each commit of telemetry, each accepted command and each of its results, and at an orderly
/// end; so after a power cut the stretch begins up to `commit_every` too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The last mark; `None`: there was no earlier run.
    pub from: Option<Timestamp>,
    /// The next start.
    pub to: Timestamp,
}

impl StoreHandle {
    /// Write down what was decided for a device, with the next commit of telemetry. Never blocks. A text of more than
    /// 12 KiB, and what is above the bounds of the journal, is counted in
    /// [`StoreStatus::dropped_decisions`](crate::model::StoreStatus).
    ///
    /// # Errors
    /// [`StoreError::Busy`]: the queue is full, and the decision is lost, for the caller to count; [`StoreError::Stopped`].
    pub fn decided(&self, device: DeviceId, at: Timestamp, clock: ClockState, json: String) -> Result<(), StoreError> {
        self.asks.try_send(Ask::Decided(Box::new(Decision { device, at, clock, json }))).map_err(|error| match error {
            tokio::sync::mpsc::error::TrySendError::Full(_) => StoreError::Busy,
            tokio::sync::mpsc::error::TrySendError::Closed(_) => StoreError::Stopped,
        })
    }

    /// The decision in force for a device at a time, also one not yet on disk; `None` when there is none so old.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn decision_at(&self, device: DeviceId, at: Timestamp) -> Result<Option<DecisionRow>, StoreError> {
        self.ask(|tx| Ask::DecisionAt(device, at, tx)).await
    }

    /// The decisions of a device from a time on and before another, oldest first, at most `limit`; none says whether derd
    /// was running.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn decisions(
        &self,
        device: DeviceId,
        from: Timestamp,
        to: Timestamp,
        limit: usize,
    ) -> Result<Vec<DecisionRow>, StoreError> {
        self.ask(|tx| Ask::Decisions(Box::new((device, from, to, limit)), tx)).await
    }

    /// The stretch around a time in which derd was not running; `None` when it was, as far as is known.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn not_running(&self, at: Timestamp) -> Result<Option<Gap>, StoreError> {
        self.ask(|tx| Ask::NotRunning(at, tx)).await
    }
}

/// A decision on its way to the disk.
#[derive(Debug, Clone)]
pub(crate) struct Decision {
    pub(crate) device: DeviceId,
    pub(crate) at: Timestamp,
    pub(crate) clock: ClockState,
    pub(crate) json: String,
}

/// What is in memory and what is known of the disk.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    /// Not yet on disk, as they came.
    pending: Vec<Decision>,
    /// How many of each device came on which day.
    days: BTreeMap<DeviceId, (i64, u32)>,
    disk: Disk,
    /// Lost since start.
    pub(crate) dropped: u64,
}

/// What is known of the disk.
#[derive(Debug, Default, Clone)]
pub(crate) struct Disk {
    /// Each device's number.
    numbers: BTreeMap<DeviceId, i64>,
    /// Each device's row that others are packed against, and its text.
    bases: BTreeMap<DeviceId, (i64, Arc<str>)>,
    /// What the rows take, bytes, about.
    bytes: u64,
}

impl Decisions {
    /// What stands on the disk.
    pub(crate) fn open(conn: &Connection) -> rusqlite::Result<Self> {
        Ok(Self { disk: Disk::open(conn)?, ..Self::default() })
    }

    /// Go on with another database.
    pub(crate) fn moved(&mut self, conn: &Connection) {
        self.disk = Disk::open(conn).unwrap_or_default();
    }

    /// Is there anything that the disk does not have.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Take a decision.
    pub(crate) fn take(&mut self, conn: &Connection, decision: Decision) {
        if decision.json.len() > MAX_TEXT {
            self.dropped += 1;
            return;
        }
        let day = decision.at.ms() / DAY_MS;
        let known = self.days.get(&decision.device).filter(|(of, _)| *of == day).map(|(_, count)| *count);
        // After a start the day goes on where it stood. What cannot be read counts as none.
        let count = known.unwrap_or_else(|| self.disk.count(conn, &decision.device, day).unwrap_or_default());
        let waiting = self.pending.iter().filter(|old| old.device == decision.device).count();
        let last = self.pending.iter_mut().rev().find(|old| old.device == decision.device);
        let replaced = last.filter(|last| {
            waiting >= WAITING || (count >= A_DAY && last.at.ms() / MINUTE_MS == decision.at.ms() / MINUTE_MS)
        });
        if let Some(last) = replaced {
            self.dropped += 1;
            *last = decision;
            return;
        }
        self.days.insert(decision.device.clone(), (day, count.saturating_add(1)));
        self.pending.push(decision);
    }

    /// Write what waits, within a transaction. What is returned is to be handed to [`Self::wrote`] after it.
    pub(crate) fn write(&self, tx: &Connection) -> rusqlite::Result<Option<Disk>> {
        if self.pending.is_empty() {
            return Ok(None);
        }
        let mut disk = self.disk.clone();
        for decision in &self.pending {
            disk.insert(tx, decision)?;
        }
        set_number(tx, "decision_bytes", disk.bytes)?;
        Ok(Some(disk))
    }

    /// The transaction of [`Self::write`] was good.
    pub(crate) fn wrote(&mut self, disk: Option<Disk>) {
        if let Some(disk) = disk {
            self.disk = disk;
            self.pending = Vec::new();
        }
    }

    /// The decision in force at a time. A damaged row is deleted and counted, and the one before it is answered.
    pub(crate) fn at(
        &mut self,
        conn: &Connection,
        device: &DeviceId,
        at: Timestamp,
    ) -> rusqlite::Result<Option<DecisionRow>> {
        let waiting = self.pending.iter().filter(|row| row.device == *device && row.at <= at).max_by_key(|row| row.at);
        let waiting = waiting.map(DecisionRow::from);
        let mut last = at;
        let stored = loop {
            let Some((id, read)) = self.disk.newest(conn, device, last)? else { break None };
            if let Some(row) = read {
                break Some(row);
            }
            self.discard(conn, id)?;
            last = Timestamp::from_ms(id % DEVICE);
        };
        Ok(match (waiting, stored) {
            (Some(waiting), Some(stored)) => Some(if waiting.at >= stored.at { waiting } else { stored }),
            (waiting, stored) => waiting.or(stored),
        })
    }

    /// Decisions of a stretch of time, oldest first. A damaged row is left out.
    pub(crate) fn list(
        &self,
        conn: &Connection,
        device: &DeviceId,
        (from, to): (Timestamp, Timestamp),
        limit: usize,
    ) -> rusqlite::Result<Vec<DecisionRow>> {
        let mut rows = self.disk.between(conn, device, from, to, limit)?;
        let waiting = self.pending.iter().filter(|row| row.device == *device && row.at >= from && row.at < to);
        rows.extend(waiting.map(DecisionRow::from));
        rows.sort_by_key(|row| row.at);
        rows.truncate(limit);
        Ok(rows)
    }

    fn discard(&mut self, conn: &Connection, id: i64) -> rusqlite::Result<()> {
        tracing::warn!(id, "a damaged decision was dropped from the journal");
        self.dropped += 1;
        conn.execute("DELETE FROM decisions WHERE id = ?1", [id])?;
        self.disk.bases.retain(|_, (base, _)| *base != id);
        Ok(())
    }

    /// Delete what is older than this, but for what was in force then. Was there anything.
    pub(crate) fn delete_before(&mut self, conn: &Connection, before: Timestamp) -> rusqlite::Result<bool> {
        let tx = conn.unchecked_transaction()?;
        let mut gone = 0;
        let mut bases = self.disk.bases.clone();
        for number in self.disk.numbers.values() {
            let floor = number * DEVICE;
            let in_force: Option<i64> = tx
                .prepare_cached("SELECT max(id) FROM decisions WHERE id >= ?1 AND id <= ?2")?
                .query_row([floor, id(*number, before)], |row| row.get(0))?;
            let Some(in_force) = in_force else { continue };
            // What is packed against a row stands on the same day as that row.
            let day_end = floor + (in_force % DEVICE / DAY_MS + 1) * DAY_MS;
            let first: i64 = tx
                .prepare_cached("SELECT min(min(id, ifnull(base, id))) FROM decisions WHERE id >= ?1 AND id < ?2")?
                .query_row([in_force, day_end], |row| row.get(0))?;
            let bytes: i64 = tx
                .prepare_cached("SELECT ifnull(sum(length(data) + ?3), 0) FROM decisions WHERE id >= ?1 AND id < ?2")?
                .query_row(params![floor, first, to_i64(ROW_BYTES as u64)], |row| row.get(0))?;
            tx.prepare_cached("DELETE FROM decisions WHERE id >= ?1 AND id < ?2")?.execute([floor, first])?;
            gone += to_u64(bytes);
            bases.retain(|_, (base, _)| !(floor..first).contains(base));
        }
        if gone == 0 {
            return Ok(false);
        }
        let bytes = self.disk.bytes.saturating_sub(gone);
        set_number(&tx, "decision_bytes", bytes)?;
        tx.commit()?;
        (self.disk.bytes, self.disk.bases) = (bytes, bases);
        Ok(true)
    }

    /// Delete some of the oldest for want of room: was there anything.
    pub(crate) fn delete_oldest(&mut self, conn: &Connection) -> rusqlite::Result<bool> {
        let mut oldest: Option<i64> = None;
        for number in self.disk.numbers.values() {
            let floor = number * DEVICE;
            // The second: the newest of a device stays in any case.
            let second: Option<i64> = conn
                .prepare_cached("SELECT id FROM decisions WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT 1 OFFSET 1")?
                .query_row([floor, floor + DEVICE], |row| row.get(0))
                .optional()?;
            oldest = oldest.into_iter().chain(second.map(|id| id % DEVICE)).min();
        }
        let Some(oldest) = oldest else { return Ok(false) };
        let mut before = Timestamp::from_ms(oldest.saturating_add(SLICE_MS));
        // Rows go by the day, because of what is packed against them: the next day's end frees some in any case.
        for _ in 0..8 {
            if self.delete_before(conn, before)? {
                return Ok(true);
            }
            before = Timestamp::from_ms(before.ms().saturating_add(SLICE_MS));
        }
        Ok(false)
    }

    /// Do decisions take more than their share of this size.
    pub(crate) const fn is_over_share(&self, max_bytes: u64) -> bool {
        self.disk.bytes > max_bytes / SHARE
    }
}

impl Disk {
    fn open(conn: &Connection) -> rusqlite::Result<Self> {
        let mut stmt = conn.prepare("SELECT device, n FROM decided_devices")?;
        let rows: rusqlite::Result<Vec<(String, i64)>> =
            stmt.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect();
        let numbers = rows?.into_iter().filter_map(|(device, n)| Some((device.parse().ok()?, n))).collect();
        Ok(Self { numbers, bases: BTreeMap::new(), bytes: number(conn, "decision_bytes")? })
    }

    fn insert(&mut self, tx: &Connection, decision: &Decision) -> rusqlite::Result<()> {
        let device = &decision.device;
        let n = match self.numbers.get(device) {
            Some(n) => *n,
            None => {
                tx.prepare_cached("INSERT INTO decided_devices (device) VALUES (?1)")?.execute([device.as_str()])?;
                let n = tx.last_insert_rowid();
                self.numbers.insert(device.clone(), n);
                n
            }
        };
        // Two of the same millisecond stand one behind the other.
        let mut id = id(n, decision.at);
        let mut taken = tx.prepare_cached("SELECT 1 FROM decisions WHERE id = ?1")?;
        while taken.exists([id])? {
            id += 1;
        }
        let base =
            self.bases.get(device).filter(|(base, _)| *base < id && base % DEVICE / DAY_MS == id % DEVICE / DAY_MS);
        let based = base.map(|(id, text)| (*id, Arc::clone(text)));
        // None is too long: see `take`.
        let Some(data) = pack(decision.clock, &decision.json, based.as_ref().map(|(_, text)| &**text)) else {
            return Ok(());
        };
        self.bytes += u64::try_from(data.len() + ROW_BYTES).unwrap_or_default();
        tx.prepare_cached("INSERT INTO decisions VALUES (?1, ?2, ?3)")?.execute(params![
            id,
            based.as_ref().map(|(id, _)| *id),
            data
        ])?;
        if based.is_none() {
            self.bases.insert(device.clone(), (id, Arc::from(decision.json.as_str())));
        }
        Ok(())
    }

    fn count(&self, conn: &Connection, device: &DeviceId, day: i64) -> rusqlite::Result<u32> {
        let Some(n) = self.numbers.get(device) else { return Ok(0) };
        let from = n * DEVICE + day * DAY_MS;
        conn.prepare_cached("SELECT count(*) FROM decisions WHERE id >= ?1 AND id < ?2")?
            .query_row([from, from + DAY_MS], |row| row.get(0))
    }

    /// The newest up to a time: its id, and the row unless it is damaged.
    fn newest(
        &self,
        conn: &Connection,
        device: &DeviceId,
        at: Timestamp,
    ) -> rusqlite::Result<Option<(i64, Option<DecisionRow>)>> {
        let Some(n) = self.numbers.get(device) else { return Ok(None) };
        let found = conn
            .prepare_cached(
                "SELECT d.id, d.data, b.data, d.base FROM decisions d LEFT JOIN decisions b ON b.id = d.base
                 WHERE d.id >= ?1 AND d.id <= ?2 ORDER BY d.id DESC LIMIT 1",
            )?
            .query_row([n * DEVICE, id(*n, at)], |row| Ok((row.get(0)?, read(row)?)))
            .optional()?;
        Ok(found)
    }

    fn between(
        &self,
        conn: &Connection,
        device: &DeviceId,
        from: Timestamp,
        to: Timestamp,
        limit: usize,
    ) -> rusqlite::Result<Vec<DecisionRow>> {
        let Some(n) = self.numbers.get(device) else { return Ok(Vec::new()) };
        let mut stmt = conn.prepare_cached(
            "SELECT d.id, d.data, b.data, d.base FROM decisions d LEFT JOIN decisions b ON b.id = d.base
             WHERE d.id >= ?1 AND d.id < ?2 ORDER BY d.id LIMIT ?3",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows: rusqlite::Result<Vec<_>> = stmt.query_map([id(*n, from), id(*n, to), limit], read)?.collect();
        Ok(rows?.into_iter().flatten().collect())
    }
}

/// A decision from its columns `id, data, the base's data, base`; `None` when it is damaged.
fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<DecisionRow>> {
    let id: i64 = row.get(0)?;
    let is_based = row.get_ref(3)? != rusqlite::types::ValueRef::Null;
    let base = match row.get_ref(2)?.as_blob_or_null()? {
        // A base has no base itself.
        Some(base) => unpack(base, None).map(|(_, text)| text),
        None => None,
    };
    if is_based && base.is_none() {
        return Ok(None);
    }
    let read = unpack(row.get_ref(1)?.as_blob()?, base.as_deref());
    let at = Timestamp::from_ms(id % DEVICE);
    Ok(read.map(|(clock, json)| DecisionRow { at, clock, json, was_running: true }))
}

const fn id(number: i64, at: Timestamp) -> i64 {
    let ms = at.ms();
    number * DEVICE + if ms < DEVICE { ms } else { DEVICE - 1 }
}

impl From<&Decision> for DecisionRow {
    fn from(row: &Decision) -> Self {
        Self { at: row.at, clock: row.clock, json: row.json.clone(), was_running: true }
    }
}
