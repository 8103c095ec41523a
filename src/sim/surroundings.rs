//! What the house stands in: time of day, sun, clouds, household, grid voltage. Pure, seeded.

/// A small random generator (SplitMix64), so that a run can be repeated.
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Evenly between two numbers.
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * ((self.next() >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

/// Move towards a target by at most `step`.
pub(super) fn approach(value: f64, target: f64, step: f64) -> f64 {
    value + (target - value).clamp(-step, step)
}

/// A value that wanders: every now and then a new target, reached at a limited rate.
#[derive(Debug, Clone)]
struct Wander {
    value: f64,
    target: f64,
    left_s: f64,
    range: (f64, f64),
    every_s: (f64, f64),
    per_s: f64,
}

impl Wander {
    const fn new(value: f64, range: (f64, f64), every_s: (f64, f64), per_s: f64) -> Self {
        Self { value, target: value, left_s: 0.0, range, every_s, per_s }
    }

    fn step(&mut self, dt: f64, rng: &mut Rng) -> f64 {
        self.left_s -= dt;
        if self.left_s <= 0.0 {
            self.target = rng.between(self.range.0, self.range.1);
            self.left_s = rng.between(self.every_s.0, self.every_s.1);
        }
        self.value = approach(self.value, self.target, self.per_s * dt);
        self.value
    }
}

/// An appliance: off for a while, then on for a while, with a ramp.
#[derive(Debug, Clone)]
struct Appliance {
    rated_w: f64,
    on_s: (f64, f64),
    off_s: (f64, f64),
    phase: usize,
    is_on: bool,
    left_s: f64,
    power_w: f64,
}

impl Appliance {
    fn step(&mut self, dt: f64, rng: &mut Rng) {
        // how fast an appliance comes on: a kettle needs some seconds to its full power
        const RAMP_W_PER_S: f64 = 300.0;
        self.left_s -= dt;
        if self.left_s <= 0.0 {
            self.is_on = !self.is_on;
            let (low, high) = if self.is_on { self.on_s } else { self.off_s };
            self.left_s = rng.between(low, high);
        }
        self.power_w = approach(self.power_w, if self.is_on { self.rated_w } else { 0.0 }, RAMP_W_PER_S * dt);
    }
}

/// Fraction of a PV plant's rating that a clear sky gives at a local solar time of day.
fn clear_sky(time_of_day_s: f64) -> f64 {
    const SUNRISE_S: f64 = 6.0 * 3600.0;
    const SUNSET_S: f64 = 20.0 * 3600.0;
    let fraction = (time_of_day_s - SUNRISE_S) / (SUNSET_S - SUNRISE_S);
    if (0.0..=1.0).contains(&fraction) { 0.95 * (fraction * std::f64::consts::PI).sin().powf(1.3) } else { 0.0 }
}

/// The present surroundings.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    rng: Rng,
    /// Nothing changes.
    steady: bool,
    clouds: Wander,
    base_load: Wander,
    appliances: [Appliance; 2],
    grid: [Wander; 4],
    /// Fraction of the rating that the sun gives a PV plant now.
    pub(super) sun: f64,
    /// Household load per phase, whole watts.
    pub(super) load_w: [f64; 3],
    /// Voltage per phase, tenths of a volt.
    pub(super) voltage_v: [f64; 3],
    /// Hundredths of a hertz.
    pub(super) frequency_hz: f64,
}

impl Surroundings {
    /// In `steady` surroundings, the sun and the load stay as given.
    pub(super) fn new(seed: u64, steady: Option<(f64, f64)>) -> Self {
        let appliance = |rated_w, on_s, off_s, phase, left_s| Appliance {
            rated_w,
            on_s,
            off_s,
            phase,
            is_on: false,
            left_s,
            power_w: 0.0,
        };
        let mut rng = Rng::new(seed);
        let first = [rng.between(120.0, 900.0), rng.between(1800.0, 7200.0)];
        let volts = |v| Wander::new(v, (v - 2.5, v + 2.5), (30.0, 120.0), 0.05);
        let (sun, load) = steady.unwrap_or((0.0, 0.0));
        Self {
            rng,
            steady: steady.is_some(),
            clouds: Wander::new(0.9, (0.35, 1.0), (120.0, 600.0), 0.002),
            base_load: Wander::new(380.0, (250.0, 800.0), (60.0, 300.0), 3.0),
            appliances: [
                appliance(2000.0, (120.0, 240.0), (2400.0, 9000.0), 0, first[0]),
                appliance(2500.0, (600.0, 1500.0), (5400.0, 14_400.0), 1, first[1]),
            ],
            grid: [volts(230.4), volts(229.8), volts(231.1), Wander::new(50.0, (49.97, 50.03), (10.0, 60.0), 0.002)],
            sun,
            load_w: split_load(load, [0.0; 3]),
            voltage_v: [230.4, 229.8, 231.1],
            frequency_hz: 50.0,
        }
    }

    /// Let `dt` seconds of the simulated day pass, up to `time_of_day_s`.
    pub(super) fn step(&mut self, dt: f64, time_of_day_s: f64) {
        if self.steady {
            return;
        }
        let rng = &mut self.rng;
        self.sun = clear_sky(time_of_day_s) * self.clouds.step(dt, rng);
        let mut extra = [0.0; 3];
        for appliance in &mut self.appliances {
            appliance.step(dt, rng);
            extra[appliance.phase] += appliance.power_w;
        }
        self.load_w = split_load(self.base_load.step(dt, rng), extra);
        for (volts, wander) in self.voltage_v.iter_mut().zip(&mut self.grid) {
            *volts = (wander.step(dt, rng) * 10.0).round() / 10.0;
        }
        self.frequency_hz = (self.grid[3].step(dt, rng) * 100.0).round() / 100.0;
    }
}

/// A load over unevenly used phases, in whole watts whose sum is the whole load.
pub(super) fn split_load(total: f64, extra: [f64; 3]) -> [f64; 3] {
    let total = total.round();
    let (l2, l3) = ((total * 0.3).round(), (total * 0.2).round());
    [total - l2 - l3 + extra[0].round(), l2 + extra[1].round(), l3 + extra[2].round()]
}

/// A three-phase device's power over the phases, in whole watts whose sum is the whole.
pub(super) fn split_even(total: f64) -> [f64; 3] {
    let third = (total / 3.0).trunc();
    let rest = total - 3.0 * third;
    let one = rest.signum();
    [third + if rest.abs() >= 1.0 { one } else { 0.0 }, third + if rest.abs() >= 2.0 { one } else { 0.0 }, third]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sun_rises_and_sets() {
        assert!(clear_sky(5.0 * 3600.0) <= 0.0 && clear_sky(21.0 * 3600.0) <= 0.0);
        assert!(clear_sky(13.0 * 3600.0) > 0.94);
    }

    #[test]
    fn splits_sum_up() {
        for total in [-5000.0, -4.0, 0.0, 1.0, 2.0, 3.0, 7999.0] {
            for phases in [split_even(total), split_load(total, [0.0; 3])] {
                assert!((phases.iter().sum::<f64>() - total).abs() < 1e-9, "{total}: {phases:?}");
                assert!(phases.iter().all(|p| p.fract().abs() < 1e-9));
            }
        }
    }

    #[test]
    fn the_load_moves_in_small_steps() {
        let mut house = Surroundings::new(7, None);
        house.step(0.2, 36_000.0);
        let mut last: f64 = house.load_w.iter().sum();
        for i in 0..20_000 {
            house.step(0.2, 36_000.0 + f64::from(i) * 0.2);
            let now: f64 = house.load_w.iter().sum();
            assert!((now - last).abs() <= 0.2 * (3.0 + 600.0) + 3.0, "{last} -> {now}");
            last = now;
        }
    }
}
