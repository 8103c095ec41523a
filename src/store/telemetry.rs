//! Samples on their way to the disk, on it, and from it to the uplinks.

use super::blob::{self, MAX_FIELDS, MAX_ROWS};
use super::handle::BacklogPage;
use super::ranges::RangeSet;
use super::sql::{number, read_id, set_number, to_i64, to_u64};
use crate::model::{BootId, DeviceId, RowNo, Stored, Timestamp, UplinkName};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Samples that memory holds at most while the disk does not take them; then the oldest are dropped and counted.
pub(crate) const RING: usize = 3600;
/// Rows from the first to the last of a chunk: how far back a search for a row must look.
const SPAN: u64 = 2048;
/// Time from the first to the last sample of a chunk, ms: the same for a search by time.
pub(crate) const SPAN_MS: i64 = 3_600_000;
/// Samples with more points than this are nonsense and dropped.
const MAX_POINTS: usize = 4096;

/// What one uplink has acknowledged.
#[derive(Debug, Default)]
struct Cursor {
    acked: RangeSet,
    /// As it stands on the disk.
    saved: Vec<u8>,
}

/// A chunk without its samples.
#[derive(Debug)]
pub(crate) struct ChunkHead {
    pub(crate) first_row: u64,
    pub(crate) last_row: u64,
    pub(crate) count: u64,
}

/// Telemetry: what is in memory and what is known of the disk.
#[derive(Debug)]
pub(crate) struct Telemetry {
    /// Not yet on disk, as they came.
    pending: VecDeque<Stored>,
    cursors: BTreeMap<UplinkName, Cursor>,
    /// The greatest row ever committed.
    last_row: u64,
    /// The smallest row on disk.
    first_row: Option<u64>,
    /// Samples on disk.
    rows: u64,
    /// Samples lost by this room since start.
    pub(crate) dropped: u64,
}

impl Telemetry {
    /// Read the cursors and counters. An uplink without a cursor starts at the present end.
    pub(crate) fn open(conn: &Connection, uplinks: &[UplinkName]) -> rusqlite::Result<Self> {
        let greatest: Option<i64> = conn.query_row(
            "SELECT max(last_row) FROM (SELECT last_row FROM chunks ORDER BY first_row DESC LIMIT 64)",
            [],
            |r| r.get(0),
        )?;
        let last_row = number(conn, "last_row")?.max(greatest.map_or(0, to_u64));
        let mut tele = Self {
            pending: VecDeque::new(),
            cursors: BTreeMap::new(),
            last_row,
            first_row: None,
            rows: number(conn, "rows")?,
            dropped: 0,
        };
        for uplink in uplinks {
            let saved: Option<Vec<u8>> = conn
                .query_row("SELECT acked FROM cursors WHERE uplink = ?1", [uplink.as_str()], |r| r.get(0))
                .optional()?;
            let saved = saved.unwrap_or_default();
            // A cursor that cannot be read begins where nothing is acknowledged: rather twice than never.
            let acked = if saved.is_empty() {
                RangeSet::up_to(last_row)
            } else {
                RangeSet::from_bytes(&saved).unwrap_or_default().clipped(last_row)
            };
            tele.cursors.insert(uplink.clone(), Cursor { acked, saved });
        }
        tele.find_first(conn)?;
        Ok(tele)
    }

    /// Begin on another, empty database: what is in memory stays, rows go on, nothing is held back.
    pub(crate) fn moved(&mut self) {
        self.dropped += self.cursors.values().map(|c| self.unacked_on_disk(c)).max().unwrap_or_default();
        (self.first_row, self.rows) = (None, 0);
        let last = self.last_row;
        self.forget(|acked| acked.insert(0, last));
        for cursor in self.cursors.values_mut() {
            cursor.saved.clear();
        }
    }

    /// The greatest row on disk.
    pub(crate) const fn last_row(&self) -> u64 {
        self.last_row
    }

    /// Samples kept, on disk and in memory.
    pub(crate) fn rows(&self) -> u64 {
        self.rows + u64::try_from(self.pending.len()).unwrap_or_default()
    }

    /// Samples in memory.
    pub(crate) fn pending(&self) -> &VecDeque<Stored> {
        &self.pending
    }

    /// The same, to correct their times.
    pub(crate) fn pending_mut(&mut self) -> impl Iterator<Item = &mut Stored> {
        self.pending.iter_mut()
    }

    /// Take a sample.
    pub(crate) fn take(&mut self, stored: Stored) {
        if stored.sample.points.len() > MAX_POINTS {
            self.dropped += 1;
            return;
        }
        if stored.row.0 <= self.last_row {
            // It lost a race to the queue and was taken for missing.
            for cursor in self.cursors.values_mut() {
                cursor.acked.remove(stored.row.0);
            }
        }
        self.pending.push_back(stored);
        while self.pending.len() > RING {
            let Some(lost) = self.pending.pop_front() else { break };
            self.dropped += 1;
            if lost.row.0 <= self.last_row {
                self.forget(|acked| acked.insert(lost.row.0, lost.row.0));
            }
        }
    }

    /// These rows have arrived at the other side.
    pub(crate) fn acked(&mut self, uplink: &UplinkName, rows: &[RowNo]) {
        if let Some(cursor) = self.cursors.get_mut(uplink) {
            for row in rows {
                cursor.acked.insert(row.0, row.0);
            }
        }
    }

    /// Is there anything that the disk does not have.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.pending.is_empty() || self.cursors.values().any(|c| c.saved != c.acked.clipped(self.last_row).to_bytes())
    }

    /// Write everything in memory and the cursors in one transaction; `extra` goes with it. On an error nothing has changed.
    pub(crate) fn commit(
        &mut self,
        conn: &Connection,
        extra: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let mut batch: Vec<&Stored> = self.pending.iter().collect();
        batch.sort_by_key(|s| s.row);
        let last_row = batch.last().map_or(0, |s| s.row.0).max(self.last_row);
        let rows = self.rows + u64::try_from(batch.len()).unwrap_or_default();
        // Rows that did not come: they will not, or see `take`.
        let mut missing = Vec::new();
        let mut next = self.last_row + 1;
        for row in batch.iter().map(|s| s.row.0).filter(|row| *row > self.last_row) {
            missing.push((next, row - 1));
            next = row + 1;
        }
        let tx = conn.unchecked_transaction()?;
        for chunk in chunks(&batch) {
            insert(&tx, &chunk)?;
        }
        let mut cursors = Vec::new();
        for (uplink, cursor) in &self.cursors {
            let mut acked = cursor.acked.clone();
            missing.iter().for_each(|&(first, last)| acked.insert(first, last));
            let bytes = save_cursor(&tx, uplink, &acked.clipped(last_row), &cursor.saved)?;
            cursors.push((acked, bytes));
        }
        set_number(&tx, "last_row", last_row)?;
        set_number(&tx, "rows", rows)?;
        extra(&tx)?;
        tx.commit()?;
        for (cursor, (acked, saved)) in self.cursors.values_mut().zip(cursors) {
            *cursor = Cursor { acked, saved };
        }
        self.pending.clear();
        // A burst while the disk was away leaves no large buffer behind.
        self.pending.shrink_to(64);
        (self.last_row, self.rows) = (last_row, rows);
        if self.first_row.is_none() {
            self.find_first(conn)?;
        }
        Ok(())
    }

    /// The oldest samples below `below` that this uplink has not acknowledged.
    pub(crate) fn backlog(
        &mut self,
        conn: &Connection,
        uplink: &UplinkName,
        below: u64,
        limit: usize,
    ) -> rusqlite::Result<BacklogPage> {
        let Some(cursor) = self.cursors.get(uplink) else { return Ok(BacklogPage { samples: vec![], is_last: true }) };
        let acked = &cursor.acked;
        let mut found: Vec<Stored> = Vec::new();
        let mut damaged = Vec::new();
        let mut from = acked.next_missing(self.first_row.unwrap_or(u64::MAX));
        let mut seen = i64::MIN;
        let mut stmt = conn.prepare_cached(
            "SELECT first_row, last_row, device, boot, data FROM chunks
             WHERE first_row > max(?1, ?2) AND last_row >= ?3 AND first_row < ?4 ORDER BY first_row LIMIT 16",
        )?;
        'search: while from < below && from <= self.last_row {
            let mut rows = stmt.query(params![seen, to_i64(from.saturating_sub(SPAN)), to_i64(from), to_i64(below)])?;
            let mut any = false;
            while let Some(row) = rows.next()? {
                any = true;
                let (first, last): (i64, i64) = (row.get(0)?, row.get(1)?);
                if found.len() > limit && found.get(limit).is_some_and(|s| s.row.0 < to_u64(first)) {
                    break 'search;
                }
                seen = first;
                let next = acked.next_missing(to_u64(first));
                if next > to_u64(last) {
                    from = from.max(next);
                    if next > to_u64(last) + SPAN {
                        // A long acknowledged stretch: search again behind it.
                        continue 'search;
                    }
                    continue;
                }
                match read_chunk(row, 2)? {
                    Some(samples) => {
                        found.extend(samples.into_iter().filter(|s| s.row.0 < below && !acked.contains(s.row.0)));
                        found.sort_by_key(|s| s.row);
                        found.truncate(limit.saturating_add(1));
                    }
                    None => damaged.push(first),
                }
            }
            if !any {
                break;
            }
        }
        drop(stmt);
        found.extend(self.pending.iter().filter(|s| s.row.0 < below && !acked.contains(s.row.0)).cloned());
        found.sort_by_key(|s| s.row);
        let is_last = found.len() <= limit;
        found.truncate(limit);
        for chunk in damaged {
            self.discard(conn, chunk)?;
        }
        Ok(BacklogPage { samples: found, is_last })
    }

    /// How many samples this uplink has not acknowledged, and the time of the oldest, by its chunk.
    pub(crate) fn backlog_size(
        &self,
        conn: &Connection,
        uplink: &UplinkName,
    ) -> rusqlite::Result<(u64, Option<Timestamp>)> {
        let Some(cursor) = self.cursors.get(uplink) else { return Ok((0, None)) };
        let on_disk = self.unacked_on_disk(cursor);
        let mut waiting = self.pending.iter().filter(|s| !cursor.acked.contains(s.row.0));
        let first_waiting = waiting.next().map(|s| s.sample.ts);
        let in_memory = u64::from(first_waiting.is_some()) + u64::try_from(waiting.count()).unwrap_or_default();
        let oldest = if on_disk > 0 {
            let row = cursor.acked.next_missing(self.first_row.unwrap_or_default());
            conn.prepare_cached(
                "SELECT first_ts FROM chunks WHERE first_row > ?1 AND last_row >= ?2 ORDER BY first_row LIMIT 1",
            )?
            .query_row([to_i64(row.saturating_sub(SPAN)), to_i64(row)], |r| r.get(0))
            .optional()?
            .map(Timestamp::from_ms)
        } else {
            first_waiting
        };
        Ok((on_disk + in_memory, oldest))
    }

    fn unacked_on_disk(&self, cursor: &Cursor) -> u64 {
        let Some(first) = self.first_row else { return 0 };
        let late = self.pending.iter().filter(|s| s.row.0 <= self.last_row && !cursor.acked.contains(s.row.0)).count();
        cursor.acked.count_missing(first, self.last_row).saturating_sub(u64::try_from(late).unwrap_or_default())
    }

    /// Every row up to this one has passed every cursor.
    pub(crate) fn passed_by_all(&self) -> u64 {
        self.cursors.values().map(|c| c.acked.contiguous() - 1).min().unwrap_or(u64::MAX)
    }

    /// Has every uplink the oldest row on disk.
    pub(crate) fn is_oldest_passed(&self) -> bool {
        self.first_row.is_none_or(|first| first <= self.passed_by_all())
    }

    /// Time of the oldest sample on disk, else in memory.
    pub(crate) fn oldest(&self, conn: &Connection) -> rusqlite::Result<Option<Timestamp>> {
        let on_disk: Option<i64> = conn
            .prepare_cached("SELECT first_ts FROM chunks ORDER BY first_row LIMIT 1")?
            .query_row([], |row| row.get(0))
            .optional()?;
        Ok(on_disk.map(Timestamp::from_ms).or_else(|| self.pending.front().map(|s| s.sample.ts)))
    }

    /// Delete chunks, with the cursors in the same transaction. Returns how many of their samples some uplink still wanted.
    pub(crate) fn delete(&mut self, conn: &Connection, heads: &[ChunkHead]) -> rusqlite::Result<u64> {
        let tx = conn.unchecked_transaction()?;
        let mut gone = Vec::new();
        let mut count = 0;
        for head in heads {
            let key = to_i64(head.first_row);
            if self.cursors.values().any(|c| !c.acked.covers(head.first_row, head.last_row)) {
                let data: Vec<u8> = tx
                    .prepare_cached("SELECT data FROM chunks WHERE first_row = ?1")?
                    .query_row([key], |row| row.get(0))?;
                match blob::rows(&data) {
                    Some(rows) => gone.extend(rows),
                    None => gone.extend(exclusive_rows(&tx, head)?),
                }
            }
            tx.prepare_cached("DELETE FROM chunks WHERE first_row = ?1")?.execute([key])?;
            count += head.count;
        }
        let first: Option<i64> = tx.query_row("SELECT min(first_row) FROM chunks", [], |r| r.get(0))?;
        let lost = gone.iter().filter(|row| self.cursors.values().any(|c| !c.acked.contains(**row))).count();
        let below = first.map_or(self.last_row, |first| to_u64(first).saturating_sub(1));
        let mut before: Vec<RangeSet> = self.cursors.values().map(|c| c.acked.clone()).collect();
        self.forget(|acked| {
            gone.iter().for_each(|row| acked.insert(*row, *row));
            acked.insert(0, below);
        });
        let rows = self.rows.saturating_sub(count);
        let written = (|| {
            let mut saved = Vec::new();
            for (uplink, cursor) in &self.cursors {
                saved.push(save_cursor(&tx, uplink, &cursor.acked.clipped(self.last_row), &cursor.saved)?);
            }
            set_number(&tx, "rows", rows)?;
            tx.commit()?;
            Ok(saved)
        })();
        match written {
            Ok(saved) => {
                for (cursor, saved) in self.cursors.values_mut().zip(saved) {
                    cursor.saved = saved;
                }
                self.rows = rows;
                self.first_row = first.map(to_u64);
                Ok(u64::try_from(lost).unwrap_or_default())
            }
            Err(error) => {
                for (cursor, acked) in self.cursors.values_mut().zip(before.drain(..)) {
                    cursor.acked = acked;
                }
                Err(error)
            }
        }
    }

    /// Change every cursor, but leave samples in memory as they are.
    fn forget(&mut self, change: impl Fn(&mut RangeSet)) {
        for cursor in self.cursors.values_mut() {
            let wanted: Vec<u64> =
                self.pending.iter().map(|s| s.row.0).filter(|row| !cursor.acked.contains(*row)).collect();
            change(&mut cursor.acked);
            wanted.iter().for_each(|row| cursor.acked.remove(*row));
        }
    }

    /// A chunk turned out to be damaged: it goes, and its samples are lost.
    pub(crate) fn discard(&mut self, conn: &Connection, first_row: i64) -> rusqlite::Result<()> {
        let head = conn
            .query_row("SELECT first_row, last_row, count FROM chunks WHERE first_row = ?1", [first_row], head)
            .optional()?;
        if let Some(head) = head {
            tracing::warn!(first_row, samples = head.count, "a damaged piece of stored telemetry was dropped");
            self.dropped += head.count;
            self.delete(conn, &[head])?;
        }
        Ok(())
    }

    fn find_first(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let first: Option<i64> = conn.query_row("SELECT min(first_row) FROM chunks", [], |r| r.get(0))?;
        self.first_row = first.map(to_u64);
        let below = self.first_row.map_or(self.last_row, |first| first.saturating_sub(1));
        self.forget(|acked| acked.insert(0, below));
        Ok(())
    }
}

/// A chunk's head from its columns `first_row, last_row, count`.
pub(crate) fn head(row: &rusqlite::Row<'_>) -> rusqlite::Result<ChunkHead> {
    Ok(ChunkHead { first_row: to_u64(row.get(0)?), last_row: to_u64(row.get(1)?), count: to_u64(row.get(2)?) })
}

/// A chunk's samples from its columns `device, boot, data`, the first of which is `at`; `None` when they are damaged.
pub(crate) fn read_chunk(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Option<Vec<Stored>>> {
    let device: Option<DeviceId> = read_id(row, at)?;
    let boot = BootId::new(&row.get::<_, String>(at + 1)?).ok();
    let data = row.get_ref(at + 2)?.as_blob()?;
    Ok(device.zip(boot).and_then(|(device, boot)| blob::decode(&device, &boot, data)))
}

/// The rows of a chunk that cannot be read: those of its span that stand in no other.
fn exclusive_rows(conn: &Connection, head: &ChunkHead) -> rusqlite::Result<Vec<u64>> {
    let mut others = RangeSet::default();
    let mut stmt =
        conn.prepare("SELECT data FROM chunks WHERE first_row > ?1 AND first_row <= ?2 AND first_row <> ?3")?;
    let from = to_i64(head.first_row.saturating_sub(SPAN));
    let mut rows = stmt.query([from, to_i64(head.last_row), to_i64(head.first_row)])?;
    while let Some(row) = rows.next()? {
        for n in blob::rows(row.get_ref(0)?.as_blob()?).unwrap_or_default() {
            others.insert(n, n);
        }
    }
    Ok((head.first_row..=head.last_row.min(head.first_row + SPAN)).filter(|n| !others.contains(*n)).collect())
}

fn save_cursor(conn: &Connection, uplink: &UplinkName, acked: &RangeSet, saved: &[u8]) -> rusqlite::Result<Vec<u8>> {
    let bytes = acked.to_bytes();
    if bytes != saved {
        conn.prepare_cached("INSERT OR REPLACE INTO cursors VALUES (?1, ?2)")?
            .execute(params![uplink.as_str(), bytes])?;
    }
    Ok(bytes)
}

/// Cut samples, by row, into chunks: one device and boot, time not running back, nothing longer than a search looks.
fn chunks<'a>(batch: &[&'a Stored]) -> Vec<Vec<&'a Stored>> {
    let mut done = Vec::new();
    let mut open: BTreeMap<(&DeviceId, &str), (Vec<&Stored>, usize)> = BTreeMap::new();
    let span = Duration::from_millis(SPAN_MS.unsigned_abs());
    for &stored in batch {
        let (chunk, fields) = open.entry((&stored.sample.device, stored.sample.boot.as_str())).or_default();
        let full = chunk.first().zip(chunk.last()).is_some_and(|(first, last)| {
            stored.row.0 - first.row.0 >= SPAN
                || stored.sample.ts < last.sample.ts
                || stored.sample.ts.since(first.sample.ts) >= span
        });
        if full || chunk.len() >= MAX_ROWS || *fields + stored.sample.points.len() > MAX_FIELDS {
            done.push(std::mem::take(chunk));
            *fields = 0;
        }
        chunk.push(stored);
        *fields += stored.sample.points.len();
    }
    done.extend(open.into_values().map(|(chunk, _)| chunk));
    done.sort_by_key(|chunk| chunk.first().map(|s| s.row));
    done
}

fn insert(conn: &Connection, chunk: &[&Stored]) -> rusqlite::Result<()> {
    let (Some(first), Some(last)) = (chunk.first(), chunk.last()) else { return Ok(()) };
    let seqs = || chunk.iter().map(|s| s.sample.seq);
    conn.prepare_cached("INSERT OR REPLACE INTO chunks VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?.execute(
        params![
            to_i64(first.row.0),
            to_i64(last.row.0),
            first.sample.device.as_str(),
            first.sample.boot.as_str(),
            first.sample.ts.ms(),
            last.sample.ts.ms(),
            to_i64(seqs().min().unwrap_or_default()),
            to_i64(seqs().max().unwrap_or_default()),
            i64::try_from(chunk.len()).unwrap_or_default(),
            blob::encode(chunk),
        ],
    )?;
    Ok(())
}
