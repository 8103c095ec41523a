//! The cheapest time out of a price timeline.

use super::tariff::Span;
use crate::model::Timestamp;
use std::time::Duration;

/// What to do with time whose price is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unpriced {
    /// Use its last hours, and those only as far as known prices are not better than their mean.
    Last,
    /// Use its first hours, else as `Last`.
    First,
    /// Leave it.
    Never,
}

/// A chosen piece of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Slot {
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
    /// `None`: not known.
    pub(super) price: Option<f64>,
}

impl Slot {
    pub(super) fn length(&self) -> Duration {
        self.end.since(self.start)
    }
}

/// The cheapest `need` of the spans, in order of time; all that may be used when they are shorter. Of equal prices those
/// that lengthen a chosen piece, then one that holds the rest in one piece, then the earlier.
pub(super) fn cheapest(spans: &[Span], need: Duration, unpriced: Unpriced, max_price: Option<f64>) -> Vec<Slot> {
    let slot = |s: &Span| Slot { start: s.start, end: s.end, price: s.price.map(|p| p.import) };
    let known = |s: &&Slot| s.price.is_some_and(|p| max_price.is_none_or(|max| p <= max));
    let all: Vec<Slot> = spans.iter().map(slot).collect();
    // What time without a price will cost is taken as the mean of what is known.
    let (sum, time) = all
        .iter()
        .filter_map(|s| Some((s.price?, s.length().as_secs_f64())))
        .fold((0.0, 0.0), |(sum, time), (price, secs)| (sum + price * secs, time + secs));
    let mean = if time > 0.0 { sum / time } else { 0.0 };
    let level = |s: &Slot| s.price.unwrap_or(mean);
    let mut usable: Vec<Slot> = all.iter().filter(known).copied().collect();
    if unpriced != Unpriced::Never {
        usable.extend(all.iter().filter(|s| s.price.is_none()));
    }
    // At one level: who waits for prices to come rather uses the last hours than a known mean.
    let is_late = |s: &Slot| s.price.is_none() != (unpriced == Unpriced::Last);
    usable.sort_by(|a, b| level(a).total_cmp(&level(b)).then(is_late(a).cmp(&is_late(b))).then(a.start.cmp(&b.start)));
    let mut chosen: Vec<Slot> = Vec::new();
    let mut left = need;
    let mut rest = usable.as_slice();
    while let Some(first) = rest.first() {
        let same = |s: &&Slot| level(s).total_cmp(&level(first)).is_eq() && s.price.is_none() == first.price.is_none();
        let count = rest.iter().take_while(same).count();
        let (group, after) = rest.split_at(count);
        rest = after;
        let total: Duration = group.iter().map(Slot::length).sum();
        if total <= left {
            chosen.extend(group);
            left -= total;
        } else {
            match (first.price, unpriced) {
                (None, Unpriced::Last) => fill_from_end(group, left, &mut chosen),
                (None, _) => fill_from_start(group, left, &mut chosen),
                (Some(_), _) => fill(group.to_vec(), left, &mut chosen),
            }
            break;
        }
    }
    chosen.sort_by_key(|s| s.start);
    chosen
}

fn fill_from_end(group: &[Slot], mut left: Duration, chosen: &mut Vec<Slot>) {
    for slot in group.iter().rev() {
        let take = slot.length().min(left);
        left -= take;
        if !take.is_zero() {
            chosen.push(Slot { start: slot.end.minus(take), ..*slot });
        }
    }
}

fn fill_from_start(group: &[Slot], mut left: Duration, chosen: &mut Vec<Slot>) {
    for slot in group {
        let take = slot.length().min(left);
        left -= take;
        if !take.is_zero() {
            chosen.push(Slot { end: slot.start.plus(take), ..*slot });
        }
    }
}

/// Part of a group of equal price, in as few pieces as come naturally: each begin of a charge wears a contactor.
fn fill(mut group: Vec<Slot>, mut left: Duration, chosen: &mut Vec<Slot>) {
    while !left.is_zero() && !group.is_empty() {
        let follows = |s: &Slot| chosen.iter().any(|c| c.end == s.start);
        let leads = |s: &Slot| chosen.iter().any(|c| c.start == s.end);
        let rank = |s: &Slot| (follows(s) || leads(s), s.length() >= left, s.length());
        let best = (0..group.len()).max_by(|a, b| {
            let (x, y) = (&group[*a], &group[*b]);
            rank(x).cmp(&rank(y)).then(y.start.cmp(&x.start))
        });
        let Some(best) = best else { break };
        let slot = group.swap_remove(best);
        let take = slot.length().min(left);
        left -= take;
        chosen.push(if leads(&slot) && !follows(&slot) {
            Slot { start: slot.end.minus(take), ..slot }
        } else {
            Slot { end: slot.start.plus(take), ..slot }
        });
    }
}
