//! Counting what goes to the disk, and copying the write-ahead log back into the file.
//!
//! SQLite appends each changed page to the log once per transaction, and a checkpoint copies the newest of each page into
//! the file. Both are counted exactly here: the frames of the log (asked of SQLite after each transaction) and, before
//! a checkpoint, the different pages that stand in it. What a file system and a card write beyond that (their journal,
//! blocks larger than a page) is not seen.

use super::file::with_suffix;
use crate::model::Timestamp;
use rusqlite::Connection;
use std::collections::BTreeSet;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A log of this many frames (1 MiB) is copied back. The longer it gets, the more often one page stands in it and is copied
/// back only once.
const CHECKPOINT_FRAMES: u64 = 1024;
/// Bytes before each page of the log, and before the first.
const FRAME_HEADER: u64 = 24;
const LOG_HEADER: u64 = 32;
const DAY_MS: i64 = 86_400_000;

/// The counter.
#[derive(Debug)]
pub(crate) struct Written {
    log: PathBuf,
    page: u64,
    /// Frames in the log when last asked.
    frames: u64,
    day: i64,
    today: u64,
}

impl Written {
    /// A counter for the database at `path`. `day` and `today` as kept by an earlier run.
    pub(crate) fn new(conn: &Connection, path: &Path, kept: Option<(i64, u64)>) -> rusqlite::Result<Self> {
        let page = u64::from(conn.query_row("PRAGMA page_size", [], |row| row.get::<_, u32>(0))?);
        let (day, today) = kept.unwrap_or_default();
        let mut counter = Self { log: with_suffix(path, "-wal"), page, frames: 0, day, today };
        counter.frames = counter.ask(conn)?;
        Ok(counter)
    }

    /// The day (since 1970, UTC) and the bytes written on it.
    pub(crate) fn today(&mut self, now: Timestamp) -> (i64, u64) {
        let day = now.ms() / DAY_MS;
        if day != self.day {
            (self.day, self.today) = (day, 0);
        }
        (self.day, self.today)
    }

    /// To be called after each transaction. Did it write anything.
    pub(crate) fn note(&mut self, conn: &Connection, now: Timestamp) -> rusqlite::Result<bool> {
        let frames = self.ask(conn)?;
        // After a full checkpoint the next transaction begins the log anew.
        let new = if frames >= self.frames { frames - self.frames } else { frames };
        self.frames = frames;
        self.today(now);
        self.today += new * (self.page + FRAME_HEADER);
        Ok(new > 0)
    }

    /// Copy the log back when it is long, or in any case.
    pub(crate) fn checkpoint(&mut self, conn: &Connection, now: Timestamp, always: bool) -> rusqlite::Result<()> {
        if self.frames == 0 || (!always && self.frames < CHECKPOINT_FRAMES) {
            return Ok(());
        }
        let pages = self.different_pages();
        let (busy, frames, copied): (i64, i64, i64) =
            conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        self.today(now);
        self.today += pages * self.page;
        if busy == 0 && frames == copied {
            self.frames = 0;
        }
        Ok(())
    }

    fn ask(&self, conn: &Connection) -> rusqlite::Result<u64> {
        let frames: i64 = conn.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1))?;
        Ok(u64::try_from(frames).unwrap_or_default())
    }

    /// How many different pages the log holds; all its frames when it cannot be read.
    fn different_pages(&self) -> u64 {
        let read = || -> std::io::Result<BTreeSet<[u8; 4]>> {
            let mut log = BufReader::with_capacity(64, std::fs::File::open(&self.log)?);
            let mut pages = BTreeSet::new();
            for frame in 0..self.frames {
                log.seek(SeekFrom::Start(LOG_HEADER + frame * (self.page + FRAME_HEADER)))?;
                let mut page = [0; 4];
                log.read_exact(&mut page)?;
                pages.insert(page);
            }
            Ok(pages)
        };
        read().map_or(self.frames, |pages| u64::try_from(pages.len()).unwrap_or(self.frames))
    }
}
