use super::overlap::first_overlap;
use super::*;
use crate::model::PlanId;
use serde_json::json;

#[test]
fn ids_of_a_cloud_become_ids_of_documents() {
    for (parts, id) in [
        (vec!["texture", "clpkn2je80006102tx7d0jhb8"], "texture-clpkn2je80006102tx7d0jhb8"),
        (
            vec!["a", "4eaeb363-296d-4ccc-a973-7805e6f400bd", "battery"],
            "a-4eaeb363-296d-4ccc-a973-7805e6f400bd-battery",
        ),
    ] {
        assert_eq!(plan_id(&parts), id);
    }
    let long = "x".repeat(80);
    for (a, b) in [("AB", "ab"), ("a b", "a/b"), (long.as_str(), &long[1..]), ("ä", "ö")] {
        let (a, b) = (plan_id(&["cloud", a]), plan_id(&["cloud", b]));
        assert_ne!(a, b);
        assert!(a.parse::<PlanId>().is_ok() && b.parse::<PlanId>().is_ok(), "{a} {b}");
    }
}

#[test]
fn clock_times() {
    for (text, minutes) in [
        ("00:00", Some(0)),
        ("09:05", Some(545)),
        ("23:59", Some(1439)),
        ("24:00", Some(1440)),
        ("24:01", None),
        ("9:05", None),
        ("09:60", None),
        ("+9:05", None),
        ("09:05:00", None),
        ("", None),
    ] {
        assert_eq!(hour_minute(text), minutes, "{text}");
    }
}

#[test]
fn rules_that_hold_at_the_same_time() {
    let every = |days, start, end| Times { days, start, end, from: None, to: None };
    let at = |text: &str| Some(text.parse().unwrap());
    let year = |rule: Times, from, to| Times { from, to, ..rule };
    let noon = 720;
    for (name, a, b, meets) in [
        ("same day", every(1, 0, noon), every(1, noon - 1, noon + 1), true),
        ("one after the other", every(1, 0, noon), every(1, noon, 1440), false),
        ("other days", every(1, 0, 1440), every(2, 0, 1440), false),
        ("over midnight", every(1, 1320, 360), every(2, 359, 400), true),
        ("over midnight, up to", every(1, 1320, 360), every(2, 360, 400), false),
        ("over the end of the week", every(64, 1320, 360), every(1, 0, 60), true),
        ("a day from noon", every(1, noon, noon), every(2, noon - 1, noon), true),
        (
            "other years",
            year(every(127, 0, 1440), None, at("2026-01-01T00:00:00Z")),
            year(every(127, 0, 1440), at("2026-01-01T00:00:00Z"), None),
            false,
        ),
    ] {
        for (a, b) in [(a, b), (b, a)] {
            assert_eq!(first_overlap(&[(a, 1), (b, 2)]).is_some(), meets, "{name}");
            assert_eq!(first_overlap(&[(a, 1), (b, 1)]), None, "{name}: both want the same");
        }
    }
}

#[test]
fn entries_of_an_answer() {
    let one = json!({"id": 1});
    assert_eq!(entries(&one, &["data"]), Ok(vec![&one]));
    assert_eq!(entries(&json!([1, 2]), &["data"]).map(|l| l.len()), Ok(2));
    assert_eq!(entries(&json!({"data": [1]}), &["data"]).map(|l| l.len()), Ok(1));
    assert!(entries(&json!({"data": 1}), &["data"]).is_err());
    assert!(entries(&json!("x"), &["data"]).is_err());
}
