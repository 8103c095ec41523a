//! "Until unplugged": the owner's charging commands that name no end belong to the car that stands there. Pure.

use super::view::is_plugged;
use crate::model::{DeviceId, IntentKey, Mono, Sample};
use std::collections::BTreeMap;
use std::time::Duration;

/// So many samples in a row must say that no car is there, or two that are [`SURE_AFTER`] apart: a plug that is pushed
/// in again, or a wrong word of the charger, is no end.
const SAMPLES: u8 = 3;
/// See [`SAMPLES`].
const SURE_AFTER: Duration = Duration::from_secs(10);

/// What is told to the sender.
pub(crate) const UNPLUGGED: &str = "the car was unplugged";

#[derive(Debug)]
struct Watch {
    device: DeviceId,
    /// A car was there since the command: before, it waits for one.
    was_plugged: bool,
    /// Samples without a car in a row, and the first of them.
    gone: Option<(u8, Mono)>,
}

/// The commands that end when the car leaves.
#[derive(Debug, Default)]
pub(crate) struct Sessions(BTreeMap<IntentKey, Watch>);

impl Sessions {
    /// Watch over this one.
    pub(crate) fn add(&mut self, key: IntentKey, device: DeviceId) {
        self.0.entry(key).or_insert(Watch { device, was_plugged: false, gone: None });
    }

    /// Forget those that are over for another reason.
    pub(crate) fn keep(&mut self, runs: impl Fn(&IntentKey) -> bool) {
        self.0.retain(|key, _| runs(key));
    }

    /// A charger was read: the commands whose car has left. Any word but `unplugged` and those of a car that is there
    /// says nothing.
    pub(crate) fn sample(&mut self, sample: &Sample) -> Vec<IntentKey> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let is_plugged = is_plugged(sample);
        let mut over = Vec::new();
        for (key, watch) in self.0.iter_mut().filter(|(_, watch)| watch.device == sample.device) {
            match is_plugged {
                Some(true) => (watch.was_plugged, watch.gone) = (true, None),
                Some(false) if watch.was_plugged => {
                    let (seen, first) = watch.gone.map_or((1, sample.mono), |(n, first)| (n.saturating_add(1), first));
                    watch.gone = Some((seen, first));
                    if seen >= SAMPLES || (seen > 1 && sample.mono.since(first) >= SURE_AFTER) {
                        over.push(key.clone());
                    }
                }
                Some(false) | None => {}
            }
        }
        self.0.retain(|key, _| !over.contains(key));
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BootId, ClockState, NullReason, Point, Timestamp, Value};

    /// A charger's words, second by second: in which second the command ends.
    fn ends_in(every_s: u64, words: &[&str]) -> Option<usize> {
        let device: DeviceId = "charger".parse().unwrap();
        let key = IntentKey::Limit("any");
        let mut sessions = Sessions::default();
        sessions.add(key, device.clone());
        let mut at = 0;
        words.iter().position(|word| {
            at += every_s * 1000;
            let field = match *word {
                "-" => Err(NullReason::Stale),
                word => Ok(Value::Text(word.into())),
            };
            let sample = Sample {
                device: device.clone(),
                boot: BootId::new("0123456789abcdef").unwrap(),
                seq: at,
                ts: Timestamp::from_ms(0),
                clock: ClockState::Synced,
                mono: Mono::from_ms(at),
                points: vec![(Point::State, field)],
            };
            !sessions.sample(&sample).is_empty()
        })
    }

    #[test]
    fn it_ends_with_the_car_and_with_nothing_else() {
        let (p, c, u, s) = ("plugged", "charging", "unplugged", "stopped");
        for (every_s, words, expected) in [
            (1, vec![c, u, u, u], Some(3)),
            // It waits for a car that is not there yet.
            (1, vec![u, u, u, u, u, p, c, u, u, u], Some(9)),
            // A glitch.
            (1, vec![c, u, u, c, u, u, s, u, p], None),
            // Words that say nothing neither end it nor save it.
            (1, vec![c, "-", "unknown", "asleep", "fault", "-"], None),
            (1, vec![c, u, "-", u, "unknown", u], Some(5)),
            // A slow poll: two that are far enough apart, never one.
            (10, vec![c, u, c, u, u], Some(4)),
            (5, vec![c, u, u, c], None),
        ] {
            assert_eq!(ends_in(every_s, &words), expected, "every {every_s} s: {words:?}");
        }
    }
}
