//! One connection's life.

mod fates;

use super::connect::{self, Signal};
use super::desk::{Answer, Desk};
use super::flights::Flights;
use super::incoming::{BusyReply, Incoming};
use super::outbox::Post;
use super::sender::{Cargo, Limits, Message, NotSent, Sender};
use super::statements::Statements;
use super::task::{Core, SIZE_EVERY, optional};
use super::telemetry::Room;
use crate::model::{EventState, Mono, Origin, RowNo, Severity, Stored, Timestamp, UplinkMode};
use crate::runtime::Shutdown;
use crate::wire::sample_json;
use rumqttc::{
    ConnectionError, Publish, PublishOptions, QoS, RetainForwardRule, SubAck, SubscribeFilter, SubscribeNoticeError,
    SubscribeReasonCode,
};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep};

/// Done samples are told to the store after this at the latest.
const TELL_AFTER: Duration = Duration::from_millis(200);
/// Between two backfill messages: 20 a second leave room for everything else on a slow line.
const PACE: Duration = Duration::from_millis(50);
/// Retained messages about ourselves under way at a time.
const MOST_STATEMENTS: usize = 16;
/// After this a connection was a good one: the next outage begins with short pauses again.
const GOOD_AFTER: Duration = Duration::from_secs(10);
/// For the last results, and for the goodbye, on shutdown.
const GRACE: Duration = Duration::from_millis(1500);
/// How often a refused subscription is tried again.
const SUBSCRIBE_EVERY: Duration = Duration::from_secs(60);
/// After this people are told that a broker acknowledges nothing.
const SILENT: Duration = Duration::from_secs(15);
/// A broker that acknowledges nothing for so many keep alives is given up.
const SILENT_KEEP_ALIVES: u32 = 3;

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    Shutdown,
    Lost { reason: String, was_good: bool },
}

/// Connect and serve until the connection ends.
pub(super) async fn run(core: &mut Core, shutdown: &mut Shutdown) -> End {
    let lost = |reason| End::Lost { reason, was_good: false };
    let url = core.parts.settings.url.clone();
    let clock = core.parts.clock.clone();
    let built = connect::client(&core.parts.settings, &core.parts.gateway, &core.topics).await;
    let (client, events) = match built {
        Ok(built) => built,
        Err(error) => return lost(error.to_string()),
    };
    let (tx, mut signals) = mpsc::channel(32);
    let mut drive = std::pin::pin!(connect::drive(events, tx));
    let first = core.idle(async {
        tokio::select! {
            error = &mut drive => Err(lost(connect::describe(&error, &url, clock.state()))),
            signal = signals.recv() => Ok(signal),
            () = shutdown.wait() => Err(End::Shutdown),
        }
    });
    let ack = match first.await {
        Ok(Some(Signal::Up(ack))) => ack,
        Ok(_) => return lost("the broker spoke before it accepted the connection".to_owned()),
        Err(end) => return end,
    };
    let mut session = Session::new(core, Sender::new(client, Limits::of(&ack)));
    let error = session.serve(drive.as_mut(), &mut signals, shutdown).await;
    let end = match error {
        None => {
            session.say_goodbye(drive.as_mut()).await;
            End::Shutdown
        }
        Some(reason) => End::Lost { reason, was_good: session.was_good() },
    };
    session.close().await;
    end
}

struct Session<'a> {
    core: &'a mut Core,
    sender: Sender,
    subscribing: Flights<(), Result<SubAck, SubscribeNoticeError>>,
    incoming: Incoming,
    statements: Statements,
    desk: Desk,
    tell: Option<Pin<Box<Sleep>>>,
    pace: Option<Pin<Box<Sleep>>>,
    began: Mono,
    /// When the broker last acknowledged something, or nothing was under way.
    last_heard: Mono,
    /// When the broker last took something; people are told once a second.
    last_ok: Option<Timestamp>,
    /// The subscription that the broker refused, in words.
    deaf: Option<String>,
    is_stopping: bool,
}

impl<'a> Session<'a> {
    /// A connection stands: say who we are, listen, and look at what is waiting.
    fn new(core: &'a mut Core, sender: Sender) -> Self {
        let now = core.parts.clock.mono();
        let name = core.parts.settings.name.clone();
        let ranks = core.parts.settings.ranks.clone();
        tracing::info!(uplink = %name, "connected to the broker");
        // The listener was there before: whatever gets a row from here on will be heard.
        core.telemetry.connected(RowNo(core.parts.store.next_row.load(Ordering::SeqCst)));
        core.outbox.connected();
        let Core { refusals, topics, .. } = &mut *core;
        refusals.retry_all(|topic| topics.is_ours(topic));
        let mut session = Self {
            incoming: Incoming::new(core.topics.clone(), Origin { uplink: name, ranks }),
            core,
            sender,
            subscribing: Flights::new(),
            statements: Statements::default(),
            desk: Desk::default(),
            tell: None,
            pace: None,
            began: now,
            last_heard: now,
            last_ok: None,
            deaf: None,
            is_stopping: false,
        };
        session.desk.wants_size = true;
        session.subscribe();
        session.statements.refresh(&session.core.parts, &session.core.topics);
        session
    }

    fn subscribe(&mut self) {
        // Retained messages are told apart from fresh ones, and are not repeated at each reconnect.
        let filters = self.core.topics.filters().map(|filter| {
            let mut filter = SubscribeFilter::new(filter, QoS::AtLeastOnce);
            filter.preserve_retain = true;
            filter.retain_forward_rule = RetainForwardRule::OnNewSubscribe;
            filter
        });
        match self.sender.client().try_subscribe_many_tracked(filters) {
            Ok(notice) => self.subscribing.push((), notice.wait_async()),
            Err(error) => self.deaf = Some(format!("cannot subscribe to commands: {error}")),
        }
    }

    /// Serve until the connection ends (`Some`: why) or the shutdown's word has been obeyed (`None`).
    async fn serve(
        &mut self,
        mut drive: Pin<&mut impl Future<Output = ConnectionError>>,
        signals: &mut mpsc::Receiver<Signal>,
        shutdown: &mut Shutdown,
    ) -> Option<String> {
        let mut outbox_changed = self.core.parts.store.outbox_changed();
        let mut keep_house = tokio::time::interval(Duration::from_secs(1));
        keep_house.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut grace = None;
        let mut turns = 0u64;
        let mut store_is_gone = false;
        loop {
            self.pump();
            if self.is_stopping && self.is_quiet() {
                return None;
            }
            tokio::select! {
                error = &mut drive => {
                    let parts = &self.core.parts;
                    return Some(connect::describe(&error, &parts.settings.url, parts.clock.state()));
                }
                Some(signal) = signals.recv() => self.heard(signal),
                (topic, cargo, fate) = self.sender.next() => self.settle(&topic, cargo, &fate),
                ((), ack) = self.subscribing.next() => self.subscribed(&ack),
                () = self.incoming.answered() => {}
                stored = self.core.live.recv(), if !store_is_gone => match stored {
                    Ok(stored) => self.live(&stored),
                    Err(RecvError::Lagged(_)) => self.core.telemetry.lagged(),
                    Err(RecvError::Closed) => store_is_gone = true,
                },
                changed = outbox_changed.changed(), if !store_is_gone => match changed {
                    Ok(()) => self.core.outbox.look(),
                    Err(_) => store_is_gone = true,
                },
                answer = self.desk.answer() => self.answered(answer),
                () = optional(&mut self.tell) => {
                    self.tell = None;
                    self.desk.tell_now = true;
                }
                () = optional(&mut self.pace) => self.pace = None,
                _ = keep_house.tick() => {
                    turns += 1;
                    if self.keep_house(turns) {
                        return Some("the broker acknowledges nothing any more".to_owned());
                    }
                }
                () = shutdown.wait(), if !self.is_stopping => {
                    self.is_stopping = true;
                    self.core.outbox.look();
                    grace = Some(Box::pin(sleep(GRACE)));
                }
                () = optional(&mut grace) => return None,
            }
        }
    }

    /// Send whatever may be sent, and ask the store for what is wanted.
    fn pump(&mut self) {
        while self.sender.count(|c| *c == Cargo::Statement) < MOST_STATEMENTS {
            let Some((topic, payload)) = self.statements.next() else { break };
            if !self.state(&topic, &payload) {
                self.statements.put_back((topic, payload));
                break;
            }
        }
        let batches = |c: &Cargo| matches!(c, Cargo::Batch(..));
        if !self.is_stopping && self.pace.is_none() && self.sender.count(batches) < self.sender.limits().batches {
            self.send_batch();
        }
        while let Some(publish) = self.incoming.next_held(&self.core.parts.commands) {
            self.take_in(&publish);
        }
        while let Some(ack) = self.incoming.next_ack() {
            if let Err(error) = self.sender.client().try_manual_ack(ack) {
                // The broker delivers the message again on the next connection; its id is known by then.
                tracing::warn!(uplink = %self.core.parts.settings.name, %error, "a command was not acknowledged");
            }
        }
        if self.core.telemetry.done_count() > 0 && self.tell.is_none() && !self.desk.tell_now {
            self.tell = Some(Box::pin(sleep(TELL_AFTER)));
        }
        self.desk.tell_now |= self.is_stopping;
        self.desk.begin(self.core, !self.is_stopping);
        let is_behind = self.core.telemetry.has_backlog() || self.sender.count(batches) > 0;
        let silent = self.core.parts.clock.mono().since(self.last_heard) > SILENT;
        let silent = silent.then(|| "the broker acknowledges nothing at the moment".to_owned());
        let error = silent.or_else(|| self.deaf.clone()).or_else(|| self.core.refusals.error());
        self.core.say(|s| {
            s.mode = if is_behind { UplinkMode::CatchUp } else { UplinkMode::Live };
            s.error = error;
        });
    }

    fn is_quiet(&self) -> bool {
        let core = &self.core;
        self.sender.is_empty()
            && self.desk.is_idle()
            && core.outbox.is_quiet()
            && core.events.is_empty()
            && core.telemetry.done_count() == 0
    }

    fn live(&mut self, stored: &Stored) {
        let device = &stored.sample.device;
        let Core { topics, refusals, telemetry, .. } = &mut *self.core;
        let topic = topics.device(device, "telemetry");
        let under_way = self.sender.count(|c| matches!(c, Cargo::Live(..)));
        let room = if refusals.rests(&topic) {
            if refusals.rests(&topics.device(device, "backfill")) { Room::Held } else { Room::Later }
        } else if self.is_stopping || under_way >= self.sender.limits().live {
            Room::Later
        } else {
            Room::Now
        };
        if !telemetry.live(stored, room) {
            return;
        }
        let payload = sample_json(&stored.sample).to_string().into_bytes();
        let cargo = Cargo::Live(device.clone(), stored.row);
        self.send(Message { topic, payload, retain: false, correlation: None, cargo });
    }

    fn send_batch(&mut self) {
        let Some(batch) = self.core.telemetry.next_batch() else { return };
        let topic = self.core.topics.device(&batch.device, "backfill");
        let cargo = Cargo::Batch(batch.device, batch.rows);
        if self.core.refusals.rests(&topic) {
            self.refuse(cargo);
        } else {
            self.send(Message { topic, payload: batch.payload, retain: false, correlation: None, cargo });
            self.pace = Some(Box::pin(sleep(PACE)));
        }
    }

    /// Say something retained about ourselves. `false`: no room now.
    fn state(&mut self, topic: &str, payload: &str) -> bool {
        let payload = payload.as_bytes().to_vec();
        let (topic, cargo) = (topic.to_owned(), Cargo::Statement);
        self.send(Message { topic, payload, retain: true, correlation: None, cargo })
    }

    /// `false`: there was no room; the cargo is where it came from.
    fn send(&mut self, message: Message) -> bool {
        let topic = message.topic.clone();
        match self.sender.send(message) {
            Ok(()) => true,
            Err(NotSent::Never(cargo, reason)) => {
                self.refused(&topic, cargo, &reason, false);
                true
            }
            Err(NotSent::NotNow(cargo)) => {
                self.lost(cargo);
                false
            }
        }
    }

    fn heard(&mut self, signal: Signal) {
        let Signal::Message(publish) = signal else { return };
        if let Some(publish) = self.incoming.hold(*publish, &self.core.parts.commands) {
            self.take_in(&publish);
        }
    }

    fn take_in(&mut self, publish: &Publish) {
        let now = self.core.parts.clock.now();
        let ack = self.sender.client().prepare_ack(publish);
        match self.incoming.accept(publish, ack, &self.core.parts.commands, now) {
            Ok(None) => {}
            Ok(Some(BusyReply { seq, topic, payload, correlation, reply_to })) => {
                if let Some(topic) = reply_to {
                    let (payload, correlation) = (payload.clone(), correlation.clone());
                    self.send(Message { topic, payload, retain: false, correlation, cargo: Cargo::Statement });
                }
                self.send(Message { topic, payload, retain: false, correlation: None, cargo: Cargo::Busy(seq) });
            }
            Err(()) => self.core.odd_messages += 1,
        }
    }

    fn subscribed(&mut self, ack: &Result<SubAck, SubscribeNoticeError>) {
        let Ok(ack) = ack else { return };
        let filters = self.core.topics.filters();
        let refused: Vec<_> = (ack.return_codes.iter().zip(&filters))
            .filter(|(code, _)| !matches!(code, SubscribeReasonCode::Success(_)))
            .map(|(code, filter)| format!("{filter} ({code:?})"))
            .collect();
        if !refused.is_empty() {
            let text = format!("the broker refuses our subscription to {}", refused.join(", "));
            if self.deaf.replace(text.clone()).is_none() {
                tracing::warn!(uplink = %self.core.parts.settings.name, "{text}");
                self.core.event("mqtt_subscribe_refused", Severity::Warning, EventState::Raised, text);
            }
        } else if self.deaf.take().is_some() {
            let text = "the broker takes our subscriptions now".to_owned();
            self.core.event("mqtt_subscribe_refused", Severity::Info, EventState::Cleared, text);
        }
    }

    fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Told(Ok(())) => {}
            Answer::Told(Err(_)) => self.desk.rests = true,
            Answer::Outbox(Ok(items)) => {
                let refusals = &self.core.refusals;
                let (posts, given_up) = self.core.outbox.page(&items, |topic| refusals.rests(topic));
                if given_up > 0 {
                    tracing::warn!(uplink = %self.core.parts.settings.name, given_up, "refused notices were given up");
                }
                for Post { id, topic, payload, correlation, is_reply } in posts {
                    let cargo = Cargo::Post { id, is_reply };
                    self.send(Message { topic, payload, retain: false, correlation, cargo });
                }
            }
            Answer::Outbox(Err(_)) => {
                self.desk.rests = true;
                self.core.outbox.look();
            }
            Answer::Page(Ok(page)) => {
                let Core { telemetry, refusals, topics, .. } = &mut *self.core;
                let max = self.sender.limits().batch_bytes(topics.longest());
                let too_large = telemetry.page(&page, max, |device| refusals.rests(&topics.device(device, "backfill")));
                for device in too_large {
                    let topic = self.core.topics.device(&device, "backfill");
                    let reason = "a sample is larger than the broker's maximum packet size";
                    self.refused(&topic, Cargo::Statement, reason, false);
                }
            }
            Answer::Page(Err(_)) => {
                self.desk.rests = true;
                self.core.telemetry.ask_again();
            }
            Answer::Size(Ok((rows, oldest))) => {
                self.core.say(|s| (s.backlog_rows, s.oldest_unsent) = (rows, oldest));
            }
            Answer::Size(Err(_)) => {}
        }
    }

    /// Once a second. `true`: the broker is silent, give the connection up.
    fn keep_house(&mut self, turns: u64) -> bool {
        let now = self.core.parts.clock.mono();
        self.desk.rests = false;
        let rested = self.core.refusals.rested(now);
        if !rested.is_empty() {
            for topic in rested.iter().filter(|topic| !self.core.topics.is_ours(topic)) {
                self.core.refusals.forget(topic);
            }
            self.statements.say_again(&rested, &self.core.parts, &self.core.topics);
            for (spec, _) in &self.core.parts.devices {
                if rested.contains(&self.core.topics.device(&spec.id, "backfill")) {
                    self.core.telemetry.retry(&spec.id);
                }
            }
            self.core.outbox.retry();
        }
        self.statements.refresh(&self.core.parts, &self.core.topics);
        if self.deaf.is_some() && turns.is_multiple_of(SUBSCRIBE_EVERY.as_secs()) {
            self.subscribe();
        }
        self.desk.wants_size |= self.core.has_backlog() && turns.is_multiple_of(SIZE_EVERY.as_secs());
        self.tell_last_ok();
        if self.sender.is_empty() {
            self.last_heard = now;
        }
        now.since(self.last_heard) > self.core.parts.settings.keep_alive * SILENT_KEEP_ALIVES
    }

    fn tell_last_ok(&self) {
        if let Some(at) = self.last_ok {
            self.core.say(|s| s.last_ok_at = Some(at));
        }
    }

    fn was_good(&self) -> bool {
        self.core.parts.clock.mono().since(self.began) >= GOOD_AFTER
    }

    /// Say that we go, and go.
    async fn say_goodbye(&mut self, mut drive: Pin<&mut impl Future<Output = ConnectionError>>) {
        let topic = self.core.topics.status();
        let options = PublishOptions::new(QoS::AtLeastOnce).retained();
        let client = self.sender.client().clone();
        let goodbye = async {
            if let Ok(notice) = client.try_publish_tracked(topic, super::announce::OFFLINE, options) {
                // Whatever became of it: there is nothing more to do.
                let _heard = notice.wait_async().await.is_ok();
            }
            if client.try_disconnect_now().is_ok() {
                std::future::pending::<()>().await;
            }
        };
        let ended = tokio::time::timeout(GRACE, async {
            tokio::select! {
                _ended = &mut drive => {}
                () = goodbye => {}
            }
        });
        if ended.await.is_err() {
            tracing::warn!(uplink = %self.core.parts.settings.name, "the broker did not answer our goodbye");
        }
    }

    /// The connection is gone: what the broker still acknowledged counts, and the store is told.
    async fn close(&mut self) {
        for (topic, cargo, fate) in self.sender.take_ready() {
            self.settle(&topic, cargo, &fate);
        }
        self.tell_last_ok();
        let settle = async {
            loop {
                self.desk.tell_now = true;
                self.desk.begin_telling(self.core);
                if self.desk.is_idle() {
                    break;
                }
                // A page or notices that come now are asked for again on the next connection.
                drop(self.desk.answer().await);
            }
        };
        if tokio::time::timeout(GRACE, settle).await.is_err() {
            // They are sent again: at least once is what is promised.
            tracing::warn!(uplink = %self.core.parts.settings.name, "the store was not told what the broker has");
        }
        self.core.telemetry.disconnected();
    }
}
