//! systemd: ready, stopping, and a watchdog that lives on real progress.

use crate::observe::Board;
use std::time::Duration;

/// Tells systemd how the daemon is.
pub(super) struct Watchdog {
    enabled: bool,
    board: Board,
    /// Half of what systemd allows; `None`: it does not ask.
    every: Option<Duration>,
}

impl Watchdog {
    pub(super) fn new(enabled: bool, board: Board) -> Self {
        let every = if enabled { sd_notify::watchdog_enabled().map(|d| d / 2) } else { None };
        Self { enabled, board, every }
    }

    fn tell(&self, states: &[sd_notify::NotifyState<'_>]) {
        if self.enabled
            && let Err(error) = sd_notify::notify(states)
        {
            tracing::warn!(%error, "systemd was not told");
        }
    }

    pub(super) fn ready(&self) {
        self.tell(&[sd_notify::NotifyState::Ready]);
    }

    pub(super) fn stopping(&self) {
        self.tell(&[sd_notify::NotifyState::Stopping]);
    }

    /// Feed the watchdog for ever, as long as poll and control turn; the store is not asked.
    pub(super) async fn feed(&mut self) {
        let Some(every) = self.every else { return std::future::pending().await };
        loop {
            tokio::time::sleep(every).await;
            match self.board.loops_turn() {
                Ok(()) => self.tell(&[sd_notify::NotifyState::Watchdog]),
                Err(why) => tracing::error!("the watchdog is not fed: {why}"),
            }
        }
    }
}
