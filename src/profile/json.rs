//! Devices read as JSON over HTTP: one request for each path, values by JSON pointer.

use super::driver::Found;
use super::spec::{ChargerControl, Doc, Pointer, Told};
use super::{Answer, Check, HttpMethod, Program, Refusal, Request, Step, charger, map};
use crate::model::{Capabilities, Demand, DeviceInfo, Drift, Field, NullReason, Point};
use serde_json::{Map, Value};
use std::sync::Arc;

/// One device that is read as JSON.
#[derive(Debug)]
pub(super) struct Device {
    doc: Arc<Doc>,
    /// Paths that discovery asks for, and how far it is.
    todo: Vec<usize>,
    asked: usize,
    /// Answers of discovery, by path.
    seen: Vec<(usize, Value)>,
    /// Paths that are polled.
    polled: Vec<usize>,
    info: DeviceInfo,
    max_current_a: Option<f64>,
    /// Where it tells its serial number, and that number, where this is a plain key.
    serial: Option<(usize, String, Value)>,
    phase_switch: bool,
    baseline: Option<Map<String, Value>>,
}

impl Device {
    pub(super) fn new(doc: Arc<Doc>) -> Self {
        let mut polled: Vec<usize> = Vec::new();
        let entries = doc.entries.iter();
        for pointer in entries.flat_map(|e| e.terms.iter().map(|(p, _)| p).chain(e.when.iter().map(|(p, _)| p))) {
            if !polled.contains(&pointer.from) {
                polled.push(pointer.from);
            }
        }
        Self {
            doc,
            todo: Vec::new(),
            asked: 0,
            seen: Vec::new(),
            polled,
            info: DeviceInfo::default(),
            max_current_a: None,
            serial: None,
            phase_switch: false,
            baseline: None,
        }
    }

    fn get(&self, path: usize) -> Request {
        get(&self.doc, path)
    }

    fn told(&self) -> [Option<&Told<Pointer>>; 4] {
        let id = &self.doc.identity;
        [id.maker.as_ref(), id.model.as_ref(), id.serial.as_ref(), id.firmware.as_ref()]
    }

    pub(super) fn begin(&mut self) -> Step {
        let told = self.told().into_iter().flatten().filter_map(|t| match t {
            Told::Read(p) => Some(p.from),
            Told::Fixed(_) => None,
        });
        let limit = self.doc.charger.iter().filter_map(|c| c.max_current.as_ref()).map(|p| p.from);
        // Whether it can switch phases shows in its settings.
        let settings = self.doc.charger.iter().filter(|c| !c.phases.is_empty()).map(|c| c.read);
        let identity = self.doc.identify.iter().map(|(p, _)| p.from);
        let mut todo: Vec<usize> = identity.chain(told).chain(limit).chain(settings).collect();
        todo.sort_unstable();
        todo.dedup();
        self.todo = todo;
        self.seen.clear();
        self.next(0)
    }

    fn next(&mut self, n: usize) -> Step {
        self.asked = n;
        match self.todo.get(n) {
            Some(path) => Step::Ask(self.get(*path)),
            None => self.settle(),
        }
    }

    pub(super) fn resume(&mut self, answer: Result<Answer, Refusal>) -> Step {
        if let (Some(path), Ok(Answer::Json(value))) = (self.todo.get(self.asked), answer) {
            self.seen.push((*path, value));
        }
        self.next(self.asked + 1)
    }

    fn seen(&self, pointer: &Pointer) -> Option<&Value> {
        self.seen.iter().find(|(path, _)| *path == pointer.from)?.1.pointer(&pointer.pointer)
    }

    fn settle(&mut self) -> Step {
        for (pointer, wanted) in &self.doc.identify {
            let found = self.seen(pointer);
            if !found.is_some_and(|v| super::program::same(v, wanted)) {
                let found = found.map_or_else(|| "nothing".to_owned(), ToString::to_string);
                let (path, at) = (&self.doc.paths[pointer.from], &pointer.pointer);
                return Step::NotFound(format!("{path} gives {found} at {at}, expected {wanted}"));
            }
        }
        let [maker, model, serial, firmware] = self.told().map(|told| match told? {
            Told::Fixed(text) => Some(text.clone()),
            Told::Read(pointer) => self.seen(pointer).and_then(plain),
        });
        self.info = DeviceInfo { maker, model, serial, firmware };
        self.max_current_a = self.doc.charger.as_ref().map(|c| {
            let told = c.max_current.as_ref().and_then(|p| self.seen(p)).and_then(number);
            told.filter(|a| *a >= c.min_current_a && *a <= 80.0).unwrap_or(c.max_current_a)
        });
        self.serial = match &self.doc.identity.serial {
            Some(Told::Read(pointer)) => {
                let key = pointer.pointer.strip_prefix('/').filter(|k| !k.contains(['/', '~']));
                let value = self.seen(pointer).filter(|v| plain(v).is_some());
                key.zip(value).map(|(key, value)| (pointer.from, key.to_owned(), value.clone()))
            }
            _ => None,
        };
        self.phase_switch = self.doc.charger.as_ref().is_some_and(|control| {
            let settings = self.seen.iter().find(|(path, _)| *path == control.read);
            settings.is_some_and(|(_, document)| charger::can_switch(control, document))
        });
        self.seen.clear();
        Step::Ready
    }

    pub(super) fn found(&self) -> Found {
        let mut capabilities = Capabilities::default();
        if let Some(control) = &self.doc.charger {
            capabilities.actions = vec!["start", "stop", "set_max_current", "auto"];
            capabilities.min_current_a = Some(control.min_current_a);
            capabilities.max_current_a = self.max_current_a;
            capabilities.phase_switch = self.phase_switch;
        }
        Found {
            info: self.info.clone(),
            capabilities,
            reads: self.polled.iter().map(|path| self.get(*path)).collect(),
            nameplate_w: self.doc.nameplate_w,
        }
    }

    pub(super) fn decode(&mut self, answers: &[Result<Answer, Refusal>]) -> Vec<(Point, Field)> {
        let value = |p: &Pointer| {
            let n = self.polled.iter().position(|path| *path == p.from)?;
            let Some(Ok(Answer::Json(document))) = answers.get(n) else { return None };
            document.pointer(&p.pointer)
        };
        let text = |p: &Pointer| value(p).and_then(plain).ok_or(NullReason::Unavailable);
        let num = |p: &Pointer| match value(p) {
            // there, and nothing in it
            Some(Value::Null) => Err(NullReason::NotImplemented),
            Some(v) => number(v).ok_or(NullReason::Unavailable),
            None => Err(NullReason::Unavailable),
        };
        self.doc.entries.iter().map(|entry| (entry.point.clone(), map::decode(entry, text, num))).collect()
    }

    fn control(&self) -> Result<&ChargerControl, String> {
        self.doc.charger.as_ref().ok_or_else(|| "this profile only reads".to_owned())
    }

    pub(super) fn baseline_reads(&self) -> Vec<Request> {
        self.control().map(|c| vec![self.get(c.read)]).unwrap_or_default()
    }

    pub(super) fn take_baseline(&self, answers: &[Result<Answer, Refusal>]) -> Result<String, String> {
        match answers {
            [Ok(Answer::Json(document)), ..] => charger::take_baseline(self.control()?, document),
            [Err(refusal), ..] => Err(format!("the present settings could not be read: {refusal}")),
            _ => Err("the present settings could not be read".to_owned()),
        }
    }

    pub(super) fn set_baseline(&mut self, json: &str) -> Result<(), String> {
        let keys = serde_json::from_str(json).map_err(|_| "the recorded baseline is not a JSON object".to_owned())?;
        self.baseline = Some(keys);
        Ok(())
    }

    pub(super) fn drift(&self, answers: &[Result<Answer, Refusal>]) -> Result<Vec<Drift>, String> {
        let recorded = self.baseline.as_ref().ok_or("there is no record")?;
        match answers {
            [Ok(Answer::Json(document)), ..] => {
                let place = &self.control()?.set;
                Ok(charger::drift(place, recorded, document))
            }
            _ => Err("the present settings could not be read".to_owned()),
        }
    }

    /// What tells this device from any other.
    pub(super) fn known_by(&self) -> Vec<Check> {
        let serial = self.serial.iter();
        serial.map(|(path, key, value)| Check::keys(self.get(*path), vec![(key.clone(), value.clone())])).collect()
    }

    pub(super) fn program(&self, demand: &Demand) -> Result<Program, String> {
        let control = self.control()?;
        let limit = self.max_current_a.unwrap_or(control.max_current_a);
        charger::program(control, self.get(control.read), demand, limit, self.baseline.as_ref())
    }
}

fn get(doc: &Doc, path: usize) -> Request {
    let path = doc.paths.get(path).cloned().unwrap_or_else(|| "/".to_owned());
    Request::Http { method: HttpMethod::Get, path, body: None, writes: false }
}

/// A single value as text: what state maps and identities are compared with.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(s) if !s.is_empty() => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}

/// A number, or a text that is one.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(n) => n.as_f64(),
        Value::String(s) => s.trim().parse().ok(),
        _ => None,
    }
    .filter(|n: &f64| n.is_finite())
}
