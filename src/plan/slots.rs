//! Intervals between instants.

use super::Wanted;
use crate::model::{Action, Timestamp};
use std::collections::BTreeSet;

/// Disjoint intervals in order of time. Where one ends at the start of the next, their actions differ.
#[derive(Debug, Clone)]
pub(super) struct Slots(Vec<Wanted>);

impl Slots {
    /// From slots as listed, each with `start < end`. Where they overlap the later start wins; of equal starts the later
    /// listed.
    pub(super) fn new(listed: &[(Timestamp, Timestamp, Action)]) -> Self {
        // Every start (true) and end (false), in order of time.
        let mut edges: Vec<(Timestamp, bool, usize)> = Vec::with_capacity(listed.len() * 2);
        for (slot, (start, end, _)) in listed.iter().enumerate() {
            edges.push((*start, true, slot));
            edges.push((*end, false, slot));
        }
        edges.sort_unstable_by_key(|(at, ..)| *at);
        let mut active: BTreeSet<(Timestamp, usize)> = BTreeSet::new();
        let mut runs: Vec<Wanted> = Vec::new();
        let mut edges = edges.into_iter().peekable();
        while let Some((at, is_start, slot)) = edges.next() {
            let key = (listed[slot].0, slot);
            if is_start {
                active.insert(key);
            } else {
                active.remove(&key);
            }
            let Some((until, ..)) = edges.peek().copied() else { break };
            let Some((_, winner)) = active.last() else { continue };
            if until == at {
                continue;
            }
            let action = &listed[*winner].2;
            match runs.last_mut() {
                Some(last) if last.until == at && last.action == *action => last.until = until,
                _ => runs.push(Wanted { action: action.clone(), since: at, until }),
            }
        }
        Self(runs)
    }

    pub(super) fn at(&self, t: Timestamp) -> Option<Wanted> {
        self.0.get(self.first_open(t)).filter(|run| run.since <= t).cloned()
    }

    pub(super) fn next_change(&self, t: Timestamp) -> Option<Timestamp> {
        let run = self.0.get(self.first_open(t))?;
        Some(if run.since <= t { run.until } else { run.since })
    }

    /// The first run that has not ended at `t`.
    fn first_open(&self, t: Timestamp) -> usize {
        self.0.partition_point(|run| run.until <= t)
    }
}
