//! A week of local wall time, repeated, laid over instants.

use super::{Wanted, forever};
use crate::model::{Action, Timestamp};
use jiff::tz::TimeZone;

const MINUTES_PER_DAY: usize = 24 * 60;
const MINUTES_PER_WEEK: usize = 7 * MINUTES_PER_DAY;
const MINUTE_MS: i64 = 60_000;
const WEEK_MS: i64 = 7 * 24 * 60 * MINUTE_MS;
/// From Monday 00:00 to the epoch, a Thursday.
const EPOCH_IN_WEEK_MS: i64 = 3 * 24 * 60 * MINUTE_MS;
/// Clock changes a search may pass before it gives up. A pattern that changes at all does so within a week, and no zone
/// has changed its clock more than a few times a year.
const MAX_STEPS: usize = 64;

/// One rule: active on `days` (bit 0 Monday .. bit 6 Sunday) from `start` to `end`, minutes of the day, half-open. An
/// `end` not after `start` lies on the next day.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) days: u8,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) action: Action,
}

/// The week as runs of equal wishes.
#[derive(Debug, Clone)]
pub(super) struct Weekly {
    zone: TimeZone,
    starts_at: Option<Timestamp>,
    ends_at: Option<Timestamp>,
    actions: Vec<Action>,
    /// Runs by their first millisecond of the local week (0: Monday 00:00), with the index of the action. Neighbours
    /// differ, also the last and the first, unless there is only one. Never empty.
    runs: Vec<(i64, Option<usize>)>,
}

impl Weekly {
    pub(super) fn new(
        zone: TimeZone,
        starts_at: Option<Timestamp>,
        ends_at: Option<Timestamp>,
        default: Option<Action>,
        rules: &[Rule],
    ) -> Self {
        let mut actions: Vec<Action> = Vec::new();
        let mut index = |action: &Action| {
            actions.iter().position(|a| a == action).unwrap_or_else(|| {
                actions.push(action.clone());
                actions.len() - 1
            })
        };
        let mut week: Vec<Option<usize>> = vec![default.as_ref().map(&mut index); MINUTES_PER_WEEK];
        // The first listed wins: written last.
        for rule in rules.iter().rev() {
            let action = Some(index(&rule.action));
            let length =
                if rule.end > rule.start { rule.end - rule.start } else { rule.end + MINUTES_PER_DAY - rule.start };
            for day in (0..7).filter(|day| rule.days & (1 << day) != 0) {
                let first = day * MINUTES_PER_DAY + rule.start;
                for minute in first..first + length {
                    week[minute % MINUTES_PER_WEEK] = action;
                }
            }
        }
        let mut runs: Vec<(i64, Option<usize>)> = Vec::new();
        let mut previous = week[MINUTES_PER_WEEK - 1];
        let mut at = 0;
        for who in &week {
            if *who != previous {
                runs.push((at, *who));
                previous = *who;
            }
            at += MINUTE_MS;
        }
        if runs.is_empty() {
            runs.push((0, week[0]));
        }
        Self { zone, starts_at, ends_at, actions, runs }
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
        for _ in 0..MAX_STEPS {
            if from >= end {
                return None;
            }
            let (offset, in_week) = self.local(from);
            let to_boundary = if self.runs.len() == 1 {
                i64::MAX
            } else {
                let next = self.runs.partition_point(|(start, _)| *start <= in_week);
                self.runs.get(next).map_or(WEEK_MS + self.runs[0].0, |(start, _)| *start) - in_week
            };
            let boundary = from.ms().saturating_add(to_boundary);
            let jump = if self.runs.len() == 1 { i64::MAX } else { self.next_jump(from, offset, boundary) };
            let next = Timestamp::from_ms(boundary.min(jump)).min(end);
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
        for _ in 0..MAX_STEPS {
            let start = if self.runs.len() == 1 {
                0
            } else {
                let (_, in_week) = self.local(from);
                let run = self.runs.partition_point(|(start, _)| *start <= in_week);
                let begun = match run.checked_sub(1) {
                    Some(run) => self.runs[run].0,
                    None => self.runs[self.runs.len() - 1].0 - WEEK_MS,
                };
                (from.ms() - (in_week - begun)).max(self.last_jump(from))
            };
            let start = Timestamp::from_ms(start).max(floor);
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
        let (_, in_week) = self.local(t);
        let run = self.runs.partition_point(|(start, _)| *start <= in_week);
        match run.checked_sub(1) {
            Some(run) => self.runs[run].1,
            None => self.runs[self.runs.len() - 1].1,
        }
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

/// `jiff` ends a day before year 9999 does.
pub(super) fn instant(t: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(t.ms()).unwrap_or(jiff::Timestamp::MAX)
}
