//! The week as numbers and as a picture.

use super::surroundings::WEEK;
use super::{EXPORT_W, FUSE_A};
use crate::sim::house_tests::House;
use std::fmt::Write;

/// One minute: its end, but for the highest phase current, which is of all its half-seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    second: usize,
    grid_w: f64,
    highest_a: f64,
    /// Of those that lasted for 10 s.
    lasting_a: f64,
    load_w: f64,
    pv_w: f64,
    pv_could_w: f64,
    battery_w: f64,
    soc_pct: f64,
    car_w: [f64; 2],
}

impl Row {
    pub(super) fn new(second: usize, house: &House, load_w: [f64; 3], [highest_a, lasting_a]: [f64; 2]) -> Self {
        Self {
            second,
            grid_w: house.grid.total_w(),
            highest_a,
            lasting_a,
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
    let mut out =
        "second,grid_w,highest_phase_a,lasting_phase_a,load_w,pv_w,pv_could_w,battery_w,soc_pct,car1_w,car2_w\n"
            .to_owned();
    for r in rows {
        writeln!(
            out,
            "{},{},{:.2},{:.2},{},{},{},{},{:.2},{},{}",
            r.second,
            r.grid_w,
            r.highest_a,
            r.lasting_a,
            r.load_w,
            r.pv_w,
            r.pv_could_w,
            r.battery_w,
            r.soc_pct,
            r.car_w[0],
            r.car_w[1]
        )
        .unwrap();
    }
    out
}

const WIDTH: f64 = 1120.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 10.0;
/// Minutes of one step of a line.
const STEP: usize = 10;

/// One set of axes.
struct Panel {
    top: f64,
    height: f64,
    low: f64,
    high: f64,
}

impl Panel {
    fn y(&self, value: f64) -> f64 {
        self.top + self.height * (self.high - value) / (self.high - self.low)
    }

    fn frame(&self, out: &mut String, title: &str, ticks: &[f64]) {
        for tick in ticks {
            let y = self.y(*tick);
            write!(
                out,
                r##"<path d="M{LEFT} {y:.0}H{:.0}" stroke="#ddd"/><text x="{:.0}" y="{:.0}" text-anchor="end">{tick}</text>"##,
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0
            )
            .unwrap();
        }
        write!(out, r#"<text x="{LEFT}" y="{:.0}" font-weight="bold">{title}</text>"#, self.top - 6.0).unwrap();
    }

    fn line(&self, out: &mut String, values: &[f64], color: &str, width: f64) {
        let mut path = String::new();
        for (i, value) in values.iter().enumerate() {
            let letter = if i == 0 { "M" } else { "L" };
            write!(path, "{letter}{:.0} {:.0}", x(i * STEP * 60), self.y(*value)).unwrap();
        }
        write!(out, r#"<path d="{path}" fill="none" stroke="{color}" stroke-width="{width}"/>"#).unwrap();
    }

    fn limit(&self, out: &mut String, value: f64, what: &str) {
        let y = self.y(value);
        write!(
            out,
            r##"<path d="M{LEFT} {y:.0}H{:.0}" stroke="#c00" stroke-dasharray="6 3"/><text x="{:.0}" y="{:.0}" fill="#c00" text-anchor="end">{what}</text>"##,
            WIDTH - RIGHT,
            WIDTH - RIGHT - 4.0,
            y - 4.0
        )
        .unwrap();
    }
}

fn x(second: usize) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * second as f64 / WEEK as f64
}

pub(super) fn svg(rows: &[Row], spans: &[(usize, usize, &'static str)]) -> String {
    let of = |value: fn(&Row) -> f64, fold: fn(&[f64]) -> f64| -> Vec<f64> {
        rows.chunks(STEP).map(|c| fold(&c.iter().map(value).collect::<Vec<_>>())).collect()
    };
    let mean: fn(&[f64]) -> f64 = |v| v.iter().sum::<f64>() / v.len().max(1) as f64;
    let most: fn(&[f64]) -> f64 = |v| v.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let panels = [
        Panel { top: 60.0, height: 110.0, low: 0.0, high: 40.0 },
        Panel { top: 200.0, height: 150.0, low: -8.0, high: 16.0 },
        Panel { top: 380.0, height: 90.0, low: 0.0, high: 12.0 },
        Panel { top: 500.0, height: 120.0, low: -6.0, high: 6.0 },
        Panel { top: 650.0, height: 80.0, low: 0.0, high: 100.0 },
    ];
    let bottom = 745.0;
    let mut out = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} 790" font-family="sans-serif" font-size="12"><rect width="{WIDTH}" height="790" fill="#fff"/>"##
    );
    for (from, to, what) in spans {
        let (left, width) = (x(*from), (x(*to) - x(*from)).max(2.0));
        let color = match *what {
            "outage" => "#999",
            "event" => "#f5a623",
            "reboot" => "#000",
            "meter silent" => "#d0021b",
            _ => "#4a90e2",
        };
        write!(
            out,
            r#"<rect x="{left:.0}" y="40" width="{width:.0}" height="{:.0}" fill="{color}" opacity="0.22"/><text x="{left:.0}" y="{}" font-size="10" fill="{color}">{what}</text>"#,
            bottom - 40.0,
            match *what {
                "reboot" => 36,
                "outage" | "event" => 12,
                _ => 24,
            }
        )
        .unwrap();
    }
    let [amps, power, cars, battery, soc] = &panels;
    amps.frame(
        &mut out,
        "highest phase current at the fuse, A (grey: for a moment, black: for 10 s)",
        &[0.0, 10.0, 20.0, 30.0, 40.0],
    );
    amps.limit(&mut out, FUSE_A, "fuse 25 A");
    amps.line(&mut out, &of(|r| r.highest_a, most), "#bbb", 1.0);
    amps.line(&mut out, &of(|r| r.lasting_a, most), "#000", 1.2);
    power.frame(
        &mut out,
        "grid (black, + = import), sun (orange; grey: what it could give), load (blue), kW",
        &[-5.0, 0.0, 5.0, 10.0, 15.0],
    );
    power.limit(&mut out, -EXPORT_W / 1000.0, "export limit 6 kW");
    power.line(&mut out, &of(|r| r.pv_could_w / 1000.0, mean), "#ccc", 1.0);
    power.line(&mut out, &of(|r| r.pv_w / 1000.0, mean), "#f5a623", 1.0);
    power.line(&mut out, &of(|r| r.load_w / 1000.0, mean), "#4a90e2", 1.0);
    power.line(&mut out, &of(|r| r.grid_w / 1000.0, mean), "#000", 1.2);
    cars.frame(&mut out, "cars, kW: three phases (green), one phase (violet)", &[0.0, 5.0, 10.0]);
    cars.line(&mut out, &of(|r| r.car_w[0] / 1000.0, mean), "#2e8b57", 1.0);
    cars.line(&mut out, &of(|r| r.car_w[1] / 1000.0, mean), "#8a2be2", 1.0);
    battery.frame(&mut out, "battery, kW (+ = discharging)", &[-5.0, 0.0, 5.0]);
    battery.line(&mut out, &of(|r| r.battery_w / 1000.0, mean), "#d0551b", 1.0);
    soc.frame(&mut out, "state of charge, %", &[0.0, 50.0, 100.0]);
    soc.limit(&mut out, 10.0, "min_soc 10 %");
    soc.line(&mut out, &of(|r| r.soc_pct, mean), "#2e8b57", 1.2);
    for (day, name) in ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].iter().enumerate() {
        let (left, middle) = (x(day * 86_400), x(day * 86_400 + 43_200));
        write!(
            out,
            r##"<path d="M{left:.0} 40V{bottom}" stroke="#bbb"/><text x="{middle:.0}" y="765" text-anchor="middle">{name}</text>"##
        )
        .unwrap();
    }
    out.push_str("</svg>\n");
    out
}
