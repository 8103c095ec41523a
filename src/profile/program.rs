//! What a demand means on the wire, and how it is proven to have arrived.

use super::{Answer, Request};
use crate::model::WriteClass;
use std::time::Duration;

/// What to do on the wire for one demand.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// The writes, in this order; none: the device is already as demanded.
    pub writes: Vec<Request>,
    /// What these writes go into, in their order.
    pub targets: Vec<Target>,
    /// How many of the first writes set the device's own fallback: they are read back before the others are written.
    pub fallback: usize,
    /// Time to wait after the last write before the checks.
    pub settle: Duration,
    /// What must read back.
    pub checks: Vec<Check>,
    /// A third of the device's own dead-man timer: write again that often while the lease lives.
    /// `None`: an equal value is never written again.
    pub refresh: Option<Duration>,
}

/// One register or key that a program writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Index into [`Program::writes`].
    pub write: usize,
    /// `unit 1 holding 40345`, or path and key.
    pub register: String,
    /// Where the device keeps it.
    pub class: WriteClass,
    /// Does writing it again keep the device's timer running.
    pub refreshes: bool,
    /// Does the device take what was written before only when this is written, with an equal value too.
    pub triggers: bool,
}

impl Program {
    /// A program that does nothing yet.
    pub(super) const fn new(settle: Duration) -> Self {
        Self { writes: Vec::new(), targets: Vec::new(), fallback: 0, settle, checks: Vec::new(), refresh: None }
    }

    /// Does this write go into something that wears.
    #[must_use]
    pub fn wears(&self, write: usize) -> bool {
        self.targets.iter().any(|t| t.write == write && t.class.wears())
    }

    /// Is this write repeated to keep the device's timer running: volatile only, and only what restarts the timer.
    #[must_use]
    pub fn is_refreshed(&self, write: usize) -> bool {
        let mut own = self.targets.iter().filter(|t| t.write == write).peekable();
        self.refresh.is_some() && own.peek().is_some() && own.all(|t| t.refreshes && !t.class.wears())
    }

    /// Does the device take the writes before only with this one.
    #[must_use]
    pub fn triggers(&self, write: usize) -> bool {
        self.targets.iter().any(|t| t.write == write && t.triggers)
    }

    /// How to read what this write would change.
    #[must_use]
    pub fn look(&self, write: usize) -> Option<Request> {
        match self.writes.get(write)? {
            Request::Write { unit, address, words, .. } => Some(Request::Read {
                unit: *unit,
                space: super::Space::Holding,
                address: *address,
                count: u16::try_from(words.len()).ok().filter(|n| (1..=125).contains(n))?,
            }),
            Request::Http { .. } => self.checks.first().map(|c| c.read.clone()),
            Request::Read { .. } => None,
        }
    }

    /// What is left to write where the device answered this to [`Program::look`], and which of the targets it goes into:
    /// an equal value is not written again.
    #[must_use]
    pub fn left(&self, write: usize, now: &Answer) -> Option<(Request, Vec<usize>)> {
        let request = self.writes.get(write)?;
        let all = || self.targets.iter().enumerate().filter(|(_, t)| t.write == write).map(|(n, _)| n);
        match (request, now) {
            (Request::Write { words, .. }, Answer::Words(got)) if got == words => None,
            (Request::Http { method, path, body, .. }, Answer::Json(object)) => {
                let Some((place, query)) = path.split_once('?') else {
                    return Some((request.clone(), all().collect()));
                };
                let mut rest = url::form_urlencoded::Serializer::new(String::new());
                let mut changed = Vec::new();
                for ((key, text), target) in url::form_urlencoded::parse(query.as_bytes()).zip(all()) {
                    let value = serde_json::from_str(&text).unwrap_or_else(|_| serde_json::Value::from(text.as_ref()));
                    if !object.get(key.as_ref()).is_some_and(|have| same(&value, have)) {
                        rest.append_pair(&key, &text);
                        changed.push(target);
                    }
                }
                let path = format!("{place}?{}", rest.finish());
                let left = Request::Http { method: *method, path, body: body.clone(), writes: true };
                (!changed.is_empty()).then_some((left, changed))
            }
            _ => Some((request.clone(), all().collect())),
        }
    }
}

/// One thing that must read back after a write.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// What to read.
    pub read: Request,
    /// Does it prove the device's own dead-man timer: when it fails, the setpoint may stand but nothing ends it
    /// if the gateway falls silent.
    pub failsafe: bool,
    /// What must read back.
    pub expect: Expect,
}

/// What must read back, and how it is compared.
#[derive(Debug, Clone, PartialEq)]
pub enum Expect {
    /// Registers, compared as they are, shown as signed or unsigned decimals.
    Words {
        /// The words.
        words: Vec<u16>,
        /// Are they shown as signed.
        signed: bool,
    },
    /// A dead-man timer, s: it may have counted down, but neither stands at 0 nor above what was written.
    Timer(u16),
    /// Values of a JSON object by key.
    Keys(Vec<(String, serde_json::Value)>),
}

/// How a device is led back by somebody who knows nothing of it but this: no discovery, no reading of what it holds now.
#[derive(Debug, Clone, PartialEq)]
pub struct WayBack {
    /// The writes and their proof. Whatever a setpoint may have changed is written, also where it has its value already.
    pub program: Program,
    /// What must read back before anything is written: that it is this device. Empty where the device does not tell.
    pub known_by: Vec<Check>,
}

/// How one check came out: the evidence of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Did it read back.
    pub ok: bool,
    /// Where: `unit 1 holding 40345`, or the path.
    pub address: String,
    /// What was written, as decimals.
    pub wrote: String,
    /// What was read, as decimals.
    pub read: String,
}

impl Check {
    /// Registers from `address` on must hold `words`.
    pub(super) fn words(unit: u8, address: u16, words: Vec<u16>, signed: bool) -> Self {
        let count = u16::try_from(words.len()).unwrap_or(u16::MAX).min(125);
        let read = Request::Read { unit, space: super::Space::Holding, address, count };
        Self { read, failsafe: false, expect: Expect::Words { words, signed } }
    }

    /// The register at `address` must hold the timer that the installer set: where it counts it may have counted down.
    pub(super) fn own_timer(unit: u8, address: u16, seconds: u16) -> Self {
        if seconds == 0 {
            return Self::words(unit, address, vec![0], false);
        }
        Self { failsafe: false, ..Self::timer(unit, address, seconds) }
    }

    /// The register at `address` must hold a running timer of at most `seconds`.
    pub(super) const fn timer(unit: u8, address: u16, seconds: u16) -> Self {
        let read = Request::Read { unit, space: super::Space::Holding, address, count: 1 };
        Self { read, failsafe: true, expect: Expect::Timer(seconds) }
    }

    /// The JSON object that `read` gives must hold these values.
    pub(super) const fn keys(read: Request, keys: Vec<(String, serde_json::Value)>) -> Self {
        Self { read, failsafe: false, expect: Expect::Keys(keys) }
    }

    /// Does the answer to [`Check::read`] prove the write.
    #[must_use]
    pub fn judge(&self, answer: &Answer) -> Verdict {
        let address = self.read.to_string();
        let (ok, wrote, read) = match (&self.expect, answer) {
            (Expect::Words { words, signed }, Answer::Words(got)) => {
                (got == words, decimals(words, *signed), decimals(got, *signed))
            }
            (Expect::Words { words, signed }, other) => (false, decimals(words, *signed), describe(other)),
            (Expect::Timer(seconds), Answer::Words(got)) => {
                let ok = matches!(got.as_slice(), [left] if *left > 0 && left <= seconds);
                (ok, seconds.to_string(), decimals(got, false))
            }
            (Expect::Timer(seconds), other) => (false, seconds.to_string(), describe(other)),
            (Expect::Keys(keys), Answer::Json(object)) => {
                let got: Vec<_> =
                    keys.iter().map(|(k, _)| (k.clone(), object.get(k).cloned().unwrap_or_default())).collect();
                let ok = keys.iter().zip(&got).all(|((_, want), (_, have))| same(want, have));
                (ok, pairs(keys), pairs(&got))
            }
            (Expect::Keys(keys), other) => (false, pairs(keys), describe(other)),
        };
        Verdict { ok, address, wrote, read }
    }
}

fn decimals(words: &[u16], signed: bool) -> String {
    let one = |w: &u16| if signed { w.cast_signed().to_string() } else { w.to_string() };
    words.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn pairs(keys: &[(String, serde_json::Value)]) -> String {
    keys.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
}

fn describe(answer: &Answer) -> String {
    match answer {
        Answer::Words(words) => format!("{} registers", words.len()),
        Answer::Json(_) => "a JSON document".to_owned(),
        Answer::Written => "an acknowledgement".to_owned(),
    }
}

/// Equal as numbers where both are numbers (or texts of numbers): firmware changes between 16, 16.0 and "16".
pub(super) fn same(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    a == b || matches!((super::json::number(a), super::json::number(b)), (Some(x), Some(y)) if (x - y).abs() < 1e-9)
}
