//! `derd status`: a table that stays readable at 80 columns.

use super::{Failure, SocketArg, client, out, runtime};
use crate::wire::{ControlledByJson, DeviceJson, StatusJson};
use clap::Args;
use jiff::tz::TimeZone;
use serde_json::Value;
use std::fmt::Write;

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// The whole status as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: SocketArg,
}

pub(super) fn status(args: &StatusArgs) -> Result<(), Failure> {
    let text = runtime()?.block_on(client::get(&args.at, "/api/v1/status"))?;
    if args.json {
        out::say(text.trim_end());
        return Ok(());
    }
    let status: StatusJson = serde_json::from_str(&text).map_err(Failure::failed)?;
    out::say(table(&status).trim_end());
    Ok(())
}

/// The status as lines of at most 80 columns.
pub(super) fn table(status: &StatusJson) -> String {
    let mut t = String::new();
    let zone = TimeZone::get(&status.site.timezone).unwrap_or(TimeZone::UTC);
    let watts = |w: Option<f64>| w.map_or_else(|| "-".to_owned(), |w| format!("{w:.0} W"));
    // Writing to a String cannot fail.
    let mut line = |text: std::fmt::Arguments<'_>| {
        let mut one = String::new();
        let _never_fails = one.write_fmt(text).is_err();
        t.push_str(&cut(&one, 80));
        t.push('\n');
    };
    line(format_args!(
        "{}  {}  derd {}  up {}  clock {}",
        status.site.name,
        status.gateway.id,
        status.gateway.version,
        span(status.gateway.uptime_s),
        status.clock.state
    ));
    line(format_args!(
        "health {}   load {}   grid {}",
        status.health,
        watts(status.site.load_w),
        watts(status.site.grid_w)
    ));
    if status.remote_control.state == "paused" {
        let until = status.remote_control.until.as_deref().map(|at| format!(" until {}", local_time(at, &zone)));
        line(format_args!("remote control is paused{} (derd resume)", until.unwrap_or_default()));
    }
    for problem in &status.problems {
        line(format_args!("  ! {problem}"));
    }
    line(format_args!(""));
    if status.devices.is_empty() {
        line(format_args!("No device is configured yet: add one to /etc/derd/derd.toml"));
    } else {
        line(format_args!(
            "{:20} {:9} {:11} {:>6} {:>9} {:>6}  {}",
            "DEVICE", "KIND", "STATE", "AGE", "POWER", "SOC", "DOING"
        ));
    }
    for device in &status.devices {
        line(format_args!("{}", device_line(device)));
        if let Some(by) = &device.controlled_by {
            let action = by.action.replace('_', " ");
            let short = |text: &str| cut(text, 24);
            let by = ControlledByJson { source: short(&by.source), plan: by.plan.as_deref().map(short), ..by.clone() };
            let until = by.ends_at.as_ref().map(|at| format!(" until {}", local_time(at, &zone)));
            line(format_args!("    {action} by {}{}", by.who(), until.unwrap_or_default()));
        }
        if let Some(error) = &device.error {
            line(format_args!("    {error}"));
        }
    }
    if !status.uplinks.is_empty() {
        line(format_args!(""));
        line(format_args!("{:20} {:9} {:11} {:>9}  {}", "UPLINK", "KIND", "MODE", "BACKLOG", "LAST OK"));
    }
    for uplink in &status.uplinks {
        let last = uplink.last_ok_at.as_deref().map_or_else(|| "never".to_owned(), |at| local_time(at, &zone));
        line(format_args!(
            "{:20} {:9} {:11} {:>9}  {last}",
            cut(&uplink.name, 20),
            uplink.kind,
            uplink.mode,
            uplink.backlog_rows
        ));
        if let Some(error) = &uplink.error {
            line(format_args!("    {error}"));
        }
    }
    line(format_args!(""));
    line(format_args!(
        "store  {:.1} MB on disk, {} samples, {:.1} MB written today, {} lost",
        megabytes(status.store.bytes),
        status.store.rows,
        megabytes(status.store.written_bytes_today),
        status.store.dropped
    ));
    t
}

fn device_line(device: &DeviceJson) -> String {
    let point = |name: &str| device.points.get(name).and_then(Value::as_f64);
    let power = point("power_w").map_or_else(|| "-".to_owned(), |w| format!("{w:.0} W"));
    let soc = point("soc_pct").map_or_else(String::new, |s| format!("{s:.0} %"));
    let age = device.age_ms.map_or_else(|| "-".to_owned(), |ms| span(ms / 1000));
    let doing = device.points.get("state").and_then(Value::as_str).unwrap_or_default();
    let id = cut(&device.id, 20);
    format!("{id:20} {:9} {:11} {age:>6} {power:>9} {soc:>6}  {doing}", device.kind, device.state)
}

/// `2026-11-20T12:34:56.000Z` -> `20 Nov 13:34`, by the site's own clock.
pub(super) fn local_time(rfc3339: &str, zone: &TimeZone) -> String {
    rfc3339
        .parse::<jiff::Timestamp>()
        .map_or_else(|_| rfc3339.to_owned(), |at| at.to_zoned(zone.clone()).strftime("%-d %b %H:%M").to_string())
}

fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds % 86400 / 3600),
    }
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.trim_end().to_owned();
    }
    text.chars().take(columns - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        let device = json!({"id": "a-device-with-a-long-name", "kind": "inverter", "profile": "sunspec", "link": "x",
            "state": "connecting", "age_ms": 86_400_000_u64, "points": {"power_w": -12345.6, "soc_pct": 100.0},
            "controlled_by": {"source": "somebody with a very long label indeed", "rank": "command", "action": "discharge",
            "ends_at": "2026-11-20T12:34:56.000Z"}, "error": "e".repeat(200)});
        let status: StatusJson = serde_json::from_value(json!({
            "gateway": {"id": "gw-1", "version": "0.1.0", "started_at": "x", "uptime_s": 3_700},
            "site": {"name": "Home", "timezone": "Europe/Berlin", "load_w": 1234.5, "grid_w": null}, "clock": {"state": "synced"},
            "remote_control": {"state": "paused", "until": "2026-11-20T18:00:00.000Z"},
            "devices": [device], "uplinks": [{"name": "mqtt", "kind": "mqtt", "mode": "live", "backlog_rows": 0,
            "oldest_unsent": null, "last_ok_at": null, "error": null}],
            "store": {"bytes": 1_000_000, "rows": 5, "oldest": null, "written_bytes_today": 0, "dropped": 0},
            "health": "ok", "problems": ["p".repeat(100)]
        }))
        .unwrap();
        let table = table(&status);
        assert!(table.lines().all(|l| l.chars().count() <= 80), "{table}");
        assert!(table.contains("load 1234 W   grid -"), "{table}");
        assert!(table.contains("up 1h01"), "{table}");
        assert!(table.contains("\nremote control is paused until 20 Nov 19:00 (derd resume)\n"), "{table}");
        // What matters of a long line is not cut off: rank, action and end.
        assert!(
            table.contains("\n    discharge by somebody with a very lo… (command) until 20 Nov 13:34\n"),
            "{table}"
        );
        let mut status = status;
        let by = |by: Value| serde_json::from_value::<Option<ControlledByJson>>(by).unwrap();
        for (holder, line) in [
            (json!({"source": "local", "rank": "owner", "action": "stop", "ends_at": null}), "    stop by the owner"),
            (
                json!({"source": "local", "rank": "plan", "action": "set_max_current", "plan": "sun", "ends_at": null}),
                "    set max current by plan sun",
            ),
        ] {
            status.devices[0].controlled_by = by(holder);
            let table = super::table(&status);
            assert!(table.lines().any(|l| l == line), "{table}");
        }
        assert!(table.contains("a-device-with-a-lon… inverter  connecting"), "{table}");
    }
}
