//! A week of local wall time, repeated, laid over instants.
//!
//! Rules may also be bound to instants. Between two such instants the set of rules that can hold is fixed: a [`Span`],
//! with a week of its own.

use super::{Wanted, forever};
use crate::model::{Action, Timestamp};
use jiff::tz::TimeZone;
use std::collections::BTreeSet;

pub(super) const MINUTES_PER_DAY: usize = 24 * 60;
/// Every day of the week, as bits.
pub(super) const EVERY_DAY: u8 = 0b111_1111;
const MINUTES_PER_WEEK: usize = 7 * MINUTES_PER_DAY;
const MINUTE_MS: i64 = 60_000;
const WEEK_MS: i64 = 7 * 24 * 60 * MINUTE_MS;
/// From Monday 00:00 to the epoch, a Thursday.
const EPOCH_IN_WEEK_MS: i64 = 3 * 24 * 60 * MINUTE_MS;
/// Clock changes a search may pass before it gives up. A pattern that changes at all does so within a week, and no zone
/// has changed its clock more than a few times a year.
const MAX_STEPS: usize = 64;
/// Steps that a search may take in each span that it passes: its begin, and clock changes.
const STEPS_PER_SPAN: usize = 8;
/// Rules counted once in each span in which they can hold, at most: it bounds the memory that a document takes.
const MAX_RULES_IN_SPANS: usize = 20_000;

/// One rule: active on `days` (bit 0 Monday .. bit 6 Sunday) from `start` to `end`, minutes of the day, half-open, and
/// from the instant `from` to before the instant `to`. An `end` not after `start` lies on the next day.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) days: u8,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) from: Option<Timestamp>,
    pub(super) to: Option<Timestamp>,
    /// `None`: nothing is wanted while it holds.
    pub(super) action: Option<Action>,
}

/// Rules laid over time.
#[derive(Debug, Clone)]
pub(super) struct Weekly {
    zone: TimeZone,
    starts_at: Option<Timestamp>,
    ends_at: Option<Timestamp>,
    actions: Vec<Action>,
    /// In order of time, without gaps; the first begins in 1970. Never empty.
    spans: Vec<Span>,
}

/// A time in which the same week repeats.
#[derive(Debug, Clone)]
struct Span {
    from: Timestamp,
    /// The week as runs of equal wishes, by their first millisecond of the local week (0: Monday 00:00), with the index of
    /// the action. Neighbours differ, also the last and the first, unless there is only one. Never empty.
    runs: Vec<Run>,
}

type Run = (i64, Option<usize>);

impl Weekly {
    /// # Errors
    /// The rules are bound to instants in so many ways that they would take too much memory.
    pub(super) fn new(
        zone: TimeZone,
        starts_at: Option<Timestamp>,
        ends_at: Option<Timestamp>,
        default: Option<Action>,
        rules: &[Rule],
    ) -> Result<Self, String> {
        let mut actions: Vec<Action> = Vec::new();
        let mut index = |action: &Action| {
            actions.iter().position(|a| a == action).unwrap_or_else(|| {
                actions.push(action.clone());
                actions.len() - 1
            })
        };
        let default = default.as_ref().map(&mut index);
        let rules: Vec<(&Rule, Option<usize>)> =
            rules.iter().map(|rule| (rule, rule.action.as_ref().map(&mut index))).collect();
        let mut cuts: Vec<Timestamp> = rules.iter().flat_map(|(rule, _)| [rule.from, rule.to]).flatten().collect();
        cuts.push(Timestamp::default());
        cuts.sort_unstable();
        cuts.dedup();
        let mut spans: Vec<Span> = Vec::new();
        let mut counted = 0;
        for from in cuts {
            let holds = |rule: &Rule| rule.from.is_none_or(|f| f <= from) && rule.to.is_none_or(|t| from < t);
            let here: Vec<_> = rules.iter().filter(|(rule, _)| holds(rule)).copied().collect();
            counted += here.len();
            if counted > MAX_RULES_IN_SPANS {
                return Err(format!(
                    "rules overlap in too many ways by their from and to: split the document (rules, each counted once \
                     between any two of these instants, may be {MAX_RULES_IN_SPANS})"
                ));
            }
            let runs = week(&here, default);
            if spans.last().is_none_or(|last| last.runs != runs) {
                spans.push(Span { from, runs });
            }
        }
        Ok(Self { zone, starts_at, ends_at, actions, spans })
    }

    pub(super) fn at(&self, t: Timestamp) -> Option<Wanted> {
        let who = self.who(t);
        let action = self.actions.get(who?)?.clone();
        Some(Wanted { action, since: self.since(t, who), until: self.next_change(t).unwrap_or_else(forever) })
    }

    pub(super) fn next_change(&self, t: Timestamp) -> Option<Timestamp> {
        let state = self.who(t);
        let mut from = t;
        if let Some(start) = self.starts_at.filter(|start| *start > t) {
            if self.who(start) != state {
                return Some(start);
            }
            from = start;
        }
        let end = self.ends_at.unwrap_or_else(forever);
        for _ in 0..self.max_steps() {
            if from >= end {
                return None;
            }
            let (span, span_end) = self.span(from);
            let mut next = span_end.min(end);
            if span.runs.len() > 1 {
                let (offset, in_week) = self.local(from);
                let run = span.runs.partition_point(|(start, _)| *start <= in_week);
                let begins = span.runs.get(run).map_or(WEEK_MS + span.runs[0].0, |(start, _)| *start);
                let boundary = from.ms().saturating_add(begins - in_week).min(next.ms());
                next = Timestamp::from_ms(boundary.min(self.next_jump(from, offset, boundary)));
            }
            if self.who(next) != state {
                return Some(next);
            }
            if next == forever() {
                return None;
            }
            from = next;
        }
        None
    }

    /// Since when `who` has been the answer without a break, looking back from `t`.
    fn since(&self, t: Timestamp, who: Option<usize>) -> Timestamp {
        let floor = self.starts_at.unwrap_or_default();
        let mut from = t;
        for _ in 0..self.max_steps() {
            let (span, _) = self.span(from);
            let mut start = span.from.max(floor);
            if span.runs.len() > 1 {
                let (_, in_week) = self.local(from);
                let run = span.runs.partition_point(|(start, _)| *start <= in_week);
                let begun = match run.checked_sub(1) {
                    Some(run) => span.runs[run].0,
                    None => span.runs[span.runs.len() - 1].0 - WEEK_MS,
                };
                let begun = (from.ms() - (in_week - begun)).max(self.last_jump(from));
                start = start.max(Timestamp::from_ms(begun));
            }
            if start <= floor {
                return floor;
            }
            let before = Timestamp::from_ms(start.ms() - 1);
            if self.who(before) != who {
                return start;
            }
            from = before;
        }
        from
    }

    /// The action at `t`, by index.
    fn who(&self, t: Timestamp) -> Option<usize> {
        if self.starts_at.is_some_and(|start| t < start) || self.ends_at.is_some_and(|end| t >= end) {
            return None;
        }
        let (span, _) = self.span(t);
        let (_, in_week) = self.local(t);
        let run = span.runs.partition_point(|(start, _)| *start <= in_week);
        match run.checked_sub(1) {
            Some(run) => span.runs[run].1,
            None => span.runs[span.runs.len() - 1].1,
        }
    }

    /// The span in which `t` lies, and its end.
    fn span(&self, t: Timestamp) -> (&Span, Timestamp) {
        let next = self.spans.partition_point(|span| span.from <= t).max(1);
        (&self.spans[next - 1], self.spans.get(next).map_or_else(forever, |span| span.from))
    }

    const fn max_steps(&self) -> usize {
        MAX_STEPS + STEPS_PER_SPAN * self.spans.len()
    }

    /// The zone's offset at `t`, seconds east, and the millisecond of the local week that its wall clock shows.
    fn local(&self, t: Timestamp) -> (i32, i64) {
        let offset = self.zone.to_offset(instant(t)).seconds();
        (offset, (t.ms() + i64::from(offset) * 1000 + EPOCH_IN_WEEK_MS).rem_euclid(WEEK_MS))
    }

    /// The first change of the zone's clock after `t` that is not after `limit`, ms; else `i64::MAX`.
    fn next_jump(&self, t: Timestamp, offset: i32, limit: i64) -> i64 {
        for jump in self.zone.following(instant(t)) {
            let at = jump.timestamp().as_millisecond();
            if at > limit {
                break;
            }
            // Some transitions only change the name of the time.
            if jump.offset().seconds() != offset {
                return at;
            }
        }
        i64::MAX
    }

    /// The last change of the zone's clock at or before `t`, ms; 0 when there is none.
    fn last_jump(&self, t: Timestamp) -> i64 {
        let just_after = instant(Timestamp::from_ms(t.ms() + 1));
        self.zone.preceding(just_after).next().map_or(0, |jump| jump.timestamp().as_millisecond().max(0))
    }
}

/// One week of `rules`, of which the first listed wins.
fn week(rules: &[(&Rule, Option<usize>)], default: Option<usize>) -> Vec<Run> {
    // Every end (false) and begin (true) in the week, in minutes. An end goes before a begin: a rule may follow itself.
    let mut edges: Vec<(usize, bool, usize)> = Vec::new();
    for (order, (rule, _)) in rules.iter().enumerate() {
        let length =
            if rule.end > rule.start { rule.end - rule.start } else { rule.end + MINUTES_PER_DAY - rule.start };
        for day in (0..7).filter(|day| rule.days & (1 << day) != 0) {
            let begin = day * MINUTES_PER_DAY + rule.start;
            let end = begin + length;
            edges.push((begin, true, order));
            edges.push((end.min(MINUTES_PER_WEEK), false, order));
            if end > MINUTES_PER_WEEK {
                edges.push((0, true, order));
                edges.push((end - MINUTES_PER_WEEK, false, order));
            }
        }
    }
    edges.sort_unstable();
    let mut holding: BTreeSet<usize> = BTreeSet::new();
    let mut runs: Vec<Run> = Vec::new();
    let mut edges = edges.into_iter().peekable();
    let mut minute = 0;
    while minute < MINUTES_PER_WEEK {
        while let Some((_, begins, order)) = edges.next_if(|(at, ..)| *at == minute) {
            if begins {
                holding.insert(order);
            } else {
                holding.remove(&order);
            }
        }
        let wish = holding.first().map_or(default, |first| rules[*first].1);
        if runs.last().is_none_or(|(_, last)| *last != wish) {
            runs.push((i64::try_from(minute).unwrap_or(0) * MINUTE_MS, wish));
        }
        minute = edges.peek().map_or(MINUTES_PER_WEEK, |(at, ..)| *at);
    }
    // What the week ends with goes on over its end.
    if runs.len() > 1 && runs.first().map(|(_, wish)| wish) == runs.last().map(|(_, wish)| wish) {
        runs.remove(0);
    }
    runs
}

/// `jiff` ends a day before year 9999 does.
pub(super) fn instant(t: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(t.ms()).unwrap_or(jiff::Timestamp::MAX)
}
