use super::*;
use crate::model::Demand;
use proptest::prelude::*;

fn kinds() -> impl Strategy<Value = DeviceKind> {
    prop_oneof![Just(DeviceKind::Inverter), Just(DeviceKind::Battery), Just(DeviceKind::Meter),]
}

fn demands() -> impl Strategy<Value = Demand> {
    let number = any::<f64>();
    prop_oneof![
        Just(Demand::Release),
        (number, any::<bool>()).prop_map(|(watts, grid)| Demand::BatteryPower { watts, grid }),
        number.prop_map(|pct| Demand::Reserve { pct }),
        number.prop_map(|watts| Demand::PowerLimit { watts }),
        number.prop_map(|amps| Demand::ChargerCurrent { amps, phases: None }),
        Just(Demand::ChargerOff),
    ]
}

/// Everything that a driver can be asked, with whatever the device says.
fn exercise(driver: &mut Driver, demand: &Demand, mut answer: impl FnMut(&Request) -> Result<Answer, Refusal>) {
    let step = discover(driver, &mut answer);
    for _ in 0..3 {
        let reads = driver.reads().to_vec();
        let answers: Vec<_> = reads.iter().map(&mut answer).collect();
        for (_, field) in driver.decode(&answers) {
            assert!(field.is_err() || field.is_ok_and(|v| v.num().is_none_or(f64::is_finite)));
        }
        driver.decode(&[]);
    }
    let answers: Vec<_> = driver.baseline_reads().iter().map(&mut answer).collect();
    if let Ok(json) = driver.take_baseline(&answers) {
        driver.set_baseline(&json).unwrap();
    }
    let Ok(program) = driver.program(demand, Duration::from_millis(1)) else { return };
    assert_eq!(step, Step::Ready);
    assert!(program.writes.iter().all(Request::is_write));
    for check in &program.checks {
        assert!(!check.read.is_write());
        if let Ok(answer) = answer(&check.read) {
            assert!(!check.judge(&answer).address.is_empty());
        }
    }
}

/// Words that are likely to hurt.
fn word() -> impl Strategy<Value = u16> {
    prop_oneof![
        4 => any::<u16>(),
        1 => Just(0xFFFF),
        1 => Just(0x8000),
        1 => Just(0),
        2 => prop_oneof![
            Just(1_u16), Just(101), Just(103), Just(113), Just(120), Just(121), Just(122), Just(123), Just(124),
            Just(160), Just(203), Just(213), Just(701), Just(713), Just(802), Just(24), Just(50), Just(66),
        ],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_registers(kind in kinds(), words in prop::collection::vec(word(), 64), demand in demands(), wrong in 0_usize..4) {
        let mut driver = driver(&spec("sunspec", kind));
        let mut n = 0_usize;
        exercise(&mut driver, &demand, |request| {
            let Request::Read { address, count, .. } = request else { return Err(Refusal::Exception(1)) };
            n += 1;
            if *address == 40_000 {
                return Ok(Answer::Words(vec![0x5375, 0x6E53]));
            }
            if wrong > 0 && n.is_multiple_of(11) {
                return match wrong {
                    1 => Err(Refusal::Exception(4)),
                    2 => Ok(Answer::Words(vec![7; n % 9])),
                    _ => Ok(Answer::Json(serde_json::Value::Null)),
                };
            }
            let from = usize::from(*address);
            Ok(Answer::Words((from..from + usize::from(*count)).map(|i| words[i % words.len()]).collect()))
        });
    }

    #[test]
    fn any_content_of_a_real_chain(
        kind in kinds(), damage in prop::collection::vec((0_u16..880, word()), 0..120), demand in demands(),
    ) {
        let mut device = super::sunspec::sma();
        for (at, word) in damage {
            device.put(40_002 + at, &[word]);
        }
        let mut driver = driver(&spec("sunspec", kind));
        exercise(&mut driver, &demand, |r| device.answer(r));
    }

    #[test]
    fn any_map_content(words in prop::collection::vec(word(), 130), demand in demands(), kind in kinds()) {
        for name in ["eastron/sdm630", "victron/gx"] {
            let Ok(mut driver) = Catalogue::load(&[]).unwrap().get(name).unwrap().driver(&spec(name, kind)) else { continue };
            exercise(&mut driver, &demand, |request| match request {
                Request::Read { count, .. } => Ok(Answer::Words(words[..usize::from(*count)].to_vec())),
                _ => Err(Refusal::Exception(1)),
            });
        }
    }

    #[test]
    fn any_json(numbers in prop::collection::vec(any::<f64>(), 16), text in ".{0,12}", shape in 0_usize..5, demand in demands()) {
        let document = match shape {
            0 => serde_json::json!({"car": numbers[0], "nrg": numbers, "amp": numbers[1], "frc": text, "wh": text}),
            1 => serde_json::json!({"car": text, "nrg": {"11": 5}, "amp": null, "frc": [], "ama": numbers[2]}),
            2 => serde_json::json!([numbers]),
            3 => serde_json::json!(text),
            _ => serde_json::Value::Null,
        };
        let mut driver = driver(&spec("go-e/charger", DeviceKind::Charger));
        exercise(&mut driver, &demand, |_| Ok(Answer::Json(document.clone())));
    }

    #[test]
    fn any_profile_text(text in "(?s).{0,400}", key in "[a-z_.]{1,12}", value in "[-0-9a-z\"{}\\[\\]=., ]{0,40}") {
        drop(super::super::load::profile("v/m", &text));
        drop(super::super::load::profile("v/m", &format!("protocol = \"modbus\"\n{key} = {value}\n[meter]\npoint = [{value}]")));
    }

    #[test]
    fn counters_never_fall_unconfirmed(raws in prop::collection::vec(prop_oneof![Just(0_u16), 1_u16..20, 900_u16..1000], 1..60)) {
        let mut device = Registers::default();
        device.input.extend((0..0x60).map(|at| (at, 0)));
        let mut driver = driver(&spec("eastron/sdm630", DeviceKind::Meter));
        discover(&mut driver, |r| device.answer(r));
        let mut last: Option<f64> = None;
        let mut quiet = 0;
        for raw in raws {
            let bits = f32::from(raw).to_bits();
            device.input.extend([(0x48, (bits >> 16) as u16), (0x49, (bits & 0xFFFF) as u16)]);
            let points = poll(&mut driver, |r| device.answer(r));
            match points[&Point::EnergyImportWh].as_ref().ok().and_then(Value::num) {
                Some(n) => {
                    prop_assert!(last.is_none_or(|l| n >= l) || quiet >= 2, "{last:?} -> {n}");
                    last = Some(n);
                    quiet = 0;
                }
                None => quiet += 1,
            }
        }
    }
}
