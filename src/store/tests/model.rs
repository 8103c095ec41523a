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
    Flush,
    Restart,
    Cut,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..3_usize, 1..6_u8).prop_map(|(device, n)| Op::Offer { device, n }),
        1 => Just(Op::Miss),
        4 => (0..2_usize, any::<prop::sample::Index>(), 1..9_u8).prop_map(|(uplink, from, n)| Op::Ack { uplink, from, n }),
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
}

impl Model {
    fn unacked(&self, uplink: usize) -> Vec<u64> {
        self.samples.keys().copied().filter(|row| !self.acked[uplink].contains(row)).collect()
    }
}

async fn check(rig: &Rig, model: &Model) {
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
    for op in ops {
        match op {
            Op::Offer { device, n } => {
                for _ in 0..n {
                    seq += 1;
                    let sample = sample(["pv", "battery", "grid"][device], seq, f64::from(n) + 0.5);
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
