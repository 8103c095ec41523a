//! One will and its file: written to a temporary file, synced, renamed, and the folder synced.

use crate::model::{Demand, DeviceId, Timestamp};
use crate::profile::{Check, Expect, HttpMethod, Pace, Program, Request, Space, WayBack, WriteFunction};
use crate::wire::{demand_from_json, demand_json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The only shape of the file so far.
const FORMAT: u32 = 1;
/// A will has some dozen lines; what is larger is not one.
const MAX_BYTES: u64 = 256 * 1024;

/// How one device is led back when derd is gone.
#[derive(Debug, Clone, PartialEq)]
pub struct Will {
    /// Which device.
    pub device: DeviceId,
    /// Its link, as in the configuration.
    pub link: String,
    /// How gently it must be asked.
    pub pace: Pace,
    /// The daemon may be dead for so long.
    pub after: Duration,
    /// When this was written down.
    pub since: Timestamp,
    /// What the device takes: its baseline, or a tighter value that protects a fuse or the agreed export.
    pub on_end: Demand,
    /// The requests and their proof.
    pub way: WayBack,
    /// When `derd-guard` carried it out.
    pub done_at: Option<Timestamp>,
}

/// Why a file is not a will.
#[derive(Debug, thiserror::Error)]
pub enum WillError {
    /// It cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It holds something else.
    #[error("{path} is damaged or not derd's: {reason}")]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Will {
    /// Does it say the same, whenever it was written down.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        // Targets, fallback and refresh are the daemon's own business and are not written down.
        let as_written = |w: &Self| {
            let program = Program { targets: Vec::new(), fallback: 0, refresh: None, ..w.way.program.clone() };
            let way = WayBack { program, known_by: w.way.known_by.clone() };
            Self { since: Timestamp::default(), way, ..w.clone() }
        };
        as_written(self) == as_written(other)
    }

    /// What the device takes, for people.
    #[must_use]
    pub fn end_in_words(&self) -> String {
        match self.on_end {
            Demand::Release => "back to its baseline".to_owned(),
            Demand::ChargerLimit { amps } | Demand::ChargerCurrent { amps, .. } => format!("down to {amps} A"),
            Demand::ChargerOff => "to a pause".to_owned(),
            Demand::PowerLimit { watts } => format!("down to {watts:.0} W"),
            Demand::BatteryPower { watts, .. } => format!("to {watts:.0} W"),
            Demand::Reserve { pct } => format!("to a reserve of {pct} %"),
        }
    }

    /// Its file in a folder.
    #[must_use]
    pub fn path(folder: &Path, device: &DeviceId) -> PathBuf {
        folder.join(format!("{device}.json"))
    }

    /// From a file.
    ///
    /// # Errors
    /// [`WillError`]
    pub fn read(path: &Path) -> Result<Self, WillError> {
        let failed = |error| WillError::File { path: path.to_owned(), error };
        let foreign = |reason: String| WillError::Foreign { path: path.to_owned(), reason };
        if fs::metadata(path).map_err(failed)?.len() > MAX_BYTES {
            return Err(foreign("it is far too large".to_owned()));
        }
        let bytes = fs::read(path).map_err(failed)?;
        let row: Row = serde_json::from_slice(&bytes).map_err(|e| foreign(e.to_string()))?;
        let will = row.into_will().map_err(foreign)?;
        if Self::path(Path::new(""), &will.device).file_name() != path.file_name() {
            return Err(foreign(format!("it is for {}", will.device)));
        }
        Ok(will)
    }

    /// Into its file, durably: when this returns, a power cut does not take it away, and at no moment is there half a file.
    ///
    /// # Errors
    /// [`WillError::File`]: the file is as it was before, or not there.
    pub fn write(&self, folder: &Path) -> Result<(), WillError> {
        let path = Self::path(folder, &self.device);
        let temporary = folder.join(format!(".{}.new", self.device));
        let write = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            let mut text = serde_json::to_vec_pretty(&Row::of(self))?;
            text.push(b'\n');
            file.write_all(&text)?;
            belongs_to_the_owner_of(folder, &file)?;
            file.sync_all()?;
            drop(file);
            fs::rename(&temporary, &path)?;
            sync_folder(folder)
        };
        write().map_err(|error| WillError::File { path: path.clone(), error })
    }

    /// Take its file away. None there is as good.
    ///
    /// # Errors
    /// [`WillError::File`]
    pub fn remove(folder: &Path, device: &DeviceId) -> Result<(), WillError> {
        let path = Self::path(folder, device);
        let removed = match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.and_then(|()| sync_folder(folder)),
        };
        removed.map_err(|error| WillError::File { path, error })
    }

    /// The files of a folder that may be wills, in the order of their names; none when there is no folder.
    ///
    /// # Errors
    /// [`WillError::File`]
    pub fn files(folder: &Path) -> Result<Vec<PathBuf>, WillError> {
        let failed = |error| WillError::File { path: folder.to_owned(), error };
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|e| e == "json") {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}

/// Root may run `derd-guard` by hand: what it makes is the daemon's all the same.
pub(super) fn belongs_to_the_owner_of(folder: &Path, file: &File) -> io::Result<()> {
    let (owner, own) = (fs::metadata(folder)?, file.metadata()?);
    if (owner.uid(), owner.gid()) == (own.uid(), own.gid()) {
        return Ok(());
    }
    fchown(file, Some(owner.uid()), Some(owner.gid()))
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[derive(Serialize, Deserialize)]
struct Row {
    format: u32,
    device: String,
    link: String,
    timeout_ms: u64,
    min_gap_ms: u64,
    connect_delay_ms: u64,
    guard_after_ms: u64,
    since: String,
    on_end: Value,
    known_by: Vec<CheckRow>,
    writes: Vec<RequestRow>,
    settle_ms: u64,
    checks: Vec<CheckRow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    done_at: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RequestRow {
    ReadHolding { unit: u8, address: u16, count: u16 },
    ReadInput { unit: u8, address: u16, count: u16 },
    WriteSingle { unit: u8, address: u16, words: Vec<u16> },
    WriteMultiple { unit: u8, address: u16, words: Vec<u16> },
    Get { path: String, writes: bool },
    Post { path: String, body: Option<Value>, writes: bool },
    Put { path: String, body: Option<Value>, writes: bool },
}

#[derive(Serialize, Deserialize)]
struct CheckRow {
    read: RequestRow,
    #[serde(default)]
    failsafe: bool,
    expect: ExpectRow,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ExpectRow {
    Words(Vec<u16>),
    SignedWords(Vec<u16>),
    Timer(u16),
    Keys(Vec<(String, Value)>),
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Row {
    fn of(will: &Will) -> Self {
        let WayBack { program, known_by } = &will.way;
        Self {
            format: FORMAT,
            device: will.device.to_string(),
            link: will.link.clone(),
            timeout_ms: ms(will.pace.timeout),
            min_gap_ms: ms(will.pace.min_gap),
            connect_delay_ms: ms(will.pace.connect_delay),
            guard_after_ms: ms(will.after),
            since: will.since.to_string(),
            on_end: demand_json(&will.on_end),
            known_by: known_by.iter().map(CheckRow::of).collect(),
            writes: program.writes.iter().map(RequestRow::of).collect(),
            settle_ms: ms(program.settle),
            checks: program.checks.iter().map(CheckRow::of).collect(),
            done_at: will.done_at.map(|t| t.to_string()),
        }
    }

    fn into_will(self) -> Result<Will, String> {
        if self.format != FORMAT {
            return Err(format!("format {} is not known here", self.format));
        }
        let program = Program {
            writes: self.writes.into_iter().map(RequestRow::into_request).collect(),
            // The guard has no budget and proves everything at the end.
            targets: Vec::new(),
            fallback: 0,
            settle: Duration::from_millis(self.settle_ms),
            checks: self.checks.into_iter().map(CheckRow::into_check).collect(),
            refresh: None,
        };
        Ok(Will {
            device: self.device.parse().map_err(|e| format!("{e}"))?,
            link: self.link,
            pace: Pace {
                timeout: Duration::from_millis(self.timeout_ms),
                min_gap: Duration::from_millis(self.min_gap_ms),
                connect_delay: Duration::from_millis(self.connect_delay_ms),
            },
            after: Duration::from_millis(self.guard_after_ms),
            since: self.since.parse()?,
            on_end: demand_from_json(&self.on_end).ok_or("on_end is not known here")?,
            way: WayBack { program, known_by: self.known_by.into_iter().map(CheckRow::into_check).collect() },
            done_at: self.done_at.map(|t| t.parse()).transpose()?,
        })
    }
}

impl RequestRow {
    fn of(request: &Request) -> Self {
        match request.clone() {
            Request::Read { unit, space: Space::Holding, address, count } => Self::ReadHolding { unit, address, count },
            Request::Read { unit, space: Space::Input, address, count } => Self::ReadInput { unit, address, count },
            Request::Write { unit, address, words, function: WriteFunction::Single } => {
                Self::WriteSingle { unit, address, words }
            }
            Request::Write { unit, address, words, function: WriteFunction::Multiple } => {
                Self::WriteMultiple { unit, address, words }
            }
            Request::Http { method: HttpMethod::Get, path, writes, .. } => Self::Get { path, writes },
            Request::Http { method: HttpMethod::Post, path, body, writes } => Self::Post { path, body, writes },
            Request::Http { method: HttpMethod::Put, path, body, writes } => Self::Put { path, body, writes },
        }
    }

    fn into_request(self) -> Request {
        match self {
            Self::ReadHolding { unit, address, count } => Request::Read { unit, space: Space::Holding, address, count },
            Self::ReadInput { unit, address, count } => Request::Read { unit, space: Space::Input, address, count },
            Self::WriteSingle { unit, address, words } => {
                Request::Write { unit, address, words, function: WriteFunction::Single }
            }
            Self::WriteMultiple { unit, address, words } => {
                Request::Write { unit, address, words, function: WriteFunction::Multiple }
            }
            Self::Get { path, writes } => Request::Http { method: HttpMethod::Get, path, body: None, writes },
            Self::Post { path, body, writes } => Request::Http { method: HttpMethod::Post, path, body, writes },
            Self::Put { path, body, writes } => Request::Http { method: HttpMethod::Put, path, body, writes },
        }
    }
}

impl CheckRow {
    fn of(check: &Check) -> Self {
        let expect = match check.expect.clone() {
            Expect::Words { words, signed: false } => ExpectRow::Words(words),
            Expect::Words { words, signed: true } => ExpectRow::SignedWords(words),
            Expect::Timer(seconds) => ExpectRow::Timer(seconds),
            Expect::Keys(keys) => ExpectRow::Keys(keys),
        };
        Self { read: RequestRow::of(&check.read), failsafe: check.failsafe, expect }
    }

    fn into_check(self) -> Check {
        let expect = match self.expect {
            ExpectRow::Words(words) => Expect::Words { words, signed: false },
            ExpectRow::SignedWords(words) => Expect::Words { words, signed: true },
            ExpectRow::Timer(seconds) => Expect::Timer(seconds),
            ExpectRow::Keys(keys) => Expect::Keys(keys),
        };
        Check { read: self.read.into_request(), failsafe: self.failsafe, expect }
    }
}
