//! Devices read by a Modbus register map: reads coalesced into blocks, each value whole within one block.

use super::driver::Found;
use super::spec::{BlockRules, Entry, Map, Register, Told};
use super::words::{Kind, number, text};
use super::{Answer, Refusal, Request, Space, Step};
use crate::model::{Capabilities, DeviceInfo, Field, NullReason, Point, Value};
use std::sync::Arc;

/// Registers that are read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) space: Space,
    pub(super) address: u16,
    pub(super) count: u16,
}

/// One device that is read by a register map.
#[derive(Debug)]
pub(super) struct Device {
    map: Arc<Map>,
    unit: u8,
    blocks: Vec<Block>,
    /// Identity registers that are still to be read, and which is asked.
    asked: usize,
    info: DeviceInfo,
}

impl Device {
    pub(super) fn new(map: Arc<Map>, unit: u8) -> Self {
        let registers =
            map.entries.iter().flat_map(|e| e.terms.iter().map(|(r, _)| r).chain(e.when.iter().map(|(r, _)| r)));
        let blocks = coalesce(registers, &map.rules);
        Self { map, unit, blocks, asked: 0, info: DeviceInfo::default() }
    }

    /// The identity registers that are read, in the order of [`Self::slot`].
    fn told(&self) -> [Option<&Told<Register>>; 4] {
        let id = &self.map.identity;
        [id.maker.as_ref(), id.model.as_ref(), id.serial.as_ref(), id.firmware.as_ref()]
    }

    fn slot(&mut self, n: usize) -> &mut Option<String> {
        match n {
            0 => &mut self.info.maker,
            1 => &mut self.info.model,
            2 => &mut self.info.serial,
            _ => &mut self.info.firmware,
        }
    }

    fn ask(&mut self, from: usize) -> Step {
        let next = (from..4).find_map(|n| match self.told()[n] {
            Some(Told::Read(r)) => Some((n, r.space, r.address, r.kind.len())),
            _ => None,
        });
        match next {
            Some((n, space, address, count)) => {
                self.asked = n;
                Step::Ask(Request::Read { unit: self.unit, space, address, count })
            }
            None => Step::Ready,
        }
    }

    pub(super) fn begin(&mut self) -> Step {
        let fixed = self.told().map(|t| match t {
            Some(Told::Fixed(text)) => Some(text.clone()),
            _ => None,
        });
        for (n, text) in fixed.into_iter().enumerate() {
            *self.slot(n) = text;
        }
        self.ask(0)
    }

    pub(super) fn resume(&mut self, answer: Result<Answer, Refusal>) -> Step {
        let n = self.asked;
        let found = match (self.told()[n], answer) {
            (Some(Told::Read(r)), Ok(Answer::Words(words))) => identity_text(r, &words),
            _ => None,
        };
        *self.slot(n) = found;
        self.ask(n + 1)
    }

    pub(super) fn found(&self) -> Found {
        let read = |b: &Block| Request::Read { unit: self.unit, space: b.space, address: b.address, count: b.count };
        Found {
            info: self.info.clone(),
            capabilities: Capabilities::default(),
            reads: self.blocks.iter().map(read).collect(),
            nameplate_w: self.map.nameplate_w,
        }
    }

    pub(super) fn decode(&mut self, answers: &[Result<Answer, Refusal>]) -> Vec<(Point, Field)> {
        let words = |register: &Register| self.words(register, answers);
        self.map
            .entries
            .iter()
            .map(|entry| (entry.point.clone(), decode(entry, |r| raw_text(r, words(r)), |r| raw_number(r, words(r)))))
            .collect()
    }

    fn words<'a>(&self, register: &Register, answers: &'a [Result<Answer, Refusal>]) -> Option<&'a [u16]> {
        let len = register.kind.len();
        let holds = |b: &Block| {
            b.space == register.space
                && b.address <= register.address
                && u32::from(register.address) + u32::from(len) <= u32::from(b.address) + u32::from(b.count)
        };
        let n = self.blocks.iter().position(holds)?;
        let Some(Ok(Answer::Words(words))) = answers.get(n) else { return None };
        let from = usize::from(register.address - self.blocks[n].address);
        words.get(from..from + usize::from(len))
    }
}

fn identity_text(register: &Register, words: &[u16]) -> Option<String> {
    match register.kind {
        Kind::Text(_) => text(words),
        kind => number(kind, words, register.little, &register.na).ok().map(|n| n.to_string()),
    }
}

fn raw_number(register: &Register, words: Option<&[u16]>) -> Result<f64, NullReason> {
    number(register.kind, words.ok_or(NullReason::Unavailable)?, register.little, &register.na)
}

fn raw_text(register: &Register, words: Option<&[u16]>) -> Result<String, NullReason> {
    match register.kind {
        Kind::Text(_) => text(words.ok_or(NullReason::Unavailable)?).ok_or(NullReason::NotImplemented),
        _ => raw_number(register, words).map(|n| n.to_string()),
    }
}

/// One point from its terms: the same for registers and for JSON.
pub(super) fn decode<S>(
    entry: &Entry<S>,
    text: impl Fn(&S) -> Result<String, NullReason>,
    number: impl Fn(&S) -> Result<f64, NullReason>,
) -> Field {
    if let Some((source, wanted)) = &entry.when {
        let wanted = wanted.as_str().map_or_else(|| wanted.to_string(), str::to_owned);
        if text(source)? != wanted {
            return Err(NullReason::Unavailable);
        }
    }
    let soften = |reason| match reason {
        NullReason::Unavailable if entry.optional => NullReason::NotImplemented,
        other => other,
    };
    if let Some(states) = &entry.states {
        let Some((source, _)) = entry.terms.first() else { return Err(NullReason::Unavailable) };
        let raw = text(source).map_err(soften)?;
        return Ok(Value::Text(states.get(&raw).map_or_else(|| "unknown".into(), Arc::clone)));
    }
    let mut sum = None;
    let mut missing = None;
    for (source, factor) in &entry.terms {
        match number(source) {
            Ok(n) => sum = Some(sum.unwrap_or(0.0) + n * factor),
            Err(reason) => missing = Some(reason),
        }
    }
    let raw = match (sum, missing) {
        (Some(sum), None) => sum,
        (Some(sum), Some(NullReason::NotImplemented)) if entry.missing_as_zero => sum,
        (_, Some(reason)) => return Err(soften(reason)),
        (None, None) => return Err(NullReason::Unavailable),
    };
    let value = raw * entry.scale + entry.offset;
    let inside = entry.min.is_none_or(|m| value >= m) && entry.max.is_none_or(|m| value <= m);
    if value.is_finite() && inside { Ok(Value::Num(value)) } else { Err(NullReason::OutOfRange) }
}

/// The fewest reads that the rules allow, in the order of addresses.
pub(super) fn coalesce<'a>(registers: impl Iterator<Item = &'a Register>, rules: &BlockRules) -> Vec<Block> {
    let mut spans: Vec<(Space, u16, u16)> = registers.map(|r| (r.space, r.address, r.kind.len())).collect();
    spans.sort_unstable();
    spans.dedup();
    let mut blocks: Vec<Block> = Vec::new();
    for (space, address, len) in spans {
        if let Some(last) = blocks.last_mut() {
            let end = u32::from(last.address) + u32::from(last.count);
            let new_end = end.max(u32::from(address) + u32::from(len));
            let count = new_end - u32::from(last.address);
            let near = u32::from(address) <= end + u32::from(rules.gap);
            let free = !rules.forbidden.iter().any(|(a, b)| u32::from(*a) < new_end && u32::from(*b) >= end);
            if last.space == space && near && count <= u32::from(rules.max_read) && (free || new_end == end) {
                last.count = u16::try_from(count).unwrap_or(rules.max_read);
                continue;
            }
        }
        blocks.push(Block { space, address, count: len });
    }
    blocks
}
