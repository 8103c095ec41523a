//! Telemetry: history, retention, a full disk, what is written.

use super::*;
use crate::model::{StoreStatus, Stored};

fn query(name: &str, step: Option<u64>) -> HistoryQuery {
    HistoryQuery {
        device: device(name),
        points: vec![],
        from: at(0),
        to: at(1_000_000),
        step: step.map(Duration::from_secs),
        limit: 100_000,
    }
}

/// Waits until the store says so; the store's thread turns by itself at least each second.
async fn until(rig: &Rig, good: impl Fn(&StoreStatus) -> bool) -> StoreStatus {
    let mut status = rig.store.status();
    let seen = status.wait_for(|s| good(s)).await.unwrap();
    StoreStatus::clone(&seen)
}

#[tokio::test]
async fn history_from_disk_and_memory() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &[]));
    for seq in 0..100_u32 {
        rig.offer("pv", seq.into(), f64::from(seq));
        rig.offer("grid", seq.into(), -1.0);
        if seq % 7 == 0 {
            rig.store.flush().await.unwrap();
        }
    }
    let all = rig.store.history(query("pv", None)).await.unwrap();
    assert_eq!(all.len(), 300);
    assert!(all.windows(2).all(|w| w[0].ts <= w[1].ts));

    let power = HistoryQuery { points: vec![Point::PowerW], from: at(10), to: at(20), ..query("pv", None) };
    let found: Vec<f64> = rig
        .store
        .history(power.clone())
        .await
        .unwrap()
        .iter()
        .map(|r| r.value.as_ref().unwrap().num().unwrap())
        .collect();
    assert_eq!(found, (10..20).map(f64::from).collect::<Vec<_>>());
    let first = rig.store.history(HistoryQuery { limit: 3, ..power }).await.unwrap();
    assert_eq!(first.iter().map(|r| r.ts).collect::<Vec<_>>(), [at(10), at(11), at(12)]);

    let steps = rig.store.history(query("pv", Some(50))).await.unwrap();
    // T0 is a whole number of 50 s steps. Means of 0..50 and 50..100; last counter; last text.
    let wanted = |ts, power, counter| {
        [
            (ts, Point::PowerW, Value::Num(power)),
            (ts, Point::EnergyImportWh, Value::Num(counter)),
            (ts, Point::State, Value::Text("on".into())),
        ]
    };
    let found: Vec<_> = steps.into_iter().map(|r| (r.ts, r.point, r.value.unwrap())).collect();
    assert_eq!(found, [wanted(at(0), 24.5, 490.0), wanted(at(50), 74.5, 990.0)].concat());
    let few = rig.store.history(HistoryQuery { limit: 3, ..query("pv", Some(50)) }).await.unwrap();
    assert_eq!(few.len(), 3);
    assert!(few.iter().all(|r| r.ts == at(0)));
    assert!(rig.store.history(query("battery", None)).await.unwrap().is_empty());
    rig.stop().await;
}

#[tokio::test]
async fn a_long_history_is_read_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &[]));
    for seq in 0..200 {
        rig.offer("pv", seq, 1.0);
        rig.store.flush().await.unwrap();
    }
    let all = rig.store.history(query("pv", None));
    let meta = rig.store.meta("nothing");
    let (all, meta) = tokio::join!(all, meta);
    assert_eq!((all.unwrap().len(), meta), (600, Ok(None)));
    rig.stop().await;
}

#[tokio::test]
async fn a_null_stays_null_in_history() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &[]));
    let mut null = sample("pv", 0, 1.0);
    null.points = vec![(Point::PowerW, Err(crate::model::NullReason::Asleep))];
    rig.store.offer(Arc::new(null));
    for step in [None, Some(60)] {
        let found = rig.store.history(query("pv", step)).await.unwrap();
        assert_eq!(found, [HistoryRow { ts: at(0), point: Point::PowerW, value: None }]);
    }
    rig.stop().await;
}

#[tokio::test]
async fn age_deletes_only_what_every_uplink_has() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &["mqtt", "cloud"]));
    for seq in 0..20 {
        rig.offer("pv", seq, 1.0);
        rig.store.flush().await.unwrap();
    }
    rig.store.acked(uplink("mqtt"), (1..=20).map(RowNo).collect()).await.unwrap();
    rig.store.acked(uplink("cloud"), (1..=8).map(RowNo).collect()).await.unwrap();
    rig.clock.advance(Duration::from_secs(31 * 24 * 3600));
    until(&rig, |s| s.rows == 12).await;
    assert_eq!(rig.rows("cloud").await, (9..=20).collect::<Vec<_>>());
    // A removed uplink holds nothing back.
    let settings = StoreSettings { uplinks: vec![uplink("mqtt")], ..rig.stop().await };
    let rig = Rig::open_at(settings, Clock::manual(at(40 * 24 * 3600)));
    until(&rig, |s| s.rows == 0).await;
    // Nor are its rows given again, or taken for acknowledged.
    rig.offer("pv", 99, 1.0);
    rig.store.flush().await.unwrap();
    let rig = rig.reopen().await;
    assert_eq!(rig.rows("mqtt").await, [21]);
    rig.stop().await;
}

#[tokio::test]
async fn a_wrong_date_deletes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &[]));
    rig.offer("pv", 0, 1.0);
    rig.store.flush().await.unwrap();
    let kept = rig.store.meta(LAST_WALL_MS).await.unwrap();
    assert_eq!(kept, Some(T0.to_string()));
    rig.clock.advance(Duration::from_secs(3600));
    rig.clock.step(at(100 * 24 * 3600), false);
    rig.offer("pv", 1, 1.0);
    rig.store.flush().await.unwrap();
    until(&rig, |s| s.rows == 2).await;
    assert_eq!(rig.store.meta(LAST_WALL_MS).await.unwrap(), kept);
    rig.stop().await;
}

/// A sample of some 800 bytes that nothing packs.
fn bulky(seq: u64) -> Sample {
    let mut noise = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let points = (0..100)
        .map(|i| {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            (format!("x_{i}").parse().unwrap(), Ok(Value::Num(f64::from_bits(noise >> 2))))
        })
        .collect();
    Sample { points, ..sample("pv", seq, 0.0) }
}

#[tokio::test]
async fn the_size_has_a_cap_and_loss_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let settings = StoreSettings { max_bytes: 400 << 10, ..settings(folder.path(), &["mqtt"]) };
    let rig = Rig::open(settings);
    for seq in 0..400 {
        rig.store.offer(Arc::new(bulky(seq)));
        rig.store.flush().await.unwrap();
        // What a minute brings, then the look at the size.
        rig.clock.advance(Duration::from_secs(60));
    }
    let status = until(&rig, |s| s.dropped > 0).await;
    let left = rig.rows("mqtt").await;
    assert_eq!(left.last(), Some(&400));
    rig.clock.advance(Duration::from_secs(60));
    let status = until(&rig, |s| s.turns > status.turns + 1 && s.rows + s.dropped == 400).await;
    assert_eq!(rig.store.backlog_size(uplink("mqtt")).await.unwrap().0, status.rows);
    let file = std::fs::metadata(&rig.settings.path).unwrap().len();
    assert!(file < 400 << 10, "{file} bytes");
    let events = rig.store.events(10).await.unwrap();
    assert_eq!(events.iter().filter(|(_, e)| e.code == "store_full").count(), 1, "told once: {events:?}");
    rig.store.acked(uplink("mqtt"), left.into_iter().map(RowNo).collect()).await.unwrap();
    rig.clock.advance(Duration::from_secs(60));
    until(&rig, |s| s.turns > status.turns + 1).await;
    let (_, newest) = rig.store.events(1).await.unwrap().remove(0);
    assert_eq!((newest.code.as_str(), newest.state), ("store_full", crate::model::EventState::Cleared));
    rig.stop().await;
}

#[tokio::test]
async fn a_smaller_cap_gives_room_back() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &[]));
    for seq in 0..600 {
        rig.store.offer(Arc::new(bulky(seq)));
        if seq % 4 == 0 {
            rig.store.flush().await.unwrap();
        }
    }
    let settings = rig.stop().await;
    let before = std::fs::metadata(&settings.path).unwrap().len();
    assert!(before > 450 << 10, "{before} bytes");
    let rig = Rig::open(StoreSettings { max_bytes: 200 << 10, ..settings });
    for _ in 0..8 {
        let turns = rig.store.status().borrow().turns;
        rig.clock.advance(Duration::from_secs(60));
        // Any request makes the loop turn.
        rig.store.flush().await.unwrap();
        until(&rig, |s| s.turns > turns).await;
    }
    let settings = rig.stop().await;
    let after = std::fs::metadata(&settings.path).unwrap().len();
    assert!(after < 260 << 10, "{after} bytes");
}

#[tokio::test]
async fn what_is_written_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &[]));
    let before = rig.store.status().borrow().written_bytes_today;
    assert_eq!(before, 0, "an empty file is not counted");
    let log = file::with_suffix(&rig.settings.path, "-wal");
    let header = 32;
    let made = std::fs::metadata(&log).unwrap().len() - header;
    rig.store.set_meta("k", "v").await.unwrap();
    rig.offer("pv", 0, 1.0);
    rig.store.flush().await.unwrap();
    rig.clock.advance(Duration::from_secs(2));
    let status = until(&rig, |s| s.written_bytes_today > 0 && s.rows == 1).await;
    // Short of a checkpoint, what was written is what the log grew by.
    assert_eq!(status.written_bytes_today, std::fs::metadata(&log).unwrap().len() - header - made);
    rig.clock.advance(Duration::from_secs(24 * 3600));
    until(&rig, |s| s.written_bytes_today == 0).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_day_of_four_devices_spares_the_card() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &["mqtt"]));
    let minutes = 90_u32;
    for minute in 0..minutes {
        for second in 0..60_u32 {
            for (i, name) in ["pv", "battery", "charger", "grid"].iter().enumerate() {
                let seq = 60 * minute + second;
                let noise = |k: u32| f64::from((seq * 7919 + k * 104_729) % 211) / 10.0;
                let points = Point::ALL[..16]
                    .iter()
                    .zip(0_u32..)
                    .map(|(p, k)| (p.clone(), Ok(Value::Num(230.0 + noise(k + u32::try_from(i).unwrap())))))
                    .collect();
                rig.store.offer(Arc::new(Sample { points, ..sample(name, seq.into(), 0.0) }));
            }
            // No more in the queue than it holds.
            if second % 30 == 29 {
                rig.store.meta("").await.unwrap();
            }
        }
        let last = u64::from(minute + 1) * 240;
        rig.store.acked(uplink("mqtt"), (last - 239..=last).map(RowNo).collect()).await.unwrap();
        rig.store.flush().await.unwrap();
        rig.clock.advance(Duration::from_secs(60));
    }
    rig.store.set_meta("k", "v").await.unwrap();
    rig.clock.advance(Duration::from_secs(2));
    let status = until(&rig, |s| s.rows == u64::from(minutes) * 240).await;
    let a_day = status.written_bytes_today * 1440 / u64::from(minutes);
    println!("{} bytes written in {minutes} min, {a_day} a day", status.written_bytes_today);
    assert!(a_day < 30_000_000, "{a_day} bytes a day");
    rig.stop().await;
}

#[tokio::test]
async fn a_new_uplink_begins_at_the_present_end() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &["mqtt"]));
    rig.offer("pv", 0, 1.0);
    let settings = rig.stop().await;
    let rig = Rig::open(StoreSettings { uplinks: vec![uplink("mqtt"), uplink("cloud")], ..settings });
    rig.offer("pv", 1, 1.0);
    assert_eq!((rig.rows("mqtt").await, rig.rows("cloud").await), (vec![1, 2], vec![2]));
    assert_eq!(rig.store.backlog(uplink("nobody"), RowNo(9), 9).await.unwrap().samples, []);
    assert_eq!(rig.store.backlog_size(uplink("nobody")).await, Ok((0, None)));
    rig.stop().await;
}

#[tokio::test]
async fn live_values_come_with_their_rows() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &["mqtt"]));
    let mut live = rig.store.live();
    rig.offer("pv", 0, 1.0);
    rig.offer("pv", 1, 1.0);
    assert_eq!((live.recv().await.unwrap().row, live.recv().await.unwrap().row), (RowNo(1), RowNo(2)));
    rig.stop().await;
}

/// A worker without its thread.
fn worker(settings: StoreSettings) -> (thread::Worker, mpsc::Sender<handle::Ask>, watch::Receiver<StoreStatus>, Clock) {
    let clock = Clock::manual(at(0));
    let (tx, asks) = mpsc::channel(9);
    let (status, seen) = watch::channel(StoreStatus::default());
    let ends = thread::Ends { asks, dropped: Arc::new(AtomicU64::new(0)), outbox: watch::channel(0).0, status };
    (thread::Worker::new(settings, clock.clone(), ends).unwrap(), tx, seen, clock)
}

#[tokio::test]
async fn a_full_disk_loses_nothing_until_memory_is_full() {
    use crate::model::{Demand, Held};
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), &["mqtt"]);
    let (mut worker, _asks, status, clock) = worker(settings.clone());
    let pages = |worker: &thread::Worker, n: i64| {
        let set = worker.conn.query_row(&format!("PRAGMA max_page_count = {n}"), [], |row| row.get::<_, i64>(0));
        set.unwrap()
    };
    // SQLite sets no less than there is.
    pages(&worker, 1);
    let offer = |worker: &mut thread::Worker, rows: std::ops::Range<u64>| {
        for row in rows {
            worker.telemetry.take(Stored { row: RowNo(row), sample: Arc::new(bulky(row)) });
        }
    };
    offer(&mut worker, 1..200);
    let error = worker.commit().unwrap_err();
    assert_eq!(error.to_string(), "writing telemetry: database or disk is full");
    let held = Held { device: device("pv"), demand: Demand::Release, on_end: Demand::Release, since: at(0) };
    let big = Box::new((uplink("mqtt"), "p".to_owned(), serde_json::Value::from("x".repeat(9000))));
    worker.handle(handle::Ask::PlanAnswer(big));
    worker.handle(handle::Ask::Held(Box::new(held.clone())));
    let (reply, answer) = tokio::sync::oneshot::channel();
    let (id, body) = ("p".parse().unwrap(), "x".repeat(9000));
    worker.handle(handle::Ask::SavePlan(Box::new((id, body, UplinkName::local(), at(0))), reply));
    assert_eq!(answer.await.unwrap().unwrap_err().to_string(), "writing a plan down: database or disk is full");
    worker.turn();
    assert!(status.borrow().error.as_ref().unwrap().contains("database or disk is full"));
    assert_eq!((status.borrow().dropped, status.borrow().rows), (0, 199));
    // Memory holds 3,600; the oldest go.
    offer(&mut worker, 200..3611);
    clock.advance(Duration::from_secs(20));
    worker.turn();
    assert_eq!((status.borrow().dropped, status.borrow().rows), (10, 3600));
    assert!(status.borrow().error.is_some());

    pages(&worker, 1 << 30);
    clock.advance(Duration::from_secs(20));
    worker.turn();
    clock.advance(Duration::from_secs(20));
    worker.turn();
    assert_eq!((status.borrow().error.clone(), status.borrow().dropped), (None, 10));
    drop(worker);
    let rig = Rig::open(settings);
    assert_eq!(rig.rows("mqtt").await, (11..3611).collect::<Vec<_>>());
    assert_eq!(rig.store.held_all().await.unwrap(), [held]);
    let told: Vec<_> = rig.store.events(9).await.unwrap().into_iter().map(|(_, e)| (e.code, e.state)).collect();
    let code = || "store_failing".to_owned();
    assert_eq!(told, [(code(), crate::model::EventState::Cleared), (code(), crate::model::EventState::Raised)]);
    rig.stop().await;
}

#[tokio::test]
async fn a_file_that_goes_bad_while_open_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), &["mqtt"]);
    let (mut worker, _asks, status, _clock) = worker(settings.clone());
    let take = |worker: &mut thread::Worker, row| {
        worker.telemetry.take(Stored { row: RowNo(row), sample: Arc::new(bulky(row)) });
    };
    for row in 1..50 {
        take(&mut worker, row);
        worker.commit().unwrap();
    }
    // Pages of the table turn to nonsense, as on a dying card.
    worker.conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA shrink_memory;").unwrap();
    let all = std::fs::read(&settings.path).unwrap();
    let mut bad = all.clone();
    bad[2048..].fill(0x77);
    std::fs::write(&settings.path, bad).unwrap();
    take(&mut worker, 50);
    worker.commit().unwrap_err();
    worker.commit().unwrap();
    worker.turn();
    assert_eq!(status.borrow().error, None);
    drop(worker);
    let rig = Rig::open(settings);
    assert_eq!(rig.rows("mqtt").await, [50]);
    assert!(rig.store.events(9).await.unwrap().iter().any(|(_, e)| e.code == "store_damaged"));
    rig.stop().await;
}
