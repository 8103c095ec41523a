use super::sunspec::{at_base, model, sma};
use super::*;
use crate::model::{Demand, FailSafe};

const LEASE: Duration = Duration::from_secs(3600);
/// Where 124 begins in [`battery`].
const AT: u16 = 40_002 + 68 + 52;

/// An AC battery: 5 kW, 10 kWh, 55 %, rates in hundredths of a percent.
fn battery(revert: u16) -> Registers {
    let ac = model(103, 50, &[(14, &[(-1200_i16).cast_unsigned(), 0]), (24, &[0, 77, 0]), (38, &[4])]);
    let storage = model(
        124,
        24,
        &[
            (2, &[5000]),
            (5, &[0]),
            (7, &[1000, 5500]),
            (11, &[4]),
            (12, &[10_000, 10_000, 0xFFFF, revert, 0xFFFF, 0]),
            (18, &[0]),
            (21, &[0xFFFE, 0xFFFE]),
            (25, &[0xFFFE]),
        ],
    );
    let bank = model(
        802,
        62,
        &[
            (3, &[10_000, 5000, 4000]),
            (11, &[5512]),
            (13, &[9800]),
            (16, &[4]),
            (22, &[3]),
            (47, &[(-1100_i16).cast_unsigned()]),
            (53, &[0, 0]),
            (56, &[0xFFFE]),
            (58, &[0xFFFE]),
            (63, &[0]),
        ],
    );
    at_base(40_000, &[model(1, 66, &[]), ac, storage, bank])
}

fn found(device: &mut Registers, kind: DeviceKind) -> Driver {
    let mut driver = driver(&spec("sunspec", kind));
    assert_eq!(discover(&mut driver, |r| device.answer(r)), Step::Ready);
    driver
}

fn baseline(driver: &mut Driver, device: &mut Registers) {
    let answers: Vec<_> = driver.baseline_reads().iter().map(|r| device.answer(r)).collect();
    let json = driver.take_baseline(&answers).unwrap();
    driver.set_baseline(&json).unwrap();
}

/// Address and words of each write.
fn writes(program: &Program) -> Vec<(u16, Vec<i16>)> {
    let each = program.writes.iter().map(|w| match w {
        Request::Write { unit: 1, address, words, .. } => (*address, words.iter().map(|w| w.cast_signed()).collect()),
        other => panic!("{other:?}"),
    });
    each.collect()
}

/// Writes all of it and judges the read-back.
#[track_caller]
fn run(program: &Program, device: &mut Registers) {
    for write in &program.writes {
        assert!(device.answer(write).is_ok());
    }
    for check in &program.checks {
        let verdict = check.judge(&device.answer(&check.read).unwrap());
        assert!(verdict.ok, "{verdict:?}");
    }
}

#[test]
fn a_battery_is_read() {
    let mut device = battery(0);
    let mut driver = found(&mut device, DeviceKind::Battery);
    let points = poll(&mut driver, |r| device.answer(r));
    for (point, want) in [
        (Point::PowerW, -1200.0),
        (Point::SocPct, 55.12),
        (Point::SohPct, 98.0),
        (Point::CapacityWh, 10_000.0),
        (Point::ReserveSocPct, 10.0),
        (Point::ChargeLimitW, 5000.0),
        (Point::DischargeLimitW, 4000.0),
        (Point::EnergyDischargedWh, 77.0),
    ] {
        num(&points, point, want);
    }
    state(&points, "charging");
    let capabilities = driver.capabilities();
    assert_eq!(capabilities.actions, ["charge", "discharge", "idle", "auto", "set_reserve"]);
    assert_eq!(capabilities.failsafe, FailSafe::Timer(Duration::from_secs(60)));
    assert_eq!((capabilities.max_charge_w, capabilities.max_discharge_w), (Some(5000.0), Some(4000.0)));
}

#[test]
fn charge_discharge_idle() {
    let mut device = battery(0);
    let mut driver = found(&mut device, DeviceKind::Battery);
    baseline(&mut driver, &mut device);
    // demand -> OutWRte (percent of 4000 W), InWRte (percent of 5000 W), hundredths
    for (watts, out_rate, in_rate) in [
        (-2500.0, -6250, 5000),
        (2000.0, 5000, -4000),
        (0.0, 0, 0),
        // towards zero
        (-0.3, 0, 0),
        (1000.3, 2500, -2000),
        // at most 100 %
        (9000.0, 10_000, -10_000),
        (-9000.0, -10_000, 10_000),
    ] {
        let demand = Demand::BatteryPower { watts, grid: false };
        let program = driver.program(&demand, LEASE).unwrap();
        let expected = vec![(AT + 15, vec![60]), (AT + 12, vec![out_rate, in_rate]), (AT + 5, vec![3])];
        assert_eq!(writes(&program), expected, "{watts}");
        assert_eq!(program.refresh, Some(Duration::from_secs(20)));
        run(&program, &mut device);
    }
}

#[test]
fn the_timer_follows_the_lease() {
    let mut device = battery(0);
    let driver = found(&mut device, DeviceKind::Battery);
    let demand = Demand::BatteryPower { watts: 100.0, grid: false };
    for (lease, seconds) in [(Duration::from_millis(1500), 10), (Duration::from_millis(30_001), 31), (LEASE, 60)] {
        let program = driver.program(&demand, lease).unwrap();
        assert_eq!(writes(&program)[0], (AT + 15, vec![seconds]));
        assert_eq!(program.refresh, Some(Duration::from_secs(seconds.cast_unsigned().into()) / 3));
    }
}

#[test]
fn without_a_timer_there_is_no_fail_safe() {
    let mut device = battery(0xFFFF);
    let mut driver = found(&mut device, DeviceKind::Battery);
    assert_eq!(driver.capabilities().failsafe, FailSafe::None);
    baseline(&mut driver, &mut device);
    let program = driver.program(&Demand::BatteryPower { watts: 100.0, grid: false }, LEASE).unwrap();
    assert_eq!(program.refresh, None);
    assert!(program.checks.iter().all(|c| !c.failsafe));
    assert_eq!(writes(&program).len(), 2);
    let release = driver.program(&Demand::Release, LEASE).unwrap();
    assert_eq!(writes(&release), [(AT + 12, vec![10_000, 10_000]), (AT + 5, vec![0]), (AT + 17, vec![0])]);
}

#[test]
fn grid_charging_is_switched_only_when_it_differs() {
    let mut device = battery(0);
    let mut driver = found(&mut device, DeviceKind::Battery);
    baseline(&mut driver, &mut device);
    let charge = Demand::BatteryPower { watts: -100.0, grid: true };
    let program = driver.program(&charge, LEASE).unwrap();
    assert_eq!(writes(&program)[2], (AT + 17, vec![1]));
    run(&program, &mut device);
    poll(&mut driver, |r| device.answer(r));
    assert_eq!(writes(&driver.program(&charge, LEASE).unwrap()).len(), 3, "it is on now");
    let discharge = Demand::BatteryPower { watts: 100.0, grid: true };
    assert_eq!(writes(&driver.program(&discharge, LEASE).unwrap()).len(), 3);
    let release = driver.program(&Demand::Release, LEASE).unwrap();
    assert_eq!(
        writes(&release),
        [(AT + 12, vec![10_000, 10_000]), (AT + 5, vec![0]), (AT + 15, vec![0]), (AT + 17, vec![0])]
    );
    run(&release, &mut device);
}

#[test]
fn a_release_returns_to_what_the_installer_set() {
    let mut device = battery(300);
    // a discharge limit of 80 %
    device.put(AT + 5, &[2]);
    device.put(AT + 12, &[8000]);
    let mut driver = found(&mut device, DeviceKind::Battery);
    baseline(&mut driver, &mut device);
    run(&driver.program(&Demand::BatteryPower { watts: 0.0, grid: false }, LEASE).unwrap(), &mut device);
    run(&driver.program(&Demand::Release, LEASE).unwrap(), &mut device);
    let storage: Vec<_> = [5, 12, 13, 15].iter().map(|n| device.holding[&(AT + n)]).collect();
    assert_eq!(storage, [2, 8000, 10_000, 300]);
}

#[test]
fn the_reserve_keeps_at_least_what_was_asked() {
    let mut device = battery(0);
    let driver = found(&mut device, DeviceKind::Battery);
    for (pct, word) in [(20.0, 2000), (20.001, 2001), (0.0, 0), (100.0, 10_000)] {
        let program = driver.program(&Demand::Reserve { pct }, LEASE).unwrap();
        assert_eq!(writes(&program), [(AT + 7, vec![word])]);
        assert_eq!(program.refresh, None);
    }
    assert!(driver.program(&Demand::Reserve { pct: 101.0 }, LEASE).is_err());
    assert!(driver.program(&Demand::PowerLimit { watts: 1.0 }, LEASE).is_err());
}

#[test]
fn evidence_says_where_and_what() {
    let mut device = battery(0);
    let driver = found(&mut device, DeviceKind::Battery);
    let program = driver.program(&Demand::BatteryPower { watts: -2500.0, grid: false }, LEASE).unwrap();
    let rates = program.checks.iter().find(|c| matches!(c.read, Request::Read { count: 2, .. })).unwrap();
    let verdict = rates.judge(&Answer::Words(vec![0, 5000]));
    assert!(!verdict.ok);
    assert_eq!(verdict.address, format!("unit 1 holding {}", AT + 12));
    assert_eq!((verdict.wrote.as_str(), verdict.read.as_str()), ("-6250 5000", "0 5000"));
    let timer = program.checks.iter().find(|c| c.failsafe).unwrap();
    // it may count down, but a timer at 0 does not run
    for (left, ok) in [(60, true), (59, true), (1, true), (0, false), (61, false), (0xFFFF, false)] {
        assert_eq!(timer.judge(&Answer::Words(vec![left])).ok, ok, "{left}");
    }
    assert!(!timer.judge(&Answer::Written).ok);
}

/// A 10 kW inverter at 6 kW; 123 begins after 1, 103, 120, 121.
fn inverter(pct: u16, enabled: u16, revert: u16) -> (Registers, u16) {
    let ac = model(103, 50, &[(14, &[6000, 0]), (38, &[4])]);
    let nameplate = model(120, 26, &[(3, &[1000, 1])]);
    let settings = model(121, 30, &[(2, &[8000]), (22, &[0])]);
    let controls = model(123, 24, &[(4, &[1, pct, 0xFFFF, revert, 0xFFFF, enabled]), (23, &[0xFFFF])]);
    (at_base(40_000, &[model(1, 66, &[]), ac, nameplate, settings, controls]), 40_002 + 68 + 52 + 28 + 32)
}

#[test]
fn a_power_limit_stays_until_released() {
    let (mut device, at) = inverter(1000, 0, 0);
    let mut driver = found(&mut device, DeviceKind::Inverter);
    assert_eq!(driver.capabilities().actions, ["set_power_limit", "set_export_limit", "auto"]);
    assert_eq!(driver.capabilities().failsafe, FailSafe::None);
    assert_eq!(driver.capabilities().rated_w, Some(10_000.0));
    let why = driver.program(&Demand::Release, LEASE).unwrap_err();
    assert!(why.contains("never recorded"), "{why}");
    baseline(&mut driver, &mut device);
    // percent of WMax, 8000 W, in tenths, never more than asked
    for (watts, pct) in [(4000.0, 500), (4007.9, 500), (4008.0, 501), (0.0, 0), (8000.0, 1000), (20_000.0, 1000)] {
        let program = driver.program(&Demand::PowerLimit { watts }, LEASE).unwrap();
        assert_eq!(writes(&program), [(at + 5, vec![pct]), (at + 7, vec![0]), (at + 9, vec![1])], "{watts}");
        assert_eq!(program.refresh, None);
        run(&program, &mut device);
    }
    let release = driver.program(&Demand::Release, LEASE).unwrap();
    assert_eq!(writes(&release), [(at + 5, vec![1000]), (at + 7, vec![0]), (at + 9, vec![0])]);
    run(&release, &mut device);
    for watts in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(driver.program(&Demand::PowerLimit { watts }, LEASE).is_err());
    }
}

#[test]
fn never_wider_than_the_installers_limit() {
    // 80 % of 8 kW is what it produces at: the limit is real
    let (mut device, at) = inverter(800, 1, 0xFFFF);
    let mut driver = found(&mut device, DeviceKind::Inverter);
    baseline(&mut driver, &mut device);
    let program = driver.program(&Demand::PowerLimit { watts: 7000.0 }, LEASE).unwrap();
    assert_eq!(writes(&program), [(at + 5, vec![800]), (at + 9, vec![1])]);
    let program = driver.program(&Demand::PowerLimit { watts: 4000.0 }, LEASE).unwrap();
    assert_eq!(writes(&program)[0], (at + 5, vec![500]));
    let release = driver.program(&Demand::Release, LEASE).unwrap();
    assert_eq!(writes(&release), [(at + 5, vec![800]), (at + 9, vec![1])]);
}

#[test]
fn a_limit_that_does_not_hold_is_not_a_limit() {
    // the recorded device says 0 % and enabled while it produces 1080 W
    let mut device = sma();
    let mut driver = found(&mut device, DeviceKind::Inverter);
    baseline(&mut driver, &mut device);
    let program = driver.program(&Demand::PowerLimit { watts: 1840.0 }, LEASE).unwrap();
    assert_eq!(writes(&program), [(40_348, vec![5000]), (40_352, vec![1])]);
    let release = driver.program(&Demand::Release, LEASE).unwrap();
    assert_eq!(writes(&release), [(40_348, vec![0]), (40_352, vec![1])]);
}

#[test]
fn storage_controls_without_content_offer_nothing() {
    let mut device = sma();
    let driver = found(&mut device, DeviceKind::Battery);
    assert_eq!(driver.capabilities().actions, Vec::<&str>::new());
    assert!(driver.program(&Demand::Release, LEASE).is_err());
    assert_eq!(driver.baseline_reads(), []);
}

/// The store was lost while a setpoint was held: what is read then is no installer's word.
#[test]
fn a_forced_power_is_nobodys_baseline() {
    for forced in [[(-4000_i16).cast_unsigned(), 3200], [5000, (-4000_i16).cast_unsigned()], [0, 0]] {
        let mut device = battery(0);
        let mut driver = found(&mut device, DeviceKind::Battery);
        for (address, words) in [(AT + 12, forced.to_vec()), (AT + 5, vec![3])] {
            let write = Request::Write { unit: 1, address, words, function: WriteFunction::Multiple };
            assert!(device.answer(&write).is_ok());
        }
        baseline(&mut driver, &mut device);
        let release = driver.program(&Demand::Release, LEASE).unwrap();
        assert_eq!(writes(&release)[..2], [(AT + 12, vec![10_000, 10_000]), (AT + 5, vec![0])]);
    }
    // Limits in both directions are.
    let mut device = battery(0);
    let mut driver = found(&mut device, DeviceKind::Battery);
    for (address, words) in [(AT + 12, vec![5000, 8000]), (AT + 5, vec![3])] {
        let write = Request::Write { unit: 1, address, words, function: WriteFunction::Multiple };
        assert!(device.answer(&write).is_ok());
    }
    baseline(&mut driver, &mut device);
    let release = driver.program(&Demand::Release, LEASE).unwrap();
    assert_eq!(writes(&release)[..2], [(AT + 12, vec![5000, 8000]), (AT + 5, vec![3])]);
}

#[test]
fn a_baseline_of_something_else_is_refused() {
    let (mut device, _) = inverter(1000, 0, 0);
    let mut driver = found(&mut device, DeviceKind::Inverter);
    for text in ["", "[]", "{}", r#"{"model":123}"#, r#"{"model":124,"storctl_mod":70000}"#] {
        assert!(driver.set_baseline(text).is_err(), "{text}");
    }
    assert!(driver.take_baseline(&[]).is_err());
    assert!(driver.take_baseline(&[Ok(Answer::Words(vec![123, 24]))]).is_err());
}
