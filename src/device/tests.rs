//! The keeper against synthetic events: no wire, no clock.

use super::apply::Keeper;
use super::words::{Checked, Do, Effect, Looked, Trouble, Wrote};
use crate::model::{
    Action, ControlSettings, Coupling, Demand, DeviceKind, DeviceLimits, DeviceSpec, Evidence, FailSafe, IntentKey,
    LeaseEnd, Mono, Order, Setpoint, Stage, Timestamp,
};
use std::time::Duration;

const CHARGE: Demand = Demand::BatteryPower { watts: -2000.0, grid: true };
const TIMER: FailSafe = FailSafe::Timer(Duration::from_secs(60));

pub(super) fn spec(kind: DeviceKind) -> DeviceSpec {
    DeviceSpec {
        id: "dev".parse().unwrap(),
        kind,
        role: None,
        coupling: Coupling::Ac,
        profile: "test".into(),
        link: "tcp://test".into(),
        unit: 1,
        poll: Duration::from_secs(1),
        invert: false,
        limits: DeviceLimits { max_charge_w: Some(5000.0), ..DeviceLimits::default() },
        control: ControlSettings { enabled: true, ..ControlSettings::default() },
    }
}

pub(super) fn hold(demand: Demand, on_end: Demand, id: &'static str, end_s: u64) -> Order {
    Order::Hold(Setpoint::new(
        "dev".parse().unwrap(),
        demand,
        IntentKey::Limit(id),
        Action::Idle,
        LeaseEnd { mono: Mono::from_ms(end_s * 1000), wall: Timestamp::from_ms(0) },
        on_end,
    ))
}

fn at(s: f64) -> Mono {
    Mono::from_ms((s * 1000.0) as u64)
}

fn check(ok: bool, failsafe: bool) -> Checked {
    let evidence = Evidence {
        at: Timestamp::from_ms(1),
        via: "modbus".into(),
        address: "unit 1 holding 7".into(),
        wrote: "1".into(),
        read: if ok { "1" } else { "0" }.into(),
    };
    Checked { ok, failsafe, evidence }
}

/// What the world learned, in short.
fn told(effects: &[Effect]) -> Vec<String> {
    effects
        .iter()
        .map(|e| match e {
            Effect::Outcome { stage, cause, .. } => {
                let who = cause.as_ref().map_or("-".to_owned(), ToString::to_string);
                match stage {
                    Stage::Written => format!("{who} written"),
                    Stage::Verified => format!("{who} verified"),
                    Stage::Failed(why) => format!("{who} failed: {why}"),
                    Stage::Reverted(why) => format!("{who} reverted: {why}"),
                }
            }
            Effect::NotHeld => "not held".into(),
            Effect::Remember(..) => "remember".into(),
            Effect::Alarm { code, raised, .. } => format!("{code} {raised}"),
        })
        .collect()
}

struct Film {
    keeper: Keeper,
    refresh: Option<Duration>,
}

impl Film {
    fn new(spec: DeviceSpec, held: Option<(Demand, Demand)>) -> Self {
        Self { keeper: Keeper::new(spec, held), refresh: None }
    }

    fn found(mut self, s: f64) -> Self {
        self.keeper.found(at(s), TIMER);
        self
    }

    fn tick(&mut self, s: f64) -> (Vec<String>, Do) {
        let (effects, next) = self.keeper.tick(at(s), Ok(()));
        (told(&effects), next)
    }

    fn away(&mut self, s: f64) -> (Vec<String>, Do) {
        let (effects, next) = self.keeper.tick(at(s), Err("cable cut"));
        (told(&effects), next)
    }

    /// The tick wants a write, which succeeds.
    fn write(&mut self, s: f64, expected: Demand) -> Vec<String> {
        let (mut learned, next) = self.tick(s);
        assert!(matches!(next, Do::Write { demand, .. } if demand == expected), "{next:?}");
        let wrote = Wrote { settle: Duration::from_secs(2), refresh: self.refresh, ..Wrote::default() };
        learned.extend(told(&self.keeper.wrote(at(s), Ok(wrote))));
        learned
    }

    /// The tick looks, sees that all is well, and then wants the device's timer kept running.
    fn refresh(&mut self, s: f64, looks: bool) {
        if looks {
            assert_eq!(self.check(s, true), Vec::<String>::new());
        }
        let (learned, next) = self.tick(s);
        assert!(matches!(next, Do::Refresh { demand: CHARGE, .. }), "{next:?}");
        assert_eq!(learned, Vec::<String>::new());
        let wrote = Wrote { refresh: self.refresh, ..Wrote::default() };
        assert_eq!(told(&self.keeper.wrote(at(s), Ok(wrote))), Vec::<String>::new());
    }

    /// The tick wants a check, which comes out so.
    fn check(&mut self, s: f64, ok: bool) -> Vec<String> {
        let (mut learned, next) = self.tick(s);
        assert!(matches!(next, Do::Check { .. }), "{next:?}");
        learned.extend(told(
            &self.keeper.checked(at(s), Ok(Looked { checks: vec![check(ok, false)], refresh: self.refresh })),
        ));
        learned
    }

    fn rests(&mut self, s: f64) -> Option<Mono> {
        let (learned, next) = self.tick(s);
        assert_eq!(learned, Vec::<String>::new());
        let Do::Rest(until) = next else { panic!("{next:?}") };
        until
    }

    fn charging(end_s: u64) -> Self {
        let mut film = Self::new(spec(DeviceKind::Battery), None).found(0.0);
        film.keeper.set_order(hold(CHARGE, Demand::Release, "a", end_s));
        assert_eq!(film.write(0.0, CHARGE), ["limit a written"]);
        assert_eq!(film.check(2.0, true), ["limit a verified"]);
        film
    }
}

#[test]
fn a_setpoint_from_order_to_release() {
    let mut film = Film::new(spec(DeviceKind::Battery), None).found(0.0);
    assert_eq!(film.rests(0.0), None, "nothing ordered, nothing held: nothing done");
    film.keeper.set_order(Order::Free);
    assert_eq!(film.rests(1.0), None);
    film.keeper.set_order(hold(CHARGE, Demand::Release, "a", 100));
    let (_, next) = film.tick(1.0);
    let Do::Write { lease, remember, .. } = next else { panic!("{next:?}") };
    assert_eq!((lease, remember), (Duration::from_secs(99), Some((CHARGE, Demand::Release))), "journal before wire");
    assert_eq!(film.write(1.0, CHARGE), ["limit a written"]);
    assert_eq!(film.rests(1.0), Some(at(3.0)), "settle");
    assert_eq!(film.check(3.0, true), ["limit a verified"]);
    // Read back again at 30 s and 120 s; the lease ends before the latter.
    assert_eq!(film.rests(3.0), Some(at(33.0)));
    assert_eq!(film.check(33.0, true), Vec::<String>::new());
    assert_eq!(film.rests(33.0), Some(at(100.0)));
    // Control died: the order stands, the lease does not.
    assert_eq!(film.write(100.0, Demand::Release), Vec::<String>::new());
    assert_eq!(film.check(102.0, true), ["- verified", "not held"]);
    assert_eq!(film.rests(102.0), None);
    assert!(!film.keeper.holds_something());
}

#[test]
fn an_equal_value_is_never_written_again() {
    let mut film = Film::charging(1000);
    film.keeper.set_order(hold(CHARGE, Demand::Release, "a", 2000));
    assert_eq!(film.rests(3.0), Some(at(32.0)), "a longer lease alone is no reason");
    film.keeper.set_order(hold(CHARGE, Demand::Release, "b", 2000));
    assert_eq!(film.check(4.0, true), ["limit b verified"], "another intent gets its own proof, by reading");
    film.keeper.found(at(5.0), TIMER);
    assert_eq!(film.check(5.0, true), Vec::<String>::new(), "after a reconnect too");
    film.keeper.found(at(6.0), TIMER);
    assert_eq!(film.check(6.0, false), Vec::<String>::new());
    assert_eq!(
        film.write(6.0, CHARGE),
        Vec::<String>::new(),
        "a restarted device has forgotten: written without a word"
    );
    assert_eq!(film.check(8.0, true), Vec::<String>::new());
}

#[test]
fn a_new_way_back_reaches_the_journal() {
    let mut film = Film::charging(1000);
    film.keeper.set_order(hold(CHARGE, Demand::BatteryPower { watts: 0.0, grid: false }, "a", 1000));
    assert_eq!(film.tick(3.0).0, ["remember"]);
    assert_eq!(film.tick(3.0).0, Vec::<String>::new());
}

#[test]
fn a_device_timer_is_refreshed_at_a_third_and_after_a_reconnect() {
    let mut film = Film::new(spec(DeviceKind::Battery), None).found(0.0);
    film.refresh = Some(Duration::from_secs(20));
    film.keeper.set_order(hold(CHARGE, Demand::Release, "a", 1000));
    film.write(0.0, CHARGE);
    film.check(2.0, true);
    assert_eq!(film.rests(2.0), Some(at(20.0)));
    film.refresh(20.0, true);
    assert_eq!(film.rests(20.0), Some(at(32.0)));
    film.keeper.found(at(21.0), TIMER);
    assert_eq!(film.write(21.0, CHARGE), Vec::<String>::new());
    assert_eq!(film.check(23.0, true), Vec::<String>::new());
    film.keeper.set_order(Order::Free);
    assert_eq!(film.write(24.0, Demand::Release), Vec::<String>::new());
    film.check(26.0, true);
    assert_eq!(film.rests(50.0), None, "no refresh of what is over");
}

#[test]
fn failed_after_one_retry_with_evidence_then_ever_slower() {
    let mut film = Film::new(spec(DeviceKind::Battery), None).found(0.0);
    film.keeper.set_order(hold(CHARGE, Demand::Release, "a", 10_000));
    film.write(0.0, CHARGE);
    assert_eq!(film.check(2.0, false), Vec::<String>::new());
    assert_eq!(film.rests(2.0), Some(at(3.0)));
    film.write(3.0, CHARGE);
    assert_eq!(film.check(5.0, false), ["limit a failed: unit 1 holding 7 reads 0, written was 1"]);
    // What was not proven does not stay.
    film.write(5.0, Demand::Release);
    assert_eq!(film.check(7.0, true), ["- verified", "not held"]);
    assert_eq!(film.rests(7.0), Some(at(45.0)));
    film.write(45.0, CHARGE);
    assert_eq!(film.check(47.0, false), Vec::<String>::new(), "told once");
    film.write(47.0, Demand::Release);
    film.check(49.0, true);
    assert_eq!(film.rests(49.0), Some(at(127.0)), "ever slower");
    assert_eq!(film.write(127.0, CHARGE), ["limit a written"]);
    assert_eq!(film.check(129.0, true), ["limit a verified"], "it came round");
    film.keeper.set_order(Order::Free);
    film.write(130.0, Demand::Release);
}

#[test]
fn what_something_else_changed_is_told_once_and_written_a_few_times_an_hour() {
    let mut film = Film::charging(100_000);
    assert_eq!(
        film.check(32.0, false),
        ["limit a reverted: unit 1 holding 7 reads 0, written was 1", "setpoint_reverted true"]
    );
    let mut now = 32.0;
    for _ in 0..2 {
        let again = film.rests(now).unwrap();
        assert!(again <= at(now + 60.0));
        now = again.ms() as f64 / 1000.0;
        film.write(now, CHARGE);
        film.check(now + 2.0, true);
        now += 32.0;
        let learned = film.check(now, false);
        assert!(learned.contains(&"setpoint_reverted true".to_owned()), "{learned:?}");
    }
    let again = film.rests(now).unwrap().ms() as f64 / 1000.0;
    film.write(again, CHARGE);
    film.check(again + 2.0, true);
    film.check(again + 32.0, false);
    assert_eq!(film.rests(again + 32.0), Some(at(32.0 + 3600.0)), "three an hour");
}

#[test]
fn an_absent_device_fails_after_ten_seconds_and_is_told_when_it_returns() {
    let mut film = Film::new(spec(DeviceKind::Battery), None);
    film.keeper.set_order(hold(CHARGE, Demand::Release, "a", 100));
    assert_eq!(film.away(5.0), (vec![], Do::Rest(Some(at(15.0)))));
    assert_eq!(
        film.away(15.0),
        (vec!["limit a failed: device is offline: cable cut".into()], Do::Rest(Some(at(100.0))))
    );
    assert_eq!(film.away(16.0), (vec![], Do::Rest(Some(at(100.0)))));
    film.keeper.found(at(20.0), TIMER);
    assert_eq!(film.write(20.0, CHARGE), ["limit a written"]);
    assert_eq!(film.check(22.0, true), ["limit a verified"]);
    // Away when its lease ends: released on return.
    assert_eq!(film.away(120.0), (vec![], Do::Rest(None)));
    film.keeper.found(at(130.0), TIMER);
    film.write(130.0, Demand::Release);
}

#[test]
fn a_write_without_answer_is_tried_again_and_held_meanwhile() {
    let mut film = Film::new(spec(DeviceKind::Battery), None).found(0.0);
    film.keeper.set_order(hold(CHARGE, Demand::Release, "a", 100));
    assert!(matches!(film.tick(0.0).1, Do::Write { .. }));
    assert_eq!(told(&film.keeper.wrote(at(3.0), Err(Trouble::Unreached("silent".into())))), Vec::<String>::new());
    assert!(film.keeper.holds_something(), "it may have arrived");
    assert_eq!(film.rests(3.0), Some(at(4.0)));
    film.keeper.set_order(Order::Free);
    film.write(4.0, Demand::Release);
    assert_eq!(film.check(6.0, true), ["- verified", "not held"]);
}

#[test]
fn what_an_earlier_run_held() {
    let held = Some((CHARGE, Demand::Release));
    // Nobody decides: ended after 15 s online; already so: by reading alone.
    let mut film = Film::new(spec(DeviceKind::Battery), held).found(5.0);
    assert_eq!(film.rests(6.0), Some(at(20.0)));
    assert_eq!(film.check(20.0, true), ["- verified", "not held"]);
    // Free: at once, and written when it is not so.
    let mut film = Film::new(spec(DeviceKind::Battery), held).found(5.0);
    film.keeper.set_order(Order::Free);
    assert_eq!(film.check(5.0, false), Vec::<String>::new());
    film.write(5.0, Demand::Release);
    assert_eq!(film.check(7.0, true), ["- verified", "not held"]);
    // The same goes on: looked at, not written.
    let mut film = Film::new(spec(DeviceKind::Battery), held).found(5.0);
    film.keeper.set_order(hold(CHARGE, Demand::Release, "a", 100));
    assert_eq!(film.check(5.0, true), ["limit a verified"]);
    film.keeper.set_order(Order::Free);
    film.write(6.0, Demand::Release);
    // Something new replaces it.
    let mut film = Film::new(spec(DeviceKind::Battery), held).found(5.0);
    let other = Demand::BatteryPower { watts: -100.0, grid: true };
    film.keeper.set_order(hold(other, Demand::Release, "a", 100));
    assert_eq!(film.write(5.0, other), ["limit a written"]);
    // Control was switched off in the meantime: what derd left behind is still derd's to end.
    let mut off = spec(DeviceKind::Battery);
    off.control.enabled = false;
    let mut film = Film::new(off, held).found(5.0);
    film.keeper.set_order(Order::Free);
    assert_eq!(film.check(5.0, false), Vec::<String>::new());
    film.write(5.0, Demand::Release);
}

#[test]
fn a_refused_release_is_tried_for_ever_and_alarmed_once() {
    let mut film = Film::charging(1000);
    film.keeper.set_order(Order::Free);
    let mut learned = Vec::new();
    let mut now = 10.0;
    for _ in 0..12 {
        let (more, next) = film.tick(now);
        learned.extend(more);
        match next {
            Do::Write { demand, .. } => {
                assert_eq!(demand, Demand::Release);
                learned.extend(told(&film.keeper.wrote(at(now), Err(Trouble::Refused("exception 4".into())))));
            }
            Do::Rest(Some(until)) => {
                assert!(until > at(now) && until <= at(now + 60.0));
                now = until.ms() as f64 / 1000.0;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(learned, ["- failed: exception 4", "release_failed true"]);
    assert!(film.keeper.holds_something());
    film.write(now, Demand::Release);
    assert_eq!(film.check(now + 2.0, true), ["- verified", "not held", "release_failed false"]);
}

#[test]
fn the_last_wall() {
    let cases: [(&str, DeviceSpec, Demand, FailSafe); 6] = [
        (
            "control is not enabled",
            {
                let mut s = spec(DeviceKind::Battery);
                s.control.enabled = false;
                s
            },
            CHARGE,
            TIMER,
        ),
        ("accept_no_failsafe = true", spec(DeviceKind::Battery), CHARGE, FailSafe::None),
        ("max_charge_w = 5000", spec(DeviceKind::Battery), Demand::BatteryPower { watts: -5001.0, grid: true }, TIMER),
        ("not a number", spec(DeviceKind::Battery), Demand::BatteryPower { watts: f64::NAN, grid: true }, TIMER),
        ("a charger cannot", spec(DeviceKind::Charger), CHARGE, TIMER),
        ("reserve of 101", spec(DeviceKind::Battery), Demand::Reserve { pct: 101.0 }, TIMER),
    ];
    for (expected, spec, demand, failsafe) in cases {
        let mut keeper = Keeper::new(spec, None);
        keeper.found(at(0.0), failsafe);
        keeper.set_order(hold(demand, Demand::Release, "a", 100));
        let (effects, next) = keeper.tick(at(0.0), Ok(()));
        let learned = told(&effects);
        assert!(learned.len() == 1 && learned[0].contains(expected), "{expected}: {learned:?}");
        assert_eq!(next, Do::Rest(None), "{expected}: nothing is written");
        assert_eq!(keeper.tick(at(1.0), Ok(())), (vec![], Do::Rest(None)), "{expected}: told once");
    }
}

#[test]
fn a_timer_that_does_not_read_back_ends_the_setpoint() {
    let bad_timer = || Ok(Looked { checks: vec![check(true, false), check(false, true)], refresh: None });
    let mut film = Film::new(spec(DeviceKind::Battery), None).found(0.0);
    film.keeper.set_order(hold(CHARGE, Demand::Release, "a", 100));
    film.write(0.0, CHARGE);
    assert!(matches!(film.tick(2.0).1, Do::Check { .. }));
    film.keeper.checked(at(2.0), bad_timer());
    film.write(3.0, CHARGE);
    assert!(matches!(film.tick(5.0).1, Do::Check { .. }));
    let learned = told(&film.keeper.checked(at(5.0), bad_timer()));
    assert!(learned[0].contains("fail-safe timer does not work"), "{learned:?}");
    film.write(5.0, Demand::Release);
    // Where the installer accepted that, it is verified.
    let mut accepted = spec(DeviceKind::Battery);
    accepted.control.accept_no_failsafe = true;
    let mut film = Film::new(accepted, None).found(0.0);
    film.keeper.set_order(hold(CHARGE, Demand::Release, "a", 100));
    film.write(0.0, CHARGE);
    film.tick(2.0);
    assert_eq!(told(&film.keeper.checked(at(2.0), bad_timer())), ["limit a verified"]);
}

#[test]
fn a_standing_setting_has_no_lease_and_is_written_beside_what_is_held() {
    let reserve = Demand::Reserve { pct: 20.0 };
    let mut film = Film::charging(1000);
    film.keeper.set_order(hold(reserve, Demand::Release, "r", 0));
    assert_eq!(film.check(5.0, false), Vec::<String>::new(), "perhaps it is so already");
    let (_, next) = film.tick(5.0);
    assert!(matches!(next, Do::Write { remember: None, .. }), "{next:?}");
    assert_eq!(film.write(5.0, reserve), ["limit r written"]);
    assert_eq!(film.check(7.0, true), ["limit r verified"]);
    film.keeper.set_order(hold(CHARGE, Demand::Release, "a", 1000));
    assert_eq!(film.check(8.0, true), ["limit a verified"], "still held: proof from the wire, no write");
    film.keeper.set_order(Order::Free);
    film.write(9.0, Demand::Release);
    assert_eq!(film.check(11.0, true), ["- verified", "not held"]);
}

/// After a restart in the middle of a plan, and after a standing setting: nobody else keeps the device's timer running.
#[test]
fn a_device_timer_is_refreshed_also_where_the_setpoint_was_found_as_it_should_be() {
    let mut film = Film::new(spec(DeviceKind::Battery), Some((CHARGE, Demand::Release))).found(0.0);
    film.refresh = Some(Duration::from_secs(20));
    film.keeper.set_order(hold(CHARGE, Demand::Release, "a", 1000));
    assert_eq!(film.check(0.0, true), ["limit a verified"]);
    film.refresh(0.0, false); // how much of it is left is not known
    assert_eq!(film.rests(0.0), Some(at(20.0)));
    film.refresh(20.0, true);
    let reserve = Demand::Reserve { pct: 20.0 };
    film.keeper.set_order(hold(reserve, Demand::Release, "r", 0));
    assert_eq!(film.check(25.0, true), ["limit r verified"]);
    assert_eq!(film.rests(26.0), Some(at(55.0)), "a standing setting has no timer");
    film.keeper.set_order(hold(CHARGE, Demand::Release, "a", 1000));
    assert_eq!(film.check(26.0, true), ["limit a verified"]);
    film.refresh(26.0, false);
    assert_eq!(film.rests(26.0), Some(at(46.0)));
}

#[test]
fn what_is_held_is_looked_at_as_long_as_it_is_held() {
    let mut film = Film::charging(1000);
    film.check(32.0, true);
    assert_eq!(film.rests(32.0), Some(at(122.0)));
    film.check(122.0, true);
    assert_eq!(film.rests(122.0), Some(at(242.0)));
    let learned = film.check(242.0, false);
    assert!(learned[0].starts_with("limit a reverted"), "{learned:?}");
}

/// The owner's app raises the current that protects the fuse, again and again.
#[test]
fn what_protects_is_looked_at_often_and_written_again_always() {
    let (ten, six) =
        (Demand::ChargerCurrent { amps: 10.0, phases: None }, Demand::ChargerCurrent { amps: 6.0, phases: None });
    let mut film = Film::new(spec(DeviceKind::Charger), None).found(0.0);
    film.keeper.set_order(hold(ten, six, "fuse", 100_000));
    film.write(0.0, ten);
    film.check(2.0, true);
    let (mut now, mut alarms) = (2.0, 0);
    for _ in 0..20 {
        assert_eq!(film.rests(now), Some(at(now + 5.0)));
        now += 5.0;
        let learned = film.check(now, false);
        alarms += learned.iter().filter(|l| *l == "setpoint_reverted true").count();
        let again = film.rests(now).unwrap().ms() as f64 / 1000.0;
        assert!(again - now <= 30.0);
        now = again;
        film.write(now, ten);
        now += 2.0;
        film.check(now, true);
    }
    assert_eq!(alarms, 3, "told a few times, not for ever");
}

#[test]
fn on_stop_only_the_way_back() {
    let tight = Demand::ChargerCurrent { amps: 6.0, phases: None };
    let full = Demand::ChargerCurrent { amps: 16.0, phases: None };
    let mut film = Film::new(spec(DeviceKind::Charger), None).found(0.0);
    film.keeper.set_order(hold(full, tight, "fuse", 100));
    film.write(0.0, full);
    film.keeper.stop();
    film.write(1.0, tight);
    assert_eq!(film.check(3.0, true), ["- verified", "not held"]);
    let mut film = Film::new(spec(DeviceKind::Charger), None).found(0.0);
    film.keeper.set_order(hold(full, tight, "fuse", 100));
    film.keeper.stop();
    assert_eq!(film.rests(1.0), None, "nothing was written, nothing is");
}

#[test]
fn an_auto_that_nobody_needs_writes_nothing() {
    let mut film = Film::new(spec(DeviceKind::Battery), None).found(0.0);
    film.keeper.set_order(hold(Demand::Release, Demand::Release, "auto", 100));
    assert_eq!(film.check(0.0, true), ["limit auto verified"]);
    assert_eq!(film.rests(1.0), Some(at(100.0)), "and what the owner changes later is the owner's");
    let mut film = Film::charging(1000);
    film.keeper.set_order(hold(Demand::Release, Demand::Release, "auto", 1000));
    assert_eq!(film.write(5.0, Demand::Release), ["limit auto written"]);
    assert_eq!(film.check(7.0, true), ["limit auto verified", "not held"]);
}
