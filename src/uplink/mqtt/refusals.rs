//! Topics that the broker refuses: they rest for a while, and people are told once.

use crate::model::Mono;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a refused topic rests: somebody has to change the broker's rules, so there is no hurry.
const REST: Duration = Duration::from_secs(300);
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
        let refusal =
            self.topics.entry(topic.to_owned()).or_insert(Refusal { until: None, reason: String::new(), told: false });
        refusal.until = Some(now.plus(if is_quota { QUOTA_REST } else { REST }));
        reason.clone_into(&mut refusal.reason);
        !is_quota && !std::mem::replace(&mut refusal.told, true)
    }

    /// The broker took a publish. Is the end of a refusal to be told.
    pub(super) fn taken(&mut self, topic: &str) -> bool {
        // Nearly always there is none: no search.
        !self.topics.is_empty() && self.topics.remove(topic).is_some_and(|r| r.told)
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

    /// A new connection: everything may be tried again.
    pub(super) fn retry_all(&mut self) {
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
        assert!(!refusals.taken("a") && !refusals.rests("a"));
        assert!(refusals.refused("a", "not authorised", false, t0));
        assert!(!refusals.refused("a", "not authorised", false, t0), "once");
        assert!(refusals.rests("a") && !refusals.rests("b"));
        assert_eq!(refusals.error().unwrap(), "the broker refuses a: not authorised");
        assert!(refusals.rested(Mono::from_ms(299_999)).is_empty());
        assert_eq!(refusals.rested(Mono::from_ms(300_000)), ["a"]);
        assert!(!refusals.rests("a"));
        assert!(!refusals.refused("a", "not authorised", false, Mono::from_ms(300_001)), "still once");
        refusals.retry_all();
        assert!(refusals.taken("a"), "the end is told");
        assert_eq!(refusals.error(), None);
    }

    #[test]
    fn a_quota_is_not_told_and_rests_shortly() {
        let mut refusals = Refusals::default();
        assert!(!refusals.refused("a", "quota exceeded", true, Mono::from_ms(0)));
        assert_eq!(refusals.rested(Mono::from_ms(30_000)), ["a"]);
        assert!(!refusals.taken("a"));
    }
}
