//! Do two rules of one schedule hold at the same time: no cloud says which of them wins then.

use super::MINUTES_PER_DAY;
use crate::model::Timestamp;

const MINUTES_PER_WEEK: usize = 7 * MINUTES_PER_DAY;
/// Schedules of more rules are not looked through: telling is a courtesy.
const MAX_RULES: usize = 200;

/// When a rule holds. Days as bits, from any day of the week on; minutes of the day; an end not after the start lies on the
/// next day.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) days: u8,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) from: Option<Timestamp>,
    pub(crate) to: Option<Timestamp>,
}

/// A warning when two of `rules` can hold at the same time and want different things.
pub(crate) fn overlap_warning<T: PartialEq>(rules: &[(Times, T)]) -> Option<String> {
    first_overlap(rules).map(|(a, b)| {
        format!(
            "two rules hold at the same time (numbers {} and {} of those that can hold): the first listed wins",
            a + 1,
            b + 1
        )
    })
}

/// The first two of them.
pub(super) fn first_overlap<T: PartialEq>(rules: &[(Times, T)]) -> Option<(usize, usize)> {
    if rules.len() > MAX_RULES {
        return None;
    }
    (0..rules.len()).flat_map(|a| (a + 1..rules.len()).map(move |b| (a, b))).find(|(a, b)| {
        let ((a, wants_a), (b, wants_b)) = (&rules[*a], &rules[*b]);
        wants_a != wants_b && meet(a, b)
    })
}

fn meet(a: &Times, b: &Times) -> bool {
    let is_before = |end: Option<Timestamp>, start: Option<Timestamp>| end.zip(start).is_some_and(|(e, s)| e <= s);
    if is_before(a.to, b.from) || is_before(b.to, a.from) {
        return false;
    }
    intervals(a).any(|(start, end)| {
        intervals(b).any(|(other, other_end)| {
            // The week is a ring.
            [0, MINUTES_PER_WEEK].iter().any(|turn| {
                (start < other_end + turn && other + turn < end) || (other < end + turn && start + turn < other_end)
            })
        })
    })
}

fn intervals(rule: &Times) -> impl Iterator<Item = (usize, usize)> {
    let Times { days, start, end, .. } = *rule;
    let length = if end > start { end - start } else { end + MINUTES_PER_DAY - start };
    (0..7).filter(move |day| days & (1 << day) != 0).map(move |day| {
        let begin = day * MINUTES_PER_DAY + start;
        (begin, begin + length)
    })
}
