//! From a command as it came to a job: judged, refused or on its way to act.

use super::RawCommand;
use super::Target;
use super::admit::{Admit, Incoming, Refusal, Surroundings, What, admit, kept_body};
use super::jobs::{Admission, Deed, Job};
use super::settle::busy_reason;
use super::task::{Act, Desk};
use super::track::Tracked;
use crate::control::ControlMsg;
use crate::model::{
    CommandResult, CommandState, DeviceId, Event, EventState, Intent, IntentKey, Origin, Rank, ReplyTo, Severity,
    SiteLimit, Timestamp, UplinkName,
};
use crate::store::NewCommand;
use std::time::Duration;
use tokio::sync::oneshot;

/// Commands that wait for the disk at most; more are `rejected: busy`, but for `stop` and `idle`.
const MAX_WAITING: usize = 16;
/// Also `stop` and `idle` are refused from here on, and answers are not queued: memory is bounded.
const MAX_JOBS: usize = 128;
/// Commands that run at the same time, at most.
const MAX_TRACKED: usize = 1_000;
/// One event about retained commands in this time.
const RETAINED_EVERY: Duration = Duration::from_secs(3600);

impl Desk {
    /// A command came: judge it, and act or queue it.
    pub(super) async fn command(&mut self, raw: RawCommand) {
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
            Ok(admitted) => match self.owner.refuses(&raw.origin.uplink, &admitted, self.clock.mono()) {
                Some(refusal) => self.refused(raw, refusal, now),
                None => self.admitted(raw, admitted, now).await,
            },
            Err(refusal) if refusal.is_retained => self.retained(raw, refusal, now),
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
        let reason = self.owner.holds_back(&raw.origin.uplink, &admitted.what);
        let state = if reason.is_some() { CommandState::Suspended } else { CommandState::Accepted };
        let result = CommandResult {
            id: Some(admitted.id.clone()),
            device: admitted.device.clone(),
            reason,
            requested: admitted.requested.clone(),
            ..blank(&raw.origin, state, now, raw.reply_to.clone())
        };
        // A known id that comes again must not be called busy: its sender would take that for the end of what runs.
        let most = if is_urgent || known { MAX_JOBS } else { MAX_WAITING };
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
        self.book.remember(&key);
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
        let order = self.book.next_order();
        let mut tracked = Tracked::new(result.clone(), admitted.what.is_standing(), deadline, order);
        if let What::Intent { rank: Rank::Event, .. } = admitted.what {
            tracked = tracked.event_until(admitted.ends_at);
        }
        let key = key.clone();
        let msg = match (admitted.what, admitted.device) {
            (What::Intent { action, rank, source }, Some(device)) => {
                let ends_at = admitted.ends_at;
                let (accepted, since) = (order, now);
                let intent =
                    Intent { key, device, action, rank, source, accepted, since, ends_at, deadline, why: None };
                if admitted.until_unplugged { ControlMsg::Session(intent) } else { ControlMsg::Intent(intent) }
            }
            (What::SiteLimit { side, power_w }, _) => {
                ControlMsg::SiteLimit(SiteLimit { key, side, power_w, ends_at: admitted.ends_at, deadline })
            }
            (_, Some(device)) => ControlMsg::Release { uplink: uplink.clone(), device },
            // A release of the site: this stands for each limit of the source.
            (_, None) => ControlMsg::Withdraw(key),
        };
        Act { msg, tracked }
    }

    fn retained(&mut self, raw: RawCommand, refusal: Refusal, now: Timestamp) {
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
            self.jobs.push(Job::Event(Box::new(event)));
        }
        // The channel may have gone: nothing to acknowledge then.
        drop(raw.answer.send(result));
    }

    /// A refusal with an id is kept as any command is, so that it gets the same answer when it comes again, and so that it
    /// cannot touch the result of an earlier command with its id.
    fn refused(&mut self, raw: RawCommand, refusal: Refusal, now: Timestamp) {
        let is_kept = refusal.id.is_some() && (refusal.device.is_some() || raw.target == Target::Site);
        let result = result_of(&raw.origin, refusal, now, raw.reply_to);
        tracing::info!(
            uplink = %raw.origin.uplink,
            command_id = result.id.as_ref().map_or("", |id| id.as_str()),
            reason = result.reason.as_deref().unwrap_or_default(),
            "a command was refused"
        );
        let kept = result.id.clone().filter(|_| is_kept).map(|id| {
            let (uplink, device) = (raw.origin.uplink.clone(), result.device.clone());
            (id.clone(), IntentKey::Command { uplink, device, id })
        });
        let known = kept.as_ref().is_some_and(|(_, key)| self.book.knows(key));
        if self.jobs.len() >= if known { MAX_JOBS } else { MAX_WAITING } {
            return self.busy(raw.answer, result);
        }
        match kept {
            None => self.jobs.push(Job::Tell(Box::new(result), Some(raw.answer))),
            Some((id, key)) => {
                let new = NewCommand {
                    uplink: raw.origin.uplink.clone(),
                    device: result.device.clone(),
                    id,
                    body: kept_body(&raw.origin, &raw.body),
                    result,
                    ends_at: now,
                    accepted_at: now,
                };
                self.book.remember(&key);
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
    CommandResult { reply_to, ..CommandResult::new(origin.uplink.clone(), None, None, state, now) }
}
