//! `derd demo` as a stranger runs it.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use hil_tests::{Broker, BrokerOptions, Daemon, derd_binary, eventually, free_port, wait_for};
use serde_json::Value;
use std::collections::HashMap;
use std::process::Command;
use std::time::Duration;

/// A truth line: when, and what the registers said.
struct Truth {
    ts: String,
    devices: Value,
    load_w: f64,
}

fn truth_lines(text: &str) -> Vec<Truth> {
    text.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["devices"].is_object())
        .map(|line| Truth {
            ts: line["ts"].as_str().unwrap().to_owned(),
            load_w: line["load_w"].as_f64().unwrap(),
            devices: line["devices"].clone(),
        })
        .collect()
}

/// One register step of the coarsest scale in use (0.1), and the float's own rounding.
fn within_a_step(truth: &Value, published: &Value) -> bool {
    match (truth.as_f64(), published.as_f64()) {
        (Some(t), Some(p)) => (t - p).abs() <= 0.100_001_f64.max(t.abs() * 1e-9),
        _ => truth == published,
    }
}

#[test]
fn a_steady_home_is_seen_as_it_is_and_nothing_is_left_behind() {
    seen_as_it_is("steady", 5.0);
}

#[test]
fn a_day_in_which_everything_changes_is_published_as_it_was() {
    // An hour passes in a minute: the load of the status is a second old, the published points are exact.
    seen_as_it_is("day", 2500.0);
}

fn seen_as_it_is(scenario: &str, load_tolerance_w: f64) {
    let folder = tempfile::tempdir().unwrap();
    let temp = folder.path().join("tmp");
    std::fs::create_dir(&temp).unwrap();
    let truth = folder.path().join("truth.jsonl");
    let broker = Broker::start(folder.path(), &BrokerOptions::default());
    let samples = broker.subscribe("derd/demo/device/+/telemetry");
    let port = free_port();
    let mut command = Command::new(derd_binary());
    command
        .args([
            "demo",
            "--for",
            "20s",
            "--speed",
            "60",
            "--scenario",
            scenario,
            "--listen",
            &format!("127.0.0.1:{port}"),
        ])
        .args(["--mqtt", &broker.url(), "--truth"])
        .arg(&truth)
        .env("TMPDIR", &temp)
        .env_remove("DERD_SOCKET");
    let mut demo = Daemon::spawn(command, folder.path().join("unknown"));
    let socket = wait_for("DERD_SOCKET is printed first", Duration::from_secs(5), || {
        demo.log().lines().next().and_then(|l| l.strip_prefix("DERD_SOCKET=").map(str::to_owned))
    });
    let ask = || {
        let out = hil_tests::cli(&["status", "--json"], Some(socket.as_ref()));
        serde_json::from_str::<Value>(&out.stdout).ok()
    };
    // Four devices online, fresh, and a load that fits the truth.
    eventually("the home is seen as it is", Duration::from_secs(15), || {
        let Some(status) = ask() else { return false };
        let devices = status["devices"].as_array().unwrap();
        let fresh = devices.len() == 4
            && devices.iter().all(|d| d["state"] == "online" && d["age_ms"].as_u64().is_some_and(|ms| ms < 2000));
        let load = status["site"]["load_w"].as_f64();
        let told = std::fs::read_to_string(&truth).unwrap_or_default();
        let Some(last) = truth_lines(&told).pop() else { return false };
        fresh && load.is_some_and(|w| (w - last.load_w).abs() <= load_tolerance_w)
    });
    // The page and the API are there without any login.
    let page = Command::new("curl").args(["-sS", &format!("http://127.0.0.1:{port}/")]).output().unwrap();
    assert!(String::from_utf8_lossy(&page.stdout).contains("Demo home"));
    assert_eq!(demo.wait_end(Duration::from_secs(40)), Some(0), "{}", demo.log());
    assert_eq!(std::fs::read_dir(&temp).unwrap().count(), 0, "a file was left behind");

    // Each published point is what a register held at that moment. A read that met a tick (the first poll of a device is
    // not aligned) may show the tick before or after.
    let lines = truth_lines(&std::fs::read_to_string(&truth).unwrap());
    let mut checked: HashMap<String, usize> = HashMap::new();
    let (mut exact, mut met_a_tick) = (0, 0);
    let published = samples.all();
    assert!(published.len() >= 4 * 12, "{} samples came", published.len());
    for message in &published {
        let device = message.topic.split('/').nth(3).unwrap();
        let ts = message.json["ts"].as_str().unwrap();
        let next = lines.partition_point(|t| t.ts.as_str() <= ts);
        let told = |line: Option<usize>, point: &str| {
            line.and_then(|i| lines.get(i)).map(|t| t.devices[device][point].clone())
        };
        for (point, value) in message.json["points"].as_object().unwrap() {
            let now = told(next.checked_sub(1), point);
            if value.is_null() || now.as_ref().is_none_or(Value::is_null) {
                continue;
            }
            let near = [now.clone(), told(next.checked_sub(2), point), told(Some(next), point)];
            let at = near.iter().position(|t| t.as_ref().is_some_and(|t| within_a_step(t, value)));
            assert!(at.is_some(), "{device}.{point} at {ts}: published {value}, truth {near:?}");
            if at == Some(0) {
                exact += 1;
            } else {
                met_a_tick += 1;
            }
            *checked.entry(format!("{device}.{point}")).or_default() += 1;
        }
    }
    assert!(met_a_tick * 50 <= exact, "{met_a_tick} of {exact} points were not of their own tick");
    for point in
        ["pv.power_w", "battery.power_w", "battery.soc_pct", "grid.power_w", "charger.power_w", "grid.energy_import_wh"]
    {
        assert!(checked.get(point).is_some_and(|n| *n >= 10), "{point} was hardly checked: {checked:?}");
    }
}
