//! The daemon's side: a will is on the disk before the first setpoint, and gone when the end was verified.
//!
//! A thread that exists only while there is something to write does the writing: the disk never holds up the daemon. Of each
//! device only the newest wish waits; a disk that hangs keeps one thread and one wish per device.

use super::{Will, WillError, lock};
use crate::model::DeviceId;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// A daemon that was told to stop may need this long to end; after that this one goes on without wills.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// A guard that is at work finishes with the device it is at.
const GUARD_PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// What became of a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// It is on the disk.
    Kept,
    /// The disk takes its time: it is written when it can be.
    Behind,
    /// It is not on the disk: why.
    Failed(String),
}

/// What an earlier run left behind.
#[derive(Debug, Clone, Default)]
pub struct Leftovers {
    /// What `derd-guard` carried out meanwhile; each file stays until [`Journal::acknowledge`].
    pub done: Vec<Will>,
    /// What is still to be done.
    pub open: BTreeMap<DeviceId, Will>,
}

/// The wills of all devices. Cheap to clone; the last clone frees the daemon's lock.
#[derive(Debug, Clone)]
pub struct Journal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Or why there is no folder that can be locked, and so no wills.
    place: Result<Place, String>,
    after: Duration,
    desk: Arc<Mutex<Desk>>,
}

#[derive(Debug)]
struct Place {
    folder: PathBuf,
    /// Held as long as the daemon lives.
    _lock: File,
}

#[derive(Debug, Default)]
struct Desk {
    /// As on the disk, or as it will be when the thread is done.
    known: BTreeMap<DeviceId, Will>,
    /// What the thread has to do: the newest wish of each device.
    wishes: BTreeMap<DeviceId, Wish>,
    /// What the thread is at.
    busy: Option<DeviceId>,
    running: bool,
}

#[derive(Debug)]
struct Wish {
    will: Option<Will>,
    done: oneshot::Sender<Result<(), String>>,
}

impl Journal {
    /// A journal without a folder, for tests: it says that all is kept.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self::of(Err(String::new()), Duration::ZERO, BTreeMap::new())
    }

    fn of(place: Result<Place, String>, after: Duration, known: BTreeMap<DeviceId, Will>) -> Self {
        Self(Arc::new(Inner { place, after, desk: Arc::new(Mutex::new(Desk { known, ..Desk::default() })) }))
    }

    /// Take the daemon's lock, wait for a guard that is at work, and read what is there. A damaged file is set aside. A
    /// folder that cannot be used is told and never keeps the daemon from starting.
    ///
    /// `run` names this run of the daemon; `after`: how long it may be dead before `derd-guard` acts.
    pub async fn open(folder: &Path, run: &str, after: Duration) -> (Self, Leftovers) {
        match Self::take(folder, run).await {
            Ok(lock) => {
                let left = read(folder);
                let place = Place { folder: folder.to_owned(), _lock: lock };
                (Self::of(Ok(place), after, left.open.clone()), left)
            }
            Err(why) => {
                tracing::error!(folder = %folder.display(), "no guard for devices without a timer of their own: {why}");
                (Self::of(Err(why), after, BTreeMap::new()), Leftovers::default())
            }
        }
    }

    async fn take(folder: &Path, run: &str) -> Result<File, String> {
        DirBuilder::new().recursive(true).mode(0o750).create(folder).map_err(|e| format!("its folder: {e}"))?;
        let mut waited = Duration::ZERO;
        let lock = loop {
            match lock::daemon(folder, run).map_err(|e| format!("its lock: {e}"))? {
                Some(lock) => break lock,
                None if waited < LOCK_PATIENCE => {}
                None => return Err("another derd runs with this data folder".to_owned()),
            }
            sleep(PAUSE).await;
            waited += PAUSE;
        };
        waited = Duration::ZERO;
        while lock::is_acting(folder) {
            if waited.is_zero() {
                tracing::info!("derd-guard is leading a device back: waiting until it is done with it");
            }
            if waited >= GUARD_PATIENCE {
                tracing::warn!("derd-guard is still at work: going on all the same");
                break;
            }
            sleep(PAUSE).await;
            waited += PAUSE;
        }
        Ok(lock)
    }

    /// How long the daemon may be dead: what each will says.
    #[must_use]
    pub fn after(&self) -> Duration {
        self.0.after
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        lock_desk(&self.0.desk)
    }

    /// See to it that `will` is on the disk, waiting for `wait` at most. One that says the same as what is there costs
    /// nothing.
    pub async fn put(&self, will: Will, wait: Duration) -> Put {
        let device = will.device.clone();
        self.wish(device, Some(will), wait).await
    }

    /// The device was led back and that was proven: its will goes.
    pub async fn remove(&self, device: &DeviceId, wait: Duration) -> Put {
        self.wish(device.clone(), None, wait).await
    }

    /// The world was told of what `derd-guard` did: its mark goes, unless there is a new will by now.
    pub async fn acknowledge(&self, device: &DeviceId) {
        let is_new = self.desk().known.contains_key(device);
        if !is_new {
            // Forced: the mark is no will that is known here.
            let done = self.send(device.clone(), None);
            if let Some(done) = done {
                let _in_time = timeout(Duration::from_secs(1), done).await.is_ok();
            }
        }
    }

    async fn wish(&self, device: DeviceId, will: Option<Will>, wait: Duration) -> Put {
        match &self.0.place {
            Ok(_) => {}
            #[cfg(test)]
            Err(why) if why.is_empty() => return Put::Kept,
            Err(why) => return Put::Failed(why.clone()),
        }
        {
            let desk = self.desk();
            let same = match (&will, desk.known.get(&device)) {
                (Some(new), Some(old)) => new.says_the_same(old),
                (None, None) => true,
                _ => false,
            };
            if same {
                let waits = desk.wishes.contains_key(&device) || desk.busy.as_ref() == Some(&device);
                return if waits { Put::Behind } else { Put::Kept };
            }
        }
        let Some(mut done) = self.send(device, will) else { return Put::Failed("no thread".to_owned()) };
        match timeout(wait, &mut done).await {
            Ok(Ok(Ok(()))) => Put::Kept,
            Ok(Ok(Err(why))) => Put::Failed(why),
            // A newer wish has replaced it.
            Ok(Err(_)) => Put::Kept,
            Err(_) => Put::Behind,
        }
    }

    /// Hand a wish to the thread.
    fn send(&self, device: DeviceId, will: Option<Will>) -> Option<oneshot::Receiver<Result<(), String>>> {
        let place = self.0.place.as_ref().ok()?;
        let (done, told) = oneshot::channel();
        let mut desk = self.desk();
        match &will {
            Some(will) => desk.known.insert(device.clone(), will.clone()),
            None => desk.known.remove(&device),
        };
        desk.wishes.insert(device, Wish { will, done });
        if !desk.running {
            let (folder, shared) = (place.folder.clone(), Arc::clone(&self.0.desk));
            let thread = std::thread::Builder::new().name("derd-wills".into()).spawn(move || work(&folder, &shared));
            match thread {
                Ok(_) => desk.running = true,
                Err(error) => {
                    tracing::error!(%error, "no thread for the wills of devices");
                    // Nothing is known of the disk: the next wish tries again.
                    desk.wishes.clear();
                    desk.known.clear();
                    return None;
                }
            }
        }
        Some(told)
    }
}

fn lock_desk(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    // Nothing panics while it is locked; and if it did, the next wish puts it right.
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread: one wish after the other until there is none.
fn work(folder: &Path, desk: &Mutex<Desk>) {
    loop {
        let (device, wish) = {
            let mut desk = lock_desk(desk);
            let Some(next) = desk.wishes.pop_first() else {
                (desk.busy, desk.running) = (None, false);
                return;
            };
            desk.busy = Some(next.0.clone());
            next
        };
        let result = match &wish.will {
            Some(will) => will.write(folder),
            None => Will::remove(folder, &device),
        };
        let result = result.map_err(|e| e.to_string());
        if result.is_err() {
            let mut desk = lock_desk(desk);
            // What is there now is not what was wished; a newer wish is on its way or the next one tries again.
            if wish.will.is_some() && !desk.wishes.contains_key(&device) {
                desk.known.remove(&device);
            }
        }
        let _nobody_waits = wish.done.send(result).is_err();
    }
}

/// What the folder holds; what is no will is set aside.
fn read(folder: &Path) -> Leftovers {
    let mut left = Leftovers::default();
    let files = Will::files(folder).unwrap_or_else(|error| {
        tracing::error!("wills of devices: {error}");
        Vec::new()
    });
    for path in files {
        match Will::read(&path) {
            Ok(will) if will.done_at.is_some() => left.done.push(will),
            Ok(will) => drop(left.open.insert(will.device.clone(), will)),
            Err(error @ WillError::File { .. }) => tracing::error!("will of a device: {error}"),
            Err(error @ WillError::Foreign { .. }) => {
                let aside = path.with_extension("damaged");
                let moved = fs::rename(&path, &aside).map_or_else(
                    |e| format!("and cannot be moved: {e}"),
                    |()| format!("set aside as {}", aside.display()),
                );
                tracing::error!("will of a device: {error}; {moved}");
            }
        }
    }
    left
}
