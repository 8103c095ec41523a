//! The loop: gathers events, lets `core` decide, carries the effects out.

use super::{ControlHandle, ControlMsg};
use crate::model::{
    ControlStatus, DeviceSpec, DeviceStatus, Intent, IntentUpdate, Order, Outcome, Sample, SiteLimit, SiteSpec,
};
use crate::plan::PlanDoc;
use crate::runtime::{Clock, Exit, Shutdown};
use crate::store::StoreHandle;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// A device as control sees it: what it is, where its orders go, what its task says of it.
#[derive(Debug)]
pub struct ControlledDevice {
    /// As configured.
    pub spec: DeviceSpec,
    /// The cell its task takes orders from.
    pub orders: watch::Sender<Order>,
    /// Its task's own word.
    pub status: watch::Receiver<DeviceStatus>,
}

/// What control is made of.
#[derive(Debug)]
pub struct ControlParts {
    /// The site and its limits.
    pub site: SiteSpec,
    /// All devices, also those that are only read.
    pub devices: Vec<ControlledDevice>,
    /// Every device's samples.
    pub samples: mpsc::Receiver<Arc<Sample>>,
    /// Every device's reports.
    pub outcomes: mpsc::Receiver<Outcome>,
    /// To the room that tracks commands.
    pub updates: mpsc::Sender<IntentUpdate>,
    /// For events.
    pub store: StoreHandle,
    /// The clock.
    pub clock: Clock,
    /// The plans: document, order of acceptance, who sent it.
    pub plans: Vec<(Arc<PlanDoc>, u64, String)>,
    /// Command intents that an earlier run left running.
    pub intents: Vec<Intent>,
    /// Site limits that an earlier run left running.
    pub site_limits: Vec<SiteLimit>,
}

/// Control's task.
#[derive(Debug)]
pub struct ControlTask {
    parts: ControlParts,
    inbox: mpsc::Receiver<ControlMsg>,
    status: watch::Sender<ControlStatus>,
}

/// A handle and the task to spawn.
#[must_use]
pub fn create(parts: ControlParts) -> (ControlHandle, ControlTask) {
    let (inbox, rx) = mpsc::channel(16);
    let (tx, status) = watch::channel(ControlStatus::default());
    (ControlHandle { inbox, status }, ControlTask { parts, inbox: rx, status: tx })
}

impl ControlTask {
    /// Runs until shutdown. Orders are left as they are: the device tasks take their `on_end` by themselves.
    pub async fn run(mut self, mut shutdown: Shutdown) -> Exit {
        let mut tick = tokio::time::interval(std::time::Duration::from_secs(1));
        loop {
            tokio::select! {
                () = shutdown.wait() => return Exit::Shutdown,
                msg = self.inbox.recv() => if msg.is_none() { return Exit::Orphaned },
                _ = tick.tick() => self.status.send_modify(|s| s.cycles += 1),
            }
            let _devices = self.parts.devices.len();
        }
    }
}
