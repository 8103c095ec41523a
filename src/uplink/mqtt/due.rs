//! Which samples an uplink gets: one per device and interval.

use super::Cadence;
use crate::model::{DeviceId, RowNo, Stored};
use std::collections::HashMap;

/// The first sample of a device in each interval is due, the others are not. Live samples and the backlog have a rule
/// each; as both go through the samples of a device in order, they choose the same ones.
#[derive(Debug)]
pub(super) struct DueRule {
    cadence: Cadence,
    /// The last sample that was found due: its interval and row.
    last: HashMap<DeviceId, (i64, RowNo)>,
}

impl DueRule {
    pub(super) fn new(cadence: Cadence) -> Self {
        Self { cadence, last: HashMap::new() }
    }

    /// Is this sample due. A sample found due stays so when it is asked about again (it may have to be sent again), and
    /// one that is not due has another of its interval before it: so no interval is ever lost.
    pub(super) fn is_due(&mut self, stored: &Stored) -> bool {
        let Cadence::Every(every) = self.cadence else { return true };
        let Ok(every) = i64::try_from(every.as_millis()) else { return true };
        if every == 0 {
            return true;
        }
        let interval = stored.sample.ts.ms().div_euclid(every);
        match self.last.get_mut(&stored.sample.device) {
            Some((last, row)) if *last == interval && stored.row > *row => false,
            Some(last) => {
                *last = (interval, stored.row);
                true
            }
            None => {
                self.last.insert(stored.sample.device.clone(), (interval, stored.row));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::stored;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::time::Duration;

    #[test]
    fn the_first_of_each_interval_is_due() {
        let mut rule = DueRule::new(Cadence::Every(Duration::from_secs(10)));
        let due: Vec<u64> = (0..35).filter(|n| rule.is_due(&stored(*n, "pv", n * 1000 + 4500))).collect();
        assert_eq!(due, [0, 6, 16, 26], "4.5 s, then 10.5 s, 20.5 s, 30.5 s");
        assert!(rule.is_due(&stored(35, "battery", 39_600)), "each device has its own");
        assert!(rule.is_due(&stored(26, "pv", 30_500)), "asked again");
    }

    #[test]
    fn every_poll_is_due() {
        let mut rule = DueRule::new(Cadence::Poll);
        assert!((0..5).all(|n| rule.is_due(&stored(n, "pv", 0))));
    }

    proptest! {
        /// Whatever was asked about twice, and however the clock jumped: each interval with samples has one that is due.
        #[test]
        fn no_interval_is_lost(
            steps in proptest::collection::vec((-5000i64..8000, 0usize..4), 1..60),
        ) {
            let mut rule = DueRule::new(Cadence::Every(Duration::from_secs(10)));
            let mut ms = 1_000_000i64;
            let mut samples = Vec::new();
            let mut sent = BTreeSet::new();
            let mut dropped = BTreeSet::new();
            for (row, (step, back)) in (0u64..).zip(&steps) {
                ms += step;
                samples.push((row, u64::try_from(ms).unwrap()));
                // Ask again about what was due and may have failed, then about the new one.
                let first = samples.len().saturating_sub(1 + back);
                for (row, at) in &samples[first..] {
                    if dropped.contains(row) {
                        continue;
                    }
                    if rule.is_due(&stored(*row, "pv", *at)) {
                        sent.insert(*row);
                    } else {
                        prop_assert!(!sent.contains(row), "row {row} was due before");
                        dropped.insert(*row);
                    }
                }
            }
            let interval = |row: &u64| samples.iter().find(|(r, _)| r == row).map(|(_, at)| at / 10_000);
            for (row, at) in &samples {
                prop_assert!(sent.iter().any(|s| interval(s) == Some(at / 10_000)), "row {row}");
            }
        }
    }
}
