use super::*;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use serde_json::json;
use std::time::Duration;

/// Both hemispheres, half an hour of daylight saving, changes at midnight, a zone that changes for one month, none.
const ZONES: [&str; 12] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Sydney",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Chatham",
    "America/Santiago",
    "America/Havana",
    "Africa/Casablanca",
    "Asia/Beirut",
    "Asia/Kolkata",
    "UTC",
];
pub(super) const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn kind_of(id: &DeviceId) -> Option<DeviceKind> {
    match id.as_str() {
        "battery" => Some(DeviceKind::Battery),
        "charger" => Some(DeviceKind::Charger),
        _ => None,
    }
}

pub(super) fn parse(body: &Value) -> Result<PlanDoc, Vec<String>> {
    PlanDoc::parse(None, body.to_string().as_bytes(), kind_of, "Europe/Berlin")
}

pub(super) fn doc(body: &Value) -> PlanDoc {
    parse(body).unwrap_or_else(|reasons| panic!("{reasons:?}"))
}

pub(super) fn t(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The name of what is wanted, or nothing.
fn name(doc: &PlanDoc, at: &str) -> Option<&'static str> {
    doc.at(t(at)).map(|wanted| wanted.action.name())
}

fn weekly(zone: &str, rules: &Value) -> Value {
    json!({"id": "p1", "device": "battery", "kind": "weekly", "timezone": zone, "rules": rules})
}

fn every_day(start: &str, end: &str, action: &str) -> Value {
    json!({"days": DAYS, "start": start, "end": end, "action": action})
}

#[test]
fn the_interface_example() {
    let p = doc(&json!({"id": "p1", "device": "battery", "kind": "weekly", "timezone": "Europe/Berlin",
        "starts_at": "2026-11-01T00:00:00Z", "ends_at": null, "default": {"action": "auto"},
        "rules": [{"days": ["mon", "tue"], "start": "22:00", "end": "06:00", "action": "charge",
                   "params": {"power_w": 2000}}]}));
    assert_eq!(
        (p.id().as_str(), p.device().unwrap().as_str(), p.kind(), p.rank()),
        ("p1", "battery", "weekly", Rank::Schedule)
    );
    // 2026-11-23 is a Monday; Berlin is one hour ahead.
    for (at, wants) in [
        ("2026-10-31T23:59:59.999Z", None),
        ("2026-11-01T00:00:00Z", Some("auto")),
        ("2026-11-23T20:59:59.999Z", Some("auto")),
        ("2026-11-23T21:00:00Z", Some("charge")),
        ("2026-11-24T04:59:59.999Z", Some("charge")),
        ("2026-11-24T05:00:00Z", Some("auto")),
        ("2026-11-25T04:59:59Z", Some("charge")),
        ("2026-11-25T21:00:00Z", Some("auto")),
    ] {
        assert_eq!(name(&p, at), wants, "{at}");
    }
    let wanted = p.at(t("2026-11-24T01:00:00Z")).unwrap();
    assert_eq!((wanted.since, wanted.until), (t("2026-11-23T21:00:00Z"), t("2026-11-24T05:00:00Z")));
    assert_eq!(p.next_change(t("2026-11-24T05:00:00Z")), Some(t("2026-11-24T21:00:00Z")));
    assert_eq!(p.next_change(t("2020-01-01T00:00:00Z")), Some(t("2026-11-01T00:00:00Z")));
}

#[test]
fn the_first_listed_rule_wins_and_days_may_end_at_24() {
    let p = doc(&weekly(
        "UTC",
        &json!([
            every_day("06:00", "08:00", "idle"),
            {"days": ["sat"], "start": "00:00", "end": "24:00", "action": "discharge"},
            every_day("07:00", "09:00", "charge"),
            every_day("23:00", "00:00", "idle"),
        ]),
    ));
    // 2026-11-21 is a Saturday.
    for (at, wants) in [
        ("2026-11-20T07:30:00Z", Some("idle")),
        ("2026-11-20T08:00:00Z", Some("charge")),
        ("2026-11-20T09:00:00Z", None),
        ("2026-11-20T23:59:59Z", Some("idle")),
        ("2026-11-21T00:00:00Z", Some("discharge")),
        ("2026-11-21T07:30:00Z", Some("idle")),
        ("2026-11-21T08:30:00Z", Some("discharge")),
        ("2026-11-21T23:30:00Z", Some("discharge")),
        ("2026-11-22T00:00:00Z", None),
    ] {
        assert_eq!(name(&p, at), wants, "{at}");
    }
}

#[test]
fn rules_that_meet_with_the_same_action_are_one_wish() {
    let p = doc(&weekly("UTC", &json!([every_day("00:00", "12:00", "idle"), every_day("12:00", "24:00", "idle")])));
    let wanted = p.at(t("2026-11-20T07:30:00Z")).unwrap();
    assert_eq!((wanted.since, wanted.until), (Timestamp::from_ms(0), forever()));
    assert_eq!(p.next_change(t("2026-11-20T07:30:00Z")), None);
    let only_default = json!({"id": "p", "device": "charger", "kind": "weekly", "default": {"action": "stop"},
        "rules": [], "starts_at": "2026-01-01T00:00:00Z", "ends_at": "2026-02-01T00:00:00Z"});
    let p = doc(&only_default);
    let wanted = p.at(t("2026-01-20T07:30:00Z")).unwrap();
    assert_eq!((wanted.since, wanted.until), (t("2026-01-01T00:00:00Z"), t("2026-02-01T00:00:00Z")));
    assert_eq!(p.at(t("2026-02-01T00:00:00Z")), None);
    assert_eq!(p.next_change(t("2026-02-01T00:00:00Z")), None);
}

#[test]
fn a_start_in_the_skipped_hour_fires_at_the_first_instant_after_it() {
    // Berlin, 2027-03-28: 02:00 becomes 03:00 at 01:00Z.
    let p = doc(&weekly("Europe/Berlin", &json!([every_day("02:30", "04:00", "idle")])));
    assert_eq!(p.next_change(t("2027-03-28T00:00:00Z")), Some(t("2027-03-28T01:00:00Z")));
    assert_eq!(p.next_change(t("2027-03-28T01:00:00Z")), Some(t("2027-03-28T02:00:00Z")));
    assert_eq!(p.at(t("2027-03-28T01:30:00Z")).unwrap().since, t("2027-03-28T01:00:00Z"));
    // Wholly inside it: not on that day.
    let p = doc(&weekly("Europe/Berlin", &json!([every_day("02:15", "02:45", "idle")])));
    assert_eq!(p.next_change(t("2027-03-28T00:00:00Z")), Some(t("2027-03-29T00:15:00Z")));
}

#[test]
fn a_repeated_hour_is_active_both_times() {
    // Berlin, 2026-10-25: 03:00 becomes 02:00 at 01:00Z.
    let p = doc(&weekly("Europe/Berlin", &json!([every_day("02:00", "03:00", "idle")])));
    let wanted = p.at(t("2026-10-25T00:10:00Z")).unwrap();
    assert_eq!((wanted.since, wanted.until), (t("2026-10-25T00:00:00Z"), t("2026-10-25T02:00:00Z")));
    let p = doc(&weekly("Europe/Berlin", &json!([every_day("02:15", "02:45", "idle")])));
    let changes = changes(&p, "2026-10-25T00:00:00Z", 4);
    assert_eq!(
        changes,
        ["2026-10-25T00:15:00Z", "2026-10-25T00:45:00Z", "2026-10-25T01:15:00Z", "2026-10-25T01:45:00Z"].map(t)
    );
}

#[test]
fn days_of_23_and_25_hours_and_a_day_that_never_was() {
    let length = |zone: &str, day: &str, from: &str| {
        let p = doc(&weekly(zone, &json!([{"days": [day], "start": "00:00", "end": "24:00", "action": "idle"}])));
        let start = p.next_change(t(from)).unwrap();
        p.next_change(start).unwrap().since(start)
    };
    assert_eq!(length("Europe/Berlin", "sun", "2027-03-26T00:00:00Z"), HOUR * 23);
    assert_eq!(length("Europe/Berlin", "sun", "2026-10-23T00:00:00Z"), HOUR * 25);
    assert_eq!(length("Australia/Lord_Howe", "sun", "2026-10-02T00:00:00Z"), HOUR * 23 + MINUTE * 30);
    assert_eq!(length("Europe/Berlin", "mon", "2026-10-23T00:00:00Z"), HOUR * 24);
    // Apia went from Thursday 2011-12-29 to Saturday 31 at 10:00Z.
    let p =
        doc(&weekly("Pacific/Apia", &json!([{"days": ["fri"], "start": "20:00", "end": "06:00", "action": "idle"}])));
    assert_eq!(
        changes(&p, "2011-12-29T00:00:00Z", 3),
        ["2011-12-30T10:00:00Z", "2011-12-30T16:00:00Z", "2012-01-06T06:00:00Z"].map(t),
        "only the part that reaches into Saturday is left"
    );
}

fn changes(p: &PlanDoc, from: &str, n: usize) -> Vec<Timestamp> {
    std::iter::successors(p.next_change(t(from)), |at| p.next_change(*at)).take(n).collect()
}

/// A rule as the slow evaluator reads it: days (0 = Monday), minutes of the day, instants, and whether it wants anything.
#[derive(Debug, Clone)]
struct SlowRule {
    days: Vec<usize>,
    start: i32,
    end: i32,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    is_none: bool,
}

fn slow_rule((days, start, end): (Vec<usize>, i32, i32)) -> SlowRule {
    SlowRule { days, start, end, from: None, to: None, is_none: false }
}

/// A second opinion, by the calendar of another library and minute by minute: which rule holds at `at`.
fn slow(zone: &TimeZone, rules: &[SlowRule], at: Timestamp) -> Option<usize> {
    let local = jiff::Timestamp::from_millisecond(at.ms()).unwrap().to_zoned(zone.clone());
    let day = usize::try_from(local.weekday().to_monday_zero_offset()).unwrap();
    let yesterday = (day + 6) % 7;
    let minute = i32::from(local.hour()) * 60 + i32::from(local.minute());
    let first = rules.iter().position(|SlowRule { days, start, end, from, to, .. }| {
        let today = days.contains(&day) && *start <= minute && (minute < *end || end <= start);
        let by_clock = today || (end <= start && days.contains(&yesterday) && minute < *end);
        by_clock && from.is_none_or(|from| from <= at) && to.is_none_or(|to| at < to)
    });
    first.filter(|n| !rules[*n].is_none)
}

pub(super) fn clock(minute: i32) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

fn from_rules(zone: &str, rules: &[SlowRule]) -> PlanDoc {
    let rules: Vec<Value> = rules
        .iter()
        .enumerate()
        .map(|(n, rule)| {
            let mut json = json!({"from": rule.from.map(|t| t.to_string()), "to": rule.to.map(|t| t.to_string())});
            // What may be left out is left out.
            if rule.days.len() < 7 {
                json["days"] = rule.days.iter().map(|d| DAYS[*d]).collect();
            }
            if (rule.start, rule.end) != (0, 1440) {
                json["start"] = json!(clock(rule.start));
                json["end"] = json!(clock(rule.end));
            }
            if rule.is_none {
                json["action"] = json!("none");
            } else {
                // A power of its own tells which rule it was.
                json["action"] = json!("charge");
                json["params"] = json!({"power_w": n + 1});
            }
            json
        })
        .collect();
    doc(&weekly(zone, &Value::Array(rules)))
}

fn rule_of(wanted: Option<&Wanted>) -> Option<usize> {
    match wanted?.action {
        Action::Charge { power_w: Some(p), .. } => {
            (0..1000).find(|n| (f64::from(*n) + 1.0 - p).abs() < 0.5).map(|n: u16| n.into())
        }
        _ => None,
    }
}

/// Compare with [`slow`] every minute from `from` to `to`, and `since`, `until` and `next_change` on the way.
fn compare(zone_name: &str, rules: &[SlowRule], from: Timestamp, to: Timestamp) {
    let zone = TimeZone::get(zone_name).unwrap();
    let p = from_rules(zone_name, rules);
    let mut at = from;
    let mut state = slow(&zone, rules, at);
    let mut claim = p.next_change(at);
    let mut since = None;
    while at < to {
        let expected = slow(&zone, rules, at);
        if expected == state {
            assert!(claim.is_none_or(|c| c > at), "{zone_name} {at}: a change was promised, {rules:?}");
        } else {
            assert_eq!(claim, Some(at), "{zone_name} {at}: promised, {rules:?}");
            let before = p.at(Timestamp::from_ms(at.ms() - 1));
            assert_eq!(rule_of(before.as_ref()), state, "{zone_name} just before {at}, {rules:?}");
            state = expected;
            claim = p.next_change(at);
            since = Some(at);
        }
        let wanted = p.at(at);
        assert_eq!(rule_of(wanted.as_ref()), expected, "{zone_name} {at}, {rules:?}");
        if let Some(wanted) = wanted {
            assert_eq!(Some(wanted.until), claim.or(Some(forever())), "{zone_name} {at}, {rules:?}");
            assert!(since.map_or(wanted.since <= from, |s| wanted.since == s), "{zone_name} {at}, {rules:?}");
        }
        at = at.plus(MINUTE);
    }
}

fn transitions(zone: &str) -> Vec<Timestamp> {
    let zone = TimeZone::get(zone).unwrap();
    let from: jiff::Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
    let to = "2041-01-01T00:00:00Z".parse().unwrap();
    zone.following(from)
        .map(|jump| jump.timestamp())
        .take_while(|at| *at < to)
        .map(|at| Timestamp::from_ms(at.as_millisecond()))
        .collect()
}

#[test]
fn agrees_with_a_slow_evaluator_around_every_transition_from_2020_to_2040() {
    let all: Vec<usize> = (0..7).collect();
    let busy = [
        (vec![6], 150, 240),
        (all.clone(), 75, 130),
        (vec![5, 6, 0], 1410, 30),
        (all.clone(), 105, 150),
        (vec![5, 6], 0, 1440),
        (all.clone(), 22 * 60, 6 * 60),
    ]
    .map(slow_rule);
    let sparse = [(all.clone(), 135, 165)].map(slow_rule);
    let mut seen = 0;
    for zone in ZONES {
        for jump in transitions(zone) {
            seen += 1;
            let (from, to) = (jump.minus(HOUR * 3), jump.plus(HOUR * 3));
            compare(zone, &busy, from, to);
            compare(zone, &sparse, from, to);
            // Bound to instants: over the change, up to it, from it, and one that wants nothing in the midst of it.
            let bound = |from: Option<Timestamp>, to: Option<Timestamp>, rule| SlowRule { from, to, ..slow_rule(rule) };
            let mut filtered = vec![
                bound(Some(jump.minus(MINUTE * 20)), Some(jump.plus(MINUTE * 10)), (all.clone(), 0, 1440)),
                bound(None, Some(jump), (all.clone(), 90, 180)),
                bound(Some(jump), None, (vec![6, 0], 0, 1440)),
                bound(Some(jump.minus(HOUR)), Some(jump.plus(MINUTE * 90)), (all.clone(), 30, 30)),
                bound(Some(jump.plus(MINUTE * 30)), None, (all.clone(), 150, 150)),
            ];
            filtered[0].is_none = true;
            compare(zone, &filtered, from, to);
        }
    }
    assert!(seen > 300, "{seen} transitions");
}

#[test]
fn no_transition_is_left_out() {
    for zone_name in ZONES {
        let zone = TimeZone::get(zone_name).unwrap();
        let offset = |at: Timestamp| zone.to_offset(jiff::Timestamp::from_millisecond(at.ms()).unwrap());
        let known = transitions(zone_name);
        let mut at = t("2020-01-01T00:00:00Z");
        while at < t("2041-01-01T00:00:00Z") {
            let next = at.plus(HOUR * 6);
            if offset(at) != offset(next) {
                assert!(known.iter().any(|jump| at < *jump && *jump <= next), "{zone_name}: after {at}");
            }
            at = next;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_slow_evaluator_for_any_rules(
        zone in 0..ZONES.len(),
        which in any::<prop::sample::Index>(),
        offset in -26 * 60..26 * 60_i32,
        rules in prop::collection::vec(
            (
                prop::collection::btree_set(0..7_usize, 1..8),
                0..1440_i32,
                0..1441_i32,
                prop::option::of(-180..180_i32),
                prop::option::of(1..200_i32),
                prop::bool::weighted(0.2),
            ),
            1..6,
        ),
    ) {
        let jumps = transitions(ZONES[zone]);
        let jump = if jumps.is_empty() { t("2026-11-20T00:00:00Z") } else { *which.get(&jumps) };
        let minute = |n: i32| Timestamp::from_ms(jump.ms() + i64::from(offset + n) * 60_000);
        let mut rules: Vec<_> = rules.into_iter().map(|(days, start, end, from, length, is_none)| SlowRule {
            days: days.into_iter().collect(),
            start,
            end,
            from: from.map(minute),
            to: length.map(|length| minute(from.unwrap_or(0) + length)),
            is_none,
        }).collect();
        // At least one must want something.
        rules[0].is_none = false;
        compare(ZONES[zone], &rules, minute(-120), minute(120));
    }

    #[test]
    fn slots_agree_with_a_slow_evaluator(
        slots in prop::collection::vec((0..50_i64, 1..20_i64, 1..4_u32), 1..12),
    ) {
        let at = |s: i64| Timestamp::from_ms(1_800_000_000_000 + s * 1000);
        let list: Vec<Value> = slots.iter().map(|(start, length, power)| json!({"start": at(*start).to_string(),
            "end": at(start + length).to_string(), "action": "charge", "params": {"power_w": power}})).collect();
        let p = doc(&json!({"id": "p", "device": "battery", "kind": "slots", "slots": list}));
        let slow = |s: i64| slots.iter().enumerate().filter(|(_, (start, length, _))| *start <= s && s < start + length)
            .max_by_key(|(n, (start, ..))| (*start, *n)).map(|(_, (.., power))| *power);
        for s in -1..72 {
            let wanted = p.at(at(s));
            let power = wanted.as_ref().map(|w| match w.action { Action::Charge { power_w: Some(p), .. } => p, _ => 0.0 });
            prop_assert_eq!(power, slow(s).map(f64::from));
            let next = (s + 1..80).find(|n| slow(*n) != slow(s)).map(at);
            prop_assert_eq!(p.next_change(at(s)), next);
            if let Some(wanted) = wanted {
                prop_assert_eq!(Some(wanted.until), next);
                let since = (-2..s).rev().find(|n| slow(*n) != slow(s)).map(|n| at(n + 1));
                prop_assert_eq!(Some(wanted.since), since);
            }
        }
    }

    #[test]
    fn parsing_never_panics(body in prop::collection::vec(any::<u8>(), 0..300)) {
        drop(PlanDoc::parse(None, &body, kind_of, "UTC"));
    }
}

#[test]
fn the_normal_form_is_the_same_document() {
    let bodies = [
        weekly(
            "europe/berlin",
            &json!([{"days": ["sun", "mon", "mon"], "start": "22:00", "end": "24:00",
            "action": "charge", "params": {"power_w": 2000, "grid": false}}]),
        ),
        json!({"id": "s", "device": "charger", "kind": "slots", "name": "night", "slots": [
            {"start": "2026-11-20T13:00:00+01:00", "end": "2026-11-20T13:30:00Z", "action": "stop"}]}),
    ];
    for body in bodies {
        let first = doc(&body).to_json();
        assert_eq!(doc(&first).to_json(), first);
    }
    let p =
        doc(&json!({"device": "battery", "kind": "weekly", "id": "p", "rules": [every_day("01:00", "02:00", "idle")]}));
    assert_eq!(
        p.to_json(),
        json!({"id": "p", "device": "battery", "kind": "weekly", "timezone": "Europe/Berlin", "starts_at": null,
            "ends_at": null, "default": null,
            "rules": [{"days": DAYS, "start": "01:00", "end": "02:00", "action": "idle", "params": {}}]})
    );
}

#[test]
fn every_fault_at_once_with_its_place() {
    let reasons = parse(&json!({"id": "P 1", "device": "batery", "kind": "weekly", "timezone": "Europe/Berlim",
        "starts_at": "2026-11-20T00:00:00Z", "ends_at": "2026-11-19T00:00:00Z", "defalt": {"action": "auto"},
        "rules": [
            {"days": ["monday"], "start": "7:00", "end": "25:00", "action": "idle"},
            {"days": [], "start": "24:00", "end": "24:01", "actoin": "idle"},
            5,
            {"end": "07:00", "action": "none", "from": "2026-11-20T00:00:00Z", "to": "2026-11-20T00:00:00Z"}]}))
    .unwrap_err();
    for says in [
        "id: `P 1` is not an id",
        "device `batery` is not configured",
        "defalt is unknown (did you mean `default`?)",
        "timezone `Europe/Berlim` is unknown: it takes a name such as Europe/Berlin (did you mean `Europe/Berlin`?)",
        "ends_at 2026-11-19T00:00:00.000Z is not after starts_at",
        "rules[0].days[0] is `monday`: it must be one of mon, tue, wed, thu, fri, sat, sun (did you mean `mon`?)",
        "rules[0].start is `7:00`: it must be HH:MM from 00:00 to 23:59",
        "rules[0].end is `25:00`: it must be HH:MM from 00:00 to 24:00",
        "rules[1].actoin is unknown (did you mean `action`?)",
        "rules[1].days is empty",
        "rules[1].start is `24:00`",
        "rules[1].end is `24:01`",
        "rules[1].action is missing",
        "rules[2] is 5: it must be an object",
        "rules[3].start is missing",
        "rules[3].to 2026-11-20T00:00:00.000Z is not after its from",
    ] {
        assert!(reasons.iter().any(|r| r.starts_with(says)), "{says}: {reasons:#?}");
    }
    assert_eq!(reasons.len(), 16, "{reasons:#?}");
}

#[test]
fn faults_one_by_one() {
    let slot = |start: &str, end: &str| json!({"start": start, "end": end, "action": "idle"});
    let slots = |slots: Value| json!({"id": "p", "device": "battery", "kind": "slots", "slots": slots});
    let many = |n: usize| Value::Array(vec![slot("2026-11-20T00:00:00Z", "2026-11-20T01:00:00Z"); n]);
    for (body, says) in [
        (json!([1]), "the document is not a JSON object"),
        (json!({"device": "battery", "kind": "slots", "slots": many(1)}), "id is missing"),
        (json!({"id": "p", "kind": "slots", "slots": many(1)}), "device is missing"),
        (json!({"id": "p", "device": "battery"}), "kind is missing"),
        (
            json!({"id": "p", "device": "battery", "kind": "wekly"}),
            "kind `wekly` is unknown: it is weekly, slots, solar, price, tariff (did",
        ),
        (json!({"id": "p", "device": "battery", "kind": "weekly"}), "rules is missing"),
        (
            json!({"id": "p", "device": "battery", "kind": "weekly", "rules": []}),
            "rules is empty and there is no default",
        ),
        (
            json!({"id": "p", "device": "battery", "kind": "weekly", "rules": {}}),
            "rules is an object: it must be a list",
        ),
        (slots(json!([])), "slots is empty"),
        (slots(json!(vec![5; MAX_SLOTS + 1])), "slots has 10001 entries: at most 10000"),
        (
            slots(json!([slot("2026-11-20T00:00:00Z", "2026-11-20T00:00:00Z")])),
            "slots[0].end 2026-11-20T00:00:00.000Z is not after",
        ),
        (
            slots(json!([slot("2026-11-20T00:00:00", "2026-11-20T01:00:00Z")])),
            "slots[0].start: `2026-11-20T00:00:00` is not an RFC 3339",
        ),
        (
            slots(json!([{"start": "2026-11-20T00:00:00Z", "end": "2026-11-20T01:00:00Z", "action": "stop"}])),
            "slots[0].action: action `stop` is not for a battery",
        ),
        (
            slots(
                json!([{"start": "2026-11-20T00:00:00Z", "end": "2026-11-20T01:00:00Z", "action": "charge", "params": {"power": 1}}]),
            ),
            "slots[0].action: params.power is unknown",
        ),
        (weekly("+02:00", &json!([every_day("01:00", "02:00", "idle")])), "timezone `+02:00` is unknown"),
        (weekly("UTC", &json!([every_day("01:00", "02:00", "release")])), "rules[0].action: unknown action `release`"),
    ] {
        let body = body.to_string();
        let reasons = PlanDoc::parse(None, body.as_bytes(), kind_of, "Mars/Base").unwrap_err();
        assert!(reasons.iter().any(|r| r.starts_with(says)), "{says}: {reasons:?}");
        assert!(reasons.iter().filter(|r| !r.contains("Mars/Base")).count() == 1, "{says}: {reasons:?}");
    }
    let big = vec![b' '; MAX_BODY + 1];
    assert!(PlanDoc::parse(None, &big, kind_of, "UTC").unwrap_err()[0].contains("at most 262144"));
    let outer: PlanId = "other".parse().unwrap();
    let body = weekly("UTC", &json!([every_day("01:00", "02:00", "idle")])).to_string();
    let reasons = PlanDoc::parse(Some(&outer), body.as_bytes(), kind_of, "UTC").unwrap_err();
    assert!(reasons[0].contains("they must agree"), "{reasons:?}");
    let lots = slots(json!(vec![5; 200])).to_string();
    let reasons = PlanDoc::parse(None, lots.as_bytes(), kind_of, "UTC").unwrap_err();
    assert_eq!((reasons.len(), reasons[50].as_str()), (51, "and 150 more"));
}

#[test]
fn rules_bound_to_instants() {
    let p = doc(&weekly(
        "Europe/Berlin",
        &json!([
            {"from": "2026-12-24T00:00:00Z", "to": "2026-12-27T00:00:00Z", "action": "none"},
            {"days": ["mon"], "action": "idle", "to": "2027-06-01T00:00:00Z"},
            {"start": "06:00", "end": "07:00", "action": "charge", "from": "2026-12-01T05:30:00Z"},
            {"from": "2027-06-10T12:00:00Z", "to": "2027-06-10T12:00:30.500Z", "action": "discharge"},
        ]),
    ));
    // 2026-11-30 is a Monday.
    assert_eq!(
        changes(&p, "2026-11-29T12:00:00Z", 4),
        ["2026-11-29T23:00:00Z", "2026-11-30T23:00:00Z", "2026-12-01T05:30:00Z", "2026-12-01T06:00:00Z"].map(t)
    );
    assert_eq!(p.at(t("2026-12-01T05:45:00Z")).unwrap().since, t("2026-12-01T05:30:00Z"));
    assert_eq!(name(&p, "2026-12-25T05:30:00Z"), None, "Christmas");
    assert_eq!(p.next_change(t("2026-12-24T00:00:00Z")), Some(t("2026-12-27T05:00:00Z")));
    assert_eq!(name(&p, "2027-06-07T10:00:00Z"), None, "a Monday after its last");
    let wanted = p.at(t("2027-06-10T12:00:30.499Z")).unwrap();
    assert_eq!((wanted.since, wanted.until), (t("2027-06-10T12:00:00Z"), t("2027-06-10T12:00:30.500Z")));
    assert_eq!(doc(&p.to_json()).to_json(), p.to_json());
    // Far away, and nothing in between.
    let p = doc(&weekly("Europe/Berlin", &json!([{"action": "idle", "from": "2080-01-01T00:00:00Z"}])));
    assert_eq!(p.next_change(t("2026-01-01T00:00:00Z")), Some(t("2080-01-01T00:00:00Z")));
    assert_eq!(p.at(t("2090-01-01T00:00:00Z")).unwrap().until, forever());
}

#[test]
fn a_document_may_ask_for_a_lower_rank_only() {
    let of = |kind: &str, rank: &Value| {
        let mut body = weekly("UTC", &json!([every_day("01:00", "02:00", "idle")]));
        if kind == "slots" {
            body = json!({"id": "p", "device": "battery", "kind": "slots", "slots": [
                {"start": "2026-11-20T00:00:00Z", "end": "2026-11-20T01:00:00Z", "action": "idle"}]});
        }
        body["rank"] = rank.clone();
        parse(&body).map(|p| {
            assert_eq!(doc(&p.to_json()).rank(), p.rank());
            p.rank()
        })
    };
    for (kind, rank, gets) in [
        ("weekly", Value::Null, Ok(Rank::Schedule)),
        ("weekly", json!("tag"), Ok(Rank::Tag)),
        ("weekly", json!("schedule"), Ok(Rank::Schedule)),
        ("weekly", json!("plan"), Err("rank is `plan`: a weekly document ranks schedule, and may only ask for less")),
        ("slots", json!("tag"), Ok(Rank::Tag)),
        ("slots", json!("schedule"), Ok(Rank::Schedule)),
        ("slots", json!("plan"), Ok(Rank::Plan)),
        ("slots", json!("owner"), Err("rank `owner` is unknown: it is one of tag, schedule, plan")),
        (
            "slots",
            json!("plann"),
            Err("rank `plann` is unknown: it is one of tag, schedule, plan (did you mean `plan`?)"),
        ),
        ("slots", json!(3), Err("rank is 3: it must be a text")),
    ] {
        assert_eq!(of(kind, &rank), gets.map_err(|why| vec![why.to_owned()]), "{kind} {rank}");
    }
}

#[test]
fn too_many_combinations_are_refused_and_many_in_a_row_are_not() {
    let start = t("2026-01-01T00:00:00Z");
    let rule = |n: u32, hours: u32| {
        json!({"action": "charge", "params": {"power_w": n + 1}, "from": start.plus(HOUR * n).to_string(),
               "to": start.plus(HOUR * (n + hours)).to_string()})
    };
    let p = doc(&weekly("UTC", &(0..1000).map(|n| rule(n, 2)).collect()));
    assert_eq!(p.next_change(start.plus(HOUR * 500)), Some(start.plus(HOUR * 501)), "the first listed wins");
    let reasons = parse(&weekly("UTC", &(0..1000).map(|n| rule(n, 1000)).collect())).unwrap_err();
    assert!(reasons[0].starts_with("rules overlap in too many ways"), "{reasons:?}");
}

#[test]
fn a_thousand_rules_may_be_one_wish() {
    let rules: Vec<Value> = (0..MAX_RULES).map(|n| every_day(&clock((n % 1440) as i32), "24:00", "idle")).collect();
    let p = doc(&weekly("America/New_York", &Value::Array(rules)));
    assert_eq!(p.next_change(t("2026-01-01T00:00:00Z")), None);
    assert_eq!(name(&p, "2026-03-08T07:30:00Z"), Some("idle"));
}
