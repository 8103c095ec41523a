//! `derd baseline` and `derd wear`: what the installer set in a device, and what writing has cost it.

use super::{Failure, SocketArg, client, out, runtime};
use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

#[derive(Debug, Args)]
pub(super) struct BaselineArgs {
    /// Which device
    device: String,
    /// Take what is in the device now for its baseline: the installer's word
    #[arg(long)]
    accept: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: SocketArg,
}

#[derive(Debug, Args)]
pub(super) struct WearArgs {
    /// Which device; absent: all
    device: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: SocketArg,
}

pub(super) fn baseline(args: &BaselineArgs) -> Result<(), Failure> {
    let path = format!("{}/baseline", place(&args.device));
    let text = runtime()?.block_on(async {
        if !args.accept {
            return client::get(&args.at, &path).await;
        }
        let (status, text) = client::call(&args.at, Method::POST, &path, Some(&json!({"accept": true}))).await?;
        if status.is_success() { Ok(text) } else { Err(client::refused(&text)) }
    })?;
    if args.json {
        out::say(text.trim_end());
        return Ok(());
    }
    let report: Value = serde_json::from_str(&text).map_err(Failure::failed)?;
    out::say(baseline_text(&report, args.accept).trim_end());
    Ok(())
}

fn place(device: &str) -> String {
    let device: String = url::form_urlencoded::byte_serialize(device.as_bytes()).collect();
    format!("/api/v1/devices/{device}")
}

fn word(value: &Value, key: &str) -> String {
    match value.get(key) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => "-".to_owned(),
        Some(other) => other.to_string(),
    }
}

fn baseline_text(report: &Value, accepted: bool) -> String {
    let device = word(report, "device");
    let Some(recorded) = report.get("recorded").and_then(Value::as_object) else {
        return format!("{device}: no baseline is recorded yet (control is not enabled, or it was not reached)");
    };
    let mut text = format!("{device}: {}\n", if accepted { "accepted as its baseline" } else { "its baseline" });
    for (key, value) in recorded {
        text += &format!("  {key} = {value}\n");
    }
    let drift = report.get("drift").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for d in drift {
        let [register, name, stored, now] = ["register", "name", "stored", "now"].map(|key| word(d, key));
        text += &format!("  ! {name} ({register}) was {stored} and is {now} now\n");
    }
    text + &match (drift.is_empty(), word(report, "checked_at")) {
        (_, at) if at == "-" => "not compared yet\n".to_owned(),
        (true, at) => format!("the device was as its baseline says at {at}\n"),
        (false, at) => format!("as of {at}; `derd baseline {device} --accept` takes over what is in the device\n"),
    }
}

pub(super) fn wear(args: &WearArgs) -> Result<(), Failure> {
    let devices: Vec<Value> = runtime()?.block_on(async {
        let ids: Vec<String> = match &args.device {
            Some(id) => vec![id.clone()],
            None => {
                let all: Vec<Value> = parse(&client::get(&args.at, "/api/v1/devices").await?)?;
                all.iter().map(|d| word(d, "id")).collect()
            }
        };
        let mut devices = Vec::new();
        for id in ids {
            let device: Value = parse(&client::get(&args.at, &place(&id)).await?)?;
            devices.push(json!({"device": id, "wear": device.get("wear")}));
        }
        Ok::<_, Failure>(devices)
    })?;
    if args.json {
        out::say(&Value::from(devices).to_string());
        return Ok(());
    }
    out::say(wear_text(&devices).trim_end());
    Ok(())
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(Failure::failed)
}

fn wear_text(devices: &[Value]) -> String {
    let mut text = format!(
        "{:28} {:9} {:>9} {:>7} {:>7} {:>10}\n",
        "REGISTER", "CLASS", "WRITES", "TODAY", "BUDGET", "YEARS LEFT"
    );
    for device in devices {
        text += &format!("{}\n", word(device, "device"));
        let rows = device.get("wear").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if rows.is_empty() {
            text += "  nothing was written to it\n";
        }
        for row in rows {
            let [register, class, writes, today, budget, years] =
                ["register", "class", "writes", "today", "budget_per_day", "years_left"].map(|key| word(row, key));
            text += &format!("  {register:26} {class:9} {writes:>9} {today:>7} {budget:>7} {years:>10}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_baseline_for_people() {
        let report = json!({"device": "pv", "recorded": {"wmaxlimpct": 700}, "checked_at": "2026-11-20T12:00:00.000Z",
            "drift": [{"register": "unit 1 holding 40345", "name": "123.WMaxLimPct", "stored": "700", "now": "1000"}]});
        let text = baseline_text(&report, false);
        assert!(text.contains("! 123.WMaxLimPct (unit 1 holding 40345) was 700 and is 1000 now"), "{text}");
        assert!(text.contains("derd baseline pv --accept"), "{text}");
        assert!(baseline_text(&json!({"device": "pv", "recorded": null}), false).contains("no baseline is recorded"));
    }

    #[test]
    fn wear_for_people_fits_a_terminal() {
        let rows = json!([{"register": "unit 1 holding 40345", "class": "flash", "writes": 123, "today": 4, "budget_per_day": 18, "years_left": 34.2}]);
        let text = wear_text(&[json!({"device": "pv", "wear": rows}), json!({"device": "grid", "wear": []})]);
        assert!(text.lines().all(|l| l.len() <= 80), "{text}");
        assert!(
            text.contains("123       4      18       34.2") && text.contains("nothing was written to it"),
            "{text}"
        );
    }
}
