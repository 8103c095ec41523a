//! A wall clock that is wrong, jumps, and gets right: the real binary with a clock in the test's hand.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use derd::model::Point;
use derd::runtime::Clock;
use derd::sim::{Home, HomeHandle, HomeOptions, Scenario};
use hil_tests::{
    Broker, BrokerOptions, Daemon, cli, config_for, derd_binary, eventually, now_rfc3339, publish, rfc3339_in,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const DAY: i64 = 24 * 3600;

/// The wall clock that a daemon sees.
struct Hand {
    library: PathBuf,
    file: PathBuf,
}

impl Hand {
    fn new(folder: &Path) -> Self {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/clock.c");
        let library = folder.join("clock.so");
        let done =
            Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status().unwrap();
        assert!(done.success(), "cc does not build {source}");
        Self { library, file: folder.join("clock.txt") }
    }

    /// So many seconds beside the real time; does the kernel vouch for it.
    fn set(&self, add: i64, is_synced: bool) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{add} {}", u8::from(is_synced))).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }

    fn start(&self, folder: &Path, config: &str) -> Daemon {
        let file = folder.join("derd.toml");
        std::fs::write(&file, config).unwrap();
        let socket = folder.join("derd.sock");
        let mut command = Command::new(derd_binary());
        command.args(["run", "--config"]).arg(&file).arg("--socket").arg(&socket);
        command.env("LD_PRELOAD", &self.library).env("DERD_TEST_CLOCK", &self.file);
        let mut daemon = Daemon::spawn(command, socket);
        daemon.wait_ready(Duration::from_secs(10));
        daemon
    }
}

fn home() -> HomeHandle {
    Home::start(HomeOptions { scenario: Scenario::Steady, ..HomeOptions::default() }, Clock::system()).unwrap()
}

fn clock_state(daemon: &Daemon) -> String {
    daemon.status()["clock"]["state"].as_str().unwrap().to_owned()
}

/// Power of the battery as it stands in the store, oldest first: time and clock do not show there, so only times.
fn history(daemon: &Daemon, from: &str) -> Vec<String> {
    let args = ["history", "grid", "--point", "power_w", "--from", from, "--format", "jsonl"];
    let out = cli(&args, Some(daemon.socket()));
    assert_eq!(out.code, Some(0), "{}", out.stderr);
    out.stdout
        .lines()
        .filter_map(|l| serde_json::from_str::<Value>(l).ok())
        .filter_map(|v| Some(v["ts"].as_str()?.to_owned()))
        .collect()
}

#[test]
fn a_start_in_1970_and_the_first_sync() {
    let folder = tempfile::tempdir().unwrap();
    let hand = Hand::new(folder.path());
    let (home, broker) = (home(), Broker::start(folder.path(), &BrokerOptions::default()));
    let seen = broker.subscribe("derd/gw-1/#");
    let uplink = format!("[[uplink]]\nkind = \"mqtt\"\nurl = {:?}\ntelemetry_every = \"poll\"\n", broker.url());
    let config = config_for(&home, folder.path(), &uplink);
    // Ten years back: no honest clock.
    hand.set(-10 * 365 * DAY, false);
    let began = now_rfc3339();
    let daemon = hand.start(folder.path(), &config);
    daemon.wait_online(SOON);
    assert_eq!(clock_state(&daemon), "untrusted");
    drop(seen.wait("the status says so", SOON, |m| m.topic == "derd/gw-1/status" && m.json["clock"] == "untrusted"));
    let early = seen.wait("telemetry flows", SOON, |m| m.topic == "derd/gw-1/device/grid/telemetry");
    assert_eq!(early.json["clock"], "untrusted");
    assert!(early.json["ts"].as_str().unwrap() >= "2026-01-01", "behind the floor: {}", early.payload);

    // A plan for every minute of the week: it is taken, and waits.
    let all_week = json!({"id": "p1", "device": "battery", "kind": "weekly", "timezone": "UTC", "rules": [
        {"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "start": "00:00", "end": "24:00",
         "action": "discharge", "params": {"power_w": 2000}}]});
    assert!(publish(&broker, "derd/gw-1/plan/p1/set", &all_week.to_string(), &[]));
    drop(seen.wait("the plan is accepted", SOON, |m| {
        m.topic == "derd/gw-1/plan/p1/result" && m.json["state"] == "accepted"
    }));
    drop(
        seen.wait("people are told", SOON, |m| m.topic == "derd/gw-1/event" && m.json["code"] == "plan_blocked_clock"),
    );
    // A command whose freshness hangs on the date cannot be judged; one with a message expiry can, and runs.
    let dated = json!({"id": "c-1", "action": "charge", "params": {"power_w": 1000}, "issued_at": now_rfc3339()});
    assert!(publish(&broker, "derd/gw-1/device/battery/command", &dated.to_string(), &[]));
    let refused = seen.wait_result("c-1", "rejected", SOON);
    assert!(refused["reason"].as_str().unwrap().contains("clock"), "{refused}");
    let command = json!({"id": "c-2", "action": "set_max_current", "params": {"current_a": 8}});
    let expiry = ["-D", "publish", "message-expiry-interval", "60"];
    assert!(publish(&broker, "derd/gw-1/device/charger/command", &command.to_string(), &expiry));
    drop(seen.wait_result("c-2", "held", SOON));
    assert_eq!(daemon.device("battery")["controlled_by"], Value::Null, "the plan waits");

    let told = || seen.all().iter().filter(|m| m.json["id"] == "c-2").count();
    let before = told();

    // The network comes: ten years forward.
    hand.set(0, true);
    eventually("the clock is trusted", SOON, || clock_state(&daemon) == "synced");
    drop(seen.wait("the status says so", SOON, |m| m.topic == "derd/gw-1/status" && m.json["clock"] == "synced"));
    drop(seen.wait("samples got their right time", SOON, |m| {
        m.topic == "derd/gw-1/event" && m.json["code"] == "clock_restamped"
    }));
    eventually("the plan runs", SOON, || home.truth().num("battery", &Point::PowerW).is_some_and(|w| w > 1900.0));
    // The command is neither repeated nor over: its lease is on the monotonic clock.
    assert_eq!(daemon.device("charger")["controlled_by"]["action"], "set_max_current");
    assert_eq!(told(), before);
    // All that was read stands where it belongs.
    let times = history(&daemon, &began);
    assert!(times.len() > 3, "{times:?}");
    assert!(history(&daemon, "2020-01-01T00:00:00Z").len() <= times.len() + 3, "nothing is left at a wrong time");
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn steps_of_any_size_neither_repeat_nor_skip_a_command() {
    let folder = tempfile::tempdir().unwrap();
    let hand = Hand::new(folder.path());
    let (home, broker) = (home(), Broker::start(folder.path(), &BrokerOptions::default()));
    let seen = broker.subscribe("derd/gw-1/#");
    let uplink = format!("[[uplink]]\nkind = \"mqtt\"\nurl = {:?}\n", broker.url());
    hand.set(0, true);
    let daemon = hand.start(folder.path(), &config_for(&home, folder.path(), &uplink));
    daemon.wait_online(SOON);
    let command = json!({"id": "c-1", "action": "discharge", "params": {"power_w": 1500}, "issued_at": now_rfc3339(),
        "ends_at": rfc3339_in(Duration::from_secs(25))});
    assert!(publish(&broker, "derd/gw-1/device/battery/command", &command.to_string(), &[]));
    drop(seen.wait_result("c-1", "held", SOON));
    // A day forward, two back, a year forward, and right again, while it runs.
    for add in [DAY, -2 * DAY, 365 * DAY, 0] {
        hand.set(add, true);
        let by = daemon.device("battery")["controlled_by"].clone();
        assert_eq!(by["action"], "discharge", "after a step to {add} s: {by}");
        // The same again is the same: it does not act anew.
        assert!(publish(&broker, "derd/gw-1/device/battery/command", &command.to_string(), &[]));
    }
    let ended = seen.wait_result("c-1", "ended", Duration::from_secs(40));
    assert!(ended["delivered_wh"].as_f64().is_some_and(|wh| wh > 2.0 && wh < 15.0), "{ended}");
    eventually("the battery is its own again", SOON, || {
        home.truth().num("battery", &Point::PowerW).is_some_and(|w| w < 1400.0)
    });
    let states: Vec<String> = seen
        .all()
        .iter()
        .filter(|m| m.json["id"] == "c-1")
        .filter_map(|m| Some(m.json["state"].as_str()?.to_owned()))
        .collect();
    let firsts = |state: &str| states.iter().position(|s| s == state);
    assert!(firsts("ended") > firsts("held"), "{states:?}");
    assert_eq!(daemon.stop(), Some(0));
}
