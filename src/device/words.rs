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
    Write { demand: Demand, lease: Duration, remember: Option<(Demand, Demand)> },
    /// Read back the checks of this demand's program.
    Check { demand: Demand, lease: Duration },
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
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Wrote {
    pub(super) settle: Duration,
    pub(super) refresh: Option<Duration>,
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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    Verified,
    Failed,
    Reverted,
}
