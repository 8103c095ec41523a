use super::*;
use crate::model::Demand;
use serde_json::{Value as Json, json};

const LEASE: Duration = Duration::from_secs(60);

/// Answers GETs from a table of paths.
fn site(paths: Vec<(&'static str, Json)>) -> impl Fn(&Request) -> Result<Answer, Refusal> {
    move |request| match request {
        Request::Http { method: HttpMethod::Get, path, body: None, writes: false } => {
            let found = paths.iter().find(|(p, _)| p == path);
            found.map(|(_, json)| Answer::Json(json.clone())).ok_or(Refusal::Http(404, String::new()))
        }
        other => panic!("{other:?}"),
    }
}

const STATUS: &str = "/api/status?filter=car,nrg,eto,wh,amp,frc";
const SETTINGS: &str = "/api/status?filter=amp,frc,psm,ama";
const DEVICE: &str = "/api/status?filter=fwv,sse,typ,ama";

fn goe(car: Json, amp: Json, frc: Json) -> impl Fn(&Request) -> Result<Answer, Refusal> {
    site(vec![
        (
            STATUS,
            json!({"car": car, "amp": amp, "frc": frc, "eto": 1_234_567, "wh": 4321.5,
                "nrg": [231, 232, 233, 1, 10.1, 10.2, 10.3, 2333, 2366, 2400, 0, 7099, 99, 99, 99, 0]}),
        ),
        (SETTINGS, json!({"amp": amp, "frc": frc, "ama": 20})),
        (DEVICE, json!({"fwv": "57.1", "sse": "123456", "typ": "go-eCharger_V4", "ama": 20})),
    ])
}

#[test]
fn go_e_by_the_key_table() {
    let answer = goe(json!(2), json!(10), json!(0));
    let mut driver = driver(&spec("go-e/charger", DeviceKind::Charger));
    assert_eq!(discover(&mut driver, &answer), Step::Ready);
    assert_eq!(driver.info().serial.as_deref(), Some("123456"));
    assert_eq!(driver.info().model.as_deref(), Some("go-eCharger_V4"));
    assert_eq!(driver.reads().len(), 1);
    let points = poll(&mut driver, &answer);
    for (point, want) in [
        (Point::PowerW, 7099.0),
        (Point::PowerL2W, 2366.0),
        (Point::VoltageL3V, 233.0),
        (Point::CurrentL1A, 10.1),
        (Point::EnergyDeliveredWh, 1_234_567.0),
        (Point::SessionEnergyWh, 4321.5),
        (Point::MaxCurrentA, 10.0),
    ] {
        num(&points, point, want);
    }
    state(&points, "charging");
    let capabilities = driver.capabilities();
    assert_eq!(capabilities.actions, ["start", "stop", "set_max_current", "auto"]);
    assert_eq!((capabilities.min_current_a, capabilities.max_current_a), (Some(6.0), Some(20.0)));
    for (car, word) in [(1, "unplugged"), (3, "plugged"), (4, "stopped"), (5, "fault"), (0, "unknown")] {
        state(&poll(&mut driver, goe(json!(car), json!(10), json!(0))), word);
    }
    null(&poll(&mut driver, goe(Json::Null, json!(10), json!(0))), Point::State, NullReason::Unavailable);
}

#[track_caller]
fn check_program(driver: &Driver, demand: Demand, path: &str, read: Json, ok: bool) {
    let program = driver.program(&demand, LEASE).unwrap();
    let [Request::Http { method: HttpMethod::Get, path: got, body: None, writes: true }] = &program.writes[..] else {
        panic!("{:?}", program.writes)
    };
    assert_eq!(got, path);
    assert_eq!(program.refresh, None);
    let verdict = program.checks[0].judge(&Answer::Json(read));
    assert_eq!(verdict.ok, ok, "{verdict:?}");
    assert_eq!(verdict.address, SETTINGS);
}

#[test]
fn go_e_is_set_and_read_back() {
    let answer = goe(json!(2), json!(13), json!(0));
    let mut driver = driver(&spec("go-e/charger", DeviceKind::Charger));
    discover(&mut driver, &answer);
    let current = |amps| Demand::ChargerCurrent { amps, phases: None };
    check_program(&driver, Demand::Release, "/api/set?frc=0", json!({"frc": 0}), true);
    let answers: Vec<_> = driver.baseline_reads().iter().map(&answer).collect();
    let baseline = driver.take_baseline(&answers).unwrap();
    assert_eq!(baseline, r#"{"amp":13,"frc":0,"ama":20}"#);
    driver.set_baseline(&baseline).unwrap();
    check_program(&driver, current(10.0), "/api/set?amp=10&frc=2", json!({"amp": 10, "frc": 2}), true);
    check_program(&driver, current(10.9), "/api/set?amp=10&frc=2", json!({"amp": "10", "frc": 2.0}), true);
    check_program(&driver, current(32.0), "/api/set?amp=20&frc=2", json!({"amp": 13, "frc": 2}), false);
    check_program(&driver, current(5.9), "/api/set?frc=1", json!({"amp": 10, "frc": 1}), true);
    check_program(&driver, Demand::ChargerOff, "/api/set?frc=1", json!({}), false);
    // A limit never starts a charge, and what the owner does with the rest is no breach of it.
    let limit = |amps| Demand::ChargerLimit { amps };
    check_program(&driver, limit(6.0), "/api/set?amp=6&frc=0", json!({"amp": 6, "frc": 1}), true);
    check_program(&driver, limit(6.0), "/api/set?amp=6&frc=0", json!({"amp": 16, "frc": 0}), false);
    check_program(&driver, limit(5.9), "/api/set?frc=1", json!({"amp": 6, "frc": 2}), false);
    check_program(&driver, Demand::Release, "/api/set?amp=13&frc=0", json!({"amp": 13, "frc": 0}), true);
    let verdict = driver.program(&current(8.0), LEASE).unwrap().checks[0].judge(&Answer::Json(json!({"amp": 6})));
    assert_eq!((verdict.wrote.as_str(), verdict.read.as_str()), ("amp=8 frc=2", "amp=6 frc=null"));
    assert!(driver.program(&current(f64::NAN), LEASE).is_err());
    assert!(driver.program(&Demand::BatteryPower { watts: 1.0, grid: false }, LEASE).is_err());
    assert!(driver.take_baseline(&[Ok(Answer::Json(json!({"amp": 6})))]).is_err());
    assert!(driver.set_baseline("[]").is_err());
}

#[test]
fn go_e_switches_its_phases_where_it_can() {
    let can = |settings: Json| {
        site(vec![
            (SETTINGS, settings),
            (DEVICE, json!({"fwv": "57.1", "sse": "123456", "typ": "go-eCharger_V4", "ama": 16})),
        ])
    };
    // It does not know the key: it cannot be told, and nothing of it is recorded.
    let answer = can(json!({"amp": 13, "frc": 0}));
    let mut old = driver(&spec("go-e/charger", DeviceKind::Charger));
    discover(&mut old, &answer);
    assert!(!old.capabilities().phase_switch);
    let answer = can(json!({"amp": 13, "frc": 0, "psm": 0}));
    let mut driver = driver(&spec("go-e/charger", DeviceKind::Charger));
    discover(&mut driver, &answer);
    assert!(driver.capabilities().phase_switch);
    let answers: Vec<_> = driver.baseline_reads().iter().map(&answer).collect();
    let baseline = driver.take_baseline(&answers).unwrap();
    assert_eq!(baseline, r#"{"amp":13,"frc":0,"psm":0}"#);
    driver.set_baseline(&baseline).unwrap();
    let on = |amps, phases| Demand::ChargerCurrent { amps, phases };
    let one = json!({"amp": 8, "frc": 2, "psm": 1});
    check_program(&driver, on(8.0, Some(1)), "/api/set?amp=8&frc=2&psm=1", one.clone(), true);
    check_program(&driver, on(8.0, Some(3)), "/api/set?amp=8&frc=2&psm=2", one, false);
    // A plain current and a release go back to what the installer set; a pause leaves the phases alone.
    let plain = json!({"amp": 8, "frc": 2, "psm": 0});
    check_program(&driver, on(8.0, None), "/api/set?amp=8&frc=2&psm=0", plain, true);
    check_program(&driver, on(5.0, Some(1)), "/api/set?frc=1", json!({"frc": 1}), true);
    check_program(
        &driver,
        Demand::Release,
        "/api/set?amp=13&frc=0&psm=0",
        json!({"amp": 13, "frc": 0, "psm": 0}),
        true,
    );
}

#[test]
fn shelly_pro_3em() {
    // layout by the vendor's EM and EMData status tables
    let status = json!({"id": 0, "a_current": 4.029, "a_voltage": 236.1, "a_act_power": 951.2, "a_aprt_power": 951.9,
        "a_pf": 1, "a_freq": 50, "b_current": 4.027, "b_voltage": 236.201, "b_act_power": -951.1,
        "c_current": 3.03, "c_voltage": 236.402, "c_act_power": 715.4, "n_current": null,
        "total_current": 11.083, "total_act_power": 715.5, "total_aprt_power": 2484.782});
    let energy = json!({"id": "0", "total_act": 26289.57, "total_act_ret": 131_881.86});
    let answer = site(vec![
        ("/shelly", json!({"model": "SPEM-003CEBEU", "gen": 2, "mac": "AABBCC", "ver": "1.4.4"})),
        ("/rpc/EM.GetStatus?id=0", status),
        ("/rpc/EMData.GetStatus?id=0", energy),
    ]);
    let mut driver = driver(&spec("shelly/pro-3em", DeviceKind::Meter));
    assert_eq!(discover(&mut driver, &answer), Step::Ready);
    assert_eq!(driver.info().model.as_deref(), Some("SPEM-003CEBEU"));
    assert_eq!(driver.reads().len(), 2);
    let points = poll(&mut driver, &answer);
    for (point, want) in [
        (Point::PowerW, 715.5),
        (Point::PowerL2W, -951.1),
        (Point::VoltageL3V, 236.402),
        (Point::CurrentL1A, 4.029),
        (Point::FrequencyHz, 50.0),
        (Point::EnergyImportWh, 26289.57),
        (Point::EnergyExportWh, 131_881.86),
    ] {
        num(&points, point, want);
    }
    assert!(driver.program(&Demand::Release, LEASE).is_err());
}

#[test]
fn shelly_3em_first_generation() {
    let phase = |power: f64, valid: bool| json!({"power": power, "current": 2.7, "voltage": 235.68, "is_valid": valid, "total": 401_472.9, "total_returned": 294.2});
    let status = json!({"emeters": [phase(-620.34, true), phase(100.0, true), phase(0.0, false)]});
    let answer = site(vec![("/shelly", json!({"type": "SHEM-3", "mac": "A", "fw": "1.12.1"})), ("/status", status)]);
    let mut driver = driver(&spec("shelly/3em", DeviceKind::Meter));
    assert_eq!(discover(&mut driver, &answer), Step::Ready);
    let points = poll(&mut driver, &answer);
    num(&points, Point::PowerL1W, -620.34);
    null(&points, Point::PowerL3W, NullReason::Unavailable);
    num(&points, Point::EnergyImportWh, 3.0 * 401_472.9);
    let other = site(vec![("/shelly", json!({"type": "SHEM"}))]);
    let Step::NotFound(why) = discover(&mut driver, &other) else { panic!() };
    assert_eq!(why, r#"/shelly gives "SHEM" at /type, expected "SHEM-3""#);
}

#[test]
fn homewizard_recorded() {
    let read = |text: &str| serde_json::from_str::<Json>(text).unwrap();
    let p1 = read(include_str!("../testdata/homewizard_v1_HWE-P1_data.json"));
    let answer = site(vec![("/api", json!({"product_type": "HWE-P1", "serial": "aabb"})), ("/api/v1/data", p1)]);
    let mut driver = driver(&spec("homewizard/p1", DeviceKind::Meter));
    assert_eq!(discover(&mut driver, &answer), Step::Ready);
    let points = poll(&mut driver, &answer);
    num(&points, Point::PowerW, -543.0);
    num(&points, Point::PowerL1W, -676.0);
    num(&points, Point::PowerL2W, 133.0);
    num(&points, Point::EnergyImportWh, 13_779_338.0);
    num(&points, Point::EnergyExportWh, 0.0);
    null(&points, Point::VoltageL1V, NullReason::NotImplemented);
    let kwh = read(include_str!("../testdata/homewizard_v1_SDM630-wifi_data.json"));
    let mut second = super::driver(&spec("homewizard/p1", DeviceKind::Meter));
    let answer = site(vec![("/api/v1/data", kwh)]);
    assert_eq!(discover(&mut second, &answer), Step::Ready);
    let points = poll(&mut second, &answer);
    num(&points, Point::PowerW, 7100.278);
    num(&points, Point::CurrentL2A, 15.521);
    num(&points, Point::FrequencyHz, 49.926);
}
