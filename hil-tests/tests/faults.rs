//! derd hangs, dies again and again, and starts at the moment at which the guard acts.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "end-to-end tests live in real time and fail by panicking"
)]

use derd::model::Point;
use derd::runtime::Clock;
use derd::sim::{Home, HomeHandle, HomeOptions, Scenario};
use hil_tests::{Daemon, Guard, cli, config_for, eventually, wait_for};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(25);

fn home(revert_timer: bool) -> HomeHandle {
    let options = HomeOptions { scenario: Scenario::Steady, revert_timer, ..HomeOptions::default() };
    let home = Home::start(options, Clock::system()).unwrap();
    home.with_world(|w| {
        w.set_sun(Some(0.0));
        w.set_soc(50.0);
    });
    home
}

fn start(folder: &Path, config: &str) -> Daemon {
    let daemon = Daemon::start(folder, config);
    daemon.wait_online(SOON);
    daemon
}

fn set(daemon: &Daemon, args: &[&str]) {
    let out = cli(&[&["set"], args].concat(), Some(daemon.socket()));
    assert_eq!(out.code, Some(0), "{args:?}: {}{}", out.stdout, out.stderr);
}

fn watts(home: &HomeHandle, device: &str) -> f64 {
    home.truth().num(device, &Point::PowerW).unwrap()
}

fn rests(time: Duration) {
    let start = Instant::now();
    wait_for("time passes", time * 2, || (start.elapsed() >= time).then_some(()));
}

/// Stopped for more than a minute: the battery's own timer ends its setpoint; afterwards what is over stays over, and the
/// fuse, overloaded meanwhile, is relieved.
#[test]
fn a_daemon_that_hangs_for_a_minute() {
    let (home, folder) = (home(true), tempfile::tempdir().unwrap());
    let config = config_for(&home, folder.path(), "").replace("main_fuse_a = 35", "main_fuse_a = 25");
    let daemon = start(folder.path(), &config);
    set(&daemon, &["battery", "discharge", "power_w=2000", "--for", "45s"]);
    set(&daemon, &["charger", "set_max_current", "current_a=16", "--for", "1h"]);
    eventually("both", SOON, || watts(&home, "battery") > 1900.0 && watts(&home, "charger") > 10_000.0);
    daemon.signal("STOP");
    home.with_world(|w| w.set_load(Some(9000.0)));
    let grid_a = || home.with_world(|w| w.grid.power_w.iter().fold(0.0_f64, |a, b| a.max(*b)) / 230.0);
    eventually("the fuse is overloaded", SOON, || grid_a() > 25.5);
    eventually("the battery's own timer", Duration::from_secs(75), || home.with_world(|w| w.battery.bounds.is_none()));
    daemon.signal("CONT");
    let again = Instant::now();
    eventually("the fuse is relieved", Duration::from_secs(14), || grid_a() <= 25.3);
    eventually("the command is over", SOON, || daemon.device("battery")["controlled_by"].is_null());
    rests(Duration::from_secs(8).saturating_sub(again.elapsed()));
    assert!(home.with_world(|w| w.battery.bounds.is_none()), "what is over does not begin again");
    assert_eq!(daemon.device("charger")["controlled_by"]["rank"], "owner", "what is not over goes on");
    assert_eq!(daemon.stop(), Some(0));
}

/// A way to the battery for one client at a time: what an inverter with one socket sees. Returns its address, how many
/// came, and how many came while another was there.
fn one_client(to: String) -> (String, Arc<[AtomicUsize; 2]>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let seen = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let counts = Arc::clone(&seen);
    let open = Arc::new(AtomicUsize::new(0));
    drop(std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            counts[0].fetch_add(1, Ordering::SeqCst);
            // The end of the one before may be on its way through this very thread's siblings.
            let came = Instant::now();
            while open.load(Ordering::SeqCst) > 0 && came.elapsed() < Duration::from_millis(300) {
                std::thread::yield_now();
            }
            if open.load(Ordering::SeqCst) > 0 {
                counts[1].fetch_add(1, Ordering::SeqCst);
                continue;
            }
            let Ok(server) = TcpStream::connect(&to) else { continue };
            open.fetch_add(1, Ordering::SeqCst);
            let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
            let open = Arc::clone(&open);
            drop(std::thread::spawn(move || pump(back.0, back.1)));
            drop(std::thread::spawn(move || {
                pump(client, server);
                open.fetch_sub(1, Ordering::SeqCst);
            }));
        }
    }));
    (at, seen)
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 512];
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)));
}

/// Twenty deaths, and each time the daemon comes back about when the guard acts: never do both speak to one device, and the
/// last word is that of who lives.
#[test]
fn deaths_around_the_guards_time() {
    let (home, folder) = (home(false), tempfile::tempdir().unwrap());
    let link = home.device("battery").unwrap().link.clone();
    let (at, seen) = one_client(link.trim_start_matches("tcp://").to_owned());
    let config = config_for(&home, folder.path(), "").replace(&link, &format!("tcp://{at}"));
    let discharges = || (watts(&home, "battery") - 2500.0).abs() < 60.0;
    let mut daemon = start(folder.path(), &config);
    let guard = Guard::start(folder.path(), &["--after", "1s"]);
    set(&daemon, &["battery", "discharge", "power_w=2500", "--for", "1h"]);
    eventually("it discharges", SOON, discharges);
    for n in 0..20_u64 {
        daemon.kill();
        rests(Duration::from_millis(800 + n * 37 % 500));
        daemon = Daemon::start(folder.path(), &config);
        if n % 4 == 3 {
            eventually("what is wanted goes on", SOON, discharges);
        } else {
            rests(Duration::from_millis(200 + n * 113 % 900));
        }
    }
    eventually("what is wanted goes on", SOON, discharges);
    let [came, together] = [0, 1].map(|n: usize| seen[n].load(Ordering::SeqCst));
    assert!(came > 20, "{came}");
    assert_eq!(together, 0, "of {came} clients, while another was there\n{}", guard.log());
    daemon.kill();
    eventually("and in the end the guard", Duration::from_secs(12), || !discharges());
    assert!(guard.log().contains("was led back"), "{}", guard.log());
}

/// A daemon that starts and dies after a moment does not count as alive: its command ends at the latest a little after its
/// time.
#[test]
fn a_crash_loop_does_not_hold_a_setpoint_for_ever() {
    let (home, folder) = (home(false), tempfile::tempdir().unwrap());
    let config = config_for(&home, folder.path(), "");
    // Left alone it gives what the house needs: that is no setpoint.
    let is_held = || home.with_world(|w| w.battery.bounds.is_some());
    let daemon = start(folder.path(), &config);
    let _guard = Guard::start(folder.path(), &["--after", "3s"]);
    set(&daemon, &["battery", "discharge", "power_w=2500", "--for", "8s"]);
    eventually("it discharges", SOON, is_held);
    let begun = Instant::now();
    daemon.kill();
    while begun.elapsed() < Duration::from_secs(24) {
        let daemon = Daemon::start(folder.path(), &config);
        rests(Duration::from_millis(1500));
        daemon.kill();
        rests(Duration::from_millis(700));
    }
    assert!(!is_held(), "16 s after its end");
}
