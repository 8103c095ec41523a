//! Connects, again and again, and keeps what outlives a connection.

use super::MqttParts;
use super::outbox::Outbox;
use super::refusals::Refusals;
use super::session::{self, End};
use super::telemetry::Telemetry;
use super::topics::Topics;
use crate::model::{Event, EventState, Severity, Stored, UplinkMode, UplinkStatus};
use crate::runtime::{Exit, Retry, Shutdown};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;

/// Between attempts to connect: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How often the size of the backlog is asked for while it matters.
pub(super) const SIZE_EVERY: Duration = Duration::from_secs(5);
/// Events waiting for the store; beyond this the oldest is dropped and logged.
const MOST_EVENTS: usize = 64;

/// The uplink to one broker.
#[derive(Debug)]
pub struct MqttTask {
    core: Core,
}

/// What outlives a connection.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) parts: MqttParts,
    pub(super) topics: Topics,
    pub(super) telemetry: Telemetry,
    pub(super) outbox: Outbox,
    pub(super) refusals: Refusals,
    pub(super) live: broadcast::Receiver<Stored>,
    status: watch::Sender<UplinkStatus>,
    /// To be told to the store.
    pub(super) events: VecDeque<Event>,
    /// Messages that were nothing we asked for, since start.
    pub(super) odd_messages: u64,
}

impl MqttTask {
    pub(super) fn new(parts: MqttParts, status: watch::Sender<UplinkStatus>) -> Self {
        let topics = Topics::new(&parts.gateway);
        Self {
            core: Core {
                telemetry: Telemetry::new(parts.settings.telemetry_every),
                outbox: Outbox::new(topics.clone(), parts.settings.name.clone()),
                refusals: Refusals::default(),
                live: parts.store.live(),
                status,
                events: VecDeque::new(),
                odd_messages: 0,
                topics,
                parts,
            },
        }
    }

    /// Run until the shutdown's word, and say goodbye to the broker then.
    pub async fn run(mut self, mut shutdown: Shutdown) -> Exit {
        let core = &mut self.core;
        let mut retry = Retry::new(RETRY.0, RETRY.1);
        let mut was_told = false;
        loop {
            if shutdown.is_stopping() {
                return Exit::Shutdown;
            }
            match session::run(core, &mut shutdown).await {
                End::Shutdown => return Exit::Shutdown,
                End::Lost { reason, was_good } => {
                    if was_good {
                        retry.reset();
                        was_told = false;
                    }
                    if !std::mem::replace(&mut was_told, true) {
                        tracing::warn!(uplink = %core.parts.settings.name, %reason, "no connection to the broker: samples wait in the store");
                    }
                    core.offline(reason);
                }
            }
            let pause = full_jitter(retry.next_delay());
            let mut shutdown = shutdown.clone();
            let wait = async move {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = shutdown.wait() => {}
                }
            };
            core.idle(wait).await;
        }
    }
}

impl Core {
    /// Wait for something while there is no connection: samples are seen passing, and people see the backlog grow.
    pub(super) async fn idle<T>(&mut self, until: impl Future<Output = T>) -> T {
        let mut until = std::pin::pin!(until);
        let mut ask_size = tokio::time::interval(SIZE_EVERY);
        ask_size.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let store = self.parts.store.clone();
        let name = self.parts.settings.name.clone();
        let mut size = None;
        loop {
            tokio::select! {
                value = &mut until => return value,
                stored = self.live.recv() => match stored {
                    Ok(stored) => self.telemetry.missed(&stored),
                    Err(RecvError::Lagged(_)) => {}
                    // The store is gone: nothing more will come, but the rest goes on.
                    Err(RecvError::Closed) => return until.as_mut().await,
                },
                _ = ask_size.tick(), if size.is_none() => size = Some(Box::pin(store.backlog_size(name.clone()))),
                answer = optional(&mut size) => {
                    size = None;
                    if let Ok((rows, oldest)) = answer {
                        self.say(|s| (s.backlog_rows, s.oldest_unsent) = (rows, oldest));
                    }
                }
            }
        }
    }

    fn offline(&mut self, reason: String) {
        self.telemetry.disconnected();
        self.say(|s| {
            s.mode = UplinkMode::Offline;
            s.error = Some(reason);
        });
    }

    /// Does anybody want to know how large the backlog is.
    pub(super) fn has_backlog(&self) -> bool {
        self.telemetry.has_backlog() || self.telemetry.held_count() > 0 || self.status.borrow().backlog_rows > 0
    }

    /// Change the uplink's own word; watchers wake only when it really changed.
    pub(super) fn say(&self, change: impl FnOnce(&mut UplinkStatus)) {
        self.status.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            *status != before
        });
    }

    /// Queue an event for the store.
    pub(super) fn event(&mut self, code: &str, severity: Severity, state: EventState, text: String) {
        if self.events.len() >= MOST_EVENTS {
            self.events.pop_front();
            tracing::warn!(uplink = %self.parts.settings.name, "an event was dropped: the store does not take them");
        }
        let ts = self.parts.clock.now();
        self.events.push_back(Event { ts, severity, device: None, code: code.to_owned(), text, state });
    }
}

/// Wait for a future that may not be there: then for ever.
pub(super) async fn optional<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// A random part of a delay, so that a thousand gateways do not come back at once.
fn full_jitter(delay: Duration) -> Duration {
    let part = getrandom::u32().map_or(1.0, |r| f64::from(r) / f64::from(u32::MAX));
    delay.mul_f64(part).clamp(Duration::from_millis(100), RETRY.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_in_its_bounds() {
        let pauses: Vec<_> = (0..200).map(|_| full_jitter(Duration::from_secs(20))).collect();
        assert!(pauses.iter().all(|p| *p <= Duration::from_secs(20) && *p >= Duration::from_millis(100)));
        assert!(
            pauses.iter().any(|p| *p < Duration::from_secs(8)) && pauses.iter().any(|p| *p > Duration::from_secs(12))
        );
    }
}
