//! The task with a store in memory and control's inbox in hand.

use super::super::*;
use super::*;
use crate::control::{ControlHandle, ControlMsg};
use crate::runtime::{Clock, Exit, ShutdownSwitch};
use crate::store::{Admitted, Ask, NewCommand, OpenCommand, StoreHandle, StoredPlan};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

type Id = (UplinkName, Option<DeviceId>, Option<CommandId>);

/// What the store would have on disk.
#[derive(Default)]
pub(super) struct Disk {
    commands: BTreeMap<Id, (Vec<u8>, CommandResult)>,
    /// Notices: results by state, in order.
    told: Vec<(Option<String>, CommandState)>,
    last_reason: Option<String>,
    pub(super) events: Vec<String>,
    plans: BTreeMap<PlanId, String>,
    plan_answers: Vec<Value>,
    order: u64,
    pub(super) is_broken: bool,
    /// How often the owner's word was kept.
    pub(super) kept: u32,
}

impl Disk {
    fn tell(&mut self, result: &CommandResult) {
        self.told.push((result.id.as_ref().map(|id| id.to_string()), result.state));
        self.last_reason.clone_from(&result.reason);
    }

    fn admit(&mut self, new: NewCommand) -> Admitted {
        let id = (new.uplink, new.device, Some(new.id));
        match self.commands.get(&id) {
            Some((body, result)) if *body == new.body => Admitted::Duplicate(Box::new(result.clone())),
            Some((_, result)) => Admitted::Conflict(Box::new(result.clone())),
            None => {
                self.order += 1;
                self.tell(&new.result);
                self.commands.insert(id, (new.body, new.result));
                Admitted::New { order: self.order }
            }
        }
    }

    fn answer(&mut self, ask: Ask) {
        let broken = || crate::store::StoreError::Sqlite { attempt: "write", reason: "disk full".to_owned() };
        match ask {
            Ask::Admit(new, tx) => {
                let answer = if self.is_broken { Err(broken()) } else { Ok(self.admit(*new)) };
                tx.send(answer).unwrap();
            }
            Ask::SaveResult(result, tx) => {
                self.tell(&result);
                let id = (result.uplink.clone(), result.device.clone(), result.id.clone());
                if let Some((_, kept)) = self.commands.get_mut(&id) {
                    assert!(!kept.state.is_final(), "{kept:?} was replaced by {result:?}");
                    *kept = *result;
                }
                tx.send(Ok(())).unwrap();
            }
            Ask::TellResult(result, tx) => {
                self.tell(&result);
                tx.send(Ok(())).unwrap();
            }
            Ask::SavePlan(plan, tx) => {
                self.order += 1;
                self.plans.insert(plan.0, plan.1);
                tx.send(Ok(self.order)).unwrap();
            }
            Ask::DeletePlan(id, tx) => tx.send(Ok(self.plans.remove(&id).is_some())).unwrap(),
            Ask::Event(event) => self.events.push(event.code),
            Ask::SetMeta(.., tx) => {
                self.kept += 1;
                tx.send(if self.is_broken { Err(broken()) } else { Ok(()) }).unwrap();
            }
            Ask::Delivered(..) => {}
            Ask::PlanAnswer(answer) => self.plan_answers.push(answer.2),
            other => panic!("not expected: {other:?}"),
        }
    }
}

pub(super) struct Bench {
    handle: CommandHandle,
    pub(super) control: mpsc::Receiver<ControlMsg>,
    updates: mpsc::Sender<IntentUpdate>,
    pub(super) clock: Clock,
    pub(super) disk: Arc<Mutex<Disk>>,
    /// False: the disk hangs.
    pub(super) gate: watch::Sender<bool>,
    switch: ShutdownSwitch,
}

/// Run the task beside `script`, which ends it; then look at the disk.
pub(super) async fn run<F>(
    open: Vec<OpenCommand>,
    plans: Vec<StoredPlan>,
    script: impl FnOnce(Bench) -> F,
) -> Arc<Mutex<Disk>>
where
    F: Future<Output = Bench>,
{
    run_with(open, plans, OwnerWord::default(), script).await
}

/// The same, with what the owner had said in an earlier run.
pub(super) async fn run_with<F>(
    open: Vec<OpenCommand>,
    plans: Vec<StoredPlan>,
    owner: OwnerWord,
    script: impl FnOnce(Bench) -> F,
) -> Arc<Mutex<Disk>>
where
    F: Future<Output = Bench>,
{
    let (asks, mut asked) = mpsc::channel(16);
    let (_outbox, outbox) = watch::channel(0);
    let (_status, status) = watch::channel(StoreStatus::default());
    let store = StoreHandle {
        asks,
        live: broadcast::channel(1).0,
        next_row: Arc::new(AtomicU64::new(0)),
        dropped: Arc::new(AtomicU64::new(0)),
        outbox,
        status,
    };
    let (control, inbox, _control_status) = ControlHandle::for_test();
    let (updates, updates_rx) = mpsc::channel(16);
    let clock = Clock::manual(t(NOW));
    let disk = Arc::new(Mutex::new(Disk::default()));
    for command in &open {
        let c = &command.command;
        let id = (c.uplink.clone(), c.device.clone(), Some(c.id.clone()));
        disk.lock().unwrap().commands.insert(id, (c.body.clone(), c.result.clone()));
        disk.lock().unwrap().order = command.order;
    }
    let (gate, mut gate_rx) = watch::channel(true);
    let (switch, shutdown) = ShutdownSwitch::new();
    let (handle, task) = create(CommandParts {
        devices: devices(),
        site: site(),
        capabilities: BTreeMap::new(),
        store,
        control,
        updates: updates_rx,
        clock: clock.clone(),
        open,
        recent: vec![],
        plans,
        owner,
    });
    let bench = Bench { handle, control: inbox, updates, clock, disk: Arc::clone(&disk), gate, switch };
    let serve = async {
        while let Some(ask) = asked.recv().await {
            if gate_rx.wait_for(|open| *open).await.is_err() {
                break;
            }
            disk.lock().unwrap().answer(ask);
        }
    };
    let script = async {
        let bench = script(bench).await;
        bench.switch.stop();
        bench
    };
    let (exit, _bench, ()) = tokio::join!(task.run(shutdown), script, serve);
    assert_eq!(exit, Exit::Shutdown);
    disk
}

impl Bench {
    pub(super) fn send(&self, origin: Origin, device: &str, body: &Value) -> oneshot::Receiver<CommandResult> {
        self.send_raw(origin, Target::Device(device.to_owned()), body, false)
    }

    fn send_raw(
        &self,
        origin: Origin,
        target: Target,
        body: &Value,
        retained: bool,
    ) -> oneshot::Receiver<CommandResult> {
        let (answer, rx) = oneshot::channel();
        let raw = RawCommand {
            origin,
            target,
            body: body.to_string().into_bytes(),
            retained,
            expires_in: Some(Duration::from_secs(60)),
            received: self.clock.now(),
            reply_to: ReplyTo::default(),
            answer,
        };
        assert!(self.handle.try_command(raw).is_ok(), "the inbox is full");
        rx
    }

    pub(super) async fn command(&self, device: &str, body: Value) -> CommandResult {
        self.send(mqtt(), device, &body).await.unwrap()
    }

    async fn plan(&self, origin: Origin, plan: &str, body: Option<Value>) -> Value {
        let (answer, rx) = oneshot::channel();
        let body = body.map(|body| body.to_string().into_bytes());
        let raw = RawPlan { origin, plan: plan.to_owned(), body, retained: true, answer };
        assert!(self.handle.try_plan(raw).is_ok());
        rx.await.unwrap()
    }

    pub(super) async fn intent(&mut self) -> Intent {
        match self.control.recv().await.unwrap() {
            ControlMsg::Intent(intent) => intent,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn owner(&self, wish: OwnerWish) -> OwnerAnswer {
        let (answer, rx) = oneshot::channel();
        assert!(self.handle.try_owner(OwnerAsk { wish, answer }).is_ok());
        rx.await.unwrap()
    }

    async fn update(&self, key: &IntentKey, progress: Progress) {
        let at = self.clock.now();
        self.updates.send(IntentUpdate { key: key.clone(), at, progress }).await.unwrap();
    }
}

pub(super) fn charge(id: &str) -> Value {
    json!({"id": id, "action": "charge", "params": {"power_w": 3000}})
}

pub(super) fn idle(id: &str) -> Value {
    json!({"id": id, "action": "idle"})
}

pub(super) fn states(disk: &Arc<Mutex<Disk>>, id: &str) -> Vec<CommandState> {
    disk.lock().unwrap().told.iter().filter(|(of, _)| of.as_deref() == Some(id)).map(|(_, state)| *state).collect()
}

#[tokio::test(start_paused = true)]
async fn durable_first_then_control_then_the_end() {
    use CommandState::*;
    let disk = run(vec![], vec![], |mut b| async move {
        let first = b.command("battery", charge("c-1")).await;
        assert_eq!(first.state, Accepted);
        let intent = b.intent().await;
        assert_eq!((intent.rank, intent.source.as_str(), intent.ends_at), (Rank::Command, "mqtt", t(NOW).plus(LEASE)));
        b.update(&intent.key, Progress::Device { stage: Stage::Written, evidence: vec![] }).await;
        b.update(&intent.key, Progress::Device { stage: Stage::Verified, evidence: vec![] }).await;
        b.update(&intent.key, Progress::Effect).await;
        b.update(&intent.key, Progress::Ended { delivered_wh: Some(7.0) }).await;
        // The same once more does nothing, and gets the last result.
        let again = b.command("battery", charge("c-1")).await;
        assert_eq!((again.state, again.delivered_wh), (Ended, Some(7.0)));
        // With another body it is refused, and what is kept stays.
        let other = b.command("battery", idle("c-1")).await;
        assert_eq!(
            (other.state, other.reason.as_deref()),
            (Rejected, Some("same id with another body: nothing was done"))
        );
        assert_eq!(b.command("battery", charge("c-1")).await.state, Ended);
        assert!(b.control.try_recv().is_err(), "nothing acts twice");
        b
    })
    .await;
    assert_eq!(states(&disk, "c-1"), [Accepted, Written, Verified, Held, Ended, Ended, Rejected, Ended]);
}

#[tokio::test(start_paused = true)]
async fn stop_and_idle_do_not_wait_for_the_disk() {
    use CommandState::*;
    let disk = run(vec![], vec![], |mut b| async move {
        b.gate.send_replace(false);
        let mut slow = b.send(mqtt(), "battery", &charge("c-1"));
        let mut quick = b.send(mqtt(), "battery", &idle("i-1"));
        let twice = b.send(mqtt(), "battery", &idle("i-1"));
        let intent = b.intent().await;
        assert_eq!(intent.action, Action::Idle);
        assert!(slow.try_recv().is_err() && quick.try_recv().is_err(), "answers wait until they are durable");
        b.gate.send_replace(true);
        assert_eq!((slow.await.unwrap().state, quick.await.unwrap().state), (Accepted, Accepted));
        assert_eq!(twice.await.unwrap().state, Accepted);
        let older = b.intent().await;
        assert!(older.accepted < intent.accepted, "control sees that the charge came first");
        assert!(b.control.try_recv().is_err(), "the second `idle` did not act");
        b
    })
    .await;
    assert_eq!(states(&disk, "i-1"), [Accepted, Accepted]);
}

#[tokio::test(start_paused = true)]
async fn an_old_stop_that_was_forgotten_is_taken_back() {
    run(vec![], vec![], |mut b| async move {
        let first = b.command("battery", charge("c-0")).await;
        b.disk.lock().unwrap().admit(NewCommand {
            uplink: mqtt().uplink,
            device: Some("battery".parse().unwrap()),
            id: "i-0".parse().unwrap(),
            body: idle("i-0").to_string().into_bytes(),
            result: CommandResult { state: CommandState::Ended, ..first },
            ends_at: t(NOW),
            accepted_at: t(NOW),
        });
        b.intent().await;
        assert_eq!(b.command("battery", idle("i-0")).await.state, CommandState::Ended);
        let acted = b.intent().await;
        match b.control.recv().await.unwrap() {
            ControlMsg::Withdraw(key) => assert_eq!(key, acted.key),
            other => panic!("{other:?}"),
        }
        b
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn release_ends_what_came_before_it() {
    use CommandState::*;
    run(vec![], vec![], |mut b| async move {
        b.command("battery", charge("c-1")).await;
        b.intent().await;
        let released = b.command("battery", json!({"id": "r-1", "action": "release"})).await;
        assert_eq!(released.state, Ended);
        assert!(matches!(b.control.recv().await, Some(ControlMsg::Release { uplink, .. }) if uplink == mqtt().uplink));
        // A `idle` that came after a release and overtook it stays.
        b.gate.send_replace(false);
        let release = b.send(mqtt(), "battery", &json!({"id": "r-2", "action": "release"}));
        let idle = b.send(mqtt(), "battery", &idle("i-1"));
        assert_eq!(b.intent().await.action, Action::Idle);
        b.gate.send_replace(true);
        assert_eq!((release.await.unwrap().state, idle.await.unwrap().state), (Ended, Accepted));
        match b.control.recv().await.unwrap() {
            ControlMsg::Withdraw(IntentKey::Command { id, .. }) => assert_eq!(id.as_str(), "c-1"),
            other => panic!("{other:?}"),
        }
        // For the site: its limits.
        let limit = json!({"id": "l-1", "action": "set_import_limit", "params": {"power_w": 4000}});
        b.send_raw(mqtt(), Target::Site, &limit, false).await.unwrap();
        assert!(matches!(b.control.recv().await, Some(ControlMsg::SiteLimit(limit)) if limit.power_w == 4000.0));
        let release = json!({"id": "r-3", "action": "release"});
        assert_eq!(b.send_raw(mqtt(), Target::Site, &release, false).await.unwrap().state, Ended);
        assert!(matches!(b.control.recv().await, Some(ControlMsg::Withdraw(IntentKey::Command { device: None, .. }))));
        b
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn refusals_reach_their_sender() {
    use CommandState::*;
    let disk = run(vec![], vec![], |mut b| async move {
        let no = b.command("battery", json!({"id": "x-1", "action": "explode"})).await;
        assert_eq!(no.state, Rejected);
        assert_eq!(b.command("battery", json!({"id": "x-1", "action": "explode"})).await, no, "the stored one");
        let none = b.command("battery", json!({"action": "idle"})).await;
        assert_eq!((none.id, none.state), (None, Rejected));
        for _ in 0..3 {
            let retained = b.send_raw(mqtt(), Target::Device("battery".to_owned()), &idle("r"), true).await.unwrap();
            assert_eq!(retained.state, Rejected);
        }
        b.clock.advance(Duration::from_secs(3600));
        b.send_raw(mqtt(), Target::Device("battery".to_owned()), &idle("r"), true).await.unwrap();
        // A command whose id a refusal tries to take keeps its result.
        b.command("battery", charge("c-1")).await;
        b.intent().await;
        let late = json!({"id": "c-1", "action": "idle", "not_after": "2020-01-01T00:00:00Z"});
        assert_eq!(
            b.command("battery", late).await.reason.as_deref(),
            Some("same id with another body: nothing was done")
        );
        assert_eq!(b.command("battery", charge("c-1")).await.state, Accepted);
        assert!(b.control.try_recv().is_err());
        b
    })
    .await;
    assert_eq!(states(&disk, "x-1"), [Rejected, Rejected]);
    assert_eq!(states(&disk, "r"), [], "nothing is stored of a retained one");
    let disk = disk.lock().unwrap();
    assert_eq!(disk.told.iter().filter(|(id, _)| id.is_none()).count(), 1);
    assert_eq!(disk.events, ["retained_command_ignored", "retained_command_ignored"], "once an hour");
}

#[tokio::test(start_paused = true)]
async fn a_broken_disk_lets_nothing_act_but_stop_and_idle() {
    use CommandState::*;
    run(vec![], vec![], |mut b| async move {
        b.disk.lock().unwrap().is_broken = true;
        let no = b.command("battery", charge("c-1")).await;
        assert_eq!(no.state, Rejected);
        assert!(no.reason.unwrap().contains("disk full"));
        assert_eq!(b.command("battery", idle("i-1")).await.state, Accepted);
        assert_eq!(b.intent().await.action, Action::Idle);
        b.disk.lock().unwrap().is_broken = false;
        assert_eq!(b.command("battery", charge("c-1")).await.state, Accepted, "it may come again: it never acted");
        assert_eq!(b.intent().await.action.name(), "charge");
        b
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_runs_is_never_called_busy_when_it_comes_again() {
    run(vec![], vec![], |mut b| async move {
        let first = b.send(mqtt(), "battery", &charge("c-0"));
        assert_eq!(first.await.unwrap().state, CommandState::Accepted);
        b.intent().await;
        b.gate.send_replace(false);
        let mut others = Vec::new();
        for n in 1..40 {
            others.push(b.send(mqtt(), "battery", &charge(&format!("c-{n}"))));
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
        }
        let again = b.send(mqtt(), "battery", &charge("c-0"));
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        b.gate.send_replace(true);
        assert!(matches!(others.pop().unwrap().await.unwrap().reason.as_deref(), Some("busy")), "the house is full");
        assert_eq!(again.await.unwrap().state, CommandState::Accepted);
        b
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_full_house_says_busy() {
    run(vec![], vec![], |mut b| async move {
        b.gate.send_replace(false);
        let mut answers = Vec::new();
        for n in 0..40 {
            answers.push(b.send(mqtt(), "battery", &charge(&format!("c-{n}"))));
            // Let the task take it.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
        }
        let idle = b.send(mqtt(), "battery", &idle("i-1"));
        assert_eq!(b.intent().await.action, Action::Idle, "not even then");
        b.gate.send_replace(true);
        let mut busy = 0;
        for answer in answers {
            let result = answer.await.unwrap();
            busy += usize::from(result.reason.as_deref() == Some("busy"));
            if result.state == CommandState::Accepted {
                b.intent().await;
            }
        }
        assert_eq!((busy, idle.await.unwrap().state), (24, CommandState::Accepted));
        b
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_command_is_withdrawn_and_an_overdue_one_ended() {
    use CommandState::*;
    let disk = run(vec![], vec![], |mut b| async move {
        b.command("battery", charge("c-1")).await;
        let failed = b.intent().await.key;
        let stage = Stage::Failed("illegal data value".to_owned());
        b.update(&failed, Progress::Device { stage, evidence: vec![] }).await;
        assert!(matches!(b.control.recv().await, Some(ControlMsg::Withdraw(key)) if key == failed));
        b.command("battery", charge("c-2")).await;
        let silent = b.intent().await.key;
        b.clock.advance(LEASE + Duration::from_secs(121));
        assert!(matches!(b.control.recv().await, Some(ControlMsg::Withdraw(key)) if key == silent));
        b
    })
    .await;
    assert_eq!(states(&disk, "c-1"), [Accepted, Failed]);
    assert_eq!(states(&disk, "c-2"), [Accepted, Ended]);
}

fn open(id: &str, order: u64, body: &Value, state: CommandState, ends_at: &str) -> OpenCommand {
    let result = CommandResult::new(
        mqtt().uplink,
        Some("battery".parse().unwrap()),
        Some(id.parse().unwrap()),
        state,
        t("2026-11-20T11:55:00Z"),
    );
    OpenCommand {
        command: NewCommand {
            uplink: result.uplink.clone(),
            device: result.device.clone(),
            id: id.parse().unwrap(),
            body: body.to_string().into_bytes(),
            accepted_at: result.ts,
            result,
            ends_at: t(ends_at),
        },
        order,
    }
}

#[test]
fn an_earlier_run_goes_on_until_the_same_ends() {
    let later = "2026-11-20T12:10:00Z";
    let commands = [
        open("c-1", 1, &charge("c-1"), CommandState::Held, later),
        open("c-2", 2, &charge("c-2"), CommandState::Held, NOW),
        open("c-3", 3, &json!({"rubbish": 1}), CommandState::Held, later),
    ];
    let clock = Clock::manual(t(NOW));
    clock.advance(Duration::ZERO);
    let found = recover(&commands, &[], &devices(), &site(), &OwnerWord::default(), &clock);
    assert_eq!(found.intents.len(), 1);
    let intent = &found.intents[0];
    assert_eq!((intent.accepted, intent.ends_at, intent.deadline), (1, t(later), Mono::from_ms(600_000)));
    assert_eq!((intent.rank, intent.since), (Rank::Command, t("2026-11-20T11:55:00Z")));
    let settled: Vec<_> = found.settled.iter().map(|r| (r.state, r.reason.as_deref().unwrap())).collect();
    assert_eq!(
        settled,
        [
            (CommandState::Ended, "its time passed while derd was not running"),
            (CommandState::Ended, "this version of derd cannot read it"),
        ]
    );
    assert_eq!(found.last_order, 3);
    clock.step(t(NOW), false);
    let found = recover(&commands, &[], &devices(), &site(), &OwnerWord::default(), &clock);
    assert!(found.intents.is_empty() && found.tracked.is_empty());
    assert_eq!(found.settled.len(), 3);
    clock.step(t(NOW), true);
    let release = open("r-1", 4, &json!({"id": "r-1", "action": "release"}), CommandState::Accepted, later);
    let found = recover(&[commands[0].clone(), release], &[], &devices(), &site(), &OwnerWord::default(), &clock);
    assert!(found.intents.is_empty(), "released just before the end");
    let found = recover(&commands[..1], &[], &[], &site(), &OwnerWord::default(), &clock);
    assert_eq!(found.settled[0].reason.as_deref(), Some("its device is not configured any more"));
}

#[tokio::test(start_paused = true)]
async fn a_restart_settles_and_goes_on() {
    use CommandState::*;
    let commands = vec![
        open("i-1", 1, &idle("i-1"), Held, "2026-11-20T12:10:00Z"),
        open("c-2", 2, &charge("c-2"), Accepted, "2026-11-20T11:59:00Z"),
    ];
    let disk = run(commands, vec![], |mut b| async move {
        assert_eq!(b.command("battery", idle("i-1")).await.state, Held, "in memory: it does not act again");
        assert!(b.control.try_recv().is_err());
        b.command("battery", charge("c-3")).await;
        assert_eq!(b.intent().await.accepted, 3, "behind all that came before");
        b.update(
            &IntentKey::Command {
                uplink: mqtt().uplink,
                device: Some("battery".parse().unwrap()),
                id: "i-1".parse().unwrap(),
            },
            Progress::Ended { delivered_wh: None },
        )
        .await;
        tokio::task::yield_now().await;
        b
    })
    .await;
    assert_eq!(states(&disk, "c-2"), [Ended]);
    assert_eq!(states(&disk, "i-1"), [Held, Ended]);
}

#[tokio::test(start_paused = true)]
async fn plans_come_and_go() {
    let slots = |power: u32| {
        json!({"device": "battery", "kind": "slots", "slots": [{"start": "2026-11-20T11:00:00Z",
            "end": "2026-11-20T13:00:00Z", "action": "charge", "params": {"power_w": power}}]})
    };
    let stored = StoredPlan {
        id: "old".parse().unwrap(),
        body: slots(1).to_string(),
        source: UplinkName::local(),
        order: 5,
        accepted_at: t(NOW),
    };
    let broken = StoredPlan { id: "broken".parse().unwrap(), body: "{}".to_owned(), order: 6, ..stored.clone() };
    let disk = run(vec![], vec![stored, broken], |mut b| async move {
        let ids = |b: &Bench| b.handle.plans().borrow().iter().map(|p| p.id.to_string()).collect::<Vec<_>>();
        assert_eq!(ids(&b), ["old"]);
        let answer = b.plan(mqtt(), "p1", Some(slots(2))).await;
        assert_eq!((answer["id"].as_str(), answer["state"].as_str()), (Some("p1"), Some("accepted")));
        assert!(matches!(b.control.recv().await, Some(ControlMsg::Plan { doc, .. }) if doc.id().as_str() == "p1"));
        let summary = b.handle.plans().borrow()[1].clone();
        assert_eq!((summary.source.as_str(), summary.active.as_deref()), ("mqtt", Some("charge")));
        assert_eq!(summary.next_change, Some(t("2026-11-20T13:00:00Z")));
        // The same again (a retained message) changes nothing.
        assert_eq!(b.plan(mqtt(), "p1", Some(slots(2))).await["state"], "accepted");
        assert!(b.control.try_recv().is_err());
        // Each its own; the owner all.
        let foreign = b.plan(mqtt(), "old", Some(slots(3))).await;
        assert!(foreign["reasons"][0].as_str().unwrap().contains("belongs to `local`"), "{foreign}");
        assert_eq!(b.plan(mqtt(), "old", None).await["state"], "refused");
        assert_eq!(b.plan(local(), "p1", None).await["state"], "deleted");
        assert!(matches!(b.control.recv().await, Some(ControlMsg::DropPlan(id)) if id.as_str() == "p1"));
        assert_eq!(ids(&b), ["old"]);
        // A removal that is delivered twice; but the owner is told of a wrong name.
        assert_eq!(b.plan(mqtt(), "p1", None).await["state"], "accepted");
        assert_eq!(b.plan(local(), "p1", None).await["reasons"][0], "there is no plan `p1`");
        for (name, body, says) in [
            ("Bad Name", Some(slots(1)), "plan id"),
            ("p2", Some(json!({})), "device is missing"),
            (
                "p2",
                Some(json!({"device": "pv", "kind": "weekly", "default": {"action": "auto"}, "rules": []})),
                "control of `pv`",
            ),
        ] {
            let answer = b.plan(mqtt(), name, body).await;
            assert_eq!(answer["state"], "refused");
            assert!(answer["reasons"][0].as_str().unwrap().contains(says), "{answer}");
        }
        // Another channel's removal of its own document.
        assert_eq!(b.plan(mqtt(), "p3", Some(slots(4))).await["state"], "accepted");
        assert_eq!(b.plan(mqtt(), "p3", None).await["state"], "accepted");
        assert_eq!(ids(&b), ["old"]);
        // What is active changes with time alone.
        b.clock.advance(Duration::from_secs(3600));
        let mut plans = b.handle.plans();
        plans.mark_unchanged();
        plans.changed().await.unwrap();
        assert_eq!(plans.borrow()[0].active, None);
        b
    })
    .await;
    let disk = disk.lock().unwrap();
    assert!(disk.plans.is_empty());
    assert_eq!(disk.plan_answers.len(), 10, "all but the owner's own");
}
