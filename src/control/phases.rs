//! Which phase of the house a one-phase car draws from. Its charger says which of its own phases carries current; how that
//! one is wired to the house is learned from steps: the grid phase that moves along is the one. Pure.

use super::view::{Freshness, Seen};
use crate::model::Mono;
use std::time::Duration;

/// A current that is one, A.
const FLOWS_A: f64 = 2.0;
/// Below this nothing flows, A.
const SILENT_A: f64 = 1.0;
/// A step that can be told from the household's, A.
const STEP_A: f64 = 4.0;
/// The current is steady when it stays so close for so long: the meter was read meanwhile too.
const STEADY_A: f64 = 0.5;
const STEADY: Duration = Duration::from_secs(3);
/// Steps that take longer than this prove nothing.
const STEP_WITHIN: Duration = Duration::from_secs(15);
/// So many steps in a row must show the same.
const VOTES: u8 = 2;

/// A steady current and what the grid showed with it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Steady {
    since: Mono,
    seen: Mono,
    amps: f64,
    grid_a: [f64; 3],
}

/// What is known of one charger.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Phases {
    /// The only phase of the charger that carries current, and since when.
    only: Option<(usize, Mono)>,
    /// The last steady current, and the one that may become the next.
    before: Option<Steady>,
    present: Option<Steady>,
    /// For each phase of the charger: the grid phase that moved along, and how often.
    votes: [Option<(usize, u8)>; 3],
    /// The charger was told to use one phase: that one carries current says nothing of the car.
    is_told_one: bool,
}

impl Phases {
    /// The one grid phase that the car draws from; `None`: all count.
    pub(crate) fn single(&self) -> Option<usize> {
        let (own, _) = self.only?;
        self.votes.get(own).copied().flatten().filter(|(_, n)| *n >= VOTES).map(|(grid, _)| grid)
    }

    /// Is the charger told to use one phase. When that changes all phases count until it is seen which do: a car that was
    /// held to one may take three at the next moment.
    pub(crate) fn told(&mut self, one: bool) {
        if std::mem::replace(&mut self.is_told_one, one) != one {
            (self.only, self.before, self.present) = (None, None, None);
        }
    }

    /// The charger and the grid look so now.
    pub(crate) fn follow(&mut self, seen: &Seen, grid_a: Option<[f64; 3]>, now: Mono) {
        if seen.fresh != Freshness::Fresh {
            (self.before, self.present) = (None, None);
            return;
        }
        if seen.is_unplugged() {
            // The next car may be another one. How the charger is wired stays known.
            *self = Self { votes: self.votes, is_told_one: self.is_told_one, ..Self::default() };
            return;
        }
        let own = seen.phase_a.map(|a| a.unwrap_or(0.0).max(0.0));
        let flows = || own.iter().enumerate().filter(|(_, a)| **a > FLOWS_A);
        match (flows().next(), flows().count()) {
            (Some((phase, _)), 1) if own.iter().filter(|a| **a > SILENT_A).count() == 1 => {
                if self.only.is_none_or(|(known, _)| known != phase) {
                    self.only = Some((phase, now));
                }
            }
            // A paused car is the same car.
            (None, _) => {}
            // More phases than one: they all count from this moment.
            _ => self.only = None,
        }
        if let (Some((phase, _)), Some(grid_a)) = (self.only, grid_a) {
            let amps = own.get(phase).copied().unwrap_or(0.0);
            self.step(phase, amps, grid_a, now);
        } else {
            (self.before, self.present) = (None, None);
        }
    }

    fn step(&mut self, phase: usize, amps: f64, grid_a: [f64; 3], now: Mono) {
        let Some(present) = &mut self.present else {
            self.present = Some(Steady { since: now, seen: now, amps, grid_a });
            return;
        };
        if (present.amps - amps).abs() > STEADY_A {
            // What was steady is the state before the step.
            if present.seen.since(present.since) >= STEADY {
                self.before = Some(*present);
            }
            self.present = Some(Steady { since: now, seen: now, amps, grid_a });
            return;
        }
        (present.seen, present.grid_a) = (now, grid_a);
        if present.seen.since(present.since) < STEADY {
            return;
        }
        let after = *present;
        let Some(before) = self.before.take() else { return };
        let moved = after.amps - before.amps;
        if moved.abs() < STEP_A || after.since.since(before.seen) > STEP_WITHIN {
            return;
        }
        // A battery that balances the house answers on all phases: the others move a little, and against it.
        let along = |p: usize| {
            let at = |s: &Steady| s.grid_a.get(p).copied().unwrap_or(0.0);
            (at(&after) - at(&before)) / moved
        };
        let Some(best) = (0..3).max_by(|a, b| along(*a).total_cmp(&along(*b))) else { return };
        let is_clear = (0.5..1.5).contains(&along(best)) && (0..3).all(|p| p == best || along(p).abs() < 0.4);
        if let (true, Some(vote)) = (is_clear, self.votes.get_mut(phase)) {
            *vote = match *vote {
                Some((known, n)) if known == best => Some((known, n.saturating_add(1))),
                // Another than before: it counts anew.
                _ => Some((best, 1)),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NOMINAL_V;

    /// Plays seconds of (car A on its own L1, grid A per phase).
    fn play(phases: &mut Phases, start: u64, rows: &[(f64, [f64; 3], u64)]) -> u64 {
        let mut now = start;
        for (amps, grid, seconds) in rows {
            for _ in 0..*seconds {
                now += 1000;
                let seen = Seen {
                    fresh: Freshness::Fresh,
                    power_w: Some(amps * NOMINAL_V),
                    phase_a: [Some(*amps), Some(0.0), Some(0.0)],
                    ..Seen::NEVER
                };
                phases.follow(&seen, Some(*grid), Mono::from_ms(now));
            }
        }
        now
    }

    #[test]
    fn two_steps_tell_how_it_is_wired() {
        let mut phases = Phases::default();
        let now = play(&mut phases, 0, &[(16.0, [3.0, 20.0, 2.0], 10), (8.0, [3.0, 12.0, 2.0], 10)]);
        assert_eq!(phases.single(), None, "one step may be chance");
        let now = play(&mut phases, now, &[(14.0, [3.5, 18.2, 1.8], 10)]);
        assert_eq!(phases.single(), Some(1), "its L1 is the house's L2");
        // Paused: the same car. Unplugged: the next may have three phases.
        let now = play(&mut phases, now, &[(0.0, [3.0, 4.0, 2.0], 10)]);
        assert_eq!(phases.single(), Some(1));
        let away = Seen { fresh: Freshness::Fresh, is_plugged: Some(false), ..Seen::NEVER };
        phases.follow(&away, None, Mono::from_ms(now + 1000));
        assert_eq!(phases.single(), None);
        play(&mut phases, now + 2000, &[(6.0, [3.0, 10.0, 2.0], 3)]);
        assert_eq!(phases.single(), Some(1), "the wiring is known");
    }

    #[test]
    fn what_one_phase_told_does_not_outlast_the_change() {
        let mut phases = Phases::default();
        phases.told(true);
        let rows = [(16.0, [20.0, 3.0, 2.0], 10), (8.0, [12.0, 3.0, 2.0], 10), (16.0, [20.0, 3.0, 2.0], 10)];
        let now = play(&mut phases, 0, &rows);
        assert_eq!(phases.single(), Some(0));
        phases.told(true);
        assert_eq!(phases.single(), Some(0), "no change");
        phases.told(false);
        assert_eq!(phases.single(), None, "it may take three now");
        // It was one phase all the same: seen again, and the wiring is known.
        play(&mut phases, now, &[(6.0, [10.0, 3.0, 2.0], 3)]);
        assert_eq!(phases.single(), Some(0));
    }

    #[test]
    fn a_kettle_at_the_same_time_proves_nothing() {
        let mut phases = Phases::default();
        let rows = [
            (16.0, [3.0, 20.0, 2.0], 10),
            // The car falls by 8 A on L2, a kettle of 9 A stops on L1: both moved along.
            (8.0, [-6.0, 12.0, 2.0], 10),
            // It rises while an oven on L2 stops: nothing moved along.
            (16.0, [-6.0, 12.5, 2.0], 10),
        ];
        play(&mut phases, 0, &rows);
        assert_eq!((phases.single(), phases.votes), (None, [None; 3]));
    }

    #[test]
    fn a_contradiction_begins_anew() {
        let mut phases = Phases::default();
        let rows = [(16.0, [20.0, 3.0, 2.0], 10), (8.0, [12.0, 3.0, 2.0], 10), (16.0, [12.0, 11.0, 2.0], 10)];
        play(&mut phases, 0, &rows);
        assert_eq!(phases.single(), None);
        assert_eq!(phases.votes.first(), Some(&Some((1, 1))));
    }

    #[test]
    fn a_second_phase_counts_at_once() {
        let mut phases = Phases::default();
        play(
            &mut phases,
            0,
            &[(16.0, [20.0, 3.0, 2.0], 10), (8.0, [12.0, 3.0, 2.0], 10), (16.0, [20.0, 3.0, 2.0], 10)],
        );
        assert_eq!(phases.single(), Some(0));
        let three = Seen {
            fresh: Freshness::Fresh,
            phase_a: [Some(16.0), Some(6.0), Some(0.0)],
            power_w: Some(5000.0),
            ..Seen::NEVER
        };
        phases.follow(&three, Some([20.0, 9.0, 2.0]), Mono::from_ms(60_000));
        assert_eq!(phases.single(), None);
    }
}
