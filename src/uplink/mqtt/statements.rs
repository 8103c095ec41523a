//! The retained messages about ourselves: what is to be said (again).

use super::announce;
use super::topics::Topics;
use super::{MqttParts, MqttSettings};
use crate::model::{ClockState, Point, RemoteControl};
use serde_json::Value;
use std::collections::{HashSet, VecDeque};

/// What this connection has said, and what it still has to say.
#[derive(Debug, Default)]
pub(super) struct Statements {
    queue: VecDeque<(String, String)>,
    online: Option<(ClockState, RemoteControl)>,
    infos: Vec<Option<Value>>,
    discovered: HashSet<(usize, Point)>,
}

impl Statements {
    /// Look at the clock, the owner's word and the devices, and queue what differs from what was said.
    pub(super) fn refresh(&mut self, parts: &MqttParts, topics: &Topics) {
        let (clock, remote) = (parts.clock.state(), parts.control.borrow().remote);
        if self.online != Some((clock, remote)) {
            self.online = Some((clock, remote));
            self.queue.push_back((topics.status(), announce::online(parts.version, clock, parts.started, remote)));
        }
        self.infos.resize(parts.devices.len(), None);
        for (at, ((spec, status), said)) in parts.devices.iter().zip(&mut self.infos).enumerate() {
            let status = status.borrow();
            let info = announce::info(spec, &status);
            if said.as_ref() != Some(&info) {
                self.queue.push_back((topics.device(&spec.id, "info"), info.to_string()));
                *said = Some(info);
                // Discovery shows maker and model: say it again with the new ones.
                self.discovered.retain(|(device, _)| *device != at);
            }
            let MqttSettings { home_assistant, .. } = parts.settings;
            for (point, _) in status.last.iter().filter(|_| home_assistant).flat_map(|sample| &sample.points) {
                if self.discovered.contains(&(at, point.clone())) {
                    continue;
                }
                self.discovered.insert((at, point.clone()));
                self.queue.extend(announce::discovery(&parts.gateway, topics, spec, &status.info, point));
            }
        }
    }

    /// The next to be said: topic and payload.
    pub(super) fn next(&mut self) -> Option<(String, String)> {
        self.queue.pop_front()
    }

    /// The broker refused these topics and may be tried again: what belongs there is said again by the next
    /// [`Self::refresh`].
    pub(super) fn say_again(&mut self, refused: &[String], parts: &MqttParts, topics: &Topics) {
        if refused.contains(&topics.status()) {
            self.online = None;
        }
        for ((spec, _), said) in parts.devices.iter().zip(&mut self.infos) {
            if refused.contains(&topics.device(&spec.id, "info")) {
                *said = None;
            }
        }
        if refused.iter().any(|topic| topic.starts_with(announce::DISCOVERY)) {
            self.discovered.clear();
        }
    }

    /// It could not be said now.
    pub(super) fn put_back(&mut self, statement: (String, String)) {
        self.queue.push_front(statement);
    }
}
