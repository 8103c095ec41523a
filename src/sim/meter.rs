//! A simulated three-phase SunSpec meter: models 1 and 203; power and current + = import.

use super::inverter::{identity, line_volts, phases};
use super::plant::Meter;
use super::registers::Image;
use super::tables::{COMMON, METER};
use super::truth::Points;
use crate::model::Point;

/// The meter's registers before the first measurement.
pub(super) fn image(model: &str, serial: &str) -> Image {
    let mut image = Image::new(&[&COMMON, &METER]);
    identity(&mut image, model, serial);
    image.scales(
        203,
        &[("A_SF", -2), ("V_SF", -1), ("Hz_SF", -2), ("W_SF", 0), ("VA_SF", 0), ("VAR_SF", 0), ("TotWh_SF", 0)],
    );
    image.raw(203, "Evt", 0);
    image
}

/// Write a tick's measurements.
pub(super) fn measure(image: &mut Image, meter: &Meter, volts: [f64; 3], hertz: f64) -> Points {
    let mut points = Points::default();
    let (mut watts, mut read_volts, mut amps) = ([0.0; 3], [0.0; 3], [0.0; 3]);
    let names = [
        ["WphA", "PhVphA", "AphA", "VAphA", "VARphA"],
        ["WphB", "PhVphB", "AphB", "VAphB", "VARphB"],
        ["WphC", "PhVphC", "AphC", "VAphC", "VARphC"],
    ];
    for (i, [w, v, a, va, var]) in names.into_iter().enumerate() {
        watts[i] = image.num(203, w, meter.power_w[i], 0);
        read_volts[i] = image.num(203, v, volts[i], 1);
        amps[i] = image.num(203, a, meter.power_w[i] / volts[i].max(1.0), 2);
        image.num(203, va, meter.power_w[i].abs(), 0);
        image.raw(203, var, 0);
    }
    for (i, between) in ["PhVphAB", "PhVphBC", "PhVphCA"].into_iter().enumerate() {
        image.num(203, between, line_volts(&volts, i), 1);
    }
    image.num(203, "A", amps.iter().sum(), 2);
    image.num(203, "PhV", volts.iter().sum::<f64>() / 3.0, 1);
    image.num(203, "PPV", (0..3).map(|i| line_volts(&volts, i)).sum::<f64>() / 3.0, 1);
    points.num(&Point::PowerW, image.num(203, "W", meter.total_w(), 0));
    phases(&mut points, watts, read_volts, amps);
    points.num(&Point::FrequencyHz, image.num(203, "Hz", hertz, 2));
    points.num(&Point::ApparentPowerVa, image.num(203, "VA", meter.total_w().abs(), 0));
    points.num(&Point::ReactivePowerVar, image.num(203, "VAR", 0.0, 0));
    image.raw(203, "TotWhImp", meter.energy_wh.0 as i64);
    image.raw(203, "TotWhExp", meter.energy_wh.1 as i64);
    points.num(&Point::EnergyImportWh, meter.energy_wh.0.floor());
    points.num(&Point::EnergyExportWh, meter.energy_wh.1.floor());
    points
}
