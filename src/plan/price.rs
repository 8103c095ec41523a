//! `kind = "price"` for a charger: the cheapest hours before a deadline.

use super::cheapest::{Slot, Unpriced, cheapest};
use super::strategy::{Forecast, Moment, Outlook, OwnState, Strategy, Wish};
use super::tariff::{Span, Tariff};
use super::weekly::instant;
use crate::model::{Action, Mono, NOMINAL_V, PlanId, PlannedSlot, Timestamp};
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use std::sync::Arc;
use std::time::Duration;

/// A car follows what it is offered within seconds; only then its power says something.
const SETTLE: Duration = Duration::from_secs(60);
/// What rounding may leave of an energy, Wh.
const ENOUGH_WH: f64 = 1.0;
/// `why` names the missing energy anew when it changed by this, Wh.
const RETELL_WH: f64 = 1_000.0;
/// Below this a car does not charge, W.
const CHARGES_W: f64 = 300.0;
/// A plan has this part more time than the energy needs, and this much besides: starts take time, cars grow slower.
const MARGIN: f64 = 0.05;
const MARGIN_TIME: Duration = Duration::from_secs(180);
/// More planned time than this beyond the need is given back.
const TOO_MUCH: Duration = Duration::from_secs(15 * 60);
/// Not more often than this, unless prices, car or deadline changed.
const REPLAN_EVERY: Duration = Duration::from_secs(30);

/// How much a car shall get.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Need {
    /// This energy since it was plugged in, Wh.
    Energy(f64),
    /// As much as it takes in this time.
    Time(Duration),
    /// Up to this state of charge, where the charger knows it; else the energy.
    Soc {
        /// %.
        pct: f64,
        /// Of the car's battery, Wh.
        capacity_wh: f64,
        /// Where the state of charge is not known, Wh.
        else_wh: f64,
    },
}

/// The document.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PriceCharge {
    pub(super) tariff: PlanId,
    pub(super) zone: TimeZone,
    /// Minute of the day.
    pub(super) deadline: usize,
    /// Days of the deadline: bit 0 Monday .. bit 6 Sunday.
    pub(super) days: u8,
    pub(super) need: Need,
    /// What the car takes, W, where the owner says it.
    pub(super) power_w: Option<f64>,
    /// What it is offered, A; `None`: the largest.
    pub(super) current_a: Option<f64>,
    /// Never above this price.
    pub(super) max_price: Option<f64>,
    pub(super) unpriced: Unpriced,
    /// It wants nothing, rather than no charge, outside its hours: somebody else may charge the car then.
    pub(super) leaves_rest: bool,
}

/// What a charge stands at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    NoCar,
    Done,
    /// In this slot of the plan, at any price or not.
    Charge(usize, bool),
    /// For this slot.
    Wait(Option<usize>),
}

/// The document at work.
#[derive(Debug)]
pub(super) struct PriceCharger {
    spec: PriceCharge,
    plan: Vec<Slot>,
    /// The plan uses all the time there is.
    is_all: bool,
    planned_at: Option<Mono>,
    version: Option<u64>,
    deadline: Timestamp,
    was_plugged: bool,
    /// The life counter when the car came, where the charger has no counter of the session.
    came_at_wh: Option<f64>,
    /// What flowed by the power, for a charger without any counter, Wh, and the last reading.
    seen_wh: f64,
    last: Option<(Mono, f64)>,
    /// What the car takes, as measured, W.
    learned_w: Option<f64>,
    charging_since: Option<Mono>,
    state: Option<State>,
    /// The missing energy that `why` tells, Wh.
    said_wh: f64,
    why: Arc<str>,
    forecast: Forecast,
}

impl PriceCharger {
    pub(super) fn new(spec: PriceCharge) -> Self {
        Self {
            spec,
            plan: Vec::new(),
            is_all: false,
            planned_at: None,
            version: None,
            deadline: Timestamp::default(),
            was_plugged: false,
            came_at_wh: None,
            seen_wh: 0.0,
            last: None,
            learned_w: None,
            charging_since: None,
            state: None,
            said_wh: 0.0,
            why: "".into(),
            forecast: Forecast::default(),
        }
    }

    fn amps(&self, own: &OwnState) -> f64 {
        self.spec.current_a.map_or(own.max_current_a, |a| a.min(own.max_current_a))
    }

    /// What the car is expected to take, W.
    fn power(&self, outlook: &Outlook<'_>) -> f64 {
        let nominal = self.amps(&outlook.own) * NOMINAL_V * f64::from(outlook.site_phases);
        self.learned_w.or(self.spec.power_w).unwrap_or(nominal).max(CHARGES_W)
    }

    fn learn(&mut self, now: Mono, own: &OwnState) {
        if let Some((at, watts)) = self.last {
            self.seen_wh += watts * now.since(at).as_secs_f64() / 3600.0;
        }
        self.last = own.power_w.map(|watts| (now, watts.max(0.0)));
        let power = own.power_w.filter(|w| *w >= CHARGES_W);
        match (power, self.charging_since) {
            (Some(power), Some(since))
                if now.since(since) >= SETTLE
                    && self.learned_w.is_none_or(|old| (old - power).abs() > old * MARGIN) =>
            {
                self.learned_w = Some(power);
            }
            (Some(_), None) => self.charging_since = Some(now),
            (None, _) => self.charging_since = None,
            _ => {}
        }
    }

    /// Energy that this car got, Wh; `None` when no counter is read at the moment.
    fn got_wh(&mut self, own: &OwnState) -> Option<f64> {
        if own.session_wh.is_some() {
            return own.session_wh;
        }
        let Some(delivered) = own.delivered_wh else {
            // A charger without any counter: what was seen to flow since the start of derd.
            return own.power_w.map(|_| self.seen_wh);
        };
        let came = *self.came_at_wh.get_or_insert(delivered);
        Some((delivered - came).max(0.0))
    }

    /// Energy still to come, Wh; 0: done.
    fn missing_wh(&mut self, outlook: &Outlook<'_>) -> Option<f64> {
        let power = self.power(outlook);
        let got = self.got_wh(&outlook.own);
        let target = match self.spec.need {
            Need::Energy(wh) => wh,
            Need::Time(time) => time.as_secs_f64() / 3600.0 * power,
            Need::Soc { pct, capacity_wh, else_wh } => match outlook.own.soc_pct {
                Some(soc) => return Some(((pct - soc) / 100.0 * capacity_wh).max(0.0)),
                None => else_wh,
            },
        };
        Some((target - got?).max(0.0))
    }

    /// The next deadline after `t`.
    fn next_deadline(&self, t: Timestamp) -> Timestamp {
        let today = self.spec.zone.to_datetime(instant(t)).date();
        let mut date = Some(today);
        for _ in 0..9 {
            let Some(day) = date else { break };
            if self.spec.days & (1 << day.weekday().to_monday_zero_offset()) != 0
                && let Some(at) = self.at_clock(day).filter(|at| *at > t)
            {
                return at;
            }
            date = day.tomorrow().ok();
        }
        t.plus(Duration::from_secs(24 * 3600))
    }

    fn at_clock(&self, day: Date) -> Option<Timestamp> {
        let (day, minute) =
            if self.spec.deadline >= 24 * 60 { (day.tomorrow().ok()?, 0) } else { (day, self.spec.deadline) };
        let time = Time::new(i8::try_from(minute / 60).ok()?, i8::try_from(minute % 60).ok()?, 0, 0).ok()?;
        let zoned = day.to_datetime(time).to_zoned(self.spec.zone.clone()).ok()?;
        Some(Timestamp::from_ms(zoned.timestamp().as_millisecond()))
    }

    fn planned_left(&self, wall: Timestamp) -> Duration {
        self.plan.iter().map(|s| s.end.since(s.start.max(wall))).sum()
    }

    /// Choose anew where that is needed. `need`: time of charging.
    fn keep_plan(&mut self, now: Mono, wall: Timestamp, need: Duration, is_new: bool, outlook: &Outlook<'_>) {
        let left = self.planned_left(wall);
        let is_short = need > left && !self.is_all;
        let is_long = left > with_margin(need) + TOO_MUCH;
        let is_due = self.planned_at.is_none_or(|at| now.since(at) >= REPLAN_EVERY);
        if !(is_new || ((is_short || is_long) && is_due)) {
            return;
        }
        self.planned_at = Some(now);
        let tariff = outlook.tariffs.get(&self.spec.tariff);
        let spans = tariff.map_or_else(
            || vec![Span { start: wall, end: self.deadline, price: None }],
            |tariff| tariff.spans(wall, self.deadline),
        );
        let wanted = with_margin(need);
        self.plan = cheapest(&spans, wanted, self.spec.unpriced, self.spec.max_price);
        // Slots are whole milliseconds.
        self.is_all = self.planned_left(wall) + Duration::from_secs(1) < wanted;
        self.state = None;
        let planned =
            self.plan.iter().map(|s| PlannedSlot { start: s.start, end: s.end, action: "start", price: s.price });
        self.forecast.planned = planned.collect();
    }

    fn say(&mut self, state: State, wall: Timestamp, missing_wh: f64, tariff: Option<&Tariff>) {
        let zone = &self.spec.zone;
        let clock = |t: Timestamp| zone.to_datetime(instant(t)).strftime("%H:%M").to_string();
        let price = |slot: &Slot| match (slot.price, tariff) {
            (Some(price), Some(tariff)) => format!("{price:.4} {} per kWh", tariff.currency()),
            _ => "no known price".to_owned(),
        };
        let (kwh, until) = (missing_wh / 1000.0, clock(self.deadline));
        let text = match state {
            State::NoCar => "no car is plugged in".to_owned(),
            State::Done => "the car has the energy that was asked for".to_owned(),
            State::Charge(_, true) => {
                format!("{kwh:.1} kWh are missing and time is short: it charges at any price until {until}")
            }
            State::Charge(n, false) => match self.plan.get(n) {
                Some(slot) => {
                    format!("{kwh:.1} kWh are missing before {until}; this hour is among the cheapest: {}", price(slot))
                }
                None => String::new(),
            },
            State::Wait(Some(n)) => match self.plan.get(n) {
                Some(slot) => format!(
                    "{kwh:.1} kWh are missing before {until}; it waits for {}: {}",
                    clock(slot.start),
                    price(slot)
                ),
                None => String::new(),
            },
            State::Wait(None) => format!("{kwh:.1} kWh are missing before {until}, and no hour may be used"),
        };
        self.why = text.into();
        self.forecast.next_change = match state {
            State::Charge(n, _) => self.plan.get(n).map(|slot| block_end(&self.plan, slot.end)),
            State::Wait(Some(n)) => self.plan.get(n).map(|slot| slot.start.max(wall)),
            _ => None,
        };
    }
}

/// The end of the piece that goes on without a break.
fn block_end(plan: &[Slot], mut end: Timestamp) -> Timestamp {
    while let Some(next) = plan.iter().find(|s| s.start == end) {
        end = next.end;
    }
    end
}

fn with_margin(need: Duration) -> Duration {
    if need.is_zero() { need } else { need.mul_f64(1.0 + MARGIN) + MARGIN_TIME }
}

impl Strategy for PriceCharger {
    fn want(&mut self, now: Moment, outlook: &Outlook<'_>) -> Option<Wish> {
        let own = &outlook.own;
        let wall = now.wall?;
        let is_plugged = own.is_plugged.unwrap_or(self.was_plugged);
        self.learn(now.mono, own);
        let mut is_new = self.version != Some(outlook.tariffs_version) || wall >= self.deadline;
        if is_plugged != self.was_plugged {
            (self.came_at_wh, self.learned_w, self.charging_since) = (None, None, None);
            self.seen_wh = 0.0;
            self.was_plugged = is_plugged;
            is_new = true;
        }
        if is_new {
            self.version = Some(outlook.tariffs_version);
            self.deadline = self.next_deadline(wall);
        }
        // A clock that was set back must not leave a plan for the far future.
        is_new |= self.deadline.since(wall) > Duration::from_secs(9 * 24 * 3600);
        let missing = self.missing_wh(outlook);
        let tariff = outlook.tariffs.get(&self.spec.tariff).map(Arc::as_ref);
        let power = self.power(outlook);
        let state = match missing {
            _ if !is_plugged => State::NoCar,
            Some(wh) if wh <= ENOUGH_WH => State::Done,
            // No counter at the moment: as it was.
            None => self.state.unwrap_or(State::Wait(None)),
            Some(wh) => {
                let need = Duration::from_secs_f64((wh / power * 3600.0).clamp(0.0, 1e7));
                self.keep_plan(now.mono, wall, need, is_new || self.planned_at.is_none(), outlook);
                let n = self.plan.partition_point(|s| s.end <= wall);
                let is_short = self.is_all && self.spec.max_price.is_none() && self.spec.unpriced != Unpriced::Never;
                match self.plan.get(n) {
                    Some(slot) if slot.start <= wall => State::Charge(n, is_short),
                    Some(_) => State::Wait(Some(n)),
                    None => State::Wait(None),
                }
            }
        };
        if matches!(state, State::NoCar | State::Done) && !self.plan.is_empty() {
            (self.plan, self.planned_at, self.is_all) = (Vec::new(), None, false);
            self.forecast.planned = Arc::default();
        }
        let left_wh = missing.unwrap_or(self.said_wh);
        // What was missing an hour ago is not true any more.
        if self.state != Some(state) || (left_wh - self.said_wh).abs() >= RETELL_WH {
            self.say(state, wall, left_wh, tariff);
            (self.state, self.said_wh) = (Some(state), left_wh);
        }
        let is_wanting = matches!(state, State::Charge(..) | State::Wait(_));
        self.forecast.is_price_missing = is_wanting && tariff.is_none_or(|t| t.price_at(wall).is_none());
        let (action, expects_w) = match state {
            State::Charge(..) => (Action::SetMaxCurrent { current_a: self.amps(own), phases: None }, Some(power)),
            _ if self.spec.leaves_rest => return None,
            _ => (Action::Stop, Some(0.0)),
        };
        Some(Wish { action, why: Arc::clone(&self.why), expects_w })
    }

    fn forecast(&self) -> &Forecast {
        &self.forecast
    }

    fn why(&self) -> &Arc<str> {
        &self.why
    }

    fn needs_clock(&self) -> bool {
        true
    }
}
