//! All that the servers and the tick share, under one lock: what is served changes as one.

use super::physics::World;
use super::registers::{Image, Refusal};
use super::truth::{Truth, TruthFile};
use super::{battery, charger, inverter, meter};
use crate::model::Mono;
use crate::runtime::Clock;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Which part of the world a device shows.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    Pv(usize),
    Battery,
    Charger,
    Grid,
    Sub(usize),
}

/// A device: its id, its part of the world and, if it has any, its registers.
#[derive(Debug)]
pub(super) struct Unit {
    id: String,
    part: Part,
    image: Image,
}

impl Unit {
    pub(super) fn new(id: &str, part: Part, world: &World, revert_timer: bool) -> Self {
        let image = match part {
            Part::Pv(i) => inverter::image(&format!("DEMO-PV-{}", i + 1), world.pv[i].rated_w),
            Part::Battery => battery::image(&world.battery, revert_timer),
            Part::Charger => Image::new(&[]),
            Part::Grid => meter::image("Demo grid meter", "DEMO-GRID-1"),
            Part::Sub(i) => meter::image("Demo sub-meter", &format!("DEMO-METER-{}", i + 1)),
        };
        Self { id: id.to_owned(), part, image }
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) world: World,
    pub(super) truth: Truth,
    units: Vec<Unit>,
    clock: Clock,
    last: Mono,
    file: Option<TruthFile>,
    watcher: Option<Watcher>,
}

/// Who is told of each request as it is served.
pub(super) struct Watcher(pub(super) Box<Tell>);

type Tell = dyn FnMut(&str, Touch) + Send;

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watcher")
    }
}

/// What a request does to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// It reads.
    Read,
    /// It writes, and the device takes it.
    Write,
}

/// The state behind its lock. Nobody waits for anything while holding it.
#[derive(Debug, Clone)]
pub(super) struct Shared(Arc<Mutex<State>>);

impl Shared {
    pub(super) fn new(world: World, units: Vec<Unit>, clock: Clock, file: Option<TruthFile>) -> Self {
        let truth = Truth { ts: clock.now(), load_w: 0.0, grid_w: 0.0, devices: BTreeMap::new() };
        let last = clock.mono();
        let mut state = State { world, truth, units, clock, last, file, watcher: None };
        state.publish();
        Self(Arc::new(Mutex::new(state)))
    }

    /// A panic elsewhere leaves numbers behind, no broken promise.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Let the world catch up with the clock and show it.
    pub(super) fn tick(&mut self) {
        let now = self.clock.mono();
        self.world.step(now.since(self.last).as_secs_f64());
        self.last = now;
        self.publish();
    }

    fn publish(&mut self) {
        let world = &self.world;
        let (volts, hertz) = (world.voltage_v(), world.frequency_hz());
        let ts = self.clock.now();
        let devices = self.units.iter_mut().map(|Unit { id, part, image }| {
            let points = match part {
                Part::Pv(i) => inverter::measure(image, &world.pv[*i], volts, hertz),
                Part::Battery => battery::measure(image, &world.battery, volts, hertz, world.real_s()),
                Part::Charger => charger::measure(world),
                Part::Grid => meter::measure(image, &world.grid, volts, hertz),
                Part::Sub(i) => meter::measure(image, &world.sub[*i], volts, hertz),
            };
            (id.clone(), points)
        });
        self.truth = Truth { devices: devices.collect(), ts, load_w: world.load_w(), grid_w: world.grid.total_w() };
        if let Some(file) = &mut self.file {
            file.tick(&self.truth, self.last);
        }
    }

    pub(super) fn flush(&mut self) {
        if let Some(file) = &mut self.file {
            file.flush();
        }
    }

    pub(super) fn watch(&mut self, watcher: Watcher) {
        self.watcher = Some(watcher);
    }

    fn tell(&mut self, unit: usize, touch: Touch) {
        if let Some(Watcher(tell)) = &mut self.watcher {
            tell(&self.units[unit].id, touch);
        }
    }

    fn note(&mut self, unit: usize, write: &serde_json::Value) {
        self.tell(unit, Touch::Write);
        if let Some(file) = &mut self.file {
            file.write(self.clock.now(), &self.units[unit].id, write);
        }
    }

    /// Read holding registers.
    pub(super) fn read(&mut self, unit: usize, address: u16, count: u16) -> Result<Vec<u16>, Refusal> {
        self.tell(unit, Touch::Read);
        self.units[unit].image.read(address, count)
    }

    /// Write holding registers: they read back at once, and the world obeys from its next step on.
    pub(super) fn write(&mut self, unit: usize, address: u16, words: &[u16]) -> Result<(), Refusal> {
        let now_s = self.world.real_s() + self.clock.mono().since(self.last).as_secs_f64();
        let Unit { part, image, .. } = &mut self.units[unit];
        match part {
            Part::Pv(i) => {
                image.write(address, words, inverter::check)?;
                inverter::written(image, &mut self.world.pv[*i], address, words.len(), now_s);
            }
            Part::Battery => {
                image.write(address, words, battery::check)?;
                battery::written(image, &mut self.world.battery, address, words.len(), now_s);
            }
            Part::Charger | Part::Grid | Part::Sub(_) => image.write(address, words, |_| true)?,
        }
        self.note(unit, &json!({"address": address, "words": words}));
        Ok(())
    }

    /// Answer `GET /api/set`.
    pub(super) fn set(&mut self, unit: usize, query: &str) -> serde_json::Value {
        let (answer, any) = charger::set(&mut self.world.charger, query);
        if any {
            self.note(unit, &json!({"path": format!("/api/set?{query}")}));
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Point, Timestamp};
    use crate::sim::physics::Scenario;
    use std::time::Duration;

    // PDU addresses of the models' ID registers, by hand: 40002 + 68 (model 1) = 40070, then each model's L + 2
    const AC: u16 = 40_070;
    const CONTROLS: u16 = AC + 52 + 28 + 32 + 46;
    const STORAGE: u16 = AC + 52 + 28;
    const BATTERY: u16 = STORAGE + 26;
    const METER: u16 = 40_070;
    const PV: usize = 0;
    const BAT: usize = 1;
    const GRID: usize = 2;

    fn home(revert_timer: bool) -> (Shared, Clock) {
        let clock = Clock::manual(Timestamp::from_ms(1_800_000_000_000));
        let world = World::new(1, 1.0, Scenario::Steady, 0, 0);
        let parts = [("pv", Part::Pv(0)), ("battery", Part::Battery), ("grid", Part::Grid)];
        let units = parts.into_iter().map(|(id, part)| Unit::new(id, part, &world, revert_timer)).collect();
        (Shared::new(world, units, clock.clone(), None), clock)
    }

    fn run(home: &Shared, clock: &Clock, ms: u64) {
        for _ in 0..ms / 200 {
            clock.advance(Duration::from_millis(200));
            home.lock().tick();
        }
    }

    fn words(home: &Shared, unit: usize, at: u16, count: u16) -> Vec<u16> {
        home.lock().read(unit, at, count).unwrap()
    }

    fn signed(home: &Shared, unit: usize, at: u16) -> i16 {
        words(home, unit, at, 1)[0].cast_signed()
    }

    #[test]
    fn the_chains_of_models() {
        let (home, _) = home(true);
        for (unit, models) in [
            (PV, vec![(1, 66), (103, 50), (120, 26), (121, 30), (122, 44), (123, 24)]),
            (BAT, vec![(1, 66), (103, 50), (120, 26), (124, 24), (802, 62)]),
            (GRID, vec![(1, 66), (203, 105)]),
        ] {
            assert_eq!(words(&home, unit, 40_000, 2), [0x5375, 0x6E53]);
            let mut at = 40_002;
            for (id, length) in models {
                assert_eq!(words(&home, unit, at, 2), [id, length]);
                at += 2 + length;
            }
            assert_eq!(words(&home, unit, at, 2), [0xFFFF, 0]);
            assert_eq!(home.lock().read(unit, at + 2, 1), Err(Refusal::Address));
        }
        assert_eq!(words(&home, PV, 40_004, 3), [0x6465, 0x7264, 0], "derd");
    }

    #[test]
    fn registers_say_what_the_truth_says() {
        let (home, clock) = home(true);
        run(&home, &clock, 1000);
        let truth = home.lock().truth.clone();
        let num = |device, point| truth.num(device, &point).unwrap();
        assert_eq!(words(&home, PV, AC + 14, 2), [6000, 0], "W, W_SF");
        assert_eq!(words(&home, PV, AC + 38, 1), [4], "MPPT");
        assert_eq!(words(&home, PV, AC + 10, 4), [2304, 2298, 2311, 0xFFFF], "volts and V_SF -1");
        let energy = words(&home, PV, AC + 24, 2);
        assert!(
            (f64::from(energy[0]) * 65_536.0 + f64::from(energy[1]) - num("pv", Point::EnergyProducedWh)).abs() < 0.5
        );
        assert!((f64::from(signed(&home, BAT, AC + 14)) - num("battery", Point::PowerW)).abs() < 1e-9);
        assert!(num("battery", Point::PowerW) < -900.0, "charging is negative");
        assert_eq!(words(&home, BAT, STORAGE + 8, 1)[0], (num("battery", Point::SocPct) * 100.0).round() as u16);
        assert_eq!(words(&home, BAT, STORAGE + 11, 1), [4], "charging");
        assert!((signed(&home, GRID, METER + 18) - num("grid", Point::PowerW) as i16).abs() == 0);
        for (i, point) in [Point::PowerL1W, Point::PowerL2W, Point::PowerL3W].into_iter().enumerate() {
            let read = f64::from(signed(&home, GRID, METER + 19 + i as u16));
            assert!((read - num("grid", point)).abs() < 1e-9);
        }
        assert!((truth.grid_w - num("grid", Point::PowerW)).abs() < 1e-9);
    }

    #[test]
    fn a_limit_is_taken_and_ends_with_its_timer() {
        let (home, clock) = home(true);
        let limit = |words: &[u16]| home.lock().write(PV, CONTROLS + 5, words);
        assert_eq!(limit(&[2500, 0, 10, 0]), Ok(()));
        run(&home, &clock, 4000);
        assert_eq!(words(&home, PV, AC + 14, 1), [6000], "not before it is enabled");
        assert_eq!(limit(&[2500, 0, 10, 0, 1]), Ok(()));
        assert_eq!(words(&home, PV, CONTROLS + 9, 1), [1], "reads back at once");
        assert_eq!(words(&home, PV, AC + 14, 1), [6000], "and measures nothing new before a tick");
        run(&home, &clock, 6000);
        assert_eq!((words(&home, PV, AC + 14, 1)[0], words(&home, PV, AC + 38, 1)[0]), (2000, 5), "throttled");
        assert_eq!(limit(&[2500]), Ok(()), "a refresh");
        run(&home, &clock, 9800);
        assert_eq!(words(&home, PV, AC + 14, 1), [2000]);
        run(&home, &clock, 4000);
        assert_eq!((words(&home, PV, AC + 14, 1)[0], words(&home, PV, CONTROLS + 9, 1)[0]), (6000, 0));
        assert_eq!(limit(&[10_001]), Err(Refusal::Value));
        assert_eq!(home.lock().write(PV, AC + 14, &[0]), Err(Refusal::Value), "a measurement");
    }

    #[test]
    fn a_forced_charge_is_taken_and_ends_with_its_timer() {
        let (home, clock) = home(true);
        run(&home, &clock, 1000);
        let own = signed(&home, BAT, AC + 14);
        let write = |at, words: &[u16]| home.lock().write(BAT, at, words).unwrap();
        write(STORAGE + 12, &[(-6000_i16).cast_unsigned(), 6000, 0, 10]);
        write(STORAGE + 5, &[3]);
        run(&home, &clock, 2000);
        assert_eq!(signed(&home, BAT, AC + 14), own, "2 s of electronics");
        run(&home, &clock, 2000);
        assert_eq!(signed(&home, BAT, AC + 14), -3000);
        run(&home, &clock, 5800);
        assert_eq!(words(&home, BAT, STORAGE + 5, 1), [3]);
        run(&home, &clock, 4400);
        assert_eq!((words(&home, BAT, STORAGE + 5, 1)[0], signed(&home, BAT, AC + 14)), (0, own));
        write(STORAGE + 13, &[(-4000_i16).cast_unsigned()]);
        write(STORAGE + 5, &[1]);
        run(&home, &clock, 4000);
        assert_eq!(signed(&home, BAT, AC + 14), 2000, "negative InWRte: a forced discharge");
    }

    #[test]
    fn without_a_timer_a_setpoint_stays() {
        let (home, clock) = home(false);
        assert_eq!(words(&home, BAT, STORAGE + 15, 1), [0xFFFF]);
        assert_eq!(home.lock().write(BAT, STORAGE + 12, &[0, 10_000, 0, 10]), Ok(()));
        assert_eq!(words(&home, BAT, STORAGE + 15, 1), [0xFFFF], "forgotten");
        assert_eq!(home.lock().write(BAT, STORAGE + 5, &[2]), Ok(()));
        run(&home, &clock, 60_000);
        assert_eq!(words(&home, BAT, STORAGE + 5, 1), [2]);
    }

    #[test]
    fn the_reserve_is_one_in_both_models() {
        let (home, clock) = home(true);
        assert_eq!(home.lock().write(BAT, BATTERY + 10, &[2500]), Ok(()));
        assert_eq!(words(&home, BAT, STORAGE + 7, 1), [2500]);
        assert_eq!(home.lock().write(BAT, STORAGE + 7, &[3000]), Ok(()));
        assert_eq!(words(&home, BAT, BATTERY + 10, 1), [3000]);
        run(&home, &clock, 200);
        assert_eq!(home.lock().truth.num("battery", &Point::ReserveSocPct), Some(30.0));
    }
}
