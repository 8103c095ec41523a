//! Periodical and dynamic tariffs as `tariff` documents: prices over time.
//!
//! Neither the unit nor the direction of a price is stated: currency per kWh of power bought is taken.

use super::wire::{DynamicTariff, Exception, PeriodicalTariff, PricedAt, PricingPeriod, Rate};
use crate::model::Timestamp;
use crate::uplink::mapping::{Fate, MINUTES_PER_DAY, Mapped, hour_minute, plan_id, shown};
use jiff::civil::Date;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Native names of days, Monday first.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const LONG_DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// Read a periodical tariff. Its dates and times are in `zone`, the time zone of the site.
#[must_use]
pub fn periodical(answer: &Value, zone: Option<&str>) -> Mapped {
    let mut warnings = Vec::new();
    let read = PeriodicalTariff::deserialize(answer);
    let id = read.as_ref().ok().and_then(|t| t.tariff_id.as_deref().or(t.name.as_deref())).unwrap_or("nameless");
    let plan = plan_id(&["gridshare", "tariff", id]);
    let tariff = match read {
        Ok(tariff) => tariff,
        Err(why) => return Mapped { plan, fate: Fate::Reject(vec![why.to_string()]), warnings },
    };
    let periods = periods(tariff.pricing_periods.as_deref().unwrap_or_default(), &mut warnings);
    if periods.is_empty() {
        return Mapped { plan, fate: Fate::Drop("the tariff says no price".to_owned()), warnings };
    }
    let mut document = document(&plan, tariff.currency.as_deref(), &mut warnings);
    if let Some(zone) = zone {
        document.insert("timezone".to_owned(), json!(zone));
    }
    document.insert("periods".to_owned(), Value::Array(periods));
    Mapped { plan, fate: Fate::Take(Value::Object(document)), warnings }
}

/// Read a dynamic tariff from its pages, in their order. A value of a later page replaces one of an earlier page.
#[must_use]
pub fn dynamic(pages: &[Value]) -> Mapped {
    let mut warnings = Vec::new();
    let mut faults = Vec::new();
    let (mut id, mut currency) = (None, None);
    let mut values = BTreeMap::new();
    for page in pages {
        let page = match DynamicTariff::deserialize(page) {
            Ok(page) => page,
            Err(why) => {
                faults.push(why.to_string());
                continue;
            }
        };
        id = id.or(page.tariff_id).or(page.name);
        currency = currency.or(page.currency);
        for value in page.values.iter().flatten() {
            match priced_at(value) {
                Ok((at, price)) => drop(values.insert(at, price)),
                Err(why) => warnings.push(format!("a value is left out: {why}")),
            }
        }
    }
    let plan = plan_id(&["gridshare", "tariff", id.as_deref().unwrap_or("nameless")]);
    if !faults.is_empty() {
        return Mapped { plan, fate: Fate::Reject(faults), warnings };
    }
    if values.is_empty() {
        return Mapped { plan, fate: Fate::Drop("the tariff says no price".to_owned()), warnings };
    }
    // Each holds to the next one, the last as long as the one before it, at most an hour: the rule of `tariff` documents.
    let values = values.into_iter().map(|(at, price)| json!({"start": at.to_string(), "price": price})).collect();
    let mut document = document(&plan, currency.as_deref(), &mut warnings);
    document.insert("values".to_owned(), Value::Array(values));
    Mapped { plan, fate: Fate::Take(Value::Object(document)), warnings }
}

fn document(plan: &str, currency: Option<&str>, warnings: &mut Vec<String>) -> Map<String, Value> {
    let mut document = Map::new();
    document.insert("id".to_owned(), json!(plan));
    document.insert("kind".to_owned(), json!("tariff"));
    match currency {
        Some(currency) => drop(document.insert("currency".to_owned(), json!(currency))),
        None => warnings.push("the tariff names no currency".to_owned()),
    }
    document
}

fn priced_at(value: &Value) -> Result<(Timestamp, f64), String> {
    let value = PricedAt::deserialize(value).map_err(|why| why.to_string())?;
    let at = value.timestamp.ok_or("timestamp is missing")?.parse().map_err(|why| format!("timestamp: {why}"))?;
    Ok((at, value.price.ok_or("price is missing")?))
}

/// A period as it was read: from, to, and the rest in its native form.
struct Read {
    from: Date,
    to: Option<Date>,
    rates: Vec<Value>,
    exceptions: Vec<(Date, Date, f64)>,
}

fn periods(listed: &[Value], warnings: &mut Vec<String>) -> Vec<Value> {
    let mut read: Vec<Read> = Vec::new();
    for (n, period) in listed.iter().enumerate() {
        match period_of(period, n, warnings) {
            Ok(period) => read.push(period),
            Err(why) => warnings.push(format!("pricingPeriods[{n}] is left out: {why}")),
        }
    }
    read.sort_by_key(|p| p.from);
    // An end is exclusive, unless that would leave days without a price between two periods.
    let has_hole = |pair: &[Read]| matches!(pair, [a, b] if a.to.and_then(|to| to.tomorrow().ok()) == Some(b.from));
    if read.windows(2).any(has_hole) {
        warnings.push(
            "the last days of periods are taken to belong to them, as days between them would have no price".to_owned(),
        );
        for period in &mut read {
            period.to = period.to.and_then(|to| to.tomorrow().ok());
            for (_, to, _) in &mut period.exceptions {
                *to = to.tomorrow().unwrap_or(*to);
            }
        }
    }
    // A later period closes one that is open, or that reaches into it.
    let starts: Vec<_> = read.iter().skip(1).map(|p| p.from).collect();
    for (period, next) in read.iter_mut().zip(starts) {
        period.to = Some(period.to.map_or(next, |to| to.min(next)));
    }
    read.into_iter()
        .filter(|p| p.to.is_none_or(|to| p.from < to))
        .map(|p| {
            let exceptions: Vec<_> = p
                .exceptions
                .into_iter()
                .map(|(from, to, price)| {
                    // Whole days, at least one.
                    let to = if to > from { to } else { from.tomorrow().unwrap_or(from) };
                    json!({"from": from.to_string(), "to": to.to_string(), "price": price})
                })
                .collect();
            json!({"from": p.from.to_string(), "to": p.to.map(|to| to.to_string()), "rates": p.rates, "exceptions": exceptions})
        })
        .collect()
}

fn period_of(period: &Value, n: usize, warnings: &mut Vec<String>) -> Result<Read, String> {
    let period = PricingPeriod::deserialize(period).map_err(|why| why.to_string())?;
    let from = date("start", period.start.as_deref())?.ok_or("start is missing")?;
    let to = date("end", period.end.as_deref())?;
    let mut read = Read { from, to, rates: Vec::new(), exceptions: Vec::new() };
    for (m, item) in period.rates.iter().flatten().enumerate() {
        match rate(item) {
            Ok(rate) => read.rates.push(rate),
            Err(why) => warnings.push(format!("pricingPeriods[{n}].rates[{m}] is left out: {why}")),
        }
    }
    for (m, item) in period.exceptions.iter().flatten().enumerate() {
        match exception(item) {
            Ok(exception) => read.exceptions.push(exception),
            Err(why) => warnings.push(format!("pricingPeriods[{n}].exceptions[{m}] is left out: {why}")),
        }
    }
    Ok(read)
}

fn date(key: &str, text: Option<&str>) -> Result<Option<Date>, String> {
    let Some(text) = text else { return Ok(None) };
    let parsed = text.parse::<Date>().ok().filter(|_| text.len() == 10);
    parsed.map(Some).ok_or_else(|| format!("{key} is `{text}`: it is a date such as 2026-12-24"))
}

fn rate(item: &Value) -> Result<Value, String> {
    let rate = Rate::deserialize(item).map_err(|why| why.to_string())?;
    let price = rate.price.ok_or("price is missing")?;
    let start = rate.from.as_deref().map_or(Ok(0), |text| clock("from", text))?;
    let end = rate.to.as_deref().map_or(Ok(MINUTES_PER_DAY), |text| clock("to", text))?;
    if start >= MINUTES_PER_DAY {
        return Err("from is the end of the day".to_owned());
    }
    // Not over midnight: a rate is of one day.
    let end = if end > start { end } else { MINUTES_PER_DAY };
    let mut native = json!({"start": shown(start), "end": shown(end), "price": price});
    if let Some(day) = rate.day_of_week {
        native["days"] = json!([weekday(&day)?]);
    }
    Ok(native)
}

/// Minutes of the day of `HH:MM` or `HH:MM:SS`. The last second of a day stands for its end.
fn clock(key: &str, text: &str) -> Result<usize, String> {
    let minute = match text {
        "23:59:59" => Some(MINUTES_PER_DAY),
        _ => hour_minute(text.strip_suffix(":00").filter(|rest| rest.len() == 5).unwrap_or(text)),
    };
    minute.ok_or_else(|| format!("{key} is `{text}`: it is HH:MM"))
}

/// A name of a day in English, whole or three letters, or 1 (Monday) to 7.
fn weekday(day: &Value) -> Result<&'static str, String> {
    let position = match day {
        Value::Number(number) => number.as_u64().and_then(|n| usize::try_from(n).ok()?.checked_sub(1)),
        Value::String(text) => {
            let text = text.trim().to_ascii_lowercase();
            match text.parse::<usize>() {
                Ok(number) => number.checked_sub(1),
                Err(_) => {
                    (0..7).find(|n| DAYS.get(*n) == Some(&text.as_str()) || LONG_DAYS.get(*n) == Some(&text.as_str()))
                }
            }
        }
        _ => None,
    };
    position.and_then(|n| DAYS.get(n)).copied().ok_or_else(|| format!("dayOfWeek is {day}: it is a day of the week"))
}

fn exception(item: &Value) -> Result<(Date, Date, f64), String> {
    let exception = Exception::deserialize(item).map_err(|why| why.to_string())?;
    let price = exception.rate.ok_or("rate is missing")?;
    let from = date("start", exception.start.as_deref())?.ok_or("start is missing")?;
    let to = date("end", exception.end.as_deref())?.unwrap_or(from);
    if to < from {
        return Err(format!("end {to} is before start {from}"));
    }
    Ok((from, to, price))
}
