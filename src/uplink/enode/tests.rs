use super::schedule::{Places, schedules};
use crate::model::{DeviceKind, Timestamp};
use crate::plan::PlanDoc;
use crate::uplink::mapping::{Fate, Mapped, Target};
use serde_json::{Value, json};

const LOCATION: &str = "4eaeb363-296d-4ccc-a973-7805e6f400bd";

fn charger() -> Target {
    Target::new("wallbox".parse().unwrap(), DeviceKind::Charger)
}

fn places() -> Places {
    Places {
        zones: [(LOCATION.to_owned(), "Europe/Oslo".to_owned())].into(),
        device: None,
        site_zone: Some("Europe/Oslo".to_owned()),
    }
}

fn schedule(rule: &Value) -> Value {
    json!({"id": "9d90fd3c-0b1a-4b1e-8a3c-0d0f0f0f0f0f", "isEnabled": true, "targetId": "c1", "targetType": "charger",
        "locationId": LOCATION, "defaultShouldCharge": false, "rules": [rule]})
}

fn map(answer: &Value) -> Vec<Mapped> {
    schedules(answer, None, &charger(), &places()).unwrap()
}

fn one(answer: &Value) -> Mapped {
    let mut all = map(answer);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn doc(mapped: &Mapped) -> PlanDoc {
    let Fate::Take(document) = &mapped.fate else { panic!("{mapped:?}") };
    let kind = |_: &_| Some(DeviceKind::Charger);
    PlanDoc::parse(None, document.to_string().as_bytes(), kind, "UTC").unwrap_or_else(|reasons| panic!("{reasons:?}"))
}

fn name(doc: &PlanDoc, at: &str) -> &'static str {
    let at: Timestamp = at.parse().unwrap();
    doc.at(at).map_or("-", |wanted| wanted.action.name())
}

/// Each row: a rule's filters, and whether it holds when. Oslo is 1 h ahead in winter, 2 h in summer; 2026-11-23 is a Monday.
#[test]
fn the_table_of_filters() {
    for (filters, wants) in [
        // Nothing is filtered: always.
        (json!({}), vec![("2026-11-23T03:00:00Z", true), ("2031-01-01T00:00:00Z", true)]),
        (
            json!({"hourMinute": {"from": "08:00", "to": "09:00"}}),
            vec![
                ("2026-11-23T06:59:59.999Z", false),
                ("2026-11-23T07:00:00Z", true),
                ("2026-11-23T07:59:59.999Z", true),
                ("2026-11-23T08:00:00Z", false),
                ("2026-07-01T06:30:00Z", true),
            ],
        ),
        // `to` always lies after `from`.
        (
            json!({"hourMinute": {"from": "22:00", "to": "06:00"}}),
            vec![("2026-11-23T21:00:00Z", true), ("2026-11-24T04:59:59Z", true), ("2026-11-24T05:00:00Z", false)],
        ),
        (
            json!({"hourMinute": {"from": "13:00", "to": "13:00"}}),
            vec![("2026-11-23T11:59:00Z", true), ("2026-11-23T12:00:00Z", true)],
        ),
        (
            json!({"hourMinute": {"from": "13:00", "to": "13:00"}, "weekdays": [0]}),
            vec![
                ("2026-11-23T11:59:59Z", false),
                ("2026-11-23T12:00:00Z", true),
                ("2026-11-24T11:59:59Z", true),
                ("2026-11-24T12:00:00Z", false),
            ],
        ),
        (
            json!({"hourMinute": {"from": "23:00", "to": "24:00"}}),
            vec![("2026-11-23T22:30:00Z", true), ("2026-11-23T23:00:00Z", false)],
        ),
        // 0 is Monday, 6 is Sunday; without clock times the whole local day.
        (
            json!({"weekdays": [0]}),
            vec![("2026-11-22T22:59:59Z", false), ("2026-11-22T23:00:00Z", true), ("2026-11-23T23:00:00Z", false)],
        ),
        (json!({"weekdays": [6]}), vec![("2026-11-22T12:00:00Z", true), ("2026-11-23T12:00:00Z", false)]),
        // The day is the one on which the interval begins.
        (
            json!({"weekdays": [0], "hourMinute": {"from": "22:00", "to": "06:00"}}),
            vec![("2026-11-23T03:00:00Z", false), ("2026-11-23T22:00:00Z", true), ("2026-11-24T04:30:00Z", true)],
        ),
        (json!({"weekdays": []}), vec![("2026-11-23T12:00:00Z", false), ("2026-11-29T12:00:00Z", false)]),
        // From inclusive, to exclusive.
        (
            json!({"fromTimestamp": "2026-11-23T12:00:00Z", "toTimestamp": "2026-11-24T12:00:00Z"}),
            vec![
                ("2026-11-23T11:59:59.999Z", false),
                ("2026-11-23T12:00:00Z", true),
                ("2026-11-24T11:59:59.999Z", true),
                ("2026-11-24T12:00:00Z", false),
            ],
        ),
        (
            json!({"fromTimestamp": "2026-11-23T12:00:00Z"}),
            vec![("2026-11-23T11:00:00Z", false), ("2030-01-01T00:00:00Z", true)],
        ),
        (
            json!({"toTimestamp": "2026-11-23T12:00:00Z"}),
            vec![("2020-01-01T00:00:00Z", true), ("2026-11-23T12:00:00Z", false)],
        ),
        (
            json!({"fromTimestamp": "2026-11-24T00:00:00Z", "toTimestamp": "2026-11-23T00:00:00Z"}),
            vec![("2026-11-23T12:00:00Z", false)],
        ),
        // All filters must hold.
        (
            json!({"weekdays": [0, 1], "hourMinute": {"from": "08:00", "to": "10:00"},
                   "fromTimestamp": "2026-11-23T08:30:00Z", "toTimestamp": "2026-11-24T07:30:00Z"}),
            vec![
                ("2026-11-23T08:29:59Z", false),
                ("2026-11-23T08:30:00Z", true),
                ("2026-11-23T09:00:00Z", false),
                ("2026-11-24T07:00:00Z", true),
                ("2026-11-24T07:30:00Z", false),
            ],
        ),
        // Daylight saving: Oslo skips 02:00 to 03:00 on 2027-03-28, and repeats it on 2026-10-25.
        (
            json!({"hourMinute": {"from": "02:30", "to": "04:00"}}),
            vec![("2027-03-28T00:59:59Z", false), ("2027-03-28T01:00:00Z", true)],
        ),
        (
            json!({"hourMinute": {"from": "02:15", "to": "02:45"}}),
            vec![("2026-10-25T00:20:00Z", true), ("2026-10-25T00:50:00Z", false), ("2026-10-25T01:20:00Z", true)],
        ),
        // Null is absent, and more fields may come.
        (
            json!({"weekdays": null, "hourMinute": null, "fromTimestamp": null, "toTimestamp": null, "colour": "red"}),
            vec![("2026-11-23T12:00:00Z", true)],
        ),
    ] {
        let mut rule = filters.clone();
        rule["shouldCharge"] = json!(true);
        let doc = doc(&one(&schedule(&rule)));
        for (at, holds) in wants {
            assert_eq!(name(&doc, at), if holds { "start" } else { "stop" }, "{filters} {at}");
        }
    }
}

#[test]
fn rules_and_the_default() {
    let rules = json!([{"shouldCharge": false, "hourMinute": {"from": "17:00", "to": "20:00"}},
        {"shouldCharge": true, "hourMinute": {"from": "19:00", "to": "22:00"}},
        {"hourMinute": {"from": "02:00", "to": "03:00"}}]);
    let mut both = schedule(&json!({}));
    both["rules"] = rules;
    both["defaultShouldCharge"] = json!(true);
    let mapped = one(&both);
    let p = doc(&mapped);
    for (at, wants) in [
        ("2026-11-23T18:30:00Z", "stop"),
        ("2026-11-23T19:30:00Z", "start"),
        ("2026-11-23T22:30:00Z", "start"),
        ("2026-11-24T01:30:00Z", "-"),
    ] {
        assert_eq!(name(&p, at), wants, "{at}");
    }
    assert_eq!(mapped.warnings[0], "rules[2] does nothing: it has no shouldCharge");
    assert!(
        mapped.warnings[1].starts_with("two rules hold at the same time (numbers 1 and 2"),
        "{:?}",
        mapped.warnings
    );
    both["defaultShouldCharge"] = json!(null);
    assert_eq!(name(&doc(&one(&both)), "2026-11-23T12:00:00Z"), "-");
    both["rules"] = json!([]);
    assert_eq!(one(&both).fate, Fate::Drop("it wants nothing at any time".to_owned()));
}

/// Each row: fields of the schedule, and what becomes of it.
#[test]
fn which_schedules_have_an_effect() {
    for (changes, says) in [
        (json!({"isEnabled": true}), ""),
        (json!({"isEnabled": null}), ""),
        (json!({"locationId": null}), ""),
        (json!({"isEnabled": false}), "it is disabled"),
        (
            json!({"targetType": "vehicle", "locationId": null}),
            "it is for a vehicle and names no location: never active",
        ),
        (json!({"targetType": "vehicle"}), "it is for a vehicle, which is no device on the LAN"),
        (json!({"targetType": "hvac"}), "it is for a hvac, which is no device on the LAN"),
        (json!({"targetType": "toaster"}), "it is for a toaster, which derd does not know"),
        (json!({"targetType": null}), "it is for a nameless kind, which derd does not know"),
    ] {
        let mut s = schedule(&json!({"shouldCharge": true}));
        s.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        match one(&s).fate {
            Fate::Take(_) => assert!(says.is_empty(), "{changes}"),
            Fate::Drop(why) => assert_eq!(why, says, "{changes}"),
            Fate::Reject(faults) => panic!("{changes}: {faults:?}"),
        }
    }
    let battery = Target::new("battery".parse().unwrap(), DeviceKind::Battery);
    let mapped = schedules(&schedule(&json!({"shouldCharge": true})), None, &battery, &places()).unwrap();
    assert_eq!(mapped[0].fate, Fate::Drop("it is for a charger, and battery is a battery".to_owned()));
}

/// Each row: location of the schedule, of the device, what is configured; the zone taken, and whether that is warned of.
#[test]
fn the_time_zone_is_that_of_the_location() {
    let zones: Places = Places {
        zones: [("oslo", "Europe/Oslo"), ("lima", "America/Lima"), ("utc", "UTC")]
            .map(|(k, v)| (k.into(), v.into()))
            .into(),
        ..places()
    };
    for (schedule_at, device_at, configured, zone, is_warned) in [
        (Some("oslo"), Some("lima"), Some("Asia/Tokyo"), "Europe/Oslo", false),
        (None, Some("lima"), Some("Asia/Tokyo"), "America/Lima", false),
        (None, None, Some("Asia/Tokyo"), "Asia/Tokyo", false),
        (None, None, None, "UTC", true),
        (Some("gone"), Some("lima"), None, "UTC", true),
        (Some("utc"), None, None, "UTC", true),
    ] {
        let mut s = schedule(&json!({"shouldCharge": true}));
        s["locationId"] = json!(schedule_at);
        let places = Places { device: device_at.map(Into::into), ..zones.clone() };
        let target = Target { zone: configured.map(Into::into), ..charger() };
        let mapped = schedules(&s, None, &target, &places).unwrap().remove(0);
        let Fate::Take(document) = &mapped.fate else { panic!("{mapped:?}") };
        assert_eq!(
            (&document["timezone"], mapped.warnings.len()),
            (&json!(zone), usize::from(is_warned)),
            "{mapped:?}"
        );
    }
    let bad = Places { zones: [(LOCATION.to_owned(), "Mars/Base".to_owned())].into(), ..places() };
    let mapped = schedules(&schedule(&json!({"shouldCharge": true})), None, &charger(), &bad).unwrap().remove(0);
    assert_eq!(mapped.fate, Fate::Reject(vec!["the time zone `Mars/Base` is unknown".to_owned()]));
}

#[test]
fn what_cannot_be_understood_rejects_the_schedule_as_a_whole() {
    for (rule, says) in [
        (
            json!({"shouldCharge": true, "hourMinute": {"from": "24:00", "to": "06:00"}}),
            "rules[0].hourMinute.from is 24:00",
        ),
        (json!({"shouldCharge": true, "hourMinute": {"from": "22:00"}}), "rules[0].hourMinute.to is missing"),
        (json!({"shouldCharge": true, "weekdays": [7]}), "rules[0].weekdays has 7"),
        (json!({"shouldCharge": true, "fromTimestamp": "soon"}), "rules[0].fromTimestamp: "),
        (json!({"shouldCharge": "yes"}), "invalid type"),
    ] {
        let mapped = one(&schedule(&rule));
        let Fate::Reject(faults) = &mapped.fate else { panic!("{rule}: {mapped:?}") };
        assert!(faults.len() == 1 && faults[0].contains(says), "{rule}: {faults:?}");
    }
}

#[test]
fn of_several_schedules_the_first_enabled_one_counts() {
    let made = |id: &str, target: &str, enabled: bool| {
        let mut s = schedule(&json!({"shouldCharge": true}));
        (s["id"], s["targetId"], s["isEnabled"]) = (json!(id), json!(target), json!(enabled));
        s
    };
    let list = json!({"data": [made("a", "c1", false), made("b", "c1", true), made("c", "c1", true)], "pagination": {"after": null}});
    let all = map(&list);
    assert_eq!(all[0].fate, Fate::Drop("it is disabled".to_owned()));
    assert!(matches!(&all[1].fate, Fate::Take(document) if document["id"] == "enode-b"));
    assert_eq!(all[2].fate, Fate::Drop("another schedule of this charger comes first".to_owned()));
    assert_eq!(all[2].warnings.len(), 1);
    let mixed = json!([made("a", "c1", true), made("b", "c2", true)]);
    let why = schedules(&mixed, None, &charger(), &places()).unwrap_err();
    assert_eq!(why, "the schedules are for several chargers: say which (c1, c2)");
    let second = schedules(&mixed, Some("c2"), &charger(), &places()).unwrap();
    assert_eq!((second.len(), second[0].plan.as_str()), (1, "enode-b"));
}
