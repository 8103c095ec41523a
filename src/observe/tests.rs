//! A board over watch cells that the test holds.

use super::*;
use crate::model::*;
use crate::runtime::Clock;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The other ends of a board.
pub(crate) struct Hands {
    pub(crate) clock: Clock,
    pub(crate) devices: Vec<watch::Sender<DeviceStatus>>,
    pub(crate) control: watch::Sender<ControlStatus>,
    pub(crate) uplink: watch::Sender<UplinkStatus>,
    pub(crate) store: watch::Sender<StoreStatus>,
}

pub(crate) fn spec(id: &str, kind: DeviceKind) -> DeviceSpec {
    DeviceSpec {
        id: id.parse().unwrap(),
        kind,
        role: (kind == DeviceKind::Meter).then_some(Role::Grid),
        coupling: Coupling::Ac,
        profile: "sunspec".into(),
        link: "tcp://127.0.0.1:502".into(),
        unit: 1,
        poll: Duration::from_secs(1),
        invert: false,
        limits: DeviceLimits::default(),
        control: ControlSettings { enabled: kind != DeviceKind::Meter, ..ControlSettings::default() },
    }
}

pub(crate) fn site() -> SiteSpec {
    SiteSpec {
        name: "Smith <home>".into(),
        timezone: "Europe/Berlin".into(),
        phases: 3,
        main_fuse_a: Some(25.0),
        export_limit_w: None,
    }
}

pub(crate) fn sample(device: &str, clock: &Clock, seq: u64, points: &[(Point, f64)]) -> Arc<Sample> {
    Arc::new(Sample {
        device: device.parse().unwrap(),
        ts: clock.now(),
        mono: clock.mono(),
        boot: BootId::new("ab12").unwrap(),
        seq,
        clock: clock.state(),
        points: points.iter().map(|(p, v)| (p.clone(), Ok(Value::Num(*v)))).collect(),
    })
}

pub(crate) fn home() -> Vec<DeviceSpec> {
    vec![
        spec("pv", DeviceKind::Inverter),
        spec("battery", DeviceKind::Battery),
        spec("car", DeviceKind::Charger),
        spec("grid", DeviceKind::Meter),
    ]
}

pub(crate) fn board(specs: Vec<DeviceSpec>, clock: Clock) -> (Board, Hands) {
    let (mut senders, mut devices) = (Vec::new(), Vec::new());
    for spec in specs {
        let (tx, rx) = watch::channel(DeviceStatus::default());
        senders.push(tx);
        devices.push((spec, rx));
    }
    let (control, control_rx) = watch::channel(ControlStatus::default());
    let (uplink, uplink_rx) = watch::channel(UplinkStatus {
        name: "broker".parse().unwrap(),
        kind: "mqtt",
        mode: UplinkMode::Live,
        backlog_rows: 0,
        oldest_unsent: None,
        last_ok_at: Some(clock.now()),
        error: None,
    });
    let (store, store_rx) = watch::channel(StoreStatus::default());
    let board = Board::new(BoardParts {
        gateway: "gw-1".parse().unwrap(),
        version: "0.1.0",
        started: clock.now(),
        site: site(),
        devices,
        control: control_rx,
        uplinks: vec![uplink_rx],
        store: store_rx,
        clock: clock.clone(),
    });
    (board, Hands { clock, devices: senders, control, uplink, store })
}

impl Hands {
    /// Control and store make a turn.
    pub(crate) fn turn(&self) {
        self.control.send_modify(|c| c.cycles += 1);
        self.store.send_modify(|s| s.turns += 1);
    }

    pub(crate) fn answer(&self, index: usize, device: &str, seq: u64, points: &[(Point, f64)]) {
        let last = sample(device, &self.clock, seq, points);
        self.devices[index].send_modify(|d| {
            d.state = DeviceState::Online;
            d.last = Some(last);
            d.error = None;
        });
    }
}

fn fresh() -> (Board, Hands) {
    board(home(), Clock::manual(Timestamp::from_ms(1_800_000_000_000)))
}

#[test]
fn a_stale_point_is_null_and_its_age_is_told() {
    let (board, hands) = fresh();
    hands.answer(0, "pv", 0, &[(Point::PowerW, 1234.0)]);
    hands.turn();
    let status = board.status();
    assert_eq!(status.devices[0].points.to_string(), r#"{"power_w":1234.0}"#);
    assert_eq!(status.devices[0].age_ms, Some(0));
    assert_eq!((status.devices[1].age_ms, status.devices[1].state.as_str()), (None, "connecting"));
    // Fresh for three polls and at least 5 s.
    hands.clock.advance(Duration::from_secs(5));
    assert_eq!(board.status().devices[0].points.to_string(), r#"{"power_w":1234.0}"#);
    hands.clock.advance(Duration::from_millis(1));
    let status = board.status();
    assert_eq!(status.devices[0].points.to_string(), r#"{"power_w":null}"#);
    assert_eq!(status.devices[0].age_ms, Some(5001));
    assert!(status.problems.iter().any(|p| p.starts_with("inverter pv gives no new values")), "{:?}", status.problems);
}

#[test]
fn sums_of_a_control_that_stands_still_are_null() {
    let (board, hands) = fresh();
    hands.turn();
    hands.control.send_modify(|c| (c.load_w, c.grid_w) = (Some(500.0), Some(-20.0)));
    assert_eq!(board.status().site.load_w, Some(500.0));
    hands.clock.advance(Duration::from_secs(11));
    assert_eq!((board.status().site.load_w, board.status().site.grid_w), (None, None));
}

#[test]
fn progress_needs_control_and_store() {
    let (board, hands) = fresh();
    assert_eq!(board.progress_fault(), None, "at the start each part has its window");
    hands.clock.advance(Duration::from_secs(11));
    assert!(board.progress_fault().is_some() && board.loops_turn().is_err());
    hands.turn();
    assert_eq!((board.progress_fault(), board.loops_turn()), (None, Ok(())));
    hands.clock.advance(Duration::from_secs(11));
    hands.store.send_modify(|s| s.turns += 1);
    let stands = "control has made no cycle for 11 s";
    assert_eq!(board.progress_fault().as_deref(), Some(stands));
    assert_eq!(board.loops_turn(), Err(stands.to_owned()));
    assert_eq!(board.health().0, Health::Failed);
}

#[test]
fn a_store_that_hangs_for_minutes_degrades_health_and_never_keeps_the_watchdog_from_its_food() {
    let (board, hands) = fresh();
    for seq in 0..300 {
        hands.clock.advance(Duration::from_secs(1));
        hands.control.send_modify(|c| c.cycles += 1);
        for (i, id) in ["pv", "battery", "car", "grid"].iter().enumerate() {
            hands.answer(i, id, seq, &[(Point::PowerW, 1.0)]);
        }
        assert_eq!(board.loops_turn(), Ok(()), "after {seq} s");
        assert_eq!(board.progress_fault().is_some(), seq >= 10, "after {seq} s: what /healthz says");
    }
    let (health, problems) = board.health();
    assert_eq!((health, problems), (Health::Degraded, vec!["the store has made no turn for 300 s".to_owned()]));
    // A full disk: the store turns, and says what is wrong.
    hands.store.send_modify(|s| {
        s.turns += 1;
        s.error = Some("the disk is full".into());
    });
    assert_eq!((board.progress_fault(), board.loops_turn(), board.health().0), (None, Ok(()), Health::Degraded));
}

#[test]
fn a_device_that_is_away_does_not_stop_progress_but_one_that_only_says_online_does() {
    let (board, hands) = fresh();
    hands.answer(0, "pv", 0, &[(Point::PowerW, 1.0)]);
    assert_eq!(board.loops_turn(), Ok(()));
    for _ in 0..60 {
        hands.clock.advance(Duration::from_secs(1));
        hands.turn();
        hands.devices[0].send_modify(|d| d.failed_polls += 1);
        assert_eq!(board.loops_turn(), Ok(()), "a poll that fails is a turn too");
    }
    for _ in 0..40 {
        hands.clock.advance(Duration::from_secs(1));
        hands.turn();
        assert!(board.loops_turn().is_ok() || hands.clock.mono().ms() > 93_000);
    }
    assert_eq!(board.progress_fault().as_deref(), Some("no device is polled any more: pv"));
    hands.devices[0].send_modify(|d| d.state = DeviceState::Offline);
    assert_eq!(board.loops_turn(), Ok(()));
}

#[test]
fn health_in_sentences() {
    let (board, hands) = fresh();
    for (i, id) in ["pv", "battery", "car", "grid"].iter().enumerate() {
        hands.answer(i, id, 0, &[(Point::PowerW, 1.0)]);
    }
    hands.turn();
    assert_eq!(board.health(), (Health::Ok, vec![]));

    hands.devices[3].send_modify(|d| {
        d.state = DeviceState::Offline;
        d.error = Some("connection refused".into());
    });
    hands.clock.step(hands.clock.now(), false);
    hands.store.send_modify(|s| s.error = Some("disk full".into()));
    hands.uplink.send_modify(|u| {
        u.mode = UplinkMode::Offline;
        u.backlog_rows = 7;
    });
    let (health, problems) = board.health();
    assert_eq!(health, Health::Degraded);
    for says in ["grid meter grid is offline", "connection refused", "the clock", "disk full", "7 samples wait"] {
        assert!(problems.iter().any(|p| p.contains(says)), "{says}: {problems:?}");
    }
    for device in &hands.devices {
        device.send_modify(|d| d.state = DeviceState::Offline);
    }
    hands.clock.advance(Duration::from_secs(30));
    hands.turn();
    assert_eq!(board.health().0, Health::Failed);
}

#[test]
fn metrics_show_points_and_leave_stale_ones_out() {
    let (board, hands) = fresh();
    hands.answer(0, "pv", 0, &[(Point::PowerW, 1234.5)]);
    hands.turn();
    let text = board.metrics();
    for line in [
        r#"derd_device_up{device="pv",kind="inverter"} 1.0"#,
        r#"derd_point{device="pv",point="power_w"} 1234.5"#,
        r#"derd_uplink_backlog_rows{uplink="broker",kind="mqtt"} 0.0"#,
        r#"derd_build_info{version="0.1.0"} 1"#,
        "derd_control_cycles_total 1",
        "# EOF",
    ] {
        assert!(text.contains(line), "{line} not in\n{text}");
    }
    hands.clock.advance(Duration::from_secs(6));
    assert!(!board.metrics().contains("derd_point{"));
}
