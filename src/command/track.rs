//! How a command fares: from control's updates to the results that its sender gets. Pure.

use crate::model::{Applied, CommandResult, CommandState, Evidence, IntentUpdate, Mono, Progress, Stage, Timestamp};

/// A command on its way to its one final state.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracked {
    result: CommandResult,
    /// A standing setting: done when it is verified.
    is_standing: bool,
    /// The effect was seen before the registers were read back.
    effect_seen: bool,
    /// When it ends at the latest, monotonic.
    deadline: Mono,
    /// Its order of acceptance.
    order: u64,
    /// What it had delivered before this run of derd, Wh.
    before_wh: Option<f64>,
    /// It is of rank event: when that ends, wall time.
    event_end: Option<Timestamp>,
}

/// What an update did to a command.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Changes {
    /// The results to save and to tell, in order. Empty: nothing that its sender needs to know.
    pub results: Vec<CommandResult>,
    /// The device refused or lost it: control must forget its intent.
    pub withdraw: bool,
    /// What it has delivered has grown: to be kept, not to be told.
    pub delivered: bool,
}

impl Tracked {
    /// From its latest result; `is_standing`: it is done when it is verified; `deadline`: when control ends it; `order`:
    /// its order of acceptance.
    #[must_use]
    pub const fn new(result: CommandResult, is_standing: bool, deadline: Mono, order: u64) -> Self {
        let before_wh = result.delivered_wh;
        Self { result, is_standing, effect_seen: false, deadline, order, before_wh, event_end: None }
    }

    /// It is of rank event, and ends then.
    #[must_use]
    pub const fn event_until(mut self, ends_at: Timestamp) -> Self {
        self.event_end = Some(ends_at);
        self
    }

    /// When the event ends that it belongs to; `None`: it is of another rank.
    #[must_use]
    pub const fn event_end(&self) -> Option<Timestamp> {
        self.event_end
    }

    /// Its order of acceptance.
    #[must_use]
    pub const fn order(&self) -> u64 {
        self.order
    }

    /// When control ends it.
    #[must_use]
    pub const fn deadline(&self) -> Mono {
        self.deadline
    }

    /// Its latest result.
    #[must_use]
    pub const fn result(&self) -> &CommandResult {
        &self.result
    }

    /// Take an update in. After a final state nothing changes any more.
    pub fn apply(&mut self, update: &IntentUpdate) -> Changes {
        let mut changes = Changes::default();
        if self.result.state.is_final() {
            return changes;
        }
        let at = update.at;
        match &update.progress {
            Progress::Active(applied) => self.active(at, applied, &mut changes),
            Progress::Device { stage, evidence } => self.device(at, stage, evidence, &mut changes),
            Progress::Effect => self.effect(at, &mut changes),
            Progress::Suspended(by) => {
                let reason = Some(by.clone());
                if self.result.state != CommandState::Suspended || self.result.reason != reason {
                    self.effect_seen = false;
                    self.enter(CommandState::Suspended, at, reason, &mut changes);
                }
            }
            Progress::Superseded(by) => self.finish(CommandState::Superseded, at, Some(by.clone()), &mut changes),
            Progress::Ended { delivered_wh } => {
                let reason = self.early_end();
                self.delivered(*delivered_wh);
                self.finish(CommandState::Ended, at, reason, &mut changes);
            }
            Progress::Cut { why, delivered_wh } => {
                self.delivered(*delivered_wh);
                self.finish(CommandState::Ended, at, Some(why.clone()), &mut changes);
            }
            Progress::Delivered { wh } => {
                self.delivered(Some(*wh));
                changes.delivered = true;
            }
        }
        changes
    }

    /// End it for a reason of this room's own.
    pub fn settle(&mut self, state: CommandState, at: Timestamp, reason: Option<String>) -> Changes {
        let mut changes = Changes::default();
        if !self.result.state.is_final() {
            self.finish(state, at, reason, &mut changes);
        }
        changes
    }

    /// What it has delivered in this run of derd comes on top of what it had before.
    fn delivered(&mut self, wh: Option<f64>) {
        if let Some(wh) = wh {
            self.result.delivered_wh = Some(wh + self.before_wh.unwrap_or(0.0));
        }
    }

    /// Why an end comes without an effect.
    fn early_end(&self) -> Option<String> {
        match self.result.state {
            CommandState::Suspended => {
                let by = self.result.reason.as_deref().unwrap_or("a higher rank");
                Some(format!("ended while it waited: {by}"))
            }
            CommandState::Accepted if self.result.started_at.is_none() => {
                Some("ended before the device reported that it took it".to_owned())
            }
            _ => None,
        }
    }

    fn active(&mut self, at: Timestamp, applied: &Applied, changes: &mut Changes) {
        let differs = self.result.applied != applied.params || self.result.limited_by != applied.limited_by;
        if differs {
            self.result.applied.clone_from(&applied.params);
            self.result.limited_by.clone_from(&applied.limited_by);
        }
        if self.result.state == CommandState::Suspended {
            self.enter(CommandState::Accepted, at, Some("resumed".to_owned()), changes);
            return;
        }
        // A limit of the site has no device that could report: it counts from the moment control applies it.
        if self.result.device.is_none() && self.result.started_at.is_none() {
            self.result.started_at = Some(at);
        }
        if differs {
            self.result.ts = at;
            changes.results.push(self.result.clone());
        }
    }

    fn device(&mut self, at: Timestamp, stage: &Stage, evidence: &[Evidence], changes: &mut Changes) {
        // A report that was on its way when a higher rank took the device says nothing about now.
        if self.result.state == CommandState::Suspended {
            return;
        }
        match stage {
            Stage::Written => {
                self.result.started_at.get_or_insert(at);
                if self.result.state == CommandState::Accepted {
                    self.take(evidence);
                    self.enter(CommandState::Written, at, None, changes);
                }
            }
            Stage::Verified => {
                self.result.started_at.get_or_insert(at);
                let is_new = self.take(evidence);
                match self.result.state {
                    CommandState::Accepted | CommandState::Written => {
                        self.enter(CommandState::Verified, at, None, changes);
                        if self.is_standing {
                            self.finish(CommandState::Ended, at, None, changes);
                        } else if self.effect_seen {
                            self.enter(CommandState::Held, at, None, changes);
                        }
                    }
                    // Written again with other values, as what is applied has changed: the new proof.
                    _ if is_new => {
                        self.result.ts = at;
                        changes.results.push(self.result.clone());
                    }
                    _ => {}
                }
            }
            Stage::Failed(why) | Stage::Reverted(why) => {
                self.take(evidence);
                let state =
                    if matches!(stage, Stage::Failed(_)) { CommandState::Failed } else { CommandState::Reverted };
                self.finish(state, at, Some(why.clone()), changes);
                changes.withdraw = true;
            }
        }
    }

    fn effect(&mut self, at: Timestamp, changes: &mut Changes) {
        let is_site = self.result.device.is_none();
        match self.result.state {
            CommandState::Verified => self.enter(CommandState::Held, at, None, changes),
            CommandState::Accepted if is_site => self.enter(CommandState::Held, at, None, changes),
            CommandState::Accepted | CommandState::Written => self.effect_seen = true,
            _ => {}
        }
    }

    /// Keep new proof; is it another than before, apart from its time.
    fn take(&mut self, evidence: &[Evidence]) -> bool {
        let same = |a: &Evidence, b: &Evidence| a.address == b.address && a.wrote == b.wrote && a.read == b.read;
        let is_new = evidence.len() != self.result.evidence.len()
            || !evidence.iter().zip(&self.result.evidence).all(|(a, b)| same(a, b));
        if is_new && !evidence.is_empty() {
            self.result.evidence = evidence.to_vec();
            return true;
        }
        false
    }

    fn enter(&mut self, state: CommandState, at: Timestamp, reason: Option<String>, changes: &mut Changes) {
        self.result.state = state;
        self.result.ts = at;
        self.result.reason = reason;
        changes.results.push(self.result.clone());
    }

    fn finish(&mut self, state: CommandState, at: Timestamp, reason: Option<String>, changes: &mut Changes) {
        self.result.ended_at = Some(at);
        // What the device did before it took the command is not the command's.
        if self.result.started_at.is_none() {
            self.result.delivered_wh = Some(0.0);
        }
        self.enter(state, at, reason, changes);
    }
}
