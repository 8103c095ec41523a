//! Films: text fixtures of cycles, inputs -> orders and reasons. The inputs of a cycle come in an order shuffled by a seed.
//!
//! ```text
//! site fuse=25 phases=3 export=7000
//! device battery battery control max_charge=5000     # kind, then `control`, `unread` (never seen), key=value
//! clock untrusted | synced                            # until changed
//! at 12                                               # a cycle, seconds since the start; its inputs and expectations follow
//! see battery power=0 soc=50                          # a sample; it comes again in each cycle until the device is silent
//! cmd c1 battery charge power_w=3000 rank=command by=acme n=1 for=900
//! plan p1 n=2 {"device":...}                          # on the rest of the line
//! limit s1 import 3000 for=60
//! cmd o1 charger start rank=owner n=1 session         # ends when the car leaves
//! pause | pause for=60 | resume | optout [battery]    # the owner's word
//! release acme battery | withdraw c1 | drop p1 | outcome c1 verified | silent grid
//! expect battery power -3000 by c1                    # wait, free, release, power W, reserve PCT, limit W, amps A, off
//! expect battery power -3000 by c1 then release       # `then`: what it takes when the lease ends
//! update c1 active power_w=3000 limited=import_limit  # one of the updates of this cycle or run
//! event import_limit raised
//! why battery wins c1                                 # of the live decision's trace
//! why battery waits c2 owner                          # for a higher rank; `later`: for a newer one of its rank;
//!                                                     # `paused`: for the owner
//! why battery impossible c3
//! why battery nobody                                  # no holder
//! why battery limit import_limit 5000 2000            # `-` for what nothing had limited yet
//! why battery limits 0                                # so many limits bit
//! why battery input grid_w stale                      # or its value
//! why battery lease verified
//! says battery "its words"                            # the sentence has them
//! told battery 1                                      # so often it came into the journal in this cycle or run
//! quiet                                               # no update at all
//! run 10                                              # ten more cycles, a second apart
//! ```

mod pairs;
mod reasons;

use super::ControlMsg;
use super::core::{Core, Effect, Now};
use crate::model::{
    Action, BootId, Capabilities, ClockState, ControlSettings, Coupling, Decided, Demand, DeviceId, DeviceKind,
    DeviceLimits, DeviceSpec, DeviceState, DeviceStatus, Event, GridSide, Intent, IntentKey, IntentUpdate, Mono, Order,
    Outcome, Point, Progress, Rank, Role, Sample, SiteLimit, SiteSpec, Stage, Timestamp, UplinkName, Value,
};
use crate::plan::PlanDoc;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// 2026-11-20T12:00:00Z, a Friday.
const T0: i64 = 1_795_176_000_000;

#[test]
fn films() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/control/films");
    let mut played = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "film") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for seed in 0..16 {
            Film::play(&path.file_name().unwrap().to_string_lossy(), &text, seed);
        }
        played += 1;
    }
    assert!(played >= 8, "only {played} films were found");
}

/// A line's words and its `key=value` pairs.
struct Line<'a> {
    words: Vec<&'a str>,
    pairs: BTreeMap<&'a str, &'a str>,
    rest: &'a str,
    /// Between quotation marks.
    quoted: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn new(text: &'a str) -> Self {
        let quoted = text.split('"').nth(1).filter(|_| !text.contains('{'));
        let head = text.split(['{', '"']).next().unwrap();
        let (pairs, words): (Vec<_>, Vec<_>) = head.split_whitespace().partition(|w| w.contains('='));
        Self {
            words,
            pairs: pairs.iter().map(|p| p.split_once('=').unwrap()).collect(),
            rest: &text[head.len()..],
            quoted,
        }
    }
    fn word(&self, i: usize) -> &'a str {
        self.words.get(i).copied().unwrap_or_else(|| panic!("word {i} is missing after {:?}", self.words))
    }
    fn num(&self, key: &str) -> Option<f64> {
        self.pairs.get(key).map(|v| v.parse().unwrap_or_else(|_| panic!("{key}={v} is no number")))
    }
    fn has(&self, word: &str) -> bool {
        self.words.contains(&word)
    }
}

type Points = Vec<(Point, f64, Option<&'static str>)>;

struct Film<'a> {
    name: &'a str,
    seed: u64,
    dice: u64,
    site: SiteSpec,
    specs: Vec<DeviceSpec>,
    caps: Vec<(usize, Capabilities)>,
    core: Option<Core>,
    ms: u64,
    /// The cycle of this instant was not played yet.
    is_due: bool,
    clock: ClockState,
    last: BTreeMap<DeviceId, Points>,
    inputs: Vec<Input>,
    expectations: Vec<(usize, &'a str)>,
    orders: BTreeMap<DeviceId, Order>,
    updates: Vec<IntentUpdate>,
    events: Vec<Event>,
    journal: Vec<Arc<Decided>>,
}

enum Input {
    Sample(Sample),
    Message(ControlMsg),
    Outcome(Outcome),
}

fn key_of(id: &str, device: Option<&DeviceId>) -> IntentKey {
    IntentKey::Command { uplink: "acme".parse().unwrap(), device: device.cloned(), id: id.parse().unwrap() }
}

/// How a key is written in a film.
fn short(key: &IntentKey) -> String {
    match key {
        IntentKey::Command { id, .. } => id.to_string(),
        IntentKey::Plan(id) => id.to_string(),
        IntentKey::Limit(name) => (*name).to_owned(),
    }
}

impl<'a> Film<'a> {
    fn play(name: &'a str, text: &'a str, seed: u64) {
        let mut film = Film {
            name,
            seed,
            dice: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            site: SiteSpec {
                name: "home".into(),
                timezone: "Europe/Berlin".into(),
                phases: 3,
                main_fuse_a: None,
                export_limit_w: None,
            },
            specs: Vec::new(),
            caps: Vec::new(),
            core: None,
            ms: 0,
            is_due: false,
            clock: ClockState::Synced,
            last: BTreeMap::new(),
            inputs: Vec::new(),
            expectations: Vec::new(),
            orders: BTreeMap::new(),
            updates: Vec::new(),
            events: Vec::new(),
            journal: Vec::new(),
        };
        for (number, line) in text.lines().enumerate() {
            let line = line.split(" #").next().unwrap().trim();
            if !line.is_empty() && !line.starts_with('#') {
                film.line(number + 1, line);
            }
        }
        film.cut();
    }

    fn line(&mut self, number: usize, text: &'a str) {
        let line = Line::new(text);
        match line.word(0) {
            "site" => {
                self.site.main_fuse_a = line.num("fuse");
                self.site.export_limit_w = line.num("export");
                self.site.phases = line.num("phases").map_or(3, |p| p as u8);
            }
            "device" => self.device(&line),
            "clock" => self.clock = if line.has("synced") { ClockState::Synced } else { ClockState::Untrusted },
            "at" => {
                self.cut();
                self.is_due = true;
                self.ms = (line.word(1).parse::<f64>().unwrap() * 1000.0) as u64;
            }
            "run" => {
                self.cut();
                for _ in 0..line.word(1).parse::<u32>().unwrap() {
                    self.ms += 1000;
                    self.repeat();
                    self.cycle();
                }
            }
            "expect" | "update" | "event" | "quiet" | "why" | "says" | "told" => self.expectations.push((number, text)),
            _ => self.input(&line),
        }
    }

    fn device(&mut self, line: &Line<'_>) {
        let kind = DeviceKind::from_word(line.word(2)).unwrap();
        self.caps.push((
            self.specs.len(),
            Capabilities {
                actions: match kind {
                    DeviceKind::Charger if line.has("fixed") => vec!["start", "stop"],
                    DeviceKind::Charger => vec!["start", "stop", "set_max_current"],
                    DeviceKind::Inverter => vec!["set_power_limit", "set_export_limit"],
                    _ => vec![],
                },
                max_charge_w: line.num("can_charge"),
                max_discharge_w: line.num("can_discharge"),
                rated_w: line.num("rated"),
                min_current_a: line.num("min_a"),
                max_current_a: line.num("can_a"),
                phase_switch: line.has("phases"),
                ..Capabilities::default()
            },
        ));
        self.specs.push(DeviceSpec {
            id: line.word(1).parse().unwrap(),
            kind,
            role: line.has("grid").then_some(Role::Grid),
            coupling: if line.has("dc") { Coupling::Dc } else { Coupling::Ac },
            profile: String::new(),
            link: String::new(),
            unit: 1,
            poll: Duration::from_secs(1),
            invert: false,
            limits: DeviceLimits {
                max_charge_w: line.num("max_charge"),
                max_discharge_w: line.num("max_discharge"),
                min_soc_pct: line.num("min_soc"),
                max_soc_pct: line.num("max_soc"),
                max_power_w: line.num("max_power"),
                max_current_a: line.num("max_a"),
                ramp_w_per_s: line.num("ramp"),
                min_on: line.num("min_on").map(Duration::from_secs_f64),
                min_off: line.num("min_off").map(Duration::from_secs_f64),
            },
            control: ControlSettings {
                enabled: line.has("control"),
                accept_no_failsafe: false,
                fallback_current_a: line.num("fallback"),
                ..ControlSettings::default()
            },
        });
    }

    fn input(&mut self, line: &Line<'_>) {
        let ends = Duration::from_secs(line.num("for").map_or(900, |s| s as u64));
        let deadline = Mono::from_ms(self.ms).plus(ends);
        let ends_at = self.now().wall.plus(ends);
        let input = match line.word(0) {
            "see" => {
                let device: DeviceId = line.word(1).parse().unwrap();
                let known = [
                    ("power", Point::PowerW),
                    ("soc", Point::SocPct),
                    ("l1", Point::CurrentL1A),
                    ("l2", Point::CurrentL2A),
                    ("l3", Point::CurrentL3A),
                    ("w1", Point::PowerL1W),
                    ("w2", Point::PowerL2W),
                    ("w3", Point::PowerL3W),
                ];
                let mut points: Vec<_> =
                    known.into_iter().filter_map(|(k, p)| line.num(k).map(|v| (p, v, None))).collect();
                for state in ["unplugged", "charging", "plugged"] {
                    if line.has(state) {
                        points.push((Point::State, 0.0, Some(state)));
                    }
                }
                self.last.insert(device.clone(), points.clone());
                Input::Sample(self.sample(&device, &points))
            }
            "silent" => {
                self.last.remove(&line.word(1).parse::<DeviceId>().unwrap());
                return;
            }
            "cmd" => {
                let device: DeviceId = line.word(2).parse().unwrap();
                let act = if line.has("session") { ControlMsg::Session } else { ControlMsg::Intent };
                Input::Message(act(Intent {
                    key: key_of(line.word(1), Some(&device)),
                    device,
                    action: action(line, line.word(3)),
                    rank: Rank::from_word(line.pairs.get("rank").unwrap_or(&"command")).unwrap(),
                    source: (*line.pairs.get("by").unwrap_or(&"acme")).into(),
                    accepted: line.num("n").unwrap() as u64,
                    since: self.now().wall,
                    ends_at,
                    deadline,
                    why: None,
                }))
            }
            "plan" => {
                let kind = |d: &DeviceId| self.specs.iter().find(|s| s.id == *d).map(|s| s.kind);
                let id = line.word(1).parse().unwrap();
                let doc = PlanDoc::parse(Some(&id), line.rest.as_bytes(), kind, "Europe/Berlin").unwrap();
                let order = line.num("n").unwrap() as u64;
                Input::Message(ControlMsg::Plan { doc: Arc::new(doc), order, source: "acme".into() })
            }
            "drop" => Input::Message(ControlMsg::DropPlan(line.word(1).parse().unwrap())),
            "limit" => Input::Message(ControlMsg::SiteLimit(SiteLimit {
                key: key_of(line.word(1), None),
                side: GridSide::from_word(line.word(2)).unwrap(),
                power_w: line.word(3).parse().unwrap(),
                ends_at,
                deadline,
            })),
            "pause" => {
                let end = crate::model::LeaseEnd { mono: deadline, wall: ends_at };
                let until = line.num("for").map(|_| end);
                Input::Message(ControlMsg::Pause { until })
            }
            "resume" => Input::Message(ControlMsg::Resume),
            "optout" => Input::Message(ControlMsg::OptOut { device: line.words.get(1).map(|d| d.parse().unwrap()) }),
            "release" => Input::Message(ControlMsg::Release {
                uplink: line.word(1).parse::<UplinkName>().unwrap(),
                device: line.word(2).parse().unwrap(),
            }),
            "withdraw" => {
                let device = line.words.get(2).map(|d| d.parse().unwrap());
                Input::Message(ControlMsg::Withdraw(key_of(line.word(1), device.as_ref())))
            }
            "outcome" => {
                let (_, setpoint) = self
                    .orders
                    .iter()
                    .filter_map(|(d, o)| if let Order::Hold(s) = o { Some((d, s)) } else { None })
                    .find(|(_, s)| short(s.cause()) == line.word(1))
                    .unwrap_or_else(|| panic!("{} holds nothing", line.word(1)));
                Input::Outcome(Outcome {
                    device: setpoint.device().clone(),
                    cause: Some(setpoint.cause().clone()),
                    demand: setpoint.demand(),
                    at: self.now().wall,
                    stage: match line.word(2) {
                        "written" => Stage::Written,
                        "verified" => Stage::Verified,
                        "failed" => Stage::Failed("refused".into()),
                        _ => Stage::Reverted("something else wrote".into()),
                    },
                    evidence: Vec::new(),
                })
            }
            other => panic!("{}: what is `{other}`", self.name),
        };
        self.inputs.push(input);
    }

    fn now(&self) -> Now {
        let wall = Timestamp::from_ms(T0 + i64::try_from(self.ms).unwrap());
        Now { mono: Mono::from_ms(self.ms), wall, clock: self.clock }
    }

    fn sample(&self, device: &DeviceId, points: &Points) -> Sample {
        Sample {
            device: device.clone(),
            ts: self.now().wall,
            mono: Mono::from_ms(self.ms),
            boot: BootId::new("0").unwrap(),
            seq: 0,
            clock: self.clock,
            points: points
                .iter()
                .map(|(p, v, text)| (p.clone(), Ok(text.map_or(Value::Num(*v), |t| Value::Text(t.into())))))
                .collect(),
        }
    }

    /// Every device that is not silent is read in every cycle.
    fn repeat(&mut self) {
        for (device, points) in self.last.clone() {
            if !self.inputs.iter().any(|i| matches!(i, Input::Sample(s) if s.device == device)) {
                let sample = self.sample(&device, &points);
                self.inputs.push(Input::Sample(sample));
            }
        }
    }

    fn roll(&mut self) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice
    }

    fn cycle(&mut self) {
        let now = self.now();
        let mut inputs = std::mem::take(&mut self.inputs);
        for i in (1..inputs.len()).rev() {
            let j = self.roll() as usize % (i + 1);
            inputs.swap(i, j);
        }
        let core = self.core.get_or_insert_with(|| {
            let mut core = Core::new(self.site.clone(), self.specs.clone(), now.mono);
            for (i, capabilities) in &self.caps {
                let status = DeviceStatus {
                    state: DeviceState::Online,
                    capabilities: capabilities.clone(),
                    ..DeviceStatus::default()
                };
                core.device(*i, &status, now);
            }
            core
        });
        for input in inputs {
            match input {
                Input::Sample(s) => core.sample(Arc::new(s), now),
                Input::Message(m) => core.message(m, now),
                Input::Outcome(o) => core.outcome(&o, now),
            }
        }
        let effects = core.cycle(now);
        for effect in effects {
            match effect {
                Effect::Order(i, order) => {
                    self.orders.insert(self.specs[i].id.clone(), order);
                }
                // What is told every some seconds for the disk alone is no part of a film.
                Effect::Update(IntentUpdate { progress: Progress::Delivered { .. }, .. }) => {}
                Effect::Update(u) => self.updates.push(u),
                Effect::Event(e) => self.events.push(e),
                Effect::Decided(d) => self.journal.push(d),
            }
        }
        let live = core.status().decided.clone();
        live.values().for_each(|decided| self.check_truth(decided));
        // Nothing changes without an input.
        let again: Vec<_> = self.core.as_mut().map(|c| c.cycle(now)).unwrap_or_default();
        assert_eq!(again, vec![], "{} seed {}: a second cycle at {} ms", self.name, self.seed, self.ms);
    }

    /// End of a cycle's lines: play it, then check what was expected.
    fn cut(&mut self) {
        if self.is_due {
            self.repeat();
            self.cycle();
        }
        self.is_due = false;
        for (number, text) in std::mem::take(&mut self.expectations) {
            let place = format!("{}:{number} (seed {}): {text}", self.name, self.seed);
            self.check(&Line::new(text), &place);
        }
        self.updates.clear();
        self.events.clear();
        self.journal.clear();
    }

    fn check(&self, line: &Line<'_>, place: &str) {
        match line.word(0) {
            "why" | "says" | "told" => self.check_reason(line, place),
            "quiet" => assert_eq!(self.updates, vec![], "{place}"),
            "event" => assert!(
                self.events.iter().any(|e| e.code == line.word(1) && e.state.as_str() == line.word(2)),
                "{place}\nevents: {:?}",
                self.events
            ),
            "update" => {
                let told: BTreeSet<_> = self.updates.iter().map(told).collect();
                let want = text_of(line);
                assert!(told.contains(&want), "{place}\nupdates: {told:#?}");
            }
            _ => {
                let device: DeviceId = line.word(1).parse().unwrap();
                let is = self.orders.get(&device).map_or_else(|| "wait".to_owned(), order_text);
                let want = line.words[2..].join(" ");
                let is = if line.has("then") { is } else { is.split(" then ").next().unwrap().to_owned() };
                assert_eq!(is, want, "{place}");
            }
        }
    }
}

fn text_of(line: &Line<'_>) -> String {
    let mut text = line.words[1..].join(" ");
    for (k, v) in &line.pairs {
        text.push_str(&format!(" {k}={v}"));
    }
    text
}

fn told(update: &IntentUpdate) -> String {
    let what = match &update.progress {
        Progress::Active(a) => {
            let mut pairs: BTreeMap<String, String> = a.params.iter().map(|(k, v)| (k.clone(), number(*v))).collect();
            pairs.extend(a.limited_by.iter().map(|l| ("limited".to_owned(), l.clone())));
            let pairs: String = pairs.iter().map(|(k, v)| format!(" {k}={v}")).collect();
            format!("active{pairs}")
        }
        Progress::Device { stage, .. } => match stage {
            Stage::Written => "written".into(),
            Stage::Verified => "verified".into(),
            Stage::Failed(_) => "failed".into(),
            Stage::Reverted(_) => "reverted".into(),
        },
        Progress::Effect => "effect".into(),
        Progress::Suspended(_) => "suspended".into(),
        Progress::Superseded(_) => "superseded".into(),
        Progress::Ended { delivered_wh } => delivered_wh.map_or("ended".into(), |w| format!("ended wh={}", number(w))),
        Progress::Cut { .. } => "cut".into(),
        Progress::Delivered { .. } => "delivered".into(),
    };
    format!("{} {what}", short(&update.key))
}

fn number(value: f64) -> String {
    format!("{}", (value * 10.0).round() / 10.0)
}

fn demand_text(demand: Demand) -> String {
    match demand {
        Demand::Release => "release".into(),
        Demand::BatteryPower { watts, .. } => format!("power {}", number(watts)),
        Demand::Reserve { pct } => format!("reserve {}", number(pct)),
        Demand::PowerLimit { watts } => format!("limit {}", number(watts)),
        Demand::ChargerCurrent { amps, phases: None } => format!("amps {}", number(amps)),
        Demand::ChargerCurrent { amps, phases: Some(phases) } => format!("amps {} on {phases}", number(amps)),
        Demand::ChargerLimit { amps } => format!("most {}", number(amps)),
        Demand::ChargerOff => "off".into(),
    }
}

fn order_text(order: &Order) -> String {
    match order {
        Order::Wait => "wait".into(),
        Order::Free => "free".into(),
        Order::Hold(s) => {
            format!("{} by {} then {}", demand_text(s.demand()), short(s.cause()), demand_text(s.on_end()))
        }
    }
}

fn action(line: &Line<'_>, name: &str) -> Action {
    let mut params = serde_json::Map::new();
    for key in ["power_w", "min_soc_pct", "max_soc_pct", "soc_pct", "pct", "current_a"] {
        if let Some(value) = line.num(key) {
            params.insert(key.into(), value.into());
        }
    }
    let kind = match name {
        "start" | "stop" | "set_max_current" => DeviceKind::Charger,
        "set_export_limit" | "set_power_limit" => DeviceKind::Inverter,
        _ => DeviceKind::Battery,
    };
    crate::wire::parse_action(kind, name, &params).unwrap()
}
