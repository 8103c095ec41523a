//! What happens to the device when derd is gone: its will, on the disk before the first setpoint.

use super::task::DeviceTask;
use crate::guard::{Fault, Journal, Put, Will, over};
use crate::model::{Demand, FailSafe, Severity};
use crate::runtime::{Retry, Shutdown};
use std::time::Duration;
use tokio::time::sleep;

/// A will may keep its setpoint waiting for so long.
const WILL_WAIT: Duration = Duration::from_secs(1);
/// Stopping and holding at 0 W are safe by themselves and wait for nobody.
const URGENT_WAIT: Duration = Duration::ZERO;
/// A device that refuses what an earlier run wrote down is taken as it is after so many attempts.
const ATTEMPTS: u32 = 3;
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The device's will, and the trouble with it.
#[derive(Debug)]
pub(super) struct Guarded {
    journal: Journal,
    /// What an earlier run wrote down, and the store knows nothing of.
    left: Option<Will>,
    /// Is the present trouble told.
    alarmed: bool,
}

impl Guarded {
    pub(super) const fn new(journal: Journal, left: Option<Will>) -> Self {
        Self { journal, left, alarmed: false }
    }
}

impl DeviceTask {
    /// `demand` is about to be written, or was found in the device: if it stays there without derd, the way back is on the
    /// disk first. Control never waits longer than a second for it.
    pub(super) async fn write_will(&mut self, demand: &Demand) {
        let Some((held, on_end)) = self.keeper.held() else { return };
        // A fallback is tighter than what the device's own timer leads back to; and who accepts that there is no timer
        // says that the one which the device shows is not to be relied upon.
        let by_itself = matches!(self.driver.capabilities().failsafe, FailSafe::Timer(_))
            && on_end == Demand::Release
            && !self.spec.control.accept_no_failsafe;
        if held != *demand || by_itself {
            return;
        }
        let way = match self.driver.way_back(&on_end) {
            Ok(way) => way,
            // It is told where the device is to be led back.
            Err(_) => return,
        };
        let will = Will {
            device: self.spec.id.clone(),
            link: self.spec.link.clone(),
            pace: self.link.handle.pace(),
            after: self.guarded.journal.after(),
            since: self.clock.now(),
            on_end,
            way,
            done_at: None,
        };
        let put = self.guarded.journal.put(will, if is_urgent(demand) { URGENT_WAIT } else { WILL_WAIT }).await;
        self.note(put).await;
    }

    /// The end was verified.
    pub(super) async fn no_will(&mut self) {
        let put = self.guarded.journal.remove(&self.spec.id, WILL_WAIT).await;
        self.note(put).await;
    }

    async fn note(&mut self, put: Put) {
        let id = self.spec.id.clone();
        match put {
            Put::Kept if std::mem::take(&mut self.guarded.alarmed) => {
                let text = format!("how {id} is led back when derd is gone is on the disk again");
                self.event("guard_not_written", Severity::Info, text, false).await;
            }
            Put::Failed(why) if !std::mem::replace(&mut self.guarded.alarmed, true) => {
                let text = format!("how {id} is led back when derd is gone could not be written down: {why}");
                self.event("guard_not_written", Severity::Warning, text, true).await;
            }
            Put::Kept | Put::Failed(_) | Put::Behind => {}
        }
    }

    /// The store has lost its memory and the disk has not: what the last run wrote down is carried out, word by word, before
    /// what the device holds is taken for what the installer set in it.
    pub(super) async fn settle_left(&mut self, shutdown: &mut Shutdown) {
        let Some(will) = self.guarded.left.take() else { return };
        let id = self.spec.id.clone();
        let (mut retry, mut refused) = (Retry::new(RETRY.0, RETRY.1), 0);
        loop {
            let done = tokio::select! {
                done = over(&self.link.handle, &will) => done,
                () = shutdown.wait() => return,
            };
            match done {
                Ok(()) => {
                    let text = format!(
                        "{id} still held what an earlier run of derd wrote: it was led {}",
                        will.end_in_words()
                    );
                    self.event("leftover_released", Severity::Warning, text, true).await;
                    return self.no_will().await;
                }
                Err(Fault::Unreached(why)) => self.not_yet(why),
                Err(fault) => {
                    refused += 1;
                    if refused >= ATTEMPTS {
                        tracing::error!(device = %id, "what an earlier run wrote could not be taken back: {fault}");
                        return;
                    }
                }
            }
            tokio::select! {
                () = sleep(retry.next_delay()) => {}
                () = shutdown.wait() => return,
            }
        }
    }
}

/// Does it make things safe by itself.
pub(super) fn is_urgent(demand: &Demand) -> bool {
    matches!(demand, Demand::ChargerOff) || matches!(demand, Demand::BatteryPower { watts, .. } if *watts == 0.0)
}
