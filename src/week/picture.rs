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

const WIDTH: f64 = 900.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 74.0;
/// Minutes of one step of a line.
const STEP: usize = 10;
const BLACK: &str = "#222";
const GREY: &str = "#b4b4b4";
const SUN: &str = "#e69f00";
const LOAD: &str = "#56b4e9";
const GREEN: &str = "#009e73";
const BLUE: &str = "#0072b2";
const RED: &str = "#c3272b";
const VIOLET: &str = "#a3468f";

/// What the coloured bands are: the word of the script, its colour, and for people.
const BANDS: [(&str, &str, &str); 6] = [
    ("event", "#e69f00", "flex event"),
    ("reboot", "#000", "power of the gateway fails"),
    ("outage", "#999", "no network"),
    ("import limit", "#0072b2", "operator: at most 6 kW import"),
    ("export limit", "#009e73", "operator: at most 1 kW export"),
    ("meter silent", "#c3272b", "grid meter silent"),
];

/// One set of axes.
struct Panel {
    top: f64,
    height: f64,
    low: f64,
    high: f64,
}

impl Panel {
    fn y(&self, value: f64) -> f64 {
        self.top + self.height * (self.high - value.clamp(self.low, self.high)) / (self.high - self.low)
    }

    /// Title, the names of the lines in their colours, and the axis.
    fn frame(&self, out: &mut String, title: &str, lines: &[(&str, &str)], ticks: &[f64]) {
        for tick in ticks {
            let (y, weight) = (self.y(*tick), if *tick == 0.0 { "#888" } else { "#e2e2e2" });
            write!(
                out,
                r##"<path d="M{LEFT} {y:.1}H{:.0}" stroke="{weight}"/><text x="{:.0}" y="{:.1}" text-anchor="end" font-size="11" fill="#555">{tick}</text>"##,
                WIDTH - RIGHT,
                LEFT - 5.0,
                y + 4.0
            )
            .unwrap();
        }
        let y = self.top - 7.0;
        write!(out, r#"<text x="{LEFT}" y="{y:.0}" font-weight="bold">{title}</text>"#).unwrap();
        let mut at = LEFT + 14.0 + 6.8 * title.chars().count() as f64;
        for (name, color) in lines {
            write!(
                out,
                r##"<path d="M{at:.0} {:.1}h16" stroke="{color}" stroke-width="2.5"/><text x="{:.0}" y="{y:.0}" fill="#333">{name}</text>"##,
                y - 4.0,
                at + 20.0
            )
            .unwrap();
            at += 36.0 + 5.8 * name.chars().count() as f64;
        }
    }

    /// `seconds`: between two values. Half pixels, each point from the one before: small.
    fn line(&self, out: &mut String, values: &[f64], seconds: usize, color: &str, width: f64) {
        let place = |i: usize, value: f64| ((x(i * seconds) * 2.0).round(), (self.y(value) * 2.0).round());
        let mut path = String::new();
        let mut last = (0.0, 0.0);
        for (i, value) in values.iter().enumerate() {
            let (left, y) = place(i, *value);
            if i == 0 {
                write!(path, "M{left} {y}l").unwrap();
            } else {
                let (dx, dy) = (left - last.0, y - last.1);
                write!(path, "{}{dx}{}{dy}", if i > 1 { " " } else { "" }, if dy < 0.0 { "" } else { " " }).unwrap();
            }
            last = (left, y);
        }
        write!(
            out,
            r#"<path transform="scale(.5)" d="{path}" fill="none" stroke="{color}" stroke-width="{}" stroke-linejoin="round"/>"#,
            2.0 * width
        )
        .unwrap();
    }

    fn limit(&self, out: &mut String, value: f64, what: &str) {
        let y = self.y(value);
        write!(
            out,
            r##"<path d="M{LEFT} {y:.1}H{:.0}" stroke="{RED}" stroke-width="1.3" stroke-dasharray="6 3"/><text x="{:.0}" y="{:.1}" fill="{RED}" text-anchor="end" font-size="11">{what}</text>"##,
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

fn bands(out: &mut String, spans: &[(usize, usize, &'static str)], bottom: f64) {
    let mut at = LEFT;
    for (word, color, name) in BANDS {
        write!(
            out,
            r##"<rect x="{at:.0}" y="38" width="10" height="10" fill="{color}" opacity=".55"/><text x="{:.0}" y="47" font-size="11" fill="#333">{name}</text>"##,
            at + 14.0
        )
        .unwrap();
        at += 34.0 + 5.3 * name.chars().count() as f64;
        for (from, to, _) in spans.iter().filter(|(.., what)| *what == word) {
            let (left, width) = (x(*from), (x(*to) - x(*from)).max(1.5));
            let opacity = if matches!(word, "outage") { ".22" } else { ".4" };
            write!(
                out,
                r#"<rect x="{left:.1}" y="{TOP}" width="{width:.1}" height="{:.0}" fill="{color}" opacity="{opacity}"/>"#,
                bottom - TOP
            )
            .unwrap();
        }
    }
}

/// `prices`: of each hour, EUR per kWh.
pub(super) fn svg(rows: &[Row], spans: &[(usize, usize, &'static str)], prices: &[f64]) -> String {
    let of = |value: fn(&Row) -> f64, fold: fn(&[f64]) -> f64| -> Vec<f64> {
        rows.chunks(STEP).map(|c| fold(&c.iter().map(value).collect::<Vec<_>>())).collect()
    };
    let mean: fn(&[f64]) -> f64 = |v| v.iter().sum::<f64>() / v.len().max(1) as f64;
    let most: fn(&[f64]) -> f64 = |v| v.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut top = TOP + 22.0;
    let [amps, power, price, cars, battery, soc] = [
        (110.0, 0.0, 45.0),
        (140.0, -8.0, 18.0),
        (60.0, 0.0, 50.0),
        (80.0, 0.0, 12.0),
        (80.0, -6.0, 6.0),
        (70.0, 0.0, 100.0),
    ]
    .map(|(height, low, high)| {
        let panel = Panel { top, height, low, high };
        top += height + 30.0;
        panel
    });
    let (bottom, high) = (top - 24.0, top + 4.0);
    let mut out = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {high}" font-family="Helvetica,Arial,sans-serif" font-size="12"><title>A simulated week of a home that derd controls</title><rect width="{WIDTH}" height="{high}" fill="#fff"/><text x="{LEFT}" y="22" font-size="16" font-weight="bold">A week of a home that derd controls, simulated</text>"##
    );
    bands(&mut out, spans, bottom);
    for (day, name) in ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].iter().enumerate() {
        let (left, middle) = (x(day * 86_400), x(day * 86_400 + 43_200));
        write!(
            out,
            r##"<path d="M{left:.1} {TOP}V{bottom:.0}" stroke="#ccc"/><text x="{middle:.0}" y="{:.0}" text-anchor="middle" font-weight="bold">{name}</text><text x="{middle:.0}" y="{}" text-anchor="middle" font-weight="bold">{name}</text>"##,
            bottom + 16.0,
            TOP - 6.0
        )
        .unwrap();
    }
    let step = STEP * 60;
    let legend = [("within 10 min, even for a moment", GREY), ("lasting for 10 s", BLACK)];
    amps.frame(&mut out, "Highest phase current, A", &legend, &[0.0, 10.0, 20.0, 30.0, 40.0]);
    amps.line(&mut out, &of(|r| r.highest_a, most), step, GREY, 1.0);
    amps.line(&mut out, &of(|r| r.lasting_a, most), step, BLACK, 1.2);
    amps.limit(&mut out, FUSE_A, "fuse 25 A");
    let legend = [("grid (+ import)", BLACK), ("household", LOAD), ("sun used", SUN), ("sun there", GREY)];
    power.frame(&mut out, "Power, kW", &legend, &[-5.0, 0.0, 5.0, 10.0, 15.0]);
    power.line(&mut out, &of(|r| r.pv_could_w / 1000.0, mean), step, GREY, 1.0);
    power.line(&mut out, &of(|r| r.pv_w / 1000.0, mean), step, SUN, 1.2);
    power.line(&mut out, &of(|r| r.load_w / 1000.0, mean), step, LOAD, 1.0);
    power.line(&mut out, &of(|r| r.grid_w / 1000.0, mean), step, BLACK, 1.2);
    power.limit(&mut out, -EXPORT_W / 1000.0, "export limit 6 kW");
    price.frame(&mut out, "Price, ct per kWh", &[], &[0.0, 20.0, 40.0]);
    let quarters: Vec<f64> = prices.iter().take(168).flat_map(|p| [100.0 * p; 4]).collect();
    price.line(&mut out, &quarters, 900, BLUE, 1.2);
    let legend = [("car 1, three phases, by price", GREEN), ("car 2, one or three, by price and sun", VIOLET)];
    cars.frame(&mut out, "Cars, kW", &legend, &[0.0, 5.0, 10.0]);
    cars.line(&mut out, &of(|r| r.car_w[0] / 1000.0, mean), step, GREEN, 1.2);
    cars.line(&mut out, &of(|r| r.car_w[1] / 1000.0, mean), step, VIOLET, 1.2);
    battery.frame(&mut out, "Battery, kW (+ discharging)", &[], &[-5.0, 0.0, 5.0]);
    battery.line(&mut out, &of(|r| r.battery_w / 1000.0, mean), step, BLUE, 1.2);
    soc.frame(&mut out, "State of charge of the battery, %", &[], &[0.0, 50.0, 100.0]);
    soc.line(&mut out, &of(|r| r.soc_pct, mean), step, GREEN, 1.4);
    soc.limit(&mut out, 10.0, "lower bound 10 %");
    out.push_str("</svg>\n");
    out
}
