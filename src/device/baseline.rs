//! The guard over what the installer set: while derd holds nothing the device is compared with its record, by reading
//! alone, after each connect and every quarter of an hour. derd never takes over by itself what it finds: the installer
//! accepts a new baseline on purpose.

use super::task::DeviceTask;
use crate::link::LinkError;
use crate::model::{BaselineReport, Drift, Mono, Severity};
use crate::profile::{Answer, Refusal, Request};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// So often a device is compared with its record.
pub(super) const EVERY: Duration = Duration::from_secs(900);
/// A comparison that failed is tried again after so long.
const AGAIN: Duration = Duration::from_secs(60);
/// How long the store may take the baseline.
const STORE_WAIT: Duration = Duration::from_secs(5);

/// The installer takes what is in the device now for its baseline: the answer is why not.
pub type Accept = oneshot::Sender<Result<(), String>>;

/// What is read, and what was answered so far.
type Look = (Vec<Request>, Vec<Result<Answer, Refusal>>);

#[derive(Debug, Default)]
pub(super) struct Watch {
    at: Option<Mono>,
    look: Option<Look>,
    accept: Option<Accept>,
    /// An event stands.
    is_raised: bool,
}

impl Watch {
    pub(super) const fn look_at(&mut self, at: Mono) {
        self.at = Some(at);
    }

    pub(super) const fn is_asked(&self) -> bool {
        self.look.is_some()
    }

    /// Whatever was being read: the connection is gone.
    pub(super) fn forget(&mut self) {
        self.look = None;
        if let Some(reply) = self.accept.take() {
            answer(reply, Err("the device stopped answering".to_owned()));
        }
    }
}

fn answer(reply: Accept, result: Result<(), String>) {
    if reply.send(result).is_err() {
        tracing::debug!("nobody waits for the answer on a baseline");
    }
}

impl DeviceTask {
    /// Somebody who may do so wants what is in the device to be its baseline.
    pub(super) fn accept_baseline(&mut self, reply: Accept) {
        let id = &self.spec.id;
        let refusal = if !self.spec.control.enabled {
            Some("derd never writes to it: its baseline is its own ([device.control] enabled = false)".to_owned())
        } else if self.finder.quarantined || !self.finder.is_found() {
            Some(format!("{id} does not answer"))
        } else if self.driver.baseline_reads().is_empty() {
            Some(format!("{id} has nothing to record"))
        } else if self.is_holding() {
            Some(format!("derd holds {id}: what is in it now is not its baseline; release it first"))
        } else {
            None
        };
        match refusal {
            Some(why) => answer(reply, Err(why)),
            None => {
                self.finder.watch.accept = Some(reply);
                self.finder.watch.look = None;
                self.finder.watch.look_at(self.clock.mono());
            }
        }
    }

    /// Does derd hold something, or is it about to.
    fn is_holding(&self) -> bool {
        self.keeper.holds_something() || self.keeper.is_at_work()
    }

    pub(super) fn watch_due(&self) -> Option<Mono> {
        let watch = &self.finder.watch;
        let wanted = watch.accept.is_some() || self.finder.has_baseline && self.spec.control.enabled;
        if watch.look.is_some() {
            return Some(Mono::from_ms(0));
        }
        watch.at.filter(|_| wanted && !self.finder.quarantined && !self.is_holding())
    }

    /// The next read of a comparison: between polls, never within one.
    pub(super) fn next_look(&mut self, now: Mono) -> Option<Request> {
        if self.poll.is_running() || self.watch_due().is_none_or(|at| now < at) {
            return None;
        }
        let reads = self.driver.baseline_reads();
        let watch = &mut self.finder.watch;
        if reads.is_empty() {
            watch.at = None;
            return None;
        }
        let (reads, answers) = watch.look.get_or_insert_with(|| (reads, Vec::new()));
        reads.get(answers.len()).cloned()
    }

    pub(super) async fn take_look(&mut self, answered: Result<Answer, LinkError>) {
        let now = self.clock.mono();
        let Some((reads, answers)) = &mut self.finder.watch.look else { return };
        match answered {
            Ok(one) => answers.push(Ok(one)),
            Err(LinkError::Refused(refusal)) => answers.push(Err(refusal)),
            Err(_) => {
                self.finder.watch.forget();
                self.finder.watch.look_at(now.plus(AGAIN));
                return;
            }
        }
        if answers.len() < reads.len() {
            return;
        }
        let answers = std::mem::take(answers);
        self.finder.watch.look = None;
        self.finder.watch.look_at(now.plus(EVERY));
        let accept = self.finder.watch.accept.take();
        if self.is_holding() {
            // An order came in between: what was read may be derd's own.
            if let Some(reply) = accept {
                answer(reply, Err(format!("derd has begun to hold {}", self.spec.id)));
            }
            return;
        }
        if let Some(reply) = accept {
            let done = self.take_over(&answers).await;
            answer(reply, done);
        }
        match self.driver.drift(&answers) {
            Ok(drift) => self.compare(drift).await,
            Err(why) => {
                tracing::debug!(device = %self.spec.id, why, "the baseline could not be compared");
                self.finder.watch.look_at(now.plus(AGAIN));
            }
        }
    }

    /// Make what was read the baseline, if it can be one.
    async fn take_over(&mut self, answers: &[Result<Answer, Refusal>]) -> Result<(), String> {
        let json = self.driver.take_baseline(answers)?;
        let before = self.out.status.borrow().baseline.recorded.clone();
        self.driver.set_baseline(&json)?;
        let still = self.driver.drift(answers)?;
        let fault = match still.first() {
            Some(d) => Some(format!(
                "{} holds a controller's setpoint ({} is {}), not what an installer sets: end that first",
                self.spec.id, d.name, d.now
            )),
            None if self.keep_baseline(&json).await => None,
            None => Some("the store did not take it".to_owned()),
        };
        if let Some(why) = fault {
            if let Some(before) = before {
                self.driver.set_baseline(&before)?;
            }
            return Err(why);
        }
        self.finder.has_baseline = true;
        tracing::info!(device = %self.spec.id, baseline = json, "a new baseline was accepted");
        self.show_baseline(Some(json), None);
        let capabilities = self.driver.capabilities().clone();
        self.out.status.send_modify(|status| status.capabilities = capabilities);
        Ok(())
    }

    /// Into the store, and seen there: before that nothing may be written to the device.
    pub(super) async fn keep_baseline(&self, json: &str) -> bool {
        let (store, id) = (&self.out.store, &self.spec.id);
        let kept = timeout(STORE_WAIT, async {
            store.save_baseline(id.clone(), json.to_owned()).await?;
            store.baselines().await
        });
        matches!(kept.await, Ok(Ok(all)) if all.iter().any(|(device, kept)| device == id && kept == json))
    }

    async fn compare(&mut self, drift: Vec<Drift>) {
        let text = |d: &Drift| format!("{} ({}) was {} and is {} now", d.name, d.register, d.stored, d.now);
        let known = self.out.status.borrow().baseline.drift == drift;
        let id = self.spec.id.clone();
        if let (Some(first), false) = (drift.first(), known) {
            let more = if drift.len() > 1 { format!(", and {} more", drift.len() - 1) } else { String::new() };
            let text = format!(
                "{id} is not as its installer left it: {}{more}. `derd baseline {id} --accept` takes it over",
                text(first)
            );
            self.finder.watch.is_raised = true;
            self.event("baseline_drift", Severity::Warning, text, true).await;
        } else if drift.is_empty() && std::mem::take(&mut self.finder.watch.is_raised) {
            self.event("baseline_drift", Severity::Info, format!("{id} is as its installer left it again"), false)
                .await;
        }
        self.show_baseline(None, Some(drift));
    }

    /// For the status: `recorded` when it is new, `drift` after a comparison.
    pub(super) fn show_baseline(&self, recorded: Option<String>, drift: Option<Vec<Drift>>) {
        let now = self.clock.now();
        self.out.status.send_modify(|status| {
            let old = &status.baseline;
            let report = BaselineReport {
                recorded: recorded.or_else(|| old.recorded.clone()),
                checked_at: if drift.is_some() { Some(now) } else { old.checked_at },
                drift: drift.unwrap_or_else(|| old.drift.clone()),
            };
            status.baseline = Arc::new(report);
        });
    }

    /// What was held is given back. Without a record, what is there now is the best there will ever be.
    pub(super) fn gave_back(&mut self) {
        if !self.finder.has_baseline && self.spec.control.enabled {
            self.find_again();
        }
    }

    /// A standing setting of derd's own was verified: it is no drift.
    pub(super) async fn owns(&mut self, demand: &crate::model::Demand) {
        let Some(json) = self.driver.own(demand) else { return };
        if !self.keep_baseline(&json).await {
            tracing::warn!(device = %self.spec.id, "the store did not take a new reserve into the baseline");
        }
        self.show_baseline(Some(json), None);
    }
}
