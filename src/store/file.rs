//! Opening the file: whatever lies there, a good database stands there afterwards.

use super::StoreError;
use crate::model::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Each file brings a database from the version of its place in this list to the next. A released file is never changed.
const MIGRATIONS: [&str; 2] = [include_str!("migrations/001.sql"), include_str!("migrations/002.sql")];
/// Small tables first: they matter most, and are checked in full. With each the version that brought it.
const CHECKED: [(usize, &str); 13] = [
    (1, "meta"),
    (1, "held"),
    (1, "baselines"),
    (1, "plans"),
    (1, "cursors"),
    (1, "commands"),
    (1, "outbox"),
    (1, "notices"),
    (1, "events"),
    (2, "decided_devices"),
    (2, "gaps"),
    (2, "decisions"),
    (1, "chunks"),
];
/// What is copied out of a damaged file.
const SALVAGED: [&str; 8] = ["held", "baselines", "plans", "commands", "meta", "decided_devices", "gaps", "decisions"];
/// The check takes no longer than this at start; what it has not seen by then is checked when it is read.
const CHECK_TIME: Duration = Duration::from_millis(1000);
/// Small pages: a minute of telemetry fills only a few, and each touched page is written whole.
const PAGE_BYTES: u32 = 1024;

/// A database that was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The connection.
    pub(crate) conn: Connection,
    /// What became of a damaged file.
    pub(crate) set_aside: Option<SetAside>,
}

/// A damaged file.
#[derive(Debug)]
pub(crate) struct SetAside {
    /// Its new name.
    pub(crate) path: PathBuf,
    /// What was wrong.
    pub(crate) reason: String,
    /// Entries (all but telemetry, events and notices) that could still be read from it.
    pub(crate) saved: usize,
}

/// Why a file is not used as it is.
enum Fault {
    /// It is no good: set it aside.
    Damaged(String),
    /// The file is not the trouble.
    Other(StoreError),
}

/// Open the database at `path`, making it where there is none and setting it aside where it is damaged or comes from a
/// newer version.
///
/// # Errors
/// The folder is not there or not writable, the disk is full, or another process has it open.
pub(crate) fn open(path: &Path, now: Timestamp) -> Result<Opened, StoreError> {
    match open_good(path) {
        Ok(conn) => Ok(Opened { conn, set_aside: None }),
        Err(Fault::Other(error)) => Err(error),
        Err(Fault::Damaged(reason)) => replace(path, now, reason),
    }
}

/// Set the database at `path` aside, open a new one, and take over what can still be read of the old.
///
/// # Errors
/// As [`open`].
pub(crate) fn replace(path: &Path, now: Timestamp, reason: String) -> Result<Opened, StoreError> {
    let aside = set_aside(path, now)?;
    let conn = match open_good(path) {
        Ok(conn) => conn,
        Err(Fault::Other(error)) => return Err(error),
        Err(Fault::Damaged(reason)) => {
            return Err(StoreError::Sqlite { attempt: "making a new database", reason });
        }
    };
    // Whatever stops this, the new database is good.
    let saved = salvage(&conn, &aside).unwrap_or_default();
    Ok(Opened { conn, set_aside: Some(SetAside { path: aside, reason, saved }) })
}

/// Copy what must not be forgotten (what devices hold, their baselines, plans, known commands) as far as it can be read.
fn salvage(conn: &Connection, aside: &Path) -> rusqlite::Result<usize> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let old = Connection::open_with_flags(aside, flags)?;
    // Without this SQLite reads nothing of a file that is shorter than its header says.
    old.execute_batch("PRAGMA writable_schema = ON; PRAGMA trusted_schema = OFF; PRAGMA wal_autocheckpoint = 0;")?;
    // Of an older version too: a table it does not have, or has otherwise, ends with an error of its own.
    if !(1..=MIGRATIONS.len()).contains(&version(&old)?) {
        return Ok(0);
    }
    let tx = conn.unchecked_transaction()?;
    let mut saved = 0;
    for table in SALVAGED {
        // An error ends this table, not the others.
        saved += salvage_table(&tx, &old, table).unwrap_or_default();
    }
    tx.execute("UPDATE meta SET value = '0' WHERE key = 'rows'", [])?;
    tx.commit()?;
    Ok(saved)
}

fn salvage_table(tx: &Connection, old: &Connection, table: &str) -> rusqlite::Result<usize> {
    let mut select = old.prepare(&format!("SELECT * FROM {table}"))?;
    let columns = select.column_count();
    let places = vec!["?"; columns].join(", ");
    let mut insert = tx.prepare(&format!("INSERT OR IGNORE INTO {table} VALUES ({places})"))?;
    let mut rows = select.query([])?;
    let mut saved = 0;
    while let Ok(Some(row)) = rows.next() {
        let values: rusqlite::Result<Vec<rusqlite::types::Value>> = (0..columns).map(|at| row.get(at)).collect();
        // A row of wrong types or breaking a rule is left behind.
        let inserted = values.and_then(|values| insert.execute(rusqlite::params_from_iter(values)));
        saved += inserted.unwrap_or_default();
    }
    Ok(saved)
}

/// Rename a database and its companions. Returns the database's new name.
///
/// # Errors
/// The folder is not writable.
fn set_aside(path: &Path, now: Timestamp) -> Result<PathBuf, StoreError> {
    let stamp = now.to_string().replace([':', '.'], "-");
    let mut aside = with_suffix(path, &format!(".damaged-{stamp}"));
    for n in 1..100 {
        if !aside.exists() {
            break;
        }
        aside = with_suffix(path, &format!(".damaged-{stamp}-{n}"));
    }
    for suffix in ["-wal", "-shm", ""] {
        let from = with_suffix(path, suffix);
        match std::fs::rename(&from, with_suffix(&aside, suffix)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let reason = format!("{}: {error}", from.display());
                return Err(StoreError::Sqlite { attempt: "setting a damaged database aside", reason });
            }
        }
    }
    Ok(aside)
}

/// The path with something behind its last name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Does this error say that the file itself is bad.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

fn open_good(path: &Path) -> Result<Connection, Fault> {
    let other = |attempt, error: &dyn std::fmt::Display| {
        Fault::Other(StoreError::Sqlite { attempt, reason: format!("{}: {error}", path.display()) })
    };
    // SQLite gives the file's mode to its companions.
    let file = std::fs::OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path);
    file.and_then(|file| file.set_permissions(std::fs::Permissions::from_mode(0o600)))
        .map_err(|error| other("opening the database", &error))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(|error| other("opening the database", &error))?;
    let sort = |error: rusqlite::Error| match error.sqlite_error_code() {
        // A file that cannot be read through is as bad as one with wrong content.
        _ if is_damage(&error) => Fault::Damaged(error.to_string()),
        Some(ErrorCode::SystemIoFailure) => Fault::Damaged(error.to_string()),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            other("opening the database", &"another process has it open")
        }
        _ => other("opening the database", &error),
    };
    prepare(&conn).map_err(sort)?;
    let version = version(&conn).map_err(sort)?;
    if version > MIGRATIONS.len() {
        return Err(Fault::Damaged(format!("it has version {version} and comes from a newer derd")));
    }
    if version > 0 {
        check(&conn, version).map_err(Fault::Damaged)?;
    }
    migrate(&conn, version).map_err(|error| match error.sqlite_error_code() {
        // Such as a table of ours in a database that is not ours.
        Some(ErrorCode::Unknown) => Fault::Damaged(error.to_string()),
        _ => sort(error),
    })?;
    Ok(conn)
}

fn prepare(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(Duration::from_secs(2))?;
    // Exclusive: two daemons on one file are told apart, and WAL needs no shared memory. No checkpoint by itself: the
    // writer counts what it writes. Page size and auto_vacuum take effect in an empty file only.
    conn.execute_batch(&format!(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA page_size = {PAGE_BYTES}; PRAGMA auto_vacuum = INCREMENTAL;
         PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -256; PRAGMA mmap_size = 0;
         PRAGMA temp_store = MEMORY; PRAGMA wal_autocheckpoint = 0; PRAGMA foreign_keys = OFF;
         PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;"
    ))?;
    conn.set_prepared_statement_cache_capacity(24);
    // Takes the lock.
    conn.execute_batch("BEGIN IMMEDIATE; COMMIT;")
}

/// How many migrations it has seen; more than there are for what was never ours.
fn version(conn: &Connection) -> rusqlite::Result<usize> {
    let version: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    Ok(usize::try_from(version).unwrap_or(usize::MAX))
}

fn check(conn: &Connection, version: usize) -> Result<(), String> {
    let interrupt = conn.get_interrupt_handle();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if wait.recv_timeout(CHECK_TIME) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                interrupt.interrupt();
            }
        });
        let found = check_tables(conn, version);
        drop(done);
        found
    })
}

fn check_tables(conn: &Connection, version: usize) -> Result<(), String> {
    for (_, table) in CHECKED.into_iter().filter(|(since, _)| *since <= version) {
        let answer = conn.query_row(&format!("PRAGMA quick_check({table})"), [], |row| row.get::<_, String>(0));
        match answer {
            Ok(word) if word == "ok" => {}
            Ok(words) => return Err(words),
            // The time is up: nothing bad was seen so far.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

fn migrate(conn: &Connection, version: usize) -> rusqlite::Result<()> {
    for (done, sql) in MIGRATIONS.iter().enumerate().skip(version) {
        let tx = conn.unchecked_transaction()?;
        tx.execute_batch(sql)?;
        tx.execute_batch(&format!("PRAGMA user_version = {}", done + 1))?;
        tx.commit()?;
    }
    Ok(())
}
