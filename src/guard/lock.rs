//! Two locked files by which daemon and guard know of each other. The kernel frees the lock of a process that is dead.

use super::will::belongs_to_the_owner_of;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const DAEMON: &str = "daemon.lock";
const ACTING: &str = "acting.lock";

/// What one look at the daemon's lock shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// A daemon lives: which run of it.
    Alive(String),
    /// No daemon lives.
    Dead,
    /// It cannot be told: then nothing may be done.
    Unknown(String),
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Take the daemon's lock and say which run this is; `None`: somebody else holds it.
pub(super) fn daemon(folder: &Path, run: &str) -> io::Result<Option<File>> {
    let mut file = open(&folder.join(DAEMON))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // Which run it is tells a daemon that lives from one that starts and dies again and again.
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(run.as_bytes())?;
    Ok(Some(file))
}

/// Does a daemon live.
pub(super) fn look(folder: &Path) -> Look {
    let mut file = match File::open(folder.join(DAEMON)) {
        Ok(file) => file,
        // It never ran with this folder.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Look::Dead,
        Err(error) => return Look::Unknown(error.to_string()),
    };
    match file.try_lock_shared() {
        Ok(()) => Look::Dead,
        Err(TryLockError::WouldBlock) => {
            let mut run = String::new();
            let read = (&mut file).take(64).read_to_string(&mut run);
            Look::Alive(read.map_or_else(|_| String::new(), |_| run))
        }
        Err(TryLockError::Error(error)) => Look::Unknown(error.to_string()),
    }
}

/// The guard is about to act; `None`: another guard, or a daemon that looks at this very moment.
pub(super) fn acting(folder: &Path) -> io::Result<Option<File>> {
    let file = open(&folder.join(ACTING))?;
    belongs_to_the_owner_of(folder, &file)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Does a guard act at this moment.
pub(super) fn is_acting(folder: &Path) -> bool {
    File::open(folder.join(ACTING)).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}
