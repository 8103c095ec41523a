//! `kind = "solar"` and `kind = "price"`, from JSON to checked documents.

use super::{Checked, DAYS, Faults, brief, clock, cut, days, known_keys, minute, opt_text, tariff::tariff_id, zone};
use crate::model::DeviceKind;
use crate::plan::cheapest::Unpriced;
use crate::plan::price::{Need, PriceCharge};
use crate::plan::solar::{Phases, SolarCharge};
use crate::plan::spread::{Pick, PriceTrade};
use crate::plan::{Smart, Timeline};
use serde_json::{Map, Value, json};
use std::time::Duration;

const SOLAR_KEYS: [&str; 5] = ["id", "device", "kind", "rank", "params"];
const SOLAR_PARAMS: [&str; 12] = [
    "min_current_a",
    "max_current_a",
    "start_w",
    "start_after",
    "stop_w",
    "stop_after",
    "phases",
    "phase_after",
    "phase_switches_per_day",
    "battery_first",
    "battery_above_soc_pct",
    "min_solar",
];
const PRICE_KEYS: [&str; 7] = ["id", "device", "kind", "rank", "tariff", "timezone", "params"];
const CHARGE_PARAMS: [&str; 11] = [
    "deadline",
    "days",
    "energy_wh",
    "hours",
    "soc_pct",
    "capacity_wh",
    "power_w",
    "current_a",
    "max_price",
    "without_price",
    "otherwise",
];
const TRADE_PARAMS: [&str; 11] = [
    "charge_below",
    "cheapest_hours",
    "discharge_above",
    "dearest_hours",
    "power_w",
    "charge_power_w",
    "discharge_power_w",
    "min_soc_pct",
    "max_soc_pct",
    "round_trip_efficiency",
    "otherwise",
];
/// Larger than any battery of a car, Wh.
const MOST_WH: f64 = 1_000_000.0;
const MOST_W: f64 = 1_000_000.0;

/// Reads parameters, collects what is wrong and the normal form.
struct Reader<'a> {
    map: &'a Map<String, Value>,
    faults: &'a mut Faults,
    shown: Map<String, Value>,
}

impl<'a> Reader<'a> {
    fn new(map: &'a Map<String, Value>, known: &[&str], none: &'a Map<String, Value>, faults: &'a mut Faults) -> Self {
        let params = match map.get("params") {
            None | Some(Value::Null) => none,
            Some(Value::Object(params)) => params,
            Some(other) => {
                faults.add(format!("params is {}: it must be an object", brief(other)));
                none
            }
        };
        known_keys(params, "params.", known, &[], faults);
        Self { map: params, faults, shown: Map::new() }
    }

    fn has(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|v| !v.is_null())
    }

    fn number(&mut self, key: &str, least: f64, most: f64) -> Option<f64> {
        let value = self.map.get(key).filter(|v| !v.is_null())?;
        match value.as_f64().filter(|v| (least..=most).contains(v)) {
            Some(number) => {
                self.shown.insert(key.to_owned(), json!(number));
                Some(number)
            }
            None => {
                let what = brief(value);
                self.faults.add(format!("params.{key} is {what}: it must be a number between {least} and {most}"));
                None
            }
        }
    }

    fn flag(&mut self, key: &str) -> bool {
        let value = match self.map.get(key) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(flag)) => *flag,
            Some(other) => {
                self.faults.add(format!("params.{key} is {}: it must be true or false", brief(other)));
                false
            }
        };
        self.shown.insert(key.to_owned(), json!(value));
        value
    }

    /// One of a few words; the first where it is absent.
    fn word(&mut self, key: &str, words: &'static [&'static str]) -> &'static str {
        let first = words.first().copied().unwrap_or_default();
        let text = match self.map.get(key) {
            None | Some(Value::Null) => first.to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let found = words.iter().find(|w| **w == text).copied().unwrap_or_else(|| {
            self.faults.add(format!("params.{key} is `{}`: it must be one of {}", cut(&text), words.join(", ")));
            first
        });
        self.shown.insert(key.to_owned(), json!(found));
        found
    }

    /// `90s`, `5m`, `1h`.
    fn time(&mut self, key: &str, usual_s: u64) -> Duration {
        let seconds = match self.map.get(key) {
            None | Some(Value::Null) => usual_s,
            Some(Value::String(text)) => seconds(text).unwrap_or_else(|| {
                let text = cut(text);
                self.faults.add(format!("params.{key} is `{text}`: it must be a time up to 24h such as 90s, 5m or 1h"));
                usual_s
            }),
            Some(other) => {
                self.faults.add(format!("params.{key} is {}: it must be a time such as \"90s\"", brief(other)));
                usual_s
            }
        };
        self.shown.insert(key.to_owned(), json!(format!("{seconds}s")));
        Duration::from_secs(seconds)
    }

    fn hours(&mut self, key: &str) -> Option<Duration> {
        self.number(key, 0.25, 24.0).map(|h| Duration::from_secs_f64(h * 3600.0))
    }
}

fn seconds(text: &str) -> Option<u64> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at_checked(unit)?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor).filter(|s| *s <= 86_400)
}

pub(super) fn solar(map: &Map<String, Value>, kind: Option<DeviceKind>, faults: &mut Faults) -> Option<Checked> {
    known_keys(map, "", &SOLAR_KEYS, &super::LABELS, faults);
    if let Some(kind) = kind.filter(|k| *k != DeviceKind::Charger) {
        faults.add(format!("kind `solar` is for a charger, and this device is a {kind}"));
    }
    let none = Map::new();
    let mut read = Reader::new(map, &SOLAR_PARAMS, &none, faults);
    let spec = SolarCharge {
        min_current_a: read.number("min_current_a", 1.0, 80.0),
        max_current_a: read.number("max_current_a", 1.0, 80.0),
        start_w: read.number("start_w", -MOST_W, MOST_W),
        start_after: read.time("start_after", 60),
        stop_w: read.number("stop_w", -MOST_W, MOST_W),
        stop_after: read.time("stop_after", 180),
        phases: match read.word("phases", &["auto", "1", "3"]) {
            "1" => Phases::One,
            "3" => Phases::Three,
            _ => Phases::Auto,
        },
        switch_after: read.time("phase_after", 300),
        switches_per_day: match read.number("phase_switches_per_day", 0.0, 100.0) {
            Some(n) => format!("{n:.0}").parse().unwrap_or(0),
            None => 10,
        },
        battery_first: read.flag("battery_first"),
        battery_above_soc_pct: read.number("battery_above_soc_pct", 0.0, 100.0),
        min_solar: read.flag("min_solar"),
    };
    if let (Some(min), Some(max)) = (spec.min_current_a, spec.max_current_a)
        && max < min
    {
        read.faults.add(format!("params.max_current_a {max} is below params.min_current_a {min}"));
    }
    if let (Some(start), Some(stop)) = (spec.start_w, spec.stop_w)
        && stop > start
    {
        read.faults
            .add(format!("params.stop_w {stop} is above params.start_w {start}: it would stop as soon as it starts"));
    }
    let shown = read.shown;
    faults.is_empty().then(|| {
        let content =
            Map::from_iter([("kind".to_owned(), json!("solar")), ("params".to_owned(), Value::Object(shown))]);
        (Timeline::Smart(Smart::Solar(spec)), content)
    })
}

pub(super) fn price(
    map: &Map<String, Value>,
    kind: Option<DeviceKind>,
    site_zone: &str,
    faults: &mut Faults,
) -> Option<Checked> {
    known_keys(map, "", &PRICE_KEYS, &super::LABELS, faults);
    let tariff = faults.take(tariff_id(map))?;
    let mut content = Map::new();
    content.insert("kind".into(), json!("price"));
    content.insert("tariff".into(), json!(tariff.as_str()));
    let none = Map::new();
    let smart = match kind? {
        DeviceKind::Charger => {
            let name = faults.take(opt_text(map, "", "timezone"))?;
            let zone = faults.take(zone(name.unwrap_or(site_zone)).map_err(|why| format!("timezone {why}")))?;
            content.insert("timezone".into(), json!(zone.iana_name().unwrap_or("UTC")));
            let read = Reader::new(map, &CHARGE_PARAMS, &none, faults);
            let (spec, shown) = charge(read, tariff, zone)?;
            content.insert("params".into(), Value::Object(shown));
            Smart::Charge(spec)
        }
        DeviceKind::Battery => {
            if map.contains_key("timezone") {
                faults.add("timezone is not for a battery: its days are those of the tariff");
            }
            let (spec, shown) = trade(Reader::new(map, &TRADE_PARAMS, &none, faults), tariff)?;
            content.insert("params".into(), Value::Object(shown));
            Smart::Trade(spec)
        }
        other => {
            faults.add(format!("kind `price` is for a charger or a battery, and this device is a {other}"));
            return None;
        }
    };
    faults.is_empty().then_some((Timeline::Smart(smart), content))
}

fn charge(
    mut read: Reader<'_>,
    tariff: crate::model::PlanId,
    zone: jiff::tz::TimeZone,
) -> Option<(PriceCharge, Map<String, Value>)> {
    let deadline = read.faults.take(minute(read.map, "params.", "deadline", true));
    let days = if read.has("days") { days(read.map, "params.", read.faults) } else { Some(0x7f) };
    let energy = read.number("energy_wh", 1.0, MOST_WH);
    let hours = read.hours("hours");
    let soc = read.number("soc_pct", 1.0, 100.0);
    let capacity = read.number("capacity_wh", 1.0, MOST_WH);
    let need = match (energy, hours, soc, capacity) {
        (Some(wh), None, None, None) => Some(Need::Energy(wh)),
        (None, Some(time), None, None) => Some(Need::Time(time)),
        (energy, None, Some(pct), Some(capacity_wh)) => {
            // Where the state of charge is not known: as if the car came empty. It stops by itself when it is full.
            let else_wh = energy.unwrap_or(pct / 100.0 * capacity_wh);
            Some(Need::Soc { pct, capacity_wh, else_wh })
        }
        _ => {
            read.faults.add(
                "params must say how much: energy_wh, or hours, or soc_pct with capacity_wh (and energy_wh where the state \
                 of charge is not known)",
            );
            None
        }
    };
    let (power_w, current_a) = (read.number("power_w", 300.0, MOST_W), read.number("current_a", 6.0, 80.0));
    let max_price = read.number("max_price", -MOST_W, MOST_W);
    let unpriced = match read.word("without_price", &["last_hours", "first_hours", "never"]) {
        "first_hours" => Unpriced::First,
        "never" => Unpriced::Never,
        _ => Unpriced::Last,
    };
    let leaves_rest = read.word("otherwise", &["stop", "none"]) == "none";
    let (deadline, days, need) = (deadline?, days?, need?);
    read.shown.insert("deadline".into(), json!(clock(deadline)));
    let names: Value = DAYS.iter().enumerate().filter(|(d, _)| days & (1 << d) != 0).map(|(_, w)| *w).collect();
    read.shown.insert("days".into(), names);
    let spec = PriceCharge { tariff, zone, deadline, days, need, power_w, current_a, max_price, unpriced, leaves_rest };
    Some((spec, read.shown))
}

fn trade(mut read: Reader<'_>, tariff: crate::model::PlanId) -> Option<(PriceTrade, Map<String, Value>)> {
    let mut pick = |price: &str, hours: &str| match (read.number(price, -MOST_W, MOST_W), read.hours(hours)) {
        (Some(_), Some(_)) => {
            read.faults.add(format!("params.{price} and params.{hours}: one of them only"));
            Pick::None
        }
        (Some(price), None) => Pick::Price(price),
        (None, Some(time)) => Pick::Time(time),
        (None, None) => Pick::None,
    };
    let charge = pick("charge_below", "cheapest_hours");
    let discharge = pick("discharge_above", "dearest_hours");
    if charge == Pick::None && discharge == Pick::None && read.faults.is_empty() {
        read.faults.add("params must say when: charge_below or cheapest_hours, discharge_above or dearest_hours");
    }
    let power = read.number("power_w", 1.0, MOST_W);
    let (min_soc_pct, max_soc_pct) = (read.number("min_soc_pct", 0.0, 100.0), read.number("max_soc_pct", 0.0, 100.0));
    if let (Some(min), Some(max)) = (min_soc_pct, max_soc_pct)
        && max <= min
    {
        read.faults.add(format!("params.max_soc_pct {max} is not above params.min_soc_pct {min}"));
    }
    let spec = PriceTrade {
        tariff,
        charge,
        discharge,
        charge_w: read.number("charge_power_w", 1.0, MOST_W).or(power),
        discharge_w: read.number("discharge_power_w", 1.0, MOST_W).or(power),
        min_soc_pct,
        max_soc_pct,
        // Inverters and cells of a home battery together.
        efficiency: read.number("round_trip_efficiency", 0.1, 1.0).unwrap_or(0.85),
        holds: read.word("otherwise", &["auto", "idle"]) == "idle",
    };
    Some((spec, read.shown))
}
