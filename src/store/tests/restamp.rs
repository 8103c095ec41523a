use super::*;
use crate::model::Stored;

/// A sample taken `mono` seconds after the start, with what the wall clock showed.
fn taken(boot: &str, seq: u64, mono: u64, wall: Timestamp, clock: ClockState) -> Arc<Sample> {
    let mut sample = sample("pv", seq, 1.0);
    sample.boot = BootId::new(boot).unwrap();
    (sample.mono, sample.ts, sample.clock) = (Mono::from_ms(mono * 1000), wall, clock);
    Arc::new(sample)
}

async fn stored(rig: &Rig) -> Vec<Stored> {
    rig.store.backlog(uplink("mqtt"), RowNo(u64::MAX), 10_000).await.unwrap().samples
}

/// Wait for the event that says that the work is done; its text.
async fn restamped(rig: &Rig) -> String {
    let mut status = rig.store.status();
    loop {
        let events = rig.store.events(10).await.unwrap();
        if let Some((_, event)) = events.iter().find(|(_, e)| e.code == "clock_restamped") {
            return event.text.clone();
        }
        status.changed().await.unwrap();
    }
}

const BOOT: &str = "00000000000000aa";
const EARLIER: &str = "00000000000000bb";

/// Seconds of wall time that the untrusted clock shows at monotonic time 0.
const WRONG: i64 = -40 * 24 * 3600;

#[tokio::test]
async fn what_was_taken_before_the_first_sync_gets_its_right_time() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(at(WRONG));
    clock.step(at(WRONG), false);
    let rig = Rig::open_at(settings(folder.path(), &["mqtt"]), clock);
    let untrusted = ClockState::Untrusted;
    // An earlier run had another monotonic clock: nothing is known of its times.
    rig.store.offer(taken(EARLIER, 0, 7, at(WRONG - 100), untrusted));
    rig.store.flush().await.unwrap();
    let rig = rig.reopen().await;
    for seq in 0..100 {
        rig.store.offer(taken(BOOT, seq, 10 * seq, at(WRONG + 10 * i64::try_from(seq).unwrap()), untrusted));
    }
    rig.store.flush().await.unwrap();
    // Some are on the disk, some not, when the clock is set 1,000 s after the start.
    rig.store.offer(taken(BOOT, 100, 995, at(WRONG + 995), untrusted));
    rig.store.flush().await.unwrap();
    rig.store.offer(taken(BOOT, 101, 998, at(WRONG + 998), untrusted));
    assert_eq!(stored(&rig).await.len(), 103);
    rig.clock.advance(Duration::from_secs(1000));
    rig.clock.step(at(5000), true);
    // This one was on its way.
    rig.store.offer(taken(BOOT, 102, 999, at(WRONG + 999), untrusted));
    rig.store.offer(taken(BOOT, 103, 1001, at(5001), ClockState::Synced));
    restamped(&rig).await;
    let check = |samples: Vec<Stored>| {
        assert_eq!(samples.len(), 105);
        for stored in samples {
            let s = &stored.sample;
            let seconds = i64::try_from(s.mono.ms() / 1000).unwrap();
            let (ts, clock) = match (s.boot.as_str(), s.seq) {
                (EARLIER, _) => (at(WRONG - 100), ClockState::Untrusted),
                (_, 103) => (at(5001), ClockState::Synced),
                _ => (at(4000 + seconds), ClockState::Holdover),
            };
            assert_eq!((s.ts, s.clock), (ts, clock), "boot {} seq {}", s.boot.as_str(), s.seq);
        }
    };
    check(stored(&rig).await);
    rig.store.flush().await.unwrap();
    let rig = rig.reopen().await;
    check(stored(&rig).await);
    // History finds them where they belong.
    let query = HistoryQuery {
        device: device("pv"),
        points: vec![Point::PowerW],
        from: at(4000),
        to: at(5002),
        step: None,
        limit: 10_000,
    };
    assert_eq!(rig.store.history(query).await.unwrap().len(), 104);
    rig.stop().await;
}

#[tokio::test]
async fn a_step_between_trusted_times_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &["mqtt"]));
    rig.store.offer(taken(BOOT, 0, 0, at(0), ClockState::Synced));
    rig.clock.step(at(WRONG), true);
    rig.store.offer(taken(BOOT, 1, 1, at(WRONG), ClockState::Holdover));
    rig.store.flush().await.unwrap();
    let times: Vec<_> = stored(&rig).await.iter().map(|s| s.sample.ts).collect();
    assert_eq!(times, [at(0), at(WRONG)]);
    rig.stop().await;
}

#[tokio::test]
async fn the_work_goes_on_after_a_power_cut() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &["mqtt"]));
    rig.clock.step(at(WRONG), false);
    rig.store.offer(taken(BOOT, 0, 3, at(WRONG), ClockState::Untrusted));
    rig.store.flush().await.unwrap();
    // What a run leaves that was cut off between two pieces.
    let row = stored(&rig).await[0].row.0;
    let words = format!("{BOOT} {} 10000 {row}", at(100).ms());
    rig.store.set_meta("restamp", &words).await.unwrap();
    let rig = rig.reopen().await;
    assert!(restamped(&rig).await.ends_with(": 1."));
    assert_eq!(stored(&rig).await[0].sample.ts, at(93));
    assert_eq!(rig.store.meta("restamp").await.unwrap().as_deref(), Some(""));
    rig.stop().await;
}
