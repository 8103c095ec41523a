//! Charging with the sun and when power is cheap: the real binary on the simulated home.
#![expect(clippy::unwrap_used, reason = "end-to-end tests fail by panicking")]

use derd::model::Point;
use derd::runtime::Clock;
use derd::sim::{Home, HomeHandle, HomeOptions, Scenario};
use hil_tests::{Daemon, cli, config_for, eventually, now_rfc3339, rfc3339_in, wait_for};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(25);

fn start(folder: &Path) -> (HomeHandle, Daemon) {
    let options = HomeOptions { scenario: Scenario::Steady, ..HomeOptions::default() };
    let home = Home::start(options, Clock::system()).unwrap();
    let daemon = Daemon::start(folder, &config_for(&home, folder, ""));
    daemon.wait_online(SOON);
    (home, daemon)
}

fn import(daemon: &Daemon, folder: &Path, document: &Value) {
    let file = folder.join("document.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let out = cli(&["schedule", "import", &file.to_string_lossy()], Some(daemon.socket()));
    assert_eq!(out.code, Some(0), "{document}: {}{}", out.stdout, out.stderr);
}

fn schedule(daemon: &Daemon, id: &str) -> Value {
    let all: Value = serde_json::from_str(&daemon.get("/api/v1/schedules")).unwrap();
    all.as_array().unwrap().iter().find(|p| p["id"] == id).unwrap().clone()
}

/// The schedule as told, once it wants this.
fn wants(daemon: &Daemon, id: &str, action: &str) -> Value {
    wait_for("the schedule wants it", SOON, || Some(schedule(daemon, id)).filter(|p| p["active"] == action))
}

fn amps(home: &HomeHandle) -> [f64; 3] {
    let truth = home.truth();
    [Point::CurrentL1A, Point::CurrentL2A, Point::CurrentL3A].map(|p| truth.num("charger", &p).unwrap())
}

#[test]
fn the_charger_follows_the_sun_over_phases_and_pauses_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let (home, daemon) = start(folder.path());
    home.with_world(|w| {
        w.set_load(Some(500.0));
        w.set_sun(Some(0.8));
    });
    let sun_w = home.with_world(|w| w.pv[0].rated_w);
    import(
        &daemon,
        folder.path(),
        &json!({"id": "sun", "device": "charger", "kind": "solar", "params": {
        "start_after": "2s", "stop_after": "4s", "phase_after": "5s"}}),
    );
    // The battery would take the surplus as well: the car goes first.
    let most = ((0.8 * sun_w - 500.0) / 690.0).floor();
    eventually("the car takes what the sun leaves over", SOON * 2, || {
        amps(&home).iter().all(|a| (a - most).abs() <= 1.0)
    });
    let told = wants(&daemon, "sun", "set_max_current");
    assert_eq!(told["kind"], "solar");
    assert!(told["why"].as_str().unwrap().contains("three phases"), "{told}");
    let holder = daemon.device("charger")["controlled_by"].clone();
    assert_eq!((&holder["rank"], &holder["plan"]), (&json!("plan"), &json!("sun")));
    assert_eq!(holder["ends_at"], Value::Null, "it goes on for as long as the sun does");
    let out = cli(&["explain", "charger"], Some(daemon.socket()));
    let text = out.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("plan sun asks for it (the sun leaves enough over for"), "{text}");
    // Too little for three phases, enough for one.
    home.with_world(|w| w.set_sun(Some(2600.0 / sun_w)));
    eventually("it goes on with one phase", SOON * 3, || {
        let [l1, l2, l3] = amps(&home);
        (7.0..=9.5).contains(&l1) && l2 < 1.0 && l3 < 1.0
    });
    home.with_world(|w| w.set_sun(Some(0.0)));
    eventually("it pauses without sun", SOON * 2, || amps(&home).iter().all(|a| *a < 0.5));
    drop(wants(&daemon, "sun", "stop"));
    // Without the document the charger is as the installer left it, phases too.
    let out = cli(&["schedule", "delete", "sun"], Some(daemon.socket()));
    assert_eq!(out.code, Some(0), "{}", out.stderr);
    eventually("the phases are given back", SOON, || home.with_world(|w| w.charger.phase_mode) == 0);
}

#[test]
fn the_charger_waits_for_cheap_power_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (home, daemon) = start(folder.path());
    let hours = |n: u64| rfc3339_in(Duration::from_secs(3600 * n));
    let prices = |now: f64, later: f64| {
        json!({"id": "t1", "kind": "tariff", "timezone": "UTC", "values": [
            {"start": now_rfc3339(), "end": hours(3), "price": now},
            {"start": hours(3), "end": hours(30), "price": later}]})
    };
    import(&daemon, folder.path(), &prices(0.40, 0.10));
    // More than three hours from now, whatever time it is: the deadline is the clock's minute before this one.
    let at = now_rfc3339();
    let minute = &at[11..16];
    import(
        &daemon,
        folder.path(),
        &json!({"id": "night", "device": "charger", "kind": "price", "tariff": "t1",
        "timezone": "UTC", "params": {"deadline": minute, "energy_wh": 20_000}}),
    );
    eventually("it waits", SOON, || amps(&home).iter().all(|a| *a < 0.5));
    let told = wants(&daemon, "night", "stop");
    assert!(told["why"].as_str().unwrap().contains("it waits for"), "{told}");
    let planned = told["planned"].as_array().unwrap();
    assert!(!planned.is_empty() && planned.iter().all(|s| s["price"] == 0.10), "{told}");
    assert_eq!(told["next_change"], planned[0]["start"], "{told}");
    let tariff = schedule(&daemon, "t1");
    assert_eq!((&tariff["device"], &tariff["kind"]), (&Value::Null, &json!("tariff")));
    // Power becomes cheap: the new tariff counts at once.
    import(&daemon, folder.path(), &prices(0.05, 0.10));
    eventually("it charges", SOON, || amps(&home).iter().all(|a| *a > 14.0));
    // A restart goes on with the same documents.
    daemon.kill();
    let again = Daemon::start(folder.path(), &config_for(&home, folder.path(), ""));
    again.wait_online(SOON);
    eventually("it charges by the plan again", SOON, || again.device("charger")["controlled_by"]["rank"] == "plan");
    assert!(amps(&home).iter().all(|a| *a > 14.0));
}
