//! What the simulated devices really did: the values that their registers said at each tick.

use crate::model::{Mono, Point, Timestamp, Value};
use serde_json::{Map, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

/// The true points of one device.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Points(BTreeMap<Point, Value>);

impl Points {
    pub(super) fn num(&mut self, point: &Point, value: f64) {
        self.0.insert(point.clone(), Value::Num(value));
    }

    pub(super) fn text(&mut self, point: &Point, value: &str) {
        self.0.insert(point.clone(), Value::Text(value.into()));
    }

    /// The value at a point.
    #[must_use]
    pub fn get(&self, point: &Point) -> Option<&Value> {
        self.0.get(point)
    }

    /// All points with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&Point, &Value)> {
        self.0.iter()
    }
}

/// The world as its devices show it since the last tick, in derd's signs.
#[derive(Debug, Clone, PartialEq)]
pub struct Truth {
    /// When the devices began to show it.
    pub ts: Timestamp,
    /// The household load, W, which no device measures.
    pub load_w: f64,
    /// Power at the grid meter, W, + = import.
    pub grid_w: f64,
    /// Each device's points by its id.
    pub devices: BTreeMap<String, Points>,
}

impl Truth {
    /// A device's number at a point.
    #[must_use]
    pub fn num(&self, device: &str, point: &Point) -> Option<f64> {
        self.devices.get(device)?.get(point)?.num()
    }

    /// A device's text at a point.
    #[must_use]
    pub fn text(&self, device: &str, point: &Point) -> Option<&str> {
        self.devices.get(device)?.get(point)?.text()
    }

    fn json(&self) -> serde_json::Value {
        let devices: Map<_, _> = self
            .devices
            .iter()
            .map(|(id, points)| {
                let points: Map<_, _> = points.iter().map(|(p, v)| (p.as_str().to_owned(), value(v))).collect();
                (id.clone(), points.into())
            })
            .collect();
        json!({"ts": self.ts.to_string(), "load_w": number(self.load_w), "grid_w": number(self.grid_w), "devices": devices})
    }
}

fn value(value: &Value) -> serde_json::Value {
    match value {
        Value::Num(n) => number(*n),
        Value::Text(text) => text.as_ref().into(),
        Value::Flag(flag) => (*flag).into(),
    }
}

/// Whole numbers without a fraction.
fn number(n: f64) -> serde_json::Value {
    if n.fract().abs() < f64::EPSILON && n.abs() < 1e15 { json!(n as i64) } else { json!(n) }
}

/// The file of JSON lines: buffered, written out each second and at the end.
#[derive(Debug)]
pub(super) struct TruthFile {
    out: BufWriter<File>,
    flushed: Mono,
    failed: bool,
}

impl TruthFile {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = File::create(path)
            .map_err(|e| io::Error::new(e.kind(), format!("cannot write {}: {e}", path.display())))?;
        Ok(Self { out: BufWriter::new(file), flushed: Mono::default(), failed: false })
    }

    pub(super) fn tick(&mut self, truth: &Truth, now: Mono) {
        self.line(&truth.json());
        if now.since(self.flushed) >= Duration::from_secs(1) {
            self.flushed = now;
            self.flush();
        }
    }

    pub(super) fn write(&mut self, ts: Timestamp, device: &str, write: &serde_json::Value) {
        self.line(&json!({"ts": ts.to_string(), "device": device, "write": write}));
    }

    fn line(&mut self, line: &serde_json::Value) {
        let done = writeln!(self.out, "{line}");
        self.note(done);
    }

    pub(super) fn flush(&mut self) {
        let done = self.out.flush();
        self.note(done);
    }

    /// A full disk is told once; the simulation goes on.
    fn note(&mut self, done: io::Result<()>) {
        if let Err(error) = done
            && !std::mem::replace(&mut self.failed, true)
        {
            tracing::warn!(%error, "the truth file cannot be written");
        }
    }
}
