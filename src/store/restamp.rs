//! Samples that were taken before the clock could be trusted get their right time once it can: their distance on the
//! monotonic clock is known. Only those of this run of derd; earlier runs had another monotonic clock.
//!
//! The work is done in small pieces, and goes on after a restart from what is kept under [`KEY`].

use super::blob;
use super::sql::{meta, set_meta, to_i64, to_u64};
use super::telemetry::read_chunk;
use crate::model::{BootId, ClockState, Mono, Sample, Stored, Timestamp};
use rusqlite::{Connection, params};
use std::sync::Arc;

/// The key in `meta` of the work under way: `boot wall mono row`.
const KEY: &str = "restamp";
/// Chunks looked at in one transaction.
const PIECE: u32 = 32;

/// One instant on both clocks, with the wall clock trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Anchor {
    boot: BootId,
    wall: Timestamp,
    mono: Mono,
    /// Chunks below this row are done.
    row: u64,
}

impl Anchor {
    /// The time at which a sample of this run was really taken.
    fn time_of(&self, mono: Mono) -> Timestamp {
        if mono > self.mono { self.wall.plus(mono.since(self.mono)) } else { self.wall.minus(self.mono.since(mono)) }
    }

    /// The sample with its right time; `None` when it needs none.
    fn right(&self, stored: &Stored) -> Option<Stored> {
        let old = &*stored.sample;
        if old.clock != ClockState::Untrusted || old.boot != self.boot {
            return None;
        }
        // Known by way of the monotonic clock: that is what holdover means.
        let sample = Sample { ts: self.time_of(old.mono), clock: ClockState::Holdover, ..old.clone() };
        Some(Stored { row: stored.row, sample: Arc::new(sample) })
    }

    fn words(&self) -> String {
        format!("{} {} {} {}", self.boot.as_str(), self.wall.ms(), self.mono.ms(), self.row)
    }

    fn parse(words: &str) -> Option<Self> {
        let mut words = words.split(' ');
        let boot = BootId::new(words.next()?).ok()?;
        let wall = Timestamp::from_ms(words.next()?.parse().ok()?);
        let mono = Mono::from_ms(words.next()?.parse().ok()?);
        Some(Self { boot, wall, mono, row: words.next()?.parse().ok()? })
    }
}

/// Where the work stands.
#[derive(Debug, Default)]
pub(crate) struct Restamp {
    /// The first sample that nobody vouches for: its run and row.
    waiting: Option<(BootId, u64)>,
    /// What this run's samples are reckoned from, once known.
    anchor: Option<Anchor>,
    /// The pieces still to be done, of this run or of one that was cut short.
    work: Option<Anchor>,
    done: u64,
}

impl Restamp {
    /// Go on with what an earlier run has begun.
    pub(crate) fn open(conn: &Connection) -> rusqlite::Result<Self> {
        let work = meta(conn, KEY)?.and_then(|words| Anchor::parse(&words));
        Ok(Self { work, ..Self::default() })
    }

    /// A sample on its way into memory.
    pub(crate) fn take(&mut self, stored: Stored) -> Stored {
        if stored.sample.clock != ClockState::Untrusted {
            return stored;
        }
        // It was taken before the clock was right and came after.
        let anchor = self.anchor.as_ref().filter(|a| stored.sample.mono <= a.mono);
        if let Some(right) = anchor.and_then(|a| a.right(&stored)) {
            return right;
        }
        self.waiting.get_or_insert_with(|| (stored.sample.boot.clone(), stored.row.0));
        stored
    }

    /// The clock can be trusted from now on. `pending` are the samples in memory.
    pub(crate) fn trusted<'a>(&mut self, wall: Timestamp, mono: Mono, pending: impl Iterator<Item = &'a mut Stored>) {
        let Some((boot, row)) = self.waiting.take() else { return };
        let anchor = Anchor { boot, wall, mono, row };
        for stored in pending {
            if let Some(right) = anchor.right(stored) {
                *stored = right;
                self.done += 1;
            }
        }
        self.work = Some(anchor.clone());
        self.anchor = Some(anchor);
    }

    /// Are there samples that wait for a clock that can be trusted.
    pub(crate) const fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Is there a piece to be done.
    pub(crate) const fn is_due(&self) -> bool {
        self.work.is_some()
    }

    /// Do one piece. Returns how many samples were re-stamped in all, when it was the last.
    pub(crate) fn step(&mut self, conn: &Connection) -> rusqlite::Result<Option<u64>> {
        let Some(work) = &self.work else { return Ok(None) };
        let tx = conn.unchecked_transaction()?;
        let mut changed = 0;
        let mut next = None;
        {
            let mut stmt = tx.prepare_cached(
                "SELECT first_row, device, boot, data FROM chunks WHERE first_row >= ?1 ORDER BY first_row LIMIT ?2",
            )?;
            let mut rows = stmt.query(params![to_i64(work.row), PIECE])?;
            let mut seen = 0;
            while let Some(row) = rows.next()? {
                seen += 1;
                let first: i64 = row.get(0)?;
                next = (seen == PIECE).then(|| to_u64(first) + 1);
                if row.get_ref(2)?.as_str().is_ok_and(|boot| boot == work.boot.as_str()) {
                    changed += rewrite(&tx, work, first, row)?;
                }
            }
        }
        let after = next.map(|row| Anchor { row, ..work.clone() });
        set_meta(&tx, KEY, &after.as_ref().map_or_else(String::new, Anchor::words))?;
        tx.commit()?;
        self.done += changed;
        self.work = after;
        Ok(if self.work.is_none() { Some(std::mem::take(&mut self.done)) } else { None })
    }
}

/// Give a chunk's samples their right time. How many.
fn rewrite(conn: &Connection, anchor: &Anchor, first: i64, row: &rusqlite::Row<'_>) -> rusqlite::Result<u64> {
    // What is damaged is found and counted by whoever reads it.
    let Some(samples) = read_chunk(row, 1)? else { return Ok(0) };
    let mut changed = 0;
    let samples: Vec<Stored> = samples
        .into_iter()
        .map(|stored| match anchor.right(&stored) {
            Some(right) => {
                changed += 1;
                right
            }
            None => stored,
        })
        .collect();
    let times = samples.iter().map(|s| s.sample.ts);
    if let (1.., Some(from), Some(to)) = (changed, times.clone().min(), times.max()) {
        let refs: Vec<&Stored> = samples.iter().collect();
        conn.prepare_cached("UPDATE chunks SET first_ts = ?2, last_ts = ?3, data = ?4 WHERE first_row = ?1")?
            .execute(params![first, from.ms(), to.ms(), blob::encode(&refs)])?;
    }
    Ok(changed)
}
