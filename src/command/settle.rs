//! What becomes of commands: the store's word, control's reports, the end.

use super::jobs::{Admission, Deed, Job};
use super::task::{Act, Desk, Late};
use super::track::Tracked;
use crate::control::{ControlBusy, ControlMsg, OPTED_OUT};
use crate::model::{CommandResult, CommandState, IntentKey, IntentUpdate, Timestamp};
use crate::store::{Admitted, NewCommand, StoreError};
use std::time::Duration;
use tokio::sync::oneshot;

/// Commands that acted without the disk and are kept in memory at most.
const MOST_LATE: usize = 256;
/// How long after its deadline a command is ended without control's word.
const OVERDUE: Duration = Duration::from_secs(120);

impl Desk {
    /// The store has said whether a command is new.
    pub(super) async fn settle(&mut self, admission: Admission, admitted: Result<Admitted, StoreError>) {
        let Admission { key, new, deed, answer } = admission;
        let mut result = new.result.clone();
        match admitted {
            Ok(Admitted::New { order }) => {
                self.book.last_order = self.book.last_order.max(order);
                match deed {
                    Deed::Act(act) => result = self.carry_out(&key, *act, result).await,
                    // It acted when the disk did not work, and is kept only now.
                    Deed::Known => {
                        let at = self.clock.now();
                        let end = self.late.remove(&key).and_then(|late| late.end);
                        let latest = end.or_else(|| Some(self.book.tracked.get(&key)?.result().clone()));
                        result = latest.unwrap_or_else(|| {
                            let reason = Some("it had acted before it could be written down".to_owned());
                            ended(result, CommandState::Ended, at, reason)
                        });
                        self.jobs.push(Job::Save(Box::new(result.clone())));
                    }
                    Deed::Acted | Deed::Refused => {}
                }
                // The channel may have gone: its message comes again and gets the stored result.
                drop(answer.send(result));
            }
            Ok(Admitted::Duplicate(stored)) => {
                self.undo(&key, &deed).await;
                let again = CommandResult { reply_to: result.reply_to, ..*stored };
                self.jobs.tell_now(again, answer);
            }
            Ok(Admitted::Conflict(_)) => {
                self.undo(&key, &deed).await;
                let reason = Some("same id with another body: nothing was done".to_owned());
                let result = CommandResult { state: CommandState::Rejected, reason, ..result };
                self.jobs.push(Job::Tell(Box::new(result), Some(answer)));
            }
            Err(error) => {
                // `stop` and `idle` go on: they are the safe side. All others must not act.
                if !matches!(deed, Deed::Acted | Deed::Known) {
                    self.book.forget(&key);
                }
                if !matches!(deed, Deed::Acted) && !result.state.is_final() {
                    result.state = CommandState::Rejected;
                    result.reason = Some(format!("it could not be written down: {error}"));
                }
                if matches!(deed, Deed::Acted) && self.late.len() < MOST_LATE {
                    let end = self.jobs.forget(&result).filter(|last| last.state.is_final());
                    self.late.insert(key, Late { new: NewCommand { result: result.clone(), ..new }, end });
                }
                drop(answer.send(result));
                self.disk(&Err(error));
            }
        }
    }

    /// An old `stop` or `idle` has acted once more, as it was not in memory: take it back.
    async fn undo(&mut self, key: &IntentKey, deed: &Deed) {
        if let Deed::Acted = deed
            && let Some(tracked) = self.book.tracked.remove(key)
        {
            drop(self.jobs.forget(tracked.result()));
            self.book.remember(key);
            self.owe(ControlMsg::Withdraw(key.clone())).await;
        }
    }

    /// A new command is durable: it acts. Returns its first result.
    async fn carry_out(&mut self, key: &IntentKey, act: Act, result: CommandResult) -> CommandResult {
        if self.overtaken(key, &act.tracked) {
            let last = ended(result, CommandState::Ended, self.clock.now(), Some(OPTED_OUT.to_owned()));
            self.jobs.push(Job::Save(Box::new(last.clone())));
            return last;
        }
        let is_release = matches!(act.msg, ControlMsg::Release { .. } | ControlMsg::Withdraw(_));
        let sent = if is_release {
            self.release(key, act.msg, act.tracked.order()).await
        } else {
            self.control.send(act.msg).await
        };
        let at = self.clock.now();
        let last = match sent {
            Ok(()) if is_release => ended(result, CommandState::Ended, at, None),
            Ok(()) => {
                self.book.tracked.insert(key.clone(), act.tracked);
                return result;
            }
            Err(why) => {
                CommandResult { state: CommandState::Rejected, reason: Some(busy_reason(why)), ts: at, ..result }
            }
        };
        self.jobs.push(Job::Save(Box::new(last.clone())));
        last
    }

    /// What this source has on the device (or the site) ends; but not a `stop` or `idle` that came after the release and
    /// overtook it on its way to the disk.
    async fn release(&mut self, release: &IntentKey, msg: ControlMsg, order: u64) -> Result<(), ControlBusy> {
        let IntentKey::Command { uplink: source, device: on, .. } = release else { return Ok(()) };
        let (older, newer): (Vec<_>, Vec<_>) = self
            .book
            .tracked
            .iter()
            .filter(
                |(key, _)| matches!(key, IntentKey::Command { uplink, device, .. } if uplink == source && device == on),
            )
            .map(|(key, tracked)| (key.clone(), tracked.order()))
            .partition(|(_, o)| *o < order);
        if on.is_some() && newer.is_empty() {
            // Control tells how each of them ended.
            return self.control.send(msg).await;
        }
        for (key, _) in older {
            self.owe(ControlMsg::Withdraw(key)).await;
        }
        Ok(())
    }

    /// Control reports.
    pub(super) async fn update(&mut self, update: &IntentUpdate) {
        let Some(tracked) = self.book.tracked.get_mut(&update.key) else { return };
        let changes = tracked.apply(update);
        if changes.delivered {
            self.jobs.delivered(tracked.result());
        }
        let is_over = tracked.result().state.is_final();
        self.save(&update.key, changes.results);
        if is_over {
            self.log_end(&update.key);
        }
        if changes.withdraw {
            self.owe(ControlMsg::Withdraw(update.key.clone())).await;
        }
    }

    /// Results of a command, in order, for the disk. Of one that is not written down yet the end is kept until it is.
    fn save(&mut self, key: &IntentKey, results: Vec<CommandResult>) {
        match self.late.get_mut(key) {
            Some(late) => late.end = results.into_iter().rfind(|result| result.state.is_final()),
            None => results.into_iter().for_each(|result| self.jobs.push(Job::Save(Box::new(result)))),
        }
    }

    /// End a command from this side.
    async fn finish(&mut self, key: &IntentKey, state: CommandState, reason: &str) {
        let at = self.clock.now();
        let Some(tracked) = self.book.tracked.get_mut(key) else { return };
        let changes = tracked.settle(state, at, Some(reason.to_owned()));
        self.save(key, changes.results);
        self.log_end(key);
        self.owe(ControlMsg::Withdraw(key.clone())).await;
    }

    fn log_end(&mut self, key: &IntentKey) {
        if let Some(tracked) = self.book.tracked.remove(key) {
            let result = tracked.result();
            tracing::info!(
                uplink = %result.uplink,
                device = result.device.as_ref().map_or("site", |id| id.as_str()),
                command_id = result.id.as_ref().map_or("", |id| id.as_str()),
                state = %result.state,
                reason = result.reason.as_deref().unwrap_or_default(),
                "a command is over"
            );
            self.book.remember(key);
        }
    }

    /// A command whose end control never told is ended all the same: each reaches a final state.
    pub(super) async fn sweep(&mut self) {
        let now = self.clock.mono();
        let late = |t: &Tracked| now.since(t.deadline()) > OVERDUE;
        let keys: Vec<IntentKey> =
            self.book.tracked.iter().filter(|(_, t)| late(t)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.finish(&key, CommandState::Ended, "its time is over").await;
        }
        self.pay().await;
    }

    /// Tell control something that it must take, now or later.
    pub(super) async fn owe(&mut self, msg: ControlMsg) {
        self.owed.push_back(msg);
        self.pay().await;
    }

    pub(super) async fn pay(&mut self) {
        while let Some(msg) = self.owed.front() {
            match self.control.send(msg.clone()).await {
                Ok(()) => drop(self.owed.pop_front()),
                Err(ControlBusy::Full) => return,
                // The process ends; what matters is on disk.
                Err(ControlBusy::Stopped) => self.owed.clear(),
            }
        }
    }

    /// The ends that the disk did not take are for it again.
    pub(super) fn save_again(&mut self) {
        for (key, late) in &self.late {
            let (key, new) = (key.clone(), late.new.clone());
            // Who sent it has its answer.
            let answer = oneshot::channel().0;
            self.jobs.push(Job::Admit(Box::new(Admission { key, new, deed: Deed::Known, answer })));
        }
        for result in self.unsaved.drain(..) {
            self.jobs.push(Job::Save(Box::new(result)));
        }
    }

    /// Log the disk's trouble once when it begins and once when it ends; then what it did not take is for it again.
    pub(super) fn disk(&mut self, outcome: &Result<(), StoreError>) {
        match outcome {
            Err(error) if !self.disk_fault => {
                self.disk_fault = true;
                tracing::error!(%error, "results of commands cannot be written down");
            }
            Ok(()) if self.disk_fault => {
                self.disk_fault = false;
                tracing::info!("results of commands are written down again");
                self.save_again();
            }
            _ => {}
        }
    }
}

pub(super) fn busy_reason(why: ControlBusy) -> String {
    format!("busy: {why}")
}

fn ended(result: CommandResult, state: CommandState, at: Timestamp, reason: Option<String>) -> CommandResult {
    CommandResult { state, ts: at, ended_at: Some(at), reason, ..result }
}
