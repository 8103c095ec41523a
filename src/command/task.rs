//! The loop: commands and plans in, intents to control, results to the store.

use super::admit::{Admit, Incoming, Refusal, Surroundings, What, admit, kept_body};
use super::jobs::{Admission, Deed, Done, Job, Jobs, PlanJob};
use super::plans::{PlanSummary, Plans, Verdict, answer};
use super::{CommandHandle, INBOX, RawCommand, RawPlan, Recovered, Tracked, recover};
use crate::control::{ControlBusy, ControlHandle, ControlMsg};
use crate::model::{
    CommandResult, CommandState, DeviceId, DeviceSpec, DeviceStatus, Event, EventState, Intent, IntentKey,
    IntentUpdate, Mono, Origin, Params, ReplyTo, Severity, SiteLimit, SiteSpec, Timestamp, UplinkName,
};
use crate::runtime::{Clock, Exit, Shutdown};
use crate::store::{Admitted, NewCommand, OpenCommand, StoreError, StoreHandle, StoredPlan};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Commands that wait for the disk at most; more are `rejected: busy`, but for `stop` and `idle`.
const MAX_WAITING: usize = 16;
/// Also `stop` and `idle` are refused from here on, and answers are not queued: memory is bounded.
const MAX_JOBS: usize = 128;
/// Commands that run at the same time, at most.
const MAX_TRACKED: usize = 1_000;
/// Ids of ended commands kept in memory, so that a `stop` that comes again does not act while the disk is asked.
const RECENT: usize = 256;
/// How long after its deadline a command is ended without control's word.
const OVERDUE: Duration = Duration::from_secs(120);
/// How often what depends on time alone is looked at again.
const TURN: Duration = Duration::from_secs(60);
/// How often control is asked again to take what it must take.
const OWED_PAUSE: Duration = Duration::from_secs(1);
/// One event about retained commands in this time.
const RETAINED_EVERY: Duration = Duration::from_secs(3600);
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
    /// Plans of an earlier run: the same.
    pub plans: Vec<StoredPlan>,
}

/// The task. Nothing happens until it is run.
pub struct CommandTask {
    commands: mpsc::Receiver<RawCommand>,
    documents: mpsc::Receiver<RawPlan>,
    updates: mpsc::Receiver<IntentUpdate>,
    summaries: watch::Sender<Arc<Vec<PlanSummary>>>,
    desk: Desk,
}

/// Everything but the channels that the loop waits on.
struct Desk {
    devices: Vec<DeviceSpec>,
    site: SiteSpec,
    status: BTreeMap<DeviceId, watch::Receiver<DeviceStatus>>,
    control: ControlHandle,
    store: StoreHandle,
    clock: Clock,
    jobs: Jobs,
    plans: Plans,
    /// A document is on its way to the disk: the next waits for it.
    plan_in_work: bool,
    book: Book,
    /// What control did not take yet and must take.
    owed: VecDeque<ControlMsg>,
    retained: u64,
    retained_told: Option<Mono>,
    disk_fault: bool,
}

/// The commands that run.
struct Book {
    tracked: BTreeMap<IntentKey, Tracked>,
    recent: VecDeque<IntentKey>,
    /// Order of acceptance, growing; it follows the store's.
    last_order: u64,
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
    let found = recover(&parts.open, &parts.plans, &parts.devices, &parts.site, &parts.clock);
    let mut jobs = Jobs::new(parts.store.clone());
    let (plans, book) = take_up(found, &mut jobs, &parts.plans);
    let (summaries, summaries_rx) = watch::channel(Arc::new(plans.summaries(parts.clock.now())));
    let desk = Desk {
        devices: parts.devices,
        site: parts.site,
        status: parts.capabilities,
        control: parts.control,
        store: parts.store,
        clock: parts.clock,
        jobs,
        plans,
        plan_in_work: false,
        book,
        owed: VecDeque::new(),
        retained: 0,
        retained_told: None,
        disk_fault: false,
    };
    let task = CommandTask { commands, documents, updates: parts.updates, summaries, desk };
    (CommandHandle { commands: commands_tx, plans: plans_tx, summaries: summaries_rx }, task)
}

fn take_up(found: Recovered, jobs: &mut Jobs, stored: &[StoredPlan]) -> (Plans, Book) {
    let mut book = Book { tracked: found.tracked, recent: VecDeque::new(), last_order: found.last_order };
    for result in found.settled {
        if let Some(id) = result.id.clone() {
            book.remember(IntentKey::Command { uplink: result.uplink.clone(), device: result.device.clone(), id });
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
        let exit = loop {
            let owes = !self.desk.owed.is_empty();
            let takes_plans = !self.desk.plan_in_work;
            tokio::select! {
                biased;
                () = shutdown.wait() => break Exit::Shutdown,
                update = self.updates.recv() => match update {
                    Some(update) => self.desk.update(&update).await,
                    None => break Exit::Orphaned,
                },
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
                    self.desk.sweep().await;
                    self.publish();
                }
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

    fn publish(&self) {
        let new = self.desk.plans.summaries(self.desk.clock.now());
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
    fn knows(&self, key: &IntentKey) -> bool {
        self.tracked.contains_key(key) || self.recent.contains(key)
    }

    fn remember(&mut self, key: IntentKey) {
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(key);
    }

    fn next_order(&mut self) -> u64 {
        self.last_order += 1;
        self.last_order
    }
}

impl Desk {
    /// A command came: judge it, and act or queue it.
    async fn command(&mut self, raw: RawCommand) {
        let now = self.clock.now();
        let incoming = Incoming {
            origin: &raw.origin,
            target: &raw.target,
            body: &raw.body,
            retained: raw.retained,
            expires_in: raw.expires_in,
            received: raw.received,
        };
        let status = |id: &DeviceId| self.status.get(id).map(|s| s.borrow().clone());
        let around = Surroundings { devices: &self.devices, status: &status, clock: self.clock.state(), now };
        match admit(&incoming, &around) {
            Ok(admitted) => self.admitted(raw, admitted, now).await,
            Err(refusal) if refusal.is_retained => self.retained(raw, refusal, now).await,
            Err(refusal) => self.refused(raw, refusal, now),
        }
    }

    async fn admitted(&mut self, raw: RawCommand, admitted: Admit, now: Timestamp) {
        let is_urgent = admitted.is_urgent();
        let key = IntentKey::Command {
            uplink: raw.origin.uplink.clone(),
            device: admitted.device.clone(),
            id: admitted.id.clone(),
        };
        let known = self.book.knows(&key);
        let result = CommandResult {
            id: Some(admitted.id.clone()),
            device: admitted.device.clone(),
            requested: admitted.requested.clone(),
            ..blank(&raw.origin, CommandState::Accepted, now, raw.reply_to.clone())
        };
        let most = if is_urgent { MAX_JOBS } else { MAX_WAITING };
        if self.jobs.len() >= most || (!known && self.book.tracked.len() >= MAX_TRACKED) {
            return self.busy(raw.answer, result);
        }
        let new = NewCommand {
            uplink: raw.origin.uplink.clone(),
            device: admitted.device.clone(),
            id: admitted.id.clone(),
            body: kept_body(&raw.origin, &raw.body),
            result,
            ends_at: admitted.ends_at,
            accepted_at: now,
        };
        let mut admission = Box::new(Admission { key, new, deed: Deed::Known, answer: raw.answer });
        // Ids that are known are for the store to answer. Others that are not urgent too, should they be old ones.
        if !(known && is_urgent) {
            let act = self.act(&admission.key, admitted, &admission.new.result, now, &raw.origin.uplink);
            admission.deed = Deed::Act(Box::new(act));
            if is_urgent {
                self.act_first(&mut admission).await;
            }
        }
        self.jobs.push(Job::Admit(admission));
    }

    /// `stop` and `idle`: control first, then the disk.
    async fn act_first(&mut self, admission: &mut Admission) {
        let Deed::Act(act) = std::mem::replace(&mut admission.deed, Deed::Acted) else { return };
        if let Err(why) = self.control.send(act.msg).await {
            admission.deed = Deed::Refused;
            admission.new.result.state = CommandState::Rejected;
            admission.new.result.reason = Some(busy_reason(why));
            return;
        }
        self.book.tracked.insert(admission.key.clone(), act.tracked);
    }

    fn act(
        &mut self,
        key: &IntentKey,
        admitted: Admit,
        result: &CommandResult,
        now: Timestamp,
        uplink: &UplinkName,
    ) -> Act {
        let deadline = self.clock.mono().plus(admitted.lease);
        let tracked = Tracked::new(result.clone(), admitted.what.is_standing(), deadline);
        let key = key.clone();
        let msg = match (admitted.what, admitted.device) {
            (What::Intent { action, rank, source }, Some(device)) => ControlMsg::Intent(Intent {
                key,
                device,
                action,
                rank,
                source,
                accepted: self.book.next_order(),
                since: now,
                ends_at: admitted.ends_at,
                deadline,
            }),
            (What::SiteLimit { side, power_w }, _) => {
                ControlMsg::SiteLimit(SiteLimit { key, side, power_w, ends_at: admitted.ends_at, deadline })
            }
            (_, Some(device)) => ControlMsg::Release { uplink: uplink.clone(), device },
            // A release of the site: each limit of this source is withdrawn when it is carried out.
            (_, None) => ControlMsg::Withdraw(key),
        };
        Act { msg, tracked }
    }

    async fn retained(&mut self, raw: RawCommand, refusal: Refusal, now: Timestamp) {
        self.retained += 1;
        let result = result_of(&raw.origin, refusal, now, raw.reply_to);
        let mono = self.clock.mono();
        if self.retained_told.is_none_or(|told| mono.since(told) >= RETAINED_EVERY) {
            self.retained_told = Some(mono);
            let text = format!(
                "a retained command of `{}` was ignored ({} since start): commands must not be retained",
                raw.origin.uplink, self.retained
            );
            tracing::warn!(uplink = %raw.origin.uplink, "a retained command was ignored");
            let event = Event {
                ts: now,
                severity: Severity::Warning,
                device: result.device.clone(),
                code: "retained_command_ignored".to_owned(),
                text,
                state: EventState::Raised,
            };
            if let Err(error) = self.store.event(event).await {
                self.disk(&Err(error));
            }
        }
        // The channel may have gone: nothing to acknowledge then.
        drop(raw.answer.send(result));
    }

    /// A refusal with an id is kept as any command is, so that it gets the same answer when it comes again, and so that it
    /// cannot touch the result of an earlier command with its id.
    fn refused(&mut self, raw: RawCommand, refusal: Refusal, now: Timestamp) {
        let is_kept = refusal.id.is_some() && (refusal.device.is_some() || raw.target == super::Target::Site);
        let result = result_of(&raw.origin, refusal, now, raw.reply_to);
        tracing::info!(
            uplink = %raw.origin.uplink,
            command_id = result.id.as_ref().map_or("", |id| id.as_str()),
            reason = result.reason.as_deref().unwrap_or_default(),
            "a command was refused"
        );
        if self.jobs.len() >= MAX_WAITING {
            return self.busy(raw.answer, result);
        }
        match result.id.clone().filter(|_| is_kept) {
            None => self.jobs.push(Job::Tell(Box::new(result), Some(raw.answer))),
            Some(id) => {
                let key = IntentKey::Command {
                    uplink: raw.origin.uplink.clone(),
                    device: result.device.clone(),
                    id: id.clone(),
                };
                let new = NewCommand {
                    uplink: raw.origin.uplink.clone(),
                    device: result.device.clone(),
                    id,
                    body: kept_body(&raw.origin, &raw.body),
                    result,
                    ends_at: now,
                    accepted_at: now,
                };
                self.jobs.push(Job::Admit(Box::new(Admission { key, new, deed: Deed::Refused, answer: raw.answer })));
            }
        }
    }

    /// Nothing was changed: the same command may come again.
    fn busy(&mut self, answer: oneshot::Sender<CommandResult>, mut result: CommandResult) {
        if !result.state.is_final() {
            result.state = CommandState::Rejected;
            result.reason = Some("busy".to_owned());
        }
        if self.jobs.len() < MAX_JOBS {
            self.jobs.push(Job::Tell(Box::new(result), Some(answer)));
        } else {
            // Too much waits already: the channel alone is told.
            drop(answer.send(result));
        }
    }

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
                        answer(&job.plan, "deleted", job.at, &[])
                    }
                    Err(error) => answer(&job.plan, "refused", job.at, &[format!("it was not deleted: {error}")]),
                };
                self.jobs.push(Job::AnswerPlan(job, value));
                true
            }
        }
    }

    /// The store has said whether a command is new.
    async fn settle(&mut self, admission: Admission, admitted: Result<Admitted, StoreError>) {
        let Admission { key, new, deed, answer } = admission;
        let mut result = new.result;
        match admitted {
            Ok(Admitted::New { order }) => {
                self.book.last_order = self.book.last_order.max(order);
                match deed {
                    Deed::Act(act) => result = self.carry_out(&key, *act, result).await,
                    // It acted when the disk did not work, and is kept only now.
                    Deed::Known => {
                        let at = self.clock.now();
                        let latest = self.book.tracked.get(&key).map(|tracked| tracked.result().clone());
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
                self.jobs.push(Job::Tell(Box::new(again), Some(answer)));
            }
            Ok(Admitted::Conflict(_)) => {
                self.undo(&key, &deed).await;
                let reason = Some("the same id came before with another body: nothing was done".to_owned());
                let result = CommandResult { state: CommandState::Rejected, reason, ..result };
                self.jobs.push(Job::Tell(Box::new(result), Some(answer)));
            }
            Err(error) => {
                // `stop` and `idle` go on: they are the safe side. All others must not act.
                if !matches!(deed, Deed::Acted) && !result.state.is_final() {
                    result.state = CommandState::Rejected;
                    result.reason = Some(format!("it could not be written down: {error}"));
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
            self.jobs.forget(tracked.result());
            self.book.remember(key.clone());
            self.owe(ControlMsg::Withdraw(key.clone())).await;
        }
    }

    /// A new command is durable: it acts. Returns its first result.
    async fn carry_out(&mut self, key: &IntentKey, act: Act, result: CommandResult) -> CommandResult {
        let is_release = matches!(act.msg, ControlMsg::Release { .. } | ControlMsg::Withdraw(_));
        let sent = if let ControlMsg::Withdraw(_) = act.msg {
            self.release_site(key).await;
            Ok(())
        } else {
            self.control.send(act.msg).await
        };
        let at = self.clock.now();
        match sent {
            Ok(()) if is_release => {
                let last = ended(result, CommandState::Ended, at, None);
                self.jobs.push(Job::Save(Box::new(last.clone())));
                last
            }
            Ok(()) => {
                self.book.tracked.insert(key.clone(), act.tracked);
                result
            }
            Err(why) => {
                let last =
                    CommandResult { state: CommandState::Rejected, reason: Some(busy_reason(why)), ts: at, ..result };
                self.jobs.push(Job::Save(Box::new(last.clone())));
                last
            }
        }
    }

    /// All site limits of a release's source end.
    async fn release_site(&mut self, release: &IntentKey) {
        let IntentKey::Command { uplink: source, .. } = release else { return };
        let of_source =
            |key: &&IntentKey| matches!(key, IntentKey::Command { uplink, device: None, .. } if uplink == source);
        let keys: Vec<IntentKey> = self.book.tracked.keys().filter(of_source).cloned().collect();
        for key in keys {
            self.finish(&key, CommandState::Ended, "released").await;
        }
    }

    /// Control reports.
    async fn update(&mut self, update: &IntentUpdate) {
        let Some(tracked) = self.book.tracked.get_mut(&update.key) else { return };
        let changes = tracked.apply(update);
        for result in changes.results {
            self.jobs.push(Job::Save(Box::new(result)));
        }
        if tracked.result().state.is_final() {
            self.log_end(&update.key);
        }
        if changes.withdraw {
            self.owe(ControlMsg::Withdraw(update.key.clone())).await;
        }
    }

    /// End a command from this side.
    async fn finish(&mut self, key: &IntentKey, state: CommandState, reason: &str) {
        let at = self.clock.now();
        let Some(tracked) = self.book.tracked.get_mut(key) else { return };
        for result in tracked.settle(state, at, Some(reason.to_owned())).results {
            self.jobs.push(Job::Save(Box::new(result)));
        }
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
            self.book.remember(key.clone());
        }
    }

    /// A command whose end control never told is ended all the same: each reaches a final state.
    async fn sweep(&mut self) {
        let now = self.clock.mono();
        let late = |t: &Tracked| now.since(t.deadline()) > OVERDUE;
        let keys: Vec<IntentKey> =
            self.book.tracked.iter().filter(|(_, t)| late(t)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.finish(&key, CommandState::Ended, "its time is over").await;
        }
    }

    /// Tell control something that it must take, now or later.
    async fn owe(&mut self, msg: ControlMsg) {
        self.owed.push_back(msg);
        self.pay().await;
    }

    async fn pay(&mut self) {
        while let Some(msg) = self.owed.front() {
            match self.control.send(msg.clone()).await {
                Ok(()) => drop(self.owed.pop_front()),
                Err(ControlBusy::Full) => return,
                // The process ends; what matters is on disk.
                Err(ControlBusy::Stopped) => self.owed.clear(),
            }
        }
    }

    /// Log the disk's trouble once when it begins and once when it ends.
    fn disk(&mut self, outcome: &Result<(), StoreError>) {
        match outcome {
            Err(error) if !self.disk_fault => {
                self.disk_fault = true;
                tracing::error!(%error, "results of commands cannot be written down");
            }
            Ok(()) if self.disk_fault => {
                self.disk_fault = false;
                tracing::info!("results of commands are written down again");
            }
            _ => {}
        }
    }
}

fn busy_reason(why: ControlBusy) -> String {
    format!("busy: {why}")
}

fn ended(result: CommandResult, state: CommandState, at: Timestamp, reason: Option<String>) -> CommandResult {
    CommandResult { state, ts: at, ended_at: Some(at), reason, ..result }
}

fn result_of(origin: &Origin, refusal: Refusal, now: Timestamp, reply_to: ReplyTo) -> CommandResult {
    CommandResult {
        id: refusal.id,
        device: refusal.device,
        reason: Some(refusal.reason),
        requested: refusal.requested,
        ..blank(origin, refusal.state, now, reply_to)
    }
}

fn blank(origin: &Origin, state: CommandState, now: Timestamp, reply_to: ReplyTo) -> CommandResult {
    CommandResult {
        uplink: origin.uplink.clone(),
        device: None,
        id: None,
        state,
        ts: now,
        reason: None,
        requested: Params::new(),
        applied: Params::new(),
        limited_by: None,
        evidence: Vec::new(),
        started_at: None,
        ended_at: None,
        delivered_wh: None,
        reply_to,
    }
}
