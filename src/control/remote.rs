//! The owner's pause of remote control. Pure.

use super::arbiter::Decision;
use super::view::Unit;
use crate::model::{Intent, IntentKey, Mono, Pause, RemoteControl, UplinkName};

/// Is remote control paused.
#[derive(Debug, Default)]
pub(crate) struct Remote(Option<Pause>);

impl Remote {
    /// From now on; in place of an earlier pause.
    pub(crate) const fn pause(&mut self, pause: Pause) {
        self.0 = Some(pause);
    }

    pub(crate) const fn resume(&mut self) {
        self.0 = None;
    }

    /// A pause whose time is over is over.
    pub(crate) fn turn(&mut self, now: Mono) {
        if self.ends().is_some_and(|end| end <= now) {
            self.0 = None;
        }
    }

    /// When it ends by itself.
    pub(crate) fn ends(&self) -> Option<Mono> {
        self.0.and_then(|pause| pause.until).map(|end| end.mono)
    }

    pub(crate) fn status(&self) -> RemoteControl {
        self.0.map(RemoteControl::from).unwrap_or_default()
    }

    /// Take out of `intents` what has to wait.
    pub(crate) fn hold_back(&self, intents: &mut Vec<Intent>) -> HeldBack {
        let mut held = HeldBack::default();
        if self.0.is_some() {
            let (waits, goes_on) = std::mem::take(intents).into_iter().partition(is_remote);
            *intents = goes_on;
            held = HeldBack { intents: waits, reason: self.status().reason() };
        }
        held
    }
}

/// What waits for the end of the pause.
#[derive(Debug, Default)]
pub(crate) struct HeldBack {
    pub(crate) intents: Vec<Intent>,
    /// The words for their senders.
    pub(crate) reason: String,
}

impl HeldBack {
    /// Who waits belongs to the decision on its device.
    pub(crate) fn tell<'a>(&'a self, units: &[Unit], decisions: &mut [Decision<'a>]) {
        for intent in &self.intents {
            let at = units.iter().position(|unit| unit.spec.id == intent.device);
            if let Some(decision) = at.and_then(|at| decisions.get_mut(at)) {
                decision.paused.push(intent);
            }
        }
    }
}

/// Does it come from outside, and is it not of the grid operator.
fn is_remote(intent: &Intent) -> bool {
    let local = UplinkName::local();
    intent.rank.waits_in_a_pause()
        && match &intent.key {
            IntentKey::Command { uplink, .. } => *uplink != local,
            // A plan's source is the channel that it came by.
            IntentKey::Plan(_) => intent.source != local.as_str(),
            IntentKey::Limit(_) => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Action, LeaseEnd, Rank, Timestamp};

    fn intent(rank: Rank, source: &str, is_plan: bool) -> Intent {
        let uplink: UplinkName = source.parse().unwrap();
        let key = if is_plan {
            IntentKey::Plan("p".parse().unwrap())
        } else {
            IntentKey::Command { uplink, device: Some("battery".parse().unwrap()), id: "c".parse().unwrap() }
        };
        Intent {
            key,
            device: "battery".parse().unwrap(),
            action: Action::Idle,
            rank,
            source: source.to_owned(),
            accepted: 1,
            since: Timestamp::from_ms(0),
            ends_at: Timestamp::from_ms(0),
            deadline: Mono::from_ms(0),
            why: None,
        }
    }

    #[test]
    fn what_waits_and_what_does_not() {
        for (rank, source, is_plan, waits) in [
            (Rank::Command, "acme", false, true),
            (Rank::Event, "acme", false, true),
            (Rank::Plan, "acme", true, true),
            (Rank::Schedule, "acme", true, true),
            (Rank::Tag, "acme", true, true),
            (Rank::Grid, "acme", false, false),
            (Rank::Owner, "local", false, false),
            (Rank::Command, "local", false, false),
            (Rank::Plan, "local", true, false),
            (Rank::Schedule, "local", true, false),
        ] {
            assert_eq!(is_remote(&intent(rank, source, is_plan)), waits, "{rank} by {source}, a plan: {is_plan}");
        }
    }

    #[test]
    fn a_pause_ends_by_itself_on_the_monotonic_clock() {
        let mut remote = Remote::default();
        let wall = Timestamp::from_ms(1_800_000_000_000);
        remote.pause(Pause { until: Some(LeaseEnd { mono: Mono::from_ms(1000), wall }) });
        remote.turn(Mono::from_ms(999));
        assert_eq!(remote.status().reason(), "the owner paused remote control until 2027-01-15T08:00:00.000Z");
        remote.turn(Mono::from_ms(1000));
        assert!(!remote.status().paused);
        remote.pause(Pause { until: None });
        remote.turn(Mono::from_ms(u64::MAX));
        assert_eq!(remote.status().reason(), "the owner paused remote control");
    }
}
