//! SunSpec
use super::driver::Found;
use super::spec::SunSpecOptions;
use super::{Answer, Program, Refusal, Request, Step};
use crate::model::{Demand, DeviceKind, Field, Point};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Device {
    options: SunSpecOptions,
    kind: DeviceKind,
    unit: u8,
}

impl Device {
    pub(super) fn new(options: SunSpecOptions, kind: DeviceKind, unit: u8) -> Self {
        Self { options, kind, unit }
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
    pub(super) fn baseline_reads(&self) -> Vec<Request> {
        Vec::new()
    }
    pub(super) fn take_baseline(&self, _answers: &[Result<Answer, Refusal>]) -> Result<String, String> {
        Err(String::new())
    }
    pub(super) fn set_baseline(&mut self, _json: &str) -> Result<(), String> {
        Ok(())
    }
    pub(super) fn program(&self, _demand: &Demand, _lease: Duration) -> Result<Program, String> {
        Err("not yet".to_owned())
    }
}
