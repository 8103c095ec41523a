//! The loop: commands and plans in, intents to control, results to the store.

use super::jobs::{Done, Job, Jobs, PlanJob};
use super::owner::{Owner, OwnerAsk};
use super::plans::{PlanSummary, Plans, Verdict, answer};
use super::{CommandHandle, INBOX, RawCommand, RawPlan, Recovered, Tracked, recover};
use crate::control::{ControlHandle, ControlMsg};
use crate::model::{
    CommandResult, DeviceId, DeviceSpec, DeviceStatus, IntentKey, IntentUpdate, Mono, OwnerWord, PlanId, PlanState,
    SiteSpec, UplinkName,
};
use crate::runtime::{Clock, Exit, Shutdown};
use crate::store::{NewCommand, OpenCommand, StoreError, StoreHandle, StoredPlan};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Ids kept in memory, over a restart too, so that a `stop` that comes again does not act while the disk is asked.
pub const RECENT: usize = 256;
/// How often what depends on time alone is looked at again.
const TURN: Duration = Duration::from_secs(60);
/// How often it is seen whether plans that look at the house changed their minds.
const LOOK: Duration = Duration::from_secs(2);
/// How often control is asked again to take what it must take.
const OWED_PAUSE: Duration = Duration::from_secs(1);
/// How long the disk gets at the end.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// What the task is made of.
pub struct CommandParts {
    /// The configured devices.
    pub devices: Vec<DeviceSpec>,
    /// The site.
    pub site: SiteSpec,
    /// What each device says of itself.
    pub capabilities: BTreeMap<DeviceId, watch::Receiver<DeviceStatus>>,
    /// The store.
    pub store: StoreHandle,
    /// Control.
    pub control: ControlHandle,
    /// Control's reports.
    pub updates: mpsc::Receiver<IntentUpdate>,
    /// The clock.
    pub clock: Clock,
    /// Commands that an earlier run left open: the same that [`recover`] was given for control.
    pub open: Vec<OpenCommand>,
    /// The commands that came last before, open or not, oldest first: [`RECENT`] of them.
    pub recent: Vec<IntentKey>,
    /// Plans of an earlier run: the same.
    pub plans: Vec<StoredPlan>,
    /// The owner's word of an earlier run: the same.
    pub owner: OwnerWord,
}

/// The task. Nothing happens until it is run.
pub struct CommandTask {
    commands: mpsc::Receiver<RawCommand>,
    documents: mpsc::Receiver<RawPlan>,
    updates: mpsc::Receiver<IntentUpdate>,
    asks: mpsc::Receiver<OwnerAsk>,
    summaries: watch::Sender<Arc<Vec<PlanSummary>>>,
    /// How the plans that look at the house stood when that was last told.
    told_states: BTreeMap<PlanId, Arc<PlanState>>,
    desk: Desk,
}

/// Everything but the channels that the loop waits on.
pub(super) struct Desk {
    pub(super) devices: Vec<DeviceSpec>,
    pub(super) site: SiteSpec,
    pub(super) status: BTreeMap<DeviceId, watch::Receiver<DeviceStatus>>,
    pub(super) control: ControlHandle,
    pub(super) clock: Clock,
    pub(super) jobs: Jobs,
    pub(super) plans: Plans,
    /// A document is on its way to the disk: the next waits for it.
    pub(super) plan_in_work: bool,
    pub(super) book: Book,
    pub(super) owner: Owner,
    /// What control did not take yet and must take.
    pub(super) owed: VecDeque<ControlMsg>,
    pub(super) retained: u64,
    pub(super) retained_told: Option<Mono>,
    pub(super) disk_fault: bool,
    /// Ends of commands that the disk did not take: at most one of each that ran.
    pub(super) unsaved: Vec<CommandResult>,
    /// What acted although the disk did not take it: it is written down before anything is told of it.
    pub(super) late: BTreeMap<IntentKey, Late>,
}

/// The commands that run.
pub(super) struct Book {
    pub(super) tracked: BTreeMap<IntentKey, Tracked>,
    pub(super) recent: VecDeque<IntentKey>,
    /// Order of acceptance, growing; it follows the store's.
    pub(super) last_order: u64,
}

/// A `stop` or `idle` that acted and is not written down.
pub(super) struct Late {
    pub(super) new: NewCommand,
    /// Its end, when it came meanwhile.
    pub(super) end: Option<CommandResult>,
}

/// What a command does once it is written down.
pub(super) struct Act {
    pub(super) msg: ControlMsg,
    pub(super) tracked: Tracked,
}

/// Make the task and its handle.
#[must_use]
pub fn create(parts: CommandParts) -> (CommandHandle, CommandTask) {
    let (commands_tx, commands) = mpsc::channel(INBOX);
    let (plans_tx, documents) = mpsc::channel(INBOX);
    let (asks_tx, asks) = mpsc::channel(INBOX);
    let found = recover(&parts.open, &parts.plans, &parts.devices, &parts.site, &parts.owner, &parts.clock);
    let mut jobs = Jobs::new(parts.store.clone());
    let (plans, mut book) = take_up(found, &mut jobs, &parts.plans);
    parts.recent.iter().for_each(|key| book.remember(key));
    let states = parts.control.status().borrow().plans.clone();
    let (summaries, summaries_rx) = watch::channel(Arc::new(plans.summaries(parts.clock.now(), &states)));
    let owner = Owner::new(&parts.owner, &parts.clock);
    let desk = Desk {
        devices: parts.devices,
        site: parts.site,
        status: parts.capabilities,
        control: parts.control,
        clock: parts.clock,
        jobs,
        plans,
        plan_in_work: false,
        book,
        owner,
        owed: VecDeque::new(),
        retained: 0,
        retained_told: None,
        disk_fault: false,
        unsaved: Vec::new(),
        late: BTreeMap::new(),
    };
    let told_states = BTreeMap::new();
    let task = CommandTask { commands, documents, updates: parts.updates, asks, summaries, told_states, desk };
    (CommandHandle { commands: commands_tx, plans: plans_tx, asks: asks_tx, summaries: summaries_rx }, task)
}

fn take_up(found: Recovered, jobs: &mut Jobs, stored: &[StoredPlan]) -> (Plans, Book) {
    let mut book = Book { tracked: found.tracked, recent: VecDeque::new(), last_order: found.last_order };
    for result in found.settled {
        if let Some(id) = result.id.clone() {
            book.remember(&IntentKey::Command { uplink: result.uplink.clone(), device: result.device.clone(), id });
        }
        jobs.push(Job::Save(Box::new(result)));
    }
    let mut plans = Plans::default();
    for (doc, order, _) in found.plans {
        if let Some(plan) = stored.iter().find(|plan| plan.order == order && plan.id == *doc.id()) {
            plans.put(doc, plan.source.clone());
        }
    }
    for (id, reasons) in found.refused_plans {
        tracing::warn!(plan = %id, reasons = %reasons.join("; "), "a stored plan does not fit this configuration");
    }
    (plans, book)
}

impl CommandTask {
    /// Run until shutdown. What waits for the disk then gets 3 s.
    pub async fn run(mut self, mut shutdown: Shutdown) -> Exit {
        let mut turn = tokio::time::interval(TURN);
        let mut look = tokio::time::interval(LOOK);
        let exit = loop {
            let owes = !self.desk.owed.is_empty();
            let takes_plans = !self.desk.plan_in_work;
            let pause_left = self.desk.owner.left(self.desk.clock.mono());
            tokio::select! {
                biased;
                () = shutdown.wait() => break Exit::Shutdown,
                update = self.updates.recv() => match update {
                    Some(update) => self.desk.update(&update).await,
                    None => break Exit::Orphaned,
                },
                Some(ask) = self.asks.recv() => self.desk.owner_asks(ask).await,
                raw = self.commands.recv() => match raw {
                    Some(raw) => self.desk.command(raw).await,
                    None => break Exit::Orphaned,
                },
                done = self.desk.jobs.next() => {
                    if self.desk.done(done).await {
                        self.publish();
                    }
                }
                Some(raw) = self.documents.recv(), if takes_plans => self.desk.document(raw),
                _ = turn.tick() => {
                    self.desk.owner_turn().await;
                    self.desk.save_again();
                    self.desk.sweep().await;
                    self.publish();
                }
                () = tokio::time::sleep(pause_left.unwrap_or(TURN)), if pause_left.is_some() => {
                    self.desk.owner_turn().await;
                }
                _ = look.tick() => if self.told_states != self.desk.control.status().borrow().plans {
                    self.publish();
                },
                () = tokio::time::sleep(OWED_PAUSE), if owes => self.desk.pay().await,
            }
        };
        let desk = &mut self.desk;
        let last = async {
            while desk.jobs.len() > 0 {
                let done = desk.jobs.next().await;
                desk.done(done).await;
            }
        };
        if tokio::time::timeout(LAST_WORDS, last).await.is_err() {
            tracing::warn!(jobs = self.desk.jobs.len(), "command results were not all written down at the end");
        }
        exit
    }

    fn publish(&mut self) {
        self.told_states = self.desk.control.status().borrow().plans.clone();
        let new = self.desk.plans.summaries(self.desk.clock.now(), &self.told_states);
        self.summaries.send_if_modified(|old| {
            let is_new = **old != new;
            if is_new {
                *old = Arc::new(new);
            }
            is_new
        });
    }
}

impl Book {
    pub(super) fn knows(&self, key: &IntentKey) -> bool {
        self.tracked.contains_key(key) || self.recent.contains(key)
    }

    pub(super) fn remember(&mut self, key: &IntentKey) {
        self.recent.retain(|known| known != key);
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(key.clone());
    }

    pub(super) fn forget(&mut self, key: &IntentKey) {
        self.recent.retain(|known| known != key);
    }

    pub(super) fn next_order(&mut self) -> u64 {
        self.last_order += 1;
        self.last_order
    }
}

impl Desk {
    /// A plan document came.
    fn document(&mut self, raw: RawPlan) {
        let now = self.clock.now();
        let uplink = raw.origin.uplink;
        let verdict = self.plans.judge(&uplink, &raw.plan, raw.body.as_deref(), &self.devices, &self.site);
        let job = Box::new(PlanJob { uplink, plan: raw.plan, at: now, answer: raw.answer });
        let job = match verdict {
            Verdict::Save(doc, body) => Job::SavePlan(job, doc, body),
            Verdict::Delete(id) => Job::DeletePlan(job, id),
            Verdict::Unchanged => {
                let value = answer(&job.plan, "accepted", now, &[]);
                Job::AnswerPlan(job, value)
            }
            Verdict::Refuse(reasons) => {
                tracing::info!(uplink = %job.uplink, plan = %job.plan, reasons = reasons.len(), "a plan was refused");
                let value = answer(&job.plan, "refused", now, &reasons);
                Job::AnswerPlan(job, value)
            }
        };
        self.plan_in_work = matches!(job, Job::SavePlan(..) | Job::DeletePlan(..));
        self.jobs.push(job);
    }

    /// A job is done. True: the plans in force have changed.
    async fn done(&mut self, done: Done) -> bool {
        match done {
            Done::Told(told) => {
                self.disk(&told);
                false
            }
            Done::Unsaved(result, error) => {
                // Only an end: all else is overtaken by it.
                if result.state.is_final() && error != StoreError::Stopped {
                    self.unsaved.push(*result);
                }
                self.disk(&Err(error));
                false
            }
            Done::Kept(kept) => {
                if kept.is_err() {
                    self.word_not_kept();
                }
                self.disk(&kept);
                false
            }
            Done::Admitted(admission, admitted) => {
                self.settle(*admission, admitted).await;
                false
            }
            Done::PlanSaved(job, doc, saved) => {
                self.plan_in_work = false;
                let value = match saved {
                    Ok(order) => {
                        self.book.last_order = self.book.last_order.max(order);
                        self.plans.put(Arc::clone(&doc), job.uplink.clone());
                        self.owe(ControlMsg::Plan { doc, order, source: job.uplink.to_string() }).await;
                        answer(&job.plan, "accepted", job.at, &[])
                    }
                    Err(error) => answer(&job.plan, "refused", job.at, &[format!("it was not written down: {error}")]),
                };
                self.jobs.push(Job::AnswerPlan(job, value));
                true
            }
            Done::PlanDeleted(job, id, deleted) => {
                self.plan_in_work = false;
                let value = match deleted {
                    Ok(_) => {
                        self.plans.remove(&id);
                        self.owe(ControlMsg::DropPlan(id)).await;
                        // Over MQTT a document is accepted or refused, an empty one too.
                        let state = if job.uplink == UplinkName::local() { "deleted" } else { "accepted" };
                        answer(&job.plan, state, job.at, &[])
                    }
                    Err(error) => answer(&job.plan, "refused", job.at, &[format!("it was not deleted: {error}")]),
                };
                self.jobs.push(Job::AnswerPlan(job, value));
                true
            }
        }
    }
}
