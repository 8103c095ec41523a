use super::schedule::schedules;
use crate::model::{Action, DeviceKind, Rank, Timestamp};
use crate::plan::PlanDoc;
use crate::uplink::mapping::{Fate, Mapped, Target};
use serde_json::{Value, json};

fn target(kind: DeviceKind) -> Target {
    Target::new(kind.as_str().parse().unwrap(), kind)
}

fn battery() -> Target {
    target(DeviceKind::Battery)
}

fn t(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A device schedule with one rule on Sundays (0), at noon.
fn schedule() -> Value {
    json!({"id": "clpkn2je80006102tx7d0jhb8", "deviceId": "clpkn2je80006102tx7d0jhb8", "deviceTimezone": "America/New_York",
        "createdAt": "2021-04-01T00:00:00.000Z", "defaultDeviceOperatingMode": {"operatingMode": "idle"},
        "rules": [{"daysOfWeek": [0], "startTime": "12:00", "endTime": "13:00",
                   "deviceOperatingMode": {"operatingMode": "charge"}}]})
}

fn with(mut schedule: Value, changes: &[(&str, Value)]) -> Value {
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = schedule.pointer_mut(parent).unwrap();
        match (value, key.parse::<usize>()) {
            (value, Ok(n)) if parent.is_array() => parent[n] = value.clone(),
            (Value::Null, _) => drop(parent.as_object_mut().unwrap().remove(key)),
            (value, _) => parent[key] = value.clone(),
        }
    }
    schedule
}

fn map(answer: &Value, target: &Target) -> Vec<Mapped> {
    schedules(answer, target).unwrap()
}

fn one(answer: &Value, target: &Target) -> Mapped {
    let mut all = map(answer, target);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn doc(mapped: &Mapped, target: &Target) -> PlanDoc {
    let Fate::Take(document) = &mapped.fate else { panic!("{mapped:?}") };
    let parsed = PlanDoc::parse(None, document.to_string().as_bytes(), |_| Some(target.kind), "Europe/Berlin");
    let doc = parsed.unwrap_or_else(|reasons| panic!("{reasons:?}"));
    assert_eq!(doc.id().as_str(), mapped.plan);
    doc
}

fn name(doc: &PlanDoc, at: &str) -> &'static str {
    doc.at(t(at)).map_or("-", |wanted| wanted.action.name())
}

/// Each row: what is changed, and what is wanted when. 2026-11-22 is a Sunday; New York is 5 h behind until 2027-03-14.
#[test]
fn the_table_of_times() {
    type Row<'a> = (&'a str, Vec<(&'a str, Value)>, Vec<(&'a str, &'a str)>);
    let rule = |key: &str| format!("/rules/0/{key}");
    let (days, start, end) = (rule("daysOfWeek"), rule("startTime"), rule("endTime"));
    let rows: Vec<Row<'_>> = vec![
        (
            "0 is Sunday; half-open; the default where no rule holds",
            vec![],
            vec![
                ("2026-11-22T16:59:59.999Z", "idle"),
                ("2026-11-22T17:00:00Z", "charge"),
                ("2026-11-22T17:59:59.999Z", "charge"),
                ("2026-11-22T18:00:00Z", "idle"),
                ("2026-11-23T17:00:00Z", "idle"),
            ],
        ),
        (
            "6 is Saturday",
            vec![(&days, json!([6]))],
            vec![("2026-11-21T17:00:00Z", "charge"), ("2026-11-22T17:00:00Z", "idle")],
        ),
        (
            "no zone: the gateway's",
            vec![("/deviceTimezone", Value::Null)],
            vec![("2026-11-22T11:00:00Z", "charge"), ("2026-11-22T12:00:00Z", "idle")],
        ),
        (
            "active span, half-open; no effect outside it",
            vec![("/startsAt", json!("2026-11-22T17:30:00.000Z")), ("/endsAt", json!("2026-11-29T17:30:00.000Z"))],
            vec![
                ("2026-11-22T17:29:59.999Z", "-"),
                ("2026-11-22T17:30:00Z", "charge"),
                ("2026-11-29T17:29:59.999Z", "charge"),
                ("2026-11-29T17:30:00Z", "-"),
            ],
        ),
        (
            "past midnight: the day is that of the start",
            vec![(&start, json!("22:00")), (&end, json!("06:00"))],
            vec![
                ("2026-11-22T04:00:00Z", "idle"),
                ("2026-11-23T03:00:00Z", "charge"),
                ("2026-11-23T10:59:59Z", "charge"),
                ("2026-11-23T11:00:00Z", "idle"),
                ("2026-11-24T04:00:00Z", "idle"),
            ],
        ),
        (
            "start == end is 24 h",
            vec![(&start, json!("13:00")), (&end, json!("13:00"))],
            vec![
                ("2026-11-22T17:59:59Z", "idle"),
                ("2026-11-22T18:00:00Z", "charge"),
                ("2026-11-23T17:59:59Z", "charge"),
                ("2026-11-23T18:00:00Z", "idle"),
            ],
        ),
        (
            "24:00 ends a day",
            vec![(&start, json!("23:00")), (&end, json!("24:00"))],
            vec![("2026-11-23T04:30:00Z", "charge"), ("2026-11-23T05:00:00Z", "idle")],
        ),
        (
            "a start in the skipped hour fires at the first instant after it",
            vec![(&start, json!("02:30")), (&end, json!("04:00"))],
            vec![
                ("2027-03-14T06:59:59Z", "idle"),
                ("2027-03-14T07:00:00Z", "charge"),
                ("2027-03-14T08:00:00Z", "idle"),
            ],
        ),
        (
            "a repeated hour is active both times",
            vec![(&start, json!("01:30")), (&end, json!("01:45"))],
            vec![
                ("2026-11-01T05:30:00Z", "charge"),
                ("2026-11-01T05:45:00Z", "idle"),
                ("2026-11-01T06:30:00Z", "charge"),
                ("2026-11-01T06:45:00Z", "idle"),
            ],
        ),
        ("no days: never", vec![(&days, json!([]))], vec![("2026-11-22T17:00:00Z", "idle")]),
        (
            "a mode that is not valid: the rule does nothing",
            vec![("/rules/0/deviceOperatingMode", json!({"operatingMode": "warp"}))],
            vec![("2026-11-22T16:59:59Z", "idle"), ("2026-11-22T17:00:00Z", "-"), ("2026-11-22T18:00:00Z", "idle")],
        ),
        (
            "a default that is not valid: nothing where no rule holds",
            vec![("/defaultDeviceOperatingMode", json!({"heatTarget": 70}))],
            vec![("2026-11-22T17:00:00Z", "charge"), ("2026-11-22T18:00:00Z", "-")],
        ),
        (
            "fields to come, and null, are ignored",
            vec![("/updatedAt", json!(null)), ("/colour", json!("red")), ("/rules/0/weather", json!({}))],
            vec![("2026-11-22T17:00:00Z", "charge")],
        ),
    ];
    for (what, changes, wants) in rows {
        let doc = doc(&one(&with(schedule(), &changes), &battery()), &battery());
        for (at, wants) in wants {
            assert_eq!(name(&doc, at), wants, "{what}: {at}");
        }
    }
}

#[test]
fn two_rules_at_once_the_first_listed_wins_and_it_is_told() {
    let schedule = with(
        schedule(),
        &[(
            "/rules",
            json!([
                {"daysOfWeek": [0], "startTime": "12:00", "endTime": "13:00", "deviceOperatingMode": {"operatingMode": "charge"}},
                {"daysOfWeek": [0, 1], "startTime": "12:30", "endTime": "14:00", "deviceOperatingMode": {"operatingMode": "reset"}}]),
        )],
    );
    let mapped = one(&schedule, &battery());
    let doc = doc(&mapped, &battery());
    assert_eq!((name(&doc, "2026-11-22T17:45:00Z"), name(&doc, "2026-11-22T18:30:00Z")), ("charge", "auto"));
    assert!(
        mapped.warnings[0].starts_with("two rules hold at the same time (numbers 1 and 2"),
        "{:?}",
        mapped.warnings
    );
}

#[test]
fn times_that_cannot_be_understood_reject_the_schedule_as_a_whole() {
    for (pointer, value, says) in [
        ("/rules/0/startTime", json!("25:00"), "rules[0].startTime is 25:00"),
        ("/rules/0/startTime", json!("24:00"), "rules[0].startTime is 24:00"),
        ("/rules/0/endTime", json!("7:00"), "rules[0].endTime is 7:00"),
        ("/rules/0/endTime", Value::Null, "rules[0].endTime is missing"),
        ("/rules/0/daysOfWeek", json!([7]), "rules[0].daysOfWeek has 7"),
        ("/rules/0/daysOfWeek", json!([-1]), "rules[0].daysOfWeek has -1"),
        ("/rules/0/daysOfWeek", json!(["mon"]), "rules[0].daysOfWeek has \"mon\""),
        ("/rules/0/daysOfWeek", Value::Null, "rules[0].daysOfWeek is missing"),
        ("/deviceTimezone", json!("Mars/Base"), "the time zone `Mars/Base` is unknown"),
        ("/deviceTimezone", json!("+02:00"), "the time zone `+02:00` is unknown"),
        ("/startsAt", json!("tomorrow"), "startsAt: "),
        ("/rules", Value::Null, "rules is missing"),
        ("/rules", json!({}), "invalid type"),
        ("/id", Value::Null, "id is missing"),
    ] {
        let mapped = one(&with(schedule(), &[(pointer, value.clone())]), &battery());
        let Fate::Reject(faults) = &mapped.fate else { panic!("{pointer} {value}: {mapped:?}") };
        assert!(faults.len() == 1 && faults[0].contains(says), "{pointer} {value}: {faults:?}");
    }
    let backwards = [("/startsAt", json!("2026-01-02T00:00:00Z")), ("/endsAt", json!("2026-01-02T00:00:00Z"))];
    assert!(matches!(one(&with(schedule(), &backwards), &battery()).fate, Fate::Reject(_)));
}

/// The mode object, row by row: what a battery's rule becomes.
#[test]
fn the_table_of_battery_modes() {
    let known = Target { max_discharge_w: Some(4000.0), capacity_wh: Some(10_000.0), ..battery() };
    let charge = |grid, max| json!({"action": "charge", "params": {"grid": grid, "max_soc_pct": max}});
    for (mode, wants) in [
        (json!({"operatingMode": "charge"}), json!({"action": "charge", "params": {"grid": false}})),
        (
            json!({"operatingMode": "charge", "maximumBatteryReserve": 80, "enableGridInteraction": true}),
            charge(true, 80.0),
        ),
        (
            json!({"operatingMode": "charge", "maximumBatteryReserve": 90, "minimumBatteryReserve": 5}),
            charge(false, 90.0),
        ),
        (
            json!({"operatingMode": "discharge", "enableGridInteraction": true}),
            json!({"action": "discharge", "params": {}}),
        ),
        (
            json!({"operatingMode": "discharge", "enableGridInteraction": true, "dischargePowerRate": 2500,
                   "dischargePowerPercent": 10, "minimumBatteryReserve": 20}),
            json!({"action": "discharge", "params": {"power_w": 2500.0, "min_soc_pct": 20.0}}),
        ),
        (
            json!({"operatingMode": "discharge", "enableGridInteraction": true, "dischargePowerPercent": 25}),
            json!({"action": "discharge", "params": {"power_w": 1000.0}}),
        ),
        (
            json!({"operatingMode": "discharge", "enableGridInteraction": true, "dischargeStrategy": "smooth",
                   "minimumBatteryReserve": 40, "executionPriority": ["grid_services", "to_come"]}),
            json!({"action": "discharge", "params": {"power_w": 3000.0, "min_soc_pct": 40.0}}),
        ),
        (
            json!({"operatingMode": "discharge", "enableGridInteraction": true, "dischargeStrategy": "max"}),
            json!({"action": "discharge", "params": {}}),
        ),
        (json!({"operatingMode": "discharge"}), json!({"action": "auto", "params": {}})),
        (json!({"operatingMode": "idle"}), json!({"action": "idle", "params": {}})),
        (json!({"operatingMode": "reset"}), json!({"action": "auto", "params": {}})),
    ] {
        let mapped = one(&with(schedule(), &[("/defaultDeviceOperatingMode", mode.clone())]), &known);
        let Fate::Take(document) = &mapped.fate else { panic!("{mode}: {mapped:?}") };
        assert_eq!(document["default"], wants, "{mode}");
        doc(&mapped, &known);
    }
    for (mode, says) in [
        (json!({}), "operatingMode is missing"),
        (json!({"operatingMode": null}), "operatingMode is missing"),
        (json!({"operatingMode": 5}), "operatingMode is 5"),
        (json!({"operatingMode": "start-charging"}), "operatingMode is `start-charging`: a battery takes"),
        (json!({"operatingMode": "charge", "maximumBatteryReserve": 101}), "maximumBatteryReserve is 101"),
        (json!({"operatingMode": "charge", "minimumBatteryReserve": -1}), "minimumBatteryReserve is -1"),
        (json!({"operatingMode": "charge", "enableGridInteraction": "yes"}), "enableGridInteraction is \"yes\""),
        (json!({"operatingMode": "discharge", "dischargePowerRate": 0}), "dischargePowerRate is 0"),
        (json!({"operatingMode": "discharge", "dischargePowerPercent": 0}), "dischargePowerPercent is 0"),
        (json!({"operatingMode": "discharge", "dischargePowerPercent": 101}), "dischargePowerPercent is 101"),
        (json!({"operatingMode": "discharge", "dischargeStrategy": "slow"}), "dischargeStrategy is `slow`"),
        (
            json!({"operatingMode": "discharge", "dischargePowerPercent": 50, "enableGridInteraction": true}),
            "the largest power of battery is not known",
        ),
        (json!("idle"), "not an object"),
    ] {
        let mapped = one(&with(schedule(), &[("/rules/0/deviceOperatingMode", mode.clone())]), &battery());
        assert!(mapped.warnings.len() == 1 && mapped.warnings[0].contains(says), "{mode}: {:?}", mapped.warnings);
        assert!(mapped.warnings[0].starts_with("rules[0] does nothing: "), "{:?}", mapped.warnings);
        assert_eq!(name(&doc(&mapped, &battery()), "2026-11-22T17:00:00Z"), "-", "{mode}");
    }
}

#[test]
fn a_charger_starts_and_stops() {
    let charger = target(DeviceKind::Charger);
    let schedule = with(
        schedule(),
        &[
            ("/defaultDeviceOperatingMode", json!({"operatingMode": "stop-charging"})),
            ("/rules/0/deviceOperatingMode", json!({"operatingMode": "start-charging"})),
        ],
    );
    let mapped = one(&schedule, &charger);
    let doc = doc(&mapped, &charger);
    assert_eq!(doc.at(t("2026-11-22T17:00:00Z")).map(|w| w.action), Some(Action::Start));
    assert_eq!(doc.at(t("2026-11-22T18:00:00Z")).map(|w| w.action), Some(Action::Stop));
    assert_eq!(doc.rank(), Rank::Schedule);
    // What a battery does is nothing for an inverter.
    let mapped = one(&super::tests::schedule(), &target(DeviceKind::Inverter));
    assert_eq!(mapped.fate, Fate::Drop("none of its modes can be carried out here".to_owned()));
}

fn tag_schedule(id: &str, kind: &str) -> Value {
    json!({"id": id, "workspaceId": "w", "tag": "summer", "deviceType": kind, "timezone": "America/New_York",
        "startsAt": "2021-04-01T00:00:00.000Z", "createdAt": "2021-04-01T00:00:00.000Z",
        "defaultDeviceOperatingMode": {"operatingMode": "idle"}, "rules": []})
}

#[test]
fn a_tag_schedule_ranks_below_and_is_for_its_kind_of_device() {
    for (kind, target, says) in [
        ("battery", battery(), ""),
        ("battery", target(DeviceKind::Charger), "it is for a battery, and charger is a charger"),
        ("thermostat", battery(), "it is for a thermostat, which is no device on the LAN"),
        ("vehicle", target(DeviceKind::Charger), "it is for a vehicle, which is no device on the LAN"),
        ("heatpump", battery(), "it is for a heatpump, and battery is a battery"),
    ] {
        let mapped = one(&json!({"tagSchedules": [tag_schedule("t1", kind)]}), &target);
        if says.is_empty() {
            let doc = doc(&mapped, &target);
            assert_eq!((doc.rank(), doc.id().as_str()), (Rank::Tag, "texture-t1-battery"));
        } else {
            assert_eq!(mapped.fate, Fate::Drop(says.to_owned()));
        }
    }
}

/// Of schedules that are in force at the same time the latest `createdAt` wins, in whichever order they come.
#[test]
fn the_schedule_created_last_wins_while_it_is_in_force() {
    let made = |id: &str, created: &str, from: Option<&str>, to: Option<&str>, mode: &str| {
        with(
            schedule(),
            &[
                ("/id", json!(id)),
                ("/createdAt", json!(created)),
                ("/startsAt", from.map_or(Value::Null, |t| json!(t))),
                ("/endsAt", to.map_or(Value::Null, |t| json!(t))),
                ("/defaultDeviceOperatingMode", json!({"operatingMode": mode})),
                ("/rules", json!([])),
            ],
        )
    };
    let old = made("old", "2026-01-01T00:00:00Z", None, None, "idle");
    let new = made("new", "2026-02-01T00:00:00Z", Some("2026-06-01T00:00:00Z"), Some("2026-07-01T00:00:00Z"), "reset");
    for order in [json!([old, new]), json!([new, old])] {
        let all = map(&json!({"deviceSchedules": order}), &battery());
        assert_eq!(all.iter().map(|m| m.plan.as_str()).collect::<Vec<_>>(), ["texture-old", "texture-new"]);
        let (old, new) = (doc(&all[0], &battery()), doc(&all[1], &battery()));
        for (at, wants) in [
            ("2026-05-31T23:59:59.999Z", ("idle", "-")),
            ("2026-06-01T00:00:00Z", ("-", "auto")),
            ("2026-06-30T23:59:59.999Z", ("-", "auto")),
            ("2026-07-01T00:00:00Z", ("idle", "-")),
        ] {
            assert_eq!((name(&old, at), name(&new, at)), wants, "{at}");
        }
        assert_eq!(all[0].warnings, ["a schedule that was created later takes part of its time"]);
    }
    // Covered wholly, and not at all.
    let inner =
        made("in", "2025-01-01T00:00:00Z", Some("2026-06-10T00:00:00Z"), Some("2026-06-20T00:00:00Z"), "charge");
    let other = made("other", "2025-02-01T00:00:00Z", None, Some("2026-06-01T00:00:00Z"), "charge");
    let tag = with(tag_schedule("tag", "battery"), &[("/createdAt", json!("2027-01-01T00:00:00Z"))]);
    let all = map(&json!([inner, other, new, tag]), &battery());
    assert!(matches!(&all[0].fate, Fate::Drop(why) if why.contains("covers its whole time")));
    assert!(all[1].warnings.is_empty() && all[2].warnings.is_empty(), "the tag's schedule is another layer");
}

#[test]
fn an_answer_that_is_no_schedule() {
    assert!(schedules(&json!("no"), &battery()).is_err());
    assert!(schedules(&json!({"deviceSchedules": 5}), &battery()).is_err());
    assert_eq!(schedules(&json!({"deviceSchedules": []}), &battery()), Ok(vec![]));
    assert!(matches!(one(&json!([5]), &battery()).fate, Fate::Reject(_)));
    // The example of the specification: a thermostat's mode, on a device that is none.
    let example = with(
        schedule(),
        &[
            ("/defaultDeviceOperatingMode", json!({"operatingMode": "auto", "heatTarget": 70, "coolTarget": 78})),
            (
                "/rules/0",
                json!({"daysOfWeek": [0, 1, 2, 3, 4, 5, 6], "startTime": "13:00", "endTime": "13:00",
                "deviceOperatingMode": {"operatingMode": "auto", "heatTarget": 70, "coolTarget": 78}}),
            ),
        ],
    );
    assert_eq!(one(&example, &battery()).fate, Fate::Drop("none of its modes can be carried out here".to_owned()));
}
