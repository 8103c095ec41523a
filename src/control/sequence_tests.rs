//! Minutes of a house that nobody has thought of: random loads, sun, silences, commands of all ranks, plans, site limits,
//! pauses and restarts of a meter, through one `Core` that remembers. What must hold is reckoned here from the fuse's own
//! current, not from what control believes.
//!
//! `DERD_SEQUENCES=FROM..TO` plays other seeds, `DERD_SEQUENCE_TRACE=1` prints each second.

use super::ControlMsg;
use super::core::{Core, Effect, Now};
use super::tests::truth;
use crate::model::{
    Action, BootId, Capabilities, ClockState, ControlSettings, Coupling, Demand, DeviceKind, DeviceLimits, DeviceSpec,
    DeviceState, DeviceStatus, GridSide, Intent, IntentKey, Mono, Order, Point, Rank, Role, Sample, SiteLimit,
    SiteSpec, Timestamp, UplinkName, Value,
};
use crate::plan::PlanDoc;
use std::sync::Arc;
use std::time::Duration;

const T0: i64 = 1_795_176_000_000;
const V: f64 = 230.0;
const SECONDS: u64 = 420;
/// An excess ends within these times after its cause: the promise, with cars that answer after 5 s.
const FUSE_S: u64 = 10;
const EXPORT_S: u64 = 15;
const SLACK_A: f64 = 0.6;
const SLACK_W: f64 = 150.0;
const MAX_CHARGE: f64 = 6000.0;
const MAX_DISCHARGE: f64 = 5000.0;
const MAX_A: [f64; 2] = [16.0, 20.0];
const FALLBACK_A: f64 = 6.0;
const RAMP: f64 = 1500.0;
const PV_RATED: f64 = 12_000.0;

const NAMES: [&str; 5] = ["grid", "pv", "battery", "car", "van"];
const GRID: usize = 0;
const PV: usize = 1;
const BATTERY: usize = 2;
const CARS: [usize; 2] = [3, 4];

struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }
    fn within(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * (self.below(10_001) as f64 / 10_000.0)
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

fn specs(dice: &mut Dice) -> Vec<DeviceSpec> {
    let kinds =
        [DeviceKind::Meter, DeviceKind::Inverter, DeviceKind::Battery, DeviceKind::Charger, DeviceKind::Charger];
    let has_ramp = dice.one_in(2);
    let has_times = dice.one_in(2);
    let one = |(i, kind): (usize, DeviceKind)| DeviceSpec {
        id: NAMES[i].parse().unwrap(),
        kind,
        role: (i == GRID).then_some(Role::Grid),
        coupling: Coupling::Ac,
        profile: String::new(),
        link: String::new(),
        unit: 1,
        poll: Duration::from_secs(1),
        invert: false,
        limits: DeviceLimits {
            max_charge_w: Some(MAX_CHARGE),
            max_discharge_w: Some(MAX_DISCHARGE),
            min_soc_pct: Some(10.0),
            max_soc_pct: Some(95.0),
            max_power_w: Some(9000.0).filter(|_| i == PV),
            max_current_a: CARS.iter().position(|c| *c == i).map(|n| MAX_A[n]),
            ramp_w_per_s: Some(RAMP).filter(|_| has_ramp),
            min_on: Some(Duration::from_secs(60)).filter(|_| has_times),
            min_off: Some(Duration::from_secs(60)).filter(|_| has_times),
        },
        control: ControlSettings {
            enabled: i != GRID,
            fallback_current_a: Some(FALLBACK_A),
            ..ControlSettings::default()
        },
    };
    kinds.into_iter().enumerate().map(one).collect()
}

/// A car at its charger.
#[derive(Debug, Clone)]
struct Car {
    /// The phases of the house that it can draw from, and of its charger.
    phases: Vec<usize>,
    /// What it wants at most, A.
    wants: f64,
    is_plugged: bool,
    /// What it was told, and since when; newest last.
    told: Vec<(u64, f64, usize)>,
    amps: f64,
    uses: usize,
}

struct House {
    load_a: [f64; 3],
    sun_w: f64,
    cars: [Car; 2],
    battery_told: Vec<(u64, f64)>,
    battery_w: f64,
    /// The phase of the battery; `None`: all three.
    battery_phase: Option<usize>,
    soc: f64,
    pv_told: Vec<(u64, f64)>,
    pv_w: f64,
}

impl House {
    fn turn(&mut self, second: u64) {
        for car in &mut self.cars {
            if let Some((_, amps, phases)) = car.told.iter().rfind(|(at, ..)| at + 5 <= second) {
                car.amps = if car.is_plugged { amps.min(car.wants) } else { 0.0 };
                car.uses = car.phases.len().min(*phases);
            }
            if !car.is_plugged {
                car.amps = 0.0;
            }
        }
        if let Some((_, watts)) = self.battery_told.iter().rfind(|(at, _)| at + 2 <= second) {
            let can = if *watts < 0.0 { self.soc < 100.0 } else { self.soc > 0.0 };
            self.battery_w = if can { *watts } else { 0.0 };
        }
        self.soc = (self.soc - self.battery_w / 20_000.0).clamp(0.0, 100.0);
        if let Some((_, watts)) = self.pv_told.iter().rfind(|(at, _)| *at < second) {
            self.pv_w = self.sun_w.min(*watts);
        } else {
            self.pv_w = self.sun_w;
        }
    }

    fn battery_a(&self, phase: usize) -> f64 {
        match self.battery_phase {
            Some(p) if p == phase => self.battery_w / V,
            Some(_) => 0.0,
            None => self.battery_w / V / 3.0,
        }
    }

    fn cars_a(&self, phase: usize) -> f64 {
        let on = |c: &Car| c.phases.iter().take(c.uses).any(|p| *p == phase);
        self.cars.iter().filter(|c| on(c)).map(|c| c.amps).sum()
    }

    /// + = import.
    fn grid_a(&self, phase: usize) -> f64 {
        self.load_a[phase] + self.cars_a(phase) - self.battery_a(phase) - self.pv_w / V / 3.0
    }

    fn grid_w(&self) -> f64 {
        (0..3).map(|p| self.grid_a(p) * V).sum()
    }

    fn points(&self, device: usize) -> Vec<(Point, Result<Value, crate::model::NullReason>)> {
        let num = |p: Point, v: f64| (p, Ok(Value::Num(v)));
        match device {
            GRID => vec![
                num(Point::PowerW, self.grid_w()),
                num(Point::CurrentL1A, self.grid_a(0)),
                num(Point::CurrentL2A, self.grid_a(1)),
                num(Point::CurrentL3A, self.grid_a(2)),
            ],
            PV => vec![num(Point::PowerW, self.pv_w)],
            BATTERY => vec![num(Point::PowerW, self.battery_w), num(Point::SocPct, self.soc)],
            _ => {
                let car = &self.cars[device - CARS[0]];
                let own = |n: usize| if n < car.uses { car.amps } else { 0.0 };
                let state = match (car.is_plugged, car.amps > 0.5) {
                    (false, _) => "unplugged",
                    (true, true) => "charging",
                    (true, false) => "plugged",
                };
                vec![
                    num(Point::PowerW, car.amps * V * car.uses as f64),
                    num(Point::CurrentL1A, own(0)),
                    num(Point::CurrentL2A, own(1)),
                    num(Point::CurrentL3A, own(2)),
                    (Point::State, Ok(Value::Text(state.into()))),
                ]
            }
        }
    }
}

struct Play {
    seed: u64,
    dice: Dice,
    core: Core,
    house: House,
    fuse_a: f64,
    export_w: f64,
    site_limits: Vec<SiteLimit>,
    orders: Vec<Order>,
    /// Until when each device is silent.
    silent: [u64; 5],
    heard: [Option<u64>; 5],
    heard_soc: f64,
    /// The last thing that happened from outside.
    disturbed: u64,
    over_fuse: [u64; 3],
    over_import: u64,
    over_export: u64,
    intents: Vec<Intent>,
    accepted: u64,
    is_paused: bool,
    has_ramp: bool,
    trace: bool,
}

fn wall(second: u64) -> Timestamp {
    Timestamp::from_ms(T0 + i64::try_from(second * 1000).unwrap())
}

fn now(second: u64) -> Now {
    Now { mono: Mono::from_ms(second * 1000), wall: wall(second), clock: ClockState::Synced }
}

impl Play {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        (0..8).for_each(|_| assert_ne!(dice.roll(), 0));
        let (fuse_a, export_w) = (dice.within(16.0, 35.0).round(), dice.within(0.0, 8000.0).round());
        let site = SiteSpec {
            name: "home".into(),
            timezone: "UTC".into(),
            phases: 3,
            main_fuse_a: Some(fuse_a),
            export_limit_w: Some(export_w),
        };
        let specs = specs(&mut dice);
        let has_ramp = specs.iter().any(|s| s.limits.ramp_w_per_s.is_some());
        let mut core = Core::new(site, specs, Mono::from_ms(0));
        for i in 0..NAMES.len() {
            let actions = match i {
                GRID => vec![],
                PV => vec!["set_power_limit", "set_export_limit"],
                BATTERY => vec!["charge", "discharge", "idle"],
                _ => vec!["start", "stop", "set_max_current"],
            };
            let capabilities = Capabilities {
                actions,
                rated_w: Some(PV_RATED).filter(|_| i == PV),
                min_current_a: Some(6.0),
                max_current_a: Some(20.0),
                phase_switch: i == 4,
                ..Capabilities::default()
            };
            let status = DeviceStatus { state: DeviceState::Online, capabilities, ..DeviceStatus::default() };
            core.device(i, &status, now(0));
        }
        let car = |dice: &mut Dice| {
            let first = dice.below(3) as usize;
            let all = (0..3).map(|n| (first + n) % 3);
            let phases: Vec<_> = if dice.one_in(2) { all.take(1).collect() } else { all.collect() };
            Car {
                uses: phases.len(),
                phases,
                wants: dice.within(7.0, 20.0).floor(),
                is_plugged: true,
                told: vec![],
                amps: 0.0,
            }
        };
        let house = House {
            load_a: [2.0, 3.0, 1.0],
            sun_w: 1000.0,
            cars: [car(&mut dice), car(&mut dice)],
            battery_told: vec![],
            battery_w: 0.0,
            battery_phase: dice.one_in(2).then(|| dice.below(3) as usize),
            soc: dice.within(0.0, 100.0),
            pv_told: vec![],
            pv_w: 0.0,
        };
        Self {
            seed,
            dice,
            core,
            house,
            fuse_a,
            export_w,
            site_limits: vec![],
            orders: vec![Order::Wait; NAMES.len()],
            silent: [0; 5],
            heard: [None; 5],
            heard_soc: 0.0,
            disturbed: 0,
            over_fuse: [0; 3],
            over_import: 0,
            over_export: 0,
            intents: vec![],
            accepted: 0,
            is_paused: false,
            has_ramp,
            trace: std::env::var_os("DERD_SEQUENCE_TRACE").is_some(),
        }
    }

    fn fail(&self, second: u64, what: &str) -> ! {
        let grid: Vec<_> = (0..3).map(|p| format!("{:.1}", self.house.grid_a(p))).collect();
        panic!(
            "seed {} at {second} s: {what}\nfuse {} export {} grid {grid:?} battery {:.0} on {:?} soc {:.0} pv {:.0}\ncars {:?}\norders {:#?}",
            self.seed,
            self.fuse_a,
            self.export_w,
            self.house.battery_w,
            self.house.battery_phase,
            self.house.soc,
            self.house.pv_w,
            self.house.cars,
            self.orders
        );
    }

    fn surroundings(&mut self, second: u64) {
        if self.dice.one_in(40) {
            let phase = self.dice.below(3) as usize;
            self.house.load_a[phase] = self.dice.within(0.0, self.fuse_a * 0.9);
            self.disturbed = second;
        }
        if self.dice.one_in(40) {
            self.house.sun_w = self.dice.within(0.0, PV_RATED);
            self.disturbed = second;
        }
        if self.dice.one_in(120) {
            let n = self.dice.below(2) as usize;
            self.house.cars[n].is_plugged = !self.house.cars[n].is_plugged;
            self.house.cars[n].wants = self.dice.within(7.0, 20.0).floor();
            self.disturbed = second;
        }
        if self.dice.one_in(80) {
            let device = self.dice.below(5) as usize;
            self.silent[device] = second + self.dice.below(40);
        }
        // Whoever comes back, or falls silent, is a new situation.
        if self.silent.iter().any(|until| *until + 1 >= second && *until > 0) {
            self.disturbed = second;
        }
    }

    fn intent(&mut self, second: u64) {
        let device = 1 + self.dice.below(4) as usize;
        let w = |dice: &mut Dice, most: f64| Some(dice.within(0.0, most)).filter(|_| !dice.one_in(6));
        let dice = &mut self.dice;
        let action = match device {
            PV => match dice.below(3) {
                0 => Action::SetPowerLimit { power_w: dice.within(0.0, 14_000.0) },
                1 => Action::SetExportLimit { power_w: dice.within(0.0, 10_000.0) },
                _ => Action::Auto,
            },
            BATTERY => match dice.below(5) {
                0 | 1 => Action::Charge {
                    power_w: w(dice, 9000.0),
                    min_soc_pct: None,
                    max_soc_pct: Some(dice.within(20.0, 100.0)).filter(|_| dice.one_in(3)),
                    grid: true,
                },
                2 | 3 => Action::Discharge {
                    power_w: w(dice, 9000.0),
                    min_soc_pct: Some(dice.within(0.0, 60.0)).filter(|_| dice.one_in(3)),
                    max_soc_pct: None,
                },
                _ => Action::Idle,
            },
            _ => match dice.below(6) {
                0 => Action::Stop,
                1 => Action::Start,
                2 => Action::Auto,
                _ => {
                    let phases = Some(if dice.one_in(2) { 1 } else { 3 }).filter(|_| dice.one_in(3));
                    Action::SetMaxCurrent { current_a: dice.within(0.0, 40.0), phases }
                }
            },
        };
        let ranks = [Rank::Event, Rank::Command, Rank::Owner, Rank::Grid];
        let rank = ranks[self.dice.below(4) as usize];
        self.accepted += 1;
        let lasts = Duration::from_secs(5 + self.dice.below(120));
        let intent = Intent {
            key: IntentKey::Command {
                uplink: if rank == Rank::Owner { UplinkName::local() } else { "acme".parse().unwrap() },
                device: Some(NAMES[device].parse().unwrap()),
                id: format!("c{}", self.accepted).parse().unwrap(),
            },
            device: NAMES[device].parse().unwrap(),
            action,
            rank,
            source: "test".into(),
            accepted: self.accepted,
            since: wall(second),
            ends_at: wall(second).plus(lasts),
            deadline: now(second).mono.plus(lasts),
            why: None,
        };
        self.disturbed = second;
        self.core.message(ControlMsg::Intent(intent.clone()), now(second));
        // Of one rank the newer takes the place of the older.
        self.intents.retain(|i| !(i.device == intent.device && i.rank == intent.rank));
        self.intents.push(intent);
    }

    fn messages(&mut self, second: u64) {
        if self.dice.one_in(12) {
            self.intent(second);
        }
        if self.dice.one_in(60) {
            let (side, most) =
                if self.dice.one_in(2) { (GridSide::Import, 20_000.0) } else { (GridSide::Export, 9000.0) };
            self.accepted += 1;
            let lasts = Duration::from_secs(20 + self.dice.below(60));
            let limit = SiteLimit {
                key: IntentKey::Command {
                    uplink: "acme".parse().unwrap(),
                    device: None,
                    id: format!("s{}", self.accepted).parse().unwrap(),
                },
                side,
                power_w: self.dice.within(0.0, most),
                ends_at: wall(second).plus(lasts),
                deadline: now(second).mono.plus(lasts),
            };
            self.core.message(ControlMsg::SiteLimit(limit.clone()), now(second));
            self.site_limits.push(limit);
            self.disturbed = second;
        }
        if self.dice.one_in(60) {
            let doc = match self.dice.below(3) {
                0 => {
                    r#"{"device":"battery","kind":"weekly","timezone":"UTC","rules":[],"default":{"action":"charge","params":{"power_w":4000}}}"#
                }
                1 => {
                    r#"{"device":"car","kind":"weekly","timezone":"UTC","rules":[],"default":{"action":"set_max_current","params":{"current_a":14}}}"#
                }
                _ => r#"{"device":"van","kind":"weekly","timezone":"UTC","rules":[],"default":{"action":"stop"}}"#,
            };
            let id = format!("p{}", self.dice.below(3)).parse().unwrap();
            let kind = |d: &crate::model::DeviceId| {
                Some(match d.as_str() {
                    "battery" => DeviceKind::Battery,
                    _ => DeviceKind::Charger,
                })
            };
            if self.dice.one_in(3) {
                self.core.message(ControlMsg::DropPlan(id), now(second));
            } else {
                let doc = PlanDoc::parse(Some(&id), doc.as_bytes(), kind, "UTC").unwrap();
                self.accepted += 1;
                let order = self.accepted;
                self.core.message(ControlMsg::Plan { doc: Arc::new(doc), order, source: "acme".into() }, now(second));
            }
            self.disturbed = second;
        }
        if self.dice.one_in(90) {
            self.is_paused = !self.is_paused;
            let msg = if self.is_paused { ControlMsg::Pause { until: None } } else { ControlMsg::Resume };
            self.core.message(msg, now(second));
            self.disturbed = second;
        }
    }

    fn second(&mut self, second: u64) {
        self.surroundings(second);
        self.house.turn(second);
        self.messages(second);
        for (device, name) in NAMES.iter().enumerate() {
            if self.silent[device] > second {
                continue;
            }
            self.heard[device] = Some(second);
            if device == BATTERY {
                self.heard_soc = self.house.soc;
            }
            let sample = Sample {
                device: name.parse().unwrap(),
                ts: wall(second),
                mono: now(second).mono,
                boot: BootId::new("0").unwrap(),
                seq: second,
                clock: ClockState::Synced,
                points: self.house.points(device),
            };
            self.core.sample(Arc::new(sample), now(second));
        }
        let before = self.orders.clone();
        for effect in self.core.cycle(now(second)) {
            match effect {
                Effect::Order(i, order) => self.orders[i] = order,
                Effect::Decided(decided) => {
                    if let Err(why) = truth(&decided) {
                        self.fail(second, &why);
                    }
                }
                Effect::Update(_) | Effect::Event(_) => {}
            }
        }
        if self.trace {
            let grid: Vec<_> = (0..3).map(|p| format!("{:.1}", self.house.grid_a(p))).collect();
            println!(
                "{second} grid {grid:?} pv {:.0} battery {:.0} cars {:.0?} silent {:?}",
                self.house.pv_w,
                self.house.battery_w,
                self.house.cars.iter().map(|c| (c.amps, c.uses)).collect::<Vec<_>>(),
                self.silent.map(|s| s > second)
            );
        }
        if self.trace && before != self.orders {
            for (name, order) in NAMES.iter().zip(&self.orders) {
                if let Order::Hold(s) = order {
                    println!("    {name} {:?} by {}", s.demand(), s.cause());
                }
            }
        }
        self.obey(second);
        self.check_orders(second);
        self.check_speed(second, &before);
        self.check_site(second);
    }

    /// The devices take their orders, as far as they are reached; what is over is over.
    fn obey(&mut self, second: u64) {
        for device in 1..NAMES.len() {
            if self.silent[device] > second {
                continue;
            }
            let demand = match &self.orders[device] {
                Order::Hold(s) if s.end().mono > now(second).mono => s.demand(),
                Order::Hold(s) => s.on_end(),
                _ => Demand::Release,
            };
            match (device, demand) {
                (PV, Demand::PowerLimit { watts }) => self.house.pv_told.push((second, watts)),
                (PV, _) => self.house.pv_told.push((second, f64::INFINITY)),
                (BATTERY, Demand::BatteryPower { watts, .. }) => self.house.battery_told.push((second, watts)),
                (BATTERY, _) => self.house.battery_told.push((second, 0.0)),
                (_, demand) => {
                    let car = &mut self.house.cars[device - CARS[0]];
                    let (amps, phases) = match demand {
                        Demand::ChargerCurrent { amps, phases } => (amps, phases.map_or(3, usize::from)),
                        Demand::ChargerLimit { amps } => (amps, 3),
                        Demand::ChargerOff => (0.0, 3),
                        _ => (20.0, 3),
                    };
                    car.told.push((second, if amps < 6.0 { 0.0 } else { amps }, phases));
                }
            }
        }
    }

    fn import_w(&self, second: u64) -> f64 {
        self.tightest(second, GridSide::Import, self.fuse_a * V * 3.0)
    }

    fn tightest(&self, second: u64, side: GridSide, own: f64) -> f64 {
        let is_on = |l: &&SiteLimit| l.side == side && l.deadline > now(second).mono;
        self.site_limits.iter().filter(is_on).map(|l| l.power_w).fold(own, f64::min)
    }

    fn is_blind(&self, second: u64) -> bool {
        self.heard[GRID].is_none_or(|at| second - at > 5)
    }

    fn check_orders(&self, second: u64) {
        let at = now(second).mono;
        let export_w = self.tightest(second, GridSide::Export, self.export_w);
        for (device, order) in self.orders.iter().enumerate() {
            let Order::Hold(s) = order else { continue };
            if s.end().mono > at.plus(Duration::from_secs(31 * 24 * 3600)) {
                self.fail(second, "a lease without an end");
            }
            if self.intents.iter().any(|i| i.key == *s.cause() && i.deadline <= at) {
                self.fail(second, "what is over still holds");
            }
            let soc = self.heard[BATTERY].filter(|at| second - at <= 3).map(|_| self.heard_soc);
            match (device, s.demand()) {
                (BATTERY, Demand::BatteryPower { watts, .. }) => {
                    if !(-MAX_CHARGE..=MAX_DISCHARGE).contains(&watts) {
                        self.fail(second, "beyond the installer's power");
                    }
                    let wrong = match soc {
                        Some(soc) => watts < 0.0 && soc >= 95.0 || watts > 0.0 && soc <= 10.0,
                        None => self.heard[BATTERY].is_none_or(|at| second - at > 10) && watts != 0.0,
                    };
                    if wrong {
                        self.fail(second, "outside of the window of the state of charge");
                    }
                    if self.is_blind(second) && second > 10 && watts < 0.0 {
                        self.fail(second, "charges blind");
                    }
                }
                (PV, Demand::PowerLimit { watts }) => {
                    if !(0.0..=9000.0).contains(&watts) {
                        self.fail(second, "beyond the installer's inverter limit");
                    }
                    if self.is_blind(second) && second > 10 && watts > export_w {
                        self.fail(second, "an inverter above the export limit, blind");
                    }
                    if !matches!(s.on_end(), Demand::PowerLimit { watts } if watts <= self.export_w) {
                        self.fail(second, "what follows is wider than the agreed export");
                    }
                }
                (3 | 4, Demand::ChargerCurrent { amps, .. } | Demand::ChargerLimit { amps }) => {
                    if amps > MAX_A[device - 3] || amps < 6.0 {
                        self.fail(second, "a current that no charger may have");
                    }
                    if self.is_blind(second) && second > 10 && amps > FALLBACK_A {
                        self.fail(second, "more than the fallback, blind");
                    }
                    let end = match s.on_end() {
                        Demand::ChargerLimit { amps } => amps,
                        Demand::ChargerOff => 0.0,
                        _ => f64::INFINITY,
                    };
                    if end > FALLBACK_A.min(amps) {
                        self.fail(second, "what follows is wider than the fallback");
                    }
                }
                (_, Demand::ChargerOff | Demand::Release) => {}
                (_, other) => self.fail(second, &format!("{other:?} for {}", NAMES[device])),
            }
        }
        if self.is_blind(second) && second > 10 {
            // Nobody draws what nobody told it.
            for (n, car) in CARS.iter().enumerate() {
                let is_told = matches!(&self.orders[*car], Order::Hold(s) if s.demand() != Demand::Release);
                if !is_told && self.house.cars[n].is_plugged && self.heard[*car] == Some(second) {
                    self.fail(second, "a charger is left alone, blind");
                }
            }
            if !matches!(&self.orders[PV], Order::Hold(s) if matches!(s.demand(), Demand::PowerLimit { .. })) {
                self.fail(second, "an inverter is left alone, blind");
            }
        }
    }

    /// Ramps are kept, and a stop is at once.
    fn check_speed(&self, second: u64, before: &[Order]) {
        let watts = |orders: &[Order]| match &orders[BATTERY] {
            Order::Hold(s) => match s.demand() {
                Demand::BatteryPower { watts, .. } => Some(watts),
                _ => None,
            },
            _ => None,
        };
        if let (Some(old), Some(new)) = (watts(before), watts(&self.orders))
            && self.has_ramp
        {
            let rise = if old * new < 0.0 { new.abs() } else { new.abs() - old.abs() };
            if rise > RAMP * 5.0 + 1.0 {
                self.fail(second, &format!("a rise by {rise} W"));
            }
        }
        let at = now(second).mono;
        for (device, name) in NAMES.iter().enumerate().skip(1) {
            let mine = self.intents.iter().filter(|i| i.device.as_str() == *name && i.deadline > at);
            let Some(top) = mine.max_by_key(|i| (i.rank, i.accepted)) else { continue };
            if self.is_paused && top.rank < Rank::Owner {
                continue;
            }
            let Order::Hold(s) = &self.orders[device] else {
                if matches!(top.action, Action::Stop | Action::Idle) {
                    self.fail(second, "a stop that nobody heard");
                }
                continue;
            };
            let is_stopped = match top.action {
                Action::Stop => s.demand() == Demand::ChargerOff,
                Action::Idle => matches!(s.demand(), Demand::BatteryPower { watts, .. } if watts == 0.0),
                _ => true,
            };
            if !is_stopped {
                self.fail(second, &format!("told to stop by {:?}", top.key));
            }
        }
    }

    /// What the fuse feels. An excess counts as long as something that control can reach takes part in it, from the last
    /// thing that happened; nobody sees anything while the meter is silent.
    fn check_site(&mut self, second: u64) {
        if self.disturbed == second || self.heard[GRID] != Some(second) || second < 15 {
            (self.over_fuse, self.over_import, self.over_export) = ([0; 3], 0, 0);
            return;
        }
        let is_reached = |device: usize| self.silent[device] <= second;
        let car_a = |phase: usize| -> f64 {
            let on = |c: &Car| c.phases.iter().take(c.uses).any(|p| *p == phase);
            let cars = self.house.cars.iter().zip(CARS);
            cars.filter(|(c, i)| is_reached(*i) && on(c)).map(|(c, _)| c.amps).sum()
        };
        let battery_a = |phase: usize| if is_reached(BATTERY) { (-self.house.battery_a(phase)).max(0.0) } else { 0.0 };
        let mut over = [false; 3];
        for (phase, over) in over.iter_mut().enumerate() {
            *over = self.house.grid_a(phase) > self.fuse_a + SLACK_A && car_a(phase) + battery_a(phase) > 0.3;
        }
        let ours_w: f64 = (0..3).map(|p| (car_a(p) + battery_a(p)) * V).sum();
        let import = self.house.grid_w() > self.import_w(second) + SLACK_W && ours_w > SLACK_W;
        let export_w = self.tightest(second, GridSide::Export, self.export_w);
        let feeds =
            (is_reached(PV) && self.house.pv_w > SLACK_W) || (is_reached(BATTERY) && self.house.battery_w > SLACK_W);
        let export = -self.house.grid_w() > export_w + SLACK_W && feeds;
        for (n, over) in over.iter().enumerate() {
            self.over_fuse[n] += u64::from(*over);
        }
        self.over_import += u64::from(import);
        self.over_export += u64::from(export);
        if let Some(phase) = self.over_fuse.iter().position(|n| *n > FUSE_S) {
            self.fail(second, &format!("L{} was over the fuse for {FUSE_S} s since {}", phase + 1, self.disturbed));
        }
        if self.over_import > FUSE_S {
            self.fail(second, &format!("above the import limit {} since {}", self.import_w(second), self.disturbed));
        }
        if self.over_export > EXPORT_S {
            self.fail(second, &format!("above the export limit {export_w} since {}", self.disturbed));
        }
    }
}

#[test]
fn random_minutes_break_no_limit() {
    let range = std::env::var("DERD_SEQUENCES").unwrap_or_else(|_| "0..120".into());
    let (from, to) = range.split_once("..").unwrap();
    for seed in from.parse().unwrap()..to.parse().unwrap() {
        let mut play = Play::new(seed);
        (0..SECONDS).for_each(|second| play.second(second));
    }
}
