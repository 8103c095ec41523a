//! A simulated AC-coupled battery with SunSpec models 1, 103, 120, 124, 802.

use super::inverter::{Ac, ac_scales, identity, measure_ac, nameplate};
use super::plant::{Battery, Bounds};
use super::registers::Image;
use super::tables::{BATTERY, COMMON, INVERTER, NAMEPLATE, STORAGE};
use super::truth::Points;
use crate::model::Point;

/// Bit of `StorCtl_Mod`: the charge limit holds.
const CHARGE: u16 = 1;
/// Bit of `StorCtl_Mod`: the discharge limit holds.
const DISCHARGE: u16 = 2;

/// The battery's registers before the first measurement; without `revert_timer` its timer is not implemented.
pub(super) fn image(battery: &Battery, revert_timer: bool) -> Image {
    let mut image = Image::new(&[&COMMON, &INVERTER, &NAMEPLATE, &STORAGE, &BATTERY]);
    identity(&mut image, "Demo battery", "DEMO-BATTERY-1");
    ac_scales(&mut image);
    let rated = battery.rated_w.round() as i64;
    nameplate(&mut image, rated);
    image.scales(120, &[("WHRtg_SF", 0), ("MaxChaRte_SF", 0), ("MaxDisChaRte_SF", 0)]);
    image.raw(120, "DERTyp", 82);
    image.num(120, "WHRtg", battery.capacity_wh, 0);
    image.raw(120, "MaxChaRte", rated);
    image.raw(120, "MaxDisChaRte", rated);

    image.scales(
        124,
        &[
            ("WChaMax_SF", 0),
            ("WChaDisChaGra_SF", 0),
            ("MinRsvPct_SF", -2),
            ("ChaState_SF", -2),
            ("InBatV_SF", -1),
            ("InOutWRte_SF", -2),
        ],
    );
    image.raw(124, "WChaMax", rated);
    image.raw(124, "WChaGra", 100);
    image.raw(124, "WDisChaGra", 100);
    image.raw(124, "StorCtl_Mod", 0);
    image.num(124, "MinRsvPct", battery.reserve_pct, 2);
    image.raw(124, "OutWRte", 10_000);
    image.raw(124, "InWRte", 10_000);
    image.raw(124, "ChaGriSet", 1);
    if revert_timer {
        image.raw(124, "InOutWRte_RvrtTms", 0);
    }

    image.scales(
        802,
        &[
            ("AHRtg_SF", 0),
            ("WHRtg_SF", 0),
            ("WChaDisChaMax_SF", 0),
            ("SoC_SF", -2),
            ("SoH_SF", -2),
            ("V_SF", -1),
            ("CellV_SF", -3),
            ("A_SF", -1),
            ("AMax_SF", -1),
            ("W_SF", 0),
        ],
    );
    image.raw(802, "AHRtg", 25);
    image.num(802, "WHRtg", battery.capacity_wh, 0);
    image.raw(802, "WChaRteMax", rated);
    image.raw(802, "WDisChaRteMax", rated);
    image.num(802, "SoCMax", 100.0, 2);
    image.num(802, "SoCMin", 0.0, 2);
    image.num(802, "SocRsvMax", 100.0, 2);
    image.num(802, "SoCRsvMin", battery.reserve_pct, 2);
    image.num(802, "SoH", 98.0, 2);
    for (name, value) in [("NCyc", 183), ("LocRemCtl", 0), ("AlmRst", 0), ("Typ", 4), ("State", 3)] {
        image.raw(802, name, value);
    }
    for events in ["Evt1", "Evt2", "EvtVnd1", "EvtVnd2"] {
        image.raw(802, events, 0);
    }
    image.raw(802, "CtrlHb", 0);
    image.raw(802, "SetOp", 1);
    image.raw(802, "SetInvState", 3);
    image
}

/// Write a tick's measurements, and what the battery's own timer has dropped.
pub(super) fn measure(image: &mut Image, battery: &Battery, volts: [f64; 3], hertz: f64, real_s: f64) -> Points {
    let mut points = Points::default();
    let soc = battery.soc_pct();
    let dc_volts = 380.0 + 0.4 * soc;
    let ac = Ac {
        watts: battery.power_w,
        phases: battery.phases_w(),
        volts,
        hertz,
        energy_wh: battery.energy_wh.1,
        dc_watts: battery.dc_power_w(),
        dc_volts,
        temperature_c: 25.0 + 8.0 * battery.power_w.abs() / battery.rated_w,
        state: if battery.power_w.abs() > 0.0 { 4 } else { 8 },
    };
    measure_ac(image, &ac, &mut points);
    points.num(&Point::EnergyDischargedWh, battery.energy_wh.1.floor());
    points.num(&Point::SocPct, image.num(124, "ChaState", soc, 2));
    // 3 discharging, 4 charging, 2 empty, 5 full, 6 holding
    let (state, word) = match battery.power_w {
        w if w > 0.0 => (3, "discharging"),
        w if w < 0.0 => (4, "charging"),
        _ if soc <= 0.005 => (2, "idle"),
        _ if soc >= 99.995 => (5, "idle"),
        _ => (6, "idle"),
    };
    points.text(&Point::State, word);
    points.num(&Point::SohPct, 98.0);
    points.num(&Point::CapacityWh, battery.capacity_wh);
    points.num(&Point::ReserveSocPct, f64::from(image.word(124, "MinRsvPct")) / 100.0);
    image.raw(124, "ChaSt", state);
    image.num(124, "InBatV", dc_volts, 1);
    if battery.bounds.is_none() {
        image.raw(124, "StorCtl_Mod", 0);
    }
    image.num(802, "SoC", soc, 2);
    image.raw(802, "ChaSt", state);
    image.raw(802, "Hb", real_s as i64 % 60_000);
    image.num(802, "V", dc_volts, 1);
    image.num(802, "W", ac.dc_watts, 0);
    image.num(802, "A", ac.dc_watts / dc_volts, 1);
    points
}

/// Are the control registers such as the device accepts.
pub(super) fn check(image: &Image) -> bool {
    let full = -10_000..=10_000;
    image.word(124, "StorCtl_Mod") <= CHARGE | DISCHARGE
        && full.contains(&image.signed(124, "OutWRte"))
        && full.contains(&image.signed(124, "InWRte"))
        && image.word(124, "MinRsvPct") <= 10_000
        && image.word(802, "SoCRsvMin") <= 10_000
        && image.word(124, "ChaGriSet") <= 1
        && (1..=image.word(120, "MaxChaRte")).contains(&image.word(124, "WChaMax"))
}

/// A write has arrived: limits hold at once, and each write to the rates or the mode restarts the timer.
pub(super) fn written(image: &mut Image, battery: &mut Battery, at: u16, count: usize, now_s: f64) {
    if image.touches(802, "SoCRsvMin", "SoCRsvMin", at, count) {
        image.raw(124, "MinRsvPct", i64::from(image.word(802, "SoCRsvMin")));
    } else {
        image.raw(802, "SoCRsvMin", i64::from(image.word(124, "MinRsvPct")));
    }
    battery.reserve_pct = f64::from(image.word(124, "MinRsvPct")) / 100.0;
    battery.grid_charging = image.word(124, "ChaGriSet") == 1;
    let base = f64::from(image.word(124, "WChaMax"));
    let rate = |name| (base * f64::from(image.signed(124, name)) / 10_000.0).round();
    let mode = image.word(124, "StorCtl_Mod");
    battery.bounds = (mode != 0).then(|| Bounds {
        lower_w: if mode & CHARGE != 0 { -rate("InWRte") } else { -battery.rated_w },
        upper_w: if mode & DISCHARGE != 0 { rate("OutWRte") } else { battery.rated_w },
    });
    let refreshed = image.touches(124, "StorCtl_Mod", "StorCtl_Mod", at, count)
        || image.touches(124, "OutWRte", "InOutWRte_RmpTms", at, count);
    if refreshed {
        let seconds = image.word(124, "InOutWRte_RvrtTms");
        let runs = mode != 0 && seconds > 0 && seconds != 0xFFFF;
        battery.bounds_until_s = runs.then(|| now_s + f64::from(seconds));
    }
}
