//! Devices read as JSON over HTTP.
use super::driver::Found;
use super::spec::Doc;
use super::{Answer, Program, Refusal, Request, Step};
use crate::model::{Demand, Field, Point};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Device {
    doc: Arc<Doc>,
}

impl Device {
    pub(super) fn new(doc: Arc<Doc>) -> Self {
        Self { doc }
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
    pub(super) fn program(&self, _demand: &Demand) -> Result<Program, String> {
        Err("not yet".to_owned())
    }
}

/// A number, or a text that is one.
pub(super) fn number(value: &serde_json::Value) -> Option<f64> {
    match value {
        serde_json::Value::Number(n) => n.as_f64(),
        serde_json::Value::String(s) => s.trim().parse().ok(),
        _ => None,
    }
    .filter(|n| n.is_finite())
}
