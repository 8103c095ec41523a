//! A week of a home in a closed loop: derd's real parts on simulated devices, second by second, without sockets, threads
//! and sleeping.
//!
//! Two cars (5 s from a new current to the answer), a battery (2 s), a PV inverter that is larger than the agreed export, a
//! fuse of 25 A that cars, kitchen and heat pump together exceed; a tariff with a price for each hour and plans that go by
//! it and by the sun, flex events, commands of a cloud and of the owner, limits of the grid operator, network outages, a
//! silent grid meter, a power cut in the middle of a discharge.
//!
//! Real: the door for commands and plans, their tracking and recovery, control with its limits and plans, the drivers made
//! from the shipped profiles, the keepers with their leases, read-back and write budgets, the clock. Simulated: the devices
//! behind their registers and keys (`sim`, with their timers and delays), house, sun and cars; the disk is a struct that
//! outlives the power cut. Not in it: sockets, links and their pacing, the tasks and their channels, SQLite, the uplinks,
//! `derd-guard`, voltages that change, a charger or an inverter that refuses or forgets. An answer takes no time; the grid
//! meter is read half a second after the others. The cars charge with constant current until they are full.
//!
//! - `surroundings`: sun, load and cars by seed. `script`: what happens. `gateway`: derd without its tasks.
//! - `measure`: what must hold in every second. `money`: tariff, plans, and what they save. `picture`: the week as an SVG.
//!
//! `DERD_WEEK_SEEDS=1..20` plays more weeks, `DERD_WEEK_EACH_SECOND=1` leaves no poll out, `DERD_WEEK_CSV=FILE` and
//! `DERD_WEEK_SVG=FILE` write what happened, `DERD_WEEK_TRACE=FROM..TO` prints these seconds of the week.

mod gateway;
mod measure;
mod money;
mod picture;
mod script;
mod surroundings;

use crate::link::LinkError;
use crate::model::{ControlSettings, Coupling, DeviceKind, DeviceLimits, DeviceSpec, Role, SiteSpec, Timestamp};
use crate::profile::{Answer, Refusal, Request};
use crate::sim::house_tests::{House, Place};
use gateway::{Disk, Gateway};
use measure::Measure;
use money::{Money, Prices};
use picture::Row;
use script::{Item, Script, wall};
use std::collections::BTreeMap;
use std::time::Duration;
use surroundings::{DAY, Surroundings, WEEK};

const FUSE_A: f64 = 25.0;
const EXPORT_W: f64 = 6000.0;
const PV_W: f64 = 12_000.0;
/// In the order of the devices.
const PLACES: [Place; 5] = [Place::Pv, Place::Battery, Place::Charger(0), Place::Charger(1), Place::Grid];
const NAMES: [&str; 5] = ["pv", "battery", "car1", "car2", "grid"];
/// Polls are left out while nothing moves, but never for longer than this, s.
const QUIET: usize = 4;
/// Something moved: no poll is left out for this long, s: longer than a car takes to answer. An excess is watched as long as
/// it lasts.
const WATCHED: usize = 7;
/// Less than this is nothing that moves, W. Slow changes add up to it.
const NOISE_W: f64 = 150.0;

fn site() -> SiteSpec {
    SiteSpec {
        name: "week".into(),
        timezone: "Europe/Berlin".into(),
        phases: 3,
        main_fuse_a: Some(FUSE_A),
        export_limit_w: Some(EXPORT_W),
    }
}

fn specs() -> Vec<DeviceSpec> {
    let kinds =
        [DeviceKind::Inverter, DeviceKind::Battery, DeviceKind::Charger, DeviceKind::Charger, DeviceKind::Meter];
    let one = |(name, kind): (&&str, DeviceKind)| DeviceSpec {
        id: name.parse().unwrap(),
        kind,
        role: (kind == DeviceKind::Meter).then_some(Role::Grid),
        coupling: Coupling::Ac,
        profile: if kind == DeviceKind::Charger { "go-e/charger" } else { "sunspec" }.into(),
        link: (*name).into(),
        unit: 1,
        poll: Duration::from_secs(1),
        invert: false,
        limits: match kind {
            DeviceKind::Battery => DeviceLimits {
                max_charge_w: Some(5000.0),
                max_discharge_w: Some(4500.0),
                min_soc_pct: Some(10.0),
                max_soc_pct: Some(100.0),
                ramp_w_per_s: Some(1000.0),
                ..DeviceLimits::default()
            },
            DeviceKind::Charger => DeviceLimits {
                max_current_a: Some(16.0),
                min_on: Some(Duration::from_secs(60)),
                min_off: Some(Duration::from_secs(60)),
                ..DeviceLimits::default()
            },
            _ => DeviceLimits::default(),
        },
        control: ControlSettings {
            enabled: kind != DeviceKind::Meter,
            accept_no_failsafe: false,
            fallback_current_a: Some(6.0),
            flash_writes_per_day: None,
        },
    };
    NAMES.iter().zip(kinds).map(one).collect()
}

/// One week.
struct Week {
    house: House,
    surroundings: Surroundings,
    script: Script,
    disk: Disk,
    gateway: Option<Gateway>,
    is_meter_silent: bool,
    is_online: bool,
    /// Commands that wait for the network.
    sent: Vec<Item>,
    writes: BTreeMap<(usize, String), Vec<usize>>,
    measure: Measure,
    prices: Prices,
    money: Money,
    rows: Vec<Row>,
    polls: u64,
    /// Of the present minute.
    highest_a: f64,
    lasting_a: f64,
    /// Current per phase of the last 10 s.
    last_a: std::collections::VecDeque<[f64; 3]>,
    /// Seconds to print.
    trace: std::ops::Range<usize>,
}

impl Week {
    fn new(seed: u64) -> Self {
        let mut house = House::new(PV_W, 50.0, 2);
        // As electricians do it: which phase the one-phase car comes to is told by nobody.
        house.wiring[1] = usize::try_from(seed % 3).unwrap();
        Self {
            house,
            surroundings: Surroundings::new(seed),
            script: Script::new(seed),
            disk: Disk::default(),
            gateway: None,
            is_meter_silent: false,
            is_online: true,
            sent: Vec::new(),
            writes: BTreeMap::new(),
            measure: Measure::default(),
            prices: Prices::new(seed),
            money: Money::default(),
            rows: Vec::new(),
            polls: 0,
            highest_a: 0.0,
            lasting_a: 0.0,
            last_a: std::collections::VecDeque::new(),
            trace: trace(),
        }
    }

    fn start(&mut self, at: Timestamp) {
        self.gateway = Some(Gateway::start(&site(), &specs(), &mut self.disk, at));
    }

    fn play(&mut self, days: usize, is_each_second: bool) {
        self.start(wall(0));
        if let Some(gateway) = &mut self.gateway {
            for (name, body) in money::plans(&self.prices) {
                gateway.plan(name, &body, &mut self.disk);
            }
        }
        // What moves is watched for a while: polls are left out only where each would see what the last one saw.
        let (mut seen, mut moved, mut polled) = ([0.0; 9], 0, 0);
        for second in 0..(days * DAY).min(WEEK) {
            self.cars(second);
            for item in self.script.due(second) {
                self.happen(item);
                moved = second;
            }
            // The devices at the second, the meter half a second later.
            let is_quiet = !is_each_second && second > moved + WATCHED && second - polled < QUIET;
            let mut is_left_out = is_quiet;
            for (half, which) in [(0, &[0, 1, 2, 3][..]), (1, &[4][..])] {
                let state = self.state();
                let is_over =
                    state[..3].iter().any(|w| *w > FUSE_A * 230.0) || state[..3].iter().sum::<f64>() < -EXPORT_W;
                if is_over || state.iter().zip(&seen).any(|(a, b)| (a - b).abs() > NOISE_W) {
                    (seen, moved, is_left_out) = (state, second, false);
                }
                self.poll(which, is_left_out && !self.is_due());
                self.half(second, half);
            }
            if !is_quiet {
                polled = second;
            }
            self.deliver();
        }
    }

    fn is_due(&self) -> bool {
        self.gateway.as_ref().is_some_and(|g| g.is_due(Duration::from_millis(500)))
    }

    /// Half a second of the world.
    fn half(&mut self, second: usize, half: usize) {
        let load = self.surroundings.load_w(second);
        self.house.step(0.5, self.surroundings.sun(second), load);
        if let Some(gateway) = &self.gateway {
            gateway.clock.advance(Duration::from_millis(500));
        }
        let orders = self.gateway.as_ref().map(|g| g.orders.as_slice());
        self.measure.half(second, &self.house, load, orders);
        self.money.half(self.prices.at(second), &self.house, orders);
        if self.trace.contains(&second) {
            let demand = |i: usize| match self.gateway.as_ref().map(|g| &g.orders[i]) {
                Some(crate::model::Order::Hold(s)) => format!("{:?} by {}", s.demand(), s.cause()),
                other => format!("{other:?}"),
            };
            let h = &self.house;
            println!(
                "{second}.{half} grid {:.1?} load {:.0?} pv {} bat {} car1 {}/{:.1?} car2 {}/{:.1?} | {} | {} | {} | {}",
                h.grid.power_w.map(|w| w / 230.0),
                load.map(|w| w / 230.0),
                h.pv.power_w,
                h.battery.power_w,
                h.charger(0).offered_a(),
                h.charger(0).current_a,
                h.charger(1).offered_a(),
                h.charger(1).current_a,
                demand(0),
                demand(1),
                demand(2),
                demand(3),
            );
        }
        self.highest_a = self.house.grid.power_w.iter().fold(self.highest_a, |most, w| most.max(w / 230.0));
        if half == 1 {
            self.lasting_a = self.lasting_a.max(self.lasting());
        }
        if half == 1 && second % 60 == 59 {
            let amps = [std::mem::take(&mut self.highest_a), std::mem::take(&mut self.lasting_a)];
            self.rows.push(Row::new(second, &self.house, load, amps));
        }
    }

    /// The highest phase current that did not end within 10 s, A.
    fn lasting(&mut self) -> f64 {
        if self.last_a.len() >= 10 {
            self.last_a.pop_front();
        }
        self.last_a.push_back(self.house.grid.power_w.map(|w| w / 230.0));
        let least = |phase: usize| self.last_a.iter().fold(f64::INFINITY, |least, a| least.min(a[phase]));
        (0..3).map(least).fold(0.0, f64::max)
    }

    /// What a poll would see: a quiet second is one in which none of this moves.
    fn state(&self) -> [f64; 9] {
        let h = &self.house;
        let (a, b) = (h.charger(0), h.charger(1));
        [
            h.grid.power_w[0],
            h.grid.power_w[1],
            h.grid.power_w[2],
            h.pv.power_w,
            h.battery.power_w,
            a.total_w(),
            b.total_w(),
            if a.plugged { 1000.0 } else { 0.0 },
            if b.plugged { 1000.0 } else { 0.0 },
        ]
    }

    fn poll(&mut self, which: &[usize], is_left_out: bool) {
        let Self { house, gateway, disk, is_meter_silent, writes, .. } = self;
        let Some(gateway) = gateway else { return };
        let now_s = gateway.clock.now();
        let mut wire = |index: usize, request: &Request| {
            if request.is_write() {
                let at = usize::try_from((now_s.ms() - script::T0) / 1000).unwrap_or(0);
                for place in places(request) {
                    writes.entry((index, place)).or_default().push(at);
                }
            }
            answer(house, index, request, *is_meter_silent)
        };
        if !is_left_out {
            gateway.poll(which, &mut wire, disk);
            self.polls += 1;
        }
        gateway.wake(gateway.now().mono);
        gateway.turn(&mut wire, disk);
    }

    fn cars(&mut self, second: usize) {
        for index in 0..2 {
            let stays = &self.surroundings.stays[index];
            if let Some(stay) = stays.iter().find(|s| s.from == second) {
                let car = self.house.charger_mut(index);
                (car.car_phases, car.car_capacity_wh) = (stay.phases, stay.capacity_wh);
                car.plug(Some(stay.soc_pct));
                self.money.plugged(index, stay);
            }
            if stays.iter().any(|s| s.full_by == Some(second)) {
                let car = self.house.charger(index);
                self.measure.due(index, second, 100.0 * car.car_stored_wh / car.car_capacity_wh);
            }
            if stays.iter().any(|s| s.to == second) {
                self.house.charger_mut(index).plug(None);
            }
        }
    }

    fn happen(&mut self, item: Item) {
        match item {
            Item::Command { uplink, .. } if uplink != "local" && !self.is_online => self.sent.push(item),
            Item::Command { uplink, rank, target, body } => match &mut self.gateway {
                Some(gateway) => gateway.command(uplink, rank, target, &body, &mut self.disk),
                None => self.sent.push(Item::Command { uplink, rank, target, body }),
            },
            Item::Network(is_online) => {
                self.is_online = is_online;
                if is_online {
                    std::mem::take(&mut self.sent).into_iter().for_each(|item| self.happen(item));
                }
            }
            Item::Meter(answers) => {
                self.is_meter_silent = !answers;
                self.measure.blind_since = (!answers).then_some(self.measure.second);
            }
            Item::Cut => {
                self.measure.cut(&self.house);
                self.gateway = None;
            }
            Item::Back => {
                let at = Timestamp::from_ms(self.script_now());
                self.start(at);
            }
        }
    }

    fn script_now(&self) -> i64 {
        wall(self.measure.second + 1).ms()
    }

    /// The uplink takes what is in the outbox.
    fn deliver(&mut self) {
        if self.is_online {
            self.measure.results.append(&mut self.disk.outbox);
        }
    }
}

/// The registers, or the keys, that are written.
fn places(request: &Request) -> Vec<String> {
    match request {
        Request::Http { path, .. } => {
            let query = path.split_once('?').map_or("", |(_, query)| query);
            query.split('&').filter_map(|pair| pair.split('=').next()).map(str::to_owned).collect()
        }
        other => vec![other.to_string().split('=').next().unwrap_or_default().to_owned()],
    }
}

fn answer(house: &mut House, index: usize, request: &Request, is_meter_silent: bool) -> Result<Answer, LinkError> {
    let place = PLACES[index];
    if place == Place::Grid && is_meter_silent {
        return Err(LinkError::Timeout("no answer".into()));
    }
    let refused = |code| LinkError::Refused(Refusal::Exception(code));
    match (place, request) {
        (Place::Charger(index), Request::Http { path, .. }) => Ok(Answer::Json(house.get(index, path).0)),
        (_, Request::Read { address, count, .. }) => {
            house.read(place, *address, *count).map(Answer::Words).map_err(refused)
        }
        (_, Request::Write { address, words, .. }) => {
            house.write(place, *address, words).map(|()| Answer::Written).map_err(refused)
        }
        (place, request) => panic!("{place:?} is asked {request}"),
    }
}

/// `DERD_WEEK_TRACE=FROM..TO`, seconds of the week.
fn trace() -> std::ops::Range<usize> {
    let text = std::env::var("DERD_WEEK_TRACE").unwrap_or_default();
    let (from, to) = text.split_once("..").unwrap_or(("0", "0"));
    from.parse().unwrap()..to.parse().unwrap()
}

fn play(seed: u64, days: usize, is_each_second: bool) -> Week {
    let mut week = Week::new(seed);
    week.play(days, is_each_second);
    week
}

#[test]
fn a_week_in_a_closed_loop() {
    let seeds = std::env::var("DERD_WEEK_SEEDS").unwrap_or_else(|_| "1".into());
    let (from, to) = seeds.split_once("..").unwrap_or((&seeds, &seeds));
    let days = std::env::var("DERD_WEEK_DAYS").ok().and_then(|d| d.parse().ok()).unwrap_or(7);
    let is_each_second = std::env::var("DERD_WEEK_EACH_SECOND").is_ok();
    for seed in from.parse::<u64>().unwrap()..=to.parse().unwrap() {
        let week = play(seed, days, is_each_second);
        if let Ok(path) = std::env::var("DERD_WEEK_CSV") {
            std::fs::write(path, picture::csv(&week.rows)).unwrap();
        }
        if let Ok(path) = std::env::var("DERD_WEEK_SVG") {
            std::fs::write(path, picture::svg(&week.rows, &week.script.spans, week.prices.by_hour())).unwrap();
        }
        week.check(seed, days);
    }
}
