//! The owner's word: pause, resume, opt-out, until unplugged; with a real broker and a restart in between.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use derd::model::Point;
use derd::runtime::Clock;
use derd::sim::{Home, HomeHandle, HomeOptions, Scenario};
use hil_tests::{
    Broker, BrokerOptions, Daemon, Message, Subscriber, cli, config_for, eventually, now_rfc3339, publish, rfc3339_in,
    stays,
};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

fn steady_home() -> HomeHandle {
    let home = Home::start(HomeOptions { scenario: Scenario::Steady, ..HomeOptions::default() }, Clock::system());
    let home = home.unwrap();
    home.with_world(|w| w.plug_car(Some(30.0)));
    home
}

fn uplink(broker: &Broker) -> String {
    format!(
        "[[uplink]]\nkind = \"mqtt\"\nurl = {:?}\nranks = [\"command\", \"event\", \"grid\"]\ntelemetry_every = \"poll\"\n",
        broker.url()
    )
}

fn command(id: &str, rank: &str, action: &str, power_w: Option<f64>, lasts: Duration) -> String {
    let params = power_w.map_or_else(|| json!({}), |w| json!({"power_w": w}));
    json!({"id": id, "rank": rank, "action": action, "params": params, "issued_at": now_rfc3339(), "ends_at": rfc3339_in(lasts)})
        .to_string()
}

/// The first word on a command.
fn first_result(seen: &Subscriber, id: &str) -> Value {
    let fits = |m: &Message| m.topic.ends_with("command/result") && m.json["id"] == id;
    seen.wait("its first result", SOON, fits).json
}

/// Every final result says what a backend settles on.
fn is_settled(result: &Value) {
    for key in ["started_at", "ended_at", "delivered_wh", "requested", "applied", "limited_by"] {
        assert!(result.get(key).is_some(), "no {key} in {result}");
    }
    assert!(result["ended_at"].is_string() && result["delivered_wh"].is_number(), "{result}");
}

#[test]
fn a_pause_is_seen_by_all_survives_a_restart_and_lets_commands_run_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let home = steady_home();
    let broker = Broker::start(folder.path(), &BrokerOptions::default());
    let seen = broker.subscribe("derd/gw-1/#");
    let config = config_for(&home, folder.path(), &uplink(&broker));
    let daemon = Daemon::start(folder.path(), &config);
    daemon.wait_online(SOON);
    let topic = "derd/gw-1/device/battery/command";
    let power = |watts: f64| home.truth().num("battery", &Point::PowerW).is_some_and(|w| (w - watts).abs() < 60.0);
    let status =
        |state: &'static str| move |m: &Message| m.topic == "derd/gw-1/status" && m.json["remote_control"] == state;
    drop(seen.wait("the retained status says active", SOON, status("active")));

    // A command runs; the pause takes the device from it.
    assert!(publish(&broker, topic, &command("c-1", "command", "discharge", Some(1500.0), SOON * 60), &[]));
    drop(seen.wait_result("c-1", "held", SOON));
    let out = cli(&["pause", "--for", "1h"], Some(daemon.socket()));
    assert_eq!(out.code, Some(0), "{}", out.stderr);
    assert!(out.stdout.starts_with("remote control: paused until 20"), "{}", out.stdout);
    let suspended = seen.wait_result("c-1", "suspended", SOON);
    let reason = suspended["reason"].as_str().unwrap();
    assert!(reason.starts_with("the owner paused remote control until "), "{reason}");
    drop(seen.wait("the retained status says paused", SOON, status("paused")));
    let raised = |m: &Message| m.json["code"] == "remote_paused" && m.json["state"] == "raised";
    drop(seen.wait("an event says it", SOON, raised));
    eventually("the battery is let go", SOON, || !power(1500.0));
    let by = daemon.device("battery")["controlled_by"].clone();
    assert!(by.is_null(), "{by}");
    assert_eq!(daemon.status()["remote_control"]["state"], "paused");
    assert!(daemon.status()["remote_control"]["until"].is_string());

    // New ones wait from the first word on, a stop too; the grid operator's do not.
    assert!(publish(&broker, topic, &command("c-2", "command", "idle", None, Duration::from_secs(2)), &[]));
    let first = first_result(&seen, "c-2");
    assert_eq!((&first["state"], first["reason"].as_str()), (&json!("suspended"), Some(reason)));
    let over = seen.wait_result("c-2", "ended", SOON);
    is_settled(&over);
    assert_eq!((&over["delivered_wh"], &over["started_at"]), (&json!(0.0), &Value::Null), "{over}");
    assert!(publish(&broker, topic, &command("c-3", "command", "charge", Some(1200.0), SOON * 60), &[]));
    drop(seen.wait_result("c-3", "suspended", SOON));
    // The newer one of a rank takes the older's place, paused or not.
    is_settled(&seen.wait_result("c-1", "superseded", SOON));
    let pv = "derd/gw-1/device/pv/command";
    assert!(publish(&broker, pv, &command("g-1", "grid", "set_power_limit", Some(1500.0), SOON * 60), &[]));
    drop(seen.wait_result("g-1", "held", SOON));
    // The owner's own commands do not wait either.
    assert_eq!(cli(&["set", "battery", "charge", "power_w=800", "--for", "1h"], Some(daemon.socket())).code, Some(0));
    eventually("the owner charges", SOON, || power(-800.0));
    assert_eq!(cli(&["release", "battery"], Some(daemon.socket())).code, Some(0));
    let table = cli(&["status"], Some(daemon.socket())).stdout;
    assert!(table.contains("remote control is paused until "), "{table}");

    // Neither kill nor restart ends it, and what waits goes on waiting.
    daemon.kill();
    let before = seen.all().len();
    let again = Daemon::start(folder.path(), &config);
    again.wait_online(SOON);
    assert_eq!(again.status()["remote_control"]["state"], "paused");
    eventually("the status is said again", SOON, || seen.all()[before..].iter().any(status("paused")));
    assert!(!power(-1200.0));
    let told = |m: &Message| m.topic.ends_with("command/result") && m.json["id"] == "c-3";
    assert!(!seen.all()[before..].iter().any(told), "nothing new to tell of c-3");

    // Resume: the command runs.
    assert_eq!(cli(&["resume"], Some(again.socket())).code, Some(0));
    drop(seen.wait_result("c-3", "held", SOON));
    assert!(power(-1200.0));
    eventually("the status says active again", SOON, || seen.all()[before..].iter().any(status("active")));
    let cleared = |m: &Message| m.json["code"] == "remote_paused" && m.json["state"] == "cleared";
    drop(seen.wait("an event says that it is over", SOON, cleared));
    assert_eq!(seen.all().iter().filter(|m| raised(m)).count(), 1, "a restart is no second pause");

    // What it delivers before a kill counts at its end.
    let delivered = |m: &Value| m["delivered_wh"].as_f64().unwrap();
    // The sum is told every 10 s, and is on the disk with the next commit: 2 s here.
    stays("it delivers until that is on the disk", Duration::from_secs(14), || power(-1200.0));
    again.kill();
    let third = Daemon::start(folder.path(), &config);
    third.wait_online(SOON);
    assert!(publish(
        &broker,
        topic,
        &json!({"id": "r-1", "action": "release", "issued_at": now_rfc3339()}).to_string(),
        &[]
    ));
    let ended = seen.wait_result("c-3", "ended", SOON);
    is_settled(&ended);
    // 10 s at 1,200 W are 3.3 Wh: the sum that was on the disk, before anything after the restart.
    assert!(delivered(&ended) >= 2.5, "{ended}");
    assert_eq!(third.stop(), Some(0));
}

#[test]
fn an_opt_out_ends_the_event_and_keeps_its_source_away_until_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let home = steady_home();
    let broker = Broker::start(folder.path(), &BrokerOptions::default());
    let seen = broker.subscribe("derd/gw-1/#");
    let config = config_for(&home, folder.path(), &uplink(&broker));
    let daemon = Daemon::start(folder.path(), &config);
    daemon.wait_online(SOON);
    let topic = "derd/gw-1/device/battery/command";
    let nothing = cli(&["optout", "battery"], Some(daemon.socket()));
    assert_eq!(nothing.code, Some(1));
    assert!(nothing.stderr.contains("no event runs on `battery`"), "{}", nothing.stderr);

    assert!(publish(&broker, topic, &command("e-1", "event", "discharge", Some(2000.0), SOON), &[]));
    drop(seen.wait_result("e-1", "held", SOON));
    let out = cli(&["optout", "battery"], Some(daemon.socket()));
    assert_eq!(out.code, Some(0), "{}", out.stderr);
    assert!(out.stdout.starts_with("battery: opted out of the event of mqtt until 20"), "{}", out.stdout);
    let ended = seen.wait_result("e-1", "ended", SOON);
    assert_eq!(ended["reason"], "opted out by the owner");
    is_settled(&ended);
    assert!(ended["delivered_wh"].as_f64().unwrap() > 0.0, "{ended}");
    drop(seen.wait("an event says it", SOON, |m| m.json["code"] == "opted_out" && m.json["device"] == "battery"));

    // The same source with the same device: not before the event's own end, not after a restart either.
    daemon.kill();
    let again = Daemon::start(folder.path(), &config);
    again.wait_online(SOON);
    assert!(publish(&broker, topic, &command("e-2", "event", "charge", None, SOON * 60), &[]));
    let refused = seen.wait_result("e-2", "rejected", SOON);
    assert!(refused["reason"].as_str().unwrap().starts_with("the owner opted out until "), "{refused}");
    // Commands are no events, and other devices are not meant.
    assert!(publish(&broker, topic, &command("c-1", "command", "idle", None, Duration::from_secs(2)), &[]));
    drop(seen.wait_result("c-1", "verified", SOON));
    let charger = "derd/gw-1/device/charger/command";
    assert!(publish(&broker, charger, &command("e-3", "event", "stop", None, Duration::from_secs(2)), &[]));
    drop(seen.wait_result("e-3", "verified", SOON));
    // Later events are as any other.
    let mut n = 3;
    eventually("the event would be over, and another one is taken", SOON * 2, || {
        n += 1;
        let id = format!("e-{n}");
        assert!(publish(&broker, topic, &command(&id, "event", "charge", Some(900.0), SOON * 60), &[]));
        first_result(&seen, &id)["state"] == "accepted"
    });
    assert_eq!(again.stop(), Some(0));
}

#[test]
fn the_owners_charging_ends_with_the_car() {
    let folder = tempfile::tempdir().unwrap();
    let home = steady_home();
    let daemon = Daemon::start(folder.path(), &config_for(&home, folder.path(), ""));
    daemon.wait_online(SOON);
    let set = |args: &[&str]| {
        let out = cli(&[&["set", "charger"], args].concat(), Some(daemon.socket()));
        assert_eq!(out.code, Some(0), "{}", out.stderr);
    };
    let holder = || daemon.device("charger")["controlled_by"].clone();
    set(&["set_max_current", "current_a=8"]);
    eventually("the car charges with 8 A", SOON, || {
        home.truth().num("charger", &Point::PowerW).is_some_and(|w| (w - 3.0 * 8.0 * 230.0).abs() < 300.0)
    });
    let ends = holder()["ends_at"].as_str().unwrap().to_owned();
    assert!(
        ends > rfc3339_in(Duration::from_secs(23 * 3600)) && ends < rfc3339_in(Duration::from_secs(25 * 3600)),
        "{ends}"
    );
    home.with_world(|w| w.plug_car(None));
    eventually("the command leaves with the car", SOON, || holder().is_null());

    // Given before the car comes, it waits for one; with an end of its own it stays for the next.
    set(&["start"]);
    eventually("the owner holds the charger", SOON, || holder()["action"] == "start");
    home.with_world(|w| w.plug_car(Some(30.0)));
    eventually("the car charges", SOON, || home.truth().num("charger", &Point::PowerW).is_some_and(|w| w > 1000.0));
    assert_eq!(holder()["action"], "start");
    set(&["stop", "--for", "2h"]);
    eventually("the car stops", SOON, || home.truth().num("charger", &Point::PowerW).is_some_and(|w| w < 1.0));
    let unplugged = |word: &str| daemon.device("charger")["points"]["state"] == word;
    home.with_world(|w| w.plug_car(None));
    eventually("the charger says that it is gone", SOON, || unplugged("unplugged"));
    stays("two hours are two hours", Duration::from_secs(5), || holder()["action"] == "stop");
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_mode_that_no_profile_can_set_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let home = steady_home();
    let daemon = Daemon::start(folder.path(), &config_for(&home, folder.path(), ""));
    daemon.wait_online(SOON);
    for (args, says) in [
        (vec!["set", "battery", "set_mode", "mode=time_of_use"], "(sunspec) cannot `set_mode`; it can: "),
        (vec!["set", "battery", "set_mode", "mode=party"], "it must be self_reliance, time_of_use"),
        (vec!["set", "battery", "set_mode"], "params.mode is missing"),
    ] {
        let out = cli(&args, Some(daemon.socket()));
        assert_eq!(out.code, Some(1), "{args:?}");
        assert!(out.stderr.contains(says), "{args:?}: {}", out.stderr);
    }
    assert_eq!(daemon.stop(), Some(0));
}
