//! What the house of the week stands in: sun with sharp clouds, appliances on their phases, two cars that come and go.

/// Seconds of a day.
pub(super) const DAY: usize = 86_400;
/// Seconds of the week.
pub(super) const WEEK: usize = 7 * DAY;

/// SplitMix64: the same seed, the same week.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5DEE_CE66)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Evenly from `low` to below `high`.
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * ((self.next() >> 11) as f64 / (1_u64 << 53) as f64)
    }

    fn secs(&mut self, low: f64, high: f64) -> usize {
        self.between(low, high) as usize
    }
}

/// One stay of a car at its charger.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stay {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) soc_pct: f64,
    /// Of the car.
    pub(super) phases: usize,
    pub(super) capacity_wh: f64,
    /// When it must be full; `None`: what the sun gives is enough.
    pub(super) full_by: Option<usize>,
}

/// All of it, second by second.
pub(super) struct Surroundings {
    /// W per phase.
    load: Vec<[u16; 3]>,
    /// Fraction of the inverter's rating.
    sun: Vec<f32>,
    /// Of both cars.
    pub(super) stays: [Vec<Stay>; 2],
}

impl Surroundings {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut made =
            Self { load: vec![[0; 3]; WEEK], sun: Vec::with_capacity(WEEK), stays: [Vec::new(), Vec::new()] };
        made.base(&mut dice);
        made.heat_pump(&mut dice);
        for day in 0..7 {
            made.kitchen(day * DAY, &mut dice);
        }
        made.shine(&mut dice);
        made.drive(&mut dice);
        made
    }

    pub(super) fn load_w(&self, second: usize) -> [f64; 3] {
        self.load[second.min(WEEK - 1)].map(f64::from)
    }

    pub(super) fn sun(&self, second: usize) -> f64 {
        f64::from(self.sun[second.min(WEEK - 1)])
    }

    fn add(&mut self, from: usize, length: usize, phase: usize, watts: u16) {
        for second in self.load.iter_mut().skip(from).take(length) {
            second[phase] += watts;
        }
    }

    /// Lights, screens, refrigerators: a new level every few minutes.
    fn base(&mut self, dice: &mut Dice) {
        let mut at = 0;
        while at < WEEK {
            let (length, watts) = (dice.secs(60.0, 600.0), dice.between(220.0, 650.0));
            for (phase, share) in [0.5, 0.3, 0.2].into_iter().enumerate() {
                self.add(at, length, phase, (watts * share) as u16);
            }
            at += length;
        }
    }

    /// 2.7 kW on three phases, half of the time.
    fn heat_pump(&mut self, dice: &mut Dice) {
        let mut at = dice.secs(0.0, 1800.0);
        while at < WEEK {
            let length = dice.secs(900.0, 2400.0);
            (0..3).for_each(|phase| self.add(at, length, phase, 900));
            at += length + dice.secs(900.0, 3600.0);
        }
    }

    fn kitchen(&mut self, day: usize, dice: &mut Dice) {
        let hour = |h: f64| day + (h * 3600.0) as usize;
        // Kettles on the first phase.
        for (low, high) in [(6.4, 8.0), (6.6, 8.2), (12.0, 13.5), (15.0, 17.0), (18.2, 20.0), (20.0, 22.0)] {
            let (from, length) = (hour(dice.between(low, high)), dice.secs(100.0, 260.0));
            self.add(from, length, 0, 2000);
        }
        // The oven's thermostat on the second, the hob's pulses on the first and the third.
        let mut at = hour(dice.between(17.8, 18.6));
        for _ in 0..dice.secs(12.0, 28.0) {
            let length = dice.secs(30.0, 150.0);
            self.add(at, length, 1, 3200);
            at += length + dice.secs(20.0, 120.0);
        }
        let mut at = hour(dice.between(17.9, 18.9));
        for _ in 0..dice.secs(30.0, 90.0) {
            let length = dice.secs(4.0, 25.0);
            self.add(at, length, 0, 1800);
            self.add(at, length, 2, 1700);
            at += length + dice.secs(4.0, 30.0);
        }
        // The dryer on the third.
        if dice.between(0.0, 1.0) < 0.6 {
            let (from, length) = (hour(dice.between(18.0, 21.0)), dice.secs(2400.0, 5400.0));
            self.add(from, length, 2, 2300);
        }
    }

    /// A clear sky from half past six to half past six, and clouds with sharp edges.
    fn shine(&mut self, dice: &mut Dice) {
        let (mut cloud, mut target, mut speed, mut left) = (1.0_f64, 1.0_f64, 0.01, 0_usize);
        for second in 0..WEEK {
            if left == 0 {
                left = dice.secs(40.0, 900.0);
                target = if dice.between(0.0, 1.0) < 0.5 { dice.between(0.9, 1.0) } else { dice.between(0.15, 0.8) };
                speed = dice.between(0.01, 0.12);
            }
            left -= 1;
            cloud += (target - cloud).clamp(-speed, speed);
            let part = ((second % DAY) as f64 / 3600.0 - 6.5) / 12.0;
            let clear = if (0.0..1.0).contains(&part) { (part * std::f64::consts::PI).sin().powf(1.3) } else { 0.0 };
            self.sun.push((clear * cloud) as f32);
        }
    }

    /// To the first charger a car with three phases comes each evening. To the second a small one with one phase each evening,
    /// and on Wednesday, Saturday and Sunday, over the day, a larger one with three.
    fn drive(&mut self, dice: &mut Dice) {
        for day in 0..7 {
            let at = |h: f64| day * DAY + (h * 3600.0) as usize;
            // The owner's deadlines, on local clocks: the night to Sunday is an hour shorter.
            let summer = if day == 5 { 1.0 } else { 0.0 };
            self.stays[0].push(Stay {
                from: at(dice.between(17.2, 18.2)),
                to: at(24.0 + dice.between(6.6, 7.6) - summer),
                soc_pct: dice.between(25.0, 60.0),
                phases: 3,
                capacity_wh: 60_000.0,
                full_by: Some(at(30.5 - summer)),
            });
            if matches!(day, 2 | 5 | 6) {
                self.stays[1].push(Stay {
                    from: at(dice.between(8.6, 9.6)),
                    to: at(dice.between(16.0, 17.2)),
                    soc_pct: dice.between(20.0, 50.0),
                    phases: 3,
                    capacity_wh: 60_000.0,
                    full_by: None,
                });
            }
            self.stays[1].push(Stay {
                from: at(dice.between(17.5, 19.0)),
                to: at(24.0 + dice.between(7.1, 8.3) - summer),
                soc_pct: dice.between(10.0, 60.0),
                phases: 1,
                capacity_wh: 12_000.0,
                full_by: Some(at(31.0 - summer)),
            });
        }
    }
}
