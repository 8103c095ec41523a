use super::super::map::{Block, coalesce};
use super::super::spec::{BlockRules, Register};
use super::super::words::Kind;
use super::*;

#[test]
fn sdm630_by_the_vendors_table() {
    let mut device = Registers::default();
    device.input.extend((0..0x60).map(|at| (at, 0)));
    // IEEE 754, high word first; 4366 3334 is the example of the vendor's protocol description: 230.2 V
    for (at, words) in [
        (0x0000, [0x4366, 0x3334]), // 230.2
        (0x0006, [0x40A0, 0x0000]), // 5
        (0x000C, [0xC48C, 0x8000]), // -1124
        (0x0034, [0xC500, 0x0000]), // -2048
        (0x003E, [0xBF40, 0x0000]), // -0.75
        (0x0046, [0x4248, 0x0000]), // 50
        (0x0048, [0x42F6, 0xE979]), // 123.456 kWh
        (0x004A, [0x7FC0, 0x0000]), // not a number
    ] {
        device.input.extend([(at, words[0]), (at + 1, words[1])]);
    }
    let mut driver = driver(&spec("eastron/sdm630", DeviceKind::Meter));
    assert_eq!(discover(&mut driver, |r| device.answer(r)), Step::Ready);
    assert_eq!(driver.info().maker.as_deref(), Some("Eastron"));
    let count = |r: &Request| match r {
        Request::Read { space: Space::Input, address, count, .. } => (*address, *count),
        other => panic!("{other:?}"),
    };
    assert_eq!(driver.reads().iter().map(count).collect::<Vec<_>>(), [(0, 18), (0x34, 24)]);
    let points = poll(&mut driver, |r| device.answer(r));
    for (point, want) in [
        (Point::CurrentL1A, 5.0),
        (Point::PowerL1W, -1124.0),
        (Point::PowerW, -2048.0),
        (Point::PowerFactor, -0.75),
        (Point::FrequencyHz, 50.0),
    ] {
        num(&points, point, want);
    }
    let volts = points[&Point::VoltageL1V].as_ref().unwrap().num().unwrap();
    assert!((volts - 230.2).abs() < 1e-4);
    let import = points[&Point::EnergyImportWh].as_ref().unwrap().num().unwrap();
    assert!((import - 123_456.0).abs() < 0.01);
    null(&points, Point::EnergyExportWh, NullReason::NotImplemented);
    assert!(driver.capabilities().actions.is_empty());
}

#[test]
fn a_refused_block_nulls_its_points_alone() {
    let mut device = Registers::default();
    device.input.extend((0..18).map(|at| (at, 0)));
    let mut driver = driver(&spec("eastron/sdm630", DeviceKind::Meter));
    discover(&mut driver, |r| device.answer(r));
    let points = poll(&mut driver, |r| device.answer(r));
    num(&points, Point::PowerL1W, 0.0);
    null(&points, Point::PowerW, NullReason::Unavailable);
}

/// Values of the GX Modbus server's own test data, by its attributes.csv: 410, 420, 430 W from the grid; battery
/// 50 V, 10 A and 600 W into it, 85 %, state 1.
#[test]
fn victron_gx_by_its_register_table() {
    let mut device = Registers::default();
    device.put(800, &[0x6261, 0x6462, 0x6565, 0x6631, 0x3562, 0x6164]);
    device.put(820, &[410, 420, 430]);
    device.put(840, &[500, 100, 600, 85, 1]);
    let mut spec = spec("victron/gx", DeviceKind::Meter);
    spec.unit = 100;
    let mut meter = driver(&spec);
    discover(&mut meter, |r| device.answer(r));
    assert_eq!(meter.info().serial.as_deref(), Some("badbeef15bad"));
    assert_eq!(meter.reads().len(), 1);
    let points = poll(&mut meter, |r| device.answer(r));
    num(&points, Point::PowerW, 1260.0);
    num(&points, Point::PowerL3W, 430.0);
    // a single-phase system: the others are missing, not 0
    device.put(820, &[(-410_i16).cast_unsigned(), 0x7FFF, 0x7FFF]);
    let points = poll(&mut meter, |r| device.answer(r));
    num(&points, Point::PowerW, -410.0);
    null(&points, Point::PowerL2W, NullReason::NotImplemented);

    spec.kind = DeviceKind::Battery;
    let mut battery = driver(&spec);
    discover(&mut battery, |r| device.answer(r));
    let points = poll(&mut battery, |r| device.answer(r));
    num(&points, Point::PowerW, -600.0);
    num(&points, Point::DcVoltageV, 50.0);
    num(&points, Point::DcCurrentA, -10.0);
    num(&points, Point::SocPct, 85.0);
    state(&points, "charging");
    device.put(843, &[0xFFFF, 7]);
    let points = poll(&mut battery, |r| device.answer(r));
    null(&points, Point::SocPct, NullReason::NotImplemented);
    state(&points, "unknown");
    device.put(843, &[101]);
    null(&poll(&mut battery, |r| device.answer(r)), Point::SocPct, NullReason::OutOfRange);
}

#[test]
fn a_profile_refuses_a_kind_it_is_not_for() {
    let catalogue = Catalogue::load(&[]).unwrap();
    let why = catalogue.get("eastron/sdm630").unwrap().driver(&spec("eastron/sdm630", DeviceKind::Battery));
    assert_eq!(why.err().unwrap(), "profile eastron/sdm630 is for meter, not for a battery");
}

fn register(address: u16, kind: Kind) -> Register {
    Register { space: Space::Holding, address, kind, little: false, na: Vec::new() }
}

#[track_caller]
fn check_blocks(registers: &[Register], max_read: u16, gap: u16, forbidden: &[(u16, u16)], want: &[(u16, u16)]) {
    let rules = BlockRules { max_read, gap, forbidden: forbidden.to_vec() };
    let blocks = coalesce(registers.iter(), &rules);
    assert_eq!(blocks.iter().map(|b: &Block| (b.address, b.count)).collect::<Vec<_>>(), want);
}

#[test]
fn reads_are_coalesced_within_the_rules() {
    let u16s = [register(0, Kind::U16), register(1, Kind::U16), register(5, Kind::U16)];
    check_blocks(&u16s, 125, 0, &[], &[(0, 2), (5, 1)]);
    check_blocks(&u16s, 125, 3, &[], &[(0, 6)]);
    check_blocks(&u16s, 125, 3, &[(3, 3)], &[(0, 2), (5, 1)]);
    check_blocks(&u16s, 5, 3, &[], &[(0, 2), (5, 1)]);
    // a 32-bit value is never split
    let mixed = [register(0, Kind::U16), register(1, Kind::U32), register(3, Kind::U32)];
    check_blocks(&mixed, 2, 0, &[], &[(0, 1), (1, 2), (3, 2)]);
    check_blocks(&mixed, 4, 0, &[], &[(0, 3), (3, 2)]);
    // one register twice, one value inside another
    check_blocks(&[register(9, Kind::U64), register(9, Kind::U64), register(10, Kind::U16)], 4, 0, &[], &[(9, 4)]);
    check_blocks(&[register(65_535, Kind::U16), register(65_534, Kind::U16)], 125, 124, &[], &[(65_534, 2)]);
}
