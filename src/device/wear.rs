//! The ledger of what was written to a device, and what may still be written. Pure: the day is an argument.
//!
//! The rule: a register that the device keeps in flash, or may, is granted so many writes a day. What a day leaves is
//! carried over, three days' worth at most, for a burst. What protects writes beyond that too; such a debt is taken from
//! the days after, again three days' worth at most.

use crate::model::{Wear, WriteClass};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Writes that flash takes at least.
const CYCLES: u32 = 100_000;
/// 100,000 writes over 15 years.
pub(super) const PER_DAY: u32 = 18;
/// How many days' worth may be carried over, and owed.
const CARRIED_DAYS: i64 = 3;
/// The rate of the projection is that of so many days.
const WINDOW: usize = 30;

/// One register.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    class: WriteClass,
    total: u64,
    /// Writes of each of the last days; the last is `Ledger::day`.
    days: Vec<u32>,
    /// What earlier days left, or owe.
    carry: i64,
}

/// What one device went through.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ledger {
    per_day: u32,
    /// Days since 1970, UTC.
    day: i64,
    entries: BTreeMap<String, Entry>,
}

impl Ledger {
    /// A ledger as kept in the store, or an empty one. What makes no sense in it is left out.
    pub(super) fn new(json: Option<&str>, per_day: Option<u32>, today: i64) -> Self {
        let per_day = per_day.unwrap_or(PER_DAY);
        let kept: Option<Value> = json.and_then(|text| serde_json::from_str(text).ok());
        let day = kept.as_ref().and_then(|v| v.get("day")?.as_i64());
        let registers = kept.as_ref().and_then(|v| v.get("registers")?.as_object());
        let read = |(register, v): (&String, &Value)| {
            let days: Vec<u32> = v
                .get("days")?
                .as_array()?
                .iter()
                .filter_map(|n| u32::try_from(n.as_u64()?).ok())
                .take(WINDOW)
                .collect();
            let class = WriteClass::from_word(v.get("class")?.as_str()?)?;
            let carry =
                v.get("carry")?.as_i64()?.clamp(-CARRIED_DAYS * i64::from(per_day), CARRIED_DAYS * i64::from(per_day));
            (!days.is_empty())
                .then_some((register.clone(), Entry { class, total: v.get("writes")?.as_u64()?, days, carry }))
        };
        let entries = registers.into_iter().flatten().filter_map(read).collect();
        let mut ledger = Self { per_day, day: day.unwrap_or(today), entries };
        ledger.turn_to(today);
        ledger
    }

    /// For the store.
    pub(super) fn to_json(&self) -> String {
        let registers: Map<String, Value> = self
            .entries
            .iter()
            .map(|(register, e)| {
                let value = json!({"class": e.class.as_str(), "writes": e.total, "carry": e.carry, "days": e.days});
                (register.clone(), value)
            })
            .collect();
        json!({"day": self.day, "registers": registers}).to_string()
    }

    /// Another day has begun; a clock that went back begins none.
    pub(super) fn turn_to(&mut self, today: i64) {
        let passed = today - self.day;
        if passed <= 0 {
            return;
        }
        self.day = today;
        let grant = i64::from(self.per_day);
        let most = CARRIED_DAYS * grant;
        for entry in self.entries.values_mut() {
            let used = entry.days.last().copied().map_or(0, i64::from);
            let idle = grant.saturating_mul(passed - 1);
            entry.carry = (entry.carry + grant - used).clamp(-most, most).saturating_add(idle).clamp(-most, most);
            let new = usize::try_from(passed).unwrap_or(WINDOW).min(WINDOW);
            entry.days.extend(std::iter::repeat_n(0, new));
            let old = entry.days.len().saturating_sub(WINDOW);
            entry.days.drain(..old);
        }
    }

    /// The device took a write, or may have.
    pub(super) fn count(&mut self, register: &str, class: WriteClass) {
        let entry = match self.entries.get_mut(register) {
            Some(entry) => entry,
            None => {
                self.entries.entry(register.to_owned()).or_insert(Entry { class, total: 0, days: vec![0], carry: 0 })
            }
        };
        entry.class = class;
        entry.total += 1;
        if let Some(today) = entry.days.last_mut() {
            *today = today.saturating_add(1);
        }
    }

    /// May one more write go to this register today, or why not.
    pub(super) fn allows(&self, register: &str, class: WriteClass) -> Result<(), String> {
        if !class.wears() {
            return Ok(());
        }
        let entry = self.entries.get(register);
        let used = entry.and_then(|e| e.days.last().copied()).unwrap_or(0);
        let granted = (i64::from(self.per_day) + entry.map_or(0, |e| e.carry)).max(0);
        if i64::from(used) < granted {
            return Ok(());
        }
        Err(format!(
            "the write budget of {register} is used up for today ({used} of {granted}, {class}): it wears with each \
             write, and what protects nothing waits until tomorrow (UTC), or [device.control] flash_writes_per_day grants more"
        ))
    }

    /// For people and machines.
    pub(super) fn rows(&self) -> Vec<Wear> {
        let row = |(register, e): (&String, &Entry)| {
            let recent: u32 = e.days.iter().copied().fold(0, u32::saturating_add);
            let days = u32::try_from(e.days.len()).unwrap_or(1).max(1);
            let per_day = f64::from(recent) / f64::from(days);
            let left = f64::from(CYCLES.saturating_sub(u32::try_from(e.total).unwrap_or(u32::MAX)));
            Wear {
                register: register.clone(),
                class: e.class,
                writes: e.total,
                today: e.days.last().copied().unwrap_or(0),
                budget_per_day: e.class.wears().then_some(self.per_day),
                years_left: (e.class.wears() && per_day > 0.0).then(|| left / per_day / 365.25),
            }
        };
        self.entries.iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AMP: &str = "unit 1 holding 40345";
    const FLASH: WriteClass = WriteClass::Flash;

    /// So many writes as are allowed; at most 1,000.
    fn spend(ledger: &mut Ledger) -> u32 {
        let mut n = 0;
        while n < 1000 && ledger.allows(AMP, FLASH).is_ok() {
            ledger.count(AMP, FLASH);
            n += 1;
        }
        n
    }

    #[test]
    fn eighteen_a_day_and_what_was_left_over() {
        let mut ledger = Ledger::new(None, None, 100);
        assert_eq!(spend(&mut ledger), 18);
        let why = ledger.allows(AMP, FLASH).unwrap_err();
        assert!(
            why.starts_with("the write budget of unit 1 holding 40345 is used up for today (18 of 18, flash): "),
            "{why}"
        );
        assert!(ledger.allows(AMP, WriteClass::Unknown).unwrap_err().contains("(18 of 18, unknown)"));
        assert_eq!(ledger.allows(AMP, WriteClass::Volatile), Ok(()), "costs nothing");
        assert_eq!(ledger.allows("unit 1 holding 1", FLASH), Ok(()), "another register has its own");
        ledger.turn_to(101);
        assert_eq!(spend(&mut ledger), 18);
        ledger.turn_to(100);
        assert_eq!(spend(&mut ledger), 0, "a clock set back grants nothing");
        // Two days off: their 36 and today's 18.
        ledger.turn_to(104);
        assert_eq!(spend(&mut ledger), 54);
        ledger.turn_to(105);
        assert_eq!(spend(&mut ledger), 18, "a burst is paid from the days before, not from those after");
        ledger.turn_to(200);
        assert_eq!(spend(&mut ledger), 4 * 18, "three days are carried over at most");
    }

    #[test]
    fn what_protects_is_counted_and_paid_back() {
        let mut ledger = Ledger::new(None, Some(10), 100);
        (0..25).for_each(|_| ledger.count(AMP, FLASH));
        assert!(ledger.allows(AMP, FLASH).unwrap_err().contains("(25 of 10, flash)"));
        ledger.turn_to(101);
        assert_eq!(spend(&mut ledger), 0, "15 are owed");
        ledger.turn_to(102);
        assert_eq!(spend(&mut ledger), 5, "and 5 of them still");
        (0..1000).for_each(|_| ledger.count(AMP, FLASH));
        ledger.turn_to(106);
        assert_eq!(spend(&mut ledger), 10, "a debt is never more than three days'");
    }

    #[test]
    fn nothing_granted_is_nothing_written() {
        assert_eq!(spend(&mut Ledger::new(None, Some(0), 1)), 0);
    }

    #[test]
    fn years_at_the_rate_of_thirty_days() {
        let mut ledger = Ledger::new(None, None, 1);
        (0..10).for_each(|_| ledger.count(AMP, FLASH));
        ledger.count("v", WriteClass::Volatile);
        let rows = ledger.rows();
        let row = &rows[0];
        assert_eq!((row.writes, row.today, row.budget_per_day), (10, 10, Some(18)));
        assert!((row.years_left.unwrap() - 99_990.0 / 10.0 / 365.25).abs() < 1e-9);
        assert_eq!((rows[1].budget_per_day, rows[1].years_left), (None, None));
        ledger.turn_to(5);
        let row = &ledger.rows()[0];
        assert_eq!((row.writes, row.today), (10, 0));
        assert!((row.years_left.unwrap() - 99_990.0 / 2.0 / 365.25).abs() < 1e-9, "10 in 5 days");
        ledger.turn_to(500);
        assert_eq!(ledger.rows()[0].years_left, None, "not written for 30 days");
    }

    #[test]
    fn a_kept_ledger_that_makes_no_sense_is_an_empty_one() {
        for text in ["", "[]", "{}", r#"{"day":1,"registers":{"a":{"class":"flash","writes":1,"carry":0,"days":[]}}}"#]
        {
            assert_eq!(Ledger::new(Some(text), None, 7).rows(), [], "{text}");
        }
    }

    proptest! {
        /// Whatever is asked for: in the long run no more than the grant, the first days' burst aside; and a restart
        /// changes nothing.
        #[test]
        fn never_beyond_the_budget(asked in prop::collection::vec((0_i64..4, 0_u32..60), 1..60), per_day in 0_u32..30) {
            let mut ledger = Ledger::new(None, Some(per_day), 0);
            let (mut day, mut total) = (0, 0_i64);
            for (passed, wishes) in asked {
                day += passed;
                ledger.turn_to(day);
                for _ in 0..wishes {
                    if ledger.allows(AMP, FLASH).is_ok() {
                        ledger.count(AMP, FLASH);
                        total += 1;
                    }
                }
                prop_assert!(total <= (day + 1) * i64::from(per_day), "{total} by day {day}");
                let again = Ledger::new(Some(&ledger.to_json()), Some(per_day), day);
                prop_assert_eq!(&again, &ledger);
            }
        }
    }
}
