//! What waits for the disk: one queue, in order, one at a time.

use super::owner::{OWNER_WORD, OwnerAnswer};
use crate::model::{CommandId, CommandResult, DeviceId, Event, IntentKey, PlanId, Timestamp, UplinkName};
use crate::plan::PlanDoc;
use crate::store::{Admitted, NewCommand, StoreError, StoreHandle};
use serde_json::Value;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// From this length on, results of one command that wait are folded into the newest.
const FOLD_AT: usize = 64;
/// How often a result is tried again when the disk refuses it.
const SAVE_TRIES: usize = 3;
/// Pause between these tries.
const SAVE_PAUSE: Duration = Duration::from_secs(1);

/// One thing to be written down.
pub(super) enum Job {
    /// A command, and what shall happen when it is new.
    Admit(Box<Admission>),
    /// The newest result of an admitted command.
    Save(Box<CommandResult>),
    /// A result that is told and not kept; then the channel is answered.
    Tell(Box<CommandResult>, Option<oneshot::Sender<CommandResult>>),
    /// Something that people should know.
    Event(Box<Event>),
    /// A plan document.
    SavePlan(Box<PlanJob>, Arc<PlanDoc>, String),
    /// A plan is removed.
    DeletePlan(Box<PlanJob>, PlanId),
    /// What became of a plan document.
    AnswerPlan(Box<PlanJob>, Value),
    /// The owner's word; then whoever said it is answered.
    Keep(String, Option<(oneshot::Sender<OwnerAnswer>, OwnerAnswer)>),
}

/// A command on its way to the disk.
pub(super) struct Admission {
    pub(super) key: IntentKey,
    pub(super) new: NewCommand,
    pub(super) deed: Deed,
    pub(super) answer: oneshot::Sender<CommandResult>,
}

/// What happens when a command proves to be new.
pub(super) enum Deed {
    /// It acts now.
    Act(Box<super::task::Act>),
    /// It has acted already: it could not wait.
    Acted,
    /// Nothing: it came before, and only the store knows its latest result.
    Known,
    /// Nothing: it is refused.
    Refused,
}

/// Where the answer to a plan document goes.
pub(super) struct PlanJob {
    pub(super) uplink: UplinkName,
    pub(super) plan: String,
    pub(super) at: Timestamp,
    pub(super) answer: oneshot::Sender<Value>,
}

/// What the store made of a job.
pub(super) enum Done {
    Admitted(Box<Admission>, Result<Admitted, StoreError>),
    PlanSaved(Box<PlanJob>, Arc<PlanDoc>, Result<u64, StoreError>),
    PlanDeleted(Box<PlanJob>, PlanId, Result<bool, StoreError>),
    /// A result or an answer was written down, or could not be.
    Told(Result<(), StoreError>),
    /// A result of a command could not be kept.
    Unsaved(Box<CommandResult>, StoreError),
    /// The owner's word was.
    Kept(Result<(), StoreError>),
}

/// The queue.
pub(super) struct Jobs {
    store: StoreHandle,
    waiting: VecDeque<Job>,
    current: Option<Pin<Box<dyn Future<Output = Done> + Send>>>,
}

impl Jobs {
    pub(super) const fn new(store: StoreHandle) -> Self {
        Self { store, waiting: VecDeque::new(), current: None }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len() + usize::from(self.current.is_some())
    }

    pub(super) fn push(&mut self, job: Job) {
        if let Job::Save(newer) = &job
            && self.waiting.len() >= FOLD_AT
            && let Some(older) = self.waiting.iter_mut().rev().find_map(|j| match j {
                Job::Save(older) if is_same(older, newer) => Some(older),
                _ => None,
            })
        {
            older.clone_from(newer);
            return;
        }
        self.waiting.push_back(job);
    }

    /// Tell the result that the store has just answered with, before newer ones of the same command that wait already.
    pub(super) fn tell_now(&mut self, result: CommandResult, answer: oneshot::Sender<CommandResult>) {
        self.waiting.push_front(Job::Tell(Box::new(result), Some(answer)));
    }

    /// What a running command has delivered so far: no job, as losing one sum loses nothing.
    pub(super) fn delivered(&self, result: &CommandResult) {
        let parts: Option<(DeviceId, CommandId, f64)> =
            result.device.clone().zip(result.id.clone()).zip(result.delivered_wh).map(|((d, id), wh)| (d, id, wh));
        if let Some((device, id, wh)) = parts {
            self.store.delivered(result.uplink.clone(), device, id, wh);
        }
    }

    /// Forget results of a command that wait: the newest of them.
    pub(super) fn forget(&mut self, result: &CommandResult) -> Option<CommandResult> {
        let mut newest = None;
        self.waiting.retain(|job| match job {
            Job::Save(other) if is_same(other, result) => {
                newest = Some((**other).clone());
                false
            }
            _ => true,
        });
        newest
    }

    /// The next finished job; never while there is none. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Done {
        if self.current.is_none() {
            self.current = self.waiting.pop_front().map(|job| start(self.store.clone(), job));
        }
        let Some(current) = self.current.as_mut() else { return std::future::pending().await };
        let done = current.await;
        self.current = None;
        done
    }
}

fn is_same(a: &CommandResult, b: &CommandResult) -> bool {
    a.id == b.id && a.device == b.device && a.uplink == b.uplink
}

fn start(store: StoreHandle, job: Job) -> Pin<Box<dyn Future<Output = Done> + Send>> {
    match job {
        Job::Admit(admission) => Box::pin(async move {
            let admitted = store.admit(admission.new.clone()).await;
            Done::Admitted(admission, admitted)
        }),
        Job::Save(result) => Box::pin(async move {
            let mut saved = store.save_result((*result).clone()).await;
            for _ in 1..SAVE_TRIES {
                if !matches!(saved, Err(StoreError::Sqlite { .. } | StoreError::Busy)) {
                    break;
                }
                tokio::time::sleep(SAVE_PAUSE).await;
                saved = store.save_result((*result).clone()).await;
            }
            saved.map_or_else(|error| Done::Unsaved(result, error), |()| Done::Told(Ok(())))
        }),
        Job::Tell(result, answer) => Box::pin(async move {
            let told = store.tell_result((*result).clone()).await;
            if let Some(answer) = answer {
                // The channel may have gone meanwhile: its message comes again and is answered then.
                drop(answer.send(*result));
            }
            Done::Told(told)
        }),
        Job::Event(event) => Box::pin(async move { Done::Told(store.event(*event).await) }),
        Job::SavePlan(job, doc, body) => Box::pin(async move {
            let saved = store.save_plan(doc.id().clone(), body, job.uplink.clone(), job.at).await;
            Done::PlanSaved(job, doc, saved)
        }),
        Job::DeletePlan(job, id) => Box::pin(async move {
            let deleted = store.delete_plan(id.clone()).await;
            Done::PlanDeleted(job, id, deleted)
        }),
        Job::Keep(word, asked) => Box::pin(async move {
            let kept = store.set_meta(OWNER_WORD, &word).await;
            if let Some((tx, answer)) = asked {
                // Nobody may wait any more.
                drop(tx.send(match &kept {
                    Ok(()) => answer,
                    Err(error) => OwnerAnswer::NotKept(error.to_string()),
                }));
            }
            Done::Kept(kept)
        }),
        Job::AnswerPlan(job, value) => Box::pin(async move {
            let told = if job.uplink == UplinkName::local() {
                Ok(())
            } else {
                store.plan_answer(job.uplink, job.plan, value.clone()).await
            };
            // As above.
            drop(job.answer.send(value));
            Done::Told(told)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::CommandState;

    #[test]
    fn folding_keeps_the_order() {
        let (asks, _asked) = tokio::sync::mpsc::channel(1);
        let store = StoreHandle {
            asks,
            live: tokio::sync::broadcast::channel(1).0,
            next_row: Arc::default(),
            dropped: Arc::default(),
            outbox: tokio::sync::watch::channel(0).1,
            status: tokio::sync::watch::channel(crate::model::StoreStatus::default()).1,
        };
        let mut jobs = Jobs::new(store);
        let result = |id: usize, state| {
            let id = format!("c-{id}").parse().unwrap();
            let at = Timestamp::from_ms(0);
            Job::Save(Box::new(CommandResult::new("mqtt".parse().unwrap(), None, Some(id), state, at)))
        };
        jobs.push(result(0, CommandState::Written));
        jobs.push(result(0, CommandState::Verified));
        (1..=FOLD_AT).for_each(|id| jobs.push(result(id, CommandState::Written)));
        jobs.push(result(0, CommandState::Ended));
        let kept = |job: &Job| match job {
            Job::Save(result) if result.id.as_ref().is_some_and(|id| id.as_str() == "c-0") => Some(result.state),
            _ => None,
        };
        let kept: Vec<_> = jobs.waiting.iter().filter_map(kept).collect();
        assert_eq!(kept, [CommandState::Written, CommandState::Ended]);
    }
}
