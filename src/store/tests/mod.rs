//! Tests of the room through its handle.

mod decisions;
mod files;
mod journal;
mod model;
mod restamp;
mod telemetry;

use super::*;
use crate::model::{BootId, ClockState, DeviceId, Mono, Point, RowNo, Sample, Timestamp, Value};
use std::path::Path;

pub(super) const T0: i64 = 1_800_000_000_000;

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_ms(T0 + 1000 * seconds)
}

pub(super) fn uplink(name: &str) -> UplinkName {
    name.parse().unwrap()
}

pub(super) fn device(name: &str) -> DeviceId {
    name.parse().unwrap()
}

/// Settings under which nothing is committed unless it is asked for.
pub(super) fn settings(folder: &Path, uplinks: &[&str]) -> StoreSettings {
    StoreSettings {
        commit_every: Duration::from_secs(100 * 24 * 3600),
        uplinks: uplinks.iter().map(|u| uplink(u)).collect(),
        ..StoreSettings::new(folder.join("derd.db"))
    }
}

/// A store, its thread and its clock.
pub(super) struct Rig {
    pub(super) store: StoreHandle,
    pub(super) clock: Clock,
    pub(super) settings: StoreSettings,
    thread: StoreThread,
}

impl Rig {
    pub(super) fn open(settings: StoreSettings) -> Self {
        Self::open_at(settings, Clock::manual(at(0)))
    }

    pub(super) fn open_at(settings: StoreSettings, clock: Clock) -> Self {
        let (store, thread) = open(settings.clone(), clock.clone()).expect("opens");
        Self { store, clock, settings, thread }
    }

    pub(super) async fn stop(self) -> StoreSettings {
        self.store.stop().await;
        assert!(self.thread.join());
        self.settings
    }

    pub(super) async fn reopen(self) -> Self {
        let clock = self.clock.clone();
        Self::open_at(self.stop().await, clock)
    }

    /// What a power cut leaves: the files as they are now, in another folder.
    pub(super) async fn cut(self, folder: &Path) -> Self {
        copy(&self.settings.path, &folder.join("derd.db"));
        let clock = self.clock.clone();
        let settings = StoreSettings { path: folder.join("derd.db"), ..self.stop().await };
        Self::open_at(settings, clock)
    }

    pub(super) fn offer(&self, name: &str, seq: u64, power: f64) {
        self.store.offer(Arc::new(sample(name, seq, power)));
    }

    pub(super) async fn rows(&self, name: &str) -> Vec<u64> {
        let page = self.store.backlog(uplink(name), RowNo(u64::MAX), 10_000).await.unwrap();
        assert!(page.is_last);
        page.samples.iter().map(|s| s.row.0).collect()
    }
}

pub(super) fn copy(from: &Path, to: &Path) {
    for suffix in ["", "-wal"] {
        let (from, to) = (file::with_suffix(from, suffix), file::with_suffix(to, suffix));
        if from.exists() {
            std::fs::copy(from, to).unwrap();
        }
    }
}

/// The sample of second `seq`.
pub(super) fn sample(name: &str, seq: u64, power: f64) -> Sample {
    Sample {
        device: device(name),
        ts: at(seq.cast_signed()),
        mono: Mono::from_ms(1000 * seq),
        boot: BootId::new("b007").unwrap(),
        seq,
        clock: ClockState::Synced,
        points: vec![
            (Point::PowerW, Ok(Value::Num(power))),
            (Point::EnergyImportWh, Ok(Value::Num(power * 10.0))),
            (Point::State, Ok(Value::Text("on".into()))),
        ],
    }
}
