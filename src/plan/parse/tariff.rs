//! `kind = "tariff"`: prices, from JSON to a checked document.

use super::{
    Faults, array, brief, clock, cut, days, known_keys, minute, need_text, need_time, opt_text, opt_time, plan_id, zone,
};
use crate::model::{PlanId, Timestamp};
use crate::plan::tariff::{Exception, Period, Price, Rate, Tariff};
use crate::plan::{MAX_RULES, MAX_SLOTS, PlanDoc, Timeline};
use jiff::civil::Date;
use serde_json::{Map, Value, json};
use std::sync::Arc;

const KEYS: [&str; 7] = ["id", "kind", "currency", "unit", "timezone", "periods", "values"];
/// A price beyond this is a slip of the hand, in units of the currency per kWh.
const MOST: f64 = 100_000.0;

/// The whole document: a tariff is for no device.
pub(super) fn document(
    outer: Option<&PlanId>,
    map: &Map<String, Value>,
    site_zone: &str,
    mut faults: Faults,
) -> Result<PlanDoc, Vec<String>> {
    let id = faults.take(plan_id(outer, map)).flatten();
    known_keys(map, "", &KEYS, &super::LABELS, &mut faults);
    let currency = faults.take(currency(map));
    faults.take(unit(map));
    let zone_name = faults.take(opt_text(map, "", "timezone"));
    let zone =
        zone_name.and_then(|name| faults.take(zone(name.unwrap_or(site_zone)).map_err(|e| format!("timezone {e}"))));
    let mut shown = Map::new();
    let periods = match map.get("periods") {
        None | Some(Value::Null) => Vec::new(),
        Some(_) => list(map, "", "periods", 200, &mut shown, &mut faults, period),
    };
    let values = match map.get("values") {
        None | Some(Value::Null) => Vec::new(),
        Some(_) => list(map, "", "values", MAX_SLOTS, &mut shown, &mut faults, value),
    };
    if periods.is_empty() && values.is_empty() {
        faults.add("neither periods nor values: the tariff says no price");
    }
    match (id, currency, zone) {
        (Some(id), Some(currency), Some(zone)) if faults.is_empty() => {
            let mut json = Map::new();
            json.insert("id".into(), json!(id.as_str()));
            json.insert("kind".into(), json!("tariff"));
            json.insert("currency".into(), json!(currency));
            json.insert("unit".into(), json!("kWh"));
            json.insert("timezone".into(), json!(zone.iana_name().unwrap_or("UTC")));
            json.extend(shown);
            let tariff = Arc::new(Tariff::new(zone, currency, periods, values));
            Ok(PlanDoc {
                id,
                device: None,
                timeline: Timeline::Tariff(tariff),
                lowered: None,
                json: Value::Object(json),
            })
        }
        _ => Err(faults.into_reasons()),
    }
}

fn currency(map: &Map<String, Value>) -> Result<String, String> {
    let text = opt_text(map, "", "currency")?.unwrap_or("EUR");
    if text.len() == 3 && text.bytes().all(|b| b.is_ascii_alphabetic()) {
        Ok(text.to_ascii_uppercase())
    } else {
        Err(format!("currency is `{}`: it must be a code of three letters such as EUR", cut(text)))
    }
}

fn unit(map: &Map<String, Value>) -> Result<(), String> {
    match opt_text(map, "", "unit")? {
        None | Some("kWh") => Ok(()),
        Some(other) => Err(format!("unit is `{}`: prices are per kWh", cut(other))),
    }
}

/// A list of objects, each read by `read`, which also gives the normal form.
fn list<T>(
    map: &Map<String, Value>,
    at: &str,
    key: &'static str,
    most: usize,
    shown: &mut Map<String, Value>,
    faults: &mut Faults,
    read: impl Fn(&Map<String, Value>, &str, &mut Faults) -> Option<(T, Map<String, Value>)>,
) -> Vec<T> {
    let Some(items) = faults.take(array(map, key, most).map_err(|why| format!("{at}{why}"))) else { return Vec::new() };
    let mut found = Vec::with_capacity(items.len());
    let mut normal = Vec::with_capacity(items.len());
    for (n, item) in items.iter().enumerate() {
        let place = format!("{at}{key}[{n}].");
        let Value::Object(item) = item else {
            faults.add(format!("{at}{key}[{n}] is {}: it must be an object", brief(item)));
            continue;
        };
        if let Some((value, json)) = read(item, &place, faults) {
            found.push(value);
            normal.push(Value::Object(json));
        }
    }
    shown.insert(key.to_owned(), Value::Array(normal));
    found
}

fn period(item: &Map<String, Value>, at: &str, faults: &mut Faults) -> Option<(Period, Map<String, Value>)> {
    known_keys(item, at, &["from", "to", "rates", "exceptions", "price", "export"], &[], faults);
    let mut shown = Map::new();
    let from = faults.take(date(item, at, "from"))?;
    let to = faults.take(date(item, at, "to"))?;
    ordered(from, to, at, faults);
    shown.insert("from".into(), json!(from.map(|d| d.to_string())));
    shown.insert("to".into(), json!(to.map(|d| d.to_string())));
    let rates = match item.get("rates") {
        None | Some(Value::Null) => Vec::new(),
        Some(_) => list(item, at, "rates", MAX_RULES, &mut shown, faults, rate),
    };
    let exceptions = match item.get("exceptions") {
        None | Some(Value::Null) => Vec::new(),
        Some(_) => list(item, at, "exceptions", MAX_RULES, &mut shown, faults, exception),
    };
    let price = match item.get("price") {
        None | Some(Value::Null) => None,
        Some(_) => Some(price(item, at, &mut shown, faults)?),
    };
    Some((Period { from, to, rates, exceptions, price }, shown))
}

fn rate(item: &Map<String, Value>, at: &str, faults: &mut Faults) -> Option<(Rate, Map<String, Value>)> {
    known_keys(item, at, &["days", "start", "end", "price", "export"], &[], faults);
    let mut shown = Map::new();
    let days = if item.contains_key("days") { days(item, at, faults) } else { Some(0x7f) };
    let start = faults.take(minute(item, at, "start", false));
    let end = faults.take(minute(item, at, "end", true));
    let price = price(item, at, &mut shown, faults);
    let (days, start, end, price) = (days?, start?, end?, price?);
    let names: Value = super::DAYS.iter().enumerate().filter(|(d, _)| days & (1 << d) != 0).map(|(_, w)| *w).collect();
    shown.insert("days".into(), names);
    shown.insert("start".into(), json!(clock(start)));
    shown.insert("end".into(), json!(clock(end)));
    Some((Rate { days, start, end, price }, shown))
}

fn exception(item: &Map<String, Value>, at: &str, faults: &mut Faults) -> Option<(Exception, Map<String, Value>)> {
    known_keys(item, at, &["from", "to", "price", "export"], &[], faults);
    let mut shown = Map::new();
    let price = price(item, at, &mut shown, faults);
    let from = faults.take(date(item, at, "from"))?;
    let to = faults.take(date(item, at, "to"))?;
    let Some(from) = from else {
        faults.add(format!("{at}from is missing: a date such as 2026-12-24"));
        return None;
    };
    // One day where no end is told.
    let to = to.or_else(|| from.tomorrow().ok())?;
    ordered(Some(from), Some(to), at, faults);
    shown.insert("from".into(), json!(from.to_string()));
    shown.insert("to".into(), json!(to.to_string()));
    Some((Exception { from, to, price: price? }, shown))
}

type Listed = (Timestamp, Option<Timestamp>, Price);

fn value(item: &Map<String, Value>, at: &str, faults: &mut Faults) -> Option<(Listed, Map<String, Value>)> {
    known_keys(item, at, &["start", "end", "price", "export"], &[], faults);
    let mut shown = Map::new();
    let start = faults.take(need_time(item, at, "start"));
    let end = faults.take(opt_time(item, at, "end"));
    let price = price(item, at, &mut shown, faults);
    let (start, end, price) = (start?, end?, price?);
    if let Some(end) = end.filter(|end| *end <= start) {
        faults.add(format!("{at}end {end} is not after its start {start}"));
    }
    shown.insert("start".into(), json!(start.to_string()));
    if let Some(end) = end {
        shown.insert("end".into(), json!(end.to_string()));
    }
    Some(((start, end, price), shown))
}

fn price(item: &Map<String, Value>, at: &str, shown: &mut Map<String, Value>, faults: &mut Faults) -> Option<Price> {
    let number = |key: &str| match item.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(n)) => match n.as_f64().filter(|v| v.abs() <= MOST) {
            Some(v) => Ok(Some(v)),
            None => Err(format!("{at}{key} is {n}: it must lie between -{MOST} and {MOST} per kWh")),
        },
        Some(other) => Err(format!("{at}{key} is {}: it must be a number, per kWh", brief(other))),
    };
    let (import, export) = (number("price"), number("export"));
    let import = faults.take(import.and_then(|p| p.ok_or_else(|| format!("{at}price is missing"))));
    let export = faults.take(export);
    let (import, export) = (import?, export?);
    shown.insert("price".into(), json!(import));
    if let Some(export) = export {
        shown.insert("export".into(), json!(export));
    }
    Some(Price { import, export })
}

fn date(item: &Map<String, Value>, at: &str, key: &str) -> Result<Option<Date>, String> {
    let Some(text) = opt_text(item, at, key)? else { return Ok(None) };
    let is_plain = text.len() == 10;
    let parsed = text.parse::<Date>().ok().filter(|_| is_plain);
    parsed.map(Some).ok_or_else(|| format!("{at}{key} is `{}`: it must be a date such as 2026-12-24", cut(text)))
}

fn ordered(from: Option<Date>, to: Option<Date>, at: &str, faults: &mut Faults) {
    if let (Some(from), Some(to)) = (from, to)
        && to <= from
    {
        faults.add(format!("{at}to {to} is not after from {from}: it is the first day that is not in it any more"));
    }
}

/// The id of the tariff that a `price` document names.
pub(super) fn tariff_id(map: &Map<String, Value>) -> Result<PlanId, String> {
    need_text(map, "", "tariff")?.parse().map_err(|e| format!("tariff: {e}"))
}
