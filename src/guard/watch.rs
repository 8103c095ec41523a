//! The loop of `derd-guard`: sleeps, looks whether there are wills and whether the daemon lives, and acts when it stays dead.

use super::lock::{self, Look};
use super::vigil::Vigil;
use super::{Fault, Will, lead_back};
use crate::model::Mono;
use crate::runtime::{Clock, Retry, Shutdown};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::sleep;

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(10);
/// A device that is off is asked again after so long: one packet on the LAN.
const UNREACHED: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(60));
/// One that refuses, or does not do what it is told, is written seldom: writing wears it.
const REFUSED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));

/// How the guard is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder of the wills.
    pub folder: PathBuf,
    /// In place of what the wills say.
    pub after: Option<Duration>,
}

/// How the attempts at one will stand.
#[derive(Debug)]
struct Attempts {
    next: Mono,
    unreached: Retry,
    refused: Retry,
    /// The last fault that was told: once when it begins.
    told: Option<Fault>,
    /// It was carried out, and the disk did not take that down.
    done: Option<Will>,
}

impl Attempts {
    fn new(now: Mono) -> Self {
        Self {
            next: now,
            unreached: Retry::new(UNREACHED.0, UNREACHED.1),
            refused: Retry::new(REFUSED.0, REFUSED.1),
            told: None,
            done: None,
        }
    }
}

/// Watch until the shutdown.
pub async fn watch(options: Options, clock: Clock, mut shutdown: Shutdown) {
    let mut guard = Guard::new(options, clock);
    loop {
        let pause = guard.turn(&shutdown).await;
        tokio::select! {
            () = shutdown.wait() => return,
            () = sleep(pause) => {}
        }
    }
}

/// Carry out every will at once, each one time, if no daemon lives. Returns whether all is done.
///
/// # Errors
/// A sentence: a daemon lives, or it cannot be told.
pub async fn once(options: Options, clock: Clock) -> Result<bool, String> {
    let mut guard = Guard::new(options, clock);
    match lock::look(&guard.options.folder) {
        Look::Dead => {}
        Look::Alive(_) => return Err("derd is running: it leads its devices back by itself (derd release)".to_owned()),
        Look::Unknown(why) => return Err(format!("whether derd is running cannot be told: {why}")),
    }
    let wills = guard.wills();
    for (path, will) in &wills {
        guard.act(path, will).await;
    }
    Ok(guard.wills().is_empty())
}

struct Guard {
    options: Options,
    clock: Clock,
    vigil: Vigil,
    attempts: BTreeMap<PathBuf, Attempts>,
    /// Files that are no wills, told once.
    foreign: Vec<PathBuf>,
    /// Is the present fault of the folder or the lock told.
    told: bool,
}

impl Guard {
    fn new(options: Options, clock: Clock) -> Self {
        let vigil = Vigil::default();
        Self { options, clock, vigil, attempts: BTreeMap::new(), foreign: Vec::new(), told: false }
    }

    /// One look, and what follows from it. Returns the pause before the next.
    async fn turn(&mut self, shutdown: &Shutdown) -> Duration {
        let look_every = self.options.after.map_or(LOOK, |after| (after / 4).clamp(Duration::from_millis(200), LOOK));
        let files = match Will::files(&self.options.folder) {
            Ok(files) => files,
            Err(error) => {
                self.tell(&error.to_string());
                return look_every;
            }
        };
        if files.is_empty() {
            // Nothing to be done whoever lives: the usual case, without a further look.
            self.vigil = Vigil::default();
            self.attempts.clear();
            return look_every;
        }
        let look = lock::look(&self.options.folder);
        if let Look::Unknown(why) = &look {
            self.tell(why);
        } else {
            self.told = false;
        }
        let dead_for = self.vigil.saw(&look, self.clock.mono());
        let Some(dead_for) = dead_for else {
            self.attempts.clear();
            return look_every;
        };
        if look != Look::Dead {
            // On trial: it may die again before it has released anything, and is then dead only for moments.
            return Duration::from_secs(1).min(look_every);
        }
        let wills = self.wills();
        let mut soonest = look_every;
        for (path, will) in &wills {
            if shutdown.is_stopping() {
                break;
            }
            let after = self.options.after.unwrap_or(will.after);
            if dead_for < after {
                soonest = soonest.min(after.saturating_sub(dead_for));
                continue;
            }
            let now = self.clock.mono();
            let due = self.attempts.entry(path.clone()).or_insert_with(|| Attempts::new(now)).next;
            if now >= due && !self.act(path, will).await {
                // The daemon is back: it leads its devices itself now.
                break;
            }
            if let Some(attempts) = self.attempts.get(path) {
                soonest = soonest.min(attempts.next.since(self.clock.mono()));
            }
        }
        soonest.max(Duration::from_millis(100))
    }

    /// Carry one will out, if the daemon is dead still. Returns false when it is not.
    async fn act(&mut self, path: &Path, will: &Will) -> bool {
        let folder = self.options.folder.clone();
        // Taken before the look: a daemon that starts from here on waits until it is free.
        let _acting = match lock::acting(&folder) {
            Ok(Some(acting)) => acting,
            Ok(None) => return false,
            Err(error) => {
                self.tell(&format!("its lock: {error}"));
                return false;
            }
        };
        if lock::look(&folder) != Look::Dead {
            return false;
        }
        let now = self.clock.mono();
        let already = self.attempts.get(path).and_then(|a| a.done.as_ref()).is_some_and(|done| done == will);
        let result = if already { Ok(()) } else { lead_back(will, &self.clock).await };
        let attempts = self.attempts.entry(path.to_owned()).or_insert_with(|| Attempts::new(now));
        let now = self.clock.mono();
        match result {
            Ok(()) => {
                let words = will.end_in_words();
                if !already {
                    tracing::warn!(device = %will.device, "derd does not live: {} was led {words}", will.device);
                }
                attempts.done = Some(will.clone());
                attempts.next = now.plus(UNREACHED.1);
                let done = Will { done_at: Some(self.clock.now()), ..will.clone() };
                match done.write(&folder) {
                    Ok(()) => drop(self.attempts.remove(path)),
                    Err(error) => self.tell(&format!("what was done cannot be written down: {error}")),
                }
                // A daemon that starts and dies may hold it again: then it has its time again.
                if self.wills().is_empty() {
                    self.vigil.begin_anew();
                }
            }
            Err(fault) => {
                let pause = match &fault {
                    Fault::Unreached(_) => attempts.unreached.next_delay(),
                    Fault::Refused(_) | Fault::Stranger(_) => attempts.refused.next_delay(),
                };
                attempts.next = now.plus(pause);
                let is_new = attempts
                    .told
                    .as_ref()
                    .is_none_or(|told| std::mem::discriminant(told) != std::mem::discriminant(&fault));
                if is_new {
                    let device = &will.device;
                    tracing::error!(%device, "derd does not live and {device} is not led back: {fault}; trying again");
                }
                attempts.told = Some(fault);
            }
        }
        true
    }

    /// The wills that are still to be carried out.
    fn wills(&mut self) -> Vec<(PathBuf, Will)> {
        let files = Will::files(&self.options.folder).unwrap_or_default();
        let mut wills = Vec::with_capacity(files.len());
        for path in files {
            match Will::read(&path) {
                Ok(will) if will.done_at.is_none() => wills.push((path, will)),
                Ok(_) => {}
                Err(error) if !self.foreign.contains(&path) => {
                    tracing::error!("left alone: {error}");
                    self.foreign.push(path);
                }
                Err(_) => {}
            }
        }
        wills
    }

    /// A fault of the folder or the disk, once.
    fn tell(&mut self, why: &str) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::error!(folder = %self.options.folder.display(), "the guard cannot do its work: {why}");
        }
    }
}
