use super::tests::{doc, parse, t};
use super::*;
use proptest::prelude::*;
use serde_json::json;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

fn tariff(body: &Value) -> Arc<Tariff> {
    let document = doc(body);
    assert_eq!(document.device(), None);
    // The normal form is the same document.
    assert_eq!(doc(&document.to_json()).to_json(), document.to_json());
    Arc::clone(document.tariff().unwrap())
}

fn at(tariff: &Tariff, when: &str) -> Option<f64> {
    tariff.price_at(t(when)).map(|p| p.import)
}

fn change(tariff: &Tariff, when: &str) -> Option<String> {
    tariff.next_change(t(when)).map(|t| t.to_string()[..16].to_owned())
}

/// Day 0.30, night 0.20 (22:00 to 06:00), Sunday 0.15; a holiday at 0.10; dearer from 2027 on.
fn two_rates() -> Arc<Tariff> {
    let week = ["mon", "tue", "wed", "thu", "fri", "sat"];
    tariff(
        &json!({"id": "t1", "kind": "tariff", "currency": "eur", "unit": "kWh", "timezone": "Europe/Berlin", "periods": [
        {"from": "2026-01-01", "to": "2027-01-01", "price": 0.15, "rates": [
            {"days": week, "start": "06:00", "end": "22:00", "price": 0.30, "export": 0.08},
            {"days": week, "start": "22:00", "end": "06:00", "price": 0.20}],
         "exceptions": [{"from": "2026-12-25", "to": "2026-12-27", "price": 0.10}]},
        {"from": "2027-01-01", "price": 0.40}]}),
    )
}

#[test]
fn rates_by_weekday_season_and_holiday() {
    let t1 = two_rates();
    assert_eq!(t1.currency(), "EUR");
    for (when, price) in [
        ("2025-12-31T22:59:59Z", None),
        // 2026-01-01 is a Thursday. Its first hours belong to no rate of the day before: that rate wraps by itself.
        ("2025-12-31T23:00:00Z", Some(0.20)),
        ("2026-11-20T04:59:59Z", Some(0.20)),
        ("2026-11-20T05:00:00Z", Some(0.30)),
        ("2026-11-20T20:59:59Z", Some(0.30)),
        ("2026-11-20T21:00:00Z", Some(0.20)),
        // Saturday night runs into Sunday; Sunday night is the rest price, and Monday begins without a wrap.
        ("2026-11-22T04:59:00Z", Some(0.20)),
        ("2026-11-22T05:00:00Z", Some(0.15)),
        ("2026-11-22T23:30:00Z", Some(0.15)),
        ("2026-11-23T05:00:00Z", Some(0.30)),
        ("2026-12-24T22:59:59Z", Some(0.20)),
        ("2026-12-24T23:00:00Z", Some(0.10)),
        ("2026-12-26T22:59:59Z", Some(0.10)),
        ("2026-12-26T23:00:00Z", Some(0.20)),
        ("2026-12-31T23:00:00Z", Some(0.40)),
        ("2035-06-01T12:00:00Z", Some(0.40)),
    ] {
        assert_eq!(at(&t1, when), price, "{when}");
    }
    assert_eq!(t1.price_at(t("2026-11-20T12:00:00Z")).unwrap().export, Some(0.08));
    for (when, next) in [
        ("2020-05-05T05:05:05Z", Some("2025-12-31T23:00")),
        ("2026-11-20T12:00:00Z", Some("2026-11-20T21:00")),
        ("2026-11-22T05:00:00Z", Some("2026-11-23T05:00")),
        ("2026-12-25T12:00:00Z", Some("2026-12-26T23:00")),
        ("2027-01-01T00:00:00Z", None),
    ] {
        assert_eq!(change(&t1, when).as_deref(), next, "{when}");
    }
}

#[test]
fn days_of_23_and_of_25_hours() {
    let t1 = two_rates();
    for (day, next, hours) in
        [("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", 23), ("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", 25)]
    {
        let spans = t1.spans(t(day), t(next));
        let total: Duration = spans.iter().map(|s| s.end.since(s.start)).sum();
        assert_eq!(total, HOUR * hours);
        // Both are Sundays: Saturday's night until 06:00 by the clock, then the rest of the day.
        let lengths: Vec<_> =
            spans.iter().map(|s| (s.end.since(s.start).as_secs() / 3600, s.price.unwrap().import)).collect();
        assert_eq!(lengths, [(u64::from(hours) - 18, 0.20), (18, 0.15)], "{day}");
    }
}

#[test]
fn values_hold_to_the_next_and_the_last_for_its_step() {
    let value = |start: &str, price: f64| json!({"start": start, "price": price});
    let t1 = tariff(&json!({"id": "t1", "kind": "tariff", "values": [
        value("2026-11-20T13:00:00Z", 0.3), value("2026-11-20T12:00:00Z", 9.0), value("2026-11-20T12:00:00Z", 0.2),
        {"start": "2026-11-20T13:15:00Z", "end": "2026-11-20T13:20:00Z", "price": -0.05},
        value("2026-11-20T14:00:00Z", 0.1), value("2026-11-20T14:15:00Z", 0.1)]}));
    for (when, price) in [
        ("2026-11-20T11:59:59Z", None),
        ("2026-11-20T12:00:00Z", Some(0.2)),
        ("2026-11-20T13:14:59Z", Some(0.3)),
        ("2026-11-20T13:15:00Z", Some(-0.05)),
        ("2026-11-20T13:20:00Z", None),
        ("2026-11-20T14:00:00Z", Some(0.1)),
        ("2026-11-20T14:29:59Z", Some(0.1)),
        ("2026-11-20T14:30:00Z", None),
    ] {
        assert_eq!(at(&t1, when), price, "{when}");
    }
    assert_eq!(change(&t1, "2026-11-20T14:00:00Z").as_deref(), Some("2026-11-20T14:30"));
    assert_eq!(change(&t1, "2026-11-20T14:30:00Z"), None);
    assert_eq!(change(&t1, "2020-01-01T00:00:00Z").as_deref(), Some("2026-11-20T12:00"));
    let one = tariff(&json!({"id": "t1", "kind": "tariff", "values": [value("2026-11-20T12:00:00Z", 0.2)]}));
    assert_eq!(change(&one, "2026-11-20T12:00:00Z").as_deref(), Some("2026-11-20T13:00"), "an hour at most");
    // Where there is no value the rates of the period count.
    let both = tariff(&json!({"id": "t1", "kind": "tariff", "timezone": "UTC", "periods": [{"price": 0.3}],
        "values": [value("2026-11-20T12:00:00Z", 0.2)]}));
    assert_eq!(at(&both, "2026-11-20T12:30:00Z"), Some(0.2));
    assert_eq!(at(&both, "2026-11-20T13:00:00Z"), Some(0.3));
    assert_eq!(change(&both, "2026-11-20T13:00:00Z"), None);
    assert_eq!(change(&both, "2020-01-01T00:00:00Z").as_deref(), Some("2026-11-20T12:00"));
}

#[test]
fn every_fault_with_its_place() {
    let reasons = parse(&json!({"id": "t1", "kind": "tariff", "device": "charger", "currency": "euro", "unit": "MWh",
        "timezone": "Europe/Berlim", "periods": [
            {"from": "2026-02-30", "rates": []}, {"from": "2026-01-02", "to": "2026-01-02", "price": "x"},
            {"rates": [{"start": "06:00", "end": "25:00", "price": 1e9}], "exceptions": [{"price": 1}]}],
        "values": [{"start": "2026-11-20T12:00:00Z", "end": "2026-11-20T12:00:00Z", "price": 1}, 5]}))
    .unwrap_err();
    for says in [
        "device is unknown",
        "currency is `euro`",
        "unit is `MWh`",
        "timezone `Europe/Berlim` is unknown",
        "periods[0].from is `2026-02-30`",
        "periods[1].to 2026-01-02 is not after",
        "periods[1].price is `x`",
        "periods[2].rates[0].end is `25:00`",
        "periods[2].rates[0].price is",
        "periods[2].exceptions[0].from is missing",
        "values[0].end",
        "values[1] is 5",
    ] {
        assert!(reasons.iter().any(|r| r.starts_with(says)), "{says}: {reasons:#?}");
    }
    assert_eq!(reasons.len(), 12, "{reasons:#?}");
    assert!(parse(&json!({"id": "t1", "kind": "tariff"})).unwrap_err()[0].contains("neither periods nor values"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// A slow evaluator, minute by minute on the wall clock of the zone, over the days of clock change.
    #[test]
    fn the_timeline_agrees_with_a_slow_one(
        zone in prop::sample::select(vec!["Europe/Berlin", "Australia/Lord_Howe", "America/Santiago", "Asia/Kolkata"]),
        day in prop::sample::select(vec!["2026-03-28T12:00:00Z", "2026-10-24T12:00:00Z", "2026-04-04T06:00:00Z", "2026-09-05T12:00:00Z"]),
        rates in prop::collection::vec((1u8..128, 0i32..48, 1i32..49, 0u8..3), 0..4),
    ) {
        let listed: Vec<Value> = rates.iter().map(|(days, start, end, price)| {
            let names: Vec<_> = super::tests::DAYS.iter().enumerate().filter(|(d, _)| days & (1 << d) != 0).map(|(_, n)| *n).collect();
            json!({"days": names, "start": super::tests::clock(start * 30), "end": super::tests::clock(end * 30), "price": price})
        }).collect();
        let t1 = tariff(&json!({"id": "t", "kind": "tariff", "timezone": zone, "periods": [{"rates": listed, "price": 9}]}));
        let slow = |at: Timestamp| {
            let local = jiff::Timestamp::from_millisecond(at.ms()).unwrap().in_tz(zone).unwrap();
            let minute = i32::from(local.hour()) * 60 + i32::from(local.minute());
            let (today, before) = (local.weekday().to_monday_zero_offset(), local.weekday().previous().to_monday_zero_offset());
            rates.iter().find(|(days, start, end, _)| {
                let (start, end) = (start * 30, end * 30);
                let wraps = end <= start;
                (days & (1 << today) != 0 && minute >= start && (wraps || minute < end))
                    || (wraps && days & (1 << before) != 0 && minute < end)
            }).map_or(9.0, |(.., price)| f64::from(*price))
        };
        let from = t(day);
        let end = from.plus(HOUR * 36);
        let spans = t1.spans(from, end);
        prop_assert_eq!(spans[0].start, from);
        prop_assert_eq!(spans[spans.len() - 1].end, end);
        prop_assert!(spans.windows(2).all(|w| w[0].end == w[1].start && w[0].price != w[1].price));
        let mut change = None;
        for minute in (0..36 * 60).rev() {
            let now = from.plus(Duration::from_secs(60) * minute);
            let price = t1.price_at(now).map(|p| p.import);
            prop_assert_eq!(price, Some(slow(now)), "{} {}", zone, now);
            let span = spans.iter().find(|s| s.start <= now && now < s.end).unwrap();
            prop_assert_eq!(span.price.map(|p| p.import), price);
            if let Some(next) = change {
                prop_assert_eq!(t1.next_change(now), Some(next));
            }
            if minute > 0 && slow(from.plus(Duration::from_secs(60) * (minute - 1))) != slow(now) {
                change = Some(now);
            }
        }
    }
}
