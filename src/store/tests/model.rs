//! Random operations against a simple model, with restarts and power cuts.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone)]
enum Op {
    Offer {
        device: usize,
        n: u8,
    },
    /// A row number that never reaches the store.
    Miss,
    /// Acknowledge some of what is unacknowledged: from this part of it on, so many.
    Ack {
        uplink: usize,
        from: prop::sample::Index,
        n: u8,
    },
    /// Decide for a device, so many seconds later than the last.
    Decide {
        device: usize,
        after: u8,
    },
    Flush,
    Restart,
    Cut,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..3_usize, 1..6_u8).prop_map(|(device, n)| Op::Offer { device, n }),
        1 => Just(Op::Miss),
        4 => (0..2_usize, any::<prop::sample::Index>(), 1..9_u8).prop_map(|(uplink, from, n)| Op::Ack { uplink, from, n }),
        4 => (0..3_usize, 0..200_u8).prop_map(|(device, after)| Op::Decide { device, after }),
        3 => Just(Op::Flush),
        1 => Just(Op::Restart),
        1 => Just(Op::Cut),
    ]
}

const UPLINKS: [&str; 2] = ["mqtt", "cloud"];

#[derive(Debug, Default, Clone)]
struct Model {
    samples: BTreeMap<u64, Sample>,
    acked: [BTreeSet<u64>; 2],
    /// Device, second, text.
    decided: Vec<(usize, i64, String)>,
}

impl Model {
    fn unacked(&self, uplink: usize) -> Vec<u64> {
        self.samples.keys().copied().filter(|row| !self.acked[uplink].contains(row)).collect()
    }
}

const DEVICES: [&str; 3] = ["pv", "battery", "grid"];

async fn check(rig: &Rig, model: &Model) {
    for (i, name) in DEVICES.iter().enumerate() {
        let all: Vec<_> = model.decided.iter().filter(|(device, ..)| *device == i).collect();
        let end = at(1_000_000);
        let found = rig.store.decisions(device(name), at(0), end, 1000).await.unwrap();
        assert!(
            found
                .iter()
                .map(|row| (row.at, row.json.as_str()))
                .eq(all.iter().map(|(_, s, text)| (at(*s), text.as_str()))),
            "decisions of {name}"
        );
        // Just before the middle one, the one before it is in force.
        let wanted = (all.len() / 2).checked_sub(1).map(|before| (at(all[before].1), all[before].2.clone()));
        let asked = all.get(all.len() / 2).map_or(at(-1), |(_, s, _)| Timestamp::from_ms(at(*s).ms() - 1));
        let in_force = rig.store.decision_at(device(name), asked).await.unwrap();
        assert_eq!(in_force.map(|row| (row.at, row.json)), wanted.filter(|_| !all.is_empty()), "in force for {name}");
    }
    for (i, name) in UPLINKS.iter().enumerate() {
        let wanted = model.unacked(i);
        assert_eq!(rig.rows(name).await, wanted, "backlog of {name}");
        let (size, oldest) = rig.store.backlog_size(uplink(name)).await.unwrap();
        assert_eq!(size, u64::try_from(wanted.len()).unwrap(), "backlog size of {name}");
        assert_eq!(oldest.is_some(), !wanted.is_empty());
        // In pages, below a limit.
        let below = RowNo(wanted.get(wanted.len() / 2).copied().unwrap_or(5));
        let page = rig.store.backlog(uplink(name), below, 3).await.unwrap();
        let mut wanted = wanted.into_iter().filter(|row| *row < below.0);
        for stored in &page.samples {
            assert_eq!(Some(stored.row.0), wanted.next());
            assert_eq!(*stored.sample, model.samples[&stored.row.0]);
        }
        assert_eq!(page.is_last, wanted.next().is_none());
    }
}

async fn run(ops: Vec<Op>) {
    let folder = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(settings(folder.path(), &UPLINKS));
    let (mut model, mut disk) = (Model::default(), Model::default());
    let mut next_row = 1;
    let mut cuts = 0;
    let mut seq = 0;
    let mut second = 0;
    for op in ops {
        match op {
            Op::Offer { device, n } => {
                for _ in 0..n {
                    seq += 1;
                    let sample = sample(DEVICES[device], seq, f64::from(n) + 0.5);
                    rig.store.offer(Arc::new(sample.clone()));
                    model.samples.insert(next_row, sample);
                    next_row += 1;
                }
            }
            Op::Miss => {
                rig.store.next_row.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                next_row += 1;
            }
            Op::Ack { uplink: i, from, n } => {
                let unacked = model.unacked(i);
                if !unacked.is_empty() {
                    let from = from.index(unacked.len());
                    let rows: Vec<u64> = unacked[from..].iter().copied().take(usize::from(n)).collect();
                    model.acked[i].extend(&rows);
                    rig.store.acked(uplink(UPLINKS[i]), rows.into_iter().map(RowNo).collect()).await.unwrap();
                }
            }
            Op::Decide { device: i, after } => {
                // A time later by nothing is the next millisecond's: two of one time are told apart elsewhere.
                second += i64::from(after) + 1;
                let text = format!("{{\"device\":\"{}\",\"sentence\":\"It does {after} at {second}.\"}}", DEVICES[i]);
                rig.store.decided(device(DEVICES[i]), at(second), ClockState::Synced, text.clone()).unwrap();
                model.decided.push((i, second, text));
            }
            Op::Flush => {
                rig.store.flush().await.unwrap();
                disk = model.clone();
            }
            Op::Restart => {
                rig = rig.reopen().await;
                disk = model.clone();
                next_row = disk.samples.last_key_value().map_or(1, |(row, _)| row + 1);
            }
            Op::Cut => {
                let to = folder.path().join(cuts.to_string());
                cuts += 1;
                std::fs::create_dir(&to).unwrap();
                rig = rig.cut(&to).await;
                model = disk.clone();
                next_row = disk.samples.last_key_value().map_or(1, |(row, _)| row + 1);
            }
        }
        check(&rig, &model).await;
    }
    rig.stop().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_its_model(ops in proptest::collection::vec(op(), 1..40)) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(ops));
    }
}
