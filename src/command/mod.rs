//! The trust boundary: what other rooms may ask of it.

use crate::model::{CommandResult, DeviceId, Origin, PlanId, ReplyTo, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Who a command is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A device, as named by the sender, unchecked.
    Device(String),
    /// The site.
    Site,
}

/// A command as it came.
#[derive(Debug)]
pub struct RawCommand {
    /// The channel.
    pub origin: Origin,
    /// For whom.
    pub target: Target,
    /// The body.
    pub body: Vec<u8>,
    /// Was it retained by a broker.
    pub retained: bool,
    /// The message's own expiry.
    pub expires_in: Option<Duration>,
    /// When it came.
    pub received: Timestamp,
    /// Extra address of the answer.
    pub reply_to: ReplyTo,
    /// The first result, after it is durable.
    pub answer: oneshot::Sender<CommandResult>,
}

/// A plan document as it came.
#[derive(Debug)]
pub struct RawPlan {
    /// The channel.
    pub origin: Origin,
    /// Its id, unchecked.
    pub plan: String,
    /// The document; `None` or empty: delete.
    pub body: Option<Vec<u8>>,
    /// Was it retained by a broker.
    pub retained: bool,
    /// `{"id","state":"accepted|refused|deleted","ts","reasons":[..]}`
    pub answer: oneshot::Sender<serde_json::Value>,
}

/// A plan for people.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanSummary {
    /// Its id.
    pub id: PlanId,
    /// For which device.
    pub device: DeviceId,
    /// `weekly` or `slots`.
    pub kind: &'static str,
    /// Who sent it.
    pub source: String,
    /// The document.
    pub json: serde_json::Value,
    /// When it changes next.
    pub next_change: Option<Timestamp>,
    /// What it wants now.
    pub active: Option<String>,
}

/// The handle.
#[derive(Debug, Clone)]
pub struct CommandHandle {
    pub(crate) commands: mpsc::Sender<RawCommand>,
    pub(crate) raw_plans: mpsc::Sender<RawPlan>,
    pub(crate) plans: watch::Receiver<Arc<Vec<PlanSummary>>>,
}

impl CommandHandle {
    /// # Errors
    /// The command when the inbox is full.
    pub fn try_command(&self, raw: RawCommand) -> Result<(), Box<RawCommand>> {
        self.commands.try_send(raw).map_err(|e| Box::new(e.into_inner()))
    }
    /// # Errors
    /// The plan when the inbox is full.
    pub fn try_plan(&self, raw: RawPlan) -> Result<(), Box<RawPlan>> {
        self.raw_plans.try_send(raw).map_err(|e| Box::new(e.into_inner()))
    }
    /// All plans.
    #[must_use]
    pub fn plans(&self) -> watch::Receiver<Arc<Vec<PlanSummary>>> {
        self.plans.clone()
    }
}
