//! When derd was running: a mark of the last sign of life, and the gaps between one run's last and the next run's start.

use super::decisions::Gap;
use super::sql::{meta, number, set_number, to_i64};
use crate::model::{ClockState, Mono, Timestamp};
use crate::runtime::Clock;
use rusqlite::{Connection, OptionalExtension, params};
use std::time::Duration;

/// The key of the last mark, ms since 1970.
const RAN_UNTIL: &str = "ran_until";
/// The key of the first start, ms since 1970.
const RAN_FROM: &str = "ran_from";
/// A mark is made at least this often, also when there is nothing else to write.
const MARK_EVERY: Duration = Duration::from_secs(600);
/// Gaps kept at most: one every ten minutes for 30 days.
const GAPS: u32 = 4320;

/// This run and what is known of the one before.
#[derive(Debug)]
pub(crate) struct Runs {
    started: Mono,
    /// The last mark of the run before; `None`: there was none.
    before: Option<Timestamp>,
    /// The very first start of all.
    first: Option<Timestamp>,
    /// When this run made its last mark. The first needs a trusted clock, and writes down the gap.
    marked: Option<Mono>,
}

/// What a mark has changed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marked(Mono, Timestamp);

impl Runs {
    /// Read the last mark.
    pub(crate) fn open(conn: &Connection, clock: &Clock) -> rusqlite::Result<Self> {
        let time = |key| -> rusqlite::Result<_> {
            Ok(meta(conn, key)?.and_then(|text| text.parse().ok()).map(Timestamp::from_ms))
        };
        // A database of before the marks.
        let before = time(RAN_UNTIL)?.map_or_else(|| time(super::LAST_WALL_MS), |at| Ok(Some(at)))?;
        Ok(Self { started: clock.mono(), before, first: time(RAN_FROM)?, marked: None })
    }

    /// Is a mark due though there is nothing else to write.
    pub(crate) fn is_due(&self, clock: &Clock, commit_every: Duration) -> bool {
        let last = self.marked.unwrap_or(self.started);
        clock.mono().since(last) >= MARK_EVERY.max(commit_every) && clock.state() != ClockState::Untrusted
    }

    /// Make a mark, within a transaction. What is returned is to be handed to [`Self::marked`] after it. Nothing while the
    /// clock is not to be trusted.
    pub(crate) fn mark(&self, tx: &Connection, clock: &Clock) -> rusqlite::Result<Option<Marked>> {
        if clock.state() == ClockState::Untrusted {
            return Ok(None);
        }
        let start = self.start(clock);
        if self.marked.is_none() {
            if let Some(before) = self.before.filter(|before| *before < start) {
                tx.prepare_cached("INSERT OR REPLACE INTO gaps VALUES (?1, ?2)")?.execute([before.ms(), start.ms()])?;
            }
            if self.first.is_none() {
                set_number(tx, RAN_FROM, self.before.unwrap_or(start).ms().unsigned_abs())?;
            }
        }
        set_number(tx, RAN_UNTIL, clock.now().ms().unsigned_abs())?;
        Ok(Some(Marked(clock.mono(), self.first.or(self.before).unwrap_or(start))))
    }

    /// The transaction of [`Self::mark`] was good.
    pub(crate) const fn marked(&mut self, marked: Option<Marked>) {
        if let Some(Marked(at, first)) = marked {
            (self.marked, self.first) = (Some(at), Some(first));
        }
    }

    /// Go on with another database: unless the marks could be saved, what came before this run is no longer known.
    pub(crate) fn moved(&mut self, conn: &Connection) {
        self.first = number(conn, RAN_FROM).ok().filter(|ms| *ms > 0).map(|ms| Timestamp::from_ms(to_i64(ms)));
        if self.first.is_none() {
            (self.marked, self.before) = (None, None);
        }
    }

    /// The gap around a time.
    pub(crate) fn gap(&self, conn: &Connection, clock: &Clock, at: Timestamp) -> rusqlite::Result<Option<Gap>> {
        let start = self.start(clock);
        if self.marked.is_none() && at < start && self.before.is_none_or(|before| before < at) {
            return Ok(Some(Gap { from: self.before, to: start }));
        }
        if let Some(first) = self.first.filter(|first| at < *first) {
            return Ok(Some(Gap { from: None, to: first }));
        }
        conn.prepare_cached("SELECT began, ended FROM gaps WHERE began < ?1 AND ended > ?1 ORDER BY began LIMIT 1")?
            .query_row([at.ms()], |row| {
                Ok(Gap { from: Some(Timestamp::from_ms(row.get(0)?)), to: Timestamp::from_ms(row.get(1)?) })
            })
            .optional()
    }

    /// When this run began, as far as the clock knows by now.
    fn start(&self, clock: &Clock) -> Timestamp {
        clock.now().minus(clock.mono().since(self.started))
    }
}

/// Take away gaps that are too old or too many.
pub(crate) fn prune(conn: &Connection, before: Option<Timestamp>) -> rusqlite::Result<bool> {
    let gone = conn.execute(
        "DELETE FROM gaps WHERE ended < ?1 OR began <= (SELECT began FROM gaps ORDER BY began DESC LIMIT 1 OFFSET ?2)",
        params![before.map_or(0, Timestamp::ms), GAPS],
    )?;
    Ok(gone > 0)
}
