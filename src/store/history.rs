//! Answering a history query in small steps, so that nobody waits long behind it.

use super::handle::{HistoryQuery, HistoryRow};
use super::sql::to_i64;
use super::telemetry::{SPAN_MS, Telemetry, read_chunk};
use crate::model::{Point, Stored, Timestamp, Value};
use rusqlite::{Connection, params};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Chunks read in one step: some 2,000 samples.
const CHUNKS: usize = 32;

/// A query under way.
#[derive(Debug)]
pub(crate) struct HistoryJob {
    query: HistoryQuery,
    /// The last chunk read: its end and first row.
    at: (i64, i64),
    found: Found,
}

#[derive(Debug)]
enum Found {
    Raw(Vec<HistoryRow>),
    Steps { ms: i64, values: BTreeMap<(i64, Point), Mean> },
}

/// A value over a step.
#[derive(Debug, Default)]
struct Mean {
    sum: f64,
    count: u32,
    last: Option<(Timestamp, Value)>,
}

impl HistoryJob {
    /// Begin.
    pub(crate) fn new(query: HistoryQuery) -> Self {
        let found = match query.step {
            None => Found::Raw(Vec::new()),
            Some(step) => {
                let ms = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
                Found::Steps { ms, values: BTreeMap::new() }
            }
        };
        Self { at: (query.from.ms(), i64::MIN), query, found }
    }

    /// Read on; `Some` is the answer.
    pub(crate) fn step(
        &mut self,
        conn: &Connection,
        telemetry: &Telemetry,
    ) -> rusqlite::Result<Option<Vec<HistoryRow>>> {
        let mut stmt = conn.prepare_cached(
            "SELECT last_ts, first_row, first_ts, device, boot, data FROM chunks
             WHERE device = ?1 AND last_ts >= ?2 AND (last_ts > ?2 OR first_row > ?3) AND last_ts < ?4
             ORDER BY last_ts, device, first_row LIMIT ?5",
        )?;
        let end = self.query.to.ms().saturating_add(SPAN_MS);
        let mut rows =
            stmt.query(params![self.query.device.as_str(), self.at.0, self.at.1, end, to_i64(CHUNKS as u64)])?;
        let mut read = 0;
        while let Some(row) = rows.next()? {
            read += 1;
            self.at = (row.get(0)?, row.get(1)?);
            let first: i64 = row.get(2)?;
            if first >= self.query.to.ms() {
                continue;
            }
            if self.is_full(Timestamp::from_ms(first)) {
                return Ok(Some(self.finish()));
            }
            // A damaged chunk is dropped by whoever has to hand it to an uplink; here it is left out.
            for stored in read_chunk(row, 3)?.unwrap_or_default() {
                self.add(&stored);
            }
        }
        if read == CHUNKS {
            return Ok(None);
        }
        for stored in telemetry.pending() {
            self.add(stored);
        }
        Ok(Some(self.finish()))
    }

    fn add(&mut self, stored: &Stored) {
        let sample = &*stored.sample;
        let query = &self.query;
        if sample.device != query.device || sample.ts < query.from || sample.ts >= query.to {
            return;
        }
        for (point, field) in &sample.points {
            if !query.points.is_empty() && !query.points.contains(point) {
                continue;
            }
            match &mut self.found {
                Found::Raw(rows) => {
                    rows.push(HistoryRow { ts: sample.ts, point: point.clone(), value: field.clone().ok() });
                }
                Found::Steps { ms, values } => {
                    let begin = sample.ts.ms() / *ms * *ms;
                    let mean = match values.entry((begin, point.clone())) {
                        Entry::Occupied(entry) => entry.into_mut(),
                        Entry::Vacant(entry) => entry.insert(Mean::default()),
                    };
                    if let Ok(value) = field {
                        mean.add(sample.ts, value);
                    }
                }
            }
        }
    }

    /// Are there rows enough, none of which can be pushed out by what begins at `next`.
    fn is_full(&mut self, next: Timestamp) -> bool {
        let limit = self.query.limit;
        match &mut self.found {
            Found::Raw(rows) => {
                if rows.len() > limit.saturating_mul(2).max(4096) {
                    rows.sort_by_key(|row| row.ts);
                    rows.truncate(limit);
                }
                rows.len() >= limit && rows.iter().all(|row| row.ts <= next)
            }
            // The first row too many is only a measure once its whole step lies behind.
            Found::Steps { ms, values } => {
                values.keys().nth(limit).is_some_and(|(begin, _)| begin.saturating_add(*ms) <= next.ms())
            }
        }
    }

    fn finish(&mut self) -> Vec<HistoryRow> {
        let mut rows = match &mut self.found {
            Found::Raw(rows) => std::mem::take(rows),
            Found::Steps { values, .. } => std::mem::take(values)
                .into_iter()
                .map(|((begin, point), mean)| {
                    let value = mean.value(&point);
                    HistoryRow { ts: Timestamp::from_ms(begin), point, value }
                })
                .collect(),
        };
        rows.sort_by_key(|row| row.ts);
        rows.truncate(self.query.limit);
        rows
    }
}

impl Mean {
    fn add(&mut self, ts: Timestamp, value: &Value) {
        if let Value::Num(n) = value {
            self.sum += n;
            self.count += 1;
        }
        if self.last.as_ref().is_none_or(|(last, _)| *last <= ts) {
            self.last = Some((ts, value.clone()));
        }
    }

    /// The mean of numbers; of counters, texts and flags the last.
    fn value(self, point: &Point) -> Option<Value> {
        match self.last {
            Some((_, Value::Num(_))) if !point.is_counter() => Some(Value::Num(self.sum / f64::from(self.count))),
            last => last.map(|(_, value)| value),
        }
    }
}
