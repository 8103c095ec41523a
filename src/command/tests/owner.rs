//! The owner's word, with a store in memory and control's inbox in hand.

use super::task::{charge, idle, run, run_with, states};
use super::*;
use crate::command::{OwnerAnswer, OwnerWish};
use crate::control::ControlMsg;
use crate::model::{OptOut, OwnerWord, RemoteControl};
use serde_json::json;

fn may_all() -> Origin {
    Origin { ranks: vec![Rank::Command, Rank::Event, Rank::Grid], ..mqtt() }
}

#[tokio::test(start_paused = true)]
async fn a_pause_acts_first_is_kept_and_makes_commands_wait_from_their_first_word_on() {
    use CommandState::*;
    let hour = Duration::from_secs(3600);
    let until = t(NOW).plus(hour);
    let disk = run(vec![], vec![], |mut b| async move {
        let answer = b.owner(OwnerWish::Pause(Some(hour))).await;
        assert_eq!(answer, OwnerAnswer::Remote(RemoteControl { paused: true, until: Some(until) }));
        let ControlMsg::Pause { until: Some(end) } = b.control.recv().await.unwrap() else { panic!("no pause") };
        assert_eq!((end.wall, end.mono), (until, b.clock.mono().plus(hour)));
        let first = b.command("battery", charge("c-1")).await;
        assert_eq!(first.state, Suspended);
        assert_eq!(first.reason, Some(format!("the owner paused remote control until {until}")));
        assert_eq!(b.command("battery", idle("i-1")).await.state, Suspended);
        let grid = b.send(may_all(), "battery", &json!({"id": "g-1", "action": "idle", "rank": "grid"})).await.unwrap();
        assert_eq!(grid.state, Accepted);
        let own = Origin { uplink: UplinkName::local(), ranks: vec![Rank::Owner] };
        assert_eq!(b.send(own, "battery", &idle("o-1")).await.unwrap().state, Accepted);
        assert_eq!(b.owner(OwnerWish::Resume).await, OwnerAnswer::Remote(RemoteControl::default()));
        assert_eq!(b.command("battery", charge("c-2")).await.state, Accepted);
        // A word of the owner that the disk does not take is in force, and the owner is told so.
        b.disk.lock().unwrap().is_broken = true;
        assert!(matches!(b.owner(OwnerWish::Pause(None)).await, OwnerAnswer::NotKept(_)));
        b.disk.lock().unwrap().is_broken = false;
        b
    })
    .await;
    assert_eq!(states(&disk, "c-1"), [Suspended]);
    assert_eq!(disk.lock().unwrap().events, ["remote_paused", "remote_paused", "remote_paused"]);
}

#[tokio::test(start_paused = true)]
async fn an_opt_out_refuses_the_events_of_its_source_until_the_event_would_have_ended() {
    use CommandState::*;
    let event = |id: &str| json!({"id": id, "action": "charge", "rank": "event", "ends_at": "2026-11-20T12:30:00Z"});
    let disk = run(vec![], vec![], |mut b| async move {
        assert_eq!(b.owner(OwnerWish::OptOut(None)).await, OwnerAnswer::OptedOut(vec![]), "none runs");
        assert!(matches!(b.control.recv().await, Some(ControlMsg::OptOut { device: None })));
        assert_eq!(b.send(may_all(), "battery", &event("e-1")).await.unwrap().state, Accepted);
        drop(b.intent().await);
        let out =
            OptOut { uplink: mqtt().uplink, device: "battery".parse().unwrap(), until: t("2026-11-20T12:30:00Z") };
        let battery = OwnerWish::OptOut(Some("battery".parse().unwrap()));
        assert_eq!(b.owner(battery).await, OwnerAnswer::OptedOut(vec![out]));
        assert!(matches!(b.control.recv().await, Some(ControlMsg::OptOut { device: Some(_) })));
        let refused = b.send(may_all(), "battery", &event("e-2")).await.unwrap();
        assert_eq!(refused.state, Rejected);
        assert_eq!(refused.reason.as_deref(), Some("the owner opted out until 2026-11-20T12:30:00.000Z"));
        assert_eq!(b.command("battery", charge("c-1")).await.state, Accepted, "a command is no event");
        b.clock.advance(Duration::from_secs(30 * 60));
        let later = json!({"id": "e-3", "action": "charge", "rank": "event"});
        assert_eq!(b.send(may_all(), "battery", &later).await.unwrap().state, Accepted);
        b
    })
    .await;
    assert_eq!(disk.lock().unwrap().events, ["opted_out"]);
}

#[tokio::test(start_paused = true)]
async fn an_opt_out_covers_an_event_on_its_way_to_the_disk() {
    use CommandState::*;
    let event = |id: &str| json!({"id": id, "action": "charge", "rank": "event", "ends_at": "2026-11-20T12:30:00Z"});
    let disk = run(vec![], vec![], |mut b| async move {
        b.gate.send_replace(false);
        let on_its_way = b.send(may_all(), "battery", &event("e-1"));
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        let gate = b.gate.clone();
        let (answer, ()) = tokio::join!(b.owner(OwnerWish::OptOut(None)), async {
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            gate.send_replace(true);
        });
        assert_eq!(answer, OwnerAnswer::OptedOut(vec![]), "none runs yet");
        let result = on_its_way.await.unwrap();
        assert_eq!((result.state, result.reason.as_deref()), (Ended, Some("opted out by the owner")));
        assert!(matches!(b.control.recv().await, Some(ControlMsg::OptOut { device: None })));
        assert_eq!(b.send(may_all(), "battery", &event("e-2")).await.unwrap().state, Rejected, "until its end");
        assert!(b.control.try_recv().is_err(), "nothing acts");
        b
    })
    .await;
    assert_eq!(states(&disk, "e-1"), [Accepted, Ended]);
    assert_eq!(disk.lock().unwrap().events, ["opted_out"]);
}

#[tokio::test(start_paused = true)]
async fn a_restart_remembers_the_owners_word() {
    let remote = RemoteControl { paused: true, until: Some(t("2026-11-20T12:10:00Z")) };
    let word = OwnerWord { remote, opted_out: vec![] };
    let disk = run_with(vec![], vec![], word.clone(), |b| async move {
        assert_eq!(b.command("battery", charge("c-1")).await.state, CommandState::Suspended);
        b
    })
    .await;
    assert!(disk.lock().unwrap().events.is_empty(), "it was told when it began");
    // It ended while derd did not run.
    let remote = RemoteControl { until: Some(t("2026-11-20T11:59:00Z")), ..remote };
    let disk = run_with(vec![], vec![], OwnerWord { remote, ..word }, |b| async move {
        assert_eq!(b.command("battery", charge("c-1")).await.state, CommandState::Accepted);
        b
    })
    .await;
    assert_eq!(disk.lock().unwrap().events, ["remote_paused"]);
    assert_eq!(disk.lock().unwrap().kept, 1, "and it is forgotten");
    // What cannot be read is the owner's side.
    assert!(super::super::read_word(Some("{")).remote.paused);
    assert!(!super::super::read_word(None).remote.paused);
}
