//! What the tests of this room share.

use super::*;
use crate::model::StoreStatus;
use crate::model::{
    BootId, ClockState, CommandResult, CommandState, ControlSettings, Coupling, DeviceKind, DeviceLimits, Event,
    EventState, Mono, Params, Point, ReplyTo, RowNo, Sample, Severity, Stored, Value,
};
use crate::runtime::{Exit, ShutdownSwitch, Supervisor};
use crate::store::{Ask, BacklogPage, Notice, NoticeBody, OutboxItem};
use std::sync::Arc;
use tokio::sync::mpsc;

/// A sample of a device at a time in ms; its number is its row.
pub(super) fn stored(row: u64, device: &str, ms: u64) -> Stored {
    Stored {
        row: RowNo(row),
        sample: Arc::new(Sample {
            device: device.parse().unwrap(),
            ts: Timestamp::from_ms(ms.try_into().unwrap()),
            mono: Mono::from_ms(ms),
            boot: BootId::new("ab").unwrap(),
            seq: row,
            clock: ClockState::Synced,
            points: vec![(Point::PowerW, Ok(Value::Num(1234.0)))],
        }),
    }
}

pub(super) fn result(uplink: &str, device: Option<&str>) -> CommandResult {
    CommandResult {
        uplink: uplink.parse().unwrap(),
        device: device.map(|d| d.parse().unwrap()),
        id: Some("c-1".parse().unwrap()),
        state: CommandState::Accepted,
        ts: Timestamp::from_ms(0),
        reason: None,
        requested: Params::new(),
        applied: Params::new(),
        limited_by: None,
        evidence: Vec::new(),
        started_at: None,
        ended_at: None,
        delivered_wh: None,
        reply_to: ReplyTo::default(),
    }
}

pub(super) fn event() -> Event {
    Event {
        ts: Timestamp::from_ms(0),
        severity: Severity::Info,
        device: None,
        code: "test".into(),
        text: "a test".into(),
        state: EventState::Raised,
    }
}

pub(super) fn spec(id: &str) -> DeviceSpec {
    DeviceSpec {
        id: id.parse().unwrap(),
        kind: DeviceKind::Battery,
        role: None,
        coupling: Coupling::Ac,
        profile: "sunspec".into(),
        link: "tcp://127.0.0.1:502".into(),
        unit: 1,
        poll: Duration::from_secs(1),
        invert: false,
        limits: DeviceLimits::default(),
        control: ControlSettings::default(),
    }
}

/// A store in memory with the handle of the real one.
pub(super) struct MemoryStore {
    asks: mpsc::Receiver<Ask>,
    rows: Vec<Stored>,
    /// Acknowledged rows, in the order in which they were.
    acked: Vec<RowNo>,
    notices: Vec<OutboxItem>,
    notices_done: Vec<u64>,
    changed: watch::Sender<u64>,
}

/// What a test looks at.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) acked: Vec<RowNo>,
    pub(super) notices_done: Vec<u64>,
    pub(super) events: Vec<String>,
}

impl MemoryStore {
    pub(super) fn open() -> (StoreHandle, Self) {
        let (asks, rx) = mpsc::channel(256);
        let (changed, outbox) = watch::channel(0);
        let handle = StoreHandle {
            asks,
            live: tokio::sync::broadcast::channel(64).0,
            next_row: Arc::default(),
            dropped: Arc::default(),
            outbox,
            status: watch::channel(StoreStatus::default()).1,
        };
        let store = Self { asks: rx, rows: vec![], acked: vec![], notices: vec![], notices_done: vec![], changed };
        (handle, store)
    }

    /// Answer until every handle is gone; `seen` shows the state.
    pub(super) async fn run(mut self, seen: watch::Sender<Seen>) -> Exit {
        while let Some(ask) = self.asks.recv().await {
            match ask {
                Ask::Sample(stored) => self.rows.push(stored),
                Ask::Acked(_, rows) => self.acked.extend(rows),
                Ask::OutboxDone(_, ids) => self.notices_done.extend(ids),
                Ask::Backlog(_, below, limit, answer) => {
                    let mut open: Vec<_> =
                        self.rows.iter().filter(|s| s.row < below && !self.acked.contains(&s.row)).cloned().collect();
                    open.sort_by_key(|s| s.row);
                    let is_last = open.len() <= limit;
                    open.truncate(limit);
                    drop(answer.send(Ok(BacklogPage { samples: open, is_last })));
                }
                Ask::BacklogSize(_, answer) => {
                    let open: Vec<_> = self.rows.iter().filter(|s| !self.acked.contains(&s.row)).collect();
                    let oldest = open.first().map(|s| s.sample.ts);
                    drop(answer.send(Ok((open.len().try_into().unwrap(), oldest))));
                }
                Ask::Outbox(_, limit, answer) => {
                    let open = self.notices.iter().filter(|n| !self.notices_done.contains(&n.notice.id));
                    drop(answer.send(Ok(open.take(limit).cloned().collect())));
                }
                Ask::Event(event) => {
                    seen.send_modify(|s| s.events.push(event.code.clone() + ":" + event.state.as_str()));
                    self.notice(NoticeBody::Event(*event));
                }
                Ask::SaveResult(result, answer) => {
                    self.notice(NoticeBody::Result(*result));
                    drop(answer.send(Ok(())));
                }
                other => panic!("the uplink asks for {other:?}"),
            }
            seen.send_modify(|s| (s.acked, s.notices_done) = (self.acked.clone(), self.notices_done.clone()));
        }
        Exit::Orphaned
    }

    fn notice(&mut self, body: NoticeBody) {
        let id = u64::try_from(self.notices.len()).unwrap();
        self.notices.push(OutboxItem { notice: Notice { id, body }, ts: Timestamp::from_ms(0) });
        self.changed.send_modify(|n| *n += 1);
    }
}

/// An uplink on a store in memory, to any broker.
pub(super) struct Bench {
    pub(super) store: StoreHandle,
    pub(super) seen: watch::Receiver<Seen>,
    pub(super) inbox: mpsc::Receiver<crate::command::RawCommand>,
    pub(super) status: watch::Receiver<UplinkStatus>,
    pub(super) switch: ShutdownSwitch,
    pub(super) tasks: Supervisor,
}

impl Bench {
    pub(super) fn start(settings: MqttSettings) -> Self {
        let (store, memory) = MemoryStore::open();
        let (commands, inbox, _plans) = CommandHandle::for_tests(1);
        let (seen_tx, seen) = watch::channel(Seen::default());
        let (switch, shutdown) = ShutdownSwitch::new();
        let mut tasks = Supervisor::new();
        let (handle, task) = create(MqttParts {
            settings,
            gateway: "gw".parse().unwrap(),
            devices: vec![(spec("pv"), watch::channel(DeviceStatus::default()).1)],
            store: store.clone(),
            commands,
            clock: Clock::system(),
            version: "0.0.0",
            started: Timestamp::from_ms(0),
        })
        .unwrap();
        tasks.spawn("store", memory.run(seen_tx));
        tasks.spawn("mqtt", task.run(shutdown));
        Self { store, seen, inbox, status: handle.status(), switch, tasks }
    }

    pub(super) fn offer(&self, device: &str, seq: u64) {
        self.store.offer(stored(seq, device, seq * 1000).sample);
    }

    pub(super) async fn until_acked(&mut self, rows: &[u64]) -> Seen {
        self.seen.wait_for(|s| rows.iter().all(|r| s.acked.contains(&RowNo(*r)))).await.unwrap().clone()
    }

    pub(super) async fn until_mode(&mut self, mode: UplinkMode) {
        self.status.wait_for(|s| s.mode == mode).await.unwrap();
    }

    /// Stop the uplink; the other tasks live as long as what is returned.
    pub(super) async fn stop(mut self) -> Self {
        self.switch.stop();
        loop {
            let (name, exit) = self.tasks.next_exit().await.unwrap();
            if name == "mqtt" {
                assert_eq!(exit, Exit::Shutdown);
                return self;
            }
        }
    }
}
