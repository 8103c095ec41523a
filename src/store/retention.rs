//! What is deleted when: by age once every uplink has it, by size in any case.

use super::decisions::{DECISIONS_KEPT, Decisions};
use super::sql::to_i64;
use super::telemetry::{ChunkHead, Telemetry, head};
use super::{StoreSettings, journal, runs};
use crate::model::{EventState, Mono, Timestamp};
use rusqlite::{Connection, params};
use std::time::Duration;

/// How often the size is looked at.
const SIZE_EVERY: Duration = Duration::from_secs(30);
/// How often the age is looked at.
const AGE_EVERY: Duration = Duration::from_secs(600);
/// How often the journal is looked through.
const JOURNAL_EVERY: Duration = Duration::from_secs(3600);
/// Chunks deleted in one transaction.
const BATCH: u32 = 64;
/// Transactions at one go by size: what a minute brings is far less.
const BATCHES: usize = 8;
/// Free pages given back to the file system at one go.
const VACUUM: u32 = 256;
/// The write-ahead log's share of the allowed size, bytes.
const LOG_BYTES: u64 = 1 << 20;

/// When each look is due.
#[derive(Debug, Default)]
pub(crate) struct Due {
    size: Mono,
    age: Mono,
    journal: Mono,
}

/// Is it told that unacknowledged samples are being lost for want of room.
#[derive(Debug, Default)]
pub(crate) struct Full(bool);

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Was anything written.
    pub(crate) wrote: bool,
    /// What to tell: `store_full` began or ended.
    pub(crate) event: Option<(String, EventState)>,
}

impl Due {
    /// Do what is due. `now`: only while the clock is to be trusted, since a wrong date must not delete by age.
    pub(crate) fn work(
        &mut self,
        conn: &Connection,
        (telemetry, decisions): (&mut Telemetry, &mut Decisions),
        full: &mut Full,
        settings: &StoreSettings,
        mono: Mono,
        now: Option<Timestamp>,
    ) -> rusqlite::Result<Done> {
        let mut done = Done::default();
        if mono >= self.size {
            self.size = mono.plus(SIZE_EVERY);
            let (deleted, lost) = by_size(conn, telemetry, decisions, settings.max_bytes)?;
            done.wrote |= deleted | vacuum(conn)?;
            telemetry.dropped += lost;
            let word = match (full.0, lost) {
                (false, 1..) => Some(("old telemetry was deleted before every uplink had it", EventState::Raised)),
                // What would go next has arrived everywhere.
                (true, 0) if telemetry.is_oldest_passed() => {
                    Some(("every uplink has again what would be deleted next", EventState::Cleared))
                }
                _ => None,
            };
            if let Some((text, state)) = word {
                full.0 = state == EventState::Raised;
                done.event = Some((format!("The store is full: {text}."), state));
                done.wrote = true;
            }
        }
        if let Some(now) = now.filter(|_| mono >= self.age) {
            self.age = mono.plus(AGE_EVERY);
            done.wrote |= by_age(conn, telemetry, now.minus(settings.retention))?;
        }
        if mono >= self.journal {
            self.journal = mono.plus(JOURNAL_EVERY);
            let lost = journal::prune(conn, now)?;
            let oldest = now.map(|now| now.minus(DECISIONS_KEPT));
            if let Some(oldest) = oldest {
                decisions.delete_before(conn, oldest)?;
            }
            runs::prune(conn, oldest)?;
            if lost > 0 {
                tracing::warn!(notices = lost, "notices that an uplink never fetched were given up");
            }
            done.wrote = true;
        }
        Ok(done)
    }
}

fn by_age(conn: &Connection, telemetry: &mut Telemetry, before: Timestamp) -> rusqlite::Result<bool> {
    let passed = to_i64(telemetry.passed_by_all());
    let mut wrote = false;
    for _ in 0..BATCHES {
        let heads = heads(
            conn,
            "SELECT first_row, last_row, count FROM chunks WHERE last_ts < ?1 AND first_row <= ?2 AND last_row <= ?2
             ORDER BY last_ts LIMIT ?3",
            params![before.ms(), passed, BATCH],
        )?;
        if heads.is_empty() {
            break;
        }
        wrote = true;
        telemetry.delete(conn, &heads)?;
    }
    Ok(wrote)
}

/// Did it delete, and how many samples that some uplink still wanted.
fn by_size(
    conn: &Connection,
    telemetry: &mut Telemetry,
    decisions: &mut Decisions,
    max_bytes: u64,
) -> rusqlite::Result<(bool, u64)> {
    let allowed = max_bytes.saturating_sub(LOG_BYTES).max(max_bytes / 2);
    let mut lost = 0;
    for batch in 0..BATCHES {
        let (pages, free, size) =
            (pragma(conn, "page_count")?, pragma(conn, "freelist_count")?, pragma(conn, "page_size")?);
        if pages.saturating_sub(free) * size <= allowed {
            return Ok((batch > 0, lost));
        }
        if decisions.is_over_share(max_bytes) && decisions.delete_oldest(conn)? {
            continue;
        }
        let heads =
            heads(conn, "SELECT first_row, last_row, count FROM chunks ORDER BY first_row LIMIT ?1", params![BATCH])?;
        if heads.is_empty() {
            if decisions.delete_oldest(conn)? {
                continue;
            }
            return Ok((batch > 0, lost));
        }
        lost += telemetry.delete(conn, &heads)?;
    }
    Ok((true, lost))
}

/// Freed pages are mostly used again by what comes next; only a file with much room in it shrinks.
fn vacuum(conn: &Connection) -> rusqlite::Result<bool> {
    let (pages, free) = (pragma(conn, "page_count")?, pragma(conn, "freelist_count")?);
    if free < u64::from(VACUUM) || free < pages / 4 {
        return Ok(false);
    }
    // One step per page.
    let mut stmt = conn.prepare(&format!("PRAGMA incremental_vacuum({VACUUM})"))?;
    let mut steps = stmt.query([])?;
    while steps.next()?.is_some() {}
    Ok(true)
}

fn pragma(conn: &Connection, name: &str) -> rusqlite::Result<u64> {
    conn.prepare_cached(&format!("PRAGMA {name}"))?.query_row([], |row| row.get::<_, i64>(0)).map(super::sql::to_u64)
}

fn heads(conn: &Connection, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<Vec<ChunkHead>> {
    conn.prepare_cached(sql)?.query_map(params, head)?.collect()
}
