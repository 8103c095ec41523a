use super::super::track::Tracked;
use super::*;
use proptest::prelude::*;

fn blank(device: Option<&str>) -> CommandResult {
    CommandResult::new(
        "mqtt".parse().unwrap(),
        device.map(|d| d.parse().unwrap()),
        Some("c-1".parse().unwrap()),
        CommandState::Accepted,
        t(NOW),
    )
}

fn tracked() -> Tracked {
    Tracked::new(blank(Some("battery")), false, Mono::from_ms(0), 1)
}

fn proof(wrote: &str, at: u64) -> Vec<Evidence> {
    vec![Evidence {
        at: t(NOW).plus(Duration::from_secs(at)),
        via: "modbus".to_owned(),
        address: "unit 1 holding 40345".to_owned(),
        wrote: wrote.to_owned(),
        read: wrote.to_owned(),
    }]
}

fn active(power: f64) -> Progress {
    Progress::Active(Applied { params: Params::from([("power_w".to_owned(), power)]), limited_by: None })
}

fn written() -> Progress {
    Progress::Device { stage: Stage::Written, evidence: Vec::new() }
}

fn verified(wrote: &str, at: u64) -> Progress {
    Progress::Device { stage: Stage::Verified, evidence: proof(wrote, at) }
}

/// Feed updates one second apart; the states that were told.
fn feed(tracked: &mut Tracked, progress: &[Progress]) -> Vec<CommandState> {
    let mut states = Vec::new();
    for (n, progress) in progress.iter().enumerate() {
        let key = IntentKey::Limit("test");
        let at = t(NOW).plus(Duration::from_secs(n as u64 + 1));
        let changes = tracked.apply(&IntentUpdate { key, at, progress: progress.clone() });
        states.extend(changes.results.iter().map(|r| r.state));
    }
    states
}

#[test]
fn the_good_way() {
    use CommandState::*;
    let mut tr = tracked();
    let told = feed(
        &mut tr,
        &[
            active(3000.0),
            active(3000.0),
            written(),
            verified("3000", 0),
            verified("3000", 9),
            Progress::Effect,
            written(),
            verified("3000", 20),
            Progress::Ended { delivered_wh: Some(740.0) },
            Progress::Ended { delivered_wh: None },
        ],
    );
    assert_eq!(told, [Accepted, Written, Verified, Held, Ended], "refreshes are not told");
    let last = tr.result();
    assert_eq!((last.started_at, last.ended_at), (Some(t("2026-11-20T12:00:03Z")), Some(t("2026-11-20T12:00:09Z"))));
    assert_eq!((last.delivered_wh, last.reason.clone()), (Some(740.0), None));
    assert_eq!(last.evidence, proof("3000", 0));
}

#[test]
fn another_limit_is_told_with_its_proof() {
    use CommandState::*;
    let mut tr = tracked();
    let told = feed(
        &mut tr,
        &[
            active(3000.0),
            written(),
            verified("3000", 0),
            Progress::Effect,
            active(2000.0),
            written(),
            verified("2000", 6),
        ],
    );
    assert_eq!(told, [Accepted, Written, Verified, Held, Held, Held]);
    assert_eq!((tr.result().applied["power_w"], tr.result().evidence.clone()), (2000.0, proof("2000", 6)));
}

#[test]
fn held_back_and_resumed() {
    use CommandState::*;
    let mut tr = tracked();
    let higher = || Progress::Suspended("command x by local".to_owned());
    let told = feed(
        &mut tr,
        &[active(1.0), higher(), higher(), written(), active(1.0), written(), Progress::Effect, verified("1", 0)],
    );
    assert_eq!(told, [Accepted, Suspended, Accepted, Written, Verified, Held]);
    let mut tr = tracked();
    feed(&mut tr, &[higher(), Progress::Ended { delivered_wh: None }]);
    assert_eq!(tr.result().reason.as_deref(), Some("ended while it waited: command x by local"));
}

#[test]
fn standing_settings_end_when_they_are_verified() {
    use CommandState::*;
    let mut tr = Tracked::new(blank(Some("battery")), true, Mono::from_ms(0), 1);
    assert_eq!(feed(&mut tr, &[written(), verified("20", 0), written()]), [Written, Verified, Ended]);
}

#[test]
fn limits_of_the_site_hold_from_the_moment_they_are_applied() {
    use CommandState::*;
    let mut tr = Tracked::new(blank(None), false, Mono::from_ms(0), 1);
    let limited = Progress::Active(Applied {
        params: Params::from([("power_w".to_owned(), 7000.0)]),
        limited_by: Some("installer".to_owned()),
    });
    assert_eq!(feed(&mut tr, &[limited, Progress::Effect]), [Accepted, Held]);
    assert_eq!(tr.result().limited_by.as_deref(), Some("installer"));
    assert_eq!(tr.result().started_at, Some(t("2026-11-20T12:00:01Z")));
}

#[test]
fn a_refusal_of_the_device_is_final_and_withdrawn() {
    let mut tr = tracked();
    let stage = Stage::Failed("illegal data value".to_owned());
    let update = IntentUpdate {
        key: IntentKey::Limit("test"),
        at: t(NOW),
        progress: Progress::Device { stage, evidence: Vec::new() },
    };
    let changes = tr.apply(&update);
    assert!(changes.withdraw && changes.results.len() == 1);
    assert_eq!((tr.result().state, tr.result().reason.as_deref()), (CommandState::Failed, Some("illegal data value")));
    assert!(tr.settle(CommandState::Ended, t(NOW), None).results.is_empty(), "nothing after a final state");
}

#[test]
fn every_end_tells_what_was_delivered() {
    use CommandState::*;
    let some = || Progress::Delivered { wh: 12.0 };
    let failed = || Progress::Device { stage: Stage::Failed("no".to_owned()), evidence: Vec::new() };
    let reverted = || Progress::Device { stage: Stage::Reverted("no".to_owned()), evidence: Vec::new() };
    let ended = || Progress::Ended { delivered_wh: Some(12.0) };
    let cut = || Progress::Cut { why: "opted out by the owner".to_owned(), delivered_wh: Some(12.0) };
    let superseded = || Progress::Superseded("command 9".to_owned());
    let held_back = || Progress::Suspended("owner".to_owned());
    for (updates, state, wh) in [
        (vec![written(), ended()], Ended, 12.0),
        (vec![written(), some(), cut()], Ended, 12.0),
        (vec![written(), some(), superseded()], Superseded, 12.0),
        (vec![written(), some(), failed()], Failed, 12.0),
        (vec![written(), some(), reverted()], Reverted, 12.0),
        (vec![written(), some(), held_back(), ended()], Ended, 12.0),
        // What the device did by itself before it took the command is not the command's.
        (vec![some(), ended()], Ended, 0.0),
        (vec![held_back(), Progress::Ended { delivered_wh: None }], Ended, 0.0),
        (vec![failed()], Failed, 0.0),
        (vec![superseded()], Superseded, 0.0),
    ] {
        let mut tr = tracked();
        feed(&mut tr, &updates);
        let result = tr.result();
        assert_eq!((result.state, result.delivered_wh), (state, Some(wh)), "{updates:?}");
        assert!(result.ended_at.is_some(), "{updates:?}");
    }
    // A sum so far is kept and not told; what was delivered before a restart counts.
    let before = CommandResult { delivered_wh: Some(100.0), started_at: Some(t(NOW)), ..tracked().result().clone() };
    let mut tr = Tracked::new(before, false, Mono::from_ms(0), 1);
    let update = IntentUpdate { key: IntentKey::Limit("test"), at: t(NOW), progress: some() };
    let changes = tr.apply(&update);
    assert!(changes.delivered && changes.results.is_empty());
    feed(&mut tr, &[ended()]);
    assert_eq!(tr.result().delivered_wh, Some(112.0));
}

fn any_progress() -> impl Strategy<Value = Progress> {
    prop_oneof![
        4 => (1..4_u8).prop_map(|p| active(f64::from(p))),
        4 => Just(written()),
        4 => (1..4_u8, 0..9_u64).prop_map(|(w, at)| verified(&w.to_string(), at)),
        1 => Just(Progress::Device { stage: Stage::Failed("no".to_owned()), evidence: Vec::new() }),
        1 => Just(Progress::Device { stage: Stage::Reverted("no".to_owned()), evidence: Vec::new() }),
        3 => Just(Progress::Effect),
        3 => (0..2_u8).prop_map(|n| Progress::Suspended(format!("command {n}"))),
        1 => Just(Progress::Superseded("command 9".to_owned())),
        1 => Just(Progress::Cut { why: "the car was unplugged".to_owned(), delivered_wh: Some(3.0) }),
        2 => (1..4_u8).prop_map(|wh| Progress::Delivered { wh: f64::from(wh) }),
    ]
}

proptest! {
    #[test]
    fn every_command_reaches_exactly_one_final_state(
        updates in prop::collection::vec(any_progress(), 0..30),
        standing in any::<bool>(),
        is_site in any::<bool>(),
    ) {
        let mut tr = Tracked::new(blank((!is_site).then_some("battery")), standing, Mono::from_ms(0), 1);
        let mut updates = updates;
        updates.push(Progress::Ended { delivered_wh: Some(1.0) });
        updates.push(Progress::Ended { delivered_wh: Some(2.0) });
        updates.push(written());
        let mut told = Vec::new();
        for (n, progress) in updates.into_iter().enumerate() {
            let before = tr.clone();
            let at = t(NOW).plus(Duration::from_secs(n as u64));
            let changes = tr.apply(&IntentUpdate { key: IntentKey::Limit("test"), at, progress });
            if before.result().state.is_final() {
                prop_assert_eq!(&tr, &before);
            }
            if let Some(last) = changes.results.last() {
                prop_assert_eq!(last, tr.result());
            }
            told.extend(changes.results);
        }
        prop_assert_eq!(told.iter().filter(|r| r.state.is_final()).count(), 1);
        let last = told.last().unwrap();
        prop_assert!(last.state.is_final() && last.ended_at.is_some());
        for pair in told.windows(2) {
            prop_assert!(pair[0].ts <= pair[1].ts);
            let (mut a, mut b) = (pair[0].clone(), pair[1].clone());
            (a.ts, b.ts) = (t(NOW), t(NOW));
            (a.ended_at, b.ended_at) = (None, None);
            prop_assert!(a != b, "nothing new was told");
        }
    }
}
