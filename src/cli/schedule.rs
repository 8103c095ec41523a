//! `derd schedule`

use super::import::{ImportArgs, import};
use super::status::local_time;
use super::{Failure, SocketArg, client, out, runtime};
use crate::runtime::Clock;
use clap::{Args, Subcommand};
use jiff::tz::TimeZone;
use reqwest::Method;
use serde_json::Value;

#[derive(Debug, Args)]
pub(super) struct ScheduleArgs {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    at: SocketArg,
}

#[derive(Debug, Subcommand)]
enum What {
    /// All schedules, a line each
    #[command(after_help = "Example:\n  derd schedule list")]
    List,
    /// One schedule as JSON, and what it means to do
    #[command(after_help = "Example:\n  derd schedule show night-charge")]
    Show {
        /// Its id
        id: String,
    },
    /// Take a schedule from a JSON file, in place of one with its id
    #[command(
        after_help = "Example:\n  derd schedule import night-charge.json\n\nThe file, for a battery that charges at night:\n  \
        {\"id\":\"night-charge\",\"device\":\"battery\",\"kind\":\"weekly\",\"timezone\":\"Europe/Berlin\",\n   \
        \"default\":{\"action\":\"auto\"},\n   \
        \"rules\":[{\"days\":[\"mon\",\"tue\"],\"start\":\"22:00\",\"end\":\"06:00\",\n             \
        \"action\":\"charge\",\"params\":{\"power_w\":2000}}]}\n\nWhat a cloud's API answered, as it is:\n  \
        derd schedule import answer.json --from enode --device charger --timezone Europe/Oslo"
    )]
    Import(ImportArgs),
    /// Remove a schedule
    #[command(after_help = "Example:\n  derd schedule delete night-charge")]
    Delete {
        /// Its id
        id: String,
    },
}

pub(super) fn schedule(args: &ScheduleArgs) -> Result<(), Failure> {
    let runtime = runtime()?;
    match &args.what {
        What::List => {
            let all = runtime.block_on(all(&args.at))?;
            if all.is_empty() {
                out::say("no schedules");
            }
            let zone = runtime.block_on(client::zone(&args.at));
            for line in listed(&all, &zone) {
                out::say(&line);
            }
            Ok(())
        }
        What::Show { id } => {
            let all = runtime.block_on(all(&args.at))?;
            let found = all.iter().find(|p| p.get("id").and_then(Value::as_str) == Some(id));
            let document = found
                .and_then(|p| p.get("document"))
                .ok_or_else(|| Failure::Failed(format!("no schedule `{id}`; `derd schedule list` names them")))?;
            out::say(&serde_json::to_string_pretty(document).map_err(Failure::failed)?);
            // Beside the document, so that the document alone can be kept and imported again.
            let zone = runtime.block_on(client::zone(&args.at));
            let now = Clock::system().now().to_string();
            for line in found.map(|plan| outlook(plan, &all, &zone, &now)).unwrap_or_default() {
                out::note(&line);
            }
            Ok(())
        }
        What::Import(what) => runtime.block_on(import(what, &args.at)),
        What::Delete { id } => {
            let nothing = Value::Object(serde_json::Map::new());
            answer(id, runtime.block_on(client::call(&args.at, Method::DELETE, &path(id), Some(&nothing)))?)
        }
    }
}

fn word(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or("-").to_owned()
}

/// All schedules as lines: within 80 columns, unless ids are very long.
fn listed(all: &[Value], zone: &TimeZone) -> Vec<String> {
    let mut lines = Vec::new();
    if !all.is_empty() {
        lines.push(format!("{:18} {:12} {:8} {:16} {}", "SCHEDULE", "DEVICE", "KIND", "WANTS NOW", "NEXT CHANGE"));
    }
    for plan in all {
        let active = word(plan, "active").replace('_', " ");
        let next = plan.get("next_change").and_then(Value::as_str).map_or("-".to_owned(), |at| local_time(at, zone));
        let (id, device, kind) = (word(plan, "id"), word(plan, "device"), word(plan, "kind"));
        lines.push(format!("{id:18} {device:12} {kind:8} {active:16} {next}"));
    }
    lines
}

/// What a plan that looks at the house says of itself.
fn outlook(plan: &Value, all: &[Value], zone: &TimeZone, now: &str) -> Vec<String> {
    let Some(planned) = plan.get("planned").and_then(Value::as_array) else { return Vec::new() };
    let wants = plan.get("active").and_then(Value::as_str).map_or("nothing".to_owned(), |a| a.replace('_', " "));
    let why = plan.get("why").and_then(Value::as_str).map(|why| format!(", as {why}")).unwrap_or_default();
    let mut lines = vec![format!("wants {wants} now{why}")];
    let tariff = plan.pointer("/document/tariff");
    let tariff = all.iter().find(|p| p.get("id") == tariff).and_then(|p| p.pointer("/document/currency"));
    let currency = tariff.and_then(Value::as_str).unwrap_or_default();
    // What is over is no plan any more. The times are of one form: they compare as texts.
    for slot in planned.iter().filter(|slot| word(slot, "end").as_str() > now) {
        let time = |key: &str| local_time(&word(slot, key), zone);
        let price = slot.get("price").and_then(Value::as_f64);
        let price = price.map_or_else(|| "no price".to_owned(), |p| format!("{p:.4} {currency}"));
        let does = word(slot, "action").replace("start", "charge");
        let line = format!("{} to {}  {does:10} {price}", time("start"), time("end"));
        lines.push(line.trim_end().to_owned());
    }
    lines
}

pub(super) fn path(id: &str) -> String {
    format!("/api/v1/schedules/{}", url::form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>())
}

pub(super) async fn all(at: &SocketArg) -> Result<Vec<Value>, Failure> {
    let text = client::get(at, "/api/v1/schedules").await?;
    serde_json::from_str(&text).map_err(Failure::failed)
}

pub(super) fn answer(id: &str, (status, text): (reqwest::StatusCode, String)) -> Result<(), Failure> {
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    if status.is_success() {
        out::say(&format!("{id}: {}", value.get("state").and_then(Value::as_str).unwrap_or("done")));
        return Ok(());
    }
    match value.get("reasons").and_then(Value::as_array) {
        Some(reasons) if !reasons.is_empty() => {
            let lines: Vec<_> = reasons.iter().filter_map(Value::as_str).collect();
            Err(Failure::Failed(format!("{id} was refused:\n  {}", lines.join("\n  "))))
        }
        _ => Err(client::refused(&text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn home() -> Vec<Value> {
        let slot = json!({"start": "2026-11-20T21:00:00.000Z", "end": "2026-11-21T00:00:00.000Z", "action": "start", "price": 0.22});
        vec![
            json!({"id": "night", "device": "charger", "kind": "price", "active": "set_max_current",
                "next_change": "2026-11-21T00:00:00.000Z", "why": "this hour is among the cheapest", "planned": [slot],
                "document": {"tariff": "t1"}}),
            json!({"id": "t1", "device": null, "kind": "tariff", "active": null, "next_change": null, "why": null,
                "planned": null, "document": {"currency": "EUR"}}),
        ]
    }

    #[test]
    fn schedules_are_told_by_the_sites_clock() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let list = listed(&home(), &berlin);
        assert!(list.iter().all(|l| l.len() <= 80), "{list:#?}");
        assert_eq!(list[1], "night              charger      price    set max current  21 Nov 01:00");
        assert_eq!(list[2], "t1                 -            tariff   -                -");
        assert_eq!(
            outlook(&home()[0], &home(), &berlin, "2026-11-20T20:00:00.000Z"),
            [
                "wants set max current now, as this hour is among the cheapest",
                "20 Nov 22:00 to 21 Nov 01:00  charge     0.2200 EUR",
            ]
        );
        let after = outlook(&home()[0], &home(), &berlin, "2026-11-21T00:00:00.000Z");
        assert_eq!(after.len(), 1, "{after:#?}");
        assert_eq!(outlook(&home()[1], &home(), &berlin, "2026-11-20T20:00:00.000Z"), [""; 0]);
    }
}
