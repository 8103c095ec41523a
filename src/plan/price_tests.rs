use super::Strategy;
use super::cheapest::{Slot, Unpriced, cheapest};
use super::tests::{doc, parse, t};
use super::*;
use crate::model::Mono;
use proptest::prelude::*;
use serde_json::json;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const T0: &str = "2026-11-20T17:00:00Z";

fn tariffs(body: &Value) -> Tariffs {
    let document = doc(body);
    Tariffs::from([(document.id().clone(), Arc::clone(document.tariff().unwrap()))])
}

/// Hourly prices from [`T0`] on; `None`: not known.
fn hourly(prices: &[Option<f64>]) -> Tariffs {
    let hour = |n: usize| t(T0).plus(MINUTE * 60 * u32::try_from(n).unwrap()).to_string();
    let values: Vec<Value> = prices
        .iter()
        .enumerate()
        .filter_map(|(n, p)| Some(json!({"start": hour(n), "end": hour(n + 1), "price": (*p)?})))
        .collect();
    if values.is_empty() {
        return Tariffs::new();
    }
    tariffs(&json!({"id": "t1", "kind": "tariff", "timezone": "UTC", "values": values}))
}

fn charge(params: Value) -> PlanDoc {
    let mut params = params;
    if params["deadline"].is_null() {
        params["deadline"] = json!("07:00");
    }
    doc(&json!({"id": "p", "device": "charger", "kind": "price", "tariff": "t1", "timezone": "UTC", "params": params}))
}

/// A car at a charger.
#[derive(Debug, Clone)]
struct Car {
    takes_w: f64,
    session_wh: f64,
    plugged: bool,
    power_w: f64,
    soc: Option<f64>,
}

impl Car {
    fn new(takes_w: f64) -> Self {
        Self { takes_w, session_wh: 0.0, plugged: true, power_w: 0.0, soc: None }
    }

    fn own(&self) -> OwnState {
        OwnState {
            power_w: Some(self.power_w),
            is_plugged: Some(self.plugged),
            session_wh: Some(self.session_wh),
            soc_pct: self.soc,
            min_current_a: 6.0,
            max_current_a: 16.0,
            ..OwnState::default()
        }
    }
}

struct Run {
    strategy: Box<dyn Strategy>,
    tariffs: Tariffs,
    car: Car,
    minute: u32,
    cost: f64,
    /// Minutes in which it charged.
    charged: Vec<u32>,
}

impl Run {
    fn new(document: &PlanDoc, tariffs: Tariffs, car: Car) -> Self {
        Self { strategy: document.strategy().unwrap(), tariffs, car, minute: 0, cost: 0.0, charged: Vec::new() }
    }

    fn now(&self) -> Timestamp {
        t(T0).plus(MINUTE * self.minute)
    }

    fn ask(&mut self) -> Wish {
        self.try_ask().unwrap()
    }

    fn try_ask(&mut self) -> Option<Wish> {
        let outlook = Outlook {
            grid_w: None,
            own: self.car.own(),
            batteries: None,
            site_phases: 3,
            tariffs: &self.tariffs,
            tariffs_version: 1,
        };
        let mono = Mono::from_ms(u64::from(self.minute) * 60_000);
        self.strategy.want(Moment { mono, wall: Some(self.now()) }, &outlook)
    }

    /// One minute goes by as the strategy wants it.
    fn step(&mut self) {
        let is_on = matches!(self.ask().action, Action::SetMaxCurrent { .. }) && self.car.plugged;
        self.car.power_w = if is_on { self.car.takes_w } else { 0.0 };
        if is_on {
            self.charged.push(self.minute);
            self.car.session_wh += self.car.takes_w / 60.0;
            let price = self.tariffs.values().next().and_then(|tariff| tariff.price_at(self.now()));
            self.cost += price.map_or(0.0, |p| p.import) * self.car.takes_w / 60_000.0;
        }
        self.minute += 1;
    }

    fn until(&mut self, minute: u32) {
        while self.minute < minute {
            self.step();
        }
    }

    /// The pieces in which it charged, in minutes.
    fn pieces(&self) -> Vec<(u32, u32)> {
        let mut pieces: Vec<(u32, u32)> = Vec::new();
        for minute in &self.charged {
            match pieces.last_mut() {
                Some((_, end)) if *end == *minute => *end += 1,
                _ => pieces.push((*minute, minute + 1)),
            }
        }
        pieces
    }
}

#[test]
fn the_cheapest_time_in_few_pieces() {
    let price = |p: f64| Some(Price { import: p, export: None });
    let at = |h: u64| Timestamp::from_ms(0).plus(Duration::from_secs(3600 * h));
    let spans: Vec<Span> = [price(3.0), price(1.0), price(2.0), price(1.0), price(5.0), price(2.0), price(9.0), None]
        .into_iter()
        .enumerate()
        .map(|(n, price)| Span { start: at(n as u64), end: at(n as u64 + 1), price })
        .collect();
    let chosen = |minutes: u32, unpriced, max| -> Vec<(u64, u64)> {
        let slots = cheapest(&spans, MINUTE * minutes, unpriced, max);
        slots.iter().map(|s: &Slot| (s.start.ms() as u64 / 60_000, s.end.ms() as u64 / 60_000)).collect()
    };
    for (minutes, unpriced, max, want) in [
        (0, Unpriced::Never, None, vec![]),
        // Of two equal hours the earlier.
        (30, Unpriced::Never, None, vec![(60, 90)]),
        (120, Unpriced::Never, None, vec![(60, 120), (180, 240)]),
        // The hour between the two cheap ones makes one piece of them.
        (150, Unpriced::Never, None, vec![(60, 120), (120, 150), (180, 240)]),
        (180, Unpriced::Never, None, vec![(60, 120), (120, 180), (180, 240)]),
        // Before a chosen piece: its end.
        (250, Unpriced::Never, None, vec![(50, 60), (60, 120), (120, 180), (180, 240), (300, 360)]),
        (999, Unpriced::Never, Some(2.0), vec![(60, 120), (120, 180), (180, 240), (300, 360)]),
        // The mean of the known is 23/7: the unknown hour is worth less than 5, more than 3.
        (310, Unpriced::Last, None, vec![(0, 60), (60, 120), (120, 180), (180, 240), (300, 360), (470, 480)]),
        (310, Unpriced::First, None, vec![(0, 60), (60, 120), (120, 180), (180, 240), (300, 360), (420, 430)]),
    ] {
        let mut got = chosen(minutes, unpriced, max);
        got.sort_unstable();
        assert_eq!(got, want, "{minutes} {unpriced:?}");
    }
}

#[test]
fn outside_its_hours_it_may_leave_the_car_to_the_sun() {
    let prices = [0.4, 0.4, 0.2, 0.4].map(Some);
    let params = json!({"energy_wh": 5_000, "power_w": 11_000, "deadline": "21:00", "otherwise": "none"});
    let mut run = Run::new(&charge(params), hourly(&prices), Car::new(11_000.0));
    assert_eq!(run.try_ask(), None);
    let waits = "5.0 kWh are missing before 21:00; it waits for 19:00: 0.2000 EUR per kWh";
    assert_eq!(&**run.strategy.why(), waits, "it tells why it wants nothing");
    // The sun gave 3 kWh until then: those need not be bought.
    run.car.session_wh = 3_000.0;
    assert_eq!(run.try_ask(), None);
    assert_eq!(&**run.strategy.why(), waits.replace("5.0", "2.0"), "the sentence goes with the energy");
    (run.minute, run.car.session_wh) = (120, 4_500.0);
    assert!(matches!(run.ask().action, Action::SetMaxCurrent { .. }));
    run.car.session_wh = 5_000.0;
    assert_eq!(run.try_ask(), None, "what it was told to give it gave: the sun may give more");
}

#[test]
fn a_night_by_hand() {
    // 17:00 to 07:00: fourteen hours. Cheap are 01:00 to 04:00 (hours 8, 9, 10), then hour 11.
    let prices = [40, 42, 45, 41, 35, 30, 28, 25, 20, 18, 20, 22, 30, 38].map(|p| Some(f64::from(p) / 100.0));
    // 22 kWh with 11 kW: two hours; planned with 5 % and three minutes more: 129 minutes.
    let mut run =
        Run::new(&charge(json!({"energy_wh": 22_000, "power_w": 11_000})), hourly(&prices), Car::new(11_000.0));
    let wish = run.ask();
    assert_eq!(wish.action, Action::Stop);
    // 0.18 in hour 9, then 69 minutes of 0.20: hour 8 or 10 first lengthened before, then what is left after it.
    assert_eq!(&*wish.why, "22.0 kWh are missing before 07:00; it waits for 01:00: 0.2000 EUR per kWh");
    let forecast = run.strategy.forecast();
    assert_eq!(forecast.next_change, Some(t("2026-11-21T01:00:00Z")));
    let planned: Vec<_> = forecast
        .planned
        .iter()
        .map(|s| (s.start.to_string()[11..16].to_owned(), s.end.to_string()[11..16].to_owned(), s.price.unwrap()))
        .collect();
    let slot = |a: &str, b: &str, p: f64| (a.to_owned(), b.to_owned(), p);
    assert_eq!(planned, [slot("01:00", "02:00", 0.20), slot("02:00", "03:00", 0.18), slot("03:00", "03:09", 0.20)]);
    run.until(14 * 60);
    assert_eq!(run.pieces(), [(480, 600)], "two hours in one piece");
    assert!((run.car.session_wh - 22_000.0).abs() < 1.0);
    assert!((run.cost - 11.0 * 0.20 - 11.0 * 0.18).abs() < 1e-6, "{}", run.cost);
    assert_eq!(&*run.ask().why, "the car has the energy that was asked for");
    // It stays: the next night wants nothing. Another car comes: a new session.
    run.until(30 * 60);
    assert_eq!(run.pieces().len(), 1);
    run.car.plugged = false;
    run.step();
    assert_eq!(&*run.ask().why, "no car is plugged in");
    (run.car.plugged, run.car.session_wh) = (true, 0.0);
    run.until(38 * 60);
    assert!(
        (run.car.session_wh - 22_000.0).abs() < 200.0,
        "without any price, in the last hours: {}",
        run.car.session_wh
    );
    assert!(run.strategy.forecast().planned.is_empty());
}

#[test]
fn without_a_price_the_last_hours_and_what_the_document_says() {
    let params = |word: &str| json!({"energy_wh": 11_000, "power_w": 11_000, "without_price": word});
    for (word, first) in [("last_hours", Some(14 * 60 - 66)), ("first_hours", Some(0)), ("never", None)] {
        let mut run = Run::new(&charge(params(word)), Tariffs::new(), Car::new(11_000.0));
        run.until(14 * 60);
        assert_eq!(run.charged.first().copied(), first, "{word}");
        run.minute = 0;
        assert!(run.strategy.forecast().is_price_missing || run.car.session_wh >= 11_000.0);
    }
    // Known until 20:00, and dear: it waits for what may come. It comes.
    let mut run = Run::new(&charge(params("last_hours")), hourly(&[Some(0.5); 3]), Car::new(11_000.0));
    run.until(60);
    assert!(run.charged.is_empty());
    assert!(!run.strategy.forecast().is_price_missing);
    run.until(200);
    assert!(run.strategy.forecast().is_price_missing, "they have run out");
    // A limit of the price holds to the end: nothing is charged above it.
    let params = json!({"energy_wh": 50_000, "power_w": 11_000, "max_price": 0.2});
    let mut run = Run::new(
        &charge(params),
        hourly(&[0.3, 0.2, 0.3, 0.1, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3].map(Some)),
        Car::new(11_000.0),
    );
    run.until(14 * 60);
    assert_eq!(run.pieces(), [(60, 120), (180, 240)]);
}

#[test]
fn a_slow_car_is_noticed_and_time_that_runs_short_is_used_at_any_price() {
    // Told nothing, it reckons with 16 A on three phases; the car takes 3.7 kW on one.
    let mut prices = [Some(0.4); 14];
    (prices[1], prices[2]) = (Some(0.1), Some(0.1));
    let mut run = Run::new(&charge(json!({"energy_wh": 20_000})), hourly(&prices), Car::new(3_700.0));
    run.until(14 * 60);
    assert!((run.car.session_wh - 20_000.0).abs() < 100.0, "{} {:?}", run.car.session_wh, run.pieces());
    assert_eq!(run.pieces()[0].0, 60, "in the cheap hours first: {:?}", run.pieces());
    // Too much for the time there is: at once, at any price, until the end.
    let mut run = Run::new(&charge(json!({"energy_wh": 300_000})), hourly(&prices), Car::new(11_000.0));
    assert_eq!(&*run.ask().why, "300.0 kWh are missing and time is short: it charges at any price until 07:00");
    run.until(14 * 60);
    assert_eq!(run.pieces(), [(0, 14 * 60)]);
}

#[test]
fn hours_and_states_of_charge() {
    let flat = [Some(0.3); 14];
    let mut run = Run::new(&charge(json!({"hours": 2})), hourly(&flat), Car::new(3_700.0));
    run.until(14 * 60);
    assert!((118..=122).contains(&run.charged.len()), "two hours whatever it takes: {}", run.charged.len());
    let soc = charge(json!({"soc_pct": 80, "capacity_wh": 50_000, "power_w": 11_000}));
    let mut run = Run::new(&soc, hourly(&flat), Car::new(11_000.0));
    run.car.soc = Some(60.0);
    assert!(run.ask().why.starts_with("10.0 kWh are missing"), "{}", run.ask().why);
    run.car.soc = Some(80.5);
    assert_eq!(run.ask().action, Action::Stop);
    let mut run = Run::new(&soc, hourly(&flat), Car::new(11_000.0));
    assert!(run.ask().why.starts_with("40.0 kWh are missing"), "as if it came empty: {}", run.ask().why);
}

#[test]
fn deadlines_on_days_and_over_the_change_of_the_clock() {
    let next = |from: &str, deadline: &str, days: &[&str]| {
        let document =
            doc(&json!({"id": "p", "device": "charger", "kind": "price", "tariff": "t1", "timezone": "Europe/Berlin",
            "params": {"deadline": deadline, "days": days, "energy_wh": 11_000, "power_w": 11_000}}));
        let mut strategy = document.strategy().unwrap();
        let none = Tariffs::new();
        let own = Car::new(11_000.0).own();
        let outlook =
            Outlook { grid_w: None, own, batteries: None, site_phases: 3, tariffs: &none, tariffs_version: 1 };
        strategy.want(Moment { mono: Mono::from_ms(0), wall: Some(t(from)) }, &outlook).unwrap();
        let planned = strategy.forecast().planned.last().unwrap().end;
        planned.to_string()[..16].to_owned()
    };
    let all = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    assert_eq!(next("2026-11-20T05:59:00Z", "07:00", &all), "2026-11-20T06:00");
    assert_eq!(next("2026-11-20T06:00:00Z", "07:00", &all), "2026-11-21T06:00");
    assert_eq!(next("2026-11-20T06:00:00Z", "07:00", &["thu"]), "2026-11-26T06:00");
    assert_eq!(next("2026-11-20T06:00:00Z", "24:00", &["fri"]), "2026-11-20T23:00");
    // 02:30 does not exist on that night: the first instant after it counts as an hour later by the clock.
    assert_eq!(next("2026-03-28T20:00:00Z", "02:30", &all), "2026-03-29T01:30");
    assert_eq!(next("2026-03-28T20:00:00Z", "07:00", &all), "2026-03-29T05:00");
    assert_eq!(next("2026-10-24T20:00:00Z", "07:00", &all), "2026-10-25T06:00");
}

#[test]
fn a_battery_trades_where_the_spread_pays() {
    let prices = [40, 42, 45, 41, 35, 30, 28].map(|p| f64::from(p) / 100.0);
    let mut day: Vec<Option<f64>> = prices.into_iter().map(Some).collect();
    // 2026-11-21, UTC: cheap at 02 and 03, dear at 18 and 19.
    day.extend((0..24).map(|h| {
        Some(match h {
            2 | 3 => 0.10,
            18 => 0.50,
            19 => 0.45,
            10 => 0.20,
            _ => 0.30,
        })
    }));
    let ask = |params: Value, when: &str| {
        let document = doc(&json!({"id": "p", "device": "battery", "kind": "price", "tariff": "t1", "params": params}));
        let mut strategy = document.strategy().unwrap();
        let tariffs = hourly(&day);
        let own = OwnState { soc_pct: Some(50.0), ..OwnState::default() };
        let outlook =
            Outlook { grid_w: None, own, batteries: None, site_phases: 3, tariffs: &tariffs, tariffs_version: 1 };
        let wish = strategy.want(Moment { mono: Mono::from_ms(0), wall: Some(t(when)) }, &outlook);
        let slots: Vec<_> = strategy
            .forecast()
            .planned
            .iter()
            .map(|s| (s.start.to_string()[11..16].to_owned(), s.end.to_string()[11..16].to_owned(), s.action))
            .collect();
        (wish, slots)
    };
    let slot = |a: &str, b: &str, what: &'static str| (a.to_owned(), b.to_owned(), what);
    let both = json!({"cheapest_hours": 2, "dearest_hours": 2, "power_w": 3000, "min_soc_pct": 20, "round_trip_efficiency": 0.8});
    let (wish, slots) = ask(both.clone(), "2026-11-21T02:30:00Z");
    assert_eq!(
        slots,
        [slot("02:00", "04:00", "charge"), slot("18:00", "19:00", "discharge"), slot("19:00", "20:00", "discharge")]
    );
    let wish = wish.unwrap();
    assert_eq!(
        wish.action,
        Action::Charge { power_w: Some(3000.0), min_soc_pct: Some(20.0), max_soc_pct: None, grid: true }
    );
    assert_eq!(&*wish.why, "this hour is among the cheapest of the day: 0.1000 EUR per kWh");
    let (wish, _) = ask(both.clone(), "2026-11-21T18:30:00Z");
    assert_eq!(
        wish.unwrap().action,
        Action::Discharge { power_w: Some(3000.0), min_soc_pct: Some(20.0), max_soc_pct: None }
    );
    assert_eq!(ask(both.clone(), "2026-11-21T12:00:00Z").0, None);
    let mut holds = both.clone();
    holds["otherwise"] = json!("idle");
    assert_eq!(ask(holds, "2026-11-21T12:00:00Z").0.unwrap().action, Action::Idle);
    // Three hours would mix 0.20 with 0.30: 0.30 * 0.6 does not pay for 0.20, so each side loses its worst hour.
    let (_, slots) =
        ask(json!({"cheapest_hours": 3, "dearest_hours": 3, "round_trip_efficiency": 0.6}), "2026-11-21T02:30:00Z");
    assert_eq!(
        slots,
        [slot("02:00", "04:00", "charge"), slot("18:00", "19:00", "discharge"), slot("19:00", "20:00", "discharge")]
    );
    // Prices as thresholds; a spread that does not pay is none.
    let (_, slots) = ask(json!({"charge_below": 0.2, "discharge_above": 0.45}), "2026-11-21T02:30:00Z");
    assert_eq!(slots, [slot("02:00", "04:00", "charge"), slot("18:00", "19:00", "discharge")]);
    let (_, slots) = ask(
        json!({"charge_below": 0.31, "discharge_above": 0.29, "round_trip_efficiency": 0.5}),
        "2026-11-21T12:00:00Z",
    );
    assert_eq!(slots, [], "{slots:?}");
}

#[test]
fn every_fault_of_a_document() {
    let with =
        |params: Value| json!({"id": "p", "device": "charger", "kind": "price", "tariff": "t1", "params": params});
    let good = json!({"deadline": "07:00", "energy_wh": 1000});
    for (body, says) in [
        (json!({"id": "p", "device": "charger", "kind": "price", "params": good}), "tariff is missing"),
        (json!({"id": "p", "device": "charger", "kind": "price", "tariff": "T 1", "params": good}), "tariff: "),
        (with(json!({"energy_wh": 1000})), "params.deadline is missing"),
        (with(json!({"deadline": "7", "energy_wh": 1000})), "params.deadline is `7`"),
        (with(json!({"deadline": "07:00"})), "params must say how much"),
        (with(json!({"deadline": "07:00", "energy_wh": 1, "hours": 2})), "params must say how much"),
        (with(json!({"deadline": "07:00", "soc_pct": 80})), "params must say how much"),
        (with(json!({"deadline": "07:00", "energy_wh": "x"})), "params.energy_wh is `x`"),
        (with(json!({"deadline": "07:00", "energy_wh": 1, "days": ["monday"]})), "params.days[0] is `monday`"),
        (with(json!({"deadline": "07:00", "energy_wh": 1, "enrgy": 1})), "params.enrgy is unknown"),
        (with(json!({"deadline": "07:00", "energy_wh": 1, "without_price": "wait"})), "params.without_price is `wait`"),
        (json!({"id": "p", "device": "battery", "kind": "price", "tariff": "t1"}), "params must say when"),
        (
            json!({"id": "p", "device": "battery", "kind": "price", "tariff": "t1", "params": {"charge_below": 1, "cheapest_hours": 2}}),
            "params.charge_below and params.cheapest_hours",
        ),
        (json!({"id": "p", "device": "battery", "kind": "solar"}), "kind `solar` is for a charger"),
        (json!({"id": "p", "device": "charger", "kind": "solar", "params": {"phases": 2}}), "params.phases is `2`"),
        (
            json!({"id": "p", "device": "charger", "kind": "solar", "params": {"start_after": "1 min"}}),
            "params.start_after is `1 min`",
        ),
        (
            json!({"id": "p", "device": "charger", "kind": "solar", "params": {"start_w": 100, "stop_w": 200}}),
            "params.stop_w 200 is above",
        ),
    ] {
        let reasons = parse(&body).unwrap_err();
        assert!(reasons.iter().any(|r| r.starts_with(says)), "{says}: {reasons:?}");
    }
    for body in [
        with(good),
        json!({"id": "p", "device": "charger", "kind": "solar"}),
        json!({"id": "p", "device": "charger", "kind": "solar", "params": {"phases": 3}}),
    ] {
        let first = doc(&body).to_json();
        assert_eq!(doc(&first).to_json(), first);
        assert_eq!(doc(&body).rank(), Rank::Plan);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    /// Over random prices, some of them not known: the energy is there in time wherever that is possible, never more than a
    /// minute more, for no more money than at once, and the same over a restart at any minute.
    #[test]
    fn in_time_never_dearer_and_never_twice(
        prices in prop::collection::vec(prop::option::weighted(0.9, -5i32..60), 14),
        energy_kwh in 1u32..60,
        takes in 3_700u32..11_000,
        restart in 0u32..840,
    ) {
        let prices: Vec<_> = prices.into_iter().map(|p| p.map(|p| f64::from(p) / 100.0)).collect();
        let all_known = prices.iter().all(Option::is_some);
        let (energy, takes) = (f64::from(energy_kwh) * 1000.0, f64::from(takes));
        let document = charge(json!({"energy_wh": energy, "power_w": takes}));
        let mut run = Run::new(&document, hourly(&prices), Car::new(takes));
        run.until(14 * 60);
        let step = takes / 60.0;
        let possible = (takes * 14.0).min(energy);
        prop_assert!(run.car.session_wh >= possible - 1.0, "{} of {possible}", run.car.session_wh);
        prop_assert!(run.car.session_wh <= energy + step);
        // At once: the same energy from the first minute on.
        let tariffs = hourly(&prices);
        let minutes = run.charged.len() as u32;
        let price = |m: u32| tariffs.values().next().and_then(|x| x.price_at(t(T0).plus(MINUTE * m))).map_or(0.0, |p| p.import);
        let at_once: f64 = (0..minutes).map(|m| price(m) * takes / 60_000.0).sum();
        prop_assert!(!all_known || run.cost <= at_once + 0.65 * step / 1000.0, "{} instead of {at_once}: {:?}", run.cost, run.pieces());
        // A restart: the strategy forgets everything, the charger's counter does not.
        let mut again = Run::new(&document, tariffs, Car::new(takes));
        again.until(restart);
        again.strategy = document.strategy().unwrap();
        again.until(14 * 60);
        prop_assert!((again.car.session_wh - run.car.session_wh).abs() <= step + 1e-6, "{} and {}", again.car.session_wh, run.car.session_wh);
        // Unknown hours rank by the mean of those that are known, which moves as time passes.
        prop_assert!(!all_known || again.pieces().len() <= run.pieces().len() + 1);
    }
}
