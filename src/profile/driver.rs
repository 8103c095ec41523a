//! One device under its profile: the same face for every protocol.

use super::gate::Gate;
use super::spec::Protocol;
use super::{Answer, Profile, Program, Refusal, Request, json, map, sunspec};
use crate::model::{Capabilities, Demand, DeviceInfo, DeviceKind, DeviceSpec, Drift, Field, Point};
use std::sync::Arc;
use std::time::Duration;

/// What discovery wants next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Ask the device this and give the answer to [`Driver::resume`].
    Ask(Request),
    /// The device is known: poll [`Driver::reads`].
    Ready,
    /// What answers is not what the profile describes: a sentence.
    NotFound(String),
}

/// What a protocol learned about a device.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Found {
    pub(super) info: DeviceInfo,
    pub(super) capabilities: Capabilities,
    pub(super) reads: Vec<Request>,
    /// Rated power that readings are held against, W.
    pub(super) nameplate_w: Option<f64>,
}

#[derive(Debug)]
enum Engine {
    SunSpec(Box<sunspec::Device>),
    Map(map::Device),
    Json(json::Device),
}

/// The state machine of one device, without I/O.
#[derive(Debug)]
pub struct Driver {
    kind: DeviceKind,
    invert: bool,
    engine: Engine,
    found: Found,
    gate: Gate,
}

impl Driver {
    pub(super) fn new(profile: &Arc<Profile>, spec: &DeviceSpec) -> Result<Self, String> {
        if !profile.kinds().contains(&spec.kind) {
            let kinds: Vec<_> = profile.kinds().iter().map(|k| k.as_str()).collect();
            return Err(format!("profile {} is for {}, not for a {}", profile.name(), kinds.join(", "), spec.kind));
        }
        let engine = match &profile.protocol {
            Protocol::SunSpec(options) => {
                Engine::SunSpec(Box::new(sunspec::Device::new(*options, spec.kind, spec.unit)))
            }
            Protocol::Map(maps) => {
                let map = maps.get(&spec.kind).ok_or_else(|| format!("no {} section", spec.kind))?;
                Engine::Map(map::Device::new(Arc::clone(map), spec.unit))
            }
            Protocol::Json(docs) => {
                let doc = docs.get(&spec.kind).ok_or_else(|| format!("no {} section", spec.kind))?;
                Engine::Json(json::Device::new(Arc::clone(doc)))
            }
        };
        Ok(Self { kind: spec.kind, invert: spec.invert, engine, found: Found::default(), gate: Gate::default() })
    }

    /// Starts discovery: after each connect and each reconnect. What was found before stays valid until the end.
    pub fn begin(&mut self) -> Step {
        let step = match &mut self.engine {
            Engine::SunSpec(d) => d.begin(),
            Engine::Map(d) => d.begin(),
            Engine::Json(d) => d.begin(),
        };
        self.note(step)
    }

    /// Goes on with the answer to the last [`Step::Ask`].
    pub fn resume(&mut self, answer: Result<Answer, Refusal>) -> Step {
        let step = match &mut self.engine {
            Engine::SunSpec(d) => d.resume(answer),
            Engine::Map(d) => d.resume(answer),
            Engine::Json(d) => d.resume(answer),
        };
        self.note(step)
    }

    fn note(&mut self, step: Step) -> Step {
        if step == Step::Ready {
            self.found = match &self.engine {
                Engine::SunSpec(d) => d.found(),
                Engine::Map(d) => d.found(),
                Engine::Json(d) => d.found(),
            };
            self.gate.set_nameplate(self.found.nameplate_w);
            self.note_baseline();
        }
        step
    }

    /// What the device says of itself; empty before discovery ended.
    #[must_use]
    pub const fn info(&self) -> &DeviceInfo {
        &self.found.info
    }

    /// What it can be told; empty before discovery ended.
    #[must_use]
    pub const fn capabilities(&self) -> &Capabilities {
        &self.found.capabilities
    }

    /// The coalesced poll plan.
    #[must_use]
    pub fn reads(&self) -> &[Request] {
        &self.found.reads
    }

    /// Points from the answers to [`Driver::reads`], in their order; an answer that lacks counts as refused.
    pub fn decode(&mut self, answers: &[Result<Answer, Refusal>]) -> Vec<(Point, Field)> {
        let points = match &mut self.engine {
            Engine::SunSpec(d) => d.decode(answers),
            Engine::Map(d) => d.decode(answers),
            Engine::Json(d) => d.decode(answers),
        };
        self.gate.pass(points, self.kind, self.invert)
    }

    /// Values refused as impossible since this driver was made.
    #[must_use]
    pub const fn rejected_values(&self) -> u64 {
        self.gate.rejected()
    }

    /// What to read before the first write, to know what the installer set; empty when there is nothing to record.
    #[must_use]
    pub fn baseline_reads(&self) -> Vec<Request> {
        match &self.engine {
            Engine::SunSpec(d) => d.baseline_reads(),
            Engine::Map(_) => Vec::new(),
            Engine::Json(d) => d.baseline_reads(),
        }
    }

    /// The baseline as JSON, to be kept in the store, from the answers to [`Driver::baseline_reads`].
    ///
    /// # Errors
    /// A sentence, when the answers do not give a baseline.
    pub fn take_baseline(&self, answers: &[Result<Answer, Refusal>]) -> Result<String, String> {
        match &self.engine {
            Engine::SunSpec(d) => d.take_baseline(answers),
            Engine::Map(_) => Ok("{}".to_owned()),
            Engine::Json(d) => d.take_baseline(answers),
        }
    }

    /// Uses a baseline of [`Driver::take_baseline`].
    ///
    /// # Errors
    /// A sentence, when it is not a baseline of this kind of device.
    pub fn set_baseline(&mut self, json: &str) -> Result<(), String> {
        match &mut self.engine {
            Engine::SunSpec(d) => d.set_baseline(json)?,
            Engine::Map(_) => {}
            Engine::Json(d) => d.set_baseline(json)?,
        }
        self.note_baseline();
        Ok(())
    }

    /// The installer's own power limit is one of the things that the device can.
    fn note_baseline(&mut self) {
        if let Engine::SunSpec(d) = &self.engine {
            self.found.capabilities.baseline_w = d.baseline_w();
        }
    }

    /// What differs from the baseline that was set with [`Driver::set_baseline`], from the answers to
    /// [`Driver::baseline_reads`] while derd holds nothing. Empty: all is as the installer left it.
    ///
    /// # Errors
    /// A sentence, when there is no baseline or the answers do not give one.
    pub fn drift(&self, answers: &[Result<Answer, Refusal>]) -> Result<Vec<Drift>, String> {
        match &self.engine {
            Engine::SunSpec(d) => d.drift(answers),
            Engine::Map(_) => Ok(Vec::new()),
            Engine::Json(d) => d.drift(answers),
        }
    }

    /// A standing setting was verified: from now on it is no drift. The baseline to keep in the store, when that
    /// changes it.
    pub fn own(&mut self, demand: &Demand) -> Option<String> {
        match &mut self.engine {
            Engine::SunSpec(d) => d.own(demand),
            Engine::Map(_) | Engine::Json(_) => None,
        }
    }

    /// What to do on the wire for `demand`, held for `lease`.
    ///
    /// # Errors
    /// A sentence, when this device cannot do it.
    pub fn program(&self, demand: &Demand, lease: Duration) -> Result<Program, String> {
        match &self.engine {
            Engine::SunSpec(d) => d.program(demand, lease),
            Engine::Map(_) => Err("this profile only reads".to_owned()),
            Engine::Json(d) => d.program(demand),
        }
    }
}
