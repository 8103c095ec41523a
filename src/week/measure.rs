//! What must hold, measured on the wires of the house and not by derd.

use super::script::Script;
use super::surroundings::WEEK;
use super::{EXPORT_W, FUSE_A, NAMES, Week};
use crate::model::{CommandResult, CommandState, Demand, Order};
use crate::sim::house_tests::House;
use std::collections::BTreeMap;

/// A fuse carries 1 % more for hours; and a watt is rounded somewhere.
const FUSE_SLACK: f64 = 1.01;
const EXPORT_SLACK_W: f64 = 60.0;

/// A span in which something was too much: how long, counted from its last cause.
#[derive(Debug, Clone, Default)]
struct Excess {
    halves: usize,
    since: usize,
    worst: f64,
    /// What nobody controls, when the clock of this excess began.
    rest: f64,
}

impl Excess {
    /// `Some`: one ended just now.
    /// `rest`: the part that nobody controls. When that rises further by more than `cause`, the clock begins anew: derd's time
    /// counts from the last cause.
    fn note(&mut self, second: usize, over: f64, rest: f64, cause: f64) -> Option<(usize, f64, f64)> {
        if over > 0.0 {
            if self.halves > 0 && rest > self.rest + cause {
                let ended = (self.since, self.halves as f64 / 2.0, self.worst);
                (self.halves, self.since, self.rest) = (1, second, rest);
                return Some(ended);
            }
            if self.halves == 0 {
                (self.since, self.worst, self.rest) = (second, 0.0, rest);
            }
            self.halves += 1;
            self.worst = self.worst.max(over);
            return None;
        }
        let ended = (self.halves > 0).then_some((self.since, self.halves as f64 / 2.0, self.worst));
        self.halves = 0;
        ended
    }
}

/// Turns of a value: how often it changes its direction by more than noise.
#[derive(Debug, Default)]
struct Turns {
    extreme: f64,
    is_up: bool,
    by_hour: BTreeMap<usize, u32>,
}

impl Turns {
    fn note(&mut self, second: usize, value: f64, noise: f64) {
        let is_on = if self.is_up { value > self.extreme } else { value < self.extreme };
        if is_on {
            self.extreme = value;
        } else if (value - self.extreme).abs() > noise {
            self.is_up = !self.is_up;
            self.extreme = value;
            *self.by_hour.entry(second / 3600).or_default() += 1;
        }
    }

    fn most(&self) -> (usize, u32) {
        self.by_hour.iter().map(|(h, n)| (*h, *n)).max_by_key(|(_, n)| *n).unwrap_or_default()
    }
}

/// Everything that is seen.
#[derive(Debug, Default)]
pub(super) struct Measure {
    pub(super) second: usize,
    fuse: [Excess; 3],
    fuse_spans: Vec<(usize, f64, f64)>,
    export: Excess,
    export_spans: Vec<(usize, f64, f64)>,
    /// Lowest and highest, %.
    soc: Option<(f64, f64)>,
    cuts: Vec<(usize, f64)>,
    deadlines: Vec<(usize, usize, f64)>,
    car_turns: [Turns; 2],
    /// Phases of each charger as set, and how often that changed by day.
    phases: [u8; 2],
    switches: BTreeMap<(usize, usize), u32>,
    battery_turns: Turns,
    beyond: Vec<String>,
    pub(super) results: Vec<CommandResult>,
    gone_for: usize,
    /// Since when the grid meter is silent.
    pub(super) blind_since: Option<usize>,
    /// Half-seconds in which the worst case had to be assumed.
    blind_seen: usize,
}

impl Measure {
    pub(super) fn half(&mut self, second: usize, house: &House, load_w: [f64; 3], orders: Option<&[Order]>) {
        self.second = second;
        // Without derd nobody ends an excess; and the first values need their time.
        self.gone_for = if orders.is_none() { 24 } else { self.gone_for.saturating_sub(1) };
        for (phase, load) in load_w.into_iter().enumerate() {
            let amps = house.grid.power_w[phase] / 230.0;
            // What would be left if the cars paused and the battery did not charge.
            let rest = load - house.pv.phases_w()[phase] - house.battery.phases_w()[phase].max(0.0);
            let is_ours = rest / 230.0 <= FUSE_A && self.gone_for == 0;
            let over = if is_ours { amps - FUSE_A * FUSE_SLACK } else { 0.0 };
            self.fuse_spans.extend(self.fuse[phase].note(second, over, rest / 230.0, 1.0));
        }
        let over = if self.gone_for == 0 { -house.grid.total_w() - EXPORT_W - EXPORT_SLACK_W } else { 0.0 };
        self.export_spans.extend(self.export.note(
            second,
            over,
            house.pv.available_w - load_w.iter().sum::<f64>(),
            500.0,
        ));
        let soc = house.battery.soc_pct();
        let (low, high) = self.soc.unwrap_or((soc, soc));
        self.soc = Some((low.min(soc), high.max(soc)));
        for (index, turns) in self.car_turns.iter_mut().enumerate() {
            turns.note(second, house.charger(index).offered_a(), 0.5);
        }
        if let Some(Order::Hold(setpoint)) = orders.and_then(|o| o.get(1))
            && let Demand::BatteryPower { watts, .. } = setpoint.demand()
        {
            self.battery_turns.note(second, watts, 150.0);
            if !(-5000.5..=4500.5).contains(&watts) {
                self.beyond.push(format!("battery told {watts} W at {second}"));
            }
        }
        // Silent for 5 s, and its last answer may be a second older: then everybody takes what is safe without it.
        if self.blind_since.is_some_and(|since| second >= since + 7) {
            let charges = orders.and_then(|o| o.get(1)).is_some_and(|o| {
                matches!(o, Order::Hold(s) if matches!(s.demand(), Demand::BatteryPower { watts, .. } if watts < 0.0))
            });
            let most = (0..2).map(|i| house.charger(i).offered_a()).fold(0.0, f64::max);
            if charges || most > 6.0 {
                self.beyond
                    .push(format!("blind at {}: a car has {most} A, the battery charges: {charges}", clock(second)));
            }
            self.blind_seen += 1;
        }
        for index in 0..2 {
            let phases = house.charger(index).phases();
            if std::mem::replace(&mut self.phases[index], phases) != phases && second > 0 {
                *self.switches.entry((index, second / 86_400)).or_default() += 1;
            }
            if house.charger(index).amps > 16.0 {
                self.beyond.push(format!("car{} told {} A at {second}", index + 1, house.charger(index).amps));
            }
        }
    }

    pub(super) fn due(&mut self, car: usize, second: usize, soc_pct: f64) {
        self.deadlines.push((car, second, soc_pct));
    }

    pub(super) fn cut(&mut self, house: &House) {
        self.cuts.push((self.second, house.battery.power_w));
    }
}

/// `Tue 18:30:12`.
fn clock(second: usize) -> String {
    let day = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"][(second / 86_400).min(6)];
    let s = second % 86_400;
    format!("{day} {:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

fn longest(spans: &[(usize, f64, f64)]) -> f64 {
    spans.iter().map(|(_, s, _)| *s).fold(0.0, f64::max)
}

impl Week {
    /// Everything that must hold; all faults at once.
    pub(super) fn check(&self, seed: u64, days: usize) {
        let m = &self.measure;
        let mut faults: Vec<String> = m.beyond.iter().take(5).cloned().collect();
        let list = |spans: &[(usize, f64, f64)], most: f64, unit: &str| {
            let bad = spans.iter().filter(|(_, s, _)| *s > most);
            bad.map(|(at, s, worst)| format!("{} for {s} s, {worst:.1} {unit} at worst", clock(*at)))
                .collect::<Vec<_>>()
        };
        for (what, spans, most, unit) in [("fuse", &m.fuse_spans, 10.0, "A"), ("export", &m.export_spans, 15.0, "W")] {
            let bad = list(spans, most, unit);
            println!("seed {seed}: {what}: {} spans over, the longest {} s", spans.len(), longest(spans));
            faults.extend(bad.into_iter().take(12).map(|b| format!("{what} exceeded: {b}")));
        }
        let (low, high) = m.soc.unwrap_or_default();
        println!(
            "seed {seed}: SoC {low:.2} to {high:.2} %; {} polls; {} decisions told; cuts {:?}",
            self.polls, self.disk.decisions, m.cuts
        );
        if days >= 2 && m.blind_seen < 90 {
            faults.push("the grid meter was never silent".to_owned());
        }
        if low < 9.5 || high > 100.0 {
            faults.push(format!("SoC {low:.2} to {high:.2} %"));
        }
        for (at, watts) in &m.cuts {
            if *watts < 1000.0 {
                faults.push(format!("the power cut at {} was in no discharge: {watts} W", clock(*at)));
            }
        }
        for (index, turns) in m.car_turns.iter().enumerate() {
            let (hour, n) = turns.most();
            println!("seed {seed}: car{}: most turns {n} in the hour of {}", index + 1, clock(hour * 3600));
            if n > 40 {
                faults.push(format!("car{} swings: {n} turns in the hour of {}", index + 1, clock(hour * 3600)));
            }
        }
        for index in 0..2 {
            let by_day: Vec<u32> = (0..days).map(|d| m.switches.get(&(index, d)).copied().unwrap_or(0)).collect();
            println!("seed {seed}: car{}: phase switches by day {by_day:?}", index + 1);
            // The plan's own bound, and a few ways back to what the installer set.
            if by_day.iter().any(|n| *n > 14) {
                faults.push(format!("car{}: phase switches by day {by_day:?}", index + 1));
            }
        }
        let (hour, n) = m.battery_turns.most();
        println!("seed {seed}: battery: most turns {n} in the hour of {}", clock(hour * 3600));
        if n > 30 {
            faults.push(format!("the battery swings: {n} turns in the hour of {}", clock(hour * 3600)));
        }
        for (car, at, soc) in &m.deadlines {
            if *soc < 99.9 {
                faults.push(format!("car{} has {soc:.1} % by its deadline, {}", car + 1, clock(*at)));
            }
        }
        self.money.check(seed, days, &mut faults);
        self.check_writes(seed, days, &mut faults);
        if days * 86_400 >= WEEK {
            self.check_commands(seed, &self.script, &mut faults);
        }
        for event in &self.disk.events {
            if !matches!(event.code.as_str(), "import_limit" | "export_limit" | "grid_meter_stale" | "write_budget") {
                faults.push(format!("{}: {} {}", event.ts, event.code, event.text));
            }
        }
        assert!(faults.is_empty(), "seed {seed}:\n{}", faults.join("\n"));
    }

    fn check_writes(&self, seed: u64, days: usize, faults: &mut Vec<String>) {
        for ((device, place), at) in &self.writes {
            let mut by_day = vec![0_u32; days + 1];
            at.iter().for_each(|s| by_day[(s / 86_400).min(days)] += 1);
            let most = by_day.iter().max().copied().unwrap_or(0);
            println!("seed {seed}: {} {place}: {} writes, at most {most} a day", NAMES[*device], at.len());
            if most > 2500 {
                faults.push(format!("{} {place}: {most} writes in a day", NAMES[*device]));
            }
        }
    }

    fn check_commands(&self, seed: u64, script: &Script, faults: &mut Vec<String>) {
        let mut finals: BTreeMap<String, Vec<&CommandResult>> = BTreeMap::new();
        for result in self.measure.results.iter().filter(|r| r.state.is_final()) {
            let id = result.id.as_ref().map_or_else(|| "?".to_owned(), |id| id.as_str().to_owned());
            finals.entry(id).or_default().push(result);
        }
        let mut states: BTreeMap<CommandState, u32> = BTreeMap::new();
        for n in 1..=script.commands() {
            let id = format!("c-{n}");
            match finals.get(&id).map(Vec::as_slice) {
                Some([one]) => {
                    *states.entry(one.state).or_default() += 1;
                    if matches!(one.state, CommandState::Failed | CommandState::Rejected | CommandState::Reverted) {
                        faults.push(format!("{id} is {}: {:?}", one.state, one.reason));
                    }
                    if let (Some(wh), Some(from), Some(to)) = (one.delivered_wh, one.started_at, one.ended_at) {
                        let most = 11_100.0 * to.since(from).as_secs_f64() / 3600.0 + 20.0;
                        if !(0.0..=most).contains(&wh) {
                            faults.push(format!("{id} delivered {wh} Wh of {most} Wh at most"));
                        }
                    }
                }
                other => faults.push(format!("{id} has {} final states", other.map_or(0, <[_]>::len))),
            }
        }
        println!("seed {seed}: commands: {states:?}");
        if !self.disk.open.is_empty() {
            faults.push(format!("{} commands are still open", self.disk.open.len()));
        }
    }
}
