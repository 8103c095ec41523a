//! The world: surroundings and devices, in balance at the grid meter after every step. Pure: time is an argument.

use super::plant::{Battery, Charger, Meter, PvPlant};
use super::surroundings::{Surroundings, split_load};

/// What happens in the simulated home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scenario {
    /// A day that starts at 10:00: sun, clouds, kettle, oven; a car is there from 10:05 to 17:00.
    #[default]
    Day,
    /// Constant sun and load, a car charging with 6 A, the battery taking the rest: nothing changes unless controlled.
    Steady,
}

/// Rated power of the PV inverter, W.
pub const PV_RATED_W: f64 = 8000.0;
const DAY_S: f64 = 86_400.0;
const DAY_START_S: f64 = 10.0 * 3600.0;
const CAR_COMES_S: f64 = DAY_START_S + 300.0;
const CAR_LEAVES_S: f64 = 17.0 * 3600.0;
const CAR_ARRIVAL_SOC_PCT: f64 = 40.0;
/// 6 kW of 8: with 6 A at the charger and the load below, some 1 kW is left for the battery.
const STEADY_SUN: f64 = 0.75;
const STEADY_LOAD_W: f64 = 850.0;
/// Longest real time of one step of the electronics, s.
const STEP_S: f64 = 0.2;

/// The simulated home at one instant. Powers are whole watts per phase, so that the balance is exact.
#[derive(Debug, Clone)]
pub struct World {
    scenario: Scenario,
    speed: f64,
    real_s: f64,
    day_s: f64,
    surroundings: Surroundings,
    overrides: (Option<f64>, Option<f64>),
    load_w: [f64; 3],
    /// The PV plants; the first is `pv`.
    pub pv: Vec<PvPlant>,
    /// The battery.
    pub battery: Battery,
    /// The charger and its car.
    pub charger: Charger,
    /// The grid meter: + = import.
    pub grid: Meter,
    /// Sub-meters: each a part of the household load.
    pub sub: Vec<Meter>,
}

impl World {
    /// A home with its four devices, and some more PV inverters and sub-meters.
    #[must_use]
    pub fn new(seed: u64, speed: f64, scenario: Scenario, more_pv: usize, sub_meters: usize) -> Self {
        let steady = (scenario == Scenario::Steady).then_some((STEADY_SUN, STEADY_LOAD_W));
        let mut pv = vec![PvPlant::new(PV_RATED_W, 18_254_310.0)];
        // small ones, so that a meter with many of them stays within its registers
        let rated_w = (9000.0 / more_pv.max(1) as f64).clamp(100.0, 3000.0).round();
        pv.extend((0..more_pv).map(|i| PvPlant::new(rated_w, 1_000_000.0 + 1000.0 * i as f64)));
        let share = 0.6 / sub_meters.max(3) as f64;
        let sub = (0..sub_meters).map(|_| Meter { share, energy_wh: (350_000.0, 0.0), ..Meter::default() }).collect();
        let mut world = Self {
            scenario,
            speed: speed.max(0.0),
            real_s: 0.0,
            day_s: DAY_START_S,
            surroundings: Surroundings::new(seed, steady),
            overrides: (None, None),
            load_w: [0.0; 3],
            pv,
            battery: Battery::new(50.0),
            charger: Charger::new(),
            grid: Meter { energy_wh: (8_203_440.0, 11_870_120.0), ..Meter::default() },
            sub,
        };
        if scenario == Scenario::Steady {
            world.charger.amps = 6.0;
            world.charger.plug(Some(CAR_ARRIVAL_SOC_PCT));
            world.charger.settle();
        }
        world.advance(0.0, 0.0);
        let need = world.grid.total_w() + world.battery.power_w;
        world.battery.settle(need);
        world.advance(0.0, 0.0);
        world
    }

    /// Let `dt` seconds of real time pass: electronics take that, the simulated day `speed` times as much.
    pub fn step(&mut self, dt: f64) {
        // after a long gap in the clock coarser steps do
        let steps = (dt / STEP_S).ceil().clamp(1.0, 10_000.0);
        for _ in 0..steps as u32 {
            self.advance(dt / steps, dt / steps * self.speed);
        }
    }

    fn advance(&mut self, dt: f64, day_dt: f64) {
        let before = self.car_expected();
        self.real_s += dt;
        self.day_s += day_dt;
        if self.scenario == Scenario::Day && before != self.car_expected() {
            self.charger.plug(self.car_expected().then_some(CAR_ARRIVAL_SOC_PCT));
        }
        self.surroundings.step(day_dt, self.time_of_day_s());
        self.load_w = self.overrides.0.map_or(self.surroundings.load_w, |load| split_load(load, [0.0; 3]));
        let sun = self.overrides.1.unwrap_or(self.surroundings.sun);
        for pv in &mut self.pv {
            pv.step(self.real_s, dt, day_dt, sun);
        }
        self.charger.step(self.real_s, day_dt, &self.surroundings.voltage_v);
        let mut need = [0.0; 3];
        for (i, need) in need.iter_mut().enumerate() {
            *need = self.load_w[i] + self.charger.power_w[i];
            *need -= self.pv.iter().map(|pv| pv.phases_w()[i]).sum::<f64>();
        }
        self.battery.step(self.real_s, dt, day_dt, need.iter().sum());
        for (need, battery) in need.iter_mut().zip(self.battery.phases_w()) {
            *need -= battery;
        }
        self.grid.step(need, day_dt);
        for sub in &mut self.sub {
            let share = sub.share;
            sub.step(self.load_w.map(|w| (w * share).round()), day_dt);
        }
    }

    fn car_expected(&self) -> bool {
        (CAR_COMES_S..CAR_LEAVES_S).contains(&self.time_of_day_s())
    }

    /// Real time since the beginning, s: the scale of `limit_until_s` and `bounds_until_s`.
    #[must_use]
    pub const fn real_s(&self) -> f64 {
        self.real_s
    }

    /// Simulated local time of day, s since midnight.
    #[must_use]
    pub fn time_of_day_s(&self) -> f64 {
        self.day_s % DAY_S
    }

    /// Household load per phase, W.
    #[must_use]
    pub const fn load_phases_w(&self) -> [f64; 3] {
        self.load_w
    }

    /// Household load, W.
    #[must_use]
    pub fn load_w(&self) -> f64 {
        self.load_w.iter().sum()
    }

    /// Voltage per phase, V.
    #[must_use]
    pub const fn voltage_v(&self) -> [f64; 3] {
        self.surroundings.voltage_v
    }

    /// Grid frequency, Hz.
    #[must_use]
    pub const fn frequency_hz(&self) -> f64 {
        self.surroundings.frequency_hz
    }

    /// Hold the household load at this, W; `None`: let it be again.
    pub const fn set_load(&mut self, load_w: Option<f64>) {
        self.overrides.0 = load_w;
    }

    /// Hold the sun at this fraction of the PV plants' rating; `None`: let it be again.
    pub const fn set_sun(&mut self, fraction: Option<f64>) {
        self.overrides.1 = fraction;
    }

    /// Set the battery's state of charge, %.
    pub fn set_soc(&mut self, soc_pct: f64) {
        self.battery.stored_wh = self.battery.capacity_wh * soc_pct.clamp(0.0, 100.0) / 100.0;
    }

    /// Plug a car in, with this state of charge, or pull it out.
    pub fn plug_car(&mut self, car_soc_pct: Option<f64>) {
        self.charger.plug(car_soc_pct);
    }
}

#[cfg(test)]
mod tests {
    use super::super::plant::{Bounds, Force};
    use super::*;
    use proptest::prelude::*;

    fn steps(world: &mut World, seconds: f64) {
        for _ in 0..(seconds / STEP_S).round() as u32 {
            world.step(STEP_S);
        }
    }

    fn steady() -> World {
        World::new(1, 1.0, Scenario::Steady, 0, 0)
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6
    }

    fn check_balance(world: &World) {
        for i in 0..3 {
            let pv: f64 = world.pv.iter().map(|pv| pv.phases_w()[i]).sum();
            let sum = world.load_phases_w()[i] + world.charger.power_w[i] - pv - world.battery.phases_w()[i];
            assert!(near(world.grid.power_w[i], sum), "phase {i}");
        }
        let pv: f64 = world.pv.iter().map(|pv| pv.power_w).sum();
        let load = world.grid.total_w() + pv + world.battery.power_w - world.charger.total_w();
        assert!(near(load, world.load_w()));
        assert!(world.sub.iter().map(Meter::total_w).sum::<f64>() <= world.load_w());
    }

    proptest! {
        #[test]
        fn balance_and_saturation(
            seed: u64,
            speed in 0.0..500.0_f64,
            moves in prop::collection::vec((0.01..30.0_f64, 0..8_u8, -1.0..1.0_f64), 1..60),
        ) {
            let mut world = World::new(seed, speed, Scenario::Day, 2, 3);
            let mut energy = world.pv[0].energy_wh + world.grid.energy_wh.0 + world.grid.energy_wh.1;
            for (dt, what, x) in moves {
                match what {
                    0 => world.pv[0].limit = (x > 0.0).then_some(x),
                    1 => world.battery.bounds = Some(Bounds { lower_w: 5000.0 * x, upper_w: 5000.0 * x }),
                    2 => world.battery.bounds = None,
                    3 => world.set_load((x > 0.0).then_some(9000.0 * x)),
                    4 => world.plug_car((x > 0.0).then_some(100.0 * x)),
                    5 => world.set_soc(50.0 + 50.0 * x),
                    6 => world.charger.phase_mode = u8::from(x > 0.0),
                    _ => world.set_sun((x > 0.0).then_some(x)),
                }
                world.step(dt);
                check_balance(&world);
                prop_assert!((0.0..=100.0).contains(&world.battery.soc_pct()));
                prop_assert!(world.battery.power_w.abs() <= world.battery.rated_w);
                let now = world.pv[0].energy_wh + world.grid.energy_wh.0 + world.grid.energy_wh.1;
                prop_assert!(now >= energy);
                energy = now;
            }
        }
    }

    #[test]
    fn a_run_is_repeated_by_its_seed() {
        let run = |seed| {
            let mut world = World::new(seed, 60.0, Scenario::Day, 1, 1);
            let mut seen = Vec::new();
            for _ in 0..500 {
                world.step(STEP_S);
                seen.push((world.grid.total_w(), world.load_w(), world.battery.stored_wh));
            }
            seen
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }

    #[test]
    fn steady_stays() {
        let mut world = steady();
        let seen = |w: &World| (w.grid.power_w, w.load_w, w.pv[0].power_w, w.battery.power_w, w.charger.power_w);
        let start = seen(&world);
        assert!(near(world.pv[0].power_w, 6000.0) && near(world.grid.total_w(), 0.0), "{start:?}");
        assert!(world.charger.total_w() > 4000.0 && world.battery.power_w < -900.0, "{start:?}");
        for _ in 0..600 {
            world.step(STEP_S);
            assert_eq!(seen(&world), start);
        }
    }

    #[test]
    fn the_battery_answers_after_two_seconds() {
        let mut world = steady();
        let own = world.battery.power_w;
        world.battery.bounds = Some(Bounds { lower_w: 3000.0, upper_w: 3000.0 });
        steps(&mut world, 2.0);
        assert!(near(world.battery.power_w, own), "not yet");
        steps(&mut world, 1.2);
        assert!(near(world.battery.power_w, 3000.0), "{}", world.battery.power_w);
        assert!(world.grid.total_w() < -3000.0, "forced: it exports");
    }

    #[test]
    fn own_mode_follows_the_meter_to_zero() {
        let mut world = steady();
        world.set_load(Some(2000.0));
        steps(&mut world, 2.0);
        assert!(near(world.grid.total_w(), 1150.0), "{}", world.grid.total_w());
        steps(&mut world, 1.0);
        assert!(near(world.grid.total_w(), 0.0));
    }

    #[test]
    fn bounds_and_limit_end_by_themselves() {
        let mut world = steady();
        let own = world.battery.power_w;
        world.battery.bounds = Some(Bounds { lower_w: -2000.0, upper_w: -2000.0 });
        world.battery.bounds_until_s = Some(10.0);
        world.pv[0].limit = Some(0.25);
        world.pv[0].limit_until_s = Some(20.0);
        steps(&mut world, 9.8);
        assert!(near(world.battery.power_w, -2000.0) && near(world.pv[0].power_w, 2000.0));
        assert!(world.pv[0].is_throttled());
        steps(&mut world, 0.2);
        assert_eq!(world.battery.bounds, None);
        steps(&mut world, 20.0);
        assert!(world.pv[0].limit.is_none() && near(world.pv[0].power_w, 6000.0));
        assert!(near(world.battery.power_w, own), "its own mode again");
    }

    #[test]
    fn full_empty_reserve() {
        let mut world = World::new(1, 600.0, Scenario::Steady, 0, 0);
        world.plug_car(None);
        world.set_sun(Some(0.0));
        world.set_load(Some(3000.0));
        steps(&mut world, 60.0);
        assert!(near(world.battery.power_w, 0.0) && (world.battery.soc_pct() - 10.0).abs() < 0.05, "reserve");
        world.battery.bounds = Some(Bounds { lower_w: 5000.0, upper_w: 5000.0 });
        steps(&mut world, 60.0);
        assert!(near(world.battery.power_w, 0.0) && world.battery.soc_pct() < 0.05, "empty");
        world.battery.bounds = Some(Bounds { lower_w: -5000.0, upper_w: -5000.0 });
        steps(&mut world, 120.0);
        assert!(near(world.battery.power_w, 0.0) && world.battery.soc_pct() > 99.9, "full");
        assert!(world.grid.total_w() > 2999.0);
    }

    #[test]
    fn losses_are_the_efficiency() {
        let mut world = steady();
        world.battery.bounds = Some(Bounds { lower_w: -4000.0, upper_w: -4000.0 });
        let (stored, charged) = (world.battery.stored_wh, world.battery.energy_wh.0);
        steps(&mut world, 100.0);
        let gained = (world.battery.stored_wh - stored) / (world.battery.energy_wh.0 - charged);
        assert!((gained - 0.95).abs() < 1e-6, "{gained}");
    }

    #[test]
    fn no_charging_from_the_grid_where_it_is_not_allowed() {
        let mut world = steady();
        world.battery.grid_charging = false;
        world.battery.bounds = Some(Bounds { lower_w: -4000.0, upper_w: -4000.0 });
        steps(&mut world, 10.0);
        assert!(near(world.grid.total_w(), 0.0) && world.battery.power_w < -900.0, "the surplus alone");
    }

    #[test]
    fn the_car_answers_after_five_seconds() {
        let mut world = steady();
        let before = world.charger.total_w();
        world.charger.amps = 10.0;
        steps(&mut world, 5.0);
        assert!(near(world.charger.total_w(), before));
        steps(&mut world, 0.2);
        assert!((world.charger.total_w() - before * 10.0 / 6.0).abs() < 3.0);
        world.charger.phase_mode = 1;
        steps(&mut world, 6.0);
        assert!((world.charger.total_w() - 2304.0).abs() < 1.0);
        world.charger.force = Force::Off;
        steps(&mut world, 6.0);
        assert!(near(world.charger.total_w(), 0.0));
    }

    #[test]
    fn a_full_car_stops_and_a_pulled_plug_ends_at_once() {
        let mut world = steady();
        world.plug_car(Some(99.999));
        steps(&mut world, 6.0);
        assert!(near(world.charger.total_w(), 0.0) && world.charger.is_full());
        world.plug_car(Some(50.0));
        steps(&mut world, 6.0);
        assert!(world.charger.total_w() > 4000.0);
        world.plug_car(None);
        world.step(STEP_S);
        assert!(near(world.charger.total_w(), 0.0));
    }

    #[test]
    fn the_car_comes_and_goes() {
        let mut world = World::new(5, 60.0, Scenario::Day, 0, 0);
        assert!(near(world.time_of_day_s(), DAY_START_S) && !world.charger.plugged);
        steps(&mut world, 6.0);
        assert!(world.charger.plugged && world.charger.total_w() < 1.0, "10:06");
        steps(&mut world, 5.2);
        assert!(world.charger.total_w() > 10_000.0);
        steps(&mut world, 7.0 * 60.0);
        assert!(!world.charger.plugged, "after 17:00");
        steps(&mut world, 17.5 * 60.0);
        assert!(world.charger.plugged, "the next morning");
    }
}
