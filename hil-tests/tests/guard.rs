//! derd is gone: what `derd-guard` does with what it left behind.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "end-to-end tests live in real time and fail by panicking"
)]

use derd::guard::Will;
use derd::model::Point;
use derd::runtime::Clock;
use derd::sim::{Home, HomeHandle, HomeOptions, Scenario, Touch};
use hil_tests::{Daemon, Guard, cli, config_for, eventually, guard_binary, stays};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(25);
/// How long the daemon may be dead in these tests, and how long the guard may need then.
const AFTER: Duration = Duration::from_secs(3);
const ACTS: Duration = Duration::from_secs(8);

struct Rig {
    folder: tempfile::TempDir,
    home: HomeHandle,
    config: String,
}

/// A home whose battery keeps its setpoint, as its charger and its inverter do.
fn rig() -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let truth = Some(folder.path().join("truth.jsonl"));
    let options = HomeOptions { scenario: Scenario::Steady, revert_timer: false, truth, ..HomeOptions::default() };
    let home = Home::start(options, Clock::system()).unwrap();
    let config = config_for(&home, folder.path(), "");
    Rig { folder, home, config }
}

impl Rig {
    fn daemon(&self) -> Daemon {
        let daemon = Daemon::start(self.folder.path(), &self.config);
        daemon.wait_online(SOON);
        daemon
    }

    fn guard(&self) -> Guard {
        Guard::start(self.folder.path(), &["--after", "3s"])
    }

    fn watts(&self, device: &str) -> f64 {
        self.home.truth().num(device, &Point::PowerW).unwrap()
    }

    fn will(&self, device: &str) -> PathBuf {
        self.folder.path().join(format!("guard/{device}.json"))
    }

    /// Writes that reached a device.
    fn writes(&self, device: &str) -> usize {
        let text = std::fs::read_to_string(self.folder.path().join("truth.jsonl")).unwrap_or_default();
        let lines = text.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
        lines.filter(|l| l["device"] == device && !l["write"].is_null()).count()
    }

    fn once(&self) -> (Option<i32>, String) {
        let out =
            Command::new(guard_binary()).arg("--once").arg("--data-dir").arg(self.folder.path()).output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    }
}

fn set(daemon: &Daemon, args: &[&str]) {
    let out = cli(&[&["set"], args].concat(), Some(daemon.socket()));
    assert_eq!(out.code, Some(0), "{args:?}: {}{}", out.stdout, out.stderr);
}

fn events(daemon: &Daemon, code: &str) -> Vec<Value> {
    let answer: Value = serde_json::from_str(&daemon.get("/api/v1/events?limit=100")).unwrap();
    answer.as_array().unwrap_or_else(|| panic!("{answer}")).iter().filter(|e| e["code"] == code).cloned().collect()
}

fn discharges(rig: &Rig) -> bool {
    (rig.watts("battery") - 2500.0).abs() < 60.0
}

#[test]
fn all_that_persists_is_led_back_when_the_daemon_stays_dead() {
    let rig = rig();
    // What the installer set: 16 A.
    let amps = |rig: &Rig| rig.home.with_world(|w| w.charger.amps);
    let installed = amps(&rig);
    let free = rig.watts("pv");
    let daemon = rig.daemon();
    let guard = rig.guard();
    set(&daemon, &["battery", "discharge", "power_w=2500", "--for", "12s"]);
    set(&daemon, &["pv", "set_power_limit", "power_w=1500", "--for", "1h"]);
    set(&daemon, &["charger", "set_max_current", "current_a=13", "--for", "1h"]);
    eventually("the battery discharges", SOON, || discharges(&rig));
    eventually("the inverter is curtailed", SOON, || rig.watts("pv") <= 1530.0);
    eventually("the charger is set", SOON, || (amps(&rig) - 13.0).abs() < 0.1);
    for device in ["battery", "pv", "charger"] {
        let will = Will::read(&rig.will(device)).unwrap();
        assert_eq!((will.device.as_str(), will.done_at), (device, None));
    }
    daemon.kill();
    let died = Instant::now();
    assert!(discharges(&rig), "its setpoint stays");
    eventually("the battery is released", AFTER + ACTS, || !discharges(&rig));
    assert!(died.elapsed() > AFTER - Duration::from_millis(500), "not before its time: {:?}", died.elapsed());
    eventually("the sun is back", ACTS, || (rig.watts("pv") - free).abs() < 100.0);
    // A fuse is configured: the charger falls to the tighter value.
    eventually("the charger is at its fallback", ACTS, || amps(&rig) <= 6.0);
    eventually("all is proven", ACTS, || {
        ["battery", "pv", "charger"].iter().all(|d| Will::read(&rig.will(d)).is_ok_and(|w| w.done_at.is_some()))
    });
    assert!(guard.log().contains("battery was led back to its baseline"), "{}", guard.log());
    assert!(installed >= 6.0);

    // The command of the battery has ended meanwhile.
    let (battery, lines) = (rig.writes("battery"), guard.log().lines().count());
    eventually("the lease is over", SOON, || died.elapsed() > Duration::from_secs(12));
    let daemon = rig.daemon();
    eventually("it is told", SOON, || events(&daemon, "guard_released").len() == 3);
    eventually("the marks are gone", SOON, || !rig.will("battery").exists());
    eventually("the battery is nobody's", SOON, || daemon.device("battery")["controlled_by"].is_null());
    // 15 s is how long a start waits before it ends what the last run held.
    stays("no second action", Duration::from_secs(18), || rig.writes("battery") == battery);
    // The two that go on are held again, and guarded again.
    eventually("the inverter is curtailed again", SOON, || rig.watts("pv") <= 1530.0);
    assert!(Will::read(&rig.will("pv")).unwrap().done_at.is_none());
    assert_eq!(guard.log().lines().count(), lines, "{}", guard.log());
    assert_eq!(daemon.stop(), Some(0));
    eventually("an orderly stop leaves nothing", SOON, || {
        Will::files(&rig.folder.path().join("guard")).unwrap().is_empty()
    });
    eventually("with all the sun", SOON, || (rig.watts("pv") - free).abs() < 100.0);
}

#[test]
fn a_daemon_that_comes_back_in_time_is_left_alone() {
    let rig = rig();
    let daemon = rig.daemon();
    let mut guard = Guard::start(rig.folder.path(), &["--after", "6s"]);
    set(&daemon, &["battery", "discharge", "power_w=2500", "--for", "1h"]);
    eventually("the battery discharges", SOON, || discharges(&rig));
    let inode = |p: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(p).unwrap());
    let will = inode(&rig.will("battery"));
    daemon.kill();
    let daemon = rig.daemon();
    stays("the battery discharges on", Duration::from_secs(12), || discharges(&rig));
    assert_eq!(guard.log(), "");
    assert!(events(&daemon, "guard_released").is_empty());
    assert_eq!(inode(&rig.will("battery")), will, "the same will is not written again");
    // By hand, while the daemon lives: no.
    let (code, said) = rig.once();
    assert!(code == Some(1) && said.contains("derd is running"), "{code:?} {said}");
    assert!(guard.ended().is_none());
    assert_eq!(daemon.stop(), Some(0));
    eventually("released", SOON, || !discharges(&rig));
    assert!(!rig.will("battery").exists());
    assert_eq!(rig.once().0, Some(0), "nothing to do");
}

#[test]
fn a_device_that_is_off_is_led_back_when_it_returns() {
    let rig = rig();
    let daemon = rig.daemon();
    set(&daemon, &["battery", "discharge", "power_w=2500", "--for", "1h"]);
    eventually("the battery discharges", SOON, || discharges(&rig));
    eventually("its will is there", SOON, || rig.will("battery").exists());
    daemon.kill();
    rig.home.set_online("battery", false).unwrap();
    // No daemon at the boot, only the files.
    let guard = rig.guard();
    eventually("the guard tries", AFTER + ACTS, || guard.log().contains("battery is not led back"));
    rig.home.set_online("battery", true).unwrap();
    eventually("led back", Duration::from_secs(30), || !discharges(&rig));
    eventually("told", ACTS, || guard.log().contains("battery was led back"));
    assert_eq!(guard.log().lines().count(), 2, "a fault once, its end once: {}", guard.log());
}

#[test]
fn the_will_is_there_before_the_first_setpoint_and_a_hanging_disk_does_not_stop_it() {
    let rig = rig();
    let daemon = rig.daemon();
    // Looked at when the first write reaches a device.
    let seen = Arc::new(Mutex::new(BTreeMap::<String, bool>::new()));
    let (book, folder) = (Arc::clone(&seen), rig.folder.path().join("guard"));
    rig.home.on_request(move |device, touch| {
        if touch == Touch::Write {
            let is_there = || folder.join(format!("{device}.json")).exists();
            book.lock().unwrap().entry(device.to_owned()).or_insert_with(is_there);
        }
    });
    set(&daemon, &["battery", "discharge", "power_w=2500", "--for", "1h"]);
    set(&daemon, &["pv", "set_power_limit", "power_w=1500", "--for", "1h"]);
    eventually("both are written", SOON, || seen.lock().unwrap().len() == 2);
    assert!(seen.lock().unwrap().values().all(|was_there| *was_there), "{seen:?}");
    // A pipe that nobody reads hangs who opens it, as a bad card does.
    let pipe = rig.folder.path().join("guard/.charger.new");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    set(&daemon, &["charger", "set_max_current", "current_a=9"]);
    let asked = Instant::now();
    eventually("the charger is set all the same", SOON, || rig.home.with_world(|w| (w.charger.amps - 9.0).abs() < 0.1));
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    assert!(!rig.will("charger").exists());
    drop(std::fs::File::open(&pipe).unwrap());
    drop(std::fs::remove_file(&pipe));
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_daemon_that_comes_back_in_the_middle_waits_for_the_guard_and_goes_on() {
    let rig = rig();
    let daemon = rig.daemon();
    let guard = rig.guard();
    set(&daemon, &["battery", "discharge", "power_w=2500", "--for", "1h"]);
    eventually("the battery discharges", SOON, || discharges(&rig));
    let writes = rig.writes("battery");
    daemon.kill();
    eventually("the guard has begun", AFTER + ACTS, || rig.writes("battery") > writes);
    let daemon = rig.daemon();
    // The guard has finished what it began; the command is still wanted and acts again.
    assert!(guard.log().contains("battery was led back"), "{}", guard.log());
    eventually("it is told", SOON, || events(&daemon, "guard_released").len() == 1);
    eventually("with a will", SOON, || Will::read(&rig.will("battery")).is_ok_and(|w| w.done_at.is_none()));
    // The guard wrote two registers, and so does each setpoint.
    eventually("it is written again", SOON, || rig.writes("battery") >= writes + 4);
    // What the guard wrote shows in the battery's power 2 s later, and so does what the daemon wrote after it.
    let written = std::time::Instant::now();
    eventually("it is held again", SOON, || written.elapsed() > Duration::from_secs(6) && discharges(&rig));
    assert_eq!(daemon.device("battery")["controlled_by"]["action"], "discharge");
    stays("and the guard is quiet", Duration::from_secs(8), || guard.log().lines().count() == 1 && discharges(&rig));
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn another_device_at_the_address_is_not_written_to() {
    let rig = rig();
    let daemon = rig.daemon();
    set(&daemon, &["battery", "discharge", "power_w=2500", "--for", "1h"]);
    eventually("the battery discharges", SOON, || discharges(&rig));
    eventually("its will is there", SOON, || rig.will("battery").exists());
    daemon.kill();
    // The router has given the battery's address to the inverter.
    let text = std::fs::read_to_string(rig.will("battery")).unwrap();
    let link = |id: &str| rig.home.device(id).unwrap().link.clone();
    std::fs::write(rig.will("battery"), text.replace(&link("battery"), &link("pv"))).unwrap();
    let (code, said) = rig.once();
    assert!(code == Some(1) && said.contains("another device answers in its place"), "{code:?} {said}");
    assert_eq!(rig.writes("pv"), 0);
    std::fs::write(rig.will("battery"), text).unwrap();
    assert_eq!(rig.once().0, Some(0));
    eventually("released", SOON, || !discharges(&rig));
}

#[test]
fn a_store_that_was_lost_does_not_make_a_setpoint_the_baseline() {
    let rig = rig();
    let free = rig.watts("pv");
    let daemon = rig.daemon();
    set(&daemon, &["pv", "set_power_limit", "power_w=1500", "--for", "1h"]);
    eventually("the inverter is curtailed", SOON, || rig.watts("pv") <= 1530.0);
    eventually("its will is there", SOON, || rig.will("pv").exists());
    daemon.kill();
    for name in ["derd.db", "derd.db-wal", "derd.db-shm"] {
        drop(std::fs::remove_file(rig.folder.path().join(name)));
    }
    let daemon = rig.daemon();
    eventually("the will leads it back", SOON, || (rig.watts("pv") - free).abs() < 100.0);
    eventually("it is told", SOON, || events(&daemon, "leftover_released").len() == 1);
    assert!(!rig.will("pv").exists());
    // What it goes back to from now on is the installer's word again.
    set(&daemon, &["pv", "set_power_limit", "power_w=1000", "--for", "1h"]);
    eventually("the inverter is curtailed", SOON, || rig.watts("pv") <= 1030.0);
    assert_eq!(daemon.stop(), Some(0));
    eventually("the sun is back", SOON, || (rig.watts("pv") - free).abs() < 100.0);
}

#[test]
fn what_is_not_a_will_stops_nobody() {
    let rig = rig();
    let folder = rig.folder.path().join("guard");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("pv.json"), "{\"format\":1,").unwrap();
    std::fs::write(folder.join("other.json"), "not derd's").unwrap();
    let guard = rig.guard();
    eventually("the guard says so", AFTER + ACTS, || guard.log().lines().count() == 2);
    let daemon = rig.daemon();
    assert!(folder.join("pv.damaged").exists() && folder.join("other.damaged").exists());
    set(&daemon, &["battery", "discharge", "power_w=2500", "--for", "1h"]);
    eventually("its will is there", SOON, || rig.will("battery").exists());
    daemon.kill();
    eventually("led back", AFTER + ACTS, || guard.log().contains("battery was led back"));
}

#[test]
fn a_store_that_cannot_write_neither_starves_the_watchdog_nor_stops_control() {
    use std::os::unix::net::UnixDatagram;
    let rig = rig();
    let (config, socket) = (rig.folder.path().join("derd.toml"), rig.folder.path().join("derd.sock"));
    std::fs::write(&config, &rig.config).unwrap();
    let systemd = UnixDatagram::bind(rig.folder.path().join("notify")).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // A disk that takes nothing any more is made by a limit on the size of files; its signal must not end the process.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]).arg(hil_tests::derd_binary());
    command.args(["run", "--config"]).arg(&config).arg("--socket").arg(&socket);
    command.env("NOTIFY_SOCKET", rig.folder.path().join("notify")).env("WATCHDOG_USEC", "2000000");
    let mut daemon = Daemon::spawn(command, socket);
    daemon.wait_ready(SOON);
    daemon.wait_online(SOON);
    set(&daemon, &["battery", "discharge", "power_w=2500", "--for", "1h"]);
    eventually("the battery discharges", SOON, || discharges(&rig));
    let disk = |limit: &str| {
        let pid = daemon.pid().to_string();
        assert!(
            Command::new("prlimit")
                .args(["--pid", &pid, &format!("--fsize={limit}:unlimited")])
                .status()
                .unwrap()
                .success()
        );
    };
    disk("0");
    systemd.set_nonblocking(true).unwrap();
    let mut buffer = [0; 256];
    while systemd.recv(&mut buffer).is_ok() {}
    systemd.set_nonblocking(false).unwrap();
    let start = Instant::now();
    let mut fed = Vec::new();
    while start.elapsed() < Duration::from_secs(40) {
        let n = systemd.recv(&mut buffer).expect("the watchdog is fed");
        if buffer[..n].starts_with(b"WATCHDOG=1") {
            fed.push(start.elapsed());
        }
        assert!(fed.windows(2).all(|w| w[1] - w[0] < Duration::from_secs(2)), "{fed:?}");
    }
    assert!(fed.len() > 25, "{fed:?}");
    assert!(discharges(&rig), "and what was held is held");
    let age = daemon.device("battery")["age_ms"].as_u64().unwrap();
    assert!(age < 3000, "polls go on: {age} ms");
    assert_eq!(daemon.status()["health"], "degraded", "{}", daemon.status());
    disk("unlimited");
    eventually("the store is well again", Duration::from_secs(40), || daemon.status()["health"] == "ok");
    assert_eq!(daemon.stop(), Some(0));
}
