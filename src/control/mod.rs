//! Decides what each device shall do: who asked, who wins, and what may never happen.
//!
//! # Layout
//!
//! - `view`: the newest samples frozen into one picture per cycle; what is old is no value.
//! - `frozen`: a grid meter that repeats itself while the house changes counts as silent.
//! - `limits`, `clamp`: what may never happen, as arithmetic on the picture. `phases`: where a one-phase car draws.
//! - `pace`: ramps, and the least times on and off of a charger.
//! - `arbiter`: (view, intents, limits, now) -> one decision per device. Pure, as the two above.
//! - `trace`: why: what each limit took, as small values; texts are made only when a decision is told.
//! - `tell`, `say`: when a decision is told, and in which words.
//! - `core`: the state between cycles; events go in, effects come out, nothing waits.
//! - `effect`: is the physical effect of a command seen, and how much energy did it move.
//! - `remote`, `session`: the owner's word: the pause of remote control, and what ends when the car leaves.
//! - `task`: the select loop that feeds `core` and carries its effects out.

mod alarms;
mod arbiter;
mod claims;
mod clamp;
mod core;
mod effect;
#[cfg(test)]
mod films;
mod frozen;
mod limits;
mod pace;
mod phases;
#[cfg(test)]
mod plan_tests;
mod plans;
mod remote;
mod say;
#[cfg(test)]
mod sequence_tests;
mod session;
mod task;
mod tell;
#[cfg(test)]
mod tests;
mod trace;
mod view;

#[cfg(test)]
pub(crate) use self::core::{Core, Effect, Now};
pub use task::{ControlParts, ControlTask, ControlledDevice, create};

use crate::model::{ControlStatus, DeviceId, Intent, IntentKey, LeaseEnd, PlanId, SiteLimit, UplinkName};
use crate::plan::PlanDoc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long a sender waits for room in control's inbox before it is refused. A cycle takes far less than a millisecond,
/// so a full inbox for this long means that control does not run.
const SEND_PATIENCE: Duration = Duration::from_millis(500);

/// What others tell control.
#[derive(Debug, Clone)]
pub enum ControlMsg {
    /// A command was admitted: act on it now.
    Intent(Intent),
    /// The same, and it ends when the car that stands there is unplugged.
    Session(Intent),
    /// Ends all intents of this source on the device.
    Release {
        /// The source.
        uplink: UplinkName,
        /// The device.
        device: DeviceId,
    },
    /// End this one intent or site limit.
    Withdraw(IntentKey),
    /// A limit of the site from outside. It can only tighten.
    SiteLimit(SiteLimit),
    /// A plan is new or replaced.
    Plan {
        /// The document.
        doc: Arc<PlanDoc>,
        /// Its order of acceptance.
        order: u64,
        /// Who sent it, for people.
        source: String,
    },
    /// A plan was deleted.
    DropPlan(PlanId),
    /// The owner pauses all remote control: intents from outside of rank command, event, plan, schedule and tag wait. Limits
    /// and rank grid stay in force.
    Pause {
        /// Its end; `None`: until [`ControlMsg::Resume`].
        until: Option<LeaseEnd>,
    },
    /// The pause is over.
    Resume,
    /// The owner ends the events that run.
    OptOut {
        /// On this device; `None`: on all.
        device: Option<DeviceId>,
    },
}

/// Control did not take a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ControlBusy {
    /// Its inbox stayed full.
    #[error("control is busy")]
    Full,
    /// Its task has ended.
    #[error("control has stopped")]
    Stopped,
}

/// Control, as seen by everybody else. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ControlHandle {
    inbox: mpsc::Sender<ControlMsg>,
    status: watch::Receiver<ControlStatus>,
}

impl ControlHandle {
    /// Give control a message; it acts on it at once.
    ///
    /// # Errors
    /// [`ControlBusy`]: then nothing was changed and the sender must be refused.
    pub async fn send(&self, msg: ControlMsg) -> Result<(), ControlBusy> {
        match tokio::time::timeout(SEND_PATIENCE, self.inbox.send(msg)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(ControlBusy::Stopped),
            Err(_) => Err(ControlBusy::Full),
        }
    }

    /// Control's own word: who holds what, load, grid, finished cycles.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<ControlStatus> {
        self.status.clone()
    }

    /// A handle whose other side is in the caller's hand: for tests of the rooms that talk to control.
    #[cfg(test)]
    pub(crate) fn for_test() -> (Self, mpsc::Receiver<ControlMsg>, watch::Sender<ControlStatus>) {
        let (inbox, rx) = mpsc::channel(16);
        let (tx, status) = watch::channel(ControlStatus::default());
        (Self { inbox, status }, rx, tx)
    }
}
