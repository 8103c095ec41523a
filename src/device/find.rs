//! Finding the device behind its link, at start and after every reconnect, and recording what the installer set in it.

use super::baseline::Watch;
use super::poll::Turn;
use super::task::DeviceTask;
use crate::link::{LinkError, LinkState};
use crate::model::{DeviceState, Mono, Severity};
use crate::profile::{Answer, Refusal, Request, Step};
use crate::runtime::Retry;
use std::time::Duration;

/// A silent device is asked again soon: one request, and after a power cut it is back within seconds.
const SILENT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));
/// Something else answers: that rarely changes by itself.
const STRANGER: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// A baseline that could not be read is tried again after so long.
const BARRED: Duration = Duration::from_secs(60);

/// Where discovery stands.
#[derive(Debug)]
pub(super) enum Stage {
    /// To begin at this time.
    Lost(Mono),
    /// This is asked next.
    Asking(Request),
    /// Found; before anything may be written its baseline is read.
    Baseline(Vec<Request>, Vec<Result<Answer, Refusal>>),
    /// Found.
    Found,
}

#[derive(Debug)]
pub(super) struct Finder {
    pub(super) stage: Stage,
    /// Given at start, not yet with the driver.
    baseline: Option<String>,
    pub(super) has_baseline: bool,
    /// Why writing is not allowed although the device answers.
    barred: Option<String>,
    /// When its baseline is asked for again.
    barred_until: Option<Mono>,
    pub(super) quarantined: bool,
    serial: Option<String>,
    /// Why the last attempt to find it failed.
    trouble: String,
    epoch: u64,
    /// Was it online in this run.
    pub(super) was_online: bool,
    pub(super) alarmed: bool,
    /// The baseline is being read to be compared.
    pub(super) watch: Watch,
    silent: Retry,
    stranger: Retry,
}

impl Finder {
    pub(super) fn new(baseline: Option<String>) -> Self {
        Self {
            stage: Stage::Lost(Mono::default()),
            baseline,
            has_baseline: false,
            barred: None,
            barred_until: None,
            quarantined: false,
            serial: None,
            trouble: String::new(),
            epoch: 0,
            was_online: false,
            alarmed: false,
            watch: Watch::default(),
            silent: Retry::new(SILENT.0, SILENT.1),
            stranger: Retry::new(STRANGER.0, STRANGER.1),
        }
    }

    /// May the device be written to, or why not.
    pub(super) fn controllable(&self) -> Result<(), &str> {
        match &self.stage {
            Stage::Found if self.quarantined => Err("another device answers in its place"),
            Stage::Found => self.barred.as_deref().map_or(Ok(()), Err),
            _ if self.trouble.is_empty() => Err("it is being looked for"),
            _ => Err(&self.trouble),
        }
    }

    pub(super) const fn is_found(&self) -> bool {
        matches!(self.stage, Stage::Found)
    }
}

impl DeviceTask {
    /// A new connection: look at the device anew. No connection: nothing to ask.
    pub(super) fn look_at_link(&mut self, now: Mono) {
        let state = self.link.state.borrow_and_update().clone();
        match state {
            LinkState::Up { epoch } if epoch != self.finder.epoch => {
                self.finder.epoch = epoch;
                self.finder.stage = Stage::Lost(now);
                self.poll.forget();
                self.finder.watch.forget();
                self.keeper.lost();
            }
            LinkState::Down(why) if !self.finder.was_online => self.not_yet(why),
            _ => {}
        }
    }

    /// When discovery or the poll wants to go on.
    pub(super) fn due(&self) -> Option<Mono> {
        match &self.finder.stage {
            Stage::Lost(at) => [self.is_worth_asking().then_some(*at), self.overdue_at()].into_iter().flatten().min(),
            Stage::Found => [self.poll.due(), self.watch_due()].into_iter().flatten().min(),
            _ => None,
        }
    }

    /// When a device that is being looked for again counts as offline: its last values are stale then.
    fn overdue_at(&self) -> Option<Mono> {
        let waits = self.finder.was_online && !self.finder.alarmed && !self.finder.is_found();
        waits.then(|| self.poll.last_good.plus(self.spec.max_age()))
    }

    /// Raise the alarm of a device that is being looked for in vain.
    pub(super) async fn look_at_watch(&mut self, now: Mono) {
        if self.overdue_at().is_none_or(|at| now < at) {
            return;
        }
        let why = match &*self.link.state.borrow() {
            LinkState::Down(why) => why.clone(),
            _ => self.finder.trouble.clone(),
        };
        self.fell_silent(now, why).await;
    }

    /// A Modbus link that is down says so by itself when it is back; HTTP is known only by trying.
    fn is_worth_asking(&self) -> bool {
        self.link.handle.via() == "http" || matches!(*self.link.state.borrow(), LinkState::Up { .. })
    }

    pub(super) fn next_request(&mut self, now: Mono) -> Option<Request> {
        loop {
            match &self.finder.stage {
                Stage::Lost(at) if now >= *at && self.is_worth_asking() => {
                    let step = self.driver.begin();
                    self.finder.stage = Stage::Asking(match step {
                        Step::Ask(request) => request,
                        // A driver without discovery has nothing to ask.
                        Step::Ready => {
                            self.found(now);
                            continue;
                        }
                        Step::NotFound(why) => {
                            self.not_found(now, why);
                            return None;
                        }
                    });
                }
                Stage::Lost(_) => return None,
                Stage::Asking(request) => return Some(request.clone()),
                Stage::Baseline(reads, answers) => return reads.get(answers.len()).cloned(),
                Stage::Found => return self.next_look(now).or_else(|| self.next_read(now)),
            }
        }
    }

    pub(super) async fn take_answer(&mut self, answer: Result<Answer, LinkError>) {
        let now = self.clock.mono();
        if self.finder.is_found() {
            if self.finder.watch.is_asked() {
                return self.take_look(answer).await;
            }
            match self.take_read(now, answer) {
                Turn::More => {}
                Turn::Sampled => self.came_online().await,
                Turn::Silent(why) => self.fell_silent(now, why).await,
            }
            return;
        }
        let answer = match answer {
            Ok(answer) => Ok(answer),
            // A gateway that cannot reach the unit is silence, not a word of the device.
            Err(LinkError::Refused(refusal)) if !is_silence(&refusal) => Err(refusal),
            Err(error) => return self.no_answer(now, error.to_string()),
        };
        match &mut self.finder.stage {
            Stage::Asking(_) => match self.driver.resume(answer) {
                Step::Ask(request) => self.finder.stage = Stage::Asking(request),
                Step::Ready => self.found(now),
                Step::NotFound(why) => self.not_found(now, why),
            },
            Stage::Baseline(reads, answers) => {
                answers.push(answer);
                if answers.len() == reads.len() {
                    let answers = std::mem::take(answers);
                    self.record_baseline(now, &answers).await;
                }
            }
            Stage::Lost(_) | Stage::Found => {}
        }
        self.check_identity().await;
    }

    fn no_answer(&mut self, now: Mono, why: String) {
        self.finder.stage = Stage::Lost(now.plus(self.finder.silent.next_delay()));
        if !self.finder.was_online {
            self.not_yet(why.clone());
        }
        self.finder.trouble = why;
    }

    /// It has never answered so far; said once.
    fn not_yet(&self, why: String) {
        if self.out.status.borrow().error.is_none() {
            tracing::warn!(device = %self.spec.id, "no answer yet: {why}");
        }
        self.set_state(DeviceState::Connecting, Some(why));
    }

    fn not_found(&mut self, now: Mono, why: String) {
        self.finder.stage = Stage::Lost(now.plus(self.finder.stranger.next_delay()));
        let state = if self.finder.was_online { DeviceState::Offline } else { DeviceState::Connecting };
        if self.out.status.borrow().error.as_ref() != Some(&why) {
            tracing::warn!(device = %self.spec.id, "not found: {why}");
        }
        self.set_state(state, Some(why));
    }

    fn found(&mut self, now: Mono) {
        self.finder.stranger.reset();
        if let Some(json) = self.finder.baseline.take() {
            match self.driver.set_baseline(&json) {
                Ok(()) => {
                    self.finder.has_baseline = true;
                    self.show_baseline(Some(json), None);
                }
                Err(why) => tracing::error!(device = %self.spec.id, "the stored baseline is no good: {why}"),
            }
        }
        // What is read while an earlier run's setpoint still acts is not what the installer set.
        // And where nothing is ever written, the installer may still change it.
        if self.spec.control.enabled && !self.finder.has_baseline && !self.keeper.holds_something() {
            let reads = self.driver.baseline_reads();
            if !reads.is_empty() {
                self.finder.stage = Stage::Baseline(reads, Vec::new());
                return;
            }
        }
        self.finder.watch.look_at(now);
        self.settle_in(now);
    }

    /// Found and ready to be polled and controlled.
    fn settle_in(&mut self, now: Mono) {
        self.finder.stage = Stage::Found;
        self.poll.start_now(now);
        let (info, capabilities) = (self.driver.info().clone(), self.driver.capabilities().clone());
        self.keeper.found(now, capabilities.failsafe);
        self.out.status.send_if_modified(|status| {
            let changed = status.info != info || status.capabilities != capabilities;
            status.info = info;
            status.capabilities = capabilities;
            changed
        });
    }

    async fn record_baseline(&mut self, now: Mono, answers: &[Result<Answer, Refusal>]) {
        let taken = self.driver.take_baseline(answers).and_then(|json| {
            self.driver.set_baseline(&json)?;
            Ok(json)
        });
        self.finder.barred = None;
        match taken {
            Ok(json) => {
                self.finder.has_baseline = self.keep_baseline(&json).await;
                if self.finder.has_baseline {
                    tracing::info!(device = %self.spec.id, "baseline recorded");
                    self.show_baseline(Some(json), None);
                    self.finder.watch.look_at(now.plus(super::baseline::EVERY));
                } else {
                    // Without it a later start could not lead the device back.
                    self.finder.barred = Some("its baseline could not be stored".into());
                }
            }
            Err(why) => self.finder.barred = Some(format!("its baseline could not be read: {why}")),
        }
        if let Some(why) = &self.finder.barred {
            tracing::warn!(device = %self.spec.id, "no control: {why}");
            self.finder.barred_until = Some(now.plus(BARRED));
        }
        self.settle_in(now);
    }

    /// Look at the device anew.
    pub(super) fn find_again(&mut self) {
        self.finder.stage = Stage::Lost(self.clock.mono());
    }

    /// The serial number is the identity: another one in its place is not controlled.
    async fn check_identity(&mut self) {
        if !self.finder.is_found() {
            return;
        }
        let Some(serial) = self.driver.info().serial.clone() else { return };
        let Some(known) = self.finder.serial.clone() else {
            self.finder.serial = Some(serial);
            return;
        };
        let other = serial != known;
        if other == self.finder.quarantined {
            return;
        }
        self.finder.quarantined = other;
        let id = &self.spec.id;
        if other {
            let text = format!("{id} was {known}, now {serial} answers: it is read only until derd is restarted");
            self.event("device_changed", Severity::Critical, text, true).await;
        } else {
            let text = format!("{id} is {known} again");
            self.event("device_changed", Severity::Info, text, false).await;
        }
    }

    /// The first good poll after being away.
    async fn came_online(&mut self) {
        self.finder.silent.reset();
        if !std::mem::replace(&mut self.finder.was_online, true) {
            tracing::info!(device = %self.spec.id, "online");
        }
        self.finder.trouble.clear();
        if self.finder.barred_until.is_some_and(|at| self.clock.mono() >= at) {
            self.finder.barred_until = None;
            self.finder.stage = Stage::Lost(self.clock.mono());
        }
        let (state, error) = if self.finder.quarantined {
            (DeviceState::Quarantined, Some("another device answers in its place: read only".to_owned()))
        } else {
            (DeviceState::Online, self.finder.barred.clone())
        };
        self.set_state(state, error);
        if std::mem::take(&mut self.finder.alarmed) {
            self.event("device_offline", Severity::Info, format!("{} answers again", self.spec.id), false).await;
        }
        self.out.catch_up().await;
    }

    /// Too many polls without any answer.
    pub(super) async fn fell_silent(&mut self, now: Mono, why: String) {
        self.keeper.lost();
        self.finder.watch.forget();
        if !matches!(self.finder.stage, Stage::Lost(_)) {
            self.finder.stage = Stage::Lost(now.plus(self.finder.silent.next_delay()));
        }
        self.set_state(DeviceState::Offline, Some(why.clone()));
        self.finder.trouble.clone_from(&why);
        if !std::mem::replace(&mut self.finder.alarmed, true) {
            let text = format!("{} does not answer: {why}", self.spec.id);
            self.event("device_offline", Severity::Warning, text, true).await;
        }
    }
}

/// Exceptions by which a gateway says that the unit behind it did not answer.
pub(super) const fn is_silence(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Exception(0x0A | 0x0B))
}
