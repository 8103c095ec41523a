//! `kill -9` and what comes after.
#![expect(clippy::disallowed_methods, reason = "end-to-end tests live in real time")]

use derd::model::Point;
use derd::runtime::Clock;
use derd::sim::{Home, HomeOptions, Scenario};
use hil_tests::{Broker, BrokerOptions, Daemon, cli, config_for, eventually, now_rfc3339, publish, rfc3339_in};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// Writes that reached a simulated device, from the truth file.
fn writes(truth: &Path, device: &str) -> Vec<Value> {
    std::fs::read_to_string(truth)
        .unwrap_or_default()
        .lines()
        .filter_map(|l| serde_json::from_str::<Value>(l).ok())
        .filter(|l| l["device"] == device && !l["write"].is_null())
        .collect()
}

#[test]
fn a_plan_goes_on_after_kill_9_and_a_command_never_acts_twice() {
    let folder = tempfile::tempdir().unwrap();
    let truth = folder.path().join("truth.jsonl");
    let options = HomeOptions { scenario: Scenario::Steady, truth: Some(truth.clone()), ..HomeOptions::default() };
    let home = Home::start(options, Clock::system()).unwrap();
    let broker = Broker::start(folder.path(), &BrokerOptions::default());
    let seen = broker.subscribe("derd/gw-1/#");
    let uplink = format!("[[uplink]]\nkind = \"mqtt\"\nurl = {:?}\n", broker.url());
    let config = config_for(&home, folder.path(), &uplink);
    let daemon = Daemon::start(folder.path(), &config);
    daemon.wait_online(SOON);

    // A plan that discharges now, and a command on the charger that has ended before the kill.
    let plan = json!({"id": "p1", "device": "battery", "kind": "slots", "slots": [
        {"start": now_rfc3339(), "end": rfc3339_in(Duration::from_secs(120)), "action": "discharge", "params": {"power_w": 2000}}]});
    assert!(publish(&broker, "derd/gw-1/plan/p1/set", &plan.to_string(), &[]));
    let answer = seen.wait("the plan is accepted", SOON, |m| m.topic == "derd/gw-1/plan/p1/result");
    assert_eq!(answer.json["state"], "accepted", "{}", answer.payload);
    let discharging = || home.truth().num("battery", &Point::PowerW).is_some_and(|w| (w - 2000.0).abs() < 60.0);
    eventually("the battery discharges by the plan", SOON, discharging);
    let stop = json!({"id": "s-1", "action": "set_max_current", "params": {"current_a": 10}, "issued_at": now_rfc3339(),
        "ends_at": rfc3339_in(Duration::from_secs(90))});
    assert!(publish(&broker, "derd/gw-1/device/charger/command", &stop.to_string(), &[]));
    drop(seen.wait_result("s-1", "verified", SOON));

    daemon.kill();
    let again = Daemon::start(folder.path(), &config);
    again.wait_online(SOON);
    eventually("the plan holds the battery again", SOON, || {
        let by = again.device("battery")["controlled_by"].clone();
        by["rank"] == "plan" && by["action"] == "discharge"
    });
    eventually("and the battery goes on discharging", SOON, discharging);
    // The battery was never let go in between: no write that released it.
    assert_eq!(again.device("charger")["controlled_by"]["rank"], "command");
    // The same command again: the stored result, and no further write to the charger but those of its lease.
    let before = writes(&truth, "charger").len();
    assert!(publish(&broker, "derd/gw-1/device/charger/command", &stop.to_string(), &[]));
    let n = seen.all().len();
    eventually("its result comes again", SOON, || {
        seen.all()[n.saturating_sub(1)..].iter().any(|m| m.json["id"] == "s-1")
    });
    assert_eq!(writes(&truth, "charger").len(), before);
    assert_eq!(again.stop(), Some(0));
    // An orderly stop gives the battery back to itself, and the charger its fallback, which is the tighter value.
    eventually("the battery is released", SOON, || !discharging());
    eventually("the charger is at its fallback", SOON, || home.with_world(|w| w.charger.amps) <= 6.0);
}

#[test]
fn after_a_crash_without_any_reason_left_the_device_is_released() {
    let folder = tempfile::tempdir().unwrap();
    // A battery whose setpoints stay: nothing but derd can release it.
    let options = HomeOptions { scenario: Scenario::Steady, revert_timer: false, ..HomeOptions::default() };
    let home = Home::start(options, Clock::system()).unwrap();
    let config = config_for(&home, folder.path(), "");
    let daemon = Daemon::start(folder.path(), &config);
    daemon.wait_online(SOON);
    let out = cli(&["set", "battery", "discharge", "power_w=2500", "--for", "8s"], Some(daemon.socket()));
    assert_eq!(out.code, Some(0), "{}", out.stderr);
    let discharging = || home.truth().num("battery", &Point::PowerW).is_some_and(|w| (w - 2500.0).abs() < 60.0);
    eventually("the battery discharges", SOON, discharging);
    daemon.kill();
    assert!(discharging(), "its setpoint stays");
    // Come back after the lease has ended.
    let end = std::time::Instant::now();
    eventually("the lease is over", SOON, || end.elapsed() > Duration::from_secs(8));
    assert!(discharging(), "still");
    let again = Daemon::start(folder.path(), &config);
    eventually("the start releases what the last run held", Duration::from_secs(30), || !discharging());
    assert!(again.device("battery")["controlled_by"].is_null());
}

#[test]
fn the_owner_sets_and_releases() {
    let folder = tempfile::tempdir().unwrap();
    let home =
        Home::start(HomeOptions { scenario: Scenario::Steady, ..HomeOptions::default() }, Clock::system()).unwrap();
    let daemon = Daemon::start(folder.path(), &config_for(&home, folder.path(), ""));
    daemon.wait_online(SOON);
    let socket = Some(daemon.socket());
    let out = cli(&["set", "battery", "charge", "power_w=9000", "--for", "1h"], socket);
    assert_eq!(out.code, Some(0), "{}", out.stderr);
    eventually("the limit clips it to 5 kW", SOON, || {
        home.truth().num("battery", &Point::PowerW).is_some_and(|w| (w + 5000.0).abs() < 60.0)
    });
    let by = daemon.device("battery")["controlled_by"].clone();
    assert_eq!((by["rank"].as_str(), by["action"].as_str()), (Some("owner"), Some("charge")));
    assert_eq!(cli(&["set", "battery", "discharge", "power_w=1000"], socket).code, Some(0));
    eventually("the newer command wins", SOON, || {
        home.truth().num("battery", &Point::PowerW).is_some_and(|w| (w - 1000.0).abs() < 60.0)
    });
    assert_eq!(cli(&["release", "battery"], socket).code, Some(0));
    eventually("nobody holds it", SOON, || daemon.device("battery")["controlled_by"].is_null());
    eventually("and it follows the home again", SOON, || {
        home.truth().num("battery", &Point::PowerW).is_some_and(|w| (w - 1000.0).abs() > 60.0)
    });

    assert_eq!(cli(&["set", "pv", "set_power_limit", "power_w=1500"], socket).code, Some(0));
    eventually("the inverter is curtailed", SOON, || {
        home.truth().num("pv", &Point::PowerW).is_some_and(|w| w <= 1530.0)
    });
    assert_eq!(cli(&["set", "charger", "stop"], socket).code, Some(0));
    eventually("the car stops", SOON, || home.truth().num("charger", &Point::PowerW).is_some_and(|w| w < 1.0));
    assert_eq!(cli(&["set", "charger", "set_max_current", "current_a=8"], socket).code, Some(0));
    eventually("the car charges with 8 A", Duration::from_secs(30), || {
        home.truth().num("charger", &Point::PowerW).is_some_and(|w| (w - 3.0 * 8.0 * 230.0).abs() < 300.0)
    });
    assert_eq!(cli(&["release", "pv"], socket).code, Some(0));
    eventually("the sun is back", SOON, || home.truth().num("pv", &Point::PowerW).is_some_and(|w| w > 5000.0));

    for (args, says) in [
        (vec!["set", "battery", "fly"], "unknown action"),
        (vec!["set", "nobody", "idle"], "nobody"),
        (vec!["set", "battery", "charge", "power_w=x"], "number"),
    ] {
        let out = cli(&args, socket);
        assert_eq!(out.code, Some(1), "{args:?}");
        assert!(out.stderr.contains(says), "{args:?}: {}", out.stderr);
    }
    assert_eq!(cli(&["set", "battery", "charge", "power_w"], socket).code, Some(2));
    let csv = cli(&["history", "battery", "--point", "power_w", "--from", "-1h"], socket);
    assert!(csv.stdout.lines().count() > 5 && csv.stdout.starts_with("ts,"), "{}{}", csv.stdout, csv.stderr);
    let table = cli(&["status"], socket);
    assert!(table.stdout.lines().all(|l| l.chars().count() <= 80), "{}", table.stdout);
    assert!(table.stdout.contains("battery"), "{}", table.stdout);
}
