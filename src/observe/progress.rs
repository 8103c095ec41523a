//! Does each part still make turns: what the watchdog and `/healthz` live on.
//!
//! The watchdog asks for poll and control only: nothing between a device and control waits for the store, and a restart
//! repairs no disk. It would only let go of devices that are being held well.

use crate::model::{ControlStatus, DeviceSpec, DeviceState, DeviceStatus, Mono, StoreStatus};
use std::time::Duration;

/// Control cycles and store turns come about once a second: ten missed ones are no hiccup any more.
pub(super) const WINDOW: Duration = Duration::from_secs(10);

/// What a poll may need beyond its own period: several reads that each run into a time-out, with a reconnect.
const POLL_GRACE: Duration = Duration::from_secs(30);

/// A counter and when it was last seen to move.
#[derive(Debug, Clone, Copy)]
struct Mark {
    value: u64,
    moved: Mono,
}

impl Mark {
    fn look(&mut self, value: u64, now: Mono) -> Duration {
        if value != self.value {
            *self = Self { value, moved: now };
        }
        now.since(self.moved)
    }
}

/// The marks of all parts.
#[derive(Debug)]
pub(super) struct Progress {
    control: Mark,
    store: Mark,
    devices: Vec<Mark>,
}

impl Progress {
    /// Nothing has moved yet: each part has its window from `now` on.
    pub(super) fn new(devices: usize, now: Mono) -> Self {
        let mark = Mark { value: 0, moved: now };
        Self { control: mark, store: mark, devices: vec![mark; devices] }
    }

    /// Does control stand still.
    pub(super) fn control_stands(&mut self, control: &ControlStatus, now: Mono) -> bool {
        self.control.look(control.cycles, now) > WINDOW
    }

    /// Does the store stand still: a sentence.
    pub(super) fn store_fault(&mut self, store: &StoreStatus, now: Mono) -> Option<String> {
        let quiet = self.store.look(store.turns, now);
        (quiet > WINDOW).then(|| format!("the store has made no turn for {} s", quiet.as_secs()))
    }

    /// Which of the loops that hold devices stands still, as a sentence; `None`: both turn.
    ///
    /// A failed poll is a turn too. A device that is away is no fault of ours; one that is online and yet makes no turn is.
    /// The poll as a whole stands only when every device that is online does.
    pub(super) fn loop_fault<'a>(
        &mut self,
        devices: impl Iterator<Item = (&'a DeviceSpec, DeviceStatus)>,
        control: &ControlStatus,
        now: Mono,
    ) -> Option<String> {
        let (mut online, mut stuck) = (0_usize, Vec::new());
        for ((spec, status), mark) in devices.zip(&mut self.devices) {
            let seq = status.last.as_ref().map_or(0, |s| s.seq + 1);
            let turns = seq.wrapping_add(status.failed_polls).wrapping_add(status.slipped_polls);
            let quiet = mark.look(turns, now);
            if status.state == DeviceState::Online {
                online += 1;
                if quiet > spec.poll * 3 + POLL_GRACE {
                    stuck.push(spec.id.as_str());
                }
            }
        }
        let control_quiet = self.control.look(control.cycles, now);
        if control_quiet > WINDOW {
            return Some(format!("control has made no cycle for {} s", control_quiet.as_secs()));
        }
        (online > 0 && stuck.len() == online).then(|| format!("no device is polled any more: {}", stuck.join(", ")))
    }
}
