//! Topics that the broker refuses: they rest for a while, and people are told once.

use crate::model::Mono;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a refused topic rests at first; then twice as long each time.
const REST: Duration = Duration::from_secs(15);
/// How long it rests at most: a small message a minute is a cheap way to learn that somebody changed the broker's rules.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// How long a topic with large messages rests at most: they cost a metered line something.
const LONGEST_LARGE_REST: Duration = Duration::from_secs(300);
/// How long it rests when only a quota was exceeded.
const QUOTA_REST: Duration = Duration::from_secs(30);

/// Refused topics.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    topics: BTreeMap<String, Refusal>,
}

#[derive(Debug)]
struct Refusal {
    /// It rests until then; `None`: it is being tried again.
    until: Option<Mono>,
    /// How long it rested last.
    rest: Duration,
    reason: String,
    /// The event was raised.
    told: bool,
}

impl Refusals {
    /// Does this topic rest.
    pub(super) fn rests(&self, topic: &str) -> bool {
        self.topics.get(topic).is_some_and(|r| r.until.is_some())
    }

    /// The broker refused a publish. Is that to be told: not for a quota, and once only.
    pub(super) fn refused(&mut self, topic: &str, reason: &str, is_quota: bool, now: Mono) -> bool {
        let refusal = self.topics.entry(topic.to_owned()).or_insert(Refusal {
            until: None,
            rest: Duration::ZERO,
            reason: String::new(),
            told: false,
        });
        // What was under way when the first one was refused does not make the rest longer.
        if is_quota {
            refusal.until = Some(now.plus(QUOTA_REST));
        } else if refusal.until.is_none() {
            let longest = if topic.ends_with("/backfill") { LONGEST_LARGE_REST } else { LONGEST_REST };
            refusal.rest = (refusal.rest * 2).clamp(REST, longest);
            refusal.until = Some(now.plus(refusal.rest));
        }
        reason.clone_into(&mut refusal.reason);
        !is_quota && !std::mem::replace(&mut refusal.told, true)
    }

    /// The broker took a publish. Is the end of a refusal to be told. The broker's rules have changed then, so that all
    /// others are tried again at once.
    pub(super) fn taken(&mut self, topic: &str, now: Mono) -> bool {
        // Nearly always there is none: no search.
        if self.topics.is_empty() {
            return false;
        }
        let was_refused = self.topics.remove(topic).is_some_and(|r| r.told);
        if was_refused {
            for refusal in self.topics.values_mut().filter(|r| r.told && r.until.is_some()) {
                refusal.until = Some(now);
            }
        }
        was_refused
    }

    /// Topics whose rest is over: they may be tried again.
    pub(super) fn rested(&mut self, now: Mono) -> Vec<String> {
        let over = |r: &&mut Refusal| r.until.is_some_and(|until| until <= now);
        self.topics
            .iter_mut()
            .filter_map(|(topic, r)| {
                let r = Some(r).filter(over)?;
                r.until = None;
                Some(topic.clone())
            })
            .collect()
    }

    /// Nothing will be sent there again until somebody asks for it: no word about it any more.
    pub(super) fn forget(&mut self, topic: &str) {
        self.topics.remove(topic);
    }

    /// A new connection: everything may be tried again. Of topics that are not `ours` there is no word any more.
    pub(super) fn retry_all(&mut self, ours: impl Fn(&str) -> bool) {
        self.topics.retain(|topic, _| ours(topic));
        for refusal in self.topics.values_mut() {
            refusal.until = None;
        }
    }

    /// For people, while there are any.
    pub(super) fn error(&self) -> Option<String> {
        let (topic, refusal) = self.topics.iter().next()?;
        let more = match self.topics.len() - 1 {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        Some(format!("the broker refuses {topic}{more}: {}", refusal.reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_once_and_tried_again() {
        let mut refusals = Refusals::default();
        let t0 = Mono::from_ms(0);
        assert!(!refusals.taken("a", t0) && !refusals.rests("a"));
        assert!(refusals.refused("a", "not authorised", false, t0));
        assert!(!refusals.refused("a", "not authorised", false, t0), "once");
        assert!(refusals.rests("a") && !refusals.rests("b"));
        assert_eq!(refusals.error().unwrap(), "the broker refuses a: not authorised");
        assert!(refusals.rested(Mono::from_ms(14_999)).is_empty());
        assert_eq!(refusals.rested(Mono::from_ms(15_000)), ["a"]);
        assert!(!refusals.rests("a"));
        assert!(!refusals.refused("a", "not authorised", false, Mono::from_ms(15_001)), "still once");
        refusals.refused("reply", "not authorised", false, Mono::from_ms(15_001));
        refusals.retry_all(|topic| topic == "a");
        assert!(refusals.taken("a", Mono::from_ms(15_002)), "the end is told");
        assert_eq!(refusals.error(), None);
    }

    #[test]
    fn rests_grow_and_what_is_large_rests_longest() {
        for (topic, rests) in [("d/telemetry", [15, 30, 60, 60, 60, 60]), ("d/backfill", [15, 30, 60, 120, 240, 300])] {
            let mut refusals = Refusals::default();
            let mut now = 0;
            for rest in rests {
                refusals.refused(topic, "not authorised", false, Mono::from_ms(now));
                // Others of the same topic that were under way.
                refusals.refused(topic, "not authorised", false, Mono::from_ms(now + 10));
                assert!(refusals.rested(Mono::from_ms(now + rest * 1000 - 1)).is_empty(), "{topic} {rest}");
                now += rest * 1000;
                assert_eq!(refusals.rested(Mono::from_ms(now)), [topic], "{rest}");
            }
        }
    }

    #[test]
    fn one_that_is_taken_again_wakes_the_others() {
        let mut refusals = Refusals::default();
        for topic in ["a", "b", "c"] {
            refusals.refused(topic, "not authorised", false, Mono::from_ms(0));
        }
        refusals.refused("q", "quota exceeded", true, Mono::from_ms(0));
        assert!(refusals.taken("b", Mono::from_ms(1000)));
        assert_eq!(refusals.rested(Mono::from_ms(1000)), ["a", "c"], "but not the quota's");
        for topic in ["a", "c", "q"] {
            refusals.forget(topic);
        }
        assert_eq!(refusals.error(), None);
    }

    #[test]
    fn a_quota_is_not_told_and_rests_shortly() {
        let mut refusals = Refusals::default();
        assert!(!refusals.refused("a", "quota exceeded", true, Mono::from_ms(0)));
        assert_eq!(refusals.rested(Mono::from_ms(30_000)), ["a"]);
        assert!(!refusals.taken("a", Mono::from_ms(30_000)));
    }
}
