//! The owner's word on everybody else's control: pause, resume, opt-out.
//!
//! Each acts at once and is then written down; whoever asked is answered after that. A pause holds until its end or until
//! the owner resumes, over restarts too. An opt-out ends the events that run on a device, and refuses other events of
//! their sources there until the time at which they would have ended; later events are as any other.
//!
//! While the clock is not to be trusted nobody knows how much of a pause is left after a restart, so it goes on (the
//! owner's side is the safe side) and is counted anew once the clock is right.

use super::admit::{Admit, Refusal, What};
use super::jobs::Job;
use super::task::Desk;
use crate::control::ControlMsg;
use crate::model::{
    ClockState, CommandState, DeviceId, Event, EventState, IntentKey, LeaseEnd, Mono, OptOut, OwnerWord, Pause, Rank,
    RemoteControl, Severity, Timestamp, UplinkName,
};
use crate::runtime::Clock;
use crate::wire::{owner_from_json, owner_json};
use std::time::Duration;
use tokio::sync::oneshot;

/// The key of the owner's word among the store's kept values.
pub const OWNER_WORD: &str = "owner";
/// The longest pause that names an end. Longer is said without one.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(366 * 24 * 3600);

/// What the owner wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnerWish {
    /// Pause all remote control for so long; `None`: until resumed. In place of an earlier pause.
    Pause(Option<Duration>),
    /// Let it go on.
    Resume,
    /// End the events that run on this device; `None`: on all devices.
    OptOut(Option<DeviceId>),
}

/// A wish on its way.
#[derive(Debug)]
pub struct OwnerAsk {
    /// What.
    pub wish: OwnerWish,
    /// What came of it, after that is durable.
    pub answer: oneshot::Sender<OwnerAnswer>,
}

/// What came of a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnerAnswer {
    /// Remote control is so now.
    Remote(RemoteControl),
    /// The events that were ended; empty: none ran.
    OptedOut(Vec<OptOut>),
    /// It is in force, but a restart may forget it: why.
    NotKept(String),
}

/// What of an end is not known while the clock is not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    None,
    /// How long is known, until when is not.
    Wall,
    /// Until when is known, how long is not.
    Mono,
}

/// The owner's word as it holds now.
#[derive(Debug)]
pub(super) struct Owner {
    pause: Option<(Pause, Doubt)>,
    opted_out: Vec<(OptOut, Mono)>,
    /// Something changed that the disk does not have.
    is_dirty: bool,
    /// A pause ended while derd did not run: not told yet.
    is_over_untold: bool,
}

/// Read the word that is kept. Absent: nothing was ever said. Unreadable: the safe side, a pause without end.
#[must_use]
pub fn read_word(kept: Option<&str>) -> OwnerWord {
    let Some(text) = kept else { return OwnerWord::default() };
    serde_json::from_str(text).ok().as_ref().and_then(owner_from_json).unwrap_or_else(|| {
        tracing::error!("what the owner said about remote control cannot be read: it is paused until they resume it");
        OwnerWord { remote: RemoteControl { paused: true, until: None }, opted_out: Vec::new() }
    })
}

/// The pause that is still in force, for control's start.
pub(super) fn pause_of(word: &OwnerWord, clock: &Clock) -> Option<Pause> {
    let RemoteControl { paused: true, until } = word.remote else { return None };
    let Some(until) = until else { return Some(Pause { until: None }) };
    let left = until.since(clock.now()).min(LONGEST_PAUSE);
    (!left.is_zero()).then(|| Pause { until: Some(LeaseEnd { mono: clock.mono().plus(left), wall: until }) })
}

/// Did the owner opt this device out of this channel's events at that time.
pub(super) fn is_opted_out(word: &OwnerWord, uplink: &UplinkName, device: &DeviceId, now: Timestamp) -> bool {
    word.opted_out.iter().any(|out| out.uplink == *uplink && out.device == *device && out.until > now)
}

impl Owner {
    pub(super) fn new(word: &OwnerWord, clock: &Clock) -> Self {
        let is_sure = clock.state() != ClockState::Untrusted;
        let pause = pause_of(word, clock)
            .map(|pause| (pause, if is_sure || pause.until.is_none() { Doubt::None } else { Doubt::Mono }));
        let now = (clock.now(), clock.mono());
        let left = |out: &OptOut| out.until.since(now.0).min(super::LONGEST_LEASE);
        let opted_out: Vec<_> = word
            .opted_out
            .iter()
            .filter(|out| !left(out).is_zero())
            .map(|out| (out.clone(), now.1.plus(left(out))))
            .collect();
        let is_over = word.remote.paused && pause.is_none();
        let is_dirty = is_over || opted_out.len() != word.opted_out.len();
        Self { pause, opted_out, is_dirty, is_over_untold: is_over }
    }

    fn remote(&self) -> RemoteControl {
        self.pause.map(|(pause, _)| pause.into()).unwrap_or_default()
    }

    /// How long until the pause ends by itself; `None`: it does not.
    pub(super) fn left(&self, now: Mono) -> Option<Duration> {
        Some(self.pause?.0.until?.mono.since(now))
    }

    fn word(&self) -> String {
        let opted_out = self.opted_out.iter().map(|(out, _)| out.clone()).collect();
        owner_json(&OwnerWord { remote: self.remote(), opted_out }).to_string()
    }

    /// Why a command that is admitted now has to wait, when it does.
    pub(super) fn holds_back(&self, uplink: &UplinkName, what: &What) -> Option<String> {
        let (pause, _) = self.pause?;
        let What::Intent { rank, .. } = what else { return None };
        let waits = rank.waits_in_a_pause() && *uplink != UplinkName::local();
        waits.then(|| RemoteControl::from(pause).reason())
    }

    /// Is this an event that the owner does not want.
    pub(super) fn refuses(&self, uplink: &UplinkName, admit: &Admit, now: Mono) -> Option<Refusal> {
        let What::Intent { rank: Rank::Event, .. } = admit.what else { return None };
        let device = admit.device.as_ref()?;
        let is_meant = |out: &OptOut| out.uplink == *uplink && out.device == *device;
        let (out, _) = self.opted_out.iter().find(|(out, end)| is_meant(out) && *end > now)?;
        Some(Refusal {
            id: Some(admit.id.clone()),
            device: Some(device.clone()),
            state: CommandState::Rejected,
            reason: format!("the owner opted out until {}", out.until),
            requested: admit.requested.clone(),
            is_retained: false,
        })
    }
}

impl Desk {
    /// The owner wants something.
    pub(super) async fn owner_asks(&mut self, ask: OwnerAsk) {
        let answer = match ask.wish {
            OwnerWish::Pause(time) => self.pause(time).await,
            OwnerWish::Resume => {
                self.end_pause("The owner resumed remote control").await;
                OwnerAnswer::Remote(self.owner.remote())
            }
            OwnerWish::OptOut(device) => self.opt_out(device).await,
        };
        self.owner.is_dirty = false;
        self.jobs.push(Job::Keep(self.owner.word(), Some((ask.answer, answer))));
    }

    async fn pause(&mut self, time: Option<Duration>) -> OwnerAnswer {
        let until = time.map(|time| {
            let time = time.min(LONGEST_PAUSE);
            LeaseEnd { mono: self.clock.mono().plus(time), wall: self.clock.now().plus(time) }
        });
        let is_sure = until.is_none() || self.clock.state() != ClockState::Untrusted;
        let was_paused = self.owner.pause.is_some();
        self.owner.pause = Some((Pause { until }, if is_sure { Doubt::None } else { Doubt::Wall }));
        self.owe(ControlMsg::Pause { until }).await;
        let remote = self.owner.remote();
        tracing::info!(
            until = remote.until.map(|t| t.to_string()).unwrap_or_default(),
            "the owner paused remote control"
        );
        if !was_paused {
            let text = match remote.until {
                Some(until) => format!("The owner paused remote control until {until}"),
                None => "The owner paused remote control".to_owned(),
            };
            self.tell_event("remote_paused", EventState::Raised, None, text);
        }
        OwnerAnswer::Remote(remote)
    }

    async fn end_pause(&mut self, text: &str) {
        if self.owner.pause.take().is_none() {
            return;
        }
        self.owner.is_dirty = true;
        self.owe(ControlMsg::Resume).await;
        tracing::info!("remote control goes on");
        self.tell_event("remote_paused", EventState::Cleared, None, text.to_owned());
    }

    async fn opt_out(&mut self, device: Option<DeviceId>) -> OwnerAnswer {
        let now = self.clock.mono();
        let mut outs: Vec<(OptOut, Mono)> = Vec::new();
        for (key, tracked) in &self.book.tracked {
            let IntentKey::Command { uplink, device: Some(on), .. } = key else { continue };
            let Some(until) = tracked.event_end().filter(|_| device.as_ref().is_none_or(|device| device == on)) else {
                continue;
            };
            let is_same = |out: &OptOut| out.uplink == *uplink && out.device == *on;
            match outs.iter_mut().find(|(out, _)| is_same(out)) {
                Some((out, end)) => (out.until, *end) = (out.until.max(until), (*end).max(tracked.deadline())),
                None => outs.push((OptOut { uplink: uplink.clone(), device: on.clone(), until }, tracked.deadline())),
            }
        }
        self.owner.opted_out.retain(|(old, end)| {
            *end > now && !outs.iter().any(|(out, _)| (&out.uplink, &out.device) == (&old.uplink, &old.device))
        });
        self.owner.opted_out.extend(outs.iter().cloned());
        self.owe(ControlMsg::OptOut { device }).await;
        for (out, _) in &outs {
            let text = format!("The owner opted {} out of the event of {} until {}", out.device, out.uplink, out.until);
            self.tell_event("opted_out", EventState::Raised, Some(out.device.clone()), text);
        }
        OwnerAnswer::OptedOut(outs.into_iter().map(|(out, _)| out).collect())
    }

    /// The end of a pause may have come, or the clock may be right now.
    pub(super) async fn owner_turn(&mut self) {
        let now = self.clock.mono();
        if std::mem::take(&mut self.owner.is_over_untold) {
            let text = "The owner's pause of remote control ended while derd was not running".to_owned();
            self.tell_event("remote_paused", EventState::Cleared, None, text);
        }
        if self.clock.state() != ClockState::Untrusted {
            self.settle_doubt().await;
        }
        if self.owner.left(now).is_some_and(|left| left.is_zero()) {
            self.end_pause("The owner's pause of remote control is over").await;
        }
        let before = self.owner.opted_out.len();
        self.owner.opted_out.retain(|(_, end)| *end > now);
        self.owner.is_dirty |= self.owner.opted_out.len() != before;
        if std::mem::take(&mut self.owner.is_dirty) {
            self.jobs.push(Job::Keep(self.owner.word(), None));
        }
    }

    /// The clock is right now: what was not known of the pause's end is worked out.
    async fn settle_doubt(&mut self) {
        let (now, wall) = (self.clock.mono(), self.clock.now());
        let Some((Pause { until: Some(end) }, doubt)) = self.owner.pause else { return };
        let end = match doubt {
            Doubt::None => return,
            Doubt::Wall => LeaseEnd { wall: wall.plus(end.mono.since(now)), ..end },
            Doubt::Mono => LeaseEnd { mono: now.plus(end.wall.since(wall).min(LONGEST_PAUSE)), ..end },
        };
        self.owner.pause = Some((Pause { until: Some(end) }, Doubt::None));
        self.owner.is_dirty = true;
        self.owe(ControlMsg::Pause { until: Some(end) }).await;
    }

    /// The owner's word could not be written down: try again at the next turn.
    pub(super) const fn word_not_kept(&mut self) {
        self.owner.is_dirty = true;
    }

    fn tell_event(&mut self, code: &str, state: EventState, device: Option<DeviceId>, text: String) {
        let ts = self.clock.now();
        let event = Event { ts, severity: Severity::Info, device, code: code.to_owned(), text, state };
        self.jobs.push(Job::Event(Box::new(event)));
    }
}
