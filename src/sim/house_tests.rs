//! A house for closed loops: the parts of the simulated home, stepped and asked by hand, without sockets, threads and
//! chance. Two chargers instead of one; sun and load come from outside, per phase.

use super::physics::{Scenario, World};
use super::plant::{Battery, Meter, PvPlant};
use super::registers::{Image, Refusal};
use super::{battery, charger, inverter, meter};

/// Voltage per phase, V.
const VOLTS: [f64; 3] = [230.0, 230.0, 230.0];

/// Which device is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Pv,
    Battery,
    Grid,
    /// The first, or the second.
    Charger(usize),
}

/// The house.
#[derive(Debug)]
pub(crate) struct House {
    pub(crate) pv: PvPlant,
    pub(crate) battery: Battery,
    pub(crate) grid: Meter,
    /// Each in a world of its own, of which nothing else is used.
    chargers: Vec<World>,
    images: [Image; 3],
    /// When each of them was measured last.
    measured_s: [f64; 3],
    /// To which phase of the house the first of each charger is wired; the others follow.
    pub(crate) wiring: Vec<usize>,
    real_s: f64,
}

impl House {
    /// `pv_w`: rated power of the inverter; `soc_pct`: of the battery; `chargers`: how many.
    pub(crate) fn new(pv_w: f64, soc_pct: f64, chargers: usize) -> Self {
        let pv = PvPlant::new(pv_w, 0.0);
        let battery = Battery::new(soc_pct);
        let images =
            [inverter::image("WEEK-PV", pv_w), battery::image(&battery, true), meter::image("Grid meter", "WEEK-GRID")];
        let one = |_| {
            let mut world = World::new(1, 1.0, Scenario::Day, 0, 0);
            world.charger.plug(None);
            world
        };
        Self {
            pv,
            battery,
            grid: Meter::default(),
            chargers: (0..chargers).map(one).collect(),
            images,
            measured_s: [-1.0; 3],
            wiring: vec![0; chargers],
            real_s: 0.0,
        }
    }

    pub(crate) fn charger(&self, index: usize) -> &super::plant::Charger {
        &self.chargers[index].charger
    }

    pub(crate) fn charger_mut(&mut self, index: usize) -> &mut super::plant::Charger {
        &mut self.chargers[index].charger
    }

    /// Let `dt` seconds pass. `sun`: fraction of the rating; `load_w`: the household per phase.
    pub(crate) fn step(&mut self, dt: f64, sun: f64, load_w: [f64; 3]) {
        self.real_s += dt;
        self.pv.step(self.real_s, dt, dt, sun);
        let mut need = load_w;
        for (world, first) in self.chargers.iter_mut().zip(&self.wiring) {
            world.charger.step(self.real_s, dt, &VOLTS);
            for (i, watts) in world.charger.power_w.into_iter().enumerate() {
                need[(i + first) % 3] += watts;
            }
        }
        for (need, watts) in need.iter_mut().zip(self.pv.phases_w()) {
            *need -= watts;
        }
        self.battery.step(self.real_s, dt, dt, need.iter().sum());
        for (need, watts) in need.iter_mut().zip(self.battery.phases_w()) {
            *need -= watts;
        }
        self.grid.step(need, dt);
    }

    /// Read holding registers, as measured at this moment; or the exception.
    pub(crate) fn read(&mut self, place: Place, address: u16, count: u16) -> Result<Vec<u16>, u8> {
        let index = Self::index(place);
        let is_new = (std::mem::replace(&mut self.measured_s[index], self.real_s) - self.real_s).abs() > 0.0;
        match place {
            Place::Charger(_) => return Err(1),
            _ if !is_new => {}
            Place::Pv => drop(inverter::measure(&mut self.images[0], &self.pv, VOLTS, 50.0)),
            Place::Battery => drop(battery::measure(&mut self.images[1], &self.battery, VOLTS, 50.0, self.real_s)),
            Place::Grid => drop(meter::measure(&mut self.images[2], &self.grid, VOLTS, 50.0)),
        }
        self.images[index].read(address, count).map_err(exception)
    }

    /// Write holding registers.
    pub(crate) fn write(&mut self, place: Place, address: u16, words: &[u16]) -> Result<(), u8> {
        match place {
            Place::Pv => {
                self.images[0].write(address, words, inverter::check).map_err(exception)?;
                inverter::written(&self.images[0], &mut self.pv, address, words.len(), self.real_s);
            }
            Place::Battery => {
                self.images[1].write(address, words, battery::check).map_err(exception)?;
                battery::written(&mut self.images[1], &mut self.battery, address, words.len(), self.real_s);
            }
            Place::Grid | Place::Charger(_) => return Err(1),
        }
        Ok(())
    }

    const fn index(place: Place) -> usize {
        match place {
            Place::Pv => 0,
            Place::Battery => 1,
            Place::Grid | Place::Charger(_) => 2,
        }
    }

    /// Answer a charger's `GET`; is something set by it.
    pub(crate) fn get(&mut self, index: usize, path: &str) -> (serde_json::Value, bool) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let world = &mut self.chargers[index];
        if path == "/api/set" {
            charger::set(&mut world.charger, query)
        } else {
            (charger::status(world, query), false)
        }
    }
}

const fn exception(refusal: Refusal) -> u8 {
    match refusal {
        Refusal::Address => 2,
        Refusal::Value => 3,
    }
}
