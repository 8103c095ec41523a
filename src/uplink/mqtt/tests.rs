//! What the tests of this room share.

use super::*;
use crate::command::RawCommand;
use crate::model::{
    BootId, ClockState, CommandResult, CommandState, ControlSettings, Coupling, DeviceKind, DeviceLimits, Event,
    EventState, Mono, Point, RowNo, Sample, Severity, Stored, Value,
};
use crate::runtime::{Exit, ShutdownSwitch, Supervisor};
use crate::store::StoreSettings;
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
    CommandResult::new(
        uplink.parse().unwrap(),
        device.map(|d| d.parse().unwrap()),
        Some("c-1".parse().unwrap()),
        CommandState::Accepted,
        Timestamp::from_ms(0),
    )
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

/// An uplink on a store in a temporary folder, to any broker.
pub(super) struct Bench {
    pub(super) store: StoreHandle,
    pub(super) inbox: mpsc::Receiver<RawCommand>,
    pub(super) status: watch::Receiver<UplinkStatus>,
    pub(super) switch: ShutdownSwitch,
    pub(super) tasks: Supervisor,
    _folder: tempfile::TempDir,
}

impl Bench {
    pub(super) fn start(settings: MqttSettings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let uplinks = vec![settings.name.clone()];
        let store_settings = StoreSettings { uplinks, ..StoreSettings::new(folder.path().join("derd.db")) };
        let clock = Clock::system();
        let (store, _thread) = crate::store::open(store_settings, clock.clone()).unwrap();
        let (commands, inbox, _plans) = CommandHandle::for_tests(1);
        let (switch, shutdown) = ShutdownSwitch::new();
        let mut tasks = Supervisor::new();
        let (handle, task) = create(MqttParts {
            settings,
            gateway: "gw".parse().unwrap(),
            devices: vec![(spec("pv"), watch::channel(DeviceStatus::default()).1)],
            store: store.clone(),
            commands,
            clock,
            version: "0.0.0",
            started: Timestamp::from_ms(0),
            control: watch::channel(crate::model::ControlStatus::default()).1,
        })
        .unwrap();
        tasks.spawn("mqtt", task.run(shutdown));
        Self { store, inbox, status: handle.status(), switch, tasks, _folder: folder }
    }

    /// A new sample; its number tells it apart from all others of the test.
    pub(super) fn offer(&self, device: &str, seq: u64) {
        self.store.offer(stored(seq, device, 1_800_000_000_000 + seq * 1000).sample);
    }

    /// Numbers of the samples that are not acknowledged.
    pub(super) async fn backlog(&self) -> Vec<u64> {
        let page = self.store.backlog("mqtt".parse().unwrap(), RowNo(1_000_000), 1000).await.unwrap();
        page.samples.iter().map(|s| s.sample.seq).collect()
    }

    /// Returns when exactly these are not acknowledged. Each turn waits for the store's thread.
    pub(super) async fn until_backlog(&self, seqs: &[u64]) {
        while self.backlog().await != seqs {}
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
