//! Plans over time: weeks without a network, restarts, and wall clocks that jump.

use super::ControlMsg;
use super::core::{Core, Effect, Now};
use crate::model::{
    Action, BootId, Capabilities, ClockState, ControlSettings, Coupling, Demand, DeviceKind, DeviceLimits, DeviceSpec,
    DeviceState, DeviceStatus, Intent, IntentKey, Mono, Order, Outcome, Point, Progress, Rank, Sample, SiteSpec, Stage,
    Timestamp, UplinkName, Value,
};
use crate::plan::PlanDoc;
use crate::runtime::Clock;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const BATTERY: usize = 0;
const CAR: usize = 1;

fn spec(id: &str, kind: DeviceKind) -> DeviceSpec {
    DeviceSpec {
        id: id.parse().unwrap(),
        kind,
        role: None,
        coupling: Coupling::Ac,
        profile: String::new(),
        link: String::new(),
        unit: 1,
        poll: SECOND,
        invert: false,
        limits: DeviceLimits::default(),
        control: ControlSettings { enabled: true, ..ControlSettings::default() },
    }
}

fn doc(json: &Json) -> Arc<PlanDoc> {
    let kind_of = |id: &crate::model::DeviceId| match id.as_str() {
        "car" => Some(DeviceKind::Charger),
        _ => Some(DeviceKind::Battery),
    };
    let parsed = PlanDoc::parse(None, json.to_string().as_bytes(), kind_of, "Europe/Berlin");
    Arc::new(parsed.unwrap_or_else(|reasons| panic!("{reasons:?}")))
}

/// Control with a battery and a charger that are there, and the orders that lie in their cells.
struct Home {
    core: Core,
    cells: [Order; 2],
    /// What they shall hold: standing settings only pass through the cells.
    held: [Option<Demand>; 2],
}

impl Home {
    fn start(plans: &[Arc<PlanDoc>], now: Now) -> Self {
        let specs = vec![spec("battery", DeviceKind::Battery), spec("car", DeviceKind::Charger)];
        let site = SiteSpec {
            name: "home".into(),
            timezone: "Europe/Berlin".into(),
            phases: 3,
            main_fuse_a: None,
            export_limit_w: None,
        };
        let mut core = Core::new(site, specs, now.mono);
        for (order, doc) in (1..).zip(plans) {
            core.message(ControlMsg::Plan { doc: Arc::clone(doc), order, source: "test".into() }, now);
        }
        let capabilities = Capabilities {
            actions: vec!["charge", "discharge", "idle", "auto", "set_reserve", "start", "stop", "set_max_current"],
            min_current_a: Some(6.0),
            max_current_a: Some(32.0),
            ..Capabilities::default()
        };
        let status = DeviceStatus { state: DeviceState::Online, capabilities, ..DeviceStatus::default() };
        for device in [BATTERY, CAR] {
            core.device(device, &status, now);
        }
        Self { core, cells: [Order::Wait, Order::Wait], held: [None, None] }
    }

    fn cycle(&mut self, now: Now) -> Vec<Effect> {
        for (id, points) in [("battery", vec![(Point::SocPct, 50.0)]), ("car", vec![])] {
            let points =
                points.into_iter().chain([(Point::PowerW, 0.0)]).map(|(p, v)| (p, Ok(Value::Num(v)))).collect();
            let sample = Sample {
                device: id.parse().unwrap(),
                ts: now.wall,
                mono: now.mono,
                boot: BootId::new("0").unwrap(),
                seq: 0,
                clock: now.clock,
                points,
            };
            self.core.sample(Arc::new(sample), now);
        }
        let effects = self.core.cycle(now);
        for effect in &effects {
            let Effect::Order(device, order) = effect else { continue };
            self.cells[*device] = order.clone();
            match order {
                Order::Hold(setpoint) if setpoint.demand().is_standing() => {}
                Order::Hold(setpoint) => self.held[*device] = Some(setpoint.demand()),
                Order::Free | Order::Wait => self.held[*device] = None,
            }
        }
        effects
    }
}

fn berlin(wall: Timestamp) -> jiff::civil::DateTime {
    TimeZone::get("Europe/Berlin").unwrap().to_datetime(jiff::Timestamp::from_millisecond(wall.ms()).unwrap())
}

/// 40 days over the end of summer time, a quarter of an hour at a time, with a restart every five days: what is in force is
/// read again from what was stored. Nothing comes from outside.
#[test]
fn plans_go_on_for_weeks_without_a_network_and_over_restarts() {
    let clock = Clock::manual("2026-10-10T00:07:00Z".parse().unwrap());
    let begin = clock.now();
    let quarter = Duration::from_secs(900);
    let day = quarter * 96;
    // Every second day of the slots' month, from the start on for two hours.
    let slots: Vec<_> = (0..20_u32)
        .map(|n| {
            let start = begin.plus(day * (2 * n + 1));
            json!({"start": start.to_string(), "end": start.plus(quarter * 8).to_string(), "action": "set_max_current",
                   "params": {"current_a": 10 + n % 5}})
        })
        .collect();
    let mut stored = vec![
        json!({"id": "night", "device": "battery", "kind": "weekly", "timezone": "Europe/Berlin",
            "rules": [{"days": ["mon", "tue", "wed", "thu", "fri"], "start": "22:00", "end": "06:00", "action": "charge", "params": {"power_w": 2000}},
                      {"start": "17:00", "end": "20:00", "action": "discharge", "params": {"power_w": 1500}}]}),
        json!({"id": "low", "device": "battery", "kind": "weekly", "rank": "tag", "default": {"action": "idle"}, "rules": []}),
        json!({"id": "cars", "device": "car", "kind": "slots", "slots": slots}),
        json!({"id": "stop", "device": "car", "kind": "weekly", "default": {"action": "stop"}, "rules": []}),
    ];
    let now = |clock: &Clock| Now { mono: clock.mono(), wall: clock.now(), clock: ClockState::Holdover };
    let mut home = None;
    let mut seen = BTreeMap::new();
    for step in 0..96 * 40_u32 {
        if step % (96 * 5) == 0 {
            let docs: Vec<_> = stored.iter().map(doc).collect();
            stored = docs.iter().map(|doc| doc.to_json()).collect();
            home = Some(Home::start(&docs, now(&clock)));
        }
        let home = home.as_mut().unwrap();
        let wall = clock.now();
        home.cycle(now(&clock));
        // By the calendar, in other words than the documents.
        let local = berlin(wall);
        let weekday = local.weekday().to_monday_zero_offset();
        let watts = match local.hour() {
            22.. if weekday < 5 => -2000.0,
            0..6 if (1..6).contains(&weekday) => -2000.0,
            17..20 => 1500.0,
            _ => 0.0,
        };
        let Some(Demand::BatteryPower { watts: got, .. }) = home.held[BATTERY] else {
            panic!("{wall}: {:?}", home.held[BATTERY])
        };
        assert!((got - watts).abs() < 0.1, "{wall} ({local}): {got} W, not {watts} W");
        *seen.entry(format!("{watts}")).or_insert(0) += 1;
        let since = wall.since(begin);
        let days = u32::try_from(since.as_secs() / day.as_secs()).unwrap();
        let is_slot = days % 2 == 1 && (since - day * days) < quarter * 8;
        let wants = if is_slot {
            Demand::ChargerCurrent { amps: f64::from(10 + (days / 2) % 5), phases: None }
        } else {
            Demand::ChargerOff
        };
        assert_eq!(home.held[CAR], Some(wants), "{wall}");
        clock.advance(quarter);
    }
    assert_eq!(seen.len(), 3, "all three were seen: {seen:?}");
}

/// What happens to the wall clock before a cycle.
#[derive(Debug, Clone, Copy)]
enum Tick {
    /// A second passes.
    Second,
    /// And the clock is set, s.
    Step(i64),
    /// And the clock is not to be trusted, or is again.
    Trust(bool),
    /// And somebody commands the charger for so many seconds.
    Command(u64),
}

fn tick() -> impl Strategy<Value = Tick> {
    prop_oneof![
        40 => Just(Tick::Second),
        2 => (-400..400_i64).prop_map(Tick::Step),
        2 => (-3..4_i64).prop_map(Tick::Step),
        1 => (-100_000_000..100_000_000_i64).prop_map(Tick::Step),
        1 => any::<bool>().prop_map(Tick::Trust),
        2 => (1..40_u64).prop_map(Tick::Command),
    ]
}

/// Slots of this plan, by the second from the begin: number, start, end.
type Span = (usize, i64, i64);

fn spans() -> impl Strategy<Value = Vec<Span>> {
    // Often one right after the other, and shorter than what a device takes.
    let gap = prop_oneof![Just(0), 0..30_i64];
    let length = prop_oneof![1..5_i64, 1..60_i64];
    prop::collection::vec((gap, length), 1..8).prop_map(|list| {
        let mut at = 0;
        let place = |(n, (gap, length)): (usize, (i64, i64))| {
            let start = at + gap;
            at = start + length;
            (n, start, at)
        };
        list.into_iter().enumerate().map(place).collect()
    })
}

fn slots(id: &str, spans: &[Span], begin: Timestamp, action: impl Fn(usize) -> Json) -> Arc<PlanDoc> {
    let at = |s: i64| Timestamp::from_ms(begin.ms() + s * 1000).to_string();
    let list: Vec<_> = spans
        .iter()
        .map(|(n, start, end)| {
            let mut slot = action(*n);
            slot["start"] = json!(at(*start));
            slot["end"] = json!(at(*end));
            slot
        })
        .collect();
    doc(&json!({"id": id, "device": "battery", "kind": "slots", "slots": list}))
}

fn shown(spans: &[Span], begin: Timestamp, now: Now) -> Option<usize> {
    let at = now.wall.ms() - begin.ms();
    let found = spans.iter().find(|(_, start, end)| (start * 1000..end * 1000).contains(&at));
    found.filter(|_| now.clock != ClockState::Untrusted).map(|(n, ..)| *n)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Steps of the wall clock of any size: a slot is in force exactly while the clock shows it, its standing setting is made
    /// once, and a command ends by the monotonic clock alone.
    #[test]
    fn a_step_of_the_clock_repeats_nothing_and_skips_nothing(
        power in spans(),
        reserve in spans(),
        ticks in prop::collection::vec(tick(), 50..400),
        delay in 0..4_u32,
    ) {
        let clock = Clock::manual("2026-11-20T12:00:00Z".parse().unwrap());
        let begin = clock.now();
        let plans = [
            slots("power", &power, begin, |n| json!({"action": "charge", "params": {"power_w": 1000 + 100 * n}})),
            slots("reserve", &reserve, begin, |n| json!({"action": "set_reserve", "params": {"soc_pct": 10 + n}})),
        ];
        let mut state = ClockState::Synced;
        let mut home = Home::start(&plans, Now { mono: clock.mono(), wall: begin, clock: state });
        // How often each standing setting was made; the one on its way; for how many cycles its slot was shown.
        let mut made = BTreeMap::<usize, u32>::new();
        let mut on_its_way: Option<(Order, u32)> = None;
        let mut shown_for = ((None, None), 0_u32);
        let mut commands: BTreeMap<String, (Mono, bool)> = BTreeMap::new();
        for tick in ticks {
            clock.advance(SECOND);
            let is_stepped = matches!(tick, Tick::Step(_));
            match tick {
                Tick::Second | Tick::Command(_) => {}
                Tick::Step(seconds) => clock.step(Timestamp::from_ms(clock.now().ms() + seconds * 1000), true),
                Tick::Trust(is_good) => state = if is_good { ClockState::Holdover } else { ClockState::Untrusted },
            }
            let now = Now { mono: clock.mono(), wall: clock.now(), clock: state };
            if let Tick::Command(seconds) = tick {
                let id = format!("c{}", commands.len());
                let lasts = Duration::from_secs(seconds);
                let intent = Intent {
                    key: IntentKey::Command {
                        uplink: UplinkName::local(),
                        device: Some("car".parse().unwrap()),
                        id: id.parse().unwrap(),
                    },
                    device: "car".parse().unwrap(),
                    action: Action::Stop,
                    rank: Rank::Command,
                    source: "test".into(),
                    accepted: commands.len() as u64,
                    since: now.wall,
                    ends_at: now.wall.plus(lasts),
                    deadline: now.mono.plus(lasts),
                    why: None,
                };
                // The one before it is superseded.
                commands.insert(id, (intent.deadline, false));
                home.core.message(ControlMsg::Intent(intent), now);
            }
            // The device works off what lies in its cell.
            if let Some((order, left)) = on_its_way.take() {
                // What is replaced in time is not made; what was being made already is told of later.
                let is_replaced = order != home.cells[BATTERY];
                if is_replaced && left > 0 {
                } else if left > 0 {
                    on_its_way = Some((order, left - 1));
                } else if let Order::Hold(setpoint) = &order {
                    let Demand::Reserve { pct } = setpoint.demand() else { panic!("{order:?}") };
                    let n = reserve.iter().map(|(n, ..)| *n).find(|n| (10.0 + *n as f64 - pct).abs() < 0.1).unwrap();
                    *made.entry(n).or_default() += 1;
                    prop_assert_eq!(made[&n], 1, "slot {} again, at {}", n, now.wall);
                    let outcome = Outcome {
                        device: "battery".parse().unwrap(),
                        cause: Some(setpoint.cause().clone()),
                        demand: setpoint.demand(),
                        at: now.wall,
                        stage: Stage::Verified,
                        evidence: vec![],
                    };
                    home.core.outcome(&outcome, now);
                    // Next what has come into the cell meanwhile.
                    let next = &home.cells[BATTERY];
                    let is_standing = matches!(next, Order::Hold(s) if s.demand().is_standing());
                    on_its_way = (is_standing && *next != order).then(|| (next.clone(), delay));
                }
            }
            let before = home.cells[BATTERY].clone();
            let effects = home.cycle(now);
            let is_being_made = on_its_way.as_ref().is_some_and(|(_, left)| *left == 0);
            if home.cells[BATTERY] != before && !is_being_made {
                let is_standing = matches!(&home.cells[BATTERY], Order::Hold(s) if s.demand().is_standing());
                on_its_way = is_standing.then(|| (home.cells[BATTERY].clone(), delay));
            }

            // Slots of power: exactly when the clock shows them.
            let wants = shown(&power, begin, now).map(|n| 1000.0 + 100.0 * n as f64);
            let got = match home.held[BATTERY] {
                Some(Demand::BatteryPower { watts, .. }) => Some(-watts),
                None => None,
                other => panic!("{other:?}"),
            };
            prop_assert_eq!(got, wants, "at {}", now.wall);

            // Standing settings: only while their slot is shown, and made when it was shown for long enough.
            let slot = shown(&reserve, begin, now);
            if let Order::Hold(setpoint) = &home.cells[BATTERY]
                && let Demand::Reserve { pct } = setpoint.demand()
            {
                prop_assert_eq!(Some(pct), slot.map(|n| 10.0 + n as f64), "at {}", now.wall);
            }
            // What takes its place in the cell puts it off by seconds; so does a step, which moves the end of a slot's lease.
            let is_calm = shown_for.0 == (slot, wants) && !is_stepped;
            shown_for = if is_calm { (shown_for.0, shown_for.1 + 1) } else { ((slot, wants), 0) };
            if let ((Some(n), _), 12..) = shown_for {
                prop_assert_eq!(made.get(&n), Some(&1), "slot {} was left out, at {}", n, now.wall);
            }

            // Commands: ended once, at their time of the monotonic clock.
            for effect in &effects {
                let Effect::Update(update) = effect else { continue };
                let IntentKey::Command { id, .. } = &update.key else { continue };
                let (deadline, is_over) = commands.get_mut(id.as_str()).unwrap();
                match &update.progress {
                    Progress::Ended { .. } => {
                        prop_assert!(!*is_over && *deadline == now.mono, "{} ended", id);
                        *is_over = true;
                    }
                    Progress::Superseded(_) => {
                        prop_assert!(!*is_over && *deadline >= now.mono, "{} superseded", id);
                        *is_over = true;
                    }
                    _ => prop_assert!(!*is_over, "{} after its end", id),
                }
            }
            for (id, (deadline, is_over)) in &commands {
                prop_assert!(*is_over || *deadline > now.mono, "{} outlives its end", id);
            }
            let is_running = commands.values().any(|(_, is_over)| !is_over);
            prop_assert_eq!(home.held[CAR] == Some(Demand::ChargerOff), is_running);
        }
    }
}
