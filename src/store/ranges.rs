//! Sets of row numbers as ranges: what an uplink's cursor is made of. Pure.

use super::varint;

/// A set of numbers, kept as sorted ranges that neither overlap nor touch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RangeSet(Vec<(u64, u64)>);

impl RangeSet {
    /// All numbers from 0 to `last`, both included.
    pub(crate) fn up_to(last: u64) -> Self {
        Self(vec![(0, last)])
    }

    /// The first range that ends at or behind `n`.
    fn place(&self, n: u64) -> usize {
        self.0.partition_point(|&(_, end)| end < n)
    }

    /// Is `n` in the set.
    pub(crate) fn contains(&self, n: u64) -> bool {
        self.0.get(self.place(n)).is_some_and(|&(start, _)| start <= n)
    }

    /// Put the numbers from `first` to `last`, both included, into the set; nothing when they are the wrong way round.
    pub(crate) fn insert(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        let from = self.place(first.saturating_sub(1));
        let to = from + self.0[from..].partition_point(|&(start, _)| start <= last.saturating_add(1));
        let (mut start, mut end) = (first, last);
        if let (Some(&(a, _)), Some(&(_, b))) = (self.0[from..to].first(), self.0[from..to].last()) {
            start = start.min(a);
            end = end.max(b);
        }
        self.0.splice(from..to, [(start, end)]);
    }

    /// Take one number out of the set.
    pub(crate) fn remove(&mut self, n: u64) {
        let at = self.place(n);
        let Some(&(start, end)) = self.0.get(at).filter(|&&(start, _)| start <= n) else { return };
        let left = (start < n).then(|| (start, n - 1));
        let right = (n < end).then(|| (n + 1, end));
        self.0.splice(at..=at, left.into_iter().chain(right));
    }

    /// The smallest number from `n` on that is not in the set.
    pub(crate) fn next_missing(&self, n: u64) -> u64 {
        match self.0.get(self.place(n)) {
            Some(&(start, end)) if start <= n => end.saturating_add(1),
            _ => n,
        }
    }

    /// How many of the numbers from `first` to `last`, both included, are not in the set.
    pub(crate) fn count_missing(&self, first: u64, last: u64) -> u64 {
        if first > last {
            return 0;
        }
        let held: u64 = self.0[self.place(first)..]
            .iter()
            .take_while(|&&(start, _)| start <= last)
            .map(|&(start, end)| end.min(last) - start.max(first) + 1)
            .sum();
        (last - first).saturating_add(1).saturating_sub(held)
    }

    /// Are all numbers from `first` to `last`, both included, in the set.
    pub(crate) fn covers(&self, first: u64, last: u64) -> bool {
        self.next_missing(first) > last
    }

    /// The part of the set that is not above `last`.
    pub(crate) fn clipped(&self, last: u64) -> Self {
        Self(
            self.0
                .iter()
                .take_while(|&&(start, _)| start <= last)
                .map(|&(start, end)| (start, end.min(last)))
                .collect(),
        )
    }

    /// All below this number are in the set, counted from 0: one above the contiguous `acked_to`.
    pub(crate) fn contiguous(&self) -> u64 {
        self.next_missing(0)
    }

    /// As bytes for the disk.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut at = 0;
        for &(start, end) in &self.0 {
            varint::put(&mut out, start - at);
            varint::put(&mut out, end - start);
            at = end;
        }
        out
    }

    /// Back from [`RangeSet::to_bytes`]; `None` when the bytes are not such.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut input = varint::Input::new(bytes);
        let mut set = Self::default();
        let mut at = 0_u64;
        while !input.is_empty() {
            let start = at.checked_add(input.number()?)?;
            at = start.checked_add(input.number()?)?;
            set.insert(start, at);
        }
        Some(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[derive(Debug, Clone)]
    enum Op {
        Insert(u64, u64),
        Remove(u64),
        Clip(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (0..64_u64, 0..8_u64).prop_map(|(a, n)| Op::Insert(a, a + n)),
            2 => (0..72_u64).prop_map(Op::Remove),
            1 => (30..72_u64).prop_map(Op::Clip),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(ops in proptest::collection::vec(op(), 0..40)) {
            let (mut set, mut model) = (RangeSet::default(), BTreeSet::new());
            for op in ops {
                match op {
                    Op::Insert(a, b) => { set.insert(a, b); model.extend(a..=b); }
                    Op::Remove(n) => { set.remove(n); model.remove(&n); }
                    Op::Clip(n) => { set = set.clipped(n); model.retain(|&m| m <= n); }
                }
                for n in 0..80 {
                    prop_assert_eq!(set.contains(n), model.contains(&n));
                    prop_assert_eq!(set.next_missing(n), (n..).find(|m| !model.contains(m)).unwrap());
                    let missing = (n..=n + 9).filter(|m| !model.contains(m)).count();
                    prop_assert_eq!(set.count_missing(n, n + 9), u64::try_from(missing).unwrap());
                    prop_assert_eq!(set.covers(n, n + 9), missing == 0);
                }
                prop_assert!(set.0.windows(2).all(|w| w[0].1 + 1 < w[1].0), "ranges touch: {:?}", set);
            }
            prop_assert_eq!(RangeSet::from_bytes(&set.to_bytes()), Some(set));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _any = RangeSet::from_bytes(&bytes);
        }
    }

    #[test]
    fn the_ends_of_the_scale() {
        let mut set = RangeSet::default();
        set.insert(u64::MAX, u64::MAX);
        set.insert(0, 0);
        assert_eq!(set.contiguous(), 1);
        set.insert(1, u64::MAX - 1);
        assert_eq!(set, RangeSet::up_to(u64::MAX));
        assert_eq!(RangeSet::from_bytes(&set.to_bytes()), Some(set));
    }
}
