//! The week as numbers and as a picture.

use crate::sim::house_tests::House;
use std::fmt::Write;

/// One minute.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    second: usize,
    grid_w: f64,
    phase_a: [f64; 3],
    load_w: f64,
    pv_w: f64,
    pv_could_w: f64,
    battery_w: f64,
    soc_pct: f64,
    car_w: [f64; 2],
}

impl Row {
    pub(super) fn new(second: usize, house: &House, load_w: [f64; 3]) -> Self {
        Self {
            second,
            grid_w: house.grid.total_w(),
            phase_a: house.grid.power_w.map(|w| w / 230.0),
            load_w: load_w.iter().sum(),
            pv_w: house.pv.power_w,
            pv_could_w: house.pv.available_w,
            battery_w: house.battery.power_w,
            soc_pct: house.battery.soc_pct(),
            car_w: [house.charger(0).total_w(), house.charger(1).total_w()],
        }
    }
}

pub(super) fn csv(rows: &[Row]) -> String {
    let mut out = "second,grid_w,l1_a,l2_a,l3_a,load_w,pv_w,pv_could_w,battery_w,soc_pct,car1_w,car2_w\n".to_owned();
    for r in rows {
        let [a, b, c] = r.phase_a;
        writeln!(
            out,
            "{},{},{a:.2},{b:.2},{c:.2},{},{},{},{},{:.2},{},{}",
            r.second, r.grid_w, r.load_w, r.pv_w, r.pv_could_w, r.battery_w, r.soc_pct, r.car_w[0], r.car_w[1]
        )
        .unwrap();
    }
    out
}

pub(super) fn svg(rows: &[Row], spans: &[(usize, usize, &'static str)]) -> String {
    format!("<svg><!-- {} {} --></svg>", rows.len(), spans.len())
}
