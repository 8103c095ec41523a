//! A grid meter that answers, and always the same: behind a data logger that lost its meter the last values stay for ever.
//! A house never draws the same to the last digit while the car or the sun in it changes by a kilowatt. Pure.

use crate::model::{Mono, NullReason, Point, Sample, Value};
use std::time::Duration;

/// Devices that are measured for themselves changed by so much, W.
const MOVED_W: f64 = 1000.0;
/// A meter that is slower than its devices gets this time to follow, or three polls.
const FOLLOWS: Duration = Duration::from_secs(15);

/// What a device shows so soon after the meter may be in the meter's word already: they are read at different instants.
const SKEW: Duration = Duration::from_secs(10);

/// What the grid meter last said that was new, and what the rest did since then.
#[derive(Debug)]
pub(crate) struct Frozen {
    points: Vec<(Point, Result<Value, NullReason>)>,
    since: Mono,
    /// What all devices fed in together a little later, W.
    net_w: Option<f64>,
    moved: Option<Mono>,
    is_frozen: bool,
}

impl Default for Frozen {
    fn default() -> Self {
        Self { points: Vec::new(), since: Mono::from_ms(0), net_w: None, moved: None, is_frozen: false }
    }
}

impl Frozen {
    /// The meter was read; `net_w` is what all devices feed in now, W, where all of them tell. Is it frozen? Then nothing of
    /// it counts until it says something else.
    pub(crate) fn follow(&mut self, sample: &Sample, net_w: Option<f64>, poll: Duration, now: Mono) -> bool {
        if self.points != sample.points {
            *self = Self { points: sample.points.clone(), since: now, net_w, moved: None, is_frozen: false };
            return false;
        }
        if now.since(self.since) < SKEW {
            self.net_w = net_w;
        }
        match (self.net_w, net_w) {
            (Some(then), Some(now_w)) if (now_w - then).abs() >= MOVED_W => {
                let since = *self.moved.get_or_insert(now);
                self.is_frozen |= now.since(since) >= FOLLOWS.max(poll * 3);
            }
            (then, _) => {
                self.net_w = then.or(net_w);
                self.moved = None;
            }
        }
        self.is_frozen
    }
}
