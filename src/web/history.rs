//! `GET /api/v1/devices/{id}/history`.

use super::error::Fault;
use crate::model::{DeviceId, Point, Timestamp, Value};
use crate::store::{HistoryQuery, HistoryRow};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use std::fmt::Write as _;
use std::time::Duration;

/// Without `from`: the last day.
const DEFAULT_SPAN: Duration = Duration::from_secs(24 * 3600);
/// Without `limit`; a day of one point at 5 s.
const DEFAULT_LIMIT: usize = 20_000;
/// The most that one answer carries: about 6 MB, which a small board can hold.
const MAX_LIMIT: usize = 100_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Csv,
    Jsonl,
}

impl Format {
    fn from_word(word: &str) -> Option<Self> {
        match word {
            "json" => Some(Self::Json),
            "csv" => Some(Self::Csv),
            "jsonl" => Some(Self::Jsonl),
            _ => None,
        }
    }
}

/// A checked question.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) query: HistoryQuery,
    format: Format,
}

/// Read the query string: every fault at once.
pub(super) fn parse(device: DeviceId, query: &str, now: Timestamp) -> Result<Asked, Fault> {
    let mut faults = Vec::new();
    let (mut points, mut from, mut to, mut step) = (Vec::new(), None, None, None);
    let (mut limit, mut format) = (DEFAULT_LIMIT, Format::Json);
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let outcome = match key.as_ref() {
            "point" => value.split(',').try_for_each(|name| name.trim().parse().map(|p: Point| points.push(p))),
            "from" => time(&value, now).map(|t| from = Some(t)),
            "to" => time(&value, now).map(|t| to = Some(t)),
            "step" => match duration(&value) {
                Some(d) if !d.is_zero() => {
                    step = Some(d);
                    Ok(())
                }
                _ => Err(format!("`{value}` is not a length of time such as 30s, 5m or 1h")),
            },
            "limit" => match value.parse::<usize>() {
                Ok(n) if (1..=MAX_LIMIT).contains(&n) => {
                    limit = n;
                    Ok(())
                }
                _ => Err(format!("`{value}` is not a number from 1 to {MAX_LIMIT}")),
            },
            "format" => match Format::from_word(&value) {
                Some(known) => {
                    format = known;
                    Ok(())
                }
                None => Err(format!("`{value}` is not json, csv or jsonl")),
            },
            _ => Err("is unknown; there are: point, from, to, step, limit, format".to_owned()),
        };
        if let Err(why) = outcome {
            faults.push(format!("{key}: {why}"));
        }
    }
    let to = to.unwrap_or(now);
    let from = from.unwrap_or_else(|| to.minus(DEFAULT_SPAN));
    if faults.is_empty() && from >= to {
        faults.push(format!("from ({from}) is not before to ({to})"));
    }
    if faults.is_empty() {
        Ok(Asked { query: HistoryQuery { device, points, from, to, step, limit }, format })
    } else {
        Err(Fault::bad(faults.join("; ")))
    }
}

/// `2026-11-20T12:00:00Z`, `now`, or back from now: `-24h`.
pub(super) fn time(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if text == "now" {
        return Ok(now);
    }
    if let Some(back) = text.strip_prefix('-') {
        return duration(back)
            .map(|d| now.minus(d))
            .ok_or_else(|| format!("`{text}` is not a time back from now such as -24h or -30m"));
    }
    // A `+` of an offset that was not escaped arrives as a blank.
    text.replace(' ', "+").parse()
}

/// `500ms`, `30s`, `5m`, `24h`, `7d`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(at);
    let ms_each: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(ms_each)?))
}

/// The rows in the form that was asked for. `x-derd-truncated: true` says that there would be more.
pub(super) fn answer(asked: &Asked, rows: &[HistoryRow]) -> Response {
    let mut text = String::with_capacity(rows.len() * 60 + 32);
    let kind = match asked.format {
        Format::Json => {
            text.push('[');
            for (i, row) in rows.iter().enumerate() {
                text.push_str(if i == 0 { "\n" } else { ",\n" });
                push_json(&mut text, row);
            }
            text.push_str("\n]\n");
            "application/json"
        }
        Format::Jsonl => {
            for row in rows {
                push_json(&mut text, row);
                text.push('\n');
            }
            "application/x-ndjson"
        }
        Format::Csv => {
            text.push_str("ts,point,value\n");
            for row in rows {
                push_csv(&mut text, row);
            }
            "text/csv; charset=utf-8"
        }
    };
    let mut response = ([(header::CONTENT_TYPE, kind)], text).into_response();
    if rows.len() >= asked.query.limit {
        response.headers_mut().insert("x-derd-truncated", HeaderValue::from_static("true"));
    }
    response
}

fn push_json(text: &mut String, row: &HistoryRow) {
    let value = match &row.value {
        Some(value) => crate::wire::field_json(&Ok(value.clone())),
        None => serde_json::Value::Null,
    };
    // Writing into a String cannot fail; ids, points and times need no escaping.
    let _never = write!(text, r#"{{"ts":"{}","point":"{}","value":{value}}}"#, row.ts, row.point).is_err();
}

/// RFC 4180; null is an empty field.
fn push_csv(text: &mut String, row: &HistoryRow) {
    let value = match &row.value {
        None => String::new(),
        Some(Value::Num(n)) => n.to_string(),
        Some(Value::Flag(b)) => b.to_string(),
        Some(Value::Text(t)) if t.contains(['"', ',', '\n', '\r']) => format!("\"{}\"", t.replace('"', "\"\"")),
        Some(Value::Text(t)) => t.to_string(),
    };
    let _never = writeln!(text, "{},{},{value}", row.ts, row.point).is_err();
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);

    fn ask(query: &str) -> Result<Asked, Fault> {
        parse("pv".parse().unwrap(), query, NOW)
    }

    #[test]
    fn good_ones() {
        let asked = ask("").unwrap();
        assert_eq!((asked.query.from, asked.query.to), (NOW.minus(DEFAULT_SPAN), NOW));
        let asked = ask("point=power_w&point=soc_pct,state&from=-2h&to=-30m&step=5m&format=csv&limit=10").unwrap();
        assert_eq!(asked.query.points, [Point::PowerW, Point::SocPct, Point::State]);
        assert_eq!(asked.query.from, NOW.minus(Duration::from_secs(7200)));
        assert_eq!(asked.query.step, Some(Duration::from_secs(300)));
        assert_eq!((asked.format, asked.query.limit), (Format::Csv, 10));
        let asked = ask("from=2027-01-15T08:00:00%2B01:00&to=2027-01-15T08:00:00Z").unwrap();
        assert_eq!(asked.query.to.since(asked.query.from), Duration::from_secs(3600));
        assert!(ask("from=2027-01-15T08:00:00+01:00&to=2027-01-15T08:00:00Z").is_ok(), "an unescaped plus");
    }

    #[test]
    fn bad_ones() {
        for bad in [
            "point=watts",
            "from=yesterday",
            "from=-1y",
            "step=0s",
            "step=5",
            "format=xml",
            "limit=0",
            "limit=100001",
            "form=-1h",
            "from=-1h&to=-2h",
            "from=now",
        ] {
            assert!(ask(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        let mut text = String::new();
        let row = |value| HistoryRow { ts: NOW, point: Point::State, value };
        push_csv(&mut text, &row(Some(Value::Text("a \"b\", c".into()))));
        push_csv(&mut text, &row(None));
        push_csv(&mut text, &row(Some(Value::Num(-1.5))));
        assert_eq!(
            text,
            "2027-01-15T08:00:00.000Z,state,\"a \"\"b\"\", c\"\n2027-01-15T08:00:00.000Z,state,\n2027-01-15T08:00:00.000Z,state,-1.5\n"
        );
    }
}
