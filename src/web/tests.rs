//! The real server on loopback, over a board, a store and a command room that the test plays.

use super::*;
use crate::command::{CommandHandle, RawCommand, RawPlan};
use crate::model::*;
use crate::observe::tests::{Hands, board, home, site};
use crate::runtime::{Exit, ShutdownSwitch, Supervisor};
use crate::store::{HistoryRow, StoreHandle};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, watch};

/// A running server and all its other ends.
pub(super) struct Rig {
    pub(super) hands: Hands,
    pub(super) base: String,
    pub(super) password: PathBuf,
    pub(super) socket: PathBuf,
    pub(super) switch: ShutdownSwitch,
    pub(super) tasks: Supervisor,
    pub(super) commands: mpsc::Receiver<RawCommand>,
    pub(super) plans: mpsc::Receiver<RawPlan>,
    pub(super) client: reqwest::Client,
    _plans: watch::Sender<Arc<Vec<crate::command::PlanSummary>>>,
    _dir: tempfile::TempDir,
}

/// A store with a curve for each device and one event.
pub(super) fn store() -> (StoreHandle, impl Future<Output = Exit>) {
    let (asks, mut inbox) = mpsc::channel(16);
    let handle = StoreHandle {
        asks,
        live: broadcast::channel(4).0,
        next_row: Arc::new(AtomicU64::new(0)),
        dropped: Arc::new(AtomicU64::new(0)),
        outbox: watch::channel(0).1,
        status: watch::channel(StoreStatus::default()).1,
    };
    let thread = async move {
        while let Some(ask) = inbox.recv().await {
            match ask {
                crate::store::Ask::History(query, answer) => drop(answer.send(Ok(curve(&query)))),
                crate::store::Ask::Events(_, answer) => drop(answer.send(Ok(events()))),
                _ => {}
            }
        }
        Exit::Orphaned
    };
    (handle, thread)
}

fn events() -> Vec<(u64, Event)> {
    let event = |minutes: u64, severity, device: &str, text: &str, state| Event {
        ts: Timestamp::from_ms(1_800_000_000_000).minus(Duration::from_secs(60 * minutes)),
        severity,
        device: Some(device.parse().unwrap()),
        code: "test".into(),
        text: text.into(),
        state,
    };
    vec![
        (3, event(12, Severity::Info, "battery", "charge by acme: verified", EventState::Raised)),
        (2, event(95, Severity::Info, "pv", "pv answers again", EventState::Cleared)),
        (1, event(98, Severity::Warning, "pv", "pv stopped answering: <timed out>", EventState::Raised)),
    ]
}

/// A sunny day, a battery that follows, a car in the evening.
fn curve(query: &crate::store::HistoryQuery) -> Vec<HistoryRow> {
    let step = query.step.unwrap_or(Duration::from_secs(60));
    let mut rows = Vec::new();
    let mut ts = query.from;
    while ts < query.to && rows.len() < query.limit {
        let hour = (ts.ms() % 86_400_000) as f64 / 3_600_000.0 + 1.0;
        let wobble = (hour * 7.0).sin() * 0.12 + (hour * 23.0).sin() * 0.08;
        let pv = (5200.0 * (1.0 - ((hour - 13.0) / 5.2).powi(2))).max(0.0) * (0.92 + wobble);
        let load = 420.0 + 700.0 * (-(hour - 7.5).powi(2)).exp() + 1300.0 * (-(hour - 19.0).powi(2) / 3.0).exp() + 220.0 * wobble.abs();
        let car = if (17.5..21.0).contains(&hour) { 3600.0 } else { 0.0 };
        let battery = (load + car - pv).clamp(-2400.0, 2000.0) * 0.8;
        let watts = match query.device.as_str() {
            "pv" => pv,
            "car" => car,
            "battery" => battery,
            _ => load + car - pv - battery,
        };
        rows.push(HistoryRow { ts, point: Point::PowerW, value: Some(Value::Num(watts)) });
        ts = ts.plus(step);
    }
    rows
}

pub(super) fn start(devices: Vec<DeviceSpec>, listen: &str) -> Rig {
    // A second test of this process finds it installed.
    drop(rustls::crypto::ring::default_provider().install_default());
    let clock = Clock::manual(Timestamp::from_ms(1_800_000_000_000));
    let (board, hands) = board(devices.clone(), clock.clone());
    hands.turn();
    let (store, thread) = store();
    let (commands_tx, commands) = mpsc::channel(1);
    let (plans_tx, plans) = mpsc::channel(1);
    let (summary_tx, summaries) = watch::channel(Arc::new(Vec::new()));
    let dir = tempfile::tempdir().unwrap();
    let settings = WebSettings {
        listen: listen.parse().unwrap(),
        password_file: dir.path().join("web.password"),
        socket: dir.path().join("derd.sock"),
    };
    let (password, socket) = (settings.password_file.clone(), settings.socket.clone());
    let commands_handle = CommandHandle { commands: commands_tx, raw_plans: plans_tx, plans: summaries };
    let parts =
        WebParts { settings, board, store, commands: commands_handle, clock: clock.clone(), devices, site: site() };
    let (handle, task) = create(parts).unwrap();
    let (switch, shutdown) = ShutdownSwitch::new();
    let mut tasks = Supervisor::new();
    tasks.spawn("store", thread);
    tasks.spawn("web", task.run(shutdown));
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let base = format!("http://127.0.0.1:{}", handle.address().port());
    Rig { hands, base, password, socket, switch, tasks, commands, plans, client, _plans: summary_tx, _dir: dir }
}

/// For screenshots: `cargo test --lib web::tests::show -- --ignored`, then open the address it writes to `DERD_SHOW`.
#[tokio::test]
#[ignore = "serves a page of made-up values until it is stopped"]
async fn show() {
    let mut specs = home();
    for spec in &mut specs {
        spec.profile = match spec.kind {
            DeviceKind::Charger => "go-e/charger",
            DeviceKind::Meter => "eastron/sdm630",
            _ => "sunspec",
        }
        .into();
    }
    let is_empty = std::env::var_os("DERD_SHOW_EMPTY").is_some();
    let rig = start(if is_empty { vec![] } else { specs }, &std::env::var("DERD_SHOW_LISTEN").unwrap_or("127.0.0.1:0".into()));
    std::fs::write(std::env::var("DERD_SHOW").unwrap(), &rig.base).unwrap();
    if !is_empty {
        rig.fill();
    }
    std::future::pending::<()>().await;
}

impl Rig {
    /// Values of a sunny noon.
    fn fill(&self) {
        self.hands.answer(0, "pv", 0, &[
            (Point::PowerW, 4820.0), (Point::EnergyProducedWh, 12_654_300.0), (Point::DcPowerW, 4975.0),
            (Point::VoltageL1V, 233.2), (Point::TemperatureC, 41.3),
        ]);
        self.hands.answer(1, "battery", 0, &[
            (Point::PowerW, -2150.0), (Point::SocPct, 68.4), (Point::EnergyChargedWh, 3_204_500.0),
            (Point::EnergyDischargedWh, 2_987_100.0), (Point::ReserveSocPct, 10.0), (Point::CapacityWh, 10_200.0),
        ]);
        self.hands.answer(2, "car", 0, &[
            (Point::PowerW, 1410.0), (Point::SessionEnergyWh, 6_320.0), (Point::EnergyDeliveredWh, 2_310_400.0),
            (Point::MaxCurrentA, 16.0),
        ]);
        self.hands.answer(3, "grid", 0, &[
            (Point::PowerW, -640.0), (Point::EnergyImportWh, 4_120_300.0), (Point::EnergyExportWh, 7_905_800.0),
            (Point::CurrentL1A, -1.2), (Point::CurrentL2A, -0.9), (Point::CurrentL3A, -0.7),
        ]);
        self.hands.control.send_modify(|c| {
            (c.load_w, c.grid_w) = (Some(620.0), Some(-640.0));
            c.holders.insert("battery".parse().unwrap(), ControlledBy {
                source: "acme".into(), rank: Rank::Command, action: "charge",
                ends_at: Timestamp::from_ms(1_800_003_600_000),
            });
        });
        self.hands.uplink.send_modify(|u| (u.mode, u.backlog_rows) = (UplinkMode::CatchUp, 1312));
        self.hands.store.send_modify(|s| (s.bytes, s.rows) = (48 << 20, 1_204_331));
    }
}
