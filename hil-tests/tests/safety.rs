//! What must never happen: the fuse, the agreed export, setpoints that outlive their reason.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "end-to-end tests live in real time and fail by panicking"
)]

use derd::model::Point;
use derd::runtime::Clock;
use derd::sim::{Home, HomeHandle, HomeOptions, Scenario};
use hil_tests::{Daemon, cli, config_for, eventually, now_rfc3339, rfc3339_in, stays, wait_for};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(25);

struct Rig {
    folder: tempfile::TempDir,
    home: HomeHandle,
}

fn rig(revert_timer: bool) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let truth = Some(folder.path().join("truth.jsonl"));
    let options = HomeOptions { scenario: Scenario::Steady, revert_timer, truth, ..HomeOptions::default() };
    let home = Home::start(options, Clock::system()).unwrap();
    Rig { folder, home }
}

impl Rig {
    fn start(&self, edit: impl Fn(String) -> String) -> Daemon {
        let daemon = Daemon::start(self.folder.path(), &edit(config_for(&self.home, self.folder.path(), "")));
        daemon.wait_online(SOON);
        daemon
    }

    fn truth(&self) -> PathBuf {
        self.folder.path().join("truth.jsonl")
    }

    fn watts(&self, device: &str) -> f64 {
        self.home.truth().num(device, &Point::PowerW).unwrap()
    }

    /// Writes that reached a device: when, and what.
    fn writes(&self, device: &str) -> Vec<Value> {
        writes(&self.truth(), device)
    }

    /// The largest current of a phase at the grid, A.
    fn grid_a(&self) -> f64 {
        self.home.with_world(|w| w.grid.power_w.iter().fold(0.0_f64, |a, b| a.max(*b)) / 230.0)
    }
}

fn writes(truth: &Path, device: &str) -> Vec<Value> {
    std::fs::read_to_string(truth)
        .unwrap_or_default()
        .lines()
        .filter_map(|l| serde_json::from_str::<Value>(l).ok())
        .filter(|l| l["device"] == device && !l["write"].is_null())
        .collect()
}

fn set(daemon: &Daemon, args: &[&str]) {
    let out = cli(&[&["set"], args].concat(), Some(daemon.socket()));
    assert_eq!(out.code, Some(0), "{args:?}: {}{}", out.stdout, out.stderr);
}

/// Another master on the network writes one register, or several.
fn foreign_modbus(home: &HomeHandle, device: &str, address: u16, words: &[u16]) {
    let link = &home.device(device).unwrap().link;
    let mut socket = TcpStream::connect(link.trim_start_matches("tcp://")).unwrap();
    let mut pdu = vec![1, 16];
    pdu.extend(address.to_be_bytes());
    pdu.extend((words.len() as u16).to_be_bytes());
    pdu.push(2 * words.len() as u8);
    words.iter().for_each(|w| pdu.extend(w.to_be_bytes()));
    let mut frame = vec![0, 1, 0, 0];
    frame.extend((pdu.len() as u16).to_be_bytes());
    frame.extend(pdu);
    socket.write_all(&frame).unwrap();
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer[7], 16, "refused: {answer:?}");
}

/// Another program on the network sets the charger.
fn foreign_http(home: &HomeHandle, query: &str) {
    let link = &home.device("charger").unwrap().link;
    let mut socket = TcpStream::connect(link.trim_start_matches("http://")).unwrap();
    write!(socket, "GET /api/set?{query} HTTP/1.1\r\nHost: charger\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Register of the battery's model 124, as its chain lies: 1 (66), 103 (50), 120 (26).
const STORAGE: u16 = 40_002 + 68 + 52 + 28;

#[test]
fn the_fuse_holds_whatever_comes() {
    let rig = rig(true);
    rig.home.with_world(|w| {
        w.set_sun(Some(0.0));
        w.set_soc(50.0);
    });
    let daemon = rig.start(|c| c.replace("main_fuse_a = 35", "main_fuse_a = 25"));
    let fuse = 25.0;
    set(&daemon, &["charger", "set_max_current", "current_a=16"]);
    set(&daemon, &["battery", "charge", "power_w=5000"]);
    eventually("the car charges", SOON, || rig.watts("charger") > 3000.0);
    stays_under(&rig, fuse, "car, battery and load");
    // A stove, an oven and a kettle.
    rig.home.with_world(|w| w.set_load(Some(9000.0)));
    stays_under(&rig, fuse, "the stove");
    // Another program raises the current that protects the fuse.
    rig.home.with_world(|w| w.set_load(Some(11_000.0)));
    stays_under(&rig, fuse, "the load again");
    foreign_http(&rig.home, "amp=16&frc=2");
    settles("a foreign hand", Duration::from_secs(12), Duration::from_secs(7), || rig.grid_a() <= fuse + 0.3);
    assert_eq!(daemon.stop(), Some(0));
    assert!(rig.home.with_world(|w| w.charger.offered_a()) <= 6.0);
}

#[test]
fn a_silent_meter_is_the_worst_case_and_protection_never_starts_a_charge() {
    let rig = rig(true);
    rig.home.with_world(|w| w.set_soc(50.0));
    let fuse = |c: String| c.replace("main_fuse_a = 35", "main_fuse_a = 25");
    // The owner has paused the car at the charger itself; the installer had left it at 16 A.
    foreign_http(&rig.home, "amp=16&frc=1");
    let daemon = rig.start(fuse);
    rig.home.set_online("grid", false).unwrap();
    eventually("the fallback", Duration::from_secs(20), || rig.home.with_world(|w| w.charger.amps) <= 6.0);
    stays("no charge", Duration::from_secs(3), || rig.watts("charger") < 1.0);
    rig.home.set_online("grid", true).unwrap();
    assert_eq!(daemon.stop(), Some(0));
    assert!(rig.home.with_world(|w| w.charger.amps) <= 6.0);

    let daemon = rig.start(fuse);
    set(&daemon, &["charger", "set_max_current", "current_a=16"]);
    set(&daemon, &["battery", "charge", "power_w=3000"]);
    eventually("the car charges", SOON, || rig.watts("charger") > 9.0 * 690.0);
    rig.home.set_online("grid", false).unwrap();
    let lost = Instant::now();
    eventually("the fallback", Duration::from_secs(20), || {
        rig.home.with_world(|w| w.charger.offered_a()) <= 6.0 && rig.watts("battery") > -50.0
    });
    assert!(lost.elapsed() < Duration::from_secs(12), "{:?}", lost.elapsed());
    rig.home.set_online("grid", true).unwrap();
    eventually("the meter is back: more room", Duration::from_secs(40), || {
        rig.home.with_world(|w| w.charger.offered_a()) > 10.0
    });
    rig.home.set_online("charger", false).unwrap();
    assert_eq!(daemon.stop(), Some(0), "a charger that is away does not keep derd from stopping");
    rig.home.set_online("charger", true).unwrap();
    let daemon = rig.start(fuse);
    eventually("what was held goes on", SOON, || daemon.device("charger")["controlled_by"]["rank"] == "owner");
    assert_eq!(daemon.stop(), Some(0));
    assert!(rig.home.with_world(|w| w.charger.offered_a()) <= 6.0);
}

/// Within 12 s (skew, write, the car's 5 s) the fuse is not overloaded any more, and that stays. The meter's voltage is
/// not quite 230 V.
fn stays_under(rig: &Rig, fuse_a: f64, what: &str) {
    settles(what, Duration::from_secs(12), Duration::from_secs(4), || rig.grid_a() <= fuse_a + 0.3);
}

/// It comes within this time at the latest, and then stays.
fn settles(what: &str, within: Duration, stays: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    let mut since = None::<Instant>;
    wait_for(what, within + 2 * stays, || {
        if holds() {
            since.get_or_insert_with(Instant::now);
        } else {
            assert!(start.elapsed() < within, "not after {:?}: {what}", start.elapsed());
            since = None;
        }
        since.filter(|t| t.elapsed() > stays)
    });
}

#[test]
fn the_batterys_timer_runs_as_long_as_the_setpoint_is_wanted_and_no_longer() {
    let rig = rig(true);
    let daemon = rig.start(|c| c);
    set(&daemon, &["battery", "discharge", "power_w=2000", "--for", "10m"]);
    let discharging = || (rig.watts("battery") - 2000.0).abs() < 60.0;
    eventually("it discharges", SOON, discharging);
    set(&daemon, &["battery", "set_reserve", "soc_pct=22"]);
    eventually("the reserve", SOON, || rig.home.with_world(|w| w.battery.reserve_pct) == 22.0);
    daemon.kill();
    let daemon = rig.start(|c| c);
    eventually("it holds on", SOON, || daemon.device("battery")["controlled_by"]["action"] == "discharge");
    // The device's own timer, s; written between two ticks of the world it begins a little above.
    let left = || rig.home.with_world(|w| w.battery.bounds_until_s.map(|end| end - w.real_s()));
    eventually("taken up again", SOON, || left().is_some_and(|s| s > 55.0));
    stays("refreshed", Duration::from_secs(25), || discharging() && left().is_some_and(|s| s > 30.0 && s <= 60.5));
    let writes = rig.writes("battery");
    let timers = writes.iter().filter(|w| w["write"]["address"] == STORAGE + 15).count();
    assert!((3..=6).contains(&timers), "every 20 s, and once for each reason to write: {writes:#?}");
    daemon.kill();
    assert!(left().is_some_and(|s| s <= 60.5), "it ends by itself: {:?}", left());
}

#[test]
fn the_agreed_export_is_kept_and_left_behind() {
    let rig = rig(true);
    rig.home.with_world(|w| {
        w.set_soc(100.0);
        w.set_load(Some(500.0));
        w.plug_car(None);
        // What the installer set: 70 %.
        w.pv[0].limit = None;
    });
    foreign_modbus(&rig.home, "pv", CONTROLS + 5, &[7000]);
    foreign_modbus(&rig.home, "pv", CONTROLS + 9, &[1]);
    let config = |c: String| c.replace("main_fuse_a = 35", "main_fuse_a = 35\nexport_limit_w = 3000");
    let daemon = rig.start(config);
    let export = || rig.home.with_world(|w| -w.grid.total_w());
    settles("curtailed", Duration::from_secs(15), Duration::from_secs(8), || export() <= 3030.0);
    assert!(export() > 2500.0, "not more than needed: {}", export());
    let before = rig.writes("pv").len();
    stays("nothing changes", Duration::from_secs(6), || export() <= 3030.0);
    assert_eq!(rig.writes("pv").len(), before, "{:#?}", rig.writes("pv"));
    // Another program takes the limit away.
    foreign_modbus(&rig.home, "pv", CONTROLS + 9, &[0]);
    eventually("it is away", SOON, || export() > 3100.0);
    settles("and set again", Duration::from_secs(15), Duration::from_secs(4), || export() <= 3030.0);
    rig.home.with_world(|w| w.set_load(Some(2500.0)));
    // Where it may be flash a looser limit waits a minute; a tighter one never does.
    eventually("more load: more sun", Duration::from_secs(90), || rig.watts("pv") > 5000.0);
    assert!(rig.watts("pv") <= 5600.0, "never beyond what the installer set");
    rig.home.with_world(|w| w.set_load(Some(500.0)));
    settles("and back", Duration::from_secs(15), Duration::from_secs(3), || export() <= 3030.0);
    daemon.kill();
    stays("a crash leaves the limit", Duration::from_secs(3), || export() <= 3030.0);
    let daemon = rig.start(config);
    stays("a start too", Duration::from_secs(8), || export() <= 3030.0);
    rig.home.with_world(|w| w.set_load(Some(5000.0)));
    eventually("load again", Duration::from_secs(90), || rig.watts("pv") > 5400.0);
    assert_eq!(daemon.stop(), Some(0));
    eventually("stop: at most the export limit of AC power", SOON, || rig.watts("pv") <= 3000.0);
}

/// Register of the inverter's model 123: 1 (66), 103 (50), 120 (26), 121 (30), 122 (44).
const CONTROLS: u16 = STORAGE + 32 + 46;

#[test]
fn what_a_cloud_answered_is_imported_and_runs() {
    let rig = rig(false);
    let daemon = rig.start(|c| c);
    let import = |name: &str, answer: &Value, args: &[&str]| {
        let file = rig.folder.path().join(name);
        std::fs::write(&file, answer.to_string()).unwrap();
        cli(&[&["schedule", "import", file.to_str().unwrap(), "--from"], args].concat(), Some(daemon.socket()))
    };
    let charge = json!({"operatingMode": "charge", "enableGridInteraction": true});
    let tag = json!({"tagSchedules": [{"id": "T9", "tag": "summer", "deviceType": "battery", "timezone": "Europe/Berlin",
        "createdAt": "2026-01-01T00:00:00Z", "startsAt": "2026-01-01T00:00:00Z", "defaultDeviceOperatingMode": charge,
        "rules": [{"daysOfWeek": [], "startTime": "00:00", "endTime": "00:00", "deviceOperatingMode": {"operatingMode": "warp"}}]}]});
    let out = import("texture.json", &tag, &["texture", "--device", "battery"]);
    assert_eq!(out.code, Some(0), "{}", out.stderr);
    assert!(out.stdout.contains(": saved") || out.stdout.contains(": accepted"), "{}", out.stdout);
    eventually("the tag's schedule charges", SOON, || daemon.device("battery")["controlled_by"]["rank"] == "tag");
    let plan = json!({"commands": [
        {"start": now_rfc3339(), "end": rfc3339_in(Duration::from_secs(300)), "action": "discharge", "powerLimit_W": -900},
        {"start": now_rfc3339(), "action": "hold"}]});
    let out = import("plan.json", &plan, &["gridshare", "--device", "battery"]);
    assert_eq!(out.code, Some(0), "{}", out.stderr);
    assert!(out.stdout.contains("commands[1] is left out: end is missing"), "{}", out.stdout);
    eventually("the overlay plan goes first", SOON, || (rig.watts("battery") - 900.0).abs() < 60.0);
    let out = import("plan.json", &json!({"commands": []}), &["gridshare", "--device", "battery"]);
    assert_eq!(out.code, Some(0), "{}", out.stderr);
    eventually("an empty one deletes it", SOON, || daemon.device("battery")["controlled_by"]["rank"] == "tag");
    let wrong = json!({"id": "s1", "targetId": "c", "targetType": "charger", "locationId": null, "defaultShouldCharge": true,
        "rules": [{"shouldCharge": false, "weekdays": [8]}]});
    let out = import("enode.json", &wrong, &["enode", "--device", "charger", "--timezone", "Europe/Oslo"]);
    assert_eq!(out.code, Some(1));
    assert!(out.stderr.contains("rules[0].weekdays has 8"), "{}", out.stderr);
    let out = import("enode.json", &wrong, &["enode"]);
    assert_eq!(out.code, Some(2), "{}", out.stderr);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_foreign_hand_on_the_battery_is_told_and_refusals_write_nothing() {
    let rig = rig(false);
    let strict = |c: String| c.replace("accept_no_failsafe = true", "accept_no_failsafe = false");
    let daemon = rig.start(strict);
    let out = cli(&["set", "battery", "charge", "power_w=1000"], Some(daemon.socket()));
    assert_eq!(out.code, Some(1));
    assert!(out.stderr.contains("accept_no_failsafe"), "{}", out.stderr);
    // A plan goes another way in.
    let plan = json!({"id": "p1", "device": "battery", "kind": "slots", "slots": [
        {"start": now_rfc3339(), "end": rfc3339_in(Duration::from_secs(300)), "action": "charge", "params": {"power_w": 1000}}]});
    let file = rig.folder.path().join("plan.json");
    std::fs::write(&file, plan.to_string()).unwrap();
    let out = cli(&["schedule", "import", file.to_str().unwrap()], Some(daemon.socket()));
    assert_eq!(out.code, Some(0), "{}", out.stderr);
    eventually("it says why not", SOON, || {
        let events = daemon.get("/api/v1/events");
        events.contains("plan_failed") && events.contains("accept_no_failsafe")
    });
    stays("nothing is written", Duration::from_secs(4), || rig.writes("battery").is_empty());
    assert_eq!(daemon.stop(), Some(0));

    let daemon = rig.start(|c| c);
    eventually("the plan", SOON, || (rig.watts("battery") + 1000.0).abs() < 60.0);
    assert_eq!(cli(&["schedule", "delete", "p1"], Some(daemon.socket())).code, Some(0));
    eventually("it is over", SOON, || rig.home.with_world(|w| w.battery.bounds.is_none()));
    set(&daemon, &["battery", "discharge", "power_w=1500"]);
    eventually("the owner", SOON, || (rig.watts("battery") - 1500.0).abs() < 60.0);
    foreign_modbus(&rig.home, "battery", STORAGE + 5, &[0]);
    let events = || daemon.get("/api/v1/events");
    eventually("seen", Duration::from_secs(35), || events().contains("setpoint_reverted"));
    eventually("nobody holds it", SOON, || daemon.device("battery")["controlled_by"].is_null());
    // The SoC at its bound while it discharges.
    set(&daemon, &["battery", "discharge", "power_w=1500"]);
    eventually("again", SOON, || (rig.watts("battery") - 1500.0).abs() < 60.0);
    rig.home.with_world(|w| w.set_soc(4.5));
    eventually("empty: held at 0", Duration::from_secs(10), || rig.watts("battery").abs() < 1.0);
    rig.home.set_online("battery", false).unwrap();
    assert_eq!(daemon.stop(), Some(0), "a device that is away does not keep derd from stopping");
    rig.home.set_online("battery", true).unwrap();
    let _daemon = rig.start(|c| c);
}

/// A file system of its own size; unmounted on drop.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where mounting is not allowed.
    fn mount(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|out| out.status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).output());
    }
}

#[test]
fn a_full_disk_stops_no_stop() {
    let rig = rig(true);
    let disk = rig.folder.path().join("disk");
    let Some(_disk) = SmallDisk::mount(&disk, "4m") else {
        println!("not tested: this user may not mount");
        return;
    };
    let daemon = Daemon::start(rig.folder.path(), &config_for(&rig.home, &disk, ""));
    daemon.wait_online(SOON);
    set(&daemon, &["battery", "discharge", "power_w=1500"]);
    set(&daemon, &["charger", "set_max_current", "current_a=10"]);
    eventually("both", SOON, || rig.watts("battery") > 1400.0 && rig.watts("charger") > 9.0 * 690.0);
    let filler = disk.join("filler");
    drop(std::fs::write(&filler, vec![1; 8 << 20]));
    eventually("health says so", Duration::from_secs(40), || daemon.status()["health"] != "ok");
    let out = cli(&["set", "battery", "charge", "power_w=1000"], Some(daemon.socket()));
    assert!(out.code == Some(1) && out.stderr.contains("disk is full"), "what widens waits for the disk: {out:?}");
    set(&daemon, &["battery", "idle"]);
    set(&daemon, &["charger", "stop"]);
    eventually("both stop", Duration::from_secs(15), || rig.watts("battery").abs() < 1.0 && rig.watts("charger") < 1.0);
    let problems = daemon.status()["problems"].to_string();
    assert!(problems.contains("disk is full"), "{problems}");
    std::fs::remove_file(&filler).unwrap();
    eventually("it recovers", Duration::from_secs(60), || daemon.status()["health"] == "ok");
    set(&daemon, &["battery", "charge", "power_w=1000"]);
    eventually("and takes commands again", SOON, || (rig.watts("battery") + 1000.0).abs() < 60.0);
    drop(std::fs::write(&filler, vec![1; 8 << 20]));
    assert_eq!(daemon.stop(), Some(0), "full at the end too");
    eventually("released", SOON, || rig.home.with_world(|w| w.battery.bounds.is_none()));
}
