//! Wills, locks and the journal on a real disk.

use super::lock::{self, Look};
use super::*;
use crate::model::{Demand, DeviceId, Timestamp};
use crate::profile::{Check, Expect, HttpMethod, Pace, Program, Request, Space, Target, WayBack, WriteFunction};
use crate::runtime::Clock;
use serde_json::json;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(20);
const AFTER: Duration = Duration::from_secs(60);

fn id(text: &str) -> DeviceId {
    text.parse().unwrap()
}

/// A will with every kind of request and proof in it.
fn will(device: &str) -> Will {
    let read = |space| Request::Read { unit: 3, space, address: 40_100, count: 2 };
    let http = |method, body, writes| Request::Http { method, path: "/api/set?amp=6&frc=0".into(), body, writes };
    let check = |read, failsafe, expect| Check { read, failsafe, expect };
    Will {
        device: id(device),
        link: "tcp://192.0.2.1:502".into(),
        pace: Pace {
            timeout: Duration::from_millis(2500),
            min_gap: Duration::from_millis(20),
            connect_delay: Duration::from_secs(1),
        },
        after: AFTER,
        since: Timestamp::from_ms(1_800_000_000_000),
        on_end: Demand::ChargerLimit { amps: 6.0 },
        way: WayBack {
            program: Program {
                writes: vec![
                    Request::Write { unit: 1, address: 1, words: vec![0xFFFF], function: WriteFunction::Single },
                    Request::Write { unit: 247, address: 65_535, words: vec![0, 1], function: WriteFunction::Multiple },
                    http(HttpMethod::Get, None, true),
                    http(HttpMethod::Post, Some(json!({"b": [1, 2.5, null]})), true),
                    http(HttpMethod::Put, Some(json!(1)), false),
                ],
                targets: Vec::new(),
                fallback: 0,
                settle: Duration::from_millis(1500),
                checks: vec![
                    check(read(Space::Holding), false, Expect::Words { words: vec![1, 2], signed: true }),
                    check(read(Space::Input), true, Expect::Timer(60)),
                    check(
                        http(HttpMethod::Get, None, false),
                        false,
                        Expect::Keys(vec![("z".into(), json!(6)), ("a".into(), json!("x"))]),
                    ),
                ],
                refresh: None,
            },
            known_by: vec![check(read(Space::Holding), false, Expect::Words { words: vec![0x3132, 0], signed: false })],
        },
        done_at: None,
    }
}

async fn open(folder: &Path) -> (Journal, Leftovers) {
    Journal::open(folder, "run-1", AFTER).await
}

#[test]
fn a_will_survives_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("battery.json");
    for done_at in [None, Some(Timestamp::from_ms(1_800_000_009_000))] {
        let will = Will { done_at, ..will("battery") };
        will.write(folder.path()).unwrap();
        assert_eq!(Will::read(&path).unwrap(), will);
    }
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Will::files(folder.path()).unwrap(), std::slice::from_ref(&path));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    Will::remove(folder.path(), &id("battery")).unwrap();
    Will::remove(folder.path(), &id("battery")).unwrap();
    assert!(Will::files(folder.path()).unwrap().is_empty());
    assert!(Will::files(&folder.path().join("nowhere")).unwrap().is_empty());
}

#[test]
fn a_will_read_back_says_the_same_as_what_a_restart_works_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut worked_out = will("battery");
    let place = "unit 1 holding 1".to_owned();
    let class = crate::model::WriteClass::Volatile;
    let target = Target { write: 0, register: place, class, refreshes: true, triggers: false };
    worked_out.way.program.targets.push(target);
    (worked_out.way.program.fallback, worked_out.way.program.refresh) = (1, Some(Duration::from_secs(20)));
    worked_out.write(folder.path()).unwrap();
    let read = Will { since: Timestamp::from_ms(0), ..Will::read(&folder.path().join("battery.json")).unwrap() };
    assert!(worked_out.says_the_same(&read) && read.says_the_same(&worked_out));
    worked_out.way.program.writes.pop();
    assert!(!worked_out.says_the_same(&read));
}

#[test]
fn half_a_file_is_never_a_will() {
    let folder = tempfile::tempdir().unwrap();
    will("pv").write(folder.path()).unwrap();
    let path = folder.path().join("pv.json");
    let whole = std::fs::read(&path).unwrap();
    for end in 0..whole.len() - 2 {
        std::fs::write(&path, &whole[..end]).unwrap();
        assert!(matches!(Will::read(&path), Err(WillError::Foreign { .. })), "{end} bytes");
    }
    let text = String::from_utf8(whole).unwrap();
    for (from, to) in [
        ("\"format\": 1", "\"format\": 2"),
        ("\"device\": \"pv\"", "\"device\": \"battery\""),
        ("\"device\": \"pv\"", "\"device\": \"../pv\""),
        ("charger_limit", "launch"),
        ("write_single", "write_triple"),
        ("2027-", "2027x"),
    ] {
        assert!(text.contains(from), "{from} is not in {text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
        assert!(matches!(Will::read(&path), Err(WillError::Foreign { .. })), "{to}");
    }
}

#[tokio::test]
async fn the_journal_writes_what_changes_and_finds_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("guard");
    let path = place.join("battery.json");
    let (journal, left) = open(&place).await;
    assert!(left.done.is_empty() && left.open.is_empty());
    let first = will("battery");
    assert_eq!(journal.put(first.clone(), LONG).await, Put::Kept);
    let inode = std::fs::metadata(&path).unwrap().ino();
    let later = Will { since: Timestamp::from_ms(1_900_000_000_000), ..first.clone() };
    assert_eq!(journal.put(later, Duration::ZERO).await, Put::Kept);
    assert_eq!((std::fs::metadata(&path).unwrap().ino(), Will::read(&path).unwrap()), (inode, first.clone()));
    let tighter = Will { on_end: Demand::ChargerOff, ..first.clone() };
    assert_eq!(journal.put(tighter.clone(), LONG).await, Put::Kept);
    assert_eq!(Will::read(&path).unwrap(), tighter);

    // The next run of the daemon knows it, sets aside what is none, and tells what was done meanwhile.
    Will { done_at: Some(Timestamp::from_ms(1)), ..will("pv") }.write(&place).unwrap();
    std::fs::write(place.join("x.json"), "{}").unwrap();
    drop(journal);
    let (journal, left) = open(&place).await;
    assert_eq!(left.open.into_values().collect::<Vec<_>>(), std::slice::from_ref(&tighter));
    assert_eq!(left.done.iter().map(|w| w.device.as_str()).collect::<Vec<_>>(), ["pv"]);
    assert!(place.join("x.damaged").exists() && !place.join("x.json").exists());
    let inode = std::fs::metadata(&path).unwrap().ino();
    assert_eq!(journal.put(tighter, LONG).await, Put::Kept);
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode, "it is known already");
    journal.acknowledge(&id("pv")).await;
    assert_eq!(journal.remove(&id("battery"), LONG).await, Put::Kept);
    assert_eq!(journal.remove(&id("battery"), Duration::ZERO).await, Put::Kept);
    assert!(Will::files(&place).unwrap().is_empty());

    // A mark goes only as long as there is no new will.
    Will { done_at: Some(Timestamp::from_ms(1)), ..will("pv") }.write(&place).unwrap();
    assert_eq!(journal.put(will("pv"), LONG).await, Put::Kept);
    journal.acknowledge(&id("pv")).await;
    assert_eq!(Will::read(&place.join("pv.json")).unwrap(), will("pv"));
}

#[tokio::test]
async fn a_disk_that_refuses_is_told_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path()).await;
    let obstacle = folder.path().join(".pv.new");
    std::fs::create_dir(&obstacle).unwrap();
    assert!(matches!(journal.put(will("pv"), LONG).await, Put::Failed(_)));
    assert!(matches!(journal.put(will("pv"), LONG).await, Put::Failed(_)), "the same, tried again");
    std::fs::remove_dir(&obstacle).unwrap();
    assert_eq!(journal.put(will("pv"), LONG).await, Put::Kept);
    assert!(folder.path().join("pv.json").exists());
}

#[tokio::test]
async fn a_disk_that_hangs_holds_up_nobody_and_gets_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path()).await;
    // Opening a pipe that nobody reads hangs, as a disk does.
    let pipe = folder.path().join(".pv.new");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let clock = Clock::system();
    assert_eq!(journal.put(will("pv"), Duration::from_millis(50)).await, Put::Behind);
    assert_eq!(journal.put(will("pv"), Duration::ZERO).await, Put::Behind, "the same is under way");
    for amps in [7.0, 8.0, 9.0] {
        let will = Will { on_end: Demand::ChargerLimit { amps }, ..will("pv") };
        assert_eq!(journal.put(will, Duration::ZERO).await, Put::Behind);
        assert_eq!(
            journal.put(Will { after: AFTER * 2, ..super::tests::will("battery") }, Duration::ZERO).await,
            Put::Behind
        );
    }
    assert!(clock.mono().ms() < 5000);
    // It goes on: what was written into the pipe is lost, and the newest comes to the disk.
    let reader = std::fs::File::open(&pipe).unwrap();
    std::fs::remove_file(&pipe).unwrap();
    drop(reader);
    let deadline = clock.mono().plus(LONG);
    loop {
        let newest =
            Will::read(&folder.path().join("pv.json")).is_ok_and(|w| w.on_end == Demand::ChargerLimit { amps: 9.0 });
        if newest && folder.path().join("battery.json").exists() {
            break;
        }
        assert!(clock.mono() < deadline, "it never came to the disk");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_daemon_at_a_time_and_a_guard_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    assert_eq!(lock::look(place), Look::Dead, "it never ran");
    let (journal, _) = open(place).await;
    assert_eq!(lock::look(place), Look::Alive("run-1".into()));
    assert!(lock::daemon(place, "run-2").unwrap().is_none());
    drop(journal);
    assert_eq!(lock::look(place), Look::Dead);

    let acting = lock::acting(place).unwrap().expect("free");
    assert!(lock::acting(place).unwrap().is_none() && lock::is_acting(place));
    tokio::time::pause();
    let clock = Clock::system();
    let (journal, _) = open(place).await;
    assert!(clock.mono().ms() >= 10_000, "it was waited for: {} ms", clock.mono().ms());
    drop((journal, acting));
    let clock = Clock::system();
    let (journal, _) = open(place).await;
    assert!(clock.mono().ms() < 100, "free");
    // A second daemon goes on without wills, and says so for each.
    let (second, _) = open(place).await;
    assert!(matches!(second.put(will("pv"), LONG).await, Put::Failed(why) if why.contains("another derd")));
    drop(journal);
}
