//! Commands and plans that came: handed on, answered, acknowledged in the order of arrival.

use super::flights::Flights;
use super::topics::{Inbound, Topics};
use crate::command::{CommandHandle, RawCommand, RawPlan, Target};
use crate::model::{CommandResult, CommandState, DeviceId, Origin, ReplyTo, Timestamp};
use crate::wire::{parse_command, result_json};
use rumqttc::{ManualAck, Publish, PublishProperties};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::oneshot;

/// What the inbox says when it is full.
const BUSY: &str = "busy";

/// An answer that the uplink gives itself because the inbox was full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BusyReply {
    /// Which message it answers: settled when the broker has the answer.
    pub(super) seq: u64,
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) correlation: Option<Vec<u8>>,
    /// The sender's response topic.
    pub(super) reply_to: Option<String>,
}

/// Messages that are not acknowledged yet. The broker keeps them at most as many as the receive maximum of CONNECT.
pub(super) struct Incoming {
    topics: Topics,
    origin: Origin,
    waiting: VecDeque<Waiting>,
    /// Messages that the broker delivers again, while the inbox is full, and what came behind them.
    held: VecDeque<Publish>,
    next_seq: u64,
    answers: Flights<u64, bool>,
}

struct Waiting {
    seq: u64,
    ack: Option<ManualAck>,
    is_settled: bool,
}

impl Incoming {
    pub(super) const fn new(topics: Topics, origin: Origin) -> Self {
        Self { topics, origin, waiting: VecDeque::new(), held: VecDeque::new(), next_seq: 0, answers: Flights::new() }
    }

    /// Shall a message wait. One that is delivered again may be running already: `busy` would be a wrong word for it. It
    /// stays unacknowledged, so that no more wait than the receive maximum of CONNECT.
    pub(super) fn hold(&mut self, publish: Publish, commands: &CommandHandle) -> Option<Publish> {
        if self.held.is_empty() && (!publish.dup || commands.has_room()) {
            return Some(publish);
        }
        self.held.push_back(publish);
        None
    }

    /// The next that has waited, when there is room for it.
    pub(super) fn next_held(&mut self, commands: &CommandHandle) -> Option<Publish> {
        if commands.has_room() { self.held.pop_front() } else { None }
    }

    /// Take a message in. `Ok(None)`: it is in the inbox. `Ok(Some)`: the inbox is full and this is to be sent.
    ///
    /// # Errors
    /// Its topic is nothing that was asked for: it is acknowledged and counted.
    pub(super) fn accept(
        &mut self,
        publish: &Publish,
        ack: Option<ManualAck>,
        commands: &CommandHandle,
        now: Timestamp,
    ) -> Result<Option<BusyReply>, ()> {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.waiting.push_back(Waiting { seq, ack, is_settled: false });
        let topics = self.topics.clone();
        let refused = match topics.parse(&publish.topic) {
            None => {
                self.settle(seq);
                return Err(());
            }
            Some(Inbound::PlanSet(plan)) => self.plan(seq, plan, publish, commands, now),
            Some(Inbound::DeviceCommand(device)) => {
                self.command(seq, Target::Device(device.to_owned()), publish, commands, now)
            }
            Some(Inbound::SiteCommand) => self.command(seq, Target::Site, publish, commands, now),
        };
        let Some((topic, payload)) = refused else { return Ok(None) };
        let reply_to = reply_to(publish.properties.as_ref());
        Ok(Some(BusyReply {
            seq,
            reply_to: reply_to.topic.filter(|t| *t != topic && topics.may_reply_to(t)),
            topic,
            payload,
            correlation: reply_to.correlation,
        }))
    }

    /// Hand a command on. `Some`: the inbox is full; topic and body of the answer.
    fn command(
        &mut self,
        seq: u64,
        target: Target,
        publish: &Publish,
        commands: &CommandHandle,
        now: Timestamp,
    ) -> Option<(String, Vec<u8>)> {
        let (answer, rx) = oneshot::channel();
        let properties = publish.properties.as_ref();
        let raw = RawCommand {
            origin: self.origin.clone(),
            target,
            body: publish.payload.to_vec(),
            retained: publish.retain,
            expires_in: properties
                .and_then(|p| p.message_expiry_interval)
                .map(|seconds| Duration::from_secs(seconds.into())),
            received: now,
            reply_to: reply_to(properties),
            answer,
        };
        match commands.try_command(raw) {
            Ok(()) => {
                self.answers.push(seq, async { rx.await.is_ok() });
                None
            }
            Err(raw) => Some(busy_command(&self.topics, &raw, now)),
        }
    }

    /// Hand a plan on. `Some`: the inbox is full; topic and body of the answer.
    fn plan(
        &mut self,
        seq: u64,
        plan: &str,
        publish: &Publish,
        commands: &CommandHandle,
        now: Timestamp,
    ) -> Option<(String, Vec<u8>)> {
        let (answer, rx) = oneshot::channel();
        let raw = RawPlan {
            origin: self.origin.clone(),
            plan: plan.to_owned(),
            body: Some(publish.payload.to_vec()).filter(|body| !body.is_empty()),
            retained: publish.retain,
            answer,
        };
        if commands.try_plan(raw).is_ok() {
            self.answers.push(seq, async { rx.await.is_ok() });
            return None;
        }
        let topic = self.topics.plan_result(plan);
        if topic.is_none() {
            // Nobody can be told.
            self.settle(seq);
        }
        Some((topic?, busy_plan(plan, now)))
    }

    /// Returns when something was answered. An answer that will never come leaves its message unacknowledged: the broker
    /// delivers it again on the next connection.
    pub(super) async fn answered(&mut self) {
        let (seq, is_answered) = self.answers.next().await;
        if is_answered {
            self.settle(seq);
        }
    }

    /// A message is dealt with.
    pub(super) fn settle(&mut self, seq: u64) {
        if let Some(waiting) = self.waiting.iter_mut().find(|w| w.seq == seq) {
            waiting.is_settled = true;
        }
    }

    /// The next acknowledgement to send: those before it have been sent (MQTT-4.6.0-2).
    pub(super) fn next_ack(&mut self) -> Option<ManualAck> {
        while self.waiting.front().is_some_and(|w| w.is_settled) {
            if let Some(ack) = self.waiting.pop_front().and_then(|w| w.ack) {
                return Some(ack);
            }
        }
        None
    }
}

fn reply_to(properties: Option<&PublishProperties>) -> ReplyTo {
    properties.map_or_else(ReplyTo::default, |p| ReplyTo {
        topic: p.response_topic.clone(),
        correlation: p.correlation_data.as_ref().map(|c| c.to_vec()),
    })
}

fn busy_command(topics: &Topics, raw: &RawCommand, now: Timestamp) -> (String, Vec<u8>) {
    let device: Option<DeviceId> = match &raw.target {
        Target::Device(name) => name.parse().ok(),
        Target::Site => None,
    };
    let id = match parse_command(&raw.body) {
        Ok(body) => Some(body.id),
        Err(fault) => fault.id,
    };
    let rejected = CommandResult::new(raw.origin.uplink.clone(), device, id, CommandState::Rejected, now);
    let result = CommandResult { reason: Some(BUSY.to_owned()), ..rejected };
    (topics.result(result.device.as_ref()), result_json(&result).to_string().into_bytes())
}

fn busy_plan(plan: &str, now: Timestamp) -> Vec<u8> {
    serde_json::json!({"id": plan, "state": "refused", "ts": now.to_string(), "reasons": [BUSY]})
        .to_string()
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::tests::result;
    use super::*;
    use crate::model::Rank;
    use rumqttc::{PubAck, QoS};

    fn incoming() -> Incoming {
        let origin = Origin { uplink: "mqtt".parse().unwrap(), ranks: vec![Rank::Command] };
        Incoming::new(Topics::new(&"gw".parse().unwrap()), origin)
    }

    fn publish(topic: &str, body: &str, pkid: u16) -> (Publish, Option<ManualAck>) {
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, body.to_owned(), None);
        publish.pkid = pkid;
        (publish, Some(ManualAck::PubAck(PubAck::new(pkid, None))))
    }

    fn pkid(ack: Option<ManualAck>) -> Option<u16> {
        match ack? {
            ManualAck::PubAck(ack) => Some(ack.pkid),
            ManualAck::PubRec(ack) => Some(ack.pkid),
        }
    }

    const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);

    #[tokio::test]
    async fn acknowledged_after_the_answer_and_in_order() {
        let (handle, mut inbox, _plans) = CommandHandle::for_tests(8);
        let mut incoming = incoming();
        for n in 1..=2u16 {
            let (p, ack) = publish("derd/gw/device/battery/command", &format!(r#"{{"id":"c-{n}"}}"#), n);
            assert_eq!(incoming.accept(&p, ack, &handle, NOW), Ok(None));
        }
        let first = inbox.recv().await.unwrap();
        assert_eq!((&first.target, first.retained), (&Target::Device("battery".into()), false));
        let second = inbox.recv().await.unwrap();
        assert!(incoming.next_ack().is_none());
        second.answer.send(result("mqtt", Some("battery"))).unwrap();
        incoming.answered().await;
        assert!(incoming.next_ack().is_none(), "the first is not answered yet");
        first.answer.send(result("mqtt", Some("battery"))).unwrap();
        incoming.answered().await;
        assert_eq!(pkid(incoming.next_ack()), Some(1));
        assert_eq!(pkid(incoming.next_ack()), Some(2));
        assert!(incoming.next_ack().is_none());
    }

    #[tokio::test]
    async fn a_full_inbox_is_answered() {
        let (handle, _inbox, _plans) = CommandHandle::for_tests(1);
        let mut incoming = incoming();
        let (p, ack) = publish("derd/gw/site/command", "{}", 1);
        assert_eq!(incoming.accept(&p, ack, &handle, NOW), Ok(None));
        let (mut p, ack) = publish("derd/gw/device/battery/command", r#"{"id":"c-2","action":"idle"}"#, 2);
        p.properties =
            Some(PublishProperties { response_topic: Some("acme/r".into()), ..PublishProperties::default() });
        let busy = incoming.accept(&p, ack, &handle, NOW).unwrap().unwrap();
        assert_eq!(busy.topic, "derd/gw/device/battery/command/result");
        assert_eq!(busy.reply_to.as_deref(), Some("acme/r"));
        let json: serde_json::Value = serde_json::from_slice(&busy.payload).unwrap();
        assert_eq!((&json["id"], &json["state"], &json["reason"]), (&"c-2".into(), &"rejected".into(), &"busy".into()));
        incoming.settle(busy.seq);
        assert!(incoming.next_ack().is_none(), "the first is not answered yet");
    }

    #[tokio::test]
    async fn one_that_comes_again_waits_for_room() {
        let (handle, mut inbox, _plans) = CommandHandle::for_tests(1);
        let mut incoming = incoming();
        let (p, ack) = publish("derd/gw/site/command", "{}", 1);
        assert_eq!(incoming.accept(&p, ack, &handle, NOW), Ok(None));
        let (mut again, _) = publish("derd/gw/device/battery/command", r#"{"id":"c-2"}"#, 2);
        assert!(incoming.hold(again.clone(), &handle).is_some(), "a fresh one is answered busy");
        again.dup = true;
        let (behind, _) = publish("derd/gw/device/battery/command", r#"{"id":"c-3"}"#, 3);
        assert_eq!((incoming.hold(again, &handle), incoming.hold(behind.clone(), &handle)), (None, None));
        assert!(incoming.next_held(&handle).is_none());
        drop(inbox.recv().await.unwrap());
        assert!(incoming.hold(behind, &handle).is_none(), "in the order of arrival");
        assert_eq!(incoming.next_held(&handle).unwrap().pkid, 2);
        assert_eq!(incoming.next_held(&handle).unwrap().pkid, 3);
    }

    #[tokio::test]
    async fn odd_topics_and_bodies_do_no_harm() {
        let (handle, mut inbox, mut plans) = CommandHandle::for_tests(8);
        let mut incoming = incoming();
        let (p, ack) = publish("derd/gw/device/a/b/command", "{}", 1);
        assert_eq!(incoming.accept(&p, ack, &handle, NOW), Err(()));
        assert_eq!(pkid(incoming.next_ack()), Some(1));
        let (p, ack) = publish("derd/gw/device/battery/command", "", 2);
        assert_eq!(incoming.accept(&p, ack, &handle, NOW), Ok(None));
        assert!(inbox.recv().await.unwrap().body.is_empty(), "the command room says what is wrong with it");
        let (p, ack) = publish("derd/gw/plan/p1/set", "", 3);
        assert_eq!(incoming.accept(&p, ack, &handle, NOW), Ok(None));
        assert_eq!(plans.recv().await.unwrap().body, None);
    }
}
