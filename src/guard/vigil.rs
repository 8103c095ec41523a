//! For how long the daemon has been dead: pure, time is an argument.

use super::lock::Look;
use crate::model::Mono;
use std::time::Duration;

/// One run of the daemon must live for so long before it counts as back: a daemon that starts and dies again and again never
/// comes so far as to release anything (it waits 15 s for its plans and commands).
pub(super) const STEADY: Duration = Duration::from_secs(30);

/// What the looks of the guard have shown so far.
#[derive(Debug, Default)]
pub(super) struct Vigil {
    dead_since: Option<Mono>,
    /// The run that was seen last, and since when without a break.
    run: Option<(String, Mono)>,
}

impl Vigil {
    /// Take in a look. Returns for how long there has been no daemon that lives; `None`: there is one.
    pub(super) fn saw(&mut self, look: &Look, now: Mono) -> Option<Duration> {
        match look {
            Look::Dead => {
                self.run = None;
                self.dead_since.get_or_insert(now);
            }
            Look::Alive(run) => {
                let since = match &self.run {
                    Some((known, since)) if known == run => *since,
                    // It died between two looks, and has come back: on trial.
                    Some(_) => {
                        self.dead_since.get_or_insert(now);
                        now
                    }
                    None => now,
                };
                self.run = Some((run.clone(), since));
                if now.since(since) >= STEADY {
                    self.dead_since = None;
                }
            }
            Look::Unknown(_) => *self = Self::default(),
        }
        self.dead_since.map(|since| now.since(since))
    }

    /// Something was done about it: the time begins anew.
    pub(super) const fn begin_anew(&mut self) {
        self.dead_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_run_that_lasts_is_alive() {
        let alive = |run: &str| Look::Alive(run.to_owned());
        let s = |n: u64| Mono::from_ms(n * 1000);
        let dead = |n: u64| Some(Duration::from_secs(n));
        let mut vigil = Vigil::default();
        for (at, look, want) in [
            (0, alive("a"), None),
            (10, alive("a"), None),
            (20, Look::Dead, dead(0)),
            (30, Look::Dead, dead(10)),
            // restarted: on trial
            (40, alive("b"), dead(20)),
            (60, alive("b"), dead(40)),
            // and dead again: the time has gone on
            (65, Look::Dead, dead(45)),
            (70, alive("c"), dead(50)),
            // seen alive twice, but not the same run
            (80, alive("d"), dead(60)),
            (100, alive("d"), dead(80)),
            (110, alive("d"), None),
            // it dies between the looks, and never is seen dead
            (120, alive("e"), dead(0)),
            (130, alive("f"), dead(10)),
            (140, alive("f"), dead(20)),
            (160, alive("f"), None),
            (170, Look::Dead, dead(0)),
            (180, Look::Unknown("?".into()), None),
            (190, Look::Dead, dead(0)),
        ] {
            assert_eq!(vigil.saw(&look, s(at)), want, "at {at} s");
        }
        vigil.begin_anew();
        assert_eq!(vigil.saw(&Look::Dead, s(500)), dead(0));
    }
}
