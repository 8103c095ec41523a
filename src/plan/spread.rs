//! `kind = "price"` for a battery: charge in the cheapest hours of a day, discharge in the dearest.

use super::cheapest::{Slot, Unpriced, cheapest};
use super::strategy::{Forecast, Moment, Outlook, Strategy, Wish};
use super::tariff::{Price, Span, Tariff};
use super::weekly::instant;
use crate::model::{Action, PlanId, PlannedSlot, Timestamp};
use jiff::civil::Date;
use std::sync::Arc;
use std::time::Duration;

/// Which hours of a day.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pick {
    None,
    /// Below (charge) or above (discharge) this price, exclusive.
    Price(f64),
    /// So much time, the best first.
    Time(Duration),
}

/// The document.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PriceTrade {
    pub(super) tariff: PlanId,
    pub(super) charge: Pick,
    pub(super) discharge: Pick,
    /// W; `None`: the device's largest.
    pub(super) charge_w: Option<f64>,
    pub(super) discharge_w: Option<f64>,
    pub(super) min_soc_pct: Option<f64>,
    pub(super) max_soc_pct: Option<f64>,
    /// What comes out of what went in, 0 to 1.
    pub(super) efficiency: f64,
    /// Outside of both: hold at 0 W instead of its own mode.
    pub(super) holds: bool,
}

/// The document at work.
#[derive(Debug)]
pub(super) struct PriceBattery {
    spec: PriceTrade,
    version: Option<u64>,
    today: Option<Date>,
    /// Today and tomorrow: charge (true) or discharge, in order.
    plan: Vec<(bool, Slot)>,
    at: Option<Option<usize>>,
    why: Arc<str>,
    forecast: Forecast,
}

impl PriceBattery {
    pub(super) fn new(spec: PriceTrade) -> Self {
        let (why, forecast) = (Arc::from(""), Forecast::default());
        Self { spec, version: None, today: None, plan: Vec::new(), at: None, why, forecast }
    }

    fn make_plan(&mut self, today: Date, tariff: &Tariff) {
        self.plan.clear();
        let mut day = today;
        for _ in 0..2 {
            let Ok(next) = day.tomorrow() else { break };
            let (Some(start), Some(end)) = (tariff.midnight(day), tariff.midnight(next)) else { break };
            self.plan.extend(trade(&self.spec, &tariff.spans(start, end)));
            day = next;
        }
        let planned = self.plan.iter().map(|(is_charge, slot)| PlannedSlot {
            start: slot.start,
            end: slot.end,
            action: if *is_charge { "charge" } else { "discharge" },
            price: slot.price,
        });
        self.forecast.planned = planned.collect();
    }

    fn say(&mut self, at: Option<usize>, wall: Timestamp, tariff: &Tariff) {
        let price = |slot: &Slot| format!("{:.4} {} per kWh", slot.price.unwrap_or(f64::NAN), tariff.currency());
        let next = self.plan.iter().find(|(_, slot)| slot.start > wall);
        let text = match at.and_then(|n| self.plan.get(n)) {
            Some((true, slot)) => format!("this hour is among the cheapest of the day: {}", price(slot)),
            Some((false, slot)) => format!("this hour is among the dearest of the day: {}", price(slot)),
            None => match next {
                Some((is_charge, slot)) => {
                    let time = tariff.zone().to_datetime(instant(slot.start)).strftime("%H:%M");
                    let what = if *is_charge { "charges" } else { "discharges" };
                    format!("it {what} from {time}: {}", price(slot))
                }
                None => "no spread of today's prices pays for the losses".to_owned(),
            },
        };
        self.why = text.into();
        self.forecast.next_change = match at.and_then(|n| self.plan.get(n)) {
            Some((_, slot)) => Some(slot.end),
            None => next.map(|(_, slot)| slot.start),
        };
    }
}

/// The slots of one day, in order. Every discharge pays for every charge, losses included.
fn trade(spec: &PriceTrade, spans: &[Span]) -> Vec<(bool, Slot)> {
    let known: Vec<Span> = spans.iter().filter(|s| s.price.is_some()).copied().collect();
    let mut charge = pick(&known, spec.charge);
    // The dearest are the cheapest of the day turned upside down.
    let upside: Vec<Span> = known.iter().map(turned).collect();
    let turned_pick = if let Pick::Price(p) = spec.discharge { Pick::Price(-p) } else { spec.discharge };
    let mut discharge = pick(&upside, turned_pick);
    for slot in &mut discharge {
        slot.price = slot.price.map(|p| 0.0 - p);
    }
    // Where both want the same time there is no spread.
    discharge.retain(|d| !charge.iter().any(|c| c.start < d.end && d.start < c.end));
    let price = |slot: &Slot| slot.price.unwrap_or(0.0);
    charge.sort_by(|a, b| price(a).total_cmp(&price(b)).then(a.start.cmp(&b.start)));
    discharge.sort_by(|a, b| price(b).total_cmp(&price(a)).then(a.start.cmp(&b.start)));
    while let (Some(dearest), Some(cheapest)) = (charge.last(), discharge.last()) {
        // Bought for less than nothing pays whatever it is sold for.
        if price(cheapest) * spec.efficiency > price(dearest) {
            break;
        }
        charge.pop();
        discharge.pop();
    }
    let wants_both = spec.charge != Pick::None && spec.discharge != Pick::None;
    if wants_both && (charge.is_empty() || discharge.is_empty()) {
        // What it is left with alone would be bought for nothing, or was never bought.
        charge.clear();
        discharge.clear();
    }
    let mut all: Vec<(bool, Slot)> = charge.into_iter().map(|s| (true, s)).collect();
    all.extend(discharge.into_iter().map(|s| (false, s)));
    all.sort_by_key(|(_, s)| s.start);
    all
}

fn turned(span: &Span) -> Span {
    Span { price: span.price.map(|p| Price { import: 0.0 - p.import, export: None }), ..*span }
}

fn pick(spans: &[Span], pick: Pick) -> Vec<Slot> {
    match pick {
        Pick::None => Vec::new(),
        Pick::Time(time) => cheapest(spans, time, Unpriced::Never, None),
        Pick::Price(below) => {
            let day = Duration::from_secs(30 * 3600);
            let is_below = |s: &&Span| s.price.is_some_and(|p| p.import < below);
            cheapest(&spans.iter().filter(is_below).copied().collect::<Vec<_>>(), day, Unpriced::Never, None)
        }
    }
}

impl Strategy for PriceBattery {
    fn want(&mut self, now: Moment, outlook: &Outlook<'_>) -> Option<Wish> {
        let wall = now.wall?;
        let Some(tariff) = outlook.tariffs.get(&self.spec.tariff) else {
            self.forecast = Forecast { is_price_missing: true, ..Forecast::default() };
            self.version = None;
            return None;
        };
        let today = tariff.date(wall);
        if self.version != Some(outlook.tariffs_version) || self.today != Some(today) {
            (self.version, self.today, self.at) = (Some(outlook.tariffs_version), Some(today), None);
            self.make_plan(today, tariff);
        }
        self.forecast.is_price_missing = tariff.price_at(wall).is_none();
        let n = self.plan.partition_point(|(_, s)| s.end <= wall);
        let at = self.plan.get(n).filter(|(_, s)| s.start <= wall).map(|_| n);
        if self.at != Some(at) {
            self.say(at, wall, tariff);
            self.at = Some(at);
        }
        let (min_soc_pct, max_soc_pct) = (self.spec.min_soc_pct, self.spec.max_soc_pct);
        let action = match at.and_then(|n| self.plan.get(n)) {
            Some((true, _)) => Action::Charge { power_w: self.spec.charge_w, min_soc_pct, max_soc_pct, grid: true },
            Some((false, _)) => Action::Discharge { power_w: self.spec.discharge_w, min_soc_pct, max_soc_pct },
            None if self.spec.holds => Action::Idle,
            None => return None,
        };
        Some(Wish { action, why: Arc::clone(&self.why), expects_w: None })
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
