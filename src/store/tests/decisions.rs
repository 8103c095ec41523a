//! The journal of decisions, and when derd was running.

use super::*;
use crate::model::{CommandResult, CommandState};
use crate::store::decisions::{Decision, Decisions};
use rusqlite::{Connection, OpenFlags};

const DAY: i64 = 86_400;

fn text(n: i64) -> String {
    crate::store::packed::tests::decision(u32::try_from(n).unwrap())
}

fn decide(rig: &Rig, name: &str, seconds: i64) {
    rig.store.decided(device(name), at(seconds), ClockState::Synced, text(seconds)).unwrap();
}

/// When the decision in force at this second was made, in seconds.
async fn in_force(rig: &Rig, name: &str, seconds: i64) -> Option<i64> {
    let row = rig.store.decision_at(device(name), at(seconds)).await.unwrap()?;
    let made = (row.at.ms() - T0) / 1000;
    assert_eq!(row.json, text(made));
    Some(made)
}

fn folder_for_cut(rig: &Rig) -> std::path::PathBuf {
    let to = rig.settings.path.with_file_name(format!("cut{}", rig.clock.mono().ms()));
    std::fs::create_dir(&to).unwrap();
    to
}

#[tokio::test]
async fn a_decision_is_in_force_until_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &[]));
    decide(&rig, "battery", 100);
    decide(&rig, "pv", 150);
    decide(&rig, "battery", 200);
    for round in ["waiting", "on disk", "after a restart"] {
        for (name, asked, wanted) in [
            ("battery", 99, None),
            ("battery", 100, Some(100)),
            ("battery", 199, Some(100)),
            ("battery", 200, Some(200)),
            ("battery", 40 * DAY, Some(200)),
            ("pv", 149, None),
            ("pv", 151, Some(150)),
            ("charger", 200, None),
        ] {
            assert_eq!(in_force(&rig, name, asked).await, wanted, "{name} at {asked}, {round}");
        }
        rig.store.flush().await.unwrap();
    }
    // Waiting and stored ones together, also when the clock was set back between them.
    let rig = rig.reopen().await;
    decide(&rig, "battery", 160);
    decide(&rig, "battery", 300);
    for (asked, wanted) in [(159, 100), (170, 160), (250, 200), (300, 300)] {
        assert_eq!(in_force(&rig, "battery", asked).await, Some(wanted), "at {asked}");
    }
    let rig = rig.reopen().await;
    for (asked, wanted) in [(159, 100), (170, 160), (250, 200), (300, 300)] {
        assert_eq!(in_force(&rig, "battery", asked).await, Some(wanted), "at {asked}, stored");
    }
    let list = rig.store.decisions(device("battery"), at(160), at(300), 10).await.unwrap();
    assert_eq!(list.iter().map(|row| row.at).collect::<Vec<_>>(), [at(160), at(200)]);
    rig.stop().await;
}

#[tokio::test]
async fn the_clock_state_and_two_of_one_millisecond_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &[]));
    for (state, word) in [(ClockState::Untrusted, "one"), (ClockState::Holdover, "two")] {
        rig.store.decided(device("pv"), at(5), state, word.to_owned()).unwrap();
    }
    let rig = rig.reopen().await;
    let found = rig.store.decisions(device("pv"), at(0), at(9), 9).await.unwrap();
    let found: Vec<_> = found.iter().map(|row| (row.clock, row.json.as_str())).collect();
    assert_eq!(found, [(ClockState::Untrusted, "one"), (ClockState::Holdover, "two")]);
    let last = rig.store.decision_at(device("pv"), at(6)).await.unwrap().unwrap();
    assert_eq!(last.json, "two");
    rig.stop().await;
}

#[tokio::test]
async fn a_power_cut_loses_what_waited_and_a_commands_result_takes_it_along() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &[]));
    decide(&rig, "battery", 10);
    rig.store.flush().await.unwrap();
    decide(&rig, "battery", 20);
    let to = folder_for_cut(&rig);
    let rig = rig.cut(&to).await;
    assert_eq!(in_force(&rig, "battery", 30).await, Some(10));
    // What a command brings about is on the disk with its first result after it.
    decide(&rig, "battery", 40);
    let id = Some("c".parse().unwrap());
    let result = CommandResult::new(UplinkName::local(), Some(device("battery")), id, CommandState::Written, at(41));
    rig.store.save_result(result).await.unwrap();
    decide(&rig, "battery", 50);
    rig.clock.advance(Duration::from_secs(1));
    let to = folder_for_cut(&rig);
    let rig = rig.cut(&to).await;
    assert_eq!(in_force(&rig, "battery", 60).await, Some(40));
    rig.stop().await;
}

#[tokio::test]
async fn after_30_days_what_was_in_force_at_their_beginning_stays() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(StoreSettings { retention: Duration::from_secs(3600), ..settings(folder.path(), &[]) });
    for day in 0..40 {
        for hour in [1, 9, 17] {
            decide(&rig, "battery", day * DAY + hour * 3600);
        }
    }
    decide(&rig, "pv", 7);
    rig.store.flush().await.unwrap();
    let oldest = async |rig: &Rig, name: &str| {
        let rows = rig.store.decisions(device(name), at(0), at(99 * DAY), 500).await.unwrap();
        (rows.len(), (rows[0].at.ms() - T0) / 1000)
    };
    assert_eq!(oldest(&rig, "battery").await, (120, 3600));
    // The file's own look at what is old comes with its first turn after the start.
    rig.clock.advance(Duration::from_secs(40 * 24 * 3600));
    let rig = rig.reopen().await;
    rig.store.status().wait_for(|status| status.turns > 0).await.unwrap();
    let cutoff = 10 * DAY;
    let (count, first) = oldest(&rig, "battery").await;
    // T0 lies at 08:00 UTC: the day of the last one before the cutoff begins 16 hours before it.
    assert!(first <= cutoff && first > cutoff - DAY && count <= 93, "{count} from {first}");
    assert_eq!(in_force(&rig, "battery", cutoff).await, Some(9 * DAY + 17 * 3600));
    assert_eq!(in_force(&rig, "pv", 35 * DAY).await, Some(7), "the newest of a device stays for ever");
    rig.stop().await;
}

#[tokio::test]
async fn what_is_too_much_is_thinned_out_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &[]));
    // One a second for 40 minutes, with a commit each minute.
    for second in 0..2400 {
        decide(&rig, "battery", second);
        if second % 60 == 59 {
            rig.store.flush().await.unwrap();
        }
    }
    let kept = rig.store.decisions(device("battery"), at(0), at(DAY), 9999).await.unwrap().len();
    assert_eq!(kept, 1000 + (2400 - 1020) / 60, "a thousand to the second 999, then one a minute");
    assert_eq!(in_force(&rig, "battery", 2399).await, Some(2399), "the newest is there in any case");
    // After a restart the day goes on where it stood.
    let rig = rig.reopen().await;
    for second in 2400..2460 {
        decide(&rig, "battery", second);
    }
    assert_eq!(rig.store.decisions(device("battery"), at(2400), at(DAY), 9999).await.unwrap().len(), 1);
    // Another device, another day: not concerned. A text that is no decision: refused.
    decide(&rig, "pv", 0);
    decide(&rig, "battery", DAY);
    rig.store.decided(device("pv"), at(1), ClockState::Synced, "x".repeat(12 * 1024 + 1)).unwrap();
    assert_eq!(rig.store.decisions(device("pv"), at(0), at(DAY), 9).await.unwrap().len(), 1);
    rig.clock.advance(Duration::from_secs(2));
    rig.store.flush().await.unwrap();
    let mut status = rig.store.status();
    let seen = status.wait_for(|status| status.dropped_decisions >= 60).await.unwrap().dropped_decisions;
    assert_eq!(seen, 59 + 1);
    rig.stop().await;
}

#[tokio::test]
async fn a_damaged_row_is_dropped_and_the_one_before_it_answered() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &[]));
    for seconds in [10, 20, 30, DAY, DAY + 10] {
        decide(&rig, "battery", seconds);
    }
    let settings = rig.stop().await;
    let conn = Connection::open_with_flags(&settings.path, OpenFlags::default()).unwrap();
    let harm = "UPDATE decisions SET data = zeroblob(length(data)) WHERE id % (1 << 44) = ?1";
    for harmed in [30, DAY] {
        assert_eq!(conn.execute(harm, [at(harmed).ms()]).unwrap(), 1);
    }
    drop(conn);
    let rig = Rig::open(settings);
    // What was packed against a damaged one is lost with it.
    assert_eq!(in_force(&rig, "battery", DAY + 20).await, Some(20));
    decide(&rig, "battery", DAY + 30);
    let rig = rig.reopen().await;
    assert_eq!(in_force(&rig, "battery", DAY + 40).await, Some(DAY + 30));
    rig.stop().await;
}

#[tokio::test]
async fn for_want_of_room_the_oldest_go_after_telemetry() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("derd.db");
    let mut conn = file::open(&path, at(0)).unwrap().conn;
    let mut journal = Decisions::default();
    for n in 0..2000 {
        let decision = Decision {
            device: device(["battery", "pv"][usize::try_from(n % 2).unwrap()]),
            at: at(n * 300),
            clock: ClockState::Synced,
            json: text(n),
        };
        journal.take(&conn, decision);
        if n % 100 == 99 {
            let tx = conn.transaction().unwrap();
            let disk = journal.write(&tx).unwrap();
            tx.commit().unwrap();
            journal.wrote(disk);
        }
    }
    let count =
        |conn: &Connection| conn.query_row("SELECT count(*) FROM decisions", [], |r| r.get::<_, i64>(0)).unwrap();
    let bytes = |conn: &Connection| super::super::sql::number(conn, "decision_bytes").unwrap();
    let (all, full) = (count(&conn), bytes(&conn));
    assert_eq!(all, 2000);
    assert!(full < 2000 * 160, "{full} bytes");
    let mut steps = 0;
    while journal.delete_oldest(&conn).unwrap() {
        steps += 1;
        assert!(steps < 50);
    }
    // The last day of each is left: it is packed against its first.
    assert!(steps > 4 && count(&conn) < 400, "{steps} steps, {} left", count(&conn));
    assert!(bytes(&conn) < full / 4);
    for (name, last) in [("battery", 1998), ("pv", 1999)] {
        let row = journal.at(&conn, &device(name), at(DAY * 99)).unwrap().unwrap();
        assert_eq!(row.json, text(last));
    }
}

#[tokio::test]
async fn whether_derd_was_running() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &[]));
    let run = |rig: &Rig, seconds| rig.clock.advance(Duration::from_secs(seconds));
    let gap = async |rig: &Rig, seconds| {
        let gap = rig.store.not_running(at(seconds)).await.unwrap()?;
        let seconds = |at: Timestamp| (at.ms() - T0) / 1000;
        Some((gap.from.map(seconds), seconds(gap.to)))
    };
    // The first run: from 0 to an orderly end at 1000.
    run(&rig, 500);
    decide(&rig, "battery", 100);
    assert_eq!(gap(&rig, -5).await, Some((None, 0)), "before the very first mark");
    rig.store.flush().await.unwrap();
    assert_eq!((gap(&rig, -5).await, gap(&rig, 5).await), (Some((None, 0)), None));
    run(&rig, 500);
    let (settings, clock) = (rig.settings.clone(), rig.clock.clone());
    rig.stop().await;
    // Down until 2000; the second run ends by a power cut at 3000, its last mark stands at 2500.
    clock.advance(Duration::from_secs(1000));
    let rig = Rig::open_at(settings, clock);
    let at_1500 = Some((Some(1000), 2000));
    assert_eq!((gap(&rig, 1500).await, gap(&rig, 999).await, gap(&rig, 2000).await), (at_1500, None, None));
    run(&rig, 500);
    rig.store.flush().await.unwrap();
    decide(&rig, "battery", 2500);
    rig.store.flush().await.unwrap();
    assert_eq!(gap(&rig, 1500).await, at_1500, "marked");
    let row = rig.store.decision_at(device("battery"), at(1500)).await.unwrap().unwrap();
    assert_eq!((row.at, row.was_running), (at(100), false));
    assert!(rig.store.decision_at(device("battery"), at(800)).await.unwrap().unwrap().was_running);
    run(&rig, 500);
    let to = folder_for_cut(&rig);
    let (settings, clock) = (rig.settings.clone(), rig.clock.clone());
    copy(&settings.path, &to.join("derd.db"));
    rig.stop().await;
    // After the cut the clock is wrong at first: the start is told by what it says once it is right.
    clock.step(at(2600), false);
    let rig = Rig::open_at(StoreSettings { path: to.join("derd.db"), ..settings }, clock);
    run(&rig, 60);
    rig.store.flush().await.unwrap();
    rig.clock.step(at(4060), true);
    decide(&rig, "battery", 4060);
    rig.store.flush().await.unwrap();
    let cut = Some((Some(2500), 4000));
    assert_eq!((gap(&rig, 2700).await, gap(&rig, 3999).await, gap(&rig, 4010).await), (cut, cut, None));
    assert_eq!((gap(&rig, 1500).await, gap(&rig, 2400).await), (at_1500, None));
    rig.stop().await;
}

#[tokio::test]
async fn a_command_is_a_sign_of_life() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &[]));
    rig.clock.advance(Duration::from_secs(100));
    let id: crate::model::CommandId = "c1".parse().unwrap();
    let result = CommandResult::new(
        UplinkName::local(),
        Some(device("battery")),
        Some(id.clone()),
        CommandState::Accepted,
        at(100),
    );
    let command = NewCommand {
        uplink: UplinkName::local(),
        device: Some(device("battery")),
        id,
        body: b"x".to_vec(),
        result,
        ends_at: at(900),
        accepted_at: at(100),
    };
    rig.store.admit(command).await.unwrap();
    rig.clock.advance(Duration::from_secs(50));
    let to = folder_for_cut(&rig);
    let rig = rig.cut(&to).await;
    let gap = rig.store.not_running(at(101)).await.unwrap();
    assert_eq!(gap, Some(Gap { from: Some(at(100)), to: at(150) }));
    assert_eq!(rig.store.not_running(at(99)).await.unwrap(), None);
    rig.stop().await;
}

/// A database as the release before the journal left it.
#[tokio::test]
async fn a_database_of_version_1_opens_and_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), &["mqtt"]);
    {
        let conn = Connection::open_with_flags(&settings.path, OpenFlags::default()).unwrap();
        conn.execute_batch("PRAGMA page_size = 1024; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;")
            .unwrap();
        conn.execute_batch(include_str!("../migrations/001.sql")).unwrap();
        conn.execute_batch("PRAGMA user_version = 1;").unwrap();
        let values = format!(
            "INSERT INTO meta VALUES ('gateway', 'g1'), ('last_wall_ms', '{0}'), ('last_row', '1'), ('rows', '1');
             INSERT INTO plans VALUES ('p', '{{}}', 'local', 1, 0);
             INSERT INTO baselines VALUES ('pv', '{{\"limit\":100}}');
             INSERT INTO events VALUES (1, {0}, 'info', NULL, 'started', 'It starts.', 'raised');
             INSERT INTO cursors VALUES ('mqtt', x'');",
            at(-600).ms()
        );
        conn.execute_batch(&values).unwrap();
        let one = sample("pv", 0, 5.0);
        let stored = crate::model::Stored { row: RowNo(1), sample: Arc::new(one) };
        let chunk = "INSERT INTO chunks VALUES (1, 1, 'pv', 'b007', ?1, ?1, 0, 0, 1, ?2)";
        conn.execute(chunk, rusqlite::params![at(0).ms(), blob::encode(&[&stored])]).unwrap();
    }
    let rig = Rig::open(settings);
    assert_eq!(names_of_aside(folder.path()), [""; 0], "{:?}", rig.store.events(9).await);
    let store = &rig.store;
    assert_eq!(store.meta("gateway").await, Ok(Some("g1".into())));
    assert_eq!(store.plans().await.unwrap().len(), 1);
    assert_eq!(store.baselines().await.unwrap().len(), 1);
    assert_eq!(store.events(9).await.unwrap()[0].1.code, "started");
    let query = HistoryQuery { device: device("pv"), points: vec![], from: at(-1), to: at(1), step: None, limit: 9 };
    assert_eq!(store.history(query).await.unwrap().len(), 3);
    // The old release's last commit is taken for its end.
    decide(&rig, "pv", 10);
    let rig = rig.reopen().await;
    assert_eq!(in_force(&rig, "pv", 20).await, Some(10));
    let gap = rig.store.not_running(at(-300)).await.unwrap();
    assert_eq!(gap, Some(Gap { from: Some(at(-600)), to: at(0) }));
    rig.stop().await;
}

#[tokio::test]
async fn decisions_are_saved_from_a_damaged_file() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &["mqtt"]));
    decide(&rig, "battery", 10);
    rig.store.flush().await.unwrap();
    for seq in 0..300 {
        rig.offer("pv", seq, 1.0);
        if seq % 10 == 0 {
            rig.store.flush().await.unwrap();
        }
    }
    let settings = rig.stop().await;
    let all = std::fs::read(&settings.path).unwrap();
    // The end of the file holds telemetry.
    std::fs::write(&settings.path, &all[..all.len() - 1024]).unwrap();
    let rig = Rig::open(settings);
    assert_eq!(names_of_aside(folder.path()).len(), 1);
    assert_eq!(in_force(&rig, "battery", 20).await, Some(10));
    rig.stop().await;
}

fn names_of_aside(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains("damaged")).collect()
}
