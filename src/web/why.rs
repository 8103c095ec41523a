//! Why a device does what it does, for people: a sentence on its card, the trace behind it, and the same for another time.

use super::error::Fault;
use super::routes::App;
use super::{api, explain, format, page};
use crate::model::{DeviceSpec, Timestamp};
use axum::extract::{RawQuery, State};
use axum::response::{Html, IntoResponse, Response};
use jiff::tz::TimeZone;
use maud::{Markup, html};
use serde_json::{Map, Value};
use std::fmt::Write as _;

/// The sentence on a card; nothing for a device that is only read.
pub(super) fn sentence(app: &App, spec: &DeviceSpec) -> Markup {
    let decided = app.board.decided();
    let sentence = decided.get(&spec.id).map(|decided| decided.sentence.as_str()).unwrap_or_default();
    html! {
        @if spec.control.enabled { p.why data-f="why" hidden[sentence.is_empty()] { (sentence) } }
    }
}

/// What stands behind it, now or at another time.
pub(super) fn behind(app: &App, spec: &DeviceSpec) -> Markup {
    let live = app.board.decided().get(&spec.id).map(|decided| crate::wire::explain_json(decided));
    html! {
        details.because data-why=(spec.id) {
            summary { "Why" }
            form method="get" action="/why" {
                input type="hidden" name="device" value=(spec.id);
                label { "At" input type="text" name="at" placeholder="now, 14:05, yesterday 14:05" autocomplete="off"; }
                button type="submit" { "Explain" }
            }
            div data-f="trace" aria-live="polite" {
                @if let Some(live) = &live { (trace(live, &app.zone)) }
            }
        }
    }
}

/// `GET /why?device=&at=`: a page of its own for those without scripts; with `part=1` only what is put on the card.
pub(super) async fn why(State(app): State<App>, RawQuery(query): RawQuery) -> Response {
    let mut asked = Map::new();
    for (key, value) in url::form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes()) {
        asked.insert(key.into_owned(), Value::String(value.into_owned()));
    }
    let asked = Value::Object(asked);
    let (id, at) = (text(&asked, "device"), text(&asked, "at"));
    let answer = match answer(&app, id, at).await {
        Ok(answer) => answer,
        Err(fault) if text(&asked, "part") == "1" => return fault.into_response(),
        Err(fault) => {
            let body = html! { main.login { section.card { p.fault { (fault.text()) } p { a href="/" { "Back" } } } } };
            return (fault.code(), page::page("Why", None, &body)).into_response();
        }
    };
    let shown = html! {
        @if !at.trim().is_empty() { p.why { (text(&answer, "sentence")) } }
        (trace(&answer, &app.zone))
    };
    if text(&asked, "part") == "1" {
        return Html(shown.into_string()).into_response();
    }
    let body = html! {
        main {
            section.card.answer {
                h2 { (id) }
                @if at.trim().is_empty() { p.why { (text(&answer, "sentence")) } }
                (shown)
                p { a href="/" { "Back" } }
            }
        }
    };
    page::page("Why", Some(app.zone.iana_name().unwrap_or("UTC")), &body).into_response()
}

async fn answer(app: &App, id: &str, at: &str) -> Result<Value, Fault> {
    let spec = api::known(app, id)?;
    let at = explain::asked(app, at)?;
    explain::answer(app, spec, at).await
}

/// What stands behind a sentence.
fn trace(answer: &Value, zone: &TimeZone) -> Markup {
    let steps = answer.get("trace").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let since = format_at(text(answer, "at"), zone);
    let before = answer.get("before").filter(|before| before.is_object());
    html! {
        @if let Some(note) = answer.get("note").and_then(Value::as_str) { p.fault { (note) } }
        @if let Some(before) = before {
            p.sub { "Before, since " (format_at(text(before, "at"), zone)) ": " (text(before, "sentence")) }
        } @else if !since.is_empty() {
            p.sub { "Since " (since) ", clock " (text(answer, "clock")) @if steps.is_empty() { ": no command, plan or limit" } }
            ol.trace {
                @for step in steps {
                    @let (word, what) = says(step, zone);
                    li data-step=(text(step, "step")) {
                        span.pill data-state=(word) { (word) }
                        span { (what) @if let Some(why) = step.get("why").and_then(Value::as_str) { " " span.sub { (why) } } }
                    }
                }
            }
        }
    }
}

/// A step: its pill, and what it says.
fn says(step: &Value, zone: &TimeZone) -> (String, String) {
    let word = |key: &str| text(step, key).replace('_', " ");
    match text(step, "step") {
        "input" => {
            ("input".to_owned(), format!("{}: {}", word("name"), format::point(text(step, "name"), &step["value"])))
        }
        "intent" => {
            let mut what = format!("{} ({}): {}", text(step, "key"), word("rank"), word("action"));
            for (name, value) in step.get("requested").and_then(Value::as_object).into_iter().flatten() {
                // Writing to a String cannot fail.
                let _never = write!(what, " {}", format::point(name, value)).is_err();
            }
            if let Some(end) = step.get("ends_at").and_then(Value::as_str) {
                let _never = write!(what, " until {}", format::moment_of(end, zone)).is_err();
            }
            (word("outcome"), what)
        }
        "limit" => {
            let unit = text(step, "unit").to_lowercase();
            let value = |key: &str| format::point(&format!("x_{unit}"), &step[key]);
            let from = if step["from"].is_null() { String::new() } else { format!("{} to ", value("from")) };
            ("limit".to_owned(), format!("{}: {from}{}", word("name"), value("to")))
        }
        "lease" => (word("state"), format!("{} {}", format_at(text(step, "at"), zone), text(step, "text"))),
        other => (other.to_owned(), String::new()),
    }
}

fn format_at(time: &str, zone: &TimeZone) -> String {
    time.parse::<Timestamp>().map_or_else(|_| time.to_owned(), |at| format::moment_s(at, zone))
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}
