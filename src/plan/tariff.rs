//! Prices over time: rates by season, weekday and hour, and single values as a spot market gives them.

use super::weekly::instant;
use crate::model::Timestamp;
use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use std::time::Duration;

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;
/// A search for a change walks so far day by day. Rates repeat every week; a day of clock change on top.
const WALK_MS: i64 = 9 * DAY_MS;
/// Nobody's price holds unchanged for longer than a search looks: about 30 years of dates with an edge.
const MAX_STEPS: usize = 20_000;

/// A price, in units of the currency per kWh. It may be negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    /// Of power bought.
    pub import: f64,
    /// Of power sold, where the tariff says it.
    pub export: Option<f64>,
}

/// A span of time with one price; `None`: not known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// From.
    pub start: Timestamp,
    /// Until, exclusive.
    pub end: Timestamp,
    /// The price.
    pub price: Option<Price>,
}

/// A price on some days of the week from `start` to `end`, minutes of the day, half-open. An `end` not after `start` lies
/// on the next day.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rate {
    /// Bit 0 Monday .. bit 6 Sunday.
    pub(super) days: u8,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) price: Price,
}

/// Whole days with one price, `from` inclusive, `to` exclusive.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Exception {
    pub(super) from: Date,
    pub(super) to: Date,
    pub(super) price: Price,
}

/// Rates that are valid from one date, inclusive, to another, exclusive.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Period {
    pub(super) from: Option<Date>,
    pub(super) to: Option<Date>,
    pub(super) rates: Vec<Rate>,
    pub(super) exceptions: Vec<Exception>,
    /// Where no rate says otherwise.
    pub(super) price: Option<Price>,
}

/// A tariff as a price timeline. Pure.
#[derive(Debug, Clone, PartialEq)]
pub struct Tariff {
    zone: TimeZone,
    currency: String,
    periods: Vec<Period>,
    /// In order, disjoint.
    values: Vec<(Timestamp, Timestamp, Price)>,
}

impl Tariff {
    /// `values`: start, end where told, price. Without an end a value holds to the start of the next; the last one as long
    /// as the one before it, at most one hour. Of two with one start the later listed counts.
    pub(super) fn new(
        zone: TimeZone,
        currency: String,
        periods: Vec<Period>,
        mut values: Vec<(Timestamp, Option<Timestamp>, Price)>,
    ) -> Self {
        const USUAL: Duration = Duration::from_secs(3600);
        values.sort_by_key(|(start, ..)| *start);
        values.reverse();
        values.dedup_by_key(|(start, ..)| *start);
        values.reverse();
        let mut step = USUAL;
        let ordered = (0..values.len())
            .map(|n| {
                let (start, end, price) = values[n];
                let next = values.get(n + 1).map(|(next, ..)| *next);
                let end = match (end, next) {
                    (Some(end), Some(next)) => end.min(next),
                    (Some(end), None) => end,
                    (None, Some(next)) => next,
                    (None, None) => start.plus(step.min(USUAL)),
                };
                step = end.since(start);
                (start, end, price)
            })
            .collect();
        Self { zone, currency, periods, values: ordered }
    }

    /// The currency, as an ISO 4217 code.
    #[must_use]
    pub fn currency(&self) -> &str {
        &self.currency
    }

    /// The time zone of its dates and hours.
    #[must_use]
    pub const fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The price at `t`; `None`: not known. A single value wins over the rates of a period.
    #[must_use]
    pub fn price_at(&self, t: Timestamp) -> Option<Price> {
        let n = self.values.partition_point(|(_, end, _)| *end <= t);
        match self.values.get(n) {
            Some((start, _, price)) if *start <= t => Some(*price),
            _ => self.rate_at(t),
        }
    }

    /// The first instant after `t` at which the price is another than at `t`; `None`: never again.
    #[must_use]
    pub fn next_change(&self, t: Timestamp) -> Option<Timestamp> {
        let now = self.price_at(t);
        let mut at = t;
        let mut same_since = t;
        for _ in 0..MAX_STEPS {
            let mut next = self.boundary(at)?;
            // Nothing changed for more than a week: nothing does before a date or a value begins or ends.
            if next.ms() - same_since.ms() > WALK_MS
                && let Some(edge) = self.edge(at)
            {
                next = edge.max(next);
                same_since = next;
            } else if next.ms() - same_since.ms() > WALK_MS {
                return None;
            }
            if self.price_at(next) != now {
                return Some(next);
            }
            at = next;
        }
        None
    }

    /// Every span from `from` to `to` in order, without gaps; neighbours differ in price.
    #[must_use]
    pub fn spans(&self, from: Timestamp, to: Timestamp) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        let mut at = from;
        for _ in 0..MAX_STEPS {
            if at >= to {
                break;
            }
            let end = self.boundary(at).map_or(to, |next| next.min(to));
            let price = self.price_at(at);
            match spans.last_mut() {
                Some(last) if last.price == price => last.end = end,
                _ => spans.push(Span { start: at, end, price }),
            }
            at = end;
        }
        spans
    }

    /// The first instant after `t` at which the price may change: never later than the change itself.
    fn boundary(&self, t: Timestamp) -> Option<Timestamp> {
        let n = self.values.partition_point(|(_, end, _)| *end <= t);
        let value = self.values.get(n).map(|(start, end, _)| if *start <= t { *end } else { *start });
        if self.periods.is_empty() {
            return value;
        }
        let offset = i64::from(self.zone.to_offset(instant(t)).seconds()) * 1000;
        let local = t.ms() + offset;
        let today = local.div_euclid(DAY_MS) * DAY_MS;
        let minute = (local - today) / MINUTE_MS;
        let marks = self.periods.iter().flat_map(|p| &p.rates).flat_map(|r| [r.start, r.end]);
        let marks = marks.filter_map(|m| i64::try_from(m).ok()).filter(|m| *m > minute);
        let mark = marks.min().unwrap_or(24 * 60).min(24 * 60);
        let by_clock = today + mark * MINUTE_MS - offset;
        let jump = self.zone.following(instant(t)).next().map_or(i64::MAX, |j| j.timestamp().as_millisecond());
        let next = Timestamp::from_ms(by_clock.min(jump.max(t.ms() + 1)));
        if next <= t {
            return value;
        }
        Some(value.map_or(next, |value| value.min(next)))
    }

    /// The next date at which a period or an exception begins or ends, or a value does, after `t`.
    fn edge(&self, t: Timestamp) -> Option<Timestamp> {
        let n = self.values.partition_point(|(_, end, _)| *end <= t);
        let value = self.values.get(n).map(|(start, end, _)| if *start <= t { *end } else { *start });
        let of_period = |p: &Period| {
            let own = [p.from, p.to].into_iter().flatten();
            own.chain(p.exceptions.iter().flat_map(|e| [e.from, e.to])).collect::<Vec<_>>()
        };
        let dates = self.periods.iter().flat_map(of_period).filter_map(|date| self.midnight(date));
        dates.chain(value).filter(|at| *at > t).min()
    }

    /// The first instant of a local day.
    pub(super) fn midnight(&self, date: Date) -> Option<Timestamp> {
        let start = date.to_zoned(self.zone.clone()).ok()?.timestamp();
        Some(Timestamp::from_ms(start.as_millisecond()))
    }

    /// The local date at `t`.
    pub(super) fn date(&self, t: Timestamp) -> Date {
        self.zone.to_datetime(instant(t)).date()
    }

    /// By the periods: an exception wins over the rates, the first listed over those after it.
    fn rate_at(&self, t: Timestamp) -> Option<Price> {
        if self.periods.is_empty() {
            return None;
        }
        let local = self.zone.to_datetime(instant(t));
        let (date, time) = (local.date(), local.time());
        let minute = usize::from(time.hour().unsigned_abs()) * 60 + usize::from(time.minute().unsigned_abs());
        // The latest listed period that covers the day: a later one closes an open one before it.
        let covers = |p: &&Period| p.from.is_none_or(|from| from <= date) && p.to.is_none_or(|to| date < to);
        let period = self.periods.iter().rev().find(covers)?;
        if let Some(exception) = period.exceptions.iter().find(|e| e.from <= date && date < e.to) {
            return Some(exception.price);
        }
        let (today, yesterday) = (bit(date.weekday()), bit(date.weekday().previous()));
        let active = |r: &&Rate| {
            let wraps = r.end <= r.start;
            (r.days & today != 0 && minute >= r.start && (wraps || minute < r.end))
                || (wraps && r.days & yesterday != 0 && minute < r.end)
        };
        period.rates.iter().find(active).map(|r| r.price).or(period.price)
    }
}

fn bit(day: Weekday) -> u8 {
    1 << day.to_monday_zero_offset()
}
