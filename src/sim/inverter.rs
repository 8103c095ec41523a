//! A simulated SunSpec PV inverter: models 1, 103, 120, 121, 122, 123.

use super::plant::PvPlant;
use super::registers::Image;
use super::tables::{COMMON, CONTROLS, INVERTER, NAMEPLATE, SETTINGS, STATUS};
use super::truth::Points;
use crate::model::Point;

/// The inverter's registers before the first measurement.
pub(super) fn image(serial: &str, rated_w: f64) -> Image {
    let mut image = Image::new(&[&COMMON, &INVERTER, &NAMEPLATE, &SETTINGS, &STATUS, &CONTROLS]);
    identity(&mut image, "Demo inverter", serial);
    ac_scales(&mut image);
    let rated = rated_w.round() as i64;
    image.raw(120, "DERTyp", 4); // PV
    nameplate(&mut image, rated);
    settings(&mut image, rated);
    image.raw(122, "PVConn", 0b111);
    image.raw(122, "StorConn", 0);
    image.raw(122, "ECPConn", 1);
    image.raw(122, "StActCtl", 0);
    image.raw(122, "WAval_SF", 0);
    image.raw(123, "Conn", 1);
    image.scales(123, &[("WMaxLimPct_SF", -2), ("OutPFSet_SF", -3)]);
    image.raw(123, "WMaxLimPct", 10_000);
    image.raw(123, "WMaxLimPct_WinTms", 0);
    image.raw(123, "WMaxLimPct_RvrtTms", 0);
    image.raw(123, "WMaxLimPct_RmpTms", 0);
    image.raw(123, "WMaxLim_Ena", 0);
    image.raw(123, "OutPFSet", 1000);
    image.raw(123, "OutPFSet_Ena", 0);
    image.raw(123, "VArPct_Ena", 0);
    image
}

/// Model 1.
pub(super) fn identity(image: &mut Image, model: &str, serial: &str) {
    image.text(1, "Mn", "derd");
    image.text(1, "Md", model);
    image.text(1, "Vr", "1.0.0");
    image.text(1, "SN", serial);
    image.raw(1, "DA", 1);
}

/// The scale factors of model 103 and what it never measures.
pub(super) fn ac_scales(image: &mut Image) {
    image.scales(
        103,
        &[
            ("A_SF", -2),
            ("V_SF", -1),
            ("W_SF", 0),
            ("Hz_SF", -2),
            ("VA_SF", 0),
            ("VAr_SF", 0),
            ("PF_SF", -1),
            ("WH_SF", 0),
            ("DCA_SF", -2),
            ("DCV_SF", -1),
            ("DCW_SF", 0),
            ("Tmp_SF", -1),
        ],
    );
    for events in ["Evt1", "Evt2"] {
        image.raw(103, events, 0);
    }
}

/// Model 120 with its mandatory points.
pub(super) fn nameplate(image: &mut Image, rated: i64) {
    image.raw(120, "WRtg", rated);
    image.raw(120, "VARtg", rated);
    for q in ["VArRtgQ1", "VArRtgQ2", "VArRtgQ3", "VArRtgQ4"] {
        image.raw(120, q, 0);
    }
    image.num(120, "ARtg", rated as f64 / 230.0 / 3.0, 1);
    for q in ["PFRtgQ1", "PFRtgQ2", "PFRtgQ3", "PFRtgQ4"] {
        image.raw(120, q, 1000);
    }
    image.scales(120, &[("WRtg_SF", 0), ("VARtg_SF", 0), ("VArRtg_SF", 0), ("ARtg_SF", -1), ("PFRtg_SF", -3)]);
}

/// Model 121 with its mandatory points.
fn settings(image: &mut Image, rated: i64) {
    image.raw(121, "WMax", rated);
    image.raw(121, "VRef", 230);
    image.raw(121, "VRefOfs", 0);
    image.scales(121, &[("WMax_SF", 0), ("VRef_SF", 0), ("VRefOfs_SF", 0)]);
}

/// What a three-phase AC side measures; `watts` + = out of the device.
pub(super) struct Ac {
    pub(super) watts: f64,
    pub(super) phases: [f64; 3],
    pub(super) volts: [f64; 3],
    pub(super) hertz: f64,
    pub(super) energy_wh: f64,
    pub(super) dc_watts: f64,
    pub(super) dc_volts: f64,
    pub(super) temperature_c: f64,
    /// 103 St: 1 off, 2 sleeping, 4 MPPT, 5 throttled, 8 standby.
    pub(super) state: i64,
}

const PHASE_POWER: [Point; 3] = [Point::PowerL1W, Point::PowerL2W, Point::PowerL3W];
const PHASE_VOLTS: [Point; 3] = [Point::VoltageL1V, Point::VoltageL2V, Point::VoltageL3V];
const PHASE_AMPS: [Point; 3] = [Point::CurrentL1A, Point::CurrentL2A, Point::CurrentL3A];

/// Put per-phase values into the truth.
pub(super) fn phases(points: &mut Points, watts: [f64; 3], volts: [f64; 3], amps: [f64; 3]) {
    for i in 0..3 {
        points.num(&PHASE_POWER[i], watts[i]);
        points.num(&PHASE_VOLTS[i], volts[i]);
        points.num(&PHASE_AMPS[i], amps[i]);
    }
}

/// Write the measurements of model 103. Its currents are magnitudes; its power has a sign.
pub(super) fn measure_ac(image: &mut Image, ac: &Ac, points: &mut Points) {
    let (mut volts, mut amps) = ([0.0; 3], [0.0; 3]);
    for (i, letter) in [["AphA", "PhVphA"], ["AphB", "PhVphB"], ["AphC", "PhVphC"]].into_iter().enumerate() {
        volts[i] = image.num(103, letter[1], ac.volts[i], 1);
        amps[i] = image.num(103, letter[0], ac.phases[i].abs() / ac.volts[i].max(1.0), 2);
    }
    image.num(103, "A", amps.iter().sum(), 2);
    for (i, between) in ["PPVphAB", "PPVphBC", "PPVphCA"].into_iter().enumerate() {
        image.num(103, between, line_volts(&ac.volts, i), 1);
    }
    points.num(&Point::PowerW, image.num(103, "W", ac.watts, 0));
    phases(points, ac.phases, volts, amps);
    points.num(&Point::FrequencyHz, image.num(103, "Hz", ac.hertz, 2));
    points.num(&Point::ApparentPowerVa, image.num(103, "VA", ac.watts.abs(), 0));
    points.num(&Point::ReactivePowerVar, image.num(103, "VAr", 0.0, 0));
    image.num(103, "PF", 100.0, 1);
    image.raw(103, "WH", ac.energy_wh as i64);
    points.num(&Point::DcPowerW, image.num(103, "DCW", ac.dc_watts, 0));
    points.num(&Point::DcVoltageV, image.num(103, "DCV", ac.dc_volts, 1));
    points.num(&Point::DcCurrentA, image.num(103, "DCA", (ac.dc_watts / ac.dc_volts).abs(), 2));
    points.num(&Point::TemperatureC, image.num(103, "TmpCab", ac.temperature_c, 1));
    image.raw(103, "St", ac.state);
}

/// Voltage between phase `i` and the next, at 120 degrees.
pub(super) fn line_volts(volts: &[f64; 3], i: usize) -> f64 {
    let (a, b) = (volts[i], volts[(i + 1) % 3]);
    (a * a + b * b + a * b).sqrt()
}

/// Write a tick's measurements, and what the plant's own timer has dropped.
pub(super) fn measure(image: &mut Image, plant: &PvPlant, volts: [f64; 3], hertz: f64) -> Points {
    let mut points = Points::default();
    let (state, word) = if !plant.connected {
        (1, "off")
    } else if plant.available_w <= 0.0 {
        (2, "asleep")
    } else if plant.is_throttled() {
        (5, "throttled")
    } else {
        (4, "running")
    };
    let ac = Ac {
        watts: plant.power_w,
        phases: plant.phases_w(),
        volts,
        hertz,
        energy_wh: plant.energy_wh,
        dc_watts: plant.power_w / 0.97,
        dc_volts: if plant.available_w > 0.0 { 620.0 } else { 20.0 },
        temperature_c: 24.0 + 22.0 * plant.power_w / plant.rated_w,
        state,
    };
    measure_ac(image, &ac, &mut points);
    points.num(&Point::EnergyProducedWh, plant.energy_wh.floor());
    points.text(&Point::State, word);
    image.raw(122, "ActWh", plant.energy_wh as i64);
    image.num(122, "WAval", plant.available_w, 0);
    image.raw(123, "WMaxLim_Ena", i64::from(plant.limit.is_some()));
    points
}

/// Are the control registers such as the device accepts.
pub(super) fn check(image: &Image) -> bool {
    image.word(123, "WMaxLimPct") <= 10_000 && image.word(123, "WMaxLim_Ena") <= 1 && image.word(123, "Conn") <= 1
}

/// A write has arrived: a limit takes effect when it is enabled (again), and each write restarts the timer.
pub(super) fn written(image: &Image, plant: &mut PvPlant, at: u16, count: usize, now_s: f64) {
    plant.connected = image.word(123, "Conn") != 0;
    if image.touches(123, "WMaxLim_Ena", "WMaxLim_Ena", at, count) {
        let base = f64::from(image.word(121, "WMax")) / plant.rated_w;
        let fraction = f64::from(image.word(123, "WMaxLimPct")) / 10_000.0;
        plant.limit = (image.word(123, "WMaxLim_Ena") == 1).then_some((base * fraction).min(1.0));
    }
    if image.touches(123, "WMaxLimPct", "WMaxLim_Ena", at, count) {
        let seconds = image.word(123, "WMaxLimPct_RvrtTms");
        plant.limit_until_s = (plant.limit.is_some() && seconds > 0).then(|| now_s + f64::from(seconds));
    }
}
