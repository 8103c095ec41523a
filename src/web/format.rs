//! Numbers and times for people. `app.js` says the same in its own words: keep both alike.

use crate::model::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

/// Where there is no value.
pub(super) const NOTHING: &str = "\u{2013}";

/// `1234.0` W as `1.23 kW`, `12340.0` W as `12.3 kW`.
pub(super) fn power(watts: Option<f64>) -> String {
    match watts {
        None => NOTHING.to_owned(),
        Some(w) if w.abs() >= 9995.0 => format!("{} kW", number(w / 1000.0, 1)),
        Some(w) => format!("{} kW", number(w / 1000.0, 2)),
    }
}

/// A point's value by the unit in its name.
pub(super) fn point(name: &str, value: &Value) -> String {
    let Some(n) = value.as_f64() else {
        return match value {
            Value::String(text) => text.replace('_', " "),
            Value::Bool(true) => "yes".to_owned(),
            Value::Bool(false) => "no".to_owned(),
            _ => NOTHING.to_owned(),
        };
    };
    let unit = name.rsplit('_').next().unwrap_or_default();
    match unit {
        "w" => power(Some(n)),
        "wh" if n.abs() >= 999_950.0 => format!("{} kWh", grouped(&number(n / 1000.0, 0))),
        "wh" => format!("{} kWh", number(n / 1000.0, 1)),
        "pct" => format!("{} %", number(n, 0)),
        "v" => format!("{} V", number(n, 0)),
        "a" => format!("{} A", number(n, 1)),
        "hz" => format!("{} Hz", number(n, 2)),
        "c" => format!("{} \u{b0}C", number(n, 1)),
        _ => number(n, 1),
    }
}

/// With `digits` decimals, and never `-0`.
fn number(n: f64, digits: usize) -> String {
    let text = format!("{n:.digits$}");
    match text.strip_prefix('-') {
        Some(rest) if rest.bytes().all(|b| b == b'0' || b == b'.') => rest.to_owned(),
        Some(rest) => format!("\u{2212}{rest}"),
        None => text,
    }
}

/// `12654` as `12 654`, with a narrow blank that does not break.
pub(super) fn grouped(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + 6);
    for (i, c) in digits.char_indices() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) && text.ends_with(|c: char| c.is_ascii_digit()) {
            text.push('\u{202f}');
        }
        text.push(c);
    }
    text
}

/// The age of a device's data.
pub(super) fn age(ms: Option<u64>) -> String {
    match ms {
        None => "never seen".to_owned(),
        Some(ms) if ms < 2000 => "now".to_owned(),
        Some(ms) if ms < 120_000 => format!("{} s ago", ms / 1000),
        Some(ms) if ms < 7_200_000 => format!("{} min ago", ms / 60_000),
        Some(ms) => format!("{} h ago", ms / 3_600_000),
    }
}

/// `14:05` in the site's zone.
pub(super) fn clock(at: Timestamp, zone: &TimeZone) -> String {
    zoned(at, zone).map_or_else(|| at.to_string(), |z| z.strftime("%H:%M").to_string())
}

/// `20 Nov, 14:05` in the site's zone.
pub(super) fn moment(at: Timestamp, zone: &TimeZone) -> String {
    zoned(at, zone).map_or_else(|| at.to_string(), |z| z.strftime("%-d %b, %H:%M").to_string())
}

/// `20 Nov, 14:05:30` in the site's zone.
pub(super) fn moment_s(at: Timestamp, zone: &TimeZone) -> String {
    zoned(at, zone).map_or_else(|| at.to_string(), |z| z.strftime("%-d %b, %H:%M:%S").to_string())
}

/// A time of the wire, for people.
pub(super) fn moment_of(text: &str, zone: &TimeZone) -> String {
    text.parse::<Timestamp>().map_or_else(|_| text.to_owned(), |at| moment(at, zone))
}

/// A sentence with its times of the wire, such as `2026-11-20T13:05:00.000Z`, as the site's own.
pub(super) fn local_times(text: &str, zone: &TimeZone) -> String {
    let word = |word: &str| {
        let bare = word.trim_end_matches([',', '.', ':', ';', ')']);
        let tail = word.get(bare.len()..).unwrap_or_default();
        match bare.parse::<Timestamp>() {
            // A bare date is none.
            Ok(at) if bare.contains('T') => format!("{}{tail}", moment(at, zone)),
            _ => word.to_owned(),
        }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

pub(super) fn zoned(at: Timestamp, zone: &TimeZone) -> Option<jiff::Zoned> {
    Some(jiff::Timestamp::from_millisecond(at.ms()).ok()?.to_zoned(zone.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_for_people() {
        for (name, value, says) in [
            ("power_w", json!(1234.0), "1.23 kW"),
            ("power_w", json!(-12345.0), "\u{2212}12.3 kW"),
            ("power_w", json!(-2.0), "0.00 kW"),
            ("power_w", json!(null), "\u{2013}"),
            ("energy_import_wh", json!(1_234_567.0), "1\u{202f}235 kWh"),
            ("energy_import_wh", json!(12_345.0), "12.3 kWh"),
            ("soc_pct", json!(55.4), "55 %"),
            ("voltage_l1_v", json!(230.4), "230 V"),
            ("temperature_c", json!(21.25), "21.2 \u{b0}C"),
            ("state", json!("running"), "running"),
            ("plugged", json!(true), "yes"),
        ] {
            assert_eq!(point(name, &value), says, "{name} {value}");
        }
    }

    #[test]
    fn times_are_the_sites() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let at: Timestamp = "2026-11-20T13:05:00Z".parse().unwrap();
        assert_eq!((clock(at, &berlin), moment(at, &berlin)), ("14:05".to_owned(), "20 Nov, 14:05".to_owned()));
        assert_eq!(age(Some(90_000)), "90 s ago");
        for (text, says) in [
            ("paused until 2026-11-20T13:05:00.000Z", "paused until 20 Nov, 14:05"),
            ("at 2026-11-20T13:05:00.000Z: 2026 7.5  A.", "at 20 Nov, 14:05: 2026 7.5  A."),
        ] {
            assert_eq!(local_times(text, &berlin), says);
        }
    }
}
