//! The words between the keeper and the task, and the keeper's own.

use crate::model::{Demand, Evidence, IntentKey, LeaseEnd, Mono, Severity, Stage};
use std::collections::VecDeque;
use std::time::Duration;

/// What the task shall do next.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Do {
    /// Nothing before this time.
    Rest(Option<Mono>),
    /// Write the program of this demand; before it, remember `(demand, on_end)` as held.
    Write { demand: Demand, lease: Duration, remember: Option<(Demand, Demand)>, spend: Spend },
    /// Write again what keeps the device's timer running, and nothing else.
    Refresh { demand: Demand, lease: Duration },
    /// Read back the checks of this demand's program.
    Check { demand: Demand, lease: Duration },
}

/// May a write wear the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spend {
    /// It protects, or leads back: always.
    Free,
    /// Within the budget, and not sooner after the last one than this.
    Budget { gap: Duration },
}

/// What the world shall learn.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect {
    Outcome {
        cause: Option<IntentKey>,
        demand: Demand,
        stage: Stage,
        evidence: Vec<Evidence>,
    },
    NotHeld,
    /// The way back of what is held has changed.
    Remember(Demand, Demand),
    Alarm {
        code: &'static str,
        severity: Severity,
        text: String,
        raised: bool,
    },
}

/// The writes were acknowledged.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Wrote {
    pub(super) settle: Duration,
    pub(super) refresh: Option<Duration>,
    /// The device's own fallback, read back before the setpoint was written.
    pub(super) fallback: Vec<Evidence>,
}

/// One check read back.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Checked {
    pub(super) ok: bool,
    /// Is it only the proof of the device's own timer.
    pub(super) failsafe: bool,
    pub(super) evidence: Evidence,
}

/// What was read back.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Looked {
    pub(super) checks: Vec<Checked>,
    /// How often the device's own timer wants the demand again.
    pub(super) refresh: Option<Duration>,
}

/// Why a write or a check did not happen.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Trouble {
    /// No connection or no answer: it may have arrived or not.
    Unreached(String),
    /// The device said no.
    Refused(String),
    /// This device cannot do that at all.
    Impossible(String),
    /// The device's own fallback does not read back, so the setpoint was not written.
    Unsafe(Box<Checked>),
    /// Writing wears the device: not before this time.
    Later(Mono),
    /// Writing wears the device, and today's budget is used up until this time.
    Spent { why: String, until: Mono },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A setpoint with a lease.
    Hold,
    /// A standing setting.
    Standing,
    /// The way back.
    End,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Aim {
    pub(super) kind: Kind,
    pub(super) demand: Demand,
    pub(super) on_end: Demand,
    pub(super) cause: Option<IntentKey>,
    pub(super) end: Option<LeaseEnd>,
    /// Does a fuse, the agreed export or the grid operator stand behind it.
    pub(super) protects: bool,
    /// Is it a limit that stands behind the demand itself, not only behind what comes after it.
    pub(super) is_limited: bool,
    /// What is held on while something looser waits for its time: nobody is told of it.
    pub(super) waits: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Phase {
    /// Perhaps it is so already: look before writing.
    Precheck,
    Write,
    Settling(Mono),
    Kept,
}

#[derive(Debug)]
pub(super) struct Work {
    pub(super) aim: Aim,
    pub(super) phase: Phase,
    pub(super) since: Mono,
    pub(super) not_before: Mono,
    pub(super) failures: u32,
    /// What the world knows of it.
    pub(super) told: Told,
    pub(super) unreached: Option<String>,
    pub(super) refresh: Option<Duration>,
    pub(super) refresh_at: Option<Mono>,
    pub(super) rechecks: VecDeque<Mono>,
    /// When it was last seen as it should be.
    pub(super) looked: Option<Mono>,
    /// What was held before the last write was asked for.
    pub(super) before: (Option<(Demand, Demand)>, bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    Verified,
    Failed,
    Reverted,
}
