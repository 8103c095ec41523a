use super::*;

/// The recorded SMA Sunny Boy 3.6, see `testdata/SOURCES.md`.
pub(super) fn sma() -> Registers {
    let mut registers = Registers::default();
    for line in include_str!("../testdata/sb36-1av-41_sunspec_2023-08-10.hex.txt").lines() {
        let Some((at, words)) = line.split_once(": ").filter(|_| !line.starts_with('#')) else { continue };
        let words: Vec<_> = words.split_whitespace().map(|w| u16::from_str_radix(w, 16).unwrap()).collect();
        registers.put(at.parse().unwrap(), &words);
    }
    registers
}

/// A model with its header, all points "not implemented" but these (offset from the ID register).
pub(super) fn model(id: u16, len: u16, points: &[(usize, &[u16])]) -> Vec<u16> {
    let mut words = vec![0x8000; usize::from(len) + 2];
    words[0] = id;
    words[1] = len;
    for (at, set) in points {
        words[*at..*at + set.len()].copy_from_slice(set);
    }
    words
}

pub(super) fn at_base(base: u16, models: &[Vec<u16>]) -> Registers {
    let mut registers = Registers::default();
    let mut words = vec![0x5375, 0x6E53];
    models.iter().for_each(|m| words.extend(m));
    words.extend([0xFFFF, 0]);
    registers.put(base, &words);
    registers
}

/// 103 with the named points.
fn inverter_103(watts: u16, state: u16, energy: u16) -> Vec<u16> {
    model(
        103,
        50,
        &[
            (2, &[300, 100, 100, 100, 0xFFFE]),
            (10, &[2301, 2302, 2303, 0xFFFF]),
            (14, &[watts, 0, 5000, 0xFFFE, watts, 0, 0, 0]),
            (24, &[0, energy, 1]),
            (38, &[state, 0xFFFF, 0, 0]),
        ],
    )
}

#[test]
fn the_recorded_sunny_boy() {
    let mut device = sma();
    let mut driver = driver(&spec("sunspec", DeviceKind::Inverter));
    assert_eq!(discover(&mut driver, |r| device.answer(r)), Step::Ready);
    let info = driver.info();
    assert_eq!(info.maker.as_deref(), Some("SMA"));
    assert_eq!(info.model.as_deref(), Some("SB3.6-1AV-41"));
    assert_eq!(info.firmware.as_deref(), Some("4.00.75.R"));
    assert_eq!(info.serial.as_deref(), Some("3005067415"));
    assert_eq!(driver.capabilities().rated_w, Some(3680.0));
    let points = poll(&mut driver, |r| device.answer(r));
    for (point, want) in [
        (Point::PowerW, 1080.0),
        (Point::ApparentPowerVa, 1090.0),
        (Point::ReactivePowerVar, 100.0),
        (Point::PowerFactor, 1080.0 / 1090.0),
        (Point::CurrentL1A, 4.5),
        (Point::VoltageL1V, 239.2),
        (Point::FrequencyHz, 49.98),
        (Point::EnergyProducedWh, 21_707_967.0),
        (Point::TemperatureC, 42.0),
        (Point::DcPowerW, 1150.0),
    ] {
        num(&points, point, want);
    }
    state(&points, "running");
    assert!(!points.contains_key(&Point::VoltageL2V), "one phase");
    assert!(!points.contains_key(&Point::FaultCode));
    assert_eq!(driver.rejected_values(), 0);
}

#[test]
fn every_base_and_the_last_one_first_after_a_reconnect() {
    for base in [40_000, 0, 50_000] {
        let mut device = at_base(base, &[model(1, 65, &[]), inverter_103(1500, 4, 7)]);
        let mut driver = driver(&spec("sunspec", DeviceKind::Inverter));
        assert_eq!(discover(&mut driver, |r| device.answer(r)), Step::Ready, "{base}");
        assert!(matches!(driver.begin(), Step::Ask(Request::Read { address, .. }) if address == base));
        let points = poll(&mut driver, |r| device.answer(r));
        num(&points, Point::PowerW, 1500.0);
        num(&points, Point::EnergyProducedWh, 70.0);
    }
}

#[test]
fn a_short_model_1_an_unknown_model_and_an_exception_for_the_end() {
    let mut short = model(1, 34, &[]);
    short[2..5].copy_from_slice(&[0x4142, 0x4300, 0]);
    let mut device = at_base(40_000, &[short, model(64_123, 200, &[]), inverter_103(20, 5, 0)]);
    let last = *device.holding.keys().next_back().unwrap();
    device.holding.remove(&last);
    device.holding.remove(&(last - 1));
    let mut driver = driver(&spec("sunspec", DeviceKind::Inverter));
    assert_eq!(discover(&mut driver, |r| device.answer(r)), Step::Ready);
    assert_eq!(driver.info().maker.as_deref(), Some("ABC"));
    assert_eq!(driver.info().serial, None);
    state(&poll(&mut driver, |r| device.answer(r)), "throttled");
}

#[test]
fn what_is_not_there_is_said() {
    let mut driver = driver(&spec("sunspec", DeviceKind::Battery));
    let mut device = at_base(40_000, &[model(1, 66, &[]), inverter_103(20, 4, 0)]);
    let Step::NotFound(why) = discover(&mut driver, |r| device.answer(r)) else { panic!() };
    assert_eq!(why, "unit 1 has models 1, 103: none of a battery (124, 713, 802)");
    let Step::NotFound(why) = discover(&mut driver, |_| Err(Refusal::Exception(2))) else { panic!() };
    assert_eq!(why, "unit 1 answers, but not as SunSpec at 40000, 0 or 50000");
}

#[test]
fn a_chain_without_end_ends() {
    // every header says: model 900, one register long
    let mut n = 0_u16;
    let mut driver = driver(&spec("sunspec", DeviceKind::Meter));
    let step = discover(&mut driver, |request| {
        let Request::Read { address, count, .. } = request else { panic!() };
        n += 1;
        Ok(Answer::Words(if *address == 40_000 { vec![0x5375, 0x6E53] } else { vec![900; usize::from(*count)] }))
    });
    assert!(matches!(step, Step::NotFound(_)), "{step:?}");
    assert!(n < 140, "{n} requests");
}

#[test]
fn asleep_is_no_number() {
    let mut driver = driver(&spec("sunspec", DeviceKind::Inverter));
    let night = model(103, 50, &[(24, &[0, 0, 0]), (38, &[2])]);
    let mut device = at_base(40_000, &[model(1, 66, &[]), night]);
    discover(&mut driver, |r| device.answer(r));
    let points = poll(&mut driver, |r| device.answer(r));
    state(&points, "asleep");
    null(&points, Point::PowerW, NullReason::Asleep);
    null(&points, Point::FrequencyHz, NullReason::Asleep);
    null(&points, Point::EnergyProducedWh, NullReason::NotReady);
}

#[test]
fn scale_factors_outside_the_standard_make_null() {
    for scale in [0x8000_u16, 11, 0xFFF5, 0x7FFF] {
        let mut driver = driver(&spec("sunspec", DeviceKind::Inverter));
        let mut words = inverter_103(1500, 4, 7);
        words[15] = scale;
        let mut device = at_base(40_000, &[model(1, 66, &[]), words]);
        discover(&mut driver, |r| device.answer(r));
        null(&poll(&mut driver, |r| device.answer(r)), Point::PowerW, NullReason::NotImplemented);
    }
}

#[test]
fn a_model_that_moved_is_not_decoded() {
    let mut driver = driver(&spec("sunspec", DeviceKind::Inverter));
    let mut device = at_base(40_000, &[model(1, 66, &[]), inverter_103(1500, 4, 7)]);
    discover(&mut driver, |r| device.answer(r));
    device.put(40_070, &[113, 60]);
    let points = poll(&mut driver, |r| device.answer(r));
    null(&points, Point::PowerW, NullReason::Unavailable);
    null(&points, Point::State, NullReason::Unavailable);
}

#[test]
fn every_state_has_its_word() {
    for (raw, word) in [
        (1, "off"),
        (2, "asleep"),
        (3, "starting"),
        (4, "running"),
        (5, "throttled"),
        (6, "standby"),
        (7, "fault"),
        (8, "standby"),
        (99, "unknown"),
    ] {
        let mut driver = driver(&spec("sunspec", DeviceKind::Inverter));
        let mut device = at_base(40_000, &[model(1, 66, &[]), inverter_103(0, raw, 7)]);
        discover(&mut driver, |r| device.answer(r));
        state(&poll(&mut driver, |r| device.answer(r)), word);
    }
}

#[test]
fn a_float_inverter() {
    let f = |x: f32| [(x.to_bits() >> 16) as u16, (x.to_bits() & 0xFFFF) as u16];
    let nan = [0x7FC0, 0];
    let words = model(
        113,
        60,
        &[
            (16, &f(230.5)),
            (18, &nan),
            (20, &f(231.5)),
            (22, &f(-12.5)),
            (24, &f(49.9)),
            (26, &f(25.0)),
            (32, &f(26_000_000.0)),
            (38, &f(-13.0)),
            (40, &f(31.0)),
            (48, &[8, 0xFFFF]),
            (50, &[0, 4]),
        ],
    );
    let mut driver = driver(&spec("sunspec", DeviceKind::Inverter));
    let mut device = at_base(0, &[model(1, 66, &[]), words]);
    discover(&mut driver, |r| device.answer(r));
    let points = poll(&mut driver, |r| device.answer(r));
    num(&points, Point::PowerW, -12.5);
    num(&points, Point::PowerFactor, -0.5);
    num(&points, Point::VoltageL3V, 231.5);
    null(&points, Point::VoltageL2V, NullReason::NotImplemented);
    num(&points, Point::EnergyProducedWh, 26_000_000.0);
    num(&points, Point::DcPowerW, -13.0);
    num(&points, Point::FaultCode, 4.0);
    state(&points, "standby");
}

fn meter_203() -> Vec<u16> {
    model(
        203,
        105,
        &[
            (2, &[0, 100, (-200_i16).cast_unsigned(), 300, 0xFFFE]),
            (7, &[0x8000, 2301, 2302, 2303]),
            (15, &[0xFFFF, 5001, 0xFFFE]),
            (18, &[(-600_i16).cast_unsigned(), 100, (-500_i16).cast_unsigned(), (-200_i16).cast_unsigned(), 0]),
            (23, &[1200]),
            (27, &[0, 0x8000]),
            (38, &[0, 1000]),
            (46, &[1, 0]),
            (54, &[1]),
        ],
    )
}

#[test]
fn a_meter_and_the_same_turned_round() {
    let mut device = at_base(40_000, &[model(1, 65, &[]), meter_203()]);
    let mut spec = spec("sunspec", DeviceKind::Meter);
    let mut as_it_is = driver(&spec);
    discover(&mut as_it_is, |r| device.answer(r));
    let points = poll(&mut as_it_is, |r| device.answer(r));
    for (point, want) in [
        (Point::PowerW, -600.0),
        (Point::PowerL1W, 100.0),
        (Point::PowerL2W, -500.0),
        (Point::PowerL3W, -200.0),
        (Point::CurrentL2A, -2.0),
        (Point::CurrentL3A, 3.0),
        (Point::VoltageL1V, 230.1),
        (Point::FrequencyHz, 50.01),
        (Point::PowerFactor, -0.5),
        (Point::EnergyExportWh, 10_000.0),
        (Point::EnergyImportWh, 655_360.0),
    ] {
        num(&points, point, want);
    }
    spec.invert = true;
    let mut turned = driver(&spec);
    discover(&mut turned, |r| device.answer(r));
    let points = poll(&mut turned, |r| device.answer(r));
    for (point, want) in [
        (Point::PowerW, 600.0),
        (Point::PowerL1W, -100.0),
        (Point::PowerL2W, 500.0),
        (Point::PowerL3W, 200.0),
        // signed like the power of its phase, also where the device gives a magnitude
        (Point::CurrentL1A, -1.0),
        (Point::CurrentL2A, 2.0),
        (Point::CurrentL3A, 3.0),
        (Point::VoltageL1V, 230.1),
        (Point::EnergyImportWh, 10_000.0),
        (Point::EnergyExportWh, 655_360.0),
    ] {
        num(&points, point, want);
    }
}

#[test]
fn a_float_meter_is_read_in_one_request() {
    let f = |x: f32| [(x.to_bits() >> 16) as u16, (x.to_bits() & 0xFFFF) as u16];
    let words = model(
        213,
        124,
        &[(26, &f(50.0)), (28, &f(-1.5)), (30, &f(2.5)), (60, &f(12.0)), (68, &f(13.0)), (12, &f(229.0)), (4, &f(1.0))],
    );
    let mut device = at_base(40_000, &[model(1, 65, &[]), words]);
    let mut driver = driver(&spec("sunspec", DeviceKind::Meter));
    discover(&mut driver, |r| device.answer(r));
    assert_eq!(driver.reads().len(), 1);
    let points = poll(&mut driver, |r| device.answer(r));
    num(&points, Point::PowerW, -1.5);
    num(&points, Point::PowerL1W, 2.5);
    num(&points, Point::EnergyExportWh, 12.0);
    num(&points, Point::EnergyImportWh, 13.0);
    num(&points, Point::VoltageL1V, 229.0);
    num(&points, Point::CurrentL1A, 1.0);
}

#[test]
fn the_identity_is_the_one_before_the_model() {
    let common = |letter: u16| model(1, 65, &[(2, &[letter << 8, 0])]);
    let mut device = at_base(40_000, &[common(0x41), inverter_103(5, 4, 1), common(0x42), meter_203(), common(0x43)]);
    for (kind, maker) in [(DeviceKind::Inverter, "A"), (DeviceKind::Meter, "B")] {
        let mut driver = driver(&spec("sunspec", kind));
        discover(&mut driver, |r| device.answer(r));
        assert_eq!(driver.info().maker.as_deref(), Some(maker));
    }
}

#[test]
fn power_beyond_the_nameplate_is_counted_and_not_published() {
    let nameplate = model(120, 26, &[(3, &[5000, 0])]);
    let mut device = at_base(40_000, &[model(1, 66, &[]), inverter_103(7501, 4, 7), nameplate]);
    let mut driver = driver(&spec("sunspec", DeviceKind::Inverter));
    discover(&mut driver, |r| device.answer(r));
    null(&poll(&mut driver, |r| device.answer(r)), Point::PowerW, NullReason::OutOfRange);
    assert_eq!(driver.rejected_values(), 1);
    device.put(40_002 + 68 + 14, &[7500]);
    num(&poll(&mut driver, |r| device.answer(r)), Point::PowerW, 7500.0);
}

#[test]
fn a_counter_never_falls() {
    let mut device = at_base(40_000, &[model(1, 66, &[]), inverter_103(100, 4, 0)]);
    let mut driver = driver(&spec("sunspec", DeviceKind::Inverter));
    discover(&mut driver, |r| device.answer(r));
    // raw value, scale factor 1 -> what is published, in turn
    for (raw, want) in [
        (5000, Some(50_000.0)),
        (5001, Some(50_010.0)),
        (0, None),
        (0, None),
        (5000, None),
        (5001, Some(50_010.0)),
        // a reset: three reads that belong together
        (10, None),
        (11, None),
        (9000, Some(90_000.0)),
        (12, None),
        (12, None),
        (12, Some(120.0)),
        (13, Some(130.0)),
    ] {
        device.put(40_002 + 68 + 25, &[raw]);
        let points = poll(&mut driver, |r| device.answer(r));
        match want {
            Some(want) => num(&points, Point::EnergyProducedWh, want),
            None => null(&points, Point::EnergyProducedWh, NullReason::NotReady),
        }
    }
}

#[test]
fn the_better_counter_once_seen_stays() {
    let status = |act: u16| model(122, 44, &[(5, &[0, 0, 0, act])]);
    let mut device = at_base(40_000, &[model(1, 66, &[]), inverter_103(100, 4, 500), status(0)]);
    let mut driver = driver(&spec("sunspec", DeviceKind::Inverter));
    discover(&mut driver, |r| device.answer(r));
    num(&poll(&mut driver, |r| device.answer(r)), Point::EnergyProducedWh, 5000.0);
    let at = 40_002 + 68 + 52 + 8;
    device.put(at, &[5003]);
    num(&poll(&mut driver, |r| device.answer(r)), Point::EnergyProducedWh, 5003.0);
    device.put(at, &[0]);
    null(&poll(&mut driver, |r| device.answer(r)), Point::EnergyProducedWh, NullReason::NotReady);
}

/// 160 as a hybrid inverter fills it: two solar inputs, the battery's charge and discharge side.
fn dc_inputs(watts: [u16; 4]) -> Vec<u16> {
    let mut words = model(160, 8 + 4 * 20, &[(2, &[0, 0, 0, 0]), (8, &[4])]);
    for (k, name) in [*b"MPPT 1  ", *b"MPPT 2  ", *b"StCha 3 ", *b"StDisCha"].iter().enumerate() {
        let at = 10 + 20 * k;
        words[at + 1..at + 9].fill(0);
        for (n, pair) in name.chunks(2).enumerate() {
            words[at + 1 + n] = u16::from_be_bytes([pair[0], pair[1]]);
        }
        words[at + 11] = watts[k];
    }
    words
}

#[test]
fn a_hybrids_battery_is_its_dc_blocks_and_not_its_ac_power() {
    let storage = model(124, 24, &[(2, &[5000]), (8, &[4200]), (18, &[0]), (22, &[0xFFFE]), (25, &[0xFFFE])]);
    let models = [model(1, 66, &[]), inverter_103(3000, 4, 7), dc_inputs([2500, 900, 400, 0]), storage.clone()];
    let mut device = at_base(40_000, &models);
    let mut battery = driver(&spec("sunspec", DeviceKind::Battery));
    assert_eq!(discover(&mut battery, |r| device.answer(r)), Step::Ready);
    let points = poll(&mut battery, |r| device.answer(r));
    num(&points, Point::PowerW, -400.0);
    num(&points, Point::SocPct, 42.0);
    state(&points, "charging");
    let mut inverter = driver(&spec("sunspec", DeviceKind::Inverter));
    discover(&mut inverter, |r| device.answer(r));
    let points = poll(&mut inverter, |r| device.answer(r));
    num(&points, Point::PowerW, 3000.0);
    num(&points, Point::DcPowerW, 3400.0);
    // without names: the battery model's own power
    let mut plain = dc_inputs([2500, 900, 0, 0]);
    plain[51..59].fill(0);
    plain[71..79].fill(0);
    let bank = model(802, 62, &[(11, &[50]), (47, &[700]), (56, &[0]), (63, &[0])]);
    let mut device = at_base(40_000, &[model(1, 66, &[]), inverter_103(3000, 4, 7), plain, storage, bank]);
    let mut battery = driver(&spec("sunspec", DeviceKind::Battery));
    discover(&mut battery, |r| device.answer(r));
    let points = poll(&mut battery, |r| device.answer(r));
    num(&points, Point::PowerW, 700.0);
    num(&points, Point::SocPct, 50.0);
    state(&points, "discharging");
    assert!(!points.contains_key(&Point::EnergyDischargedWh));
}

#[test]
fn busy_is_not_the_end_of_the_chain() {
    let mut device = at_base(40_000, &[model(1, 66, &[]), inverter_103(3000, 4, 7), model(120, 26, &[])]);
    let mut driver = driver(&spec("sunspec", DeviceKind::Inverter));
    let mut requests = 0;
    let step = discover(&mut driver, |r| {
        requests += 1;
        if requests == 4 { Err(Refusal::Exception(6)) } else { device.answer(r) }
    });
    assert_eq!(step, Step::NotFound("unit 1 is busy: Modbus exception 6".to_owned()));
    assert_eq!(discover(&mut driver, |r| device.answer(r)), Step::Ready);
}

#[test]
fn der_models_701_702_713() {
    let ac = model(
        701,
        153,
        &[
            (4, &[4]),
            (6, &[0, 0]),
            (10, &[(-250_i16).cast_unsigned(), 260, 0]),
            (17, &[0, 49_980]),
            (19, &[0, 0, 1, 0]),
            (23, &[0, 0, 0, 900]),
            (36, &[412]),
            (41, &[(-80_i16).cast_unsigned()]),
            (45, &[35]),
            (47, &[2304]),
            (113, &[0xFFFF, 0xFFFF, 0xFFFD, 1, 0, 1, 1, 0, 0, 0xFFFF]),
        ],
    );
    let ratings = model(702, 50, &[(2, &[1000]), (45, &[1])]);
    let store = model(713, 7, &[(2, &[100, 40, 401, 990, 0, 2, 0xFFFF])]);
    let mut device = at_base(40_000, &[model(1, 66, &[]), ac, ratings, store]);
    let mut inverter = driver(&spec("sunspec", DeviceKind::Inverter));
    assert_eq!(discover(&mut inverter, |r| device.answer(r)), Step::Ready);
    assert_eq!(inverter.capabilities().rated_w, Some(10_000.0));
    assert!(inverter.capabilities().actions.is_empty());
    let points = poll(&mut inverter, |r| device.answer(r));
    for (point, want) in [
        (Point::PowerW, -2500.0),
        (Point::ApparentPowerVa, 2600.0),
        (Point::FrequencyHz, 49.98),
        (Point::EnergyProducedWh, 65_536.0),
        (Point::TemperatureC, 41.2),
        (Point::PowerL1W, -800.0),
        (Point::CurrentL1A, 3.5),
        (Point::VoltageL1V, 230.4),
    ] {
        num(&points, point, want);
    }
    state(&points, "throttled");
    let mut battery = driver(&spec("sunspec", DeviceKind::Battery));
    discover(&mut battery, |r| device.answer(r));
    let points = poll(&mut battery, |r| device.answer(r));
    for (point, want) in [
        (Point::PowerW, -2500.0),
        (Point::SocPct, 40.1),
        (Point::SohPct, 99.0),
        (Point::CapacityWh, 10_000.0),
        (Point::EnergyDischargedWh, 65_536.0),
        (Point::EnergyChargedWh, 900.0),
    ] {
        num(&points, point, want);
    }
    state(&points, "charging");
}
