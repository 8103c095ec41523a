//! `GET /api/v1/devices/{id}/explain` and `/decisions`: why a device does, or did, what it does.

use super::api::{Answer, known};
use super::error::Fault;
use super::routes::App;
use super::{format, history};
use crate::model::{ClockState, DeviceSpec, Timestamp};
use crate::store::{DECISIONS_KEPT, DecisionRow, Gap};
use crate::wire::explain_json;
use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderValue;
use axum::response::IntoResponse;
use jiff::civil;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// How far ahead of this clock a time may lie and still mean now: another machine's clock.
const AHEAD: Duration = Duration::from_secs(60);
/// Without `from`: the last day.
const SPAN: Duration = Duration::from_secs(24 * 3600);
/// Decisions in one answer.
const LIMIT: usize = 200;
const MAX_LIMIT: usize = 1000;

pub(super) async fn explain(State(app): State<App>, Path(id): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let spec = known(&app, &id)?;
    let mut at = None;
    for (key, value) in url::form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes()) {
        match key.as_ref() {
            "at" => at = asked(&app, &value)?,
            _ => return Err(Fault::bad(format!("{key}: is unknown; there is: at"))),
        }
    }
    Ok(Json(answer(&app, spec, at).await?).into_response())
}

/// The time that was asked for; `None`: now.
pub(super) fn asked(app: &App, text: &str) -> Result<Option<Timestamp>, Fault> {
    if matches!(text.trim(), "" | "now") {
        return Ok(None);
    }
    time(text, app.clock.now(), &app.zone).map(Some).map_err(|why| Fault::bad(format!("at: {why}")))
}

/// The answer for a time; `None`: for now, by control's own word.
pub(super) async fn answer(app: &App, spec: &DeviceSpec, at: Option<Timestamp>) -> Result<Value, Fault> {
    let now = app.clock.now();
    let asked = at.unwrap_or(now);
    if let Some(live) = app.board.decided().get(&spec.id).filter(|_| at.is_none()) {
        return Ok(finished(app, explain_json(live), asked, "live"));
    }
    let told = |at: Timestamp| format::moment_s(at, &app.zone);
    if asked > now.plus(AHEAD) {
        let text = format!("at: {} lies in the future; it is {} now", told(asked), told(now));
        return Err(Fault::bad(text).with("now", json!(now.to_string())));
    }
    if now.since(asked) > DECISIONS_KEPT {
        let oldest = now.minus(DECISIONS_KEPT);
        let text =
            format!("at: {} is too long ago: decisions are kept for 30 days, since {}", told(asked), told(oldest));
        return Err(Fault::bad(text).with("kept_since", json!(oldest.to_string())));
    }
    if !spec.control.enabled {
        let text = format!("{} is only read: derd does not control it.", spec.id);
        return Ok(finished(app, nothing(spec, asked, app.clock.state(), &text), asked, "journal"));
    }
    let row = app.store.decision_at(spec.id.clone(), asked).await?;
    let gap = app.store.not_running(asked).await?;
    let before = row.as_ref().map(decision);
    let clock = row.as_ref().map_or_else(|| app.clock.state(), |row| row.clock);
    Ok(match (before, gap) {
        (before, Some(gap)) => {
            let mut object = nothing(spec, gap.from.unwrap_or(asked), clock, &gap_sentence(app, asked, gap));
            object.insert("before".into(), json!(before));
            object.insert(
                "not_running".into(),
                json!({"from": gap.from.map(|t| t.to_string()), "to": gap.to.to_string()}),
            );
            finished(app, object, asked, "journal")
        }
        (Some(before), None) => finished(app, before, asked, "journal"),
        (None, None) => {
            let text = format!("Nothing is known of {} at {}: its journal begins later.", spec.id, told(asked));
            finished(app, nothing(spec, asked, clock, &text), asked, "journal")
        }
    })
}

pub(super) async fn decisions(State(app): State<App>, Path(id): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let spec = known(&app, &id)?;
    let now = app.clock.now();
    let (mut from, mut to, mut limit) = (None, now, LIMIT);
    for (key, value) in url::form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes()) {
        let read = || time(&value, now, &app.zone).map_err(|why| Fault::bad(format!("{key}: {why}")));
        match (key.as_ref(), value.parse::<usize>()) {
            ("from", _) => from = Some(read()?),
            ("to", _) => to = read()?,
            ("limit", Ok(n)) if (1..=MAX_LIMIT).contains(&n) => limit = n,
            ("limit", _) => return Err(Fault::bad(format!("limit: `{value}` is not a number from 1 to {MAX_LIMIT}"))),
            _ => return Err(Fault::bad(format!("{key}: is unknown; there are: from, to, limit"))),
        }
    }
    let from = from.unwrap_or_else(|| to.minus(SPAN));
    if from >= to {
        return Err(Fault::bad(format!("from ({from}) is not before to ({to})")));
    }
    let rows = app.store.decisions(spec.id.clone(), from, to, limit).await?;
    let list: Vec<Value> = rows.iter().map(|row| Value::Object(decision(row))).collect();
    let mut response = Json(list).into_response();
    if rows.len() >= limit {
        response.headers_mut().insert("x-derd-truncated", HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// A decision out of the journal.
fn decision(row: &DecisionRow) -> Map<String, Value> {
    match serde_json::from_str(&row.json) {
        Ok(Value::Object(mut map)) => {
            // Two of one millisecond stand one behind the other.
            map.insert("at".into(), json!(row.at.to_string()));
            map
        }
        // What was no object when it was written: shown as it is.
        _ => Map::from_iter([
            ("at".to_owned(), json!(row.at.to_string())),
            ("clock".to_owned(), json!(row.clock.as_str())),
            ("sentence".to_owned(), json!(row.json)),
            ("trace".to_owned(), json!([])),
        ]),
    }
}

/// The object for a time at which nothing was decided.
fn nothing(spec: &DeviceSpec, at: Timestamp, clock: ClockState, sentence: &str) -> Map<String, Value> {
    let object = json!({
        "device": spec.id.as_str(), "at": at.to_string(), "clock": clock.as_str(), "sentence": sentence, "holder": null,
        "demand": null, "then": null, "limited_by": null, "trace": [],
    });
    match object {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// What every answer carries besides.
fn finished(app: &App, object: impl Into<Value>, asked: Timestamp, source: &str) -> Value {
    let mut object = object.into();
    if let Value::Object(map) = &mut object {
        let then = map.get("clock").and_then(Value::as_str);
        let note = if then == Some(ClockState::Untrusted.as_str()) {
            Some("The clock was not to be trusted when this was decided: its times may be wrong.")
        } else if app.clock.state() == ClockState::Untrusted {
            Some("The clock is not to be trusted now: another time may be meant than the one that was asked for.")
        } else {
            None
        };
        map.insert("note".into(), json!(note));
        map.insert("asked_at".into(), json!(asked.to_string()));
        map.insert("source".into(), json!(source));
        map.insert("timezone".into(), json!(app.zone.iana_name().unwrap_or("UTC")));
    }
    object
}

fn gap_sentence(app: &App, asked: Timestamp, gap: Gap) -> String {
    let told = |at: Timestamp| format::moment_s(at, &app.zone);
    match gap.from {
        Some(from) => format!(
            "derd was not running at {}: its last sign of life before is of {}, and it started again at {}.",
            told(asked),
            told(from),
            told(gap.to)
        ),
        None => format!("derd was not running at {}: it started for the first time at {}.", told(asked), told(gap.to)),
    }
}

/// A time: RFC 3339; back from now (`-2h`); or by the site's own clock `14:05`, `14:05:30`, `yesterday 14:05`, `2026-11-20 14:05`.
/// An hour that comes twice means its first.
fn time(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, String> {
    let text = text.trim();
    if let Ok(at) = history::time(text, now) {
        return Ok(at);
    }
    let wrong = || {
        format!("`{text}` is no time such as 14:05, `yesterday 14:05`, `2026-11-20 14:05`, -2h or 2026-11-20T12:00:00Z")
    };
    let today = format::zoned(now, zone).ok_or_else(wrong)?.date();
    let (day, clock) = match text.split_once([' ', 'T']) {
        None => (today, text),
        Some(("today", clock)) => (today, clock),
        Some(("yesterday", clock)) => (today.yesterday().map_err(|_| wrong())?, clock),
        Some((day, clock)) => (day.parse::<civil::Date>().map_err(|_| wrong())?, clock),
    };
    let parse = |form: &str| civil::Time::strptime(form, clock.trim()).ok();
    let clock = parse("%H:%M").or_else(|| parse("%H:%M:%S")).ok_or_else(wrong)?;
    let at = day.to_datetime(clock).to_zoned(zone.clone()).map_err(|_| wrong())?;
    Ok(Timestamp::from_ms(at.timestamp().as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_say_them() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        // 00:30 on 26 October 2026 in Berlin: a day after the clocks went back.
        let now: Timestamp = "2026-10-25T23:30:00Z".parse().unwrap();
        for (text, wanted) in [
            ("2026-10-25T12:00:00Z", "2026-10-25T12:00:00.000Z"),
            ("2026-10-25T12:00:00+01:00", "2026-10-25T11:00:00.000Z"),
            ("2026-10-25T12:00:00 01:00", "2026-10-25T11:00:00.000Z"),
            ("-90m", "2026-10-25T22:00:00.000Z"),
            ("00:05", "2026-10-25T23:05:00.000Z"),
            (" 0:05 ", "2026-10-25T23:05:00.000Z"),
            ("today 00:05:30", "2026-10-25T23:05:30.000Z"),
            ("yesterday 12:00", "2026-10-25T11:00:00.000Z"),
            // 02:30 came twice: the first is meant.
            ("yesterday 02:30", "2026-10-25T00:30:00.000Z"),
            ("2026-10-24 12:00", "2026-10-24T10:00:00.000Z"),
            ("2026-10-24T12:00", "2026-10-24T10:00:00.000Z"),
            ("2026-10-24T12:00:59", "2026-10-24T10:00:59.000Z"),
        ] {
            assert_eq!(time(text, now, &berlin).map(|t| t.to_string()), Ok(wanted.to_owned()), "{text}");
        }
        for bad in ["", "noon", "25:00", "12", "tomorrow 12:00", "2026-02-30 12:00", "-2y", "12:00:00:00", "2026-10-24"]
        {
            let said = time(bad, now, &berlin).unwrap_err();
            assert!(said.contains(&format!("`{bad}` is no time such as")), "{said}");
        }
    }
}
