//! A decision in words: one sentence for people and the trace behind it. Made only when a decision is told. Pure.

use super::arbiter::{Decision, Holder};
use super::core::Now;
use super::limits::{Bounds, EXPORT};
use super::tell::Lease;
use super::trace::{AMPS, Step, Why};
use super::view::{Freshness, Seen, Unit, View};
use crate::model::{
    Action, ClockState, Decided, DecidedHolder, Demand, DeviceKind, DeviceState, Intent, IntentKey, LeaseState, Order,
    PlanId, Rank, RemoteControl, Standing, Timestamp, TraceStep,
};
use jiff::tz::TimeZone;
use std::time::Duration;

/// May control do anything with the device now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stance {
    /// derd only reads it.
    ReadOnly,
    /// Not enough is known for a first decision.
    Starting,
    Controlled,
}

/// All that there is to say of one device.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) unit: &'a Unit,
    pub(super) seen: &'a Seen,
    pub(super) view: &'a View<'a>,
    pub(super) decision: &'a Decision<'a>,
    /// What it was told.
    pub(super) order: &'a Order,
    pub(super) bounds: Bounds,
    pub(super) zone: &'a TimeZone,
    pub(super) now: Now,
    pub(super) stance: Stance,
    pub(super) state: DeviceState,
    /// Its present trouble.
    pub(super) error: Option<&'a str>,
    /// When it was last heard.
    pub(super) heard: Option<Timestamp>,
    /// When the grid meter was last heard.
    pub(super) grid_heard: Option<Timestamp>,
    /// Has the owner paused remote control.
    pub(super) remote: RemoteControl,
    /// A plan for it that waits for the clock.
    pub(super) blocked: Option<&'a PlanId>,
}

impl Scene<'_> {
    /// Does the grid meter matter for what is decided.
    pub(super) fn needs_grid(&self) -> bool {
        let asked = self.decision.holder.as_ref().map(|h| &h.asked);
        let is_discharge_limited = self.bounds.export_w.is_some() || self.bounds.fuse_a.is_some();
        self.stance == Stance::Controlled
            && match (self.unit.spec.kind, asked) {
                (DeviceKind::Charger, _) | (DeviceKind::Battery, Some(Action::Charge { .. })) => {
                    self.bounds.import_w.is_some()
                }
                (DeviceKind::Battery, Some(Action::Discharge { .. })) => is_discharge_limited,
                (DeviceKind::Inverter, Some(Action::SetExportLimit { .. })) => true,
                (DeviceKind::Inverter, _) => self.bounds.export_w.is_some(),
                _ => false,
            }
    }

    fn grid(&self) -> Option<&Seen> {
        self.view.units.iter().position(Unit::is_grid).and_then(|i| self.view.seen.get(i))
    }

    /// How far the grid meter is known, where it matters.
    pub(super) fn grid_state(&self) -> Option<(bool, Option<Freshness>)> {
        self.needs_grid().then(|| (self.view.grid_w.is_some(), self.grid().map(|g| g.fresh)))
    }

    /// Does its state of charge matter.
    pub(super) fn needs_soc(&self) -> bool {
        let asked = self.decision.holder.as_ref().map(|h| &h.asked);
        matches!(asked, Some(Action::Charge { .. } | Action::Discharge { .. }))
    }

    /// Everything, in words.
    pub(super) fn decided(&self, lease: Option<&Lease>) -> Decided {
        let holder = self.decision.holder.as_ref().filter(|_| self.stance == Stance::Controlled);
        let (demand, then) = match self.order {
            _ if self.stance != Stance::Controlled => (None, None),
            // A standing setting lies in the cell for a moment; what is held is what was decided.
            Order::Hold(s) => (Some(holder.map_or(s.demand(), |h| h.demand)), Some(s.on_end())),
            Order::Wait | Order::Free => (None, None),
        };
        Decided {
            device: self.unit.spec.id.clone(),
            at: self.now.wall,
            clock: self.now.clock,
            sentence: self.sentence(holder, lease),
            holder: holder.map(|h| DecidedHolder {
                source: h.source.clone(),
                rank: h.rank,
                key: h.key.clone(),
                asked: h.asked.clone(),
                applied: h.applied.params.clone(),
                ends_at: self.end(h),
            }),
            demand,
            then,
            limited_by: holder.and_then(|h| h.applied.limited_by.clone()),
            trace: self.trace(lease),
        }
    }

    fn trace(&self, lease: Option<&Lease>) -> Vec<TraceStep> {
        let mut trace = Vec::new();
        if self.needs_grid() {
            trace.push(input("grid_w", self.view.grid_w, self.grid()));
        }
        let phase = self.decision.steps.iter().find_map(|s| match s.why {
            Why::Phase { phase, grid_a, .. } => Some((phase, grid_a)),
            _ => None,
        });
        if let Some((phase, grid_a)) = phase {
            trace.push(TraceStep::Input { name: format!("grid_l{phase}_a"), value: Some(round(grid_a)), why: None });
        }
        if self.needs_grid() {
            trace.push(input("power_w", self.seen.power_w, Some(self.seen)));
        }
        if self.needs_soc() {
            trace.push(input("soc_pct", self.seen.soc_pct, Some(self.seen)));
        }
        if let Some(plan) = self.blocked {
            let why = format!("untrusted: plan {plan} waits");
            trace.push(TraceStep::Input { name: "clock".to_owned(), value: None, why: Some(why) });
        }
        if self.stance == Stance::Controlled {
            self.trace_decision(&mut trace);
        }
        trace.extend(lease.map(|l| TraceStep::Lease { state: l.state, at: l.at, text: l.text() }));
        trace
    }

    fn trace_decision(&self, trace: &mut Vec<TraceStep>) {
        let decision = self.decision;
        let intent = |i: &Intent, outcome, why| TraceStep::Intent {
            outcome,
            rank: i.rank,
            source: i.source.clone(),
            key: i.key.clone(),
            asked: i.action.clone(),
            ends_at: i.ends_at.if_ends().filter(|_| i.why.is_none()),
            why,
        };
        for (i, why) in &decision.impossible {
            trace.push(intent(i, Standing::Impossible, Some(why.clone())));
        }
        if let Some(winner) = decision.winner {
            trace.push(intent(winner, Standing::Wins, winner.why.as_deref().map(str::to_owned)));
            for loser in &decision.losers {
                let why = if winner.rank == loser.rank {
                    format!("{} was accepted later", winner.key)
                } else {
                    format!("{} ranks higher ({})", winner.key, winner.rank)
                };
                trace.push(intent(loser, Standing::Waits, Some(why)));
            }
        }
        for paused in &decision.paused {
            trace.push(intent(paused, Standing::Waits, Some(self.paused())));
        }
        trace.extend(decision.steps.iter().map(|s| TraceStep::Limit {
            name: s.name,
            from: s.from.is_finite().then(|| round(s.from)),
            to: round(s.to),
            unit: s.unit,
            why: why_text(s.why),
        }));
    }

    fn sentence(&self, holder: Option<&Holder>, lease: Option<&Lease>) -> String {
        let name = &self.unit.spec.id;
        match (self.stance, self.unit.spec.kind) {
            (Stance::ReadOnly, DeviceKind::Meter) => return format!("{name} is only read: a meter takes no orders."),
            (Stance::ReadOnly, _) => return format!("{name} is only read: control is not enabled for it."),
            _ if self.state == DeviceState::Quarantined => {
                let why = self.error.unwrap_or("it is not what was commissioned");
                return format!("{name} is only read until somebody looks at it: {}.", why.trim_end_matches('.'));
            }
            (Stance::Starting, _) if self.state != DeviceState::Online => {
                return format!("{name} has not answered yet: it is left as it is.");
            }
            (Stance::Starting, _) => {
                return format!("derd waits for the first values after its start: {name} is left as it is.");
            }
            (Stance::Controlled, _) => {}
        }
        let is_silent = self.state != DeviceState::Online || self.seen.fresh == Freshness::Stale;
        let fault = lease.filter(|l| matches!(l.state, LeaseState::Failed | LeaseState::Reverted));
        let is_sure = !is_silent && fault.is_none_or(|l| l.cause.as_ref() != holder.map(|h| &h.key));
        let mut text = match holder {
            None => self.nobody(is_silent),
            Some(h) => match (&h.key, self.decision.winner) {
                (IntentKey::Limit(limit), _) => self.guarded(h, limit, is_sure),
                (_, Some(winner)) => self.held(h, winner, is_sure),
                (_, None) => self.nobody(is_silent),
            },
        };
        if let Some(lease) = fault {
            let other = lease.cause.as_ref().filter(|c| holder.is_none_or(|h| h.key != **c));
            let what = match (other, lease.state) {
                (Some(cause), _) => format!("{} failed", sentence_start(&cause.to_string())),
                (None, LeaseState::Reverted) => "It was changed by something else".to_owned(),
                (None, _) => "It does not follow".to_owned(),
            };
            text.push_str(&format!(" {what}: {}.", lease.reason.trim_end_matches('.')));
        }
        if is_silent {
            let since = self.heard.map_or_else(String::new, |at| format!(" since {}", self.exactly(at)));
            text.push_str(&format!(" It has not answered{since}: nothing can be told to it now."));
        }
        for (intent, why) in &self.decision.impossible {
            text.push_str(&format!(" {} cannot be done: {why}.", sentence_start(&intent.key.to_string())));
        }
        if let Some(paused) = self.decision.paused.first().filter(|_| holder.is_some()) {
            let waits = sentence_start(&paused.key.to_string());
            text.push_str(&format!(" {waits} waits: {}.", self.paused()));
        }
        if let Some(plan) = self.blocked.filter(|_| holder.is_some()) {
            text.push_str(&format!(" Plan {plan} waits until the clock can be trusted."));
        }
        text
    }

    fn nobody(&self, is_silent: bool) -> String {
        let name = &self.unit.spec.id;
        let mode = if is_silent { "is left to its own mode" } else { "runs in its own mode" };
        if let Some(paused) = self.decision.paused.first() {
            return sentence_start(&format!("{}, so {} waits: {name} {mode}.", self.paused(), paused.key));
        }
        match self.blocked {
            Some(plan) => format!("The clock cannot be trusted yet, so plan {plan} waits: {name} {mode}."),
            None => format!("Nobody asks for anything: {name} {mode}."),
        }
    }

    fn paused(&self) -> String {
        let until = self.remote.until.map_or_else(String::new, |end| self.until(end));
        format!("the owner paused remote control{until}")
    }

    /// Nobody asked, and a limit needs the device held.
    fn guarded(&self, holder: &Holder, limit: &str, is_sure: bool) -> String {
        let (name, does) = (&self.unit.spec.id, does(holder.demand, is_sure));
        let limit = if limit == EXPORT { "export" } else { "import" };
        match self.decision.steps.iter().any(|s| s.why == Why::Blind) {
            true => sentence_start(&format!("{}, so {name} {does}.", self.grid_silence())),
            false => match self.but() {
                Some(but) => format!("{name} {does}: {but}."),
                None => format!("{name} {does}: the {limit} limit was nearly reached a moment ago."),
            },
        }
    }

    fn held(&self, holder: &Holder, winner: &Intent, is_sure: bool) -> String {
        let (name, does) = (&self.unit.spec.id, does(holder.demand, is_sure));
        let what = asked_for(&holder.asked, holder.demand, !self.decision.steps.is_empty());
        let mut text = match (&holder.key, &winner.why) {
            // The owner knows what was asked; the id stands in the trace.
            (IntentKey::Command { .. }, _)
                if winner.rank == Rank::Owner && matches!(winner.source.as_str(), "local" | "page") =>
            {
                format!("{name} {does}: the owner asked for {what}")
            }
            (IntentKey::Command { id, .. }, _) => {
                format!("{name} {does}: {} asked for {what} by command {id}", winner.source)
            }
            (key, Some(why)) => format!("{name} {does}: {key} asks for {what} ({why})"),
            (key, None) => format!("{name} {does}: {key} asks for {what}"),
        };
        let end = self.end(holder);
        if let Some(end) = end {
            text.push_str(&self.until(end));
        }
        if let Some(but) = self.but() {
            text.push_str(&format!(", but {but}"));
        }
        text.push('.');
        let next = self.decision.losers.iter().find(|l| end.is_none_or(|end| l.ends_at > end));
        match (next, end) {
            (Some(next), Some(_)) => {
                text.push_str(&format!(" Then {} goes on ({}).", next.key, next.action.name().replace('_', " ")));
            }
            (Some(next), None) => text.push_str(&format!(" {} waits.", sentence_start(&next.key.to_string()))),
            (None, Some(_)) if holder.demand != Demand::Release => {
                text.push_str(" Then it runs in its own mode again.");
            }
            (None, _) => {}
        }
        text
    }

    /// The end for people: a limit lasts as long as it is needed, a plan that looks at the house until it wants
    /// something else.
    fn end(&self, holder: &Holder) -> Option<Timestamp> {
        let is_open = matches!(holder.key, IntentKey::Limit(_)) || self.decision.is_open();
        holder.end.wall.if_ends().filter(|_| !is_open)
    }

    /// The limit that decided, as a clause.
    fn but(&self) -> Option<String> {
        let (last, before) = self.decision.steps.split_last()?;
        let least = match last.why {
            Why::Minimum { amps } => amps,
            why => return Some(self.clause(why)),
        };
        let least = amount(least, AMPS);
        Some(match before.last() {
            Some(Step { why: why @ (Why::Import { .. } | Why::Phase { .. }), to, .. }) => {
                format!("{} than {}, and it needs at least {least}", self.clause(*why), amount(*to, AMPS))
            }
            Some(step) => format!("{}, and it needs at least {least}", self.clause(step.why)),
            None => format!("it needs at least {least}"),
        })
    }

    fn clause(&self, why: Why) -> String {
        match why {
            Why::Installer => "the installer allows no more".to_owned(),
            Why::Device => "it can do no more".to_owned(),
            Why::Baseline => "what the installer had set in the device is no more".to_owned(),
            Why::Soc { soc, bound } => {
                format!("its charge of {} % has reached the bound of {} %", plain(soc), plain(bound))
            }
            Why::SocUnknown => "its state of charge is not known".to_owned(),
            Why::Import { allowed_w, .. } => format!("the import limit of {} leaves no more", amount(allowed_w, "W")),
            Why::Phase { phase, grid_a, fuse_a } => {
                let (grid, fuse) = (amount(grid_a, AMPS), amount(fuse_a, AMPS));
                format!("the main fuse (phase {phase} carries {grid} of {fuse}) leaves no more")
            }
            Why::Export { allowed_w, .. } => format!("the export limit of {} leaves no more", amount(allowed_w, "W")),
            Why::Blind => self.grid_silence(),
            Why::Unseen => "its own power is not known".to_owned(),
            Why::Minimum { amps } => format!("it needs at least {}", amount(amps, AMPS)),
        }
    }

    fn grid_silence(&self) -> String {
        match self.grid_heard {
            _ if self.grid().is_none() => "no grid meter is configured".to_owned(),
            _ if self.grid().is_some_and(|g| g.fresh == Freshness::Fresh) => {
                "the grid meter does not tell its power".to_owned()
            }
            Some(at) => format!("the grid meter has been silent since {}", self.exactly(at)),
            None => "the grid meter has not answered yet".to_owned(),
        }
    }

    fn until(&self, end: Timestamp) -> String {
        let left = end.since(self.now.wall);
        if self.now.clock == ClockState::Untrusted {
            let minutes = left.as_secs().div_ceil(60);
            return if minutes > 1 {
                format!(" for {minutes} min more")
            } else {
                format!(" for {} s more", left.as_secs())
            };
        }
        if left < Duration::from_secs(120) { format!(" until {}", self.exactly(end)) } else { self.about(end) }
    }

    fn about(&self, at: Timestamp) -> String {
        let (Some(at), Some(now)) = (zoned(at, self.zone), zoned(self.now.wall, self.zone)) else {
            return String::new();
        };
        let format = if at.date() == now.date() { " until %H:%M" } else { " until %a %-d %b, %H:%M" };
        at.strftime(format).to_string()
    }

    fn exactly(&self, at: Timestamp) -> String {
        let (Some(at), Some(now)) = (zoned(at, self.zone), zoned(self.now.wall, self.zone)) else {
            return String::new();
        };
        let format = if at.date() == now.date() { "%H:%M:%S" } else { "%a %-d %b, %H:%M" };
        at.strftime(format).to_string()
    }
}

fn zoned(at: Timestamp, zone: &TimeZone) -> Option<jiff::Zoned> {
    Some(jiff::Timestamp::from_millisecond(at.ms()).ok()?.to_zoned(zone.clone()))
}

fn input(name: &str, value: Option<f64>, seen: Option<&Seen>) -> TraceStep {
    let why = match (value, seen.map(|s| s.fresh)) {
        (Some(_), _) => None,
        (None, Some(Freshness::Fresh)) => Some("unavailable"),
        (None, Some(Freshness::Stale)) => Some("stale"),
        (None, Some(Freshness::Never)) => Some("never_seen"),
        (None, None) => Some("not_configured"),
    };
    TraceStep::Input { name: name.to_owned(), value: value.map(round), why: why.map(str::to_owned) }
}

/// What the device does, or shall do where that is not certain.
fn does(demand: Demand, is_sure: bool) -> String {
    let (does, amount) = match demand {
        Demand::Release => (["runs", "shall run"], "in its own mode".to_owned()),
        Demand::BatteryPower { watts, grid } if watts < 0.0 => {
            let from = if grid { "" } else { " from the sun" };
            (["charges", "shall charge"], format!("with {}{from}", amount(-watts, "W")))
        }
        Demand::BatteryPower { watts, .. } if watts > 0.0 => {
            (["discharges", "shall discharge"], format!("with {}", amount(watts, "W")))
        }
        Demand::BatteryPower { .. } => (["is held", "shall be held"], "at 0 W".to_owned()),
        Demand::Reserve { pct } => (["keeps", "shall keep"], format!("a reserve of {} %", plain(pct))),
        Demand::PowerLimit { watts } => (["produces", "shall produce"], format!("at most {}", amount(watts, "W"))),
        Demand::ChargerCurrent { amps, .. } => {
            (["may charge", "may charge"], format!("with at most {}", amount(amps, AMPS)))
        }
        Demand::ChargerLimit { amps } => (["takes", "shall take"], format!("at most {}", amount(amps, AMPS))),
        Demand::ChargerOff => return if is_sure { "is paused".to_owned() } else { "shall be paused".to_owned() },
    };
    let [sure, unsure] = does;
    format!("{} {amount}", if is_sure { sure } else { unsure })
}

/// What was asked for, behind "asked for": `it` when that is what the device does.
fn asked_for(asked: &Action, demand: Demand, is_clipped: bool) -> String {
    let it = || "it".to_owned();
    match (asked, demand) {
        (Action::Charge { power_w, .. }, Demand::BatteryPower { watts, .. }) if watts < 0.0 => {
            if is_clipped {
                power_w.map_or_else(|| "all it can".to_owned(), |w| amount(w, "W"))
            } else {
                it()
            }
        }
        (Action::Discharge { power_w, .. }, Demand::BatteryPower { watts, .. }) if watts > 0.0 => {
            if is_clipped {
                power_w.map_or_else(|| "all it can".to_owned(), |w| amount(w, "W"))
            } else {
                it()
            }
        }
        (Action::Charge { power_w, .. }, _) => {
            power_w.map_or_else(|| "a charge".to_owned(), |w| format!("a charge with {}", amount(w, "W")))
        }
        (Action::Discharge { power_w, .. }, _) => {
            power_w.map_or_else(|| "a discharge".to_owned(), |w| format!("a discharge with {}", amount(w, "W")))
        }
        (Action::SetExportLimit { power_w }, _) => format!("at most {} into the grid", amount(*power_w, "W")),
        (Action::SetPowerLimit { power_w }, _) if is_clipped => format!("at most {}", amount(*power_w, "W")),
        (Action::SetPowerLimitPct { pct }, _) => format!("at most {} %", plain(*pct)),
        (Action::SetMaxCurrent { current_a, .. }, _) if is_clipped => amount(*current_a, AMPS),
        (Action::Start, Demand::ChargerOff) => "a charge".to_owned(),
        (Action::Start, _) if is_clipped => "all it can".to_owned(),
        _ => it(),
    }
}

fn why_text(why: Why) -> String {
    match why {
        Why::Installer => "set by the installer".to_owned(),
        Why::Device => "the device can do no more".to_owned(),
        Why::Baseline => "that is what the installer had set in the device".to_owned(),
        Why::Soc { soc, bound } => format!("the state of charge is {} %, the bound {} %", plain(soc), plain(bound)),
        Why::SocUnknown => "the state of charge is not known".to_owned(),
        Why::Import { grid_w, allowed_w } => {
            format!("the grid meter shows {}; {} are allowed", amount(grid_w, "W"), amount(allowed_w, "W"))
        }
        Why::Phase { phase, grid_a, fuse_a } => {
            format!("phase {phase} carries {}; {} are allowed", amount(grid_a, AMPS), amount(fuse_a, AMPS))
        }
        Why::Export { grid_w, allowed_w } => {
            format!("the grid meter shows {}; {} may leave the site", amount(grid_w, "W"), amount(allowed_w, "W"))
        }
        Why::Blind => "the grid meter is silent".to_owned(),
        Why::Unseen => "the device does not tell its own power".to_owned(),
        Why::Minimum { amps } => format!("below {} a charger pauses", amount(amps, AMPS)),
    }
}

/// `500 W`, `2.0 kW`, `7 A`, `7.5 A`.
fn amount(value: f64, unit: &str) -> String {
    match unit {
        "W" if value.abs() >= 999.5 => format!("{:.1} kW", round(value / 1000.0)),
        "W" => format!("{:.0} W", value + 0.0),
        _ => format!("{} {unit}", plain(value)),
    }
}

/// With one decimal where there is one.
fn plain(value: f64) -> String {
    format!("{}", round(value))
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0 + 0.0
}

fn sentence_start(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}
