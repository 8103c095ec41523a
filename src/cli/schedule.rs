//! `derd schedule`

use super::import::{ImportArgs, import};
use super::{Failure, SocketArg, client, out, runtime};
use clap::{Args, Subcommand};
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
            for plan in &all {
                let word = |key: &str| plan.get(key).and_then(Value::as_str).unwrap_or("-");
                out::say(&format!(
                    "{:18} {:10} {:7} now: {:12} until {}",
                    word("id"),
                    word("device"),
                    word("kind"),
                    word("active"),
                    // To the minute: the line stays within 80 columns.
                    word("next_change").get(..16).map_or_else(|| "-".to_owned(), |minute| format!("{minute}Z"))
                ));
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
            for line in found.map(outlook).unwrap_or_default() {
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

/// What a plan that looks at the house says of itself.
fn outlook(plan: &Value) -> Vec<String> {
    let word = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
    let Some(planned) = plan.get("planned").and_then(Value::as_array) else { return Vec::new() };
    let mut lines = vec![format!("now: {}: {}", word(plan, "active"), word(plan, "why"))];
    for slot in planned {
        let minute = |key: &str| word(slot, key).get(..16).map_or_else(|| "-".to_owned(), |m| format!("{m}Z"));
        let price =
            slot.get("price").and_then(Value::as_f64).map_or_else(|| "no price".to_owned(), |p| format!("{p:.4}"));
        lines.push(format!("{} to {}  {:10} {price}", minute("start"), minute("end"), word(slot, "action")));
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
