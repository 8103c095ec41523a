use super::mode::mode;
use super::plan::overlay;
use super::tariff::{dynamic, periodical};
use crate::model::{Action, DeviceKind, Rank, Timestamp};
use crate::plan::PlanDoc;
use crate::uplink::mapping::{Fate, Mapped, Target};
use serde_json::{Value, json};

fn target(kind: DeviceKind) -> Target {
    Target::new(kind.as_str().parse().unwrap(), kind)
}

fn doc(mapped: &Mapped, kind: DeviceKind) -> PlanDoc {
    let Fate::Take(document) = &mapped.fate else { panic!("{mapped:?}") };
    let parsed = PlanDoc::parse(None, document.to_string().as_bytes(), |_| Some(kind), "UTC");
    parsed.unwrap_or_else(|reasons| panic!("{reasons:?}"))
}

fn wanted(doc: &PlanDoc, at: &str) -> Option<Action> {
    let at: Timestamp = at.parse().unwrap();
    doc.at(at).map(|wanted| wanted.action)
}

fn name(doc: &PlanDoc, at: &str) -> &'static str {
    wanted(doc, at).map_or("-", |action| action.name())
}

/// A time on 2026-11-20.
fn at(clock: &str) -> String {
    format!("2026-11-20T{clock}:00Z")
}

fn command(start: &str, end: &str, action: &str) -> Value {
    json!({"start": at(start), "end": at(end), "action": action})
}

#[test]
fn slots_of_an_overlay_plan() {
    let plan = json!({"commands": [
        command("14:00", "15:00", "hold"),
        command("10:00", "12:00", "charge"),
        command("11:00", "11:30", "discharge"),
    ]});
    let mapped = overlay(&plan, &target(DeviceKind::Battery));
    let p = doc(&mapped, DeviceKind::Battery);
    assert_eq!((p.rank(), p.id().as_str(), mapped.warnings.len()), (Rank::Plan, "gridshare-plan-battery", 0));
    // Half-open; sorted; the later start wins while it lasts; in gaps and outside the base mode.
    for (clock, wants) in [
        ("09:59", "-"),
        ("10:00", "charge"),
        ("11:00", "discharge"),
        ("11:30", "charge"),
        ("12:00", "-"),
        ("14:00", "idle"),
        ("15:00", "-"),
    ] {
        assert_eq!(name(&p, &at(clock)), wants, "{clock}");
    }
    // A slot that is past is no fault, and wants nothing any more.
    assert_eq!(p.next_change("2027-01-01T00:00:00Z".parse().unwrap()), None);
}

/// Each row: a command beside a good one, and why it is left out. The rest runs.
#[test]
fn commands_that_are_left_out() {
    for (bad, says) in [
        (json!({"end": at("11:00"), "action": "hold"}), "start is missing"),
        (json!({"start": at("10:00"), "action": "hold"}), "end is missing"),
        (json!({"start": at("10:00"), "end": at("11:00")}), "action is missing"),
        (json!({"start": at("10:00"), "end": at("11:00"), "action": null}), "action is missing"),
        (json!({"start": at("10:00"), "end": at("11:00"), "action": "boost"}), "action `boost` is unknown"),
        (command("11:00", "11:00", "hold"), "is not after start"),
        (command("11:00", "10:00", "hold"), "is not after start"),
        (json!({"start": "now", "end": at("11:00"), "action": "hold"}), "start: `now`"),
        (json!({"start": at("10:00"), "end": at("11:00"), "action": "hold", "powerLimit_W": "all"}), "invalid type"),
        (json!(5), "invalid type"),
    ] {
        let mapped =
            overlay(&json!({"commands": [bad, command("12:00", "13:00", "charge")]}), &target(DeviceKind::Battery));
        assert!(
            mapped.warnings.len() == 1 && mapped.warnings[0].starts_with("commands[0] is left out: "),
            "{mapped:?}"
        );
        assert!(mapped.warnings[0].contains(says), "{bad}: {:?}", mapped.warnings);
        let p = doc(&mapped, DeviceKind::Battery);
        assert_eq!((name(&p, &at("10:30")), name(&p, &at("12:30"))), ("-", "charge"), "{bad}");
    }
}

#[test]
fn an_empty_plan_deletes_and_one_without_commands_is_no_plan() {
    let battery = target(DeviceKind::Battery);
    assert_eq!(overlay(&json!({"commands": []}), &battery).fate, Fate::Drop("the plan is empty".to_owned()));
    let none = json!({"commands": [{"action": "hold"}]});
    assert_eq!(overlay(&none, &battery).fate, Fate::Drop("none of its commands can be carried out".to_owned()));
    assert!(matches!(overlay(&json!({}), &battery).fate, Fate::Reject(_)));
    assert!(matches!(overlay(&json!({"commands": null}), &battery).fate, Fate::Reject(_)));
    let meter = overlay(&json!({"commands": [command("10:00", "11:00", "hold")]}), &target(DeviceKind::Inverter));
    assert!(matches!(meter.fate, Fate::Drop(_)));
}

/// Each row: an action with its limit, and what a battery and a charger do.
#[test]
fn the_table_of_actions() {
    let charge = |power_w| Action::Charge { power_w, min_soc_pct: None, max_soc_pct: None, grid: true };
    let discharge = |power_w| Action::Discharge { power_w, min_soc_pct: None, max_soc_pct: None };
    for (action, limit, battery, amps, warnings) in [
        ("charge", None, charge(None), None, 0),
        ("charge", Some(3000.0), charge(Some(3000.0)), Some(3000.0 / 690.0), 0),
        ("charge", Some(-3000.0), charge(Some(3000.0)), Some(3000.0 / 690.0), 0),
        ("charge", Some(0.0), Action::Idle, Some(0.0), 0),
        ("discharge", None, discharge(None), Some(0.0), 0),
        ("discharge", Some(-2500.5), discharge(Some(2500.5)), Some(0.0), 0),
        ("discharge", Some(0.0), Action::Idle, Some(0.0), 0),
        ("hold", None, Action::Idle, Some(0.0), 0),
        ("hold", Some(500.0), Action::Idle, Some(0.0), 0),
        ("follow", None, Action::Auto, Some(0.0), 1),
        ("follow", Some(500.0), Action::Auto, Some(0.0), 2),
        ("follow", Some(0.0), Action::Idle, Some(0.0), 0),
    ] {
        let plan =
            json!({"commands": [{"start": at("10:00"), "end": at("11:00"), "action": action, "powerLimit_W": limit}]});
        let for_battery = overlay(&plan, &target(DeviceKind::Battery));
        let for_charger = overlay(&plan, &target(DeviceKind::Charger));
        let got = wanted(&doc(&for_battery, DeviceKind::Battery), &at("10:30"));
        assert_eq!(got, Some(battery), "{action} {limit:?}");
        let got = wanted(&doc(&for_charger, DeviceKind::Charger), &at("10:30")).unwrap();
        match (amps, got) {
            (None, got) => assert_eq!(got, Action::Start, "{action} {limit:?}"),
            (Some(0.0), got) => assert_eq!(got, Action::Stop, "{action} {limit:?}"),
            (Some(amps), Action::SetMaxCurrent { current_a, .. }) => {
                assert!((current_a - amps).abs() < 1e-9, "{action} {limit:?}: {current_a}");
            }
            (_, got) => panic!("{action} {limit:?}: {got:?}"),
        }
        assert_eq!(for_battery.warnings.len() + for_charger.warnings.len(), warnings, "{action} {limit:?}");
    }
    let one_phase = Target { phases: 1, ..target(DeviceKind::Charger) };
    let plan =
        json!({"commands": [{"start": at("10:00"), "end": at("11:00"), "action": "charge", "powerLimit_W": 2300}]});
    let Fate::Take(document) = overlay(&plan, &one_phase).fate else { panic!() };
    assert_eq!(document["slots"][0]["params"]["current_a"], json!(10.0));
}

#[test]
fn a_plan_of_durations_runs_in_order_without_gaps() {
    let battery = target(DeviceKind::Battery);
    let plan = |key: &str, commands: Value| json!({key: at("10:00"), "commands": commands});
    let commands = json!([{"durationMinutes": 30, "action": "charge"}, {"durationMinutes": 60, "action": "boost"},
        {"durationMinutes": 15.5, "action": "hold", "start": null}]);
    for key in ["start", "startTime", "startDateTime", "startsAt"] {
        let mapped = overlay(&plan(key, commands.clone()), &battery);
        let p = doc(&mapped, DeviceKind::Battery);
        for (time, wants) in [
            ("09:59:59.999", "-"),
            ("10:00:00", "charge"),
            ("10:30:00", "-"),
            ("11:30:00", "idle"),
            ("11:45:29.999", "idle"),
            ("11:45:30", "-"),
        ] {
            assert_eq!(name(&p, &format!("2026-11-20T{time}Z")), wants, "{key} {time}");
        }
        assert_eq!(mapped.warnings.len(), 1, "an unknown action keeps its time: {:?}", mapped.warnings);
    }
    // Without a duration nobody knows when the next one begins.
    let broken = json!([{"durationMinutes": 30, "action": "charge"}, {"action": "hold"}, {"durationMinutes": 15, "action": "hold"}]);
    let mapped = overlay(&plan("start", broken), &battery);
    assert_eq!(name(&doc(&mapped, DeviceKind::Battery), &at("10:40")), "-");
    assert!(mapped.warnings[0].starts_with("commands[1] and those after it are left out"), "{:?}", mapped.warnings);
    for bad in [json!(0), json!(-5), json!(1e12)] {
        let mapped = overlay(&plan("start", json!([{"durationMinutes": bad, "action": "hold"}])), &battery);
        assert!(matches!(mapped.fate, Fate::Drop(_)), "{bad}");
    }
    let mapped = overlay(&json!({"commands": commands}), &battery);
    assert!(matches!(mapped.fate, Fate::Drop(_)) && mapped.warnings[0].contains("start is missing"), "{mapped:?}");
}

#[test]
fn operation_modes() {
    let of = |word: Value, kind| mode(&json!({"mode": word}), &target(kind));
    for (word, rank) in [("Simple", Rank::Schedule), ("Schedule", Rank::Tag), ("Smart", Rank::Tag)] {
        for (kind, wants) in [(DeviceKind::Battery, Action::Auto), (DeviceKind::Charger, Action::Start)] {
            let p = doc(&of(json!(word), kind), kind);
            assert_eq!((p.rank(), wanted(&p, &at("10:00"))), (rank, Some(wants)), "{word} {kind}");
            assert_eq!(p.next_change(at("10:00").parse().unwrap()), None);
        }
    }
    for unknown in [json!("Unknown"), json!("Clever"), json!(null), json!(3)] {
        assert!(matches!(of(unknown.clone(), DeviceKind::Battery).fate, Fate::Reject(_)), "{unknown}");
    }
    assert!(matches!(of(json!("Simple"), DeviceKind::Meter).fate, Fate::Drop(_)));
}

fn taken(mapped: &Mapped) -> &Value {
    let Fate::Take(document) = &mapped.fate else { panic!("{mapped:?}") };
    document
}

fn tariff(periods: Value) -> Mapped {
    let answer =
        json!({"tariffId": "T1", "name": "Night", "companyName": "Acme", "currency": "USD", "pricingPeriods": periods});
    periodical(&answer, Some("America/New_York"))
}

#[test]
fn a_periodical_tariff() {
    let mapped = tariff(json!([
        {"start": "2026-07-01", "rates": [{"price": 0.3}]},
        {"start": "2026-01-01", "end": "2026-07-01", "rates": [
            {"dayOfWeek": "Monday", "from": "00:00", "to": "06:00", "price": 0.10},
            {"dayOfWeek": "sun", "from": "22:00:00", "to": "06:00:00", "price": 0.11},
            {"dayOfWeek": 7, "from": "06:00", "to": "24:00", "price": 0.12},
            {"dayOfWeek": "1", "from": "06:00", "to": "23:59:59", "price": -0.01}],
         "exceptions": [{"start": "2026-05-01", "end": "2026-05-01", "rate": 0.05}, {"start": "2026-06-01", "end": "2026-06-03", "rate": 0.06}]}]));
    assert_eq!(mapped.warnings, Vec::<String>::new());
    assert_eq!(
        taken(&mapped),
        &json!({"id": mapped.plan, "kind": "tariff", "currency": "USD", "timezone": "America/New_York", "periods": [
            {"from": "2026-01-01", "to": "2026-07-01", "rates": [
                {"start": "00:00", "end": "06:00", "price": 0.10, "days": ["mon"]},
                {"start": "22:00", "end": "24:00", "price": 0.11, "days": ["sun"]},
                {"start": "06:00", "end": "24:00", "price": 0.12, "days": ["sun"]},
                {"start": "06:00", "end": "24:00", "price": -0.01, "days": ["mon"]}],
             "exceptions": [{"from": "2026-05-01", "to": "2026-05-02", "price": 0.05},
                            {"from": "2026-06-01", "to": "2026-06-03", "price": 0.06}]},
            {"from": "2026-07-01", "to": null, "rates": [{"start": "00:00", "end": "24:00", "price": 0.3}], "exceptions": []}]})
    );
}

/// Each row: from and to of the periods as sent, and as taken.
#[test]
fn ends_of_pricing_periods() {
    for (sent, native, warnings) in [
        (
            vec![("2026-01-01", Some("2026-07-01")), ("2026-07-01", None)],
            vec![("2026-01-01", Some("2026-07-01")), ("2026-07-01", None)],
            0,
        ),
        // A hole of one day: the ends are inclusive, all of them.
        (
            vec![("2026-01-01", Some("2026-06-30")), ("2026-07-01", Some("2026-12-31"))],
            vec![("2026-01-01", Some("2026-07-01")), ("2026-07-01", Some("2027-01-01"))],
            1,
        ),
        // A longer gap is a gap.
        (
            vec![("2026-01-01", Some("2026-06-01")), ("2026-07-01", None)],
            vec![("2026-01-01", Some("2026-06-01")), ("2026-07-01", None)],
            0,
        ),
        // A later period closes an open one, and cuts one that reaches into it.
        (
            vec![("2026-01-01", None), ("2026-03-01", None)],
            vec![("2026-01-01", Some("2026-03-01")), ("2026-03-01", None)],
            0,
        ),
        (
            vec![("2026-01-01", Some("2026-09-01")), ("2026-03-01", None)],
            vec![("2026-01-01", Some("2026-03-01")), ("2026-03-01", None)],
            0,
        ),
    ] {
        let list = sent.iter().map(|(from, to)| json!({"start": from, "end": to, "rates": [{"price": 1}]})).collect();
        let mapped = tariff(list);
        let got: Vec<_> = taken(&mapped)["periods"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| (p["from"].clone(), p["to"].clone()))
            .collect();
        assert_eq!(got, native.iter().map(|(from, to)| (json!(from), json!(to))).collect::<Vec<_>>(), "{sent:?}");
        assert_eq!(mapped.warnings.len(), warnings, "{sent:?}");
    }
}

#[test]
fn rates_that_cannot_be_read_are_left_out_and_told() {
    for (rate, says) in [
        (json!({"from": "00:00", "to": "06:00"}), "price is missing"),
        (json!({"price": "cheap"}), "invalid type"),
        (json!({"price": 1, "dayOfWeek": "holiday"}), "dayOfWeek is \"holiday\""),
        (json!({"price": 1, "dayOfWeek": 0}), "dayOfWeek is 0"),
        (json!({"price": 1, "dayOfWeek": 8}), "dayOfWeek is 8"),
        (json!({"price": 1, "from": "6 am"}), "from is `6 am`"),
        (json!({"price": 1, "from": "24:00"}), "from is the end of the day"),
    ] {
        let mapped = tariff(json!([{"start": "2026-01-01", "rates": [rate, {"price": 2}]}]));
        assert_eq!(taken(&mapped)["periods"][0]["rates"].as_array().unwrap().len(), 1, "{rate}");
        assert!(mapped.warnings[0].starts_with("pricingPeriods[0].rates[0] is left out: "), "{:?}", mapped.warnings);
        assert!(mapped.warnings[0].contains(says), "{rate}: {:?}", mapped.warnings);
    }
    let mapped = tariff(json!([{"rates": [{"price": 2}]}, {"start": "1.1.2026"}]));
    assert_eq!((mapped.warnings.len(), &mapped.fate), (2, &Fate::Drop("the tariff says no price".to_owned())));
    let nameless = periodical(&json!({"name": "N", "pricingPeriods": [{"start": "2026-01-01"}]}), None);
    assert_eq!(nameless.warnings, ["the tariff names no currency"]);
    assert!(taken(&nameless).get("timezone").is_none());
}

#[test]
fn pages_of_a_dynamic_tariff() {
    let page = |values: Value, next: Option<&str>| json!({"tariffId": "dyn", "name": "Spot", "currency": "EUR", "values": values, "nextToken": next});
    let value = |clock: &str, price: f64| json!({"timestamp": at(clock), "price": price});
    let pages = [
        page(json!([value("11:00", 0.2), value("10:00", 0.1)]), Some("more")),
        page(
            json!([value("11:00", 0.25), value("12:00", -0.05), {"timestamp": "later", "price": 1}, {"timestamp": at("13:00")}]),
            None,
        ),
    ];
    let mapped = dynamic(&pages);
    let start = |clock: &str| at(clock).replace("00Z", "00.000Z");
    assert_eq!(
        taken(&mapped),
        &json!({"id": "gridshare-tariff-dyn", "kind": "tariff", "currency": "EUR", "values": [
            {"start": start("10:00"), "price": 0.1}, {"start": start("11:00"), "price": 0.25}, {"start": start("12:00"), "price": -0.05}]})
    );
    assert_eq!(mapped.warnings.len(), 2, "{:?}", mapped.warnings);
    assert_eq!(dynamic(&[page(json!([]), None)]).fate, Fate::Drop("the tariff says no price".to_owned()));
    assert!(matches!(dynamic(&[json!({"values": 5})]).fate, Fate::Reject(_)));
}
