//! The task with the real store, over a restart.

use super::super::*;
use super::*;
use crate::control::{ControlHandle, ControlMsg};
use crate::runtime::{Clock, Exit, ShutdownSwitch};
use crate::store::{self, NoticeBody, StoreHandle, StoreSettings};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use tokio::sync::{mpsc, oneshot};

struct Bench {
    handle: CommandHandle,
    control: mpsc::Receiver<ControlMsg>,
    updates: mpsc::Sender<IntentUpdate>,
    store: StoreHandle,
    recovered: Recovered,
    clock: Clock,
}

/// One life of the process: opens what is on disk, runs the task beside `script`, stops.
async fn life<F: Future<Output = ()>>(folder: &Path, clock: &Clock, script: impl FnOnce(Bench) -> F) {
    let settings = StoreSettings { uplinks: vec![mqtt().uplink], ..StoreSettings::new(folder.join("derd.db")) };
    let (store, thread) = store::open(settings, clock.clone()).unwrap();
    let (open, plans) = (store.open_commands().await.unwrap(), store.plans().await.unwrap());
    let recovered = recover(&open, &plans, &devices(), &site(), &crate::model::OwnerWord::default(), clock);
    let (control, inbox, _status) = ControlHandle::for_test();
    let (updates, updates_rx) = mpsc::channel(16);
    let (switch, shutdown) = ShutdownSwitch::new();
    let (handle, task) = create(CommandParts {
        devices: devices(),
        site: site(),
        capabilities: BTreeMap::new(),
        store: store.clone(),
        control,
        updates: updates_rx,
        clock: clock.clone(),
        recent: store.newest_commands(RECENT).await.unwrap(),
        open,
        plans,
        owner: crate::model::OwnerWord::default(),
    });
    let bench = Bench { handle, control: inbox, updates, store: store.clone(), recovered, clock: clock.clone() };
    let script = async {
        script(bench).await;
        switch.stop();
    };
    let (exit, ()) = tokio::join!(task.run(shutdown), script);
    assert!(matches!(exit, Exit::Shutdown | Exit::Orphaned));
    store.stop().await;
    assert!(thread.join());
}

impl Bench {
    async fn command(&self, body: &Value) -> CommandResult {
        let (answer, rx) = oneshot::channel();
        let raw = RawCommand {
            origin: Origin { ranks: vec![Rank::Event], ..mqtt() },
            target: Target::Device("battery".to_owned()),
            body: body.to_string().into_bytes(),
            retained: false,
            expires_in: Some(Duration::from_secs(60)),
            received: self.clock.now(),
            reply_to: ReplyTo { topic: Some("answers".to_owned()), correlation: Some(vec![0, 255]) },
            answer,
        };
        assert!(self.handle.try_command(raw).is_ok());
        rx.await.unwrap()
    }
}

#[tokio::test]
async fn a_command_and_a_plan_go_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(t(NOW));
    let charge = json!({"id": "c-1", "action": "charge", "params": {"power_w": 3000}});
    let first = std::sync::OnceLock::new();
    life(folder.path(), &clock, |mut b| {
        let (charge, first) = (&charge, &first);
        async move {
            assert_eq!(b.command(charge).await.state, CommandState::Accepted);
            let Some(ControlMsg::Intent(intent)) = b.control.recv().await else { panic!("no intent") };
            assert_eq!(intent.rank, Rank::Event);
            first.set(intent).unwrap();
            let body = json!({"device": "battery", "kind": "weekly", "default": {"action": "auto"}, "rules": []});
            let (answer, rx) = oneshot::channel();
            let body = Some(body.to_string().into_bytes());
            let raw = RawPlan { origin: mqtt(), plan: "p1".to_owned(), body, retained: false, answer };
            assert!(b.handle.try_plan(raw).is_ok());
            assert_eq!(rx.await.unwrap()["state"], "accepted");
        }
    })
    .await;
    let first = first.into_inner().unwrap();
    clock.advance(Duration::from_secs(300));
    life(folder.path(), &clock, |mut b| {
        let (charge, first) = (&charge, &first);
        async move {
            let again = &b.recovered.intents[0];
            assert_eq!((&again.key, again.rank, again.ends_at), (&first.key, Rank::Event, first.ends_at));
            assert_eq!(
                (&again.action, again.deadline.since(b.clock.mono())),
                (&first.action, Duration::from_secs(600))
            );
            assert_eq!(b.recovered.plans.len(), 1);
            assert_eq!(b.handle.plans().borrow()[0].active.as_deref(), Some("auto"));
            assert_eq!(b.command(charge).await.state, CommandState::Accepted, "the stored result");
            let progress = Progress::Ended { delivered_wh: Some(5.0) };
            let at = b.clock.now();
            b.updates.send(IntentUpdate { key: first.key.clone(), at, progress }).await.unwrap();
            let mut changed = b.store.outbox_changed();
            let mut told = Vec::new();
            while told.last() != Some(&CommandState::Ended) {
                let items = b.store.outbox(mqtt().uplink, 20).await.unwrap();
                told = items
                    .iter()
                    .filter_map(|item| match &item.notice.body {
                        NoticeBody::Result(result) => {
                            assert_eq!(result.reply_to.topic.as_deref(), Some("answers"));
                            Some(result.state)
                        }
                        _ => None,
                    })
                    .collect();
                if told.last() != Some(&CommandState::Ended) {
                    changed.changed().await.unwrap();
                }
            }
            assert_eq!(told, [CommandState::Accepted, CommandState::Accepted, CommandState::Ended]);
            assert!(b.control.try_recv().is_err(), "nothing acts twice");
        }
    })
    .await;
    life(folder.path(), &clock, |b| async move {
        assert!(b.recovered.intents.is_empty() && b.recovered.settled.is_empty());
    })
    .await;
}
