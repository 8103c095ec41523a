//! What other rooms may ask of the store.

use super::decisions::{Decision, DecisionRow, Gap};
use crate::model::{
    CommandId, CommandResult, DeviceId, Event, Held, IntentKey, PlanId, Point, RowNo, Sample, StoreStatus, Stored,
    Timestamp, UplinkName, Value,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused: what was attempted, and its words.
    #[error("{attempt}: {reason}")]
    Sqlite {
        /// What was attempted.
        attempt: &'static str,
        /// SQLite's words.
        reason: String,
    },
    /// The store's thread has ended.
    #[error("the store has stopped")]
    Stopped,
    /// The store has no room for another request: ask again later.
    #[error("the store is busy")]
    Busy,
}

/// A command to be written down before it acts.
#[derive(Debug, Clone, PartialEq)]
pub struct NewCommand {
    /// The channel it came by.
    pub uplink: UplinkName,
    /// For which device; `None` for the site.
    pub device: Option<DeviceId>,
    /// The sender's id.
    pub id: CommandId,
    /// The body as it came: the same id with another body is refused.
    pub body: Vec<u8>,
    /// Its first result, normally `accepted`.
    pub result: CommandResult,
    /// When the setpoint ends.
    pub ends_at: Timestamp,
    /// When it was accepted.
    pub accepted_at: Timestamp,
}

/// Was the command new.
#[derive(Debug, Clone, PartialEq)]
pub enum Admitted {
    /// It is written down with full durability. `order` grows with each.
    New {
        /// Order of acceptance over all commands and plans.
        order: u64,
    },
    /// The same id and body came before: its latest result. Nothing was changed.
    Duplicate(Box<CommandResult>),
    /// The same id came before with another body. Nothing was changed.
    Conflict(Box<CommandResult>),
}

/// A command without a final result, found at start.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenCommand {
    /// As it was admitted; `result` is the latest.
    pub command: NewCommand,
    /// Its order of acceptance.
    pub order: u64,
}

/// A plan document as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPlan {
    /// Its id.
    pub id: PlanId,
    /// The document, JSON.
    pub body: String,
    /// Who sent it: an uplink's name or `local`.
    pub source: UplinkName,
    /// Its order of acceptance.
    pub order: u64,
    /// When it was accepted.
    pub accepted_at: Timestamp,
}

/// Something to be told to uplinks at least once.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// Its running number.
    pub id: u64,
    /// What.
    pub body: NoticeBody,
}

/// What a notice tells.
#[derive(Debug, Clone, PartialEq)]
pub enum NoticeBody {
    /// A command's result: for the uplink that sent it.
    Result(CommandResult),
    /// An event: for every uplink.
    Event(Event),
    /// What became of a plan document: for the uplink that sent it.
    Plan {
        /// Who sent it.
        uplink: UplinkName,
        /// Its id as it was named (it may be no good id).
        plan: String,
        /// `{"id","state":"accepted|refused|deleted","ts","reasons":[..]}`
        answer: serde_json::Value,
    },
}

/// A notice on its way to one uplink.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboxItem {
    /// The notice.
    pub notice: Notice,
    /// When it was written down.
    pub ts: Timestamp,
}

/// Samples that an uplink has not acknowledged, oldest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BacklogPage {
    /// The samples.
    pub samples: Vec<Stored>,
    /// Nothing unacknowledged is left behind these below the asked limit.
    pub is_last: bool,
}

/// Which telemetry to read.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryQuery {
    /// Whose.
    pub device: DeviceId,
    /// Only these points; empty: all.
    pub points: Vec<Point>,
    /// From this time on.
    pub from: Timestamp,
    /// Before this time.
    pub to: Timestamp,
    /// Mean over steps of this length (counters and texts: last value); `None`: as read.
    pub step: Option<Duration>,
    /// At most so many rows.
    pub limit: usize,
}

/// One value of the history.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryRow {
    /// When (with a step: its begin).
    pub ts: Timestamp,
    /// Which point.
    pub point: Point,
    /// Its value; `None`: null.
    pub value: Option<Value>,
}

/// One request to the store's thread. Every request gets exactly one answer; a dropped reply reads as [`StoreError::Stopped`].
#[derive(Debug)]
pub(crate) enum Ask {
    Sample(Stored),
    Flush(oneshot::Sender<Result<(), StoreError>>),
    Admit(Box<NewCommand>, oneshot::Sender<Result<Admitted, StoreError>>),
    SaveResult(Box<CommandResult>, oneshot::Sender<Result<(), StoreError>>),
    TellResult(Box<CommandResult>, oneshot::Sender<Result<(), StoreError>>),
    OpenCommands(oneshot::Sender<Result<Vec<OpenCommand>, StoreError>>),
    NewestCommands(usize, oneshot::Sender<Result<Vec<IntentKey>, StoreError>>),
    SavePlan(Box<(PlanId, String, UplinkName, Timestamp)>, oneshot::Sender<Result<u64, StoreError>>),
    DeletePlan(PlanId, oneshot::Sender<Result<bool, StoreError>>),
    Plans(oneshot::Sender<Result<Vec<StoredPlan>, StoreError>>),
    Held(Box<Held>),
    NotHeld(DeviceId),
    HeldAll(oneshot::Sender<Result<Vec<Held>, StoreError>>),
    Baseline(DeviceId, String),
    Baselines(oneshot::Sender<Result<Vec<(DeviceId, String)>, StoreError>>),
    Wear(DeviceId, String),
    Wears(oneshot::Sender<Result<Vec<(DeviceId, String)>, StoreError>>),
    Event(Box<Event>),
    PlanAnswer(Box<(UplinkName, String, serde_json::Value)>),
    Events(usize, oneshot::Sender<Result<Vec<(u64, Event)>, StoreError>>),
    Outbox(UplinkName, usize, oneshot::Sender<Result<Vec<OutboxItem>, StoreError>>),
    OutboxDone(UplinkName, Vec<u64>),
    Backlog(UplinkName, RowNo, usize, oneshot::Sender<Result<BacklogPage, StoreError>>),
    Acked(UplinkName, Vec<RowNo>),
    Delivered(Box<(UplinkName, DeviceId, CommandId)>, f64),
    BacklogSize(UplinkName, oneshot::Sender<Result<(u64, Option<Timestamp>), StoreError>>),
    Decided(Box<Decision>),
    DecisionAt(DeviceId, Timestamp, oneshot::Sender<Result<Option<DecisionRow>, StoreError>>),
    Decisions(Box<(DeviceId, Timestamp, Timestamp, usize)>, oneshot::Sender<Result<Vec<DecisionRow>, StoreError>>),
    NotRunning(Timestamp, oneshot::Sender<Result<Option<Gap>, StoreError>>),
    History(Box<HistoryQuery>, oneshot::Sender<Result<Vec<HistoryRow>, StoreError>>),
    Meta(String, oneshot::Sender<Result<Option<String>, StoreError>>),
    SetMeta(String, String, oneshot::Sender<Result<(), StoreError>>),
    Stop(oneshot::Sender<()>),
}

/// What the thread does after a request.
pub(crate) enum Next {
    Go,
    Stop(oneshot::Sender<()>),
}

/// Answer a request; nobody may wait for it any more.
pub(crate) fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    if reply.send(value).is_err() {
        tracing::debug!("nobody waited for the store's answer");
    }
}

/// The store, as seen by everybody else. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StoreHandle {
    pub(crate) asks: mpsc::Sender<Ask>,
    pub(crate) live: broadcast::Sender<Stored>,
    pub(crate) next_row: Arc<AtomicU64>,
    /// Samples that found the queue full: lost to the store, counted.
    pub(crate) dropped: Arc<AtomicU64>,
    pub(crate) outbox: watch::Receiver<u64>,
    pub(crate) status: watch::Receiver<StoreStatus>,
}

impl StoreHandle {
    /// Take a sample: gives it its row number, shows it to the live listeners and queues it for the disk. Never blocks;
    /// when the queue is full the sample is lost to the store and counted.
    pub fn offer(&self, sample: Arc<Sample>) {
        let stored = Stored { row: RowNo(self.next_row.fetch_add(1, Ordering::SeqCst)), sample };
        // No listener is a normal case: nobody wants live values.
        let _listeners = self.live.send(stored.clone()).unwrap_or(0);
        if self.asks.try_send(Ask::Sample(stored)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Every sample from now on, as it comes. A listener that is too slow loses the oldest and is told how many.
    #[must_use]
    pub fn live(&self) -> broadcast::Receiver<Stored> {
        self.live.subscribe()
    }

    /// Changes whenever a notice was added for any uplink.
    #[must_use]
    pub fn outbox_changed(&self) -> watch::Receiver<u64> {
        self.outbox.clone()
    }

    /// The store's own word.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<StoreStatus> {
        self.status.clone()
    }

    pub(super) async fn ask<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Ask,
    ) -> Result<T, StoreError> {
        let (tx, rx) = oneshot::channel();
        self.asks.send(make(tx)).await.map_err(|_| StoreError::Stopped)?;
        rx.await.map_err(|_| StoreError::Stopped)?
    }

    /// For things that must not be lost but whose sender does not wait for the disk.
    async fn tell(&self, ask: Ask) -> Result<(), StoreError> {
        self.asks.send(ask).await.map_err(|_| StoreError::Stopped)
    }

    /// Commit everything taken so far, with full sync.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.ask(Ask::Flush).await
    }

    /// Write a command down, durably, unless its id was seen on this uplink and device in the last 90 days.
    /// Its first result becomes a notice.
    ///
    /// # Errors
    /// [`StoreError`]: then the command must not act.
    pub async fn admit(&self, command: NewCommand) -> Result<Admitted, StoreError> {
        self.ask(|tx| Ask::Admit(Box::new(command), tx)).await
    }

    /// Replace a command's result, durably, and queue it as a notice for its uplink. A result without an id, or of a
    /// command that was never admitted, is only queued.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn save_result(&self, result: CommandResult) -> Result<(), StoreError> {
        self.ask(|tx| Ask::SaveResult(Box::new(result), tx)).await
    }

    /// Queue a result as a notice for its uplink, durably, and leave the stored one as it is: the answer to a command that
    /// came again, with the same or another body.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn tell_result(&self, result: CommandResult) -> Result<(), StoreError> {
        self.ask(|tx| Ask::TellResult(Box::new(result), tx)).await
    }

    /// Commands without a final result: asked once, at start.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn open_commands(&self) -> Result<Vec<OpenCommand>, StoreError> {
        self.ask(Ask::OpenCommands).await
    }

    /// The names of the commands that were admitted last, open or not, oldest first, at most so many: asked once, at start.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn newest_commands(&self, limit: usize) -> Result<Vec<IntentKey>, StoreError> {
        self.ask(|tx| Ask::NewestCommands(limit, tx)).await
    }

    /// Write a plan down, durably, in place of one with its id. Returns its order of acceptance.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn save_plan(
        &self,
        id: PlanId,
        body: String,
        source: UplinkName,
        at: Timestamp,
    ) -> Result<u64, StoreError> {
        self.ask(|tx| Ask::SavePlan(Box::new((id, body, source, at)), tx)).await
    }

    /// Remove a plan, durably. Was there one.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn delete_plan(&self, id: PlanId) -> Result<bool, StoreError> {
        self.ask(|tx| Ask::DeletePlan(id, tx)).await
    }

    /// All plans.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn plans(&self) -> Result<Vec<StoredPlan>, StoreError> {
        self.ask(Ask::Plans).await
    }

    /// Remember that a device is about to hold a setpoint. Written at once; the caller does not wait for the disk.
    ///
    /// # Errors
    /// [`StoreError::Stopped`]
    pub async fn held(&self, held: Held) -> Result<(), StoreError> {
        self.tell(Ask::Held(Box::new(held))).await
    }

    /// Forget it: the device was seen in its baseline or fallback.
    ///
    /// # Errors
    /// [`StoreError::Stopped`]
    pub async fn not_held(&self, device: DeviceId) -> Result<(), StoreError> {
        self.tell(Ask::NotHeld(device)).await
    }

    /// What devices may still hold: asked once, at start.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn held_all(&self) -> Result<Vec<Held>, StoreError> {
        self.ask(Ask::HeldAll).await
    }

    /// Keep a device's baseline (its profile's own JSON).
    ///
    /// # Errors
    /// [`StoreError::Stopped`]
    pub async fn save_baseline(&self, device: DeviceId, json: String) -> Result<(), StoreError> {
        self.tell(Ask::Baseline(device, json)).await
    }

    /// All baselines: asked once, at start.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn baselines(&self) -> Result<Vec<(DeviceId, String)>, StoreError> {
        self.ask(Ask::Baselines).await
    }

    /// Keep the ledger of a device's writes (its own JSON). It waits in memory and reaches the disk with the next commit of
    /// telemetry, at the latest at the end. Never waits: when the queue is full it is not taken, and the next one tells all.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Stopped`]
    pub fn save_wear(&self, device: DeviceId, json: String) -> Result<(), StoreError> {
        self.asks.try_send(Ask::Wear(device, json)).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => StoreError::Busy,
            mpsc::error::TrySendError::Closed(_) => StoreError::Stopped,
        })
    }

    /// The ledgers of all devices: asked once, at start.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn wears(&self) -> Result<Vec<(DeviceId, String)>, StoreError> {
        self.ask(Ask::Wears).await
    }

    /// Write an event down and queue it as a notice for every uplink.
    ///
    /// # Errors
    /// [`StoreError::Stopped`]
    pub async fn event(&self, event: Event) -> Result<(), StoreError> {
        self.tell(Ask::Event(Box::new(event))).await
    }

    /// Queue what became of a plan document, for the uplink that sent it.
    ///
    /// # Errors
    /// [`StoreError::Stopped`]
    pub async fn plan_answer(
        &self,
        uplink: UplinkName,
        plan: String,
        answer: serde_json::Value,
    ) -> Result<(), StoreError> {
        self.tell(Ask::PlanAnswer(Box::new((uplink, plan, answer)))).await
    }

    /// The newest events, newest first, with their numbers.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn events(&self, limit: usize) -> Result<Vec<(u64, Event)>, StoreError> {
        self.ask(|tx| Ask::Events(limit, tx)).await
    }

    /// The oldest notices that this uplink has not confirmed.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn outbox(&self, uplink: UplinkName, limit: usize) -> Result<Vec<OutboxItem>, StoreError> {
        self.ask(|tx| Ask::Outbox(uplink, limit, tx)).await
    }

    /// The other side has confirmed these notices.
    ///
    /// # Errors
    /// [`StoreError::Stopped`]
    pub async fn outbox_done(&self, uplink: UplinkName, ids: Vec<u64>) -> Result<(), StoreError> {
        self.tell(Ask::OutboxDone(uplink, ids)).await
    }

    /// The oldest samples below row `below` that this uplink has not acknowledged, also those not yet on disk.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn backlog(&self, uplink: UplinkName, below: RowNo, limit: usize) -> Result<BacklogPage, StoreError> {
        self.ask(|tx| Ask::Backlog(uplink, below, limit, tx)).await
    }

    /// The other side has confirmed these samples, or they are not due for this uplink. The cursor reaches the disk in the
    /// same transaction as the next commit of telemetry.
    ///
    /// # Errors
    /// [`StoreError::Stopped`]
    pub async fn acked(&self, uplink: UplinkName, rows: Vec<RowNo>) -> Result<(), StoreError> {
        self.tell(Ask::Acked(uplink, rows)).await
    }

    /// What a running command has delivered so far, Wh: on the disk with the next commit of telemetry, and found in the
    /// `delivered_wh` of [`StoreHandle::open_commands`] after a restart. Never blocks; when the queue is full it is left
    /// out, as the next sum follows in some seconds.
    pub fn delivered(&self, uplink: UplinkName, device: DeviceId, id: CommandId, wh: f64) {
        if self.asks.try_send(Ask::Delivered(Box::new((uplink, device, id)), wh)).is_err() {
            tracing::debug!("the store is busy: a sum of energy was left out");
        }
    }

    /// How many samples this uplink has not acknowledged, and the time of the oldest.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn backlog_size(&self, uplink: UplinkName) -> Result<(u64, Option<Timestamp>), StoreError> {
        self.ask(|tx| Ask::BacklogSize(uplink, tx)).await
    }

    /// Telemetry of a device, also what is not yet on disk.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn history(&self, query: HistoryQuery) -> Result<Vec<HistoryRow>, StoreError> {
        self.ask(|tx| Ask::History(Box::new(query), tx)).await
    }

    /// A small value kept under a key (such as the gateway's id).
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.ask(|tx| Ask::Meta(key.to_owned(), tx)).await
    }

    /// Keep a small value under a key, durably.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn set_meta(&self, key: &str, value: &str) -> Result<(), StoreError> {
        self.ask(|tx| Ask::SetMeta(key.to_owned(), value.to_owned(), tx)).await
    }

    /// Commit everything and end the thread.
    pub async fn stop(&self) {
        let (tx, rx) = oneshot::channel();
        if self.asks.send(Ask::Stop(tx)).await.is_ok() {
            // A dropped answer means that the thread is gone, which was asked for.
            let _gone = rx.await.is_err();
        }
    }
}
