//! Readings: one request after the other, at the same instants for every device of the gateway.

use super::find::is_silence;
use super::task::DeviceTask;
use crate::link::LinkError;
use crate::model::{Mono, Sample, Timestamp};
use crate::profile::{Answer, Refusal, Request};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// So many polls in a row without any answer, and the device is offline: one lost answer is daily life on a bus.
const PATIENCE: u32 = 3;

/// What one answer led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing to tell yet.
    More,
    /// A sample went out.
    Sampled,
    /// The device is silent: why.
    Silent(String),
}

#[derive(Debug)]
pub(super) struct Poll {
    every: Duration,
    next: Mono,
    run: Option<Run>,
    silent: u32,
    pub(super) last_good: Mono,
    seq: u64,
    dropped: u64,
}

#[derive(Debug)]
struct Run {
    answers: Vec<Result<Answer, Refusal>>,
    answered: bool,
    started: Mono,
    wall: Timestamp,
}

impl Poll {
    pub(super) fn new(every: Duration) -> Self {
        // A poll time of zero is refused by the configuration; here it would be a loop without end.
        let every = every.max(Duration::from_millis(100));
        Self { every, next: Mono::default(), run: None, silent: 0, last_good: Mono::default(), seq: 0, dropped: 0 }
    }

    /// Give up the running poll: the connection it was made over is gone.
    pub(super) fn forget(&mut self) {
        self.run = None;
        self.silent = 0;
    }

    /// Is one under way.
    pub(super) const fn is_running(&self) -> bool {
        self.run.is_some()
    }

    /// The first poll after being found does not wait for its turn.
    pub(super) const fn start_now(&mut self, now: Mono) {
        self.next = now;
    }

    pub(super) const fn due(&self) -> Option<Mono> {
        // A running poll wants its next request at once.
        Some(if self.run.is_some() { Mono::from_ms(0) } else { self.next })
    }

    /// Begin a poll: how many were missed.
    fn begin(&mut self, now: Mono, wall: Timestamp, reads: usize) -> u64 {
        let every = u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX).max(1);
        let missed = u64::try_from(now.since(self.next).as_millis()).unwrap_or(u64::MAX) / every;
        // Multiples of the interval on the scale of the process: all devices read at the same instants, so that sums
        // over devices are sums of one moment.
        self.next = Mono::from_ms((now.ms() / every + 1).saturating_mul(every));
        self.run = Some(Run { answers: Vec::with_capacity(reads), answered: false, started: now, wall });
        missed
    }
}

impl DeviceTask {
    pub(super) fn next_read(&mut self, now: Mono) -> Option<Request> {
        let reads = self.driver.reads().len();
        if reads == 0 {
            // Nothing to read: look again at the next turn, as a rediscovery may change that.
            if now >= self.poll.next {
                self.poll.next = now.plus(self.poll.every);
            }
            return None;
        }
        if self.poll.run.is_none() {
            if now < self.poll.next {
                return None;
            }
            let missed = self.poll.begin(now, self.clock.now(), reads);
            if missed > 0 {
                self.out.status.send_modify(|s| s.slipped_polls += missed);
            }
        }
        let asked = self.poll.run.as_ref().map_or(0, |run| run.answers.len());
        self.driver.reads().get(asked).cloned()
    }

    pub(super) fn take_read(&mut self, now: Mono, answer: Result<Answer, LinkError>) -> Turn {
        let Some(run) = &mut self.poll.run else { return Turn::More };
        let mut silent = None;
        match answer {
            Ok(answer) => {
                run.answered = true;
                run.answers.push(Ok(answer));
            }
            Err(LinkError::Refused(refusal)) if !is_silence(&refusal) => {
                run.answered = true;
                run.answers.push(Err(refusal));
            }
            Err(error) => {
                let why = error.to_string();
                // A broken connection ends the poll; so does a first block without an answer: the other blocks of a
                // silent device would only keep the bus from those that answer.
                if !matches!(error, LinkError::Timeout(_) | LinkError::Refused(_)) {
                    run.answered = false;
                }
                if !run.answered {
                    silent = Some(why.clone());
                }
                run.answers.push(Err(Refusal::Malformed(why)));
            }
        }
        if let Some(why) = silent {
            self.poll.run = None;
            self.poll.silent += 1;
            let gone = self.poll.silent >= PATIENCE;
            self.out.status.send_modify(|s| s.failed_polls += 1);
            return if gone { Turn::Silent(why) } else { Turn::More };
        }
        if run.answers.len() < self.driver.reads().len() {
            return Turn::More;
        }
        let Some(run) = self.poll.run.take() else { return Turn::More };
        self.sample(now, &run);
        Turn::Sampled
    }

    fn sample(&mut self, now: Mono, run: &Run) {
        let points = self.driver.decode(&run.answers);
        let half = now.since(run.started) / 2;
        let sample = Arc::new(Sample {
            device: self.spec.id.clone(),
            ts: run.wall.plus(half),
            mono: run.started.plus(half),
            boot: self.boot.clone(),
            seq: self.poll.seq,
            clock: self.clock.state(),
            points,
        });
        self.poll.seq += 1;
        self.poll.silent = 0;
        self.poll.last_good = now;
        self.out.store.offer(Arc::clone(&sample));
        if let Err(mpsc::error::TrySendError::Full(_)) = self.out.samples.try_send(Arc::clone(&sample)) {
            self.poll.dropped += 1;
            if self.poll.dropped.is_power_of_two() {
                tracing::warn!(device = %self.spec.id, dropped = self.poll.dropped, "control is behind with samples");
            }
        }
        let rejected = self.driver.rejected_values();
        self.out.status.send_modify(|status| {
            status.last = Some(sample);
            status.rejected_values = rejected;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_keep_to_multiples_and_count_what_they_missed() {
        let mut poll = Poll::new(Duration::from_secs(10));
        poll.start_now(Mono::from_ms(3_200));
        let mut at = |ms| (poll.begin(Mono::from_ms(ms), Timestamp::default(), 1), poll.next.ms());
        assert_eq!(at(3_200), (0, 10_000), "the first at once, then aligned");
        assert_eq!(at(10_004), (0, 20_000));
        assert_eq!(at(47_000), (2, 50_000), "20 s was late, 30 s and 40 s were left out");
        assert_eq!(at(50_000), (0, 60_000));
    }
}
