//! Results, events and plan answers: in order, at least once. Pure.

use super::topics::Topics;
use crate::model::UplinkName;
use crate::store::{NoticeBody, OutboxItem};
use crate::wire::{event_json, result_json};
use std::collections::{BTreeMap, BTreeSet};

/// Notices under way at a time.
const MOST_UNDER_WAY: usize = 16;
/// Notices read from the store at a time.
const PAGE: usize = 32;
/// Refused notices that wait for a better time; beyond this the oldest are given up.
const MOST_HELD: usize = 256;

/// One message of a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Post {
    pub(super) id: u64,
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) correlation: Option<Vec<u8>>,
    /// To the sender's own response topic: its fate does not count.
    pub(super) is_reply: bool,
}

/// The state of all notices of one uplink.
#[derive(Debug)]
pub(super) struct Outbox {
    topics: Topics,
    uplink: UplinkName,
    /// Messages of a notice that are not answered yet, and whether one that counts was refused.
    under_way: BTreeMap<u64, (u8, bool)>,
    held: BTreeSet<u64>,
    done: Vec<u64>,
    wants_page: bool,
    /// The last page was cut short: there is more when something moves.
    has_more: bool,
}

impl Outbox {
    pub(super) const fn new(topics: Topics, uplink: UplinkName) -> Self {
        Self {
            topics,
            uplink,
            under_way: BTreeMap::new(),
            held: BTreeSet::new(),
            done: Vec::new(),
            wants_page: false,
            has_more: false,
        }
    }

    /// A connection stands: everything that is not done goes out (again).
    pub(super) fn connected(&mut self) {
        self.under_way.clear();
        self.held.clear();
        self.wants_page = true;
    }

    /// The store has something new, or something refused may be tried again.
    pub(super) fn look(&mut self) {
        self.wants_page = true;
    }

    /// Refused notices may be tried again.
    pub(super) fn retry(&mut self) {
        if !self.held.is_empty() {
            self.held.clear();
            self.wants_page = true;
        }
    }

    /// How many notices to ask the store for, if any. The answer goes to [`Self::page`], before the store is told of anything
    /// that is done from now on.
    pub(super) fn ask(&mut self) -> Option<usize> {
        if !self.wants_page || self.under_way.len() >= MOST_UNDER_WAY {
            return None;
        }
        self.wants_page = false;
        Some(self.limit())
    }

    fn limit(&self) -> usize {
        PAGE + self.under_way.len() + self.held.len()
    }

    /// The store's answer becomes messages, in order. A notice whose topic `rests` waits, and so do those behind it with
    /// the same topic. Returns the messages and how many notices were given up.
    pub(super) fn page(&mut self, items: &[OutboxItem], rests: impl Fn(&str) -> bool) -> (Vec<Post>, usize) {
        self.has_more = items.len() >= self.limit();
        let mut posts = Vec::new();
        for item in items {
            let id = item.notice.id;
            if self.under_way.contains_key(&id) || self.held.contains(&id) || self.done.contains(&id) {
                continue;
            }
            if self.under_way.len() >= MOST_UNDER_WAY {
                self.has_more = true;
                break;
            }
            let of_notice = self.posts(item);
            match of_notice.first() {
                // Nobody can be told (another uplink's, or no topic can be named): done.
                None => self.done.push(id),
                Some(main) if rests(&main.topic) => {
                    self.held.insert(id);
                }
                Some(_) => {
                    self.under_way.insert(id, (u8::try_from(of_notice.len()).unwrap_or(u8::MAX), false));
                    posts.extend(of_notice);
                }
            }
        }
        let mut given_up = 0;
        while self.held.len() > MOST_HELD {
            self.done.extend(self.held.pop_first());
            given_up += 1;
        }
        (posts, given_up)
    }

    /// The broker has a message (or it was a reply, whose fate does not count).
    pub(super) fn settled(&mut self, id: u64) {
        self.answered(id, false);
    }

    /// The broker refused a message.
    pub(super) fn refused(&mut self, id: u64, is_reply: bool) {
        self.answered(id, !is_reply);
    }

    /// Not sent after all: it is asked for again.
    pub(super) fn lost(&mut self, id: u64) {
        self.under_way.remove(&id);
        self.wants_page = true;
    }

    fn answered(&mut self, id: u64, is_refused: bool) {
        let Some((open, was_refused)) = self.under_way.get_mut(&id) else { return };
        *open = open.saturating_sub(1);
        *was_refused |= is_refused;
        if *open == 0 {
            if *was_refused {
                self.held.insert(id);
            } else {
                self.done.push(id);
            }
            self.under_way.remove(&id);
        }
        if self.has_more {
            self.has_more = false;
            self.wants_page = true;
        }
    }

    /// Notices to be told to the store.
    pub(super) fn take_done(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.done)
    }

    /// Is nothing under way, to be asked or to be told.
    pub(super) fn is_quiet(&self) -> bool {
        self.under_way.is_empty() && self.done.is_empty() && !self.wants_page
    }

    fn posts(&self, item: &OutboxItem) -> Vec<Post> {
        let id = item.notice.id;
        let post = |topic: String, payload: &str| Post {
            id,
            topic,
            payload: payload.as_bytes().to_vec(),
            correlation: None,
            is_reply: false,
        };
        match &item.notice.body {
            NoticeBody::Event(event) => vec![post(self.topics.event(), &event_json(id, event).to_string())],
            NoticeBody::Plan { uplink, plan, answer } if *uplink == self.uplink => {
                self.topics.plan_result(plan).map(|topic| post(topic, &answer.to_string())).into_iter().collect()
            }
            NoticeBody::Result(result) if result.uplink == self.uplink => {
                let payload = result_json(result).to_string();
                let main = post(self.topics.result(result.device.as_ref()), &payload);
                let correlation = result.reply_to.correlation.clone();
                let mut posts = vec![main];
                match &result.reply_to.topic {
                    Some(topic) if *topic == posts[0].topic => posts[0].correlation = correlation,
                    Some(topic) if self.topics.may_reply_to(topic) => {
                        posts.push(Post { correlation, is_reply: true, ..post(topic.clone(), &payload) });
                    }
                    Some(_) | None => {}
                }
                posts
            }
            NoticeBody::Plan { .. } | NoticeBody::Result(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{event, result};
    use super::*;
    use crate::model::{ReplyTo, Timestamp};
    use crate::store::Notice;

    fn outbox() -> Outbox {
        let mut outbox = Outbox::new(Topics::new(&"gw".parse().unwrap()), "mqtt".parse().unwrap());
        outbox.connected();
        outbox
    }

    fn item(id: u64, body: NoticeBody) -> OutboxItem {
        OutboxItem { notice: Notice { id, body }, ts: Timestamp::from_ms(0) }
    }

    fn topics_of(posts: &[Post]) -> Vec<(u64, &str)> {
        posts.iter().map(|p| (p.id, p.topic.as_str())).collect()
    }

    #[test]
    fn each_notice_has_its_topic() {
        let mut o = outbox();
        assert_eq!(o.ask(), Some(PAGE));
        let mut with_reply = result("mqtt", Some("battery"));
        with_reply.reply_to = ReplyTo { topic: Some("acme/r".into()), correlation: Some(vec![1, 2]) };
        let mut to_own_command = result("mqtt", None);
        to_own_command.reply_to.topic = Some("derd/gw/site/command".into());
        let plan = |uplink: &str, plan: &str| NoticeBody::Plan {
            uplink: uplink.parse().unwrap(),
            plan: plan.into(),
            answer: serde_json::json!({"state": "accepted"}),
        };
        let (posts, given_up) = o.page(
            &[
                item(1, NoticeBody::Result(with_reply)),
                item(2, NoticeBody::Result(to_own_command)),
                item(3, NoticeBody::Event(event())),
                item(4, plan("mqtt", "p1")),
                item(5, plan("mqtt", "a/b")),
                item(6, plan("other", "p1")),
            ],
            |_| false,
        );
        assert_eq!(given_up, 0);
        assert_eq!(
            topics_of(&posts),
            [
                (1, "derd/gw/device/battery/command/result"),
                (1, "acme/r"),
                (2, "derd/gw/site/command/result"),
                (3, "derd/gw/event"),
                (4, "derd/gw/plan/p1/result"),
            ]
        );
        assert_eq!((posts[0].correlation.as_deref(), posts[1].correlation.as_deref()), (None, Some(&[1u8, 2][..])));
        assert_eq!(o.take_done(), [5, 6], "nobody can be told");
        o.settled(1);
        assert!(o.take_done().is_empty(), "the reply is still under way");
        o.refused(1, true);
        assert_eq!(o.take_done(), [1], "a refused reply does not count");
        for id in 2..=4 {
            o.settled(id);
        }
        assert_eq!(o.take_done(), [2, 3, 4]);
        assert!(o.is_quiet());
    }

    #[test]
    fn refused_notices_wait_and_keep_their_order() {
        let mut o = outbox();
        o.ask();
        let items: Vec<_> = (1..=3).map(|n| item(n, NoticeBody::Result(result("mqtt", Some("pv"))))).collect();
        assert_eq!(o.page(&items[..2], |_| false).0.len(), 2);
        o.refused(1, false);
        o.refused(2, false);
        o.look();
        assert_eq!(o.ask(), Some(PAGE + 2));
        assert!(o.page(&items, |_| true).0.is_empty());
        o.retry();
        assert!(o.ask().is_some());
        let again: Vec<u64> = o.page(&items, |_| false).0.iter().map(|p| p.id).collect();
        assert_eq!(again, [1, 2, 3]);
    }

    #[test]
    fn the_window_is_bounded_and_the_rest_follows() {
        let mut o = outbox();
        o.ask();
        let items: Vec<_> = (0..20).map(|n| item(n, NoticeBody::Event(event()))).collect();
        assert_eq!(o.page(&items, |_| false).0.len(), MOST_UNDER_WAY);
        assert_eq!(o.ask(), None);
        o.settled(0);
        assert!(o.ask().is_some());
        let posts = o.page(&items, |_| false).0;
        assert_eq!(topics_of(&posts), [(16, "derd/gw/event")], "0 is done but not yet told");
    }

    #[test]
    fn too_many_refused_are_given_up_from_the_oldest() {
        let mut o = outbox();
        o.ask();
        let items: Vec<_> = (0..260).map(|n| item(n, NoticeBody::Event(event()))).collect();
        let (posts, given_up) = o.page(&items, |_| true);
        assert_eq!((posts.len(), given_up), (0, 4));
        assert_eq!(o.take_done(), [0, 1, 2, 3]);
    }
}
