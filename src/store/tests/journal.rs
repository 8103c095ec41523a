//! Commands, plans, held setpoints, events and notices.

use super::*;
use crate::model::{CommandResult, CommandState, Demand, Event, EventState, Held, Params, PlanId, ReplyTo, Severity};

fn result(up: &str, id: &str, state: CommandState) -> CommandResult {
    CommandResult {
        requested: Params::from([("power_w".to_owned(), 1500.5)]),
        reply_to: ReplyTo { topic: Some("answers/1".into()), correlation: Some(vec![1, 0, 255]) },
        ..CommandResult::new(uplink(up), Some(device("battery")), Some(id.parse().unwrap()), state, at(0))
    }
}

fn command(up: &str, id: &str, body: &str) -> NewCommand {
    NewCommand {
        uplink: uplink(up),
        device: Some(device("battery")),
        id: id.parse().unwrap(),
        body: body.as_bytes().to_vec(),
        result: result(up, id, CommandState::Accepted),
        ends_at: at(600),
        accepted_at: at(0),
    }
}

fn event(code: &str, seconds: i64) -> Event {
    Event {
        ts: at(seconds),
        severity: Severity::Warning,
        device: Some(device("pv")),
        code: code.to_owned(),
        text: "It is so.".to_owned(),
        state: EventState::Raised,
    }
}

#[tokio::test]
async fn a_command_acts_once() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &["mqtt"]));
    let store = &rig.store;
    assert_eq!(store.admit(command("mqtt", "c1", "a")).await, Ok(Admitted::New { order: 1 }));
    let accepted = Box::new(result("mqtt", "c1", CommandState::Accepted));
    assert_eq!(store.admit(command("mqtt", "c1", "a")).await, Ok(Admitted::Duplicate(accepted.clone())));
    assert_eq!(store.admit(command("mqtt", "c1", "b")).await, Ok(Admitted::Conflict(accepted)));
    // Another channel, another device: another command.
    assert_eq!(store.admit(command("local", "c1", "a")).await, Ok(Admitted::New { order: 2 }));
    let site = NewCommand { device: None, ..command("mqtt", "c1", "a") };
    assert_eq!(store.admit(site).await, Ok(Admitted::New { order: 3 }));
    let plan: PlanId = "night".parse().unwrap();
    assert_eq!(store.save_plan(plan, "{}".into(), uplink("mqtt"), at(5)).await, Ok(4));

    let rig = rig.reopen().await;
    let store = &rig.store;
    let ended = result("mqtt", "c1", CommandState::Ended);
    store.save_result(ended.clone()).await.unwrap();
    assert_eq!(store.admit(command("mqtt", "c1", "a")).await, Ok(Admitted::Duplicate(Box::new(ended.clone()))));
    // A final result stays.
    store.save_result(result("mqtt", "c1", CommandState::Held)).await.unwrap();
    store.save_result(result("mqtt", "c1", CommandState::Failed)).await.unwrap();
    assert_eq!(store.admit(command("mqtt", "c1", "a")).await, Ok(Admitted::Duplicate(Box::new(ended))));
    assert_eq!(store.admit(command("mqtt", "c2", "a")).await, Ok(Admitted::New { order: 5 }));
    rig.stop().await;
}

#[tokio::test]
async fn an_answer_to_a_copy_leaves_the_command_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &["mqtt"]));
    rig.store.admit(command("mqtt", "c1", "a")).await.unwrap();
    rig.store.tell_result(result("mqtt", "c1", CommandState::Rejected)).await.unwrap();
    assert_eq!(rig.store.open_commands().await.unwrap().len(), 1);
    let states: Vec<_> = rig
        .store
        .outbox(uplink("mqtt"), 9)
        .await
        .unwrap()
        .into_iter()
        .map(|item| match item.notice.body {
            NoticeBody::Result(result) => result.state,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(states, [CommandState::Accepted, CommandState::Rejected]);
    // The command itself may be refused late: control is busy.
    rig.store.save_result(result("mqtt", "c1", CommandState::Rejected)).await.unwrap();
    assert!(rig.store.open_commands().await.unwrap().is_empty());
    rig.stop().await;
}

#[tokio::test]
async fn a_command_is_forgotten_after_90_days() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &["mqtt"]));
    let final_one = NewCommand { result: result("mqtt", "c1", CommandState::Ended), ..command("mqtt", "c1", "a") };
    rig.store.admit(final_one.clone()).await.unwrap();
    rig.store.admit(command("mqtt", "open", "a")).await.unwrap();
    rig.clock.advance(Duration::from_secs(90 * 24 * 3600 - 1));
    assert!(matches!(rig.store.admit(final_one.clone()).await, Ok(Admitted::Duplicate(_))));
    rig.clock.advance(Duration::from_secs(1));
    assert_eq!(rig.store.admit(final_one).await, Ok(Admitted::New { order: 3 }));
    // One without a final result is never forgotten.
    assert!(matches!(rig.store.admit(command("mqtt", "open", "a")).await, Ok(Admitted::Duplicate(_))));
    rig.stop().await;
}

#[tokio::test]
async fn open_commands_come_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &["mqtt"]));
    let first = command("mqtt", "c1", "{\"action\":\"charge\"}");
    let site = NewCommand {
        device: None,
        result: CommandResult { device: None, ..result("local", "ü c2", CommandState::Accepted) },
        ..command("local", "ü c2", "x")
    };
    let done = command("mqtt", "c3", "x");
    for command in [&first, &site, &done] {
        rig.store.admit(command.clone()).await.unwrap();
    }
    rig.store.save_result(result("mqtt", "c3", CommandState::Superseded)).await.unwrap();
    let verified = result("mqtt", "c1", CommandState::Verified);
    rig.store.save_result(verified.clone()).await.unwrap();
    // A power cut right after the answer.
    let to = folder.path().join("cut");
    std::fs::create_dir(&to).unwrap();
    let rig = rig.cut(&to).await;
    let first = NewCommand { result: verified, ..first };
    assert_eq!(
        rig.store.open_commands().await.unwrap(),
        [OpenCommand { command: first, order: 1 }, OpenCommand { command: site, order: 2 }]
    );
    rig.stop().await;
}

#[tokio::test]
async fn plans_held_baselines_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &[]));
    let store = &rig.store;
    let (a, b): (PlanId, PlanId) = ("a".parse().unwrap(), "b".parse().unwrap());
    store.save_plan(a.clone(), "1".into(), UplinkName::local(), at(1)).await.unwrap();
    store.save_plan(b.clone(), "2".into(), uplink("mqtt"), at(2)).await.unwrap();
    store.save_plan(a.clone(), "3".into(), UplinkName::local(), at(3)).await.unwrap();
    assert_eq!((store.delete_plan(b.clone()).await, store.delete_plan(b).await), (Ok(true), Ok(false)));
    let held = |watts| Held {
        device: device("battery"),
        demand: Demand::BatteryPower { watts, grid: true },
        on_end: Demand::Release,
        since: at(0),
    };
    store.held(held(-2000.0)).await.unwrap();
    store.held(held(-2500.0)).await.unwrap();
    store.held(Held { device: device("pv"), ..held(1.0) }).await.unwrap();
    store.not_held(device("pv")).await.unwrap();
    store.save_baseline(device("pv"), "{\"limit\":100}".into()).await.unwrap();
    store.set_meta("gateway", "g1").await.unwrap();
    let rig = rig.reopen().await;
    let store = &rig.store;
    assert_eq!(
        store.plans().await.unwrap(),
        [StoredPlan { id: a, body: "3".into(), source: UplinkName::local(), order: 3, accepted_at: at(3) }]
    );
    assert_eq!(store.held_all().await.unwrap(), [held(-2500.0)]);
    assert_eq!(store.baselines().await.unwrap(), [(device("pv"), "{\"limit\":100}".to_owned())]);
    assert_eq!(store.meta("gateway").await, Ok(Some("g1".into())));
    rig.stop().await;
}

#[tokio::test]
async fn notices_wait_for_each_addressee() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(settings(folder.path(), &["mqtt", "cloud"]));
    let store = &rig.store;
    let mut changed = store.outbox_changed();
    store.event(event("one", 1)).await.unwrap();
    store.admit(command("mqtt", "c1", "a")).await.unwrap();
    store.admit(command("local", "c1", "a")).await.unwrap();
    let answer = serde_json::json!({"id": "p", "state": "accepted"});
    store.plan_answer(uplink("cloud"), "p".into(), answer.clone()).await.unwrap();
    store.plan_answer(UplinkName::local(), "p".into(), answer.clone()).await.unwrap();
    changed.changed().await.unwrap();
    let fetch = async |up: &str| {
        let items = store.outbox(uplink(up), 10).await.unwrap();
        items.into_iter().map(|i| (i.notice.id, i.notice.body)).collect::<Vec<_>>()
    };
    let one = (1, NoticeBody::Event(event("one", 1)));
    let accepted = (2, NoticeBody::Result(result("mqtt", "c1", CommandState::Accepted)));
    let plan = (3, NoticeBody::Plan { uplink: uplink("cloud"), plan: "p".into(), answer });
    assert_eq!(fetch("mqtt").await, [one.clone(), accepted.clone()]);
    assert_eq!(fetch("cloud").await, [one.clone(), plan.clone()]);
    assert_eq!(fetch("local").await, []);
    // An event's number is its notice's number.
    assert_eq!(store.events(5).await.unwrap(), [(1, event("one", 1))]);
    store.outbox_done(uplink("mqtt"), vec![1]).await.unwrap();
    assert_eq!(fetch("mqtt").await, [accepted]);
    assert_eq!(fetch("cloud").await, [one, plan]);

    // A removed uplink is not waited for.
    let settings = StoreSettings { uplinks: vec![uplink("mqtt")], ..rig.stop().await };
    let rig = Rig::open(settings);
    rig.store.event(event("two", 2)).await.unwrap();
    let ids: Vec<u64> = rig.store.outbox(uplink("mqtt"), 10).await.unwrap().iter().map(|item| item.notice.id).collect();
    assert_eq!(ids, [2, 4]);
    assert_eq!(rig.store.outbox(uplink("cloud"), 10).await, Ok(vec![]));
    rig.stop().await;
}

#[tokio::test]
async fn events_are_bounded_by_number_and_age() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("derd.db");
    let conn = file::open(&path, at(0)).unwrap().conn;
    let uplinks = [uplink("mqtt")];
    let tx = conn.unchecked_transaction().unwrap();
    for n in 1..=10_005_i64 {
        tx.execute("INSERT INTO events VALUES (?1, ?2, 'info', NULL, 'c', 't', 'raised')", [n, at(n).ms()]).unwrap();
        tx.execute("INSERT INTO notices VALUES (?1, 0, 'event', NULL, NULL, NULL, NULL, '')", [n]).unwrap();
        tx.execute("INSERT INTO outbox VALUES ('mqtt', ?1)", [n]).unwrap();
    }
    tx.commit().unwrap();
    assert_eq!(super::super::journal::prune(&conn, None), Ok(5));
    let count = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT min(id) FROM events"), 6);
    assert_eq!(count("SELECT min(notice) FROM outbox"), 6);
    let later = at(10_000).plus(Duration::from_secs(90 * 24 * 3600));
    assert_eq!(super::super::journal::prune(&conn, Some(later)), Ok(9994));
    assert_eq!(count("SELECT min(id) FROM events"), 10_000);
    assert_eq!(super::super::journal::outbox(&conn, &uplinks[0], 100).unwrap().len(), 6);
    // Notices that 20,000 others have overtaken.
    super::super::sql::set_number(&conn, "last_notice", 30_002).unwrap();
    assert_eq!(super::super::journal::prune(&conn, None), Ok(3));
    assert_eq!(super::super::sql::number(&conn, "lost_notices"), Ok(5 + 9994 + 3));
}
