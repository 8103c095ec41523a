//! The ledger of a device together with the clock: what today is, when a register was last written, who was told.

use super::wear::Ledger;
use super::words::Trouble;
use crate::model::{ClockState, Mono, Wear};
use crate::profile::Target;
use crate::runtime::Clock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const DAY_MS: i64 = 86_400_000;
/// Writes that wear nothing reach the store this rarely: it would be a page of the card each minute.
const CALM: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct Purse {
    ledger: Ledger,
    today: i64,
    /// `today` as of this moment, for as long as the wall clock is not to be trusted.
    since: Mono,
    /// When each register that wears was last written in this run.
    last: BTreeMap<String, Mono>,
    told: Option<i64>,
    /// Something was counted that is not shown yet.
    is_new: bool,
    /// Of this the store knows nothing yet, or not enough.
    is_urgent: bool,
    stored: Mono,
}

impl Purse {
    pub(super) fn new(kept: Option<&str>, per_day: Option<u32>, clock: &Clock) -> Self {
        let today = clock.now().ms().div_euclid(DAY_MS);
        Self {
            ledger: Ledger::new(kept, per_day, today),
            today,
            since: clock.mono(),
            last: BTreeMap::new(),
            told: None,
            is_new: false,
            is_urgent: false,
            stored: clock.mono(),
        }
    }

    /// A wall clock that nobody trusts grants no new day; then the days are counted from here.
    fn turn(&mut self, clock: &Clock) {
        let day = Duration::from_millis(u64::try_from(DAY_MS).unwrap_or(u64::MAX));
        let mono = clock.mono();
        let wall = clock.now().ms().div_euclid(DAY_MS);
        if clock.state() == ClockState::Untrusted {
            while mono.since(self.since) >= day {
                (self.today, self.since) = (self.today + 1, self.since.plus(day));
            }
        } else if wall > self.today {
            (self.today, self.since) = (wall, mono);
        }
        self.ledger.turn_to(self.today);
    }

    /// May these be written now.
    pub(super) fn allows<'a>(
        &mut self,
        targets: impl Iterator<Item = &'a Target>,
        gap: Duration,
        clock: &Clock,
    ) -> Result<(), Trouble> {
        self.turn(clock);
        let now = clock.mono();
        for target in targets.filter(|t| t.class.wears()) {
            if let Some(soon) = self.last.get(&target.register).map(|at| at.plus(gap)).filter(|at| now < *at) {
                return Err(Trouble::Later(soon));
            }
            if let Err(why) = self.ledger.allows(&target.register, target.class) {
                let rest = DAY_MS - clock.now().ms().rem_euclid(DAY_MS);
                // Looked at again each quarter of an hour: the clock may be set, the day may be counted from elsewhere.
                let rest = Duration::from_millis(u64::try_from(rest).unwrap_or(0)).min(Duration::from_secs(900));
                return Err(Trouble::Spent { why, until: now.plus(rest) });
            }
        }
        Ok(())
    }

    /// The device took a write into these, or may have.
    pub(super) fn count<'a>(&mut self, targets: impl Iterator<Item = &'a Target>, clock: &Clock) {
        self.turn(clock);
        for target in targets {
            self.ledger.count(&target.register, target.class);
            self.is_new = true;
            if target.class.wears() {
                self.is_urgent = true;
                self.last.insert(target.register.clone(), clock.mono());
            }
        }
    }

    /// Is this the first time today.
    pub(super) fn tells_today(&mut self) -> bool {
        self.told.replace(self.today) != Some(self.today)
    }

    pub(super) fn rows(&self) -> Arc<[Wear]> {
        self.ledger.rows().into()
    }

    /// What is new: for the status, and for the store where it is time.
    pub(super) fn take_news(&mut self, clock: &Clock) -> Option<(Arc<[Wear]>, Option<String>)> {
        if !std::mem::take(&mut self.is_new) {
            return None;
        }
        let mono = clock.mono();
        let is_due = std::mem::take(&mut self.is_urgent) || mono.since(self.stored) >= CALM;
        if is_due {
            self.stored = mono;
        }
        Some((self.rows(), is_due.then(|| self.ledger.to_json())))
    }

    /// The store did not take it, or nothing comes after: hand it on once more.
    pub(super) fn again(&mut self) {
        (self.is_new, self.is_urgent) = (true, true);
    }
}
