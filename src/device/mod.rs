//! One task per device: finds it, polls it, keeps it at what it was ordered, proves that from the wire, and leads it back
//! when the lease is over.
//!
//! # Layout
//!
//! * `apply`: what to do next about an order, `judge`: what follows from what came of it; both pure
//! * `words`: what the keeper and the task say to each other
//! * `walls`: what a device must never be told; pure
//! * `wear`: the ledger of writes and its budget; pure. `purse`: the ledger with the clock
//! * `task`: the loop, one request at a time, orders before polls
//! * `perform`: programs on the wire
//! * `find`: discovery and the first baseline, `baseline`: the guard over it
//! * `poll`: readings
//!
//! # Channels
//!
//! Orders: one cell, the newest replaces. Samples to control: bounded; when full the sample is dropped there and counted,
//! the next poll brings a newer one. Outcomes to control: bounded; when full they wait here, in order, and nothing is lost.

mod apply;
mod baseline;
mod find;
mod judge;
mod perform;
mod poll;
mod probe;
mod purse;
mod task;
mod walls;
mod wear;
mod words;

#[cfg(test)]
mod task_tests;
#[cfg(test)]
mod tests;

pub use baseline::Accept;
pub use probe::probe;
pub use task::DeviceTask;

use crate::link::LinkHandle;
use crate::model::{BootId, DeviceSpec, DeviceStatus, Held, Order, Outcome, Sample};
use crate::profile::Driver;
use crate::runtime::Clock;
use crate::store::StoreHandle;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// What a device task is made of.
#[derive(Debug)]
pub struct DeviceParts {
    /// The device as configured.
    pub spec: DeviceSpec,
    /// Its profile's driver.
    pub driver: Driver,
    /// Its link, perhaps shared.
    pub link: LinkHandle,
    /// Where samples, events and the journal of what is held go.
    pub store: StoreHandle,
    /// The clock.
    pub clock: Clock,
    /// This start of the process.
    pub boot: BootId,
    /// Samples to control.
    pub samples: mpsc::Sender<Arc<Sample>>,
    /// Reports on setpoints to control.
    pub outcomes: mpsc::Sender<Outcome>,
    /// What an earlier run may have left in the device.
    pub held: Option<Held>,
    /// The baseline recorded at the first contact, if there was one.
    pub baseline: Option<String>,
    /// The ledger of writes to it, as kept by the store.
    pub wear: Option<String>,
}

/// A device as seen by control and the others. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DeviceHandle {
    orders: Arc<watch::Sender<Order>>,
    status: watch::Receiver<DeviceStatus>,
    spec: Arc<DeviceSpec>,
    accepts: mpsc::Sender<Accept>,
}

impl DeviceHandle {
    /// Give the newest order; an equal one changes nothing.
    pub fn order(&self, order: Order) {
        self.orders.send_if_modified(|cell| {
            let changed = *cell != order;
            if changed {
                *cell = order;
            }
            changed
        });
    }

    /// The cell that the newest order is put into.
    #[must_use]
    pub fn orders(&self) -> watch::Sender<Order> {
        self.orders.as_ref().clone()
    }

    /// The device's own word, and each change of it.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<DeviceStatus> {
        self.status.clone()
    }

    /// Where the installer's word goes that what is in the device now is its baseline. Nobody else may say so.
    #[must_use]
    pub fn accepts(&self) -> mpsc::Sender<Accept> {
        self.accepts.clone()
    }

    /// The device as configured.
    #[must_use]
    pub fn spec(&self) -> &DeviceSpec {
        &self.spec
    }
}

/// A device. Nothing is asked of it before the task runs. Its link must outlive it: on stop it still writes.
#[must_use]
pub fn create(parts: DeviceParts) -> (DeviceHandle, DeviceTask) {
    let (orders, ordered) = watch::channel(Order::Wait);
    let (status, seen) = watch::channel(DeviceStatus::default());
    // One installer; a second at the same moment is told to come again.
    let (accepts, accepted) = mpsc::channel(1);
    let handle = DeviceHandle { orders: Arc::new(orders), status: seen, spec: Arc::new(parts.spec.clone()), accepts };
    (handle, DeviceTask::new(parts, ordered, accepted, status))
}
