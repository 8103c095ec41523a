//! What `derd-guard` did while there was no daemon, and what an earlier run left to be done.

use crate::config::Settings;
use crate::guard::{Journal, Will, folder};
use crate::model::{BootId, DeviceId, Event, EventState, Severity};
use crate::runtime::Clock;
use crate::store::StoreHandle;
use std::collections::BTreeMap;

/// Take the daemon's lock, tell what was done meanwhile, and give what is still open.
pub(super) async fn open(
    settings: &Settings,
    boot: &BootId,
    store: &StoreHandle,
    clock: &Clock,
) -> (Journal, BTreeMap<DeviceId, Will>) {
    let (wills, left) = Journal::open(&folder(&settings.data_dir), boot.as_str(), settings.guard_after).await;
    for will in left.done {
        let (device, when) = (&will.device, will.done_at.map(|t| t.to_string()).unwrap_or_default());
        let text = format!("derd was dead: derd-guard led {device} {} at {when}", will.end_in_words());
        tracing::warn!(%device, code = "guard_released", "{text}");
        let event = Event {
            ts: clock.now(),
            severity: Severity::Warning,
            device: Some(device.clone()),
            code: "guard_released".to_owned(),
            text,
            state: EventState::Raised,
        };
        match store.event(event).await {
            Ok(()) => wills.acknowledge(device).await,
            Err(error) => {
                tracing::warn!(%device, "the store did not take an event, it is told again next time: {error}")
            }
        }
    }
    for device in left.open.keys().filter(|id| !settings.devices.iter().any(|d| d.id == **id)) {
        tracing::warn!(
            %device,
            "{device} is not configured any more, and may hold what an earlier run wrote: stop derd and run \
             `derd-guard --once` to lead it back"
        );
    }
    (wills, left.open)
}
