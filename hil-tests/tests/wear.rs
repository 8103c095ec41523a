//! What writing costs a device, and what its installer set in it: the real binary on simulated devices.
#![expect(clippy::unwrap_used, reason = "end-to-end tests fail by panicking")]

use derd::runtime::Clock;
use derd::sim::{Home, HomeHandle, HomeOptions, Scenario};
use hil_tests::{Daemon, cli, config_for, eventually, wait_for};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(25);
/// Where model 123 begins in the simulated inverter: behind 1, 103, 120, 121, 122.
const CONTROLS: u16 = 40_002 + 68 + 52 + 28 + 32 + 46;

fn home() -> HomeHandle {
    Home::start(HomeOptions { scenario: Scenario::Steady, ..HomeOptions::default() }, Clock::system()).unwrap()
}

fn start(home: &HomeHandle, folder: &Path) -> Daemon {
    let text = config_for(home, folder, "");
    let at = text.find("id = \"pv\"").unwrap();
    let (before, pv) = text.split_at(at);
    let text = before.to_owned() + &pv.replacen("enabled = true\n", "enabled = true\nflash_writes_per_day = 3\n", 1);
    let daemon = Daemon::start(folder, &text);
    daemon.wait_online(SOON);
    daemon
}

fn set(daemon: &Daemon, args: &[&str]) {
    let out = cli(&[&["set"], args].concat(), Some(daemon.socket()));
    assert_eq!(out.code, Some(0), "{args:?}: {}{}", out.stdout, out.stderr);
}

fn json_of(daemon: &Daemon, path: &str) -> Value {
    serde_json::from_str(&daemon.get(path)).unwrap()
}

/// Events with this code, oldest first: state and text.
fn events(daemon: &Daemon, code: &str) -> Vec<(String, String)> {
    let all = json_of(daemon, "/api/v1/events");
    let text = |e: &Value, key: &str| e[key].as_str().unwrap_or_default().to_owned();
    let mut found: Vec<_> = all
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| e["code"] == code)
        .map(|e| (text(e, "state"), text(e, "text")))
        .collect();
    found.reverse();
    found
}

/// Writes to the register or key whose name ends so, as the daemon tells.
fn writes(daemon: &Daemon, device: &str, ends: &str) -> Option<u64> {
    let device = json_of(daemon, &format!("/api/v1/devices/{device}"));
    let rows = device["wear"].as_array().unwrap().clone();
    rows.iter().find(|r| r["register"].as_str().unwrap().ends_with(ends))?["writes"].as_u64()
}

/// Another master on the network writes one register.
fn foreign(home: &HomeHandle, device: &str, address: u16, word: u16) {
    let link = &home.device(device).unwrap().link;
    let mut socket = TcpStream::connect(link.trim_start_matches("tcp://")).unwrap();
    let mut frame = vec![0, 1, 0, 0, 0, 6, 1, 6];
    frame.extend(address.to_be_bytes());
    frame.extend(word.to_be_bytes());
    socket.write_all(&frame).unwrap();
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer[7], 6, "refused: {answer:?}");
}

#[test]
fn a_budget_is_kept_and_the_ledger_outlives_a_kill() {
    let (home, folder) = (home(), tempfile::tempdir().unwrap());
    let daemon = start(&home, folder.path());
    let limit = format!("holding {}", CONTROLS + 5);
    for (n, watts) in [3000, 2500, 3000].into_iter().enumerate() {
        set(&daemon, &["pv", "set_power_limit", &format!("power_w={watts}"), "--for", "10m"]);
        let wanted = Some(n as u64 + 1);
        wait_for("the limit is written", SOON, || (writes(&daemon, "pv", &limit) == wanted).then_some(()));
    }
    assert_eq!(events(&daemon, "write_budget"), []);
    set(&daemon, &["pv", "set_power_limit", "power_w=2000", "--for", "10m"]);
    let told = wait_for("the budget is told", SOON, || events(&daemon, "write_budget").pop());
    let expected = format!("pv: the write budget of unit 1 {limit} is used up for today (3 of 3, unknown)");
    assert!(told.1.starts_with(&expected), "{told:?}");
    // Given back, which is one more write and always allowed.
    eventually("it is given back", SOON, || writes(&daemon, "pv", &limit) == Some(4));
    let before = json_of(&daemon, "/api/v1/devices/pv")["wear"].clone();
    assert_eq!(before[0]["budget_per_day"], json!(3));
    assert!(before[0]["years_left"].as_f64().unwrap() > 50.0, "{before}");
    // To within one commit, which is every 2 s here.
    let db = folder.path().join("derd.db-wal");
    let size = || std::fs::metadata(&db).map(|m| m.modified().unwrap()).ok();
    let now = size();
    wait_for("two commits pass", SOON, || (size() != now).then_some(()));
    let later = size();
    wait_for("two commits pass", SOON, || (size() != later).then_some(()));
    daemon.kill();
    let daemon = start(&home, folder.path());
    assert_eq!(writes(&daemon, "pv", &limit), Some(4));
    let shown = cli(&["wear", "pv"], Some(daemon.socket()));
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    assert!(shown.stdout.contains(&limit) && shown.stdout.contains("unknown"), "{}", shown.stdout);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn what_somebody_else_sets_is_drift_until_it_is_accepted() {
    let (home, folder) = (home(), tempfile::tempdir().unwrap());
    let daemon = start(&home, folder.path());
    eventually("the baseline is compared", SOON, || {
        let report = json_of(&daemon, "/api/v1/devices/pv/baseline");
        report["recorded"]["wmaxlim_ena"] == json!(false)
    });
    // The vendor's app sets 70 %, while derd holds nothing.
    foreign(&home, "pv", CONTROLS + 5, 7000);
    foreign(&home, "pv", CONTROLS + 9, 1);
    home.set_online("pv", false).unwrap();
    eventually("it is missed", SOON, || daemon.device("pv")["state"] == "offline");
    home.set_online("pv", true).unwrap();
    daemon.wait_online(SOON);
    let (state, text) = wait_for("drift is told", SOON, || events(&daemon, "baseline_drift").pop());
    assert_eq!(state, "raised");
    assert!(text.contains(&format!("123.WMaxLim_Ena (unit 1 holding {}) was 0 and is 1 now", CONTROLS + 9)), "{text}");
    let report = json_of(&daemon, "/api/v1/devices/pv/baseline");
    assert_eq!(report["recorded"]["wmaxlim_ena"], json!(false), "never adopted by itself");
    assert_eq!(report["drift"][1]["now"], "7000");
    let shown = cli(&["baseline", "pv"], Some(daemon.socket()));
    assert!(shown.stdout.contains("--accept"), "{}", shown.stdout);
    let accepted = cli(&["baseline", "pv", "--accept"], Some(daemon.socket()));
    assert_eq!(accepted.code, Some(0), "{}", accepted.stderr);
    let (state, _) =
        wait_for("the drift is over", SOON, || events(&daemon, "baseline_drift").pop().filter(|e| e.0 == "cleared"));
    assert_eq!(state, "cleared");
    // A request wider than the installer's limit says by what it was cut.
    set(&daemon, &["pv", "set_power_limit", "power_w=1000000"]);
    eventually("it is held", SOON, || daemon.device("pv")["controlled_by"].is_object());
    let refused = cli(&["baseline", "pv", "--accept"], Some(daemon.socket()));
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("release it first"), "{}", refused.stderr);
    assert_eq!(daemon.stop(), Some(0));
    // It was given back to what the installer accepted.
    home.with_world(|w| assert!(w.pv.first().is_some_and(|p| p.limit.is_some())));
}
