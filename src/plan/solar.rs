//! `kind = "solar"`: a charger follows what the sun leaves over.
//!
//! ```text
//!            surplus >= start_w for start_after
//!  paused ------------------------------------------> running (amps follow the surplus, whole amperes)
//!     ^                                                 |    ^
//!     |  surplus < stop_w for stop_after                |    |  no current, or 60 s
//!     +-------------------------------------------------+    |
//!                                                       v    |
//!                                                    switching (paused, then the other number of phases)
//! ```

use super::strategy::{Forecast, Moment, Outlook, OwnState, Strategy, Wish};
use crate::model::{Action, Mono, NOMINAL_V};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Meter and charger are read at different instants, and a car follows within 5 s: what is seen sooner is an echo.
const SETTLE: Duration = Duration::from_secs(10);
/// Less sun than it takes for so long is told.
const FADES: Duration = Duration::from_secs(45);
/// More surplus must last so long before the current rises: each step is a write.
const RISE: Duration = Duration::from_secs(20);
/// Less surplus must last so long before the current falls.
const FALL: Duration = Duration::from_secs(5);
/// A pause for the change of phases ends when no current flows, and at the latest after this.
const PAUSE_MOST: Duration = Duration::from_secs(60);
/// It lasts at least this long: contactors and cars need it.
const PAUSE_LEAST: Duration = Duration::from_secs(15);
/// Between two changes of the phases, however much they would gain.
const SWITCH_GAP: Duration = Duration::from_secs(15 * 60);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Below this a phase carries no charge, A.
const FLOWS_A: f64 = 2.0;
/// A silent meter for so long stops the charge: a lost answer or two does not.
const BLIND: Duration = Duration::from_secs(20);
/// A battery that comes first above this state of charge comes first again this far below it, %.
const SOC_HYSTERESIS: f64 = 3.0;

/// Phases to charge on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phases {
    Auto,
    One,
    Three,
}

/// The document.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SolarCharge {
    pub(super) min_current_a: Option<f64>,
    pub(super) max_current_a: Option<f64>,
    /// `None`: what the smallest current takes.
    pub(super) start_w: Option<f64>,
    pub(super) start_after: Duration,
    /// `None`: what the smallest current takes.
    pub(super) stop_w: Option<f64>,
    pub(super) stop_after: Duration,
    pub(super) phases: Phases,
    /// More or less surplus must last so long before the phases change.
    pub(super) switch_after: Duration,
    pub(super) switches_per_day: usize,
    /// The battery charges before the car.
    pub(super) battery_first: bool,
    /// The car comes first from this state of charge of the battery on, %.
    pub(super) battery_above_soc_pct: Option<f64>,
    /// Always the smallest current at least.
    pub(super) min_solar: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Paused,
    Running,
    /// Paused until the phases may change, since when.
    Switching(Mono),
}

/// Something that must last.
#[derive(Debug, Clone, Copy, Default)]
struct Lasting(Option<Mono>);

impl Lasting {
    fn is_for(&mut self, holds: bool, time: Duration, now: Mono) -> bool {
        if !holds {
            self.0 = None;
            return false;
        }
        now.since(*self.0.get_or_insert(now)) >= time
    }
}

/// Why, without numbers that change.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reason {
    NoCar,
    Blind,
    Scarce,
    Follows(i64, u8),
    /// There is less than it takes, for a while by now.
    Fades,
    Least(i64, u8),
    Switches(u8),
}

/// The document at work.
#[derive(Debug)]
pub(super) struct Solar {
    spec: SolarCharge,
    state: Option<State>,
    amps: f64,
    /// What the charger is told; 3 where it cannot be told.
    phases: u8,
    changed: Option<Mono>,
    start: Lasting,
    stop: Lasting,
    up: Lasting,
    down: Lasting,
    blind: Lasting,
    /// The least, or the most, that the target was while it was above, or below, what is told.
    rise_to: f64,
    fall_to: f64,
    switch: Lasting,
    switched: VecDeque<Mono>,
    /// The car draws on one phase although it is offered three.
    single: Lasting,
    is_single: bool,
    is_car_first: bool,
    reason: Option<Reason>,
    why: Arc<str>,
    forecast: Forecast,
}

impl Solar {
    pub(super) fn new(spec: SolarCharge) -> Self {
        let phases = if spec.phases == Phases::Three { 3 } else { 1 };
        Self {
            spec,
            state: None,
            amps: 0.0,
            phases,
            changed: None,
            start: Lasting::default(),
            stop: Lasting::default(),
            up: Lasting::default(),
            down: Lasting::default(),
            blind: Lasting::default(),
            rise_to: 0.0,
            fall_to: 0.0,
            switch: Lasting::default(),
            switched: VecDeque::new(),
            single: Lasting::default(),
            is_single: false,
            is_car_first: false,
            reason: None,
            why: "".into(),
            forecast: Forecast::default(),
        }
    }

    /// What the sun leaves over for the car, W; `None` when a part of it is not known.
    fn surplus(&mut self, outlook: &Outlook<'_>) -> Option<f64> {
        let own = outlook.own.power_w?;
        let base = own - outlook.grid_w?;
        let Some(batteries) = outlook.batteries else { return Some(base) };
        // What a battery gives is not of the sun; what it takes is the car's where the car comes first.
        let power = batteries.power_w?;
        self.is_car_first = match self.spec.battery_above_soc_pct {
            None => !self.spec.battery_first,
            Some(above) => {
                let edge = if self.is_car_first { above - SOC_HYSTERESIS } else { above };
                batteries.soc_pct.is_some_and(|soc| soc >= edge)
            }
        };
        Some(base - if self.is_car_first { power } else { power.max(0.0) })
    }

    /// Phases that carry current.
    fn active(own: &OwnState) -> usize {
        own.phase_a.iter().flatten().filter(|a| **a >= FLOWS_A).count()
    }

    /// The phases that a charge has, as far as measured, else as told.
    fn in_use(&self, own: &OwnState) -> f64 {
        match Self::active(own) {
            n @ 1..=3 => f64::from(u8::try_from(n).unwrap_or(3)),
            _ if self.is_single => 1.0,
            _ => f64::from(self.phases),
        }
    }

    /// W that one ampere makes.
    fn watts_per_amp(&self, own: &OwnState) -> f64 {
        let amps: f64 = own.phase_a.iter().flatten().filter(|a| **a >= FLOWS_A).sum();
        let phases = self.in_use(own);
        match own.power_w {
            // Measured: voltage and all.
            Some(watts) if amps > 0.0 && (180.0..260.0).contains(&(watts / amps)) => watts / amps * phases,
            _ => NOMINAL_V * phases,
        }
    }

    fn min_a(&self, own: &OwnState) -> f64 {
        self.spec.min_current_a.unwrap_or(0.0).max(own.min_current_a).ceil()
    }

    fn max_a(&self, own: &OwnState) -> f64 {
        self.spec.max_current_a.unwrap_or(f64::INFINITY).min(own.max_current_a).floor()
    }

    fn may_switch(&self, own: &OwnState, now: Mono) -> bool {
        self.spec.phases == Phases::Auto
            && own.can_switch_phases
            && !self.is_single
            && self.switched.len() < self.spec.switches_per_day
            && self.switched.back().is_none_or(|last| now.since(*last) >= SWITCH_GAP)
    }

    fn told_phases(&self, own: &OwnState) -> Option<u8> {
        own.can_switch_phases.then_some(self.phases)
    }

    /// The phases at the begin, and what a charge on this number of phases takes at least, W.
    fn least_w(&self, own: &OwnState, phases: u8) -> f64 {
        self.min_a(own) * NOMINAL_V * f64::from(if self.is_single { 1 } else { phases })
    }

    fn begin(&mut self, now: Mono, own: &OwnState, outlook: &Outlook<'_>) {
        let site = outlook.site_phases.min(3);
        if !own.can_switch_phases {
            self.phases = if self.spec.phases == Phases::One || site == 1 { 1 } else { 3 };
        }
        // After a restart a charge goes on as it is.
        let is_charging = own.power_w.is_some_and(|w| w > 500.0) && own.is_plugged != Some(false);
        if is_charging {
            let largest = own.phase_a.iter().flatten().copied().fold(0.0, f64::max);
            let active = Self::active(own);
            if own.can_switch_phases && self.spec.phases == Phases::Auto && active > 0 {
                self.phases = if active == 1 { 1 } else { 3 };
            }
            self.amps = if largest > 0.0 { largest.round() } else { self.min_a(own) };
            self.amps = self.amps.clamp(self.min_a(own), self.max_a(own).max(self.min_a(own)));
            self.changed = Some(now);
        }
        self.state = Some(if is_charging || self.spec.min_solar { State::Running } else { State::Paused });
        self.amps = self.amps.max(self.min_a(own));
    }

    fn unplugged(&mut self) {
        (self.start, self.stop, self.up, self.down) = Default::default();
        (self.single, self.switch, self.is_single) = Default::default();
    }

    /// The current follows what there is, up slowly and down soon.
    fn follow(&mut self, target: f64, now: Mono) {
        if self.changed.is_some_and(|at| now.since(at) < SETTLE) {
            (self.up, self.down) = Default::default();
            return;
        }
        let (is_up, is_down) = (target > self.amps, target < self.amps);
        self.rise_to = if self.up.0.is_some() { self.rise_to.min(target) } else { target };
        self.fall_to = if self.down.0.is_some() { self.fall_to.max(target) } else { target };
        if self.up.is_for(is_up, RISE, now) {
            self.set(self.rise_to, now);
        } else if self.down.is_for(is_down, FALL, now) {
            self.set(self.fall_to, now);
        }
    }

    fn set(&mut self, amps: f64, now: Mono) {
        self.amps = amps;
        self.changed = Some(now);
        (self.up, self.down) = Default::default();
    }

    /// One step of the machine with a known surplus.
    fn step(&mut self, surplus: f64, now: Mono, own: &OwnState) {
        let (min, max) = (self.min_a(own), self.max_a(own));
        let target = (surplus / self.watts_per_amp(own)).floor().clamp(min, max.max(min));
        while self.switched.front().is_some_and(|at| now.since(*at) >= DAY) {
            self.switched.pop_front();
        }
        match self.state {
            Some(State::Switching(since)) => {
                let is_still = own.power_w.is_some_and(|w| w < 100.0) && now.since(since) >= PAUSE_LEAST;
                if is_still || now.since(since) >= PAUSE_MOST {
                    self.phases = if self.phases == 1 { 3 } else { 1 };
                    self.state = Some(State::Running);
                    // Not more than there is: from the smallest on.
                    self.set(min, now);
                    (self.stop, self.switch, self.single) = Default::default();
                }
            }
            Some(State::Running) => {
                let is_odd = self.phases == 3 && Self::active(own) == 1;
                if self.single.is_for(is_odd, Duration::from_secs(60), now) {
                    self.is_single = true;
                }
                self.follow(target, now);
                let wants_three = self.phases == 1 && surplus >= self.least_w(own, 3) && self.amps >= max;
                let wants_one = self.phases == 3 && surplus < self.least_w(own, 3) && surplus >= self.least_w(own, 1);
                let may = self.may_switch(own, now);
                let least = self.spec.stop_w.unwrap_or_else(|| self.min_a(own) * self.watts_per_amp(own));
                let is_over = self.stop.is_for(surplus < least && !self.spec.min_solar, self.spec.stop_after, now);
                let is_due = self.switch.is_for((wants_three || wants_one) && may, self.spec.switch_after, now);
                // One phase rather than none.
                if is_due || (is_over && wants_one && may) {
                    self.switched.push_back(now);
                    self.state = Some(State::Switching(now));
                } else if is_over {
                    self.state = Some(State::Paused);
                    (self.start, self.stop, self.switch) = Default::default();
                }
            }
            Some(State::Paused) | None => {
                let other = if self.phases == 1 { 3 } else { 1 };
                let smaller = if self.may_switch(own, now) { self.phases.min(other) } else { self.phases };
                let from = self.spec.start_w.unwrap_or_else(|| self.least_w(own, smaller));
                if self.start.is_for(surplus >= from, self.spec.start_after, now) || self.spec.min_solar {
                    let fitting = if surplus >= self.least_w(own, 3) { 3 } else { 1 };
                    if fitting != self.phases && self.may_switch(own, now) {
                        self.switched.push_back(now);
                        self.phases = fitting;
                    }
                    self.state = Some(State::Running);
                    let target = (surplus / self.watts_per_amp(own)).floor().clamp(min, max.max(min));
                    self.set(target, now);
                    (self.start, self.stop) = Default::default();
                }
            }
        }
    }

    fn wish(&mut self, reason: Reason, own: &OwnState) -> Wish {
        if self.reason != Some(reason) {
            let on = |phases: u8| if phases == 1 { "one phase" } else { "three phases" };
            self.why = match reason {
                Reason::NoCar => "no car is plugged in".into(),
                Reason::Blind => {
                    "the surplus is not known: the grid meter, the charger or the battery is silent".into()
                }
                Reason::Scarce => "the sun leaves too little over".into(),
                Reason::Follows(amps, phases) => {
                    format!("the sun leaves enough over for {amps} A on {}", on(phases)).into()
                }
                Reason::Fades => {
                    "the sun leaves too little over by now: it stops if that stays so, or goes on with less".into()
                }
                Reason::Least(amps, phases) => {
                    format!("at least {amps} A on {} whatever the sun does", on(phases)).into()
                }
                Reason::Switches(phases) => format!("it pauses to change to {}", on(phases)).into(),
            };
            self.reason = Some(reason);
        }
        let (action, expects_w) = match reason {
            Reason::Follows(..) | Reason::Fades | Reason::Least(..) => {
                let action = Action::SetMaxCurrent { current_a: self.amps, phases: self.told_phases(own) };
                (action, self.amps * self.watts_per_amp(own))
            }
            _ => (Action::Stop, 0.0),
        };
        Wish { action, why: Arc::clone(&self.why), expects_w: Some(expects_w) }
    }
}

impl Strategy for Solar {
    fn want(&mut self, now: Moment, outlook: &Outlook<'_>) -> Option<Wish> {
        let (own, now) = (&outlook.own, now.mono);
        if self.state.is_none() {
            // Nothing is known of the charger yet: it goes on as it is.
            own.power_w?;
            self.begin(now, own, outlook);
        }
        let surplus = self.surplus(outlook);
        if own.is_plugged == Some(false) {
            self.unplugged();
            self.state = Some(if self.spec.min_solar { State::Running } else { State::Paused });
            self.amps = self.min_a(own);
            return Some(self.wish(Reason::NoCar, own));
        }
        let is_blind = self.blind.is_for(surplus.is_none(), BLIND, now);
        match surplus {
            Some(surplus) => self.step(surplus, now, own),
            None if is_blind => {
                self.set(self.min_a(own), now);
                (self.start, self.stop, self.switch) = Default::default();
                if !self.spec.min_solar {
                    self.state = Some(State::Paused);
                    return Some(self.wish(Reason::Blind, own));
                }
            }
            None => {}
        }
        let whole = |amps: f64| format!("{amps:.0}").parse().unwrap_or(0);
        let (amps, phases) = (whole(self.amps), self.phases);
        let reason = match self.state {
            Some(State::Switching(_)) => Reason::Switches(if phases == 1 { 3 } else { 1 }),
            Some(State::Running) if self.spec.min_solar && self.amps <= self.min_a(own) => Reason::Least(amps, phases),
            // A short cloud is not worth a word.
            Some(State::Running) if self.stop.0.is_some_and(|since| now.since(since) >= FADES) => Reason::Fades,
            Some(State::Running) => Reason::Follows(amps, phases),
            _ => Reason::Scarce,
        };
        Some(self.wish(reason, own))
    }

    fn forecast(&self) -> &Forecast {
        &self.forecast
    }

    fn why(&self) -> &Arc<str> {
        &self.why
    }

    fn needs_clock(&self) -> bool {
        false
    }
}
