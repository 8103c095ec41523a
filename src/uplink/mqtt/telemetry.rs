//! Which samples go out when, and which are done: live ones first, the backlog behind them. Pure.

use super::Cadence;
use super::due::DueRule;
use crate::model::{DeviceId, RowNo, Stored};
use crate::store::BacklogPage;
use crate::wire::sample_json;
use std::collections::{BTreeSet, HashMap, VecDeque};

/// Samples read from the store at a time: at 1 KB each half a megabyte, and some milliseconds of the store's time.
const PAGE: usize = 500;
/// Samples of refused topics that are stepped over when reading the backlog. With more the backfill waits until the topics
/// are tried again; live samples go on.
const MOST_HELD: usize = 4000;

/// Some samples of one device on their way as one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) device: DeviceId,
    pub(super) rows: Vec<RowNo>,
    /// A JSON array.
    pub(super) payload: Vec<u8>,
}

/// Where a new sample may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Out.
    Now,
    /// Into the backlog.
    Later,
    /// Into the backlog, and not out of it yet: the broker refuses both topics of the device.
    Held,
}

/// The state of all telemetry of one uplink.
#[derive(Debug)]
pub(super) struct Telemetry {
    live_rule: DueRule,
    backlog_rule: DueRule,
    /// Rows below came before this connection: they are backlog.
    first_live: RowNo,
    /// Rows below were seen: what is not done of them can be asked of the store.
    seen_below: RowNo,
    /// Handed on, not yet answered by the broker.
    under_way: BTreeSet<RowNo>,
    /// Refused by the broker: they stay in the backlog until their topics are tried again.
    held: HashMap<DeviceId, BTreeSet<RowNo>>,
    /// Done, to be told to the store.
    done: Vec<RowNo>,
    /// To be sent.
    batches: VecDeque<Batch>,
    /// The store may have samples that nobody has looked at.
    wants_page: bool,
}

impl Telemetry {
    pub(super) fn new(cadence: Cadence) -> Self {
        Self {
            live_rule: DueRule::new(cadence),
            backlog_rule: DueRule::new(cadence),
            first_live: RowNo(0),
            seen_below: RowNo(0),
            under_way: BTreeSet::new(),
            held: HashMap::new(),
            done: Vec::new(),
            batches: VecDeque::new(),
            wants_page: false,
        }
    }

    /// A connection stands; samples from `first_live` on will be shown to [`Self::live`].
    pub(super) fn connected(&mut self, first_live: RowNo) {
        self.disconnected();
        self.first_live = first_live;
        self.seen_below = self.seen_below.max(first_live);
        self.wants_page = true;
    }

    /// The connection is gone: whatever was under way is backlog again.
    pub(super) fn disconnected(&mut self) {
        self.under_way.clear();
        self.batches.clear();
        self.held.clear();
    }

    /// A sample while there is no connection: it only counts for what is due later.
    pub(super) fn missed(&mut self, stored: &Stored) {
        self.live_rule.is_due(stored);
    }

    /// Samples passed by unseen.
    pub(super) fn lagged(&mut self) {
        self.wants_page = true;
    }

    /// A new sample. `true`: send it now; then its row is under way.
    pub(super) fn live(&mut self, stored: &Stored, room: Room) -> bool {
        self.seen_below = self.seen_below.max(RowNo(stored.row.0.saturating_add(1)));
        let is_due = self.live_rule.is_due(stored);
        if stored.row < self.first_live || self.under_way.contains(&stored.row) {
            return false;
        }
        match room {
            _ if !is_due => self.done.push(stored.row),
            Room::Now => {
                self.under_way.insert(stored.row);
                return true;
            }
            Room::Later => self.wants_page = true,
            Room::Held => self.hold(&stored.sample.device, stored.row),
        }
        false
    }

    /// What to ask the store for, if anything: below which row, and how many samples. The answer goes to [`Self::page`],
    /// before the store is told of anything that is done from now on.
    pub(super) fn ask(&mut self) -> Option<(RowNo, usize)> {
        if !self.wants_page || !self.batches.is_empty() {
            return None;
        }
        self.wants_page = false;
        Some((self.seen_below, PAGE + self.under_way.len() + self.held_count().min(MOST_HELD)))
    }

    /// The store could not answer: ask again.
    pub(super) fn ask_again(&mut self) {
        self.wants_page = true;
    }

    /// The store's answer becomes batches of at most `max_bytes` each, oldest first. Devices whose topic `rests` are stepped
    /// over. Returns devices with a sample larger than a message may be.
    pub(super) fn page(
        &mut self,
        page: &BacklogPage,
        max_bytes: usize,
        rests: impl Fn(&DeviceId) -> bool,
    ) -> Vec<DeviceId> {
        let just_done: BTreeSet<RowNo> = self.done.iter().copied().collect();
        let mut open: HashMap<DeviceId, Batch> = HashMap::new();
        let mut closed = Vec::new();
        let mut too_large = Vec::new();
        let mut has_progress = false;
        for stored in &page.samples {
            let device = &stored.sample.device;
            let is_held = self.held.get(device).is_some_and(|rows| rows.contains(&stored.row));
            if is_held || self.under_way.contains(&stored.row) || just_done.contains(&stored.row) {
                continue;
            }
            has_progress = true;
            if !self.backlog_rule.is_due(stored) {
                self.done.push(stored.row);
                continue;
            }
            if rests(device) {
                self.hold(device, stored.row);
                continue;
            }
            let json = sample_json(&stored.sample).to_string().into_bytes();
            if json.len() + 2 > max_bytes {
                self.hold(device, stored.row);
                too_large.push(device.clone());
                continue;
            }
            if open.get(device).is_some_and(|batch| batch.payload.len() + json.len() + 2 > max_bytes) {
                closed.extend(open.remove(device));
            }
            let batch = open.entry(device.clone()).or_insert_with(|| Batch {
                device: device.clone(),
                rows: Vec::new(),
                payload: Vec::new(),
            });
            batch.payload.push(if batch.rows.is_empty() { b'[' } else { b',' });
            batch.payload.extend_from_slice(&json);
            batch.rows.push(stored.row);
            self.under_way.insert(stored.row);
        }
        closed.extend(open.into_values());
        closed.sort_by_key(|batch| batch.rows.first().copied());
        for batch in &mut closed {
            batch.payload.push(b']');
        }
        self.batches.extend(closed);
        // A page full of samples that are held or under way says nothing new: wait for one of those to move.
        self.wants_page |= !page.is_last && has_progress;
        too_large
    }

    /// The next batch to send: its rows are under way already.
    pub(super) fn next_batch(&mut self) -> Option<Batch> {
        self.batches.pop_front()
    }

    /// The broker has them.
    pub(super) fn delivered(&mut self, rows: &[RowNo]) {
        for row in rows {
            self.under_way.remove(row);
            self.done.push(*row);
        }
    }

    /// The broker refused them.
    pub(super) fn refused(&mut self, device: &DeviceId, rows: &[RowNo]) {
        for row in rows {
            self.under_way.remove(row);
            self.hold(device, *row);
        }
    }

    /// Nobody knows: they are backlog again.
    pub(super) fn lost(&mut self, rows: &[RowNo]) {
        for row in rows {
            self.under_way.remove(row);
        }
        self.wants_page = true;
    }

    /// The refused samples of a device may be tried again.
    pub(super) fn retry(&mut self, device: &DeviceId) {
        self.wants_page |= self.held.remove(device).is_some();
    }

    /// Rows to be told to the store.
    pub(super) fn take_done(&mut self) -> Vec<RowNo> {
        std::mem::take(&mut self.done)
    }

    pub(super) fn done_count(&self) -> usize {
        self.done.len()
    }

    pub(super) fn held_count(&self) -> usize {
        self.held.values().map(BTreeSet::len).sum()
    }

    /// Is there backlog to be looked at or sent.
    pub(super) fn has_backlog(&self) -> bool {
        self.wants_page || !self.batches.is_empty()
    }

    fn hold(&mut self, device: &DeviceId, row: RowNo) {
        self.held.entry(device.clone()).or_default().insert(row);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::stored;
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn rows(n: &[u64]) -> Vec<RowNo> {
        n.iter().map(|n| RowNo(*n)).collect()
    }

    fn page(samples: &[(u64, &str, u64)], is_last: bool) -> BacklogPage {
        BacklogPage { samples: samples.iter().map(|(row, device, ms)| stored(*row, device, *ms)).collect(), is_last }
    }

    fn batches(t: &mut Telemetry) -> Vec<(String, Vec<RowNo>)> {
        std::iter::from_fn(|| t.next_batch()).map(|b| (b.device.to_string(), b.rows)).collect()
    }

    #[test]
    fn live_samples_go_out_and_what_has_no_room_is_left() {
        let mut t = Telemetry::new(Cadence::Every(Duration::from_secs(10)));
        t.connected(RowNo(5));
        assert!(!t.live(&stored(4, "pv", 0), Room::Now), "before the connection");
        assert!(t.live(&stored(5, "pv", 10_000), Room::Now));
        assert!(!t.live(&stored(6, "pv", 11_000), Room::Now), "not due");
        assert!(!t.live(&stored(7, "pv", 20_000), Room::Later), "no room");
        assert_eq!(t.take_done(), rows(&[6]));
        assert_eq!(t.ask(), Some((RowNo(8), PAGE + 1)));
        assert_eq!(t.ask(), None, "asked once");
        let too_large = t.page(&page(&[(4, "pv", 0), (5, "pv", 10_000), (7, "pv", 20_000)], true), 65_536, |_| false);
        assert!(too_large.is_empty());
        assert_eq!(batches(&mut t), [("pv".to_owned(), rows(&[4, 7]))], "5 is under way");
        t.delivered(&rows(&[4, 5, 7]));
        assert_eq!(t.take_done(), rows(&[4, 5, 7]));
        assert!(!t.has_backlog());
    }

    #[test]
    fn refused_samples_are_stepped_over_and_kept() {
        let mut t = Telemetry::new(Cadence::Poll);
        t.connected(RowNo(3));
        assert!(t.ask().is_some());
        let full = page(&[(0, "pv", 0), (1, "grid", 0), (2, "pv", 1000)], true);
        t.page(&full, 65_536, |_| false);
        assert_eq!(batches(&mut t).len(), 2);
        t.refused(&"pv".parse().unwrap(), &rows(&[0, 2]));
        t.delivered(&rows(&[1]));
        assert_eq!((t.held_count(), t.take_done()), (2, rows(&[1])));
        assert_eq!(t.ask(), None, "nothing new");
        assert!(!t.live(&stored(3, "grid", 1000), Room::Later));
        t.ask();
        t.page(&page(&[(0, "pv", 0), (2, "pv", 1000), (3, "grid", 1000)], true), 65_536, |d| d.as_str() == "pv");
        assert_eq!(batches(&mut t), [("grid".to_owned(), rows(&[3]))]);
        t.retry(&"pv".parse().unwrap());
        assert!(t.ask().is_some());
        t.page(&page(&[(0, "pv", 0), (2, "pv", 1000)], true), 65_536, |_| false);
        assert_eq!(batches(&mut t), [("pv".to_owned(), rows(&[0, 2]))]);
    }

    #[test]
    fn a_lost_connection_makes_everything_backlog_again() {
        let mut t = Telemetry::new(Cadence::Every(Duration::from_secs(10)));
        t.connected(RowNo(0));
        assert!(t.live(&stored(0, "pv", 0), Room::Now));
        t.disconnected();
        t.missed(&stored(1, "pv", 1000));
        t.connected(RowNo(2));
        assert!(t.ask().is_some());
        t.page(&page(&[(0, "pv", 0), (1, "pv", 1000)], true), 65_536, |_| false);
        assert_eq!(batches(&mut t), [("pv".to_owned(), rows(&[0]))]);
        assert_eq!(t.take_done(), rows(&[1]));
        assert!(!t.live(&stored(2, "pv", 2000), Room::Now), "the same interval");
    }

    #[test]
    fn a_sample_larger_than_a_message_is_held() {
        let mut t = Telemetry::new(Cadence::Poll);
        t.connected(RowNo(1));
        t.ask();
        let too_large = t.page(&page(&[(0, "pv", 0)], true), 20, |_| false);
        assert_eq!((too_large.len(), t.held_count(), batches(&mut t).len()), (1, 1, 0));
        assert_eq!(t.ask(), None);
    }

    proptest! {
        /// Batches stay within the limit, are arrays of their device's samples in order, and hold every due row once.
        #[test]
        fn batches_are_whole(devices in proptest::collection::vec(0usize..3, 1..80), max in 150usize..2000) {
            let names = ["pv", "grid", "battery"];
            let mut t = Telemetry::new(Cadence::Poll);
            t.connected(RowNo(1000));
            t.ask();
            let samples: Vec<_> = (0u64..).zip(&devices).map(|(n, d)| (n, names[*d], n * 1000)).collect();
            let too_large = t.page(&page(&samples, true), max, |_| false);
            prop_assert!(too_large.is_empty());
            let mut seen = Vec::new();
            let mut firsts = Vec::new();
            while let Some(batch) = t.next_batch() {
                prop_assert!(batch.payload.len() <= max, "{} > {max}", batch.payload.len());
                let json: Vec<serde_json::Value> = serde_json::from_slice(&batch.payload).unwrap();
                let seqs: Vec<u64> = json.iter().map(|s| s["seq"].as_u64().unwrap()).collect();
                let rows: Vec<u64> = batch.rows.iter().map(|r| r.0).collect();
                prop_assert!(rows.is_sorted());
                prop_assert_eq!(&seqs, &rows, "the test's seq is its row");
                for row in &rows {
                    prop_assert_eq!(names[devices[usize::try_from(*row).unwrap()]], batch.device.as_str());
                }
                firsts.push(rows[0]);
                seen.extend(rows);
            }
            prop_assert!(firsts.is_sorted());
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..u64::try_from(devices.len()).unwrap()).collect::<Vec<_>>());
        }
    }
}
