//! What control decided on a device, and why: for people, and for whoever must prove it later.

use super::device::words;
use super::{Action, ClockState, Demand, DeviceId, IntentKey, Params, Rank, Timestamp};

/// The decision on one device at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct Decided {
    /// Which device.
    pub device: DeviceId,
    /// Since when this holds.
    pub at: Timestamp,
    /// How far `at` may be trusted.
    pub clock: ClockState,
    /// All of it for people: who, what, why, until when in the site's own time, what comes then.
    pub sentence: String,
    /// Who holds the device; `None`: nobody.
    pub holder: Option<DecidedHolder>,
    /// What the device was told; `None`: nothing.
    pub demand: Option<Demand>,
    /// What the device takes when nothing renews that; `None`: it was told nothing.
    pub then: Option<Demand>,
    /// The limit that clipped it, by name.
    pub limited_by: Option<String>,
    /// How it came to this: inputs, then intents from the strongest down, then limits in order, then the lease.
    pub trace: Vec<TraceStep>,
}

/// Who holds a device, and with what.
#[derive(Debug, Clone, PartialEq)]
pub struct DecidedHolder {
    /// The sender's label.
    pub source: String,
    /// Its rank.
    pub rank: Rank,
    /// The intent, or the limit that needs the device held.
    pub key: IntentKey,
    /// What was asked for.
    pub asked: Action,
    /// What is applied, by the names of the request.
    pub applied: Params,
    /// When it ends; `None`: not by itself (an endless schedule, or a limit while it is needed).
    pub ends_at: Option<Timestamp>,
}

/// One step of how a decision came about.
#[derive(Debug, Clone, PartialEq)]
pub enum TraceStep {
    /// A value that mattered.
    Input {
        /// `grid_w`, `grid_l1_a` (and so on) of the grid connection; a point's name for the device itself; or `clock`.
        name: String,
        /// In the unit of the name; `None`: not known.
        value: Option<f64>,
        /// Why it is not known.
        why: Option<String>,
    },
    /// Somebody wants something of the device.
    Intent {
        /// How it fares.
        outcome: Standing,
        /// Its rank.
        rank: Rank,
        /// The sender's label.
        source: String,
        /// Which.
        key: IntentKey,
        /// What it asks for.
        asked: Action,
        /// When it ends; `None`: not by itself.
        ends_at: Option<Timestamp>,
        /// Why it does not win.
        why: Option<String>,
    },
    /// A limit took something.
    Limit {
        /// Its name.
        name: &'static str,
        /// Before; `None`: nothing had limited it yet.
        from: Option<f64>,
        /// After.
        to: f64,
        /// `W` or `A`.
        unit: &'static str,
        /// What it goes by.
        why: String,
    },
    /// How far the device got with what it was told.
    Lease {
        /// How far.
        state: LeaseState,
        /// Since when.
        at: Timestamp,
        /// The proof, or the reason.
        text: String,
    },
}

words! {
    /// How an intent fares.
    Standing {
        /// It holds the device.
        Wins = "wins",
        /// Another one is stronger; it goes on when that ends, if its own time is not over.
        Waits = "waits",
        /// The device cannot do it.
        Impossible = "impossible",
    }
}

words! {
    /// How far a device got with what it was told.
    LeaseState {
        /// It acknowledged the writes.
        Written = "written",
        /// Read back from the wire.
        Verified = "verified",
        /// The physical effect is seen.
        Held = "held",
        /// It refused.
        Failed = "failed",
        /// Something else changed it.
        Reverted = "reverted",
    }
}
