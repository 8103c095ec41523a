//! SunSpec: the device describes itself. Finds its models by walking the chain that starts with `SunS`, never by
//! fixed addresses; reads whole models, so that a value and its scale factor come in one answer.
//!
//! After the SunSpec Alliance's model definitions (github.com/sunspec/models, Apache-2.0).

mod baseline;
mod control;
mod decode;
mod model;

use super::driver::Found;
use super::spec::SunSpecOptions;
use super::words::text;
use super::{Answer, Program, Refusal, Request, Space, Step};
use crate::model::{Capabilities, Demand, DeviceInfo, DeviceKind, Drift, FailSafe, Field, Point};
use model::{Int, Model};
use std::time::Duration;

/// Where the marker can be, in the order of trying.
const BASES: [u16; 3] = [40_000, 0, 50_000];
/// `SunS`.
const MARKER: [u16; 2] = [0x5375, 0x6E53];
/// The chain ends here, whatever the device says.
const MAX_MODELS: usize = 128;
/// Registers in one Modbus read.
const MAX_READ: u16 = 125;
/// Where 160's blocks begin, and how long each is.
const DC_HEAD: u16 = 10;
const DC_BLOCK: u16 = 20;
/// Blocks of 160 that fit into one read together with their scale factors.
const DC_TOGETHER: u16 = 5;

const INVERTERS: [u16; 7] = [101, 102, 103, 111, 112, 113, 701];
const METERS: [u16; 8] = [201, 202, 203, 204, 211, 212, 213, 214];
const BATTERIES: [u16; 3] = [124, 802, 713];

/// One model of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Located {
    id: u16,
    /// Address of its ID register.
    at: u16,
    /// Its L.
    len: u16,
}

/// A part of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    model: Located,
    from: u16,
    count: u16,
}

impl Located {
    /// All of it, or what fits into one read.
    fn whole(self) -> Part {
        // the last point of 211 to 214 has two registers of which only one fits
        let most = if (211..=214).contains(&self.id) { MAX_READ - 1 } else { MAX_READ };
        Part { model: self, from: 0, count: self.len.saturating_add(2).min(most) }
    }
}

#[derive(Debug)]
enum Stage {
    Idle,
    /// Looking for the marker; index into `bases`.
    Marker(usize),
    /// Reading a model's header.
    Header(u16),
    /// Reading what does not change; index into `todo`.
    Once(usize),
}

/// What is known of the battery's direct-current side from 160's block names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StorageBlocks {
    charge: usize,
    discharge: usize,
}

/// One device that speaks SunSpec.
#[derive(Debug)]
pub(super) struct Device {
    options: SunSpecOptions,
    kind: DeviceKind,
    unit: u8,
    stage: Stage,
    bases: [u16; 3],
    chain: Vec<Located>,
    todo: Vec<Part>,
    once: Vec<(Part, Vec<u16>)>,
    layout: Layout,
    /// 124 or 123 as last read, for what a program writes only when it differs.
    last_control: Vec<u16>,
    act_wh_seen: bool,
    baseline: Option<baseline::Recorded>,
}

/// What was decided at the end of discovery.
#[derive(Debug, Default)]
struct Layout {
    /// What is polled, in the order of the reads.
    polled: Vec<Part>,
    /// DC power as the sum of 160's blocks.
    dc_sum: bool,
    storage_blocks: Option<StorageBlocks>,
    /// DC inputs in the same device: its AC power is not the battery's.
    hybrid: bool,
    capacity_wh: Option<f64>,
    control: control::Control,
    found: Found,
}

impl Device {
    pub(super) fn new(options: SunSpecOptions, kind: DeviceKind, unit: u8) -> Self {
        Self {
            options,
            kind,
            unit,
            stage: Stage::Idle,
            bases: BASES,
            chain: Vec::new(),
            todo: Vec::new(),
            once: Vec::new(),
            layout: Layout::default(),
            last_control: Vec::new(),
            act_wh_seen: false,
            baseline: None,
        }
    }

    fn read(&self, at: u16, count: u16) -> Request {
        Request::Read { unit: self.unit, space: Space::Holding, address: at, count }
    }

    fn part(&self, part: Part) -> Request {
        self.read(part.model.at.saturating_add(part.from), part.count)
    }

    pub(super) fn begin(&mut self) -> Step {
        self.stage = Stage::Marker(0);
        Step::Ask(self.read(self.bases[0], 2))
    }

    pub(super) fn resume(&mut self, answer: Result<Answer, Refusal>) -> Step {
        let words = match answer {
            Ok(Answer::Words(words)) => words,
            // "not now" says nothing about what is there
            Err(Refusal::Exception(code @ (5 | 6 | 10 | 11))) => {
                return self.give_up(format!("unit {} is busy: Modbus exception {code}", self.unit));
            }
            _ => Vec::new(),
        };
        match self.stage {
            Stage::Idle => self.begin(),
            Stage::Marker(n) => {
                let base = self.bases[n];
                if words == MARKER {
                    // where it was found it is looked for first after a reconnect
                    self.bases.swap(0, n);
                    self.chain.clear();
                    self.header(base.saturating_add(2))
                } else if let Some(next) = self.bases.get(n + 1) {
                    let ask = Step::Ask(self.read(*next, 2));
                    self.stage = Stage::Marker(n + 1);
                    ask
                } else {
                    self.give_up(format!("unit {} answers, but not as SunSpec at 40000, 0 or 50000", self.unit))
                }
            }
            Stage::Header(at) => self.take_header(at, &words),
            Stage::Once(n) => {
                if let Some(part) = self.todo.get(n).copied()
                    && words.len() == usize::from(part.count)
                {
                    self.once.push((part, words));
                }
                self.next_once(n + 1)
            }
        }
    }

    fn give_up(&mut self, why: String) -> Step {
        self.stage = Stage::Idle;
        Step::NotFound(why)
    }

    fn header(&mut self, at: u16) -> Step {
        self.stage = Stage::Header(at);
        Step::Ask(self.read(at, 2))
    }

    fn take_header(&mut self, at: u16, words: &[u16]) -> Step {
        // an exception or a short answer at a header's place is the end, as is 0xFFFF
        let [id @ 1..=0xFFFE, len] = *words else { return self.choose() };
        self.chain.push(Located { id, at, len });
        match at.checked_add(2).and_then(|a| a.checked_add(len)) {
            Some(next) if next < u16::MAX - 1 && self.chain.len() < MAX_MODELS => self.header(next),
            _ => self.choose(),
        }
    }

    fn first(&self, ids: &[u16]) -> Option<Located> {
        self.chain.iter().copied().find(|m| ids.contains(&m.id))
    }

    /// The chain is known: what of it serves this kind of device.
    fn choose(&mut self) -> Step {
        let dc = self.first(&[160]);
        let main = match self.kind {
            DeviceKind::Inverter => self.first(&INVERTERS),
            DeviceKind::Meter => self.first(&METERS),
            DeviceKind::Battery => self.first(&BATTERIES),
            _ => None,
        };
        let Some(main) = main else {
            let ids: Vec<_> = self.chain.iter().map(|m| m.id.to_string()).collect();
            let need = match self.kind {
                DeviceKind::Inverter => "an inverter (101 to 103, 111 to 113, 701)",
                DeviceKind::Meter => "a meter (201 to 204, 211 to 214)",
                _ => "a battery (124, 713, 802)",
            };
            let has = if ids.is_empty() { "no models".to_owned() } else { format!("models {}", ids.join(", ")) };
            return self.give_up(format!("unit {} has {has}: none of {need}", self.unit));
        };
        // devices behind one another each bring their own model 1
        let identity = self.chain.iter().rev().copied().find(|m| m.id == 1 && m.at < main.at).or(self.first(&[1]));
        let mut todo: Vec<Part> = identity.map(Located::whole).into_iter().collect();
        if self.kind != DeviceKind::Meter {
            let ids: &[u16] = match self.kind {
                DeviceKind::Inverter => &[120, 121, 122, 123, 702],
                _ => &[120, 124, 802, 702],
            };
            todo.extend(ids.iter().filter_map(|id| self.first(&[*id])).map(Located::whole));
            todo.extend(dc.map(|m| blocks(m, 0, DC_TOGETHER)));
            todo.extend(dc.map(|m| blocks(m, DC_TOGETHER, 6)).filter(|p| p.count > 0));
            if self.kind == DeviceKind::Inverter {
                todo.push(main.whole());
            }
        }
        self.todo = todo;
        self.once.clear();
        self.next_once(0)
    }

    fn next_once(&mut self, n: usize) -> Step {
        if let Some(part) = self.todo.get(n).copied() {
            self.stage = Stage::Once(n);
            return Step::Ask(self.part(part));
        }
        self.stage = Stage::Idle;
        self.settle();
        Step::Ready
    }

    /// A model as read during discovery.
    fn once(&self, id: u16) -> Option<(Located, Model<'_>)> {
        self.once.iter().find(|(p, _)| p.model.id == id && p.from == 0).map(|(p, w)| (p.model, Model::new(w)))
    }

    fn settle(&mut self) {
        let mut layout = Layout { capacity_wh: None, ..Layout::default() };
        let dc = self.first(&[160]);
        layout.hybrid = dc.is_some();
        let complete = dc_complete(&self.once);
        layout.storage_blocks = self.once(160).and_then(|(_, m)| decode::storage_blocks(m));
        let polled: Vec<Located> = match self.kind {
            DeviceKind::Inverter => {
                let main = self.first(&INVERTERS);
                let without_dc = main.and_then(|m| self.once(m.id)).is_none_or(|(l, m)| decode::lacks_dc(l.id, m));
                layout.dc_sum = dc.is_some() && without_dc && complete;
                let dc = dc.filter(|_| layout.dc_sum);
                main.into_iter().chain(self.once(122).map(|(l, _)| l)).chain(dc).collect()
            }
            DeviceKind::Meter => self.first(&METERS).into_iter().collect(),
            _ => {
                let dc = dc.filter(|_| layout.storage_blocks.is_some());
                let ac = self.first(&INVERTERS);
                let all = [ac, self.first(&[124]), self.first(&[802]), self.first(&[713]), dc];
                all.into_iter().flatten().collect()
            }
        };
        layout.polled =
            polled.into_iter().map(|m| if m.id == 160 { blocks(m, 0, DC_TOGETHER) } else { m.whole() }).collect();
        let (capabilities, nameplate_w) = self.capabilities(&mut layout);
        let reads = layout.polled.iter().map(|p| self.part(*p)).collect();
        layout.found = Found { info: self.identity(), capabilities, reads, nameplate_w };
        self.last_control = match self.kind {
            DeviceKind::Battery => self.once(124),
            _ => self.once(123),
        }
        .and_then(|(l, m)| m.slice(0, usize::from(l.whole().count)))
        .unwrap_or_default()
        .to_vec();
        self.layout = layout;
        self.once = Vec::new();
        self.todo = Vec::new();
    }

    fn identity(&self) -> DeviceInfo {
        let Some((_, m)) = self.once(1) else { return DeviceInfo::default() };
        let read = |at, len| m.slice(at, len).and_then(text);
        DeviceInfo { maker: read(2, 16), model: read(18, 16), firmware: read(42, 8), serial: read(50, 16) }
    }

    fn capabilities(&self, layout: &mut Layout) -> (Capabilities, Option<f64>) {
        let from = |id, kind, at, scale| self.once(id).and_then(|(_, m)| m.scaled(kind, at, scale).ok());
        let some = |v: Option<f64>| v.filter(|w| *w > 0.0);
        let rated = some(from(120, Int::U16, 3, 4)).or(some(from(702, Int::U16, 2, 45)));
        let mut capabilities = Capabilities::default();
        let mut nameplate = rated;
        match self.kind {
            DeviceKind::Inverter => {
                capabilities.rated_w = rated;
                let base = some(from(121, Int::U16, 2, 22)).or(rated);
                layout.control = control::Control::limit(self.once(123), base);
            }
            DeviceKind::Battery => {
                let charge = some(from(802, Int::U16, 4, 54)).or(some(from(120, Int::U16, 23, 24)));
                let discharge = some(from(802, Int::U16, 5, 54)).or(some(from(120, Int::U16, 25, 26)));
                let setting = some(from(124, Int::U16, 2, 18));
                layout.capacity_wh = some(from(120, Int::U16, 19, 20));
                capabilities.max_charge_w = charge.or(setting);
                capabilities.max_discharge_w = discharge.or(setting);
                layout.control = control::Control::storage(self.once(124), setting, discharge);
                nameplate = [rated, charge, discharge, setting].into_iter().flatten().reduce(f64::max);
            }
            _ => nameplate = None,
        }
        if self.options.read_only {
            layout.control = control::Control::None;
        }
        capabilities.actions = layout.control.actions();
        capabilities.failsafe = layout.control.failsafe(&self.options.classes).map_or(FailSafe::None, FailSafe::Timer);
        (capabilities, nameplate)
    }

    pub(super) fn found(&self) -> Found {
        self.layout.found.clone()
    }

    pub(super) fn decode(&mut self, answers: &[Result<Answer, Refusal>]) -> Vec<(Point, Field)> {
        let models = decode::Models::new(&self.layout.polled, answers);
        let control = if self.kind == DeviceKind::Battery { models.words(124) } else { None };
        if let Some(words) = control {
            self.last_control.clear();
            self.last_control.extend_from_slice(words);
        }
        let dc = self.layout.dc_sum.then_some(self.layout.storage_blocks);
        match self.kind {
            DeviceKind::Inverter => decode::inverter(&models, dc, &mut self.act_wh_seen),
            DeviceKind::Meter => decode::meter(&models),
            _ => decode::battery(
                &models,
                &decode::BatteryFacts {
                    hybrid: self.layout.hybrid,
                    storage_blocks: self.layout.storage_blocks,
                    capacity_wh: self.layout.capacity_wh,
                },
            ),
        }
    }

    /// The models of a baseline beside the one that is written.
    fn baseline_models(&self) -> impl Iterator<Item = Located> {
        baseline::models(self.kind).iter().filter_map(|id| self.first(&[*id]))
    }

    pub(super) fn baseline_reads(&self) -> Vec<Request> {
        let Some(at) = self.layout.control.model() else { return Vec::new() };
        let mut reads = vec![self.part(at.whole())];
        if self.kind == DeviceKind::Inverter {
            reads.extend(self.first(&INVERTERS).map(|m| self.part(m.whole())));
        }
        reads.extend(self.baseline_models().map(|m| self.part(m.whole())));
        reads
    }

    fn seen<'a>(&self, answers: &'a [Result<Answer, Refusal>]) -> baseline::Seen<'a> {
        let words = |n: usize| match answers.get(n) {
            Some(Ok(Answer::Words(words))) => Some(words.as_slice()),
            _ => None,
        };
        let main = self.first(&INVERTERS).filter(|_| self.kind == DeviceKind::Inverter);
        let running = main.and_then(|m| decode::ac_power(m.id, Model::new(words(1)?)).ok());
        let others = 1 + usize::from(main.is_some());
        let others = self.baseline_models().enumerate().filter_map(|(n, m)| Some((m, words(others + n)?))).collect();
        baseline::Seen { control: words(0).unwrap_or_default(), running, others }
    }

    pub(super) fn take_baseline(&self, answers: &[Result<Answer, Refusal>]) -> Result<String, String> {
        self.layout.control.take_baseline(&self.seen(answers)).map(|b| b.to_json())
    }

    pub(super) fn set_baseline(&mut self, json: &str) -> Result<(), String> {
        self.baseline = Some(baseline::Recorded::from_json(json)?);
        Ok(())
    }

    pub(super) fn drift(&self, answers: &[Result<Answer, Refusal>]) -> Result<Vec<Drift>, String> {
        let recorded = self.baseline.as_ref().ok_or("there is no record")?;
        self.layout.control.drift(recorded, &self.seen(answers), self.unit)
    }

    /// A standing setting was verified: it is no drift. The record, when that changes it.
    pub(super) fn own(&mut self, demand: &Demand) -> Option<String> {
        let Demand::Reserve { .. } = demand else { return None };
        let program = self.program(demand, Duration::ZERO).ok()?;
        let Some(Request::Write { words, .. }) = program.writes.first() else { return None };
        let recorded = self.baseline.as_mut()?;
        let before = std::mem::replace(&mut recorded.own_reserve, words.first().copied());
        (before != recorded.own_reserve).then(|| recorded.to_json())
    }

    /// The installer's own power limit, W.
    pub(super) fn baseline_w(&self) -> Option<f64> {
        self.layout.control.baseline_w(&self.baseline.as_ref()?.control)
    }

    pub(super) fn program(&self, demand: &Demand, lease: Duration) -> Result<Program, String> {
        let wire = control::Wire {
            unit: self.unit,
            function: self.options.function,
            now: &self.last_control,
            classes: &self.options.classes,
        };
        self.layout.control.program(demand, lease, self.baseline.as_ref().map(|b| &b.control), &wire)
    }
}

/// `count` blocks of model 160 from block `first` on; with the head when from the first.
fn blocks(model: Located, first: u16, count: u16) -> Part {
    let there = model.len.saturating_add(2).saturating_sub(DC_HEAD) / DC_BLOCK;
    let count = there.saturating_sub(first).min(count);
    if first == 0 {
        Part { model, from: 0, count: (DC_HEAD + DC_BLOCK * count).min(model.len.saturating_add(2)).min(MAX_READ) }
    } else {
        Part { model, from: DC_HEAD + DC_BLOCK * first, count: DC_BLOCK * count }
    }
}

/// Is there nothing in the blocks of 160 that one read does not reach.
fn dc_complete(once: &[(Part, Vec<u16>)]) -> bool {
    let rest = once.iter().find(|(p, _)| p.model.id == 160 && p.from > 0).map(|(_, w)| w.as_slice());
    rest.unwrap_or_default().chunks(usize::from(DC_BLOCK)).all(|b| Model::new(b).int(Int::U16, 11).is_err())
}
