//! Documents that look at the house before they want something: one trait for all of them.

use super::tariff::Tariff;
use crate::model::{Action, Mono, PlanId, PlannedSlot, Timestamp};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The tariffs in force, by the id of their document.
pub type Tariffs = BTreeMap<PlanId, Arc<Tariff>>;

/// One instant on both clocks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// What delays are counted on.
    pub mono: Mono,
    /// What prices and deadlines are looked up with; `None` while the wall clock is not to be trusted.
    pub wall: Option<Timestamp>,
}

/// What is known of the document's own device. Every number is fresh, or absent.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct OwnState {
    /// Power, W: of a charger + into the car, of a battery + = discharging.
    pub power_w: Option<f64>,
    /// Current per phase, A, magnitudes.
    pub phase_a: [Option<f64>; 3],
    /// Is a car at the charger; `None`: not known.
    pub is_plugged: Option<bool>,
    /// Energy since the car was plugged in, Wh, by the charger's own counter.
    pub session_wh: Option<f64>,
    /// Energy in the charger's life, Wh.
    pub delivered_wh: Option<f64>,
    /// State of charge of the battery, or of the car where the charger knows it, %.
    pub soc_pct: Option<f64>,
    /// Smallest current it charges with, A.
    pub min_current_a: f64,
    /// Largest current it may be told, A.
    pub max_current_a: f64,
    /// Can it be told to use one phase or three.
    pub can_switch_phases: bool,
}

/// All batteries of the site together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Batteries {
    /// W, + = discharging; `None` when one of them is null or stale.
    pub power_w: Option<f64>,
    /// The lowest state of charge among them, %.
    pub soc_pct: Option<f64>,
}

/// The picture that a strategy looks at.
#[derive(Debug, Clone, Copy)]
pub struct Outlook<'a> {
    /// Grid power, W, + = import, with what other strategies took in this cycle already counted; `None` when null or stale.
    pub grid_w: Option<f64>,
    /// The document's device.
    pub own: OwnState,
    /// `None`: the site has no battery.
    pub batteries: Option<Batteries>,
    /// Phases of the site: 1 or 3.
    pub site_phases: u8,
    /// The tariffs in force.
    pub tariffs: &'a Tariffs,
    /// Changes whenever a tariff came, went or was replaced.
    pub tariffs_version: u64,
}

/// What a strategy wants now.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// What.
    pub action: Action,
    /// In words, for people; its numbers change only when the wish does.
    pub why: Arc<str>,
    /// What the device is expected to draw with it, W, where that is known.
    pub expects_w: Option<f64>,
}

/// What a strategy says of its plans.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Forecast {
    /// When it next wants something else, as far as known now.
    pub next_change: Option<Timestamp>,
    /// What it means to do and at which price, in order of time.
    pub planned: Arc<[PlannedSlot]>,
    /// It had to plan over time without a known price.
    pub is_price_missing: bool,
}

/// A document that looks at the house. Pure but for its own memory: time and picture are arguments. Asked once in each
/// control cycle, so it works out anew only what changed.
pub trait Strategy: fmt::Debug + Send {
    /// What it wants now; `None`: nothing.
    fn want(&mut self, now: Moment, outlook: &Outlook<'_>) -> Option<Wish>;

    /// What it means to do.
    fn forecast(&self) -> &Forecast;

    /// Why it wants what it wants, or nothing, in words.
    fn why(&self) -> &Arc<str>;

    /// Does it go by the wall clock.
    fn needs_clock(&self) -> bool;
}
