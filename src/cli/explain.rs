//! `derd explain`: the sentence, then the trace in columns.

use super::{Failure, SocketArg, client, out, runtime};
use clap::Args;
use jiff::tz::TimeZone;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::fmt::Write as _;

/// Where texts are broken.
const COLUMNS: usize = 80;
/// Where the text of a step begins.
const INDENT: usize = 12;

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// Which device
    device: String,
    /// At which time of the last 30 days: 14:05, 'yesterday 14:05', '2026-11-20 14:05' (by the site's clock), -2h, or RFC 3339
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    at: Option<String>,
    /// The whole answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: SocketArg,
}

pub(super) fn explain(args: &ExplainArgs) -> Result<(), Failure> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("at", args.at.as_deref().unwrap_or("now"));
    let device: String = url::form_urlencoded::byte_serialize(args.device.as_bytes()).collect();
    let path = format!("/api/v1/devices/{device}/explain?{}", query.finish());
    let (status, text) = runtime()?.block_on(client::call(&args.socket, Method::GET, &path, None))?;
    if status == StatusCode::BAD_REQUEST
        && let Failure::Failed(why) = client::refused(&text)
    {
        return Err(Failure::Usage(why.replacen("at: ", "--at: ", 1)));
    }
    if !status.is_success() {
        return Err(client::refused(&text));
    }
    if args.json {
        out::say(text.trim_end());
        return Ok(());
    }
    let answer: Value = serde_json::from_str(&text).map_err(Failure::failed)?;
    out::say(told(&answer).trim_end());
    Ok(())
}

/// The answer as lines for a terminal.
fn told(answer: &Value) -> String {
    let zone = TimeZone::get(word(answer, "timezone")).unwrap_or(TimeZone::UTC);
    let mut t = String::new();
    wrapped(&mut t, "", word(answer, "sentence"), 0);
    if let Some(note) = answer.get("note").and_then(Value::as_str) {
        wrapped(&mut t, "! ", note, 2);
    }
    let shown = match answer.get("before").filter(|before| before.is_object()) {
        Some(before) => {
            let sentence = format!("{}: {}", local(word(before, "at"), &zone, true), word(before, "sentence"));
            line(&mut t, "before", &sentence);
            before
        }
        None => answer,
    };
    let steps = shown.get("trace").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if steps.is_empty() {
        return t;
    }
    t.push('\n');
    let since = format!("{}, clock {}", local(word(shown, "at"), &zone, true), word(shown, "clock"));
    line(&mut t, "since", &since);
    for step in steps {
        let (label, text) = said(step, &zone);
        line(&mut t, &label, &text);
        if let Some(why) = step.get("why").and_then(Value::as_str) {
            line(&mut t, "", why);
        }
    }
    t
}

/// A step: its first column, and the rest.
fn said(step: &Value, zone: &TimeZone) -> (String, String) {
    let spaced = |key: &str| word(step, key).replace('_', " ");
    let number = |value: &Value| value.as_f64().map_or_else(|| "-".to_owned(), plain);
    match word(step, "step") {
        "input" => ("input".to_owned(), format!("{:<14} {}", word(step, "name"), number(&step["value"]))),
        "intent" => {
            let mut text = format!("{:<9} {} {}", word(step, "rank"), word(step, "key"), spaced("action"));
            for (name, value) in step.get("requested").and_then(Value::as_object).into_iter().flatten() {
                let value = value.as_f64().map_or_else(|| value.to_string(), plain);
                // Writing to a String cannot fail.
                let _never = write!(text, " {name}={value}").is_err();
            }
            if let Some(end) = step.get("ends_at").and_then(Value::as_str) {
                let _never = write!(text, " until {}", local(end, zone, false)).is_err();
            }
            (spaced("outcome"), text)
        }
        "limit" => {
            let from = if step["from"].is_null() { String::new() } else { format!("{} -> ", number(&step["from"])) };
            let text = format!("{:<14} {from}{} {}", word(step, "name"), number(&step["to"]), word(step, "unit"));
            ("limit".to_owned(), text)
        }
        "lease" => (spaced("state"), format!("{} {}", local(word(step, "at"), zone, true), word(step, "text"))),
        other => (other.to_owned(), String::new()),
    }
}

/// Without decimals where there are none, with one where there are.
fn plain(n: f64) -> String {
    let text = format!("{n:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

fn line(t: &mut String, label: &str, text: &str) {
    wrapped(t, &format!("  {label:<9} "), text, INDENT);
}

/// A text behind a label, broken between words, its further lines so far to the right. A control character shows as a dot:
/// texts of senders must not move the terminal.
fn wrapped(t: &mut String, label: &str, text: &str, indent: usize) {
    let mut now = label.to_owned();
    let mut is_begun = false;
    for word in text.split(' ') {
        if word.is_empty() && !is_begun {
            continue;
        }
        let word: String = word.chars().map(|c| if c.is_control() { '\u{b7}' } else { c }).collect();
        if is_begun && now.chars().count() + 1 + word.chars().count() > COLUMNS {
            t.push_str(now.trim_end());
            t.push('\n');
            now = " ".repeat(indent);
            is_begun = false;
        }
        if is_begun {
            now.push(' ');
        }
        now.push_str(&word);
        is_begun = true;
    }
    t.push_str(now.trim_end());
    t.push('\n');
}

/// `20 Nov 13:34` by the site's own clock, or with seconds.
fn local(rfc3339: &str, zone: &TimeZone, has_seconds: bool) -> String {
    let form = if has_seconds { "%-d %b %H:%M:%S" } else { "%-d %b %H:%M" };
    rfc3339
        .parse::<jiff::Timestamp>()
        .map_or_else(|_| rfc3339.to_owned(), |at| at.to_zoned(zone.clone()).strftime(form).to_string())
}

fn word<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer() -> Value {
        json!({
            "device": "battery", "at": "2026-11-20T12:00:03.000Z", "clock": "synced", "timezone": "Europe/Berlin", "note": null,
            "sentence": "battery charges with 2.0 kW: acme asked for 5.0 kW by command c-1 until 13:15, and the import limit leaves no more.",
            "trace": [
                {"step": "input", "name": "grid_w", "value": 8200.0, "why": null},
                {"step": "input", "name": "soc_pct", "value": null, "why": "stale"},
                {"step": "intent", "outcome": "wins", "rank": "command", "source": "acme", "key": "command c-1 by acme",
                 "action": "charge", "requested": {"power_w": 5000.0}, "ends_at": "2026-11-20T12:15:00.000Z", "why": null},
                {"step": "intent", "outcome": "waits", "rank": "schedule", "source": "local", "key": "plan night", "action": "idle",
                 "requested": {}, "ends_at": null, "why": "command c-1 by acme ranks higher (command)"},
                {"step": "limit", "name": "import_limit", "from": 5000.0, "to": 2000.0, "unit": "W",
                 "why": "the grid meter shows 8.2 kW; 17.3 kW are allowed"},
                {"step": "lease", "state": "verified", "at": "2026-11-20T12:00:04.000Z", "text": "unit 1 holding 40345 reads 2000"},
            ],
        })
    }

    #[test]
    fn a_trace_in_columns() {
        let wanted = "\
battery charges with 2.0 kW: acme asked for 5.0 kW by command c-1 until 13:15,
and the import limit leaves no more.

  since     20 Nov 13:00:03, clock synced
  input     grid_w         8200
  input     soc_pct        -
            stale
  wins      command   command c-1 by acme charge power_w=5000 until 20 Nov 13:15
  waits     schedule  plan night idle
            command c-1 by acme ranks higher (command)
  limit     import_limit   5000 -> 2000 W
            the grid meter shows 8.2 kW; 17.3 kW are allowed
  verified  20 Nov 13:00:04 unit 1 holding 40345 reads 2000
";
        assert_eq!(told(&answer()), wanted);
    }

    #[test]
    fn a_gap_tells_what_was_before_and_no_text_moves_the_terminal() {
        let mut before = answer();
        before["sentence"] = json!("It \u{1b}[31mcharges.");
        let gap = json!({"device": "battery", "sentence": "derd was not running.", "timezone": "UTC", "trace": [], "before": before,
            "note": "The clock is not to be trusted now."});
        let told = told(&gap);
        let head = "derd was not running.\n! The clock is not to be trusted now.\n  before    20 Nov 12:00:03: It \u{b7}[31mcharges.\n\n  since";
        assert!(told.starts_with(head), "{told}");
        assert!(told.lines().all(|l| l.chars().count() <= COLUMNS), "{told}");
    }
}
