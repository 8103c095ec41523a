//! What is handed to the command room: its own types, once that room is here.

use crate::model::{CommandResult, Origin, ReplyTo, Timestamp};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// For whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A device as named by the sender, unchecked.
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
    /// The body as it came.
    pub body: Vec<u8>,
    /// Was it retained.
    pub retained: bool,
    /// MQTT message expiry: what was left of it.
    pub expires_in: Option<Duration>,
    /// When it came.
    pub received: Timestamp,
    /// Extra address of the answer.
    pub reply_to: ReplyTo,
    /// Gets the first result, after it is durable.
    pub answer: oneshot::Sender<CommandResult>,
}

/// A plan document as it came.
#[derive(Debug)]
pub struct RawPlan {
    /// The channel.
    pub origin: Origin,
    /// Its id as named by the sender, unchecked.
    pub plan: String,
    /// The document; `None` or empty: delete.
    pub body: Option<Vec<u8>>,
    /// Was it retained.
    pub retained: bool,
    /// Gets the answer, after it is durable.
    pub answer: oneshot::Sender<serde_json::Value>,
}

/// The command room's inbox.
#[derive(Debug, Clone)]
pub struct CommandHandle {
    pub(crate) commands: mpsc::Sender<RawCommand>,
    pub(crate) plans: mpsc::Sender<RawPlan>,
}

impl CommandHandle {
    /// Hand a command over.
    ///
    /// # Errors
    /// The command itself, when the inbox is full.
    pub fn try_command(&self, raw: RawCommand) -> Result<(), Box<RawCommand>> {
        self.commands.try_send(raw).map_err(|e| Box::new(e.into_inner()))
    }

    /// Hand a plan over.
    ///
    /// # Errors
    /// The plan itself, when the inbox is full.
    pub fn try_plan(&self, raw: RawPlan) -> Result<(), Box<RawPlan>> {
        self.plans.try_send(raw).map_err(|e| Box::new(e.into_inner()))
    }
}
