//! Devices that are down, that come back, and that are not ours.
#![expect(clippy::disallowed_methods, reason = "end-to-end tests live in real time")]

use derd::runtime::Clock;
use derd::sim::{Home, HomeOptions, Scenario};
use hil_tests::{Daemon, cli, config_for, eventually, free_port, wait_for};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(15);

#[test]
fn ready_in_three_seconds_with_every_device_down() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::start(HomeOptions::default(), Clock::system()).unwrap();
    let config = config_for(&home, folder.path(), "");
    let ids: Vec<String> = home.devices().iter().map(|d| d.id.clone()).collect();
    for id in &ids {
        home.set_online(id, false).unwrap();
    }
    let start = Instant::now();
    let daemon = Daemon::start(folder.path(), &config);
    assert!(start.elapsed() < Duration::from_secs(3), "ready after {:?}", start.elapsed());
    assert!(daemon.device("pv")["points"]["power_w"].is_null());
    // Each comes up by itself, whatever the others do.
    home.set_online("battery", true).unwrap();
    eventually("the battery comes up alone", Duration::from_secs(20), || daemon.device("battery")["state"] == "online");
    assert_ne!(daemon.device("pv")["state"], "online");
    for id in &ids {
        home.set_online(id, true).unwrap();
    }
    daemon.wait_online(Duration::from_secs(30));
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_device_that_was_off_for_half_a_minute_comes_back_and_never_slows_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let home =
        Home::start(HomeOptions { scenario: Scenario::Steady, ..HomeOptions::default() }, Clock::system()).unwrap();
    let daemon = Daemon::start(folder.path(), &config_for(&home, folder.path(), ""));
    daemon.wait_online(SOON);
    home.set_online("pv", false).unwrap();
    let off = Instant::now();
    let pv = wait_for("it is called offline", SOON, || {
        let pv = daemon.device("pv");
        (pv["state"] == "offline").then_some(pv)
    });
    assert!(pv["error"].as_str().unwrap().contains("127.0.0.1"), "{pv}");
    eventually("its values are null when they are stale", SOON, || {
        let status = daemon.status();
        let pv = status["devices"].as_array().unwrap().iter().find(|d| d["id"] == "pv").unwrap().clone();
        pv["points"]["power_w"].is_null() && status["site"]["load_w"].is_null()
    });
    while off.elapsed() < Duration::from_secs(30) {
        let status = daemon.status();
        for device in status["devices"].as_array().unwrap().iter().filter(|d| d["id"] != "pv") {
            assert!(device["age_ms"].as_u64().unwrap() < 2500, "{device}");
        }
        std::thread::park_timeout(Duration::from_millis(500));
    }
    home.set_online("pv", true).unwrap();
    eventually("it comes back by itself", SOON, || daemon.device("pv")["state"] == "online");
    eventually("the load is known again", SOON, || daemon.status()["site"]["load_w"].is_number());
    let events = daemon.get("/api/v1/events");
    assert!(events.contains("device_offline"), "{events}");
}

#[test]
fn probe_tells_a_battery_from_an_inverter_and_a_meter() {
    let home = Home::start(HomeOptions::default(), Clock::system()).unwrap();
    for device in home.devices() {
        let out = cli(&["probe", "--link", &device.link, "--json"], None);
        assert_eq!(out.code, Some(0), "{}: {}", device.id, out.stderr);
        let found: Value = serde_json::from_str(&out.stdout).unwrap();
        assert_eq!(found["kind"], device.kind.as_str(), "{}", device.id);
        assert_eq!(found["profile"], device.profile, "{}", device.id);
    }
}

/// The Modbus server is pymodbus; the registers are those of a real inverter; the values stand in the recording's source.
#[test]
fn probe_reads_a_recorded_inverter_from_a_server_that_is_not_ours() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python =
        std::env::var_os("DERD_HIL_PYTHON").map_or_else(|| here.join("../target/hil-venv/bin/python"), PathBuf::from);
    assert!(python.is_file(), "{} is missing: hil-tests/run installs pymodbus there", python.display());
    let port = free_port();
    let mut server = Command::new(python)
        .arg(here.join("peers/modbus_server.py"))
        .arg(here.join("recordings/sma/sb36-1av-41_sunspec_2023-08-10.hex.txt"))
        .args([port.to_string(), "126".to_owned()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "ready");
    let out = cli(&["probe", "--link", &format!("tcp://127.0.0.1:{port}"), "--unit", "126", "--json"], None);
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(out.code, Some(0), "{}{}", out.stdout, out.stderr);
    let found: Value = serde_json::from_str(&out.stdout).unwrap();
    assert_eq!(found["kind"], "inverter");
    assert!(found["maker"].as_str().unwrap().starts_with("SMA"), "{found}");
    let number = |point: &str| found["points"][point].as_f64().unwrap_or_else(|| panic!("no {point} in {found}"));
    for (point, value) in [
        ("power_w", 1080.0),
        ("current_l1_a", 4.5),
        ("voltage_l1_v", 239.2),
        ("frequency_hz", 49.98),
        ("temperature_c", 42.0),
        ("energy_produced_wh", 21_707_967.0),
    ] {
        assert!((number(point) - value).abs() < 1e-6, "{point} is {} and should be {value}", number(point));
    }
    assert_eq!(found["points"]["state"], "running");

    let nobody = cli(&["probe", "--link", &format!("tcp://127.0.0.1:{port}"), "--json"], None);
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.stderr.contains(&format!("127.0.0.1:{port}")), "{}", nobody.stderr);
}
