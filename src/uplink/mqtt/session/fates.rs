//! What became of a publish, and what follows from it.

use super::super::sender::{Cargo, Fate};
use super::Session;
use crate::model::{EventState, Severity};

impl Session<'_> {
    pub(super) fn settle(&mut self, topic: &str, cargo: Cargo, fate: &Fate) {
        let clock = &self.core.parts.clock;
        match fate {
            Fate::Unknown => self.lost(cargo),
            Fate::Refused(reason, is_quota) => {
                self.last_heard = clock.mono();
                self.refused(topic, cargo, reason, *is_quota);
            }
            Fate::Delivered => {
                self.last_heard = clock.mono();
                self.last_ok = Some(clock.now());
                if self.core.refusals.taken(topic, self.core.parts.clock.mono()) {
                    let text = format!("the broker takes {topic} again");
                    self.core.event("mqtt_publish_refused", Severity::Info, EventState::Cleared, text);
                }
                match cargo {
                    Cargo::Live(_, row) => self.core.telemetry.delivered(&[row]),
                    Cargo::Batch(_, rows) => self.core.telemetry.delivered(&rows),
                    Cargo::Post { id, .. } => self.core.outbox.settled(id),
                    Cargo::Busy(seq) => self.incoming.settle(seq),
                    Cargo::Statement => {}
                }
            }
        }
    }

    /// The broker will not have it: tell people once, and let the topic rest.
    pub(super) fn refused(&mut self, topic: &str, cargo: Cargo, reason: &str, is_quota: bool) {
        let now = self.core.parts.clock.mono();
        if self.core.refusals.refused(topic, reason, is_quota, now) {
            tracing::warn!(uplink = %self.core.parts.settings.name, topic, reason, "the broker refuses a publish");
            let text = format!("the broker refuses {topic}: {reason}; what belongs there waits");
            self.core.event("mqtt_publish_refused", Severity::Warning, EventState::Raised, text);
        }
        self.refuse(cargo);
    }

    pub(super) fn refuse(&mut self, cargo: Cargo) {
        match cargo {
            Cargo::Live(device, row) => self.core.telemetry.refused(&device, &[row]),
            Cargo::Batch(device, rows) => self.core.telemetry.refused(&device, &rows),
            Cargo::Post { id, is_reply } => self.core.outbox.refused(id, is_reply),
            Cargo::Busy(seq) => self.incoming.settle(seq),
            Cargo::Statement => {}
        }
    }

    pub(super) fn lost(&mut self, cargo: Cargo) {
        match cargo {
            Cargo::Live(_, row) => self.core.telemetry.lost(&[row]),
            Cargo::Batch(_, rows) => self.core.telemetry.lost(&rows),
            Cargo::Post { id, .. } => self.core.outbox.lost(id),
            // Not acknowledged: the broker delivers the command again on the next connection.
            Cargo::Busy(_) | Cargo::Statement => {}
        }
    }
}
