//! The trust boundary: what comes from outside is admitted or refused here, once, before it can act.
//!
//! # Layout
//!
//! - `admit`: (body, channel, devices, clock) -> what to do, or a refusal with a reason. Pure.
//! - `track`: how a command fares, from control's updates to the results that its sender gets. Pure.
//! - `recover`: what an earlier run left open. Pure.
//! - `jobs`: what waits for the disk, in order.
//! - `plans`: the plan documents in force.
//! - `owner`: the owner's word on everybody else's control: pause, resume, opt-out.
//! - `task`: the select loop that ties them together; `intake` and `settle`: what it does on the way in and afterwards.
//!
//! # Order of things
//!
//! A command is written down with full durability before it acts, and its first result tells its sender so. `stop` and
//! `idle` act first and are written down afterwards. Everything that needs the disk goes through one queue, in order, so
//! that a `stop` never waits behind it.
//!
//! # Leases
//!
//! A command ends at its `ends_at`, else after 15 min ([`LEASE`]), the owner's after 4 h ([`OWNER_LEASE`]), the owner's
//! `start`, `stop` and `set_max_current` when the car is unplugged, at the latest after 24 h ([`OWNER_CHARGER_LEASE`]).
//! More than 30 days ([`LONGEST_LEASE`]) is refused: that is what plans are for.
//!
//! # Energy
//!
//! Control tells every 10 s what a running command has delivered. The sum goes to the store, which writes it with its
//! next commit of telemetry, and is where the next run goes on from. A crash loses at most 10 s and one commit interval
//! of it, and nothing counts while derd does not run.

mod admit;
mod intake;
mod jobs;
mod owner;
mod plans;
mod recover;
mod settle;
mod task;
#[cfg(test)]
mod tests;
mod track;

#[cfg(test)]
pub(crate) use admit::kept_body;
pub use admit::{Admit, Incoming, Refusal, Surroundings, What, admit};
pub use owner::{LONGEST_PAUSE, OWNER_WORD, OwnerAnswer, OwnerAsk, OwnerWish, read_word};
pub use plans::PlanSummary;
#[cfg(test)]
pub(crate) use plans::taken;
pub use recover::{Recovered, recover};
pub use task::{CommandParts, CommandTask, RECENT, create};
pub use track::Tracked;

use crate::model::{CommandResult, Origin, ReplyTo, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Commands that wait at most: one more is refused, and its channel answers `rejected: busy`.
pub const INBOX: usize = 8;
/// Largest body of a command, bytes.
pub const MAX_BODY: usize = 256 * 1024;
/// How long a command holds that names no end.
pub const LEASE: Duration = Duration::from_secs(15 * 60);
/// How long the owner's command holds that names no end.
pub const OWNER_LEASE: Duration = Duration::from_secs(4 * 3600);
/// How long the owner's word on a charger holds that names no end (until unplugged, at most).
pub const OWNER_CHARGER_LEASE: Duration = Duration::from_secs(24 * 3600);
/// The longest lease: an end further away is refused.
pub const LONGEST_LEASE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a command is fresh after its `issued_at` when it names no `not_after`.
pub const FRESH: Duration = Duration::from_secs(60);
/// How far ahead of this gateway's clock a sender's may be.
pub const CLOCK_AHEAD: Duration = Duration::from_secs(5 * 60);

/// What a command is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A device as named by the sender: unchecked.
    Device(String),
    /// The whole site.
    Site,
}

/// A command as it came.
#[derive(Debug)]
pub struct RawCommand {
    /// The channel, and what it may claim.
    pub origin: Origin,
    /// For what.
    pub target: Target,
    /// The body: JSON, unchecked.
    pub body: Vec<u8>,
    /// Was it a retained message.
    pub retained: bool,
    /// The MQTT message expiry that was left when it came.
    pub expires_in: Option<Duration>,
    /// When it came.
    pub received: Timestamp,
    /// Where answers go beside the ordinary place.
    pub reply_to: ReplyTo,
    /// The first result, after it is durable: only then is the message acknowledged.
    pub answer: oneshot::Sender<CommandResult>,
}

/// A plan document as it came.
#[derive(Debug)]
pub struct RawPlan {
    /// The channel.
    pub origin: Origin,
    /// The plan's id as it was named: unchecked.
    pub plan: String,
    /// The document; `None` or empty: delete.
    pub body: Option<Vec<u8>>,
    /// Was it a retained message: taken all the same, as the same document again changes nothing.
    pub retained: bool,
    /// What became of it, after that is durable: `{"id","state":"accepted|refused|deleted","ts","reasons":[..]}`; a removal
    /// is `deleted` for the owner and `accepted` over MQTT.
    pub answer: oneshot::Sender<serde_json::Value>,
}

/// The command task, as seen by the channels. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CommandHandle {
    pub(crate) commands: mpsc::Sender<RawCommand>,
    pub(crate) plans: mpsc::Sender<RawPlan>,
    pub(crate) asks: mpsc::Sender<OwnerAsk>,
    pub(crate) summaries: watch::Receiver<Arc<Vec<PlanSummary>>>,
}

impl CommandHandle {
    /// A handle whose inboxes of this size a test reads itself.
    #[cfg(test)]
    pub(crate) fn for_tests(size: usize) -> (Self, mpsc::Receiver<RawCommand>, mpsc::Receiver<RawPlan>) {
        let (commands, commands_rx) = mpsc::channel(size);
        let (plans, plans_rx) = mpsc::channel(size);
        let asks = mpsc::channel(1).0;
        (Self { commands, plans, asks, summaries: watch::channel(Arc::default()).1 }, commands_rx, plans_rx)
    }

    /// Do both inboxes take one more.
    pub(crate) fn has_room(&self) -> bool {
        self.commands.capacity() > 0 && self.plans.capacity() > 0
    }

    /// Hand a command over.
    ///
    /// # Errors
    /// The command, when the inbox is full or the task has ended: the caller answers `rejected: busy`.
    pub fn try_command(&self, raw: RawCommand) -> Result<(), Box<RawCommand>> {
        self.commands.try_send(raw).map_err(|e| Box::new(e.into_inner()))
    }

    /// Hand a plan document over.
    ///
    /// # Errors
    /// The document, when the inbox is full or the task has ended: the caller answers busy.
    pub fn try_plan(&self, raw: RawPlan) -> Result<(), Box<RawPlan>> {
        self.plans.try_send(raw).map_err(|e| Box::new(e.into_inner()))
    }

    /// Hand a wish of the owner over.
    ///
    /// # Errors
    /// The wish, when the inbox is full or the task has ended: the caller answers busy.
    pub fn try_owner(&self, ask: OwnerAsk) -> Result<(), OwnerAsk> {
        self.asks.try_send(ask).map_err(mpsc::error::TrySendError::into_inner)
    }

    /// The plan documents in force, by id.
    #[must_use]
    pub fn plans(&self) -> watch::Receiver<Arc<Vec<PlanSummary>>> {
        self.summaries.clone()
    }
}
