//! Devices read by a Modbus register map.
use super::driver::Found;
use super::spec::Map;
use super::{Answer, Refusal, Step};
use crate::model::{Field, Point};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Device {
    map: Arc<Map>,
    unit: u8,
}

impl Device {
    pub(super) fn new(map: Arc<Map>, unit: u8) -> Self {
        Self { map, unit }
    }
    pub(super) fn begin(&mut self) -> Step {
        Step::Ready
    }
    pub(super) fn resume(&mut self, _answer: Result<Answer, Refusal>) -> Step {
        Step::Ready
    }
    pub(super) fn found(&self) -> Found {
        Found::default()
    }
    pub(super) fn decode(&mut self, _answers: &[Result<Answer, Refusal>]) -> Vec<(Point, Field)> {
        Vec::new()
    }
}
