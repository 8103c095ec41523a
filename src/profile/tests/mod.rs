//! Goldens of every built-in profile, from vendor tables and captures, and what no input may break.

mod http;
mod loader;
mod maps;
mod properties;
mod sunspec;
mod sunspec_control;

use super::*;
use crate::model::{ControlSettings, Coupling, DeviceKind, DeviceLimits, DeviceSpec, Field, NullReason, Point, Value};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// A device of registers: what is not there is Modbus exception 2.
#[derive(Debug, Clone, Default)]
struct Registers {
    holding: BTreeMap<u16, u16>,
    input: BTreeMap<u16, u16>,
    requests: usize,
}

impl Registers {
    fn put(&mut self, at: u16, words: &[u16]) {
        self.holding.extend((at..).zip(words.iter().copied()));
    }

    fn answer(&mut self, request: &Request) -> Result<Answer, Refusal> {
        self.requests += 1;
        match request {
            Request::Read { space, address, count, .. } => {
                assert!((1..=125).contains(count), "{request:?}");
                let from = if *space == Space::Holding { &self.holding } else { &self.input };
                let words: Option<Vec<u16>> =
                    (0..*count).map(|n| from.get(&address.checked_add(n)?).copied()).collect();
                words.map(Answer::Words).ok_or(Refusal::Exception(2))
            }
            Request::Write { address, words, .. } => {
                self.put(*address, words);
                Ok(Answer::Written)
            }
            Request::Http { .. } => panic!("HTTP to a Modbus device"),
        }
    }
}

fn spec(profile: &str, kind: DeviceKind) -> DeviceSpec {
    DeviceSpec {
        id: "d".parse().unwrap(),
        kind,
        role: None,
        coupling: Coupling::Ac,
        profile: profile.to_owned(),
        link: String::new(),
        unit: 1,
        poll: Duration::from_secs(1),
        invert: false,
        limits: DeviceLimits::default(),
        control: ControlSettings::default(),
    }
}

fn driver(spec: &DeviceSpec) -> Driver {
    Catalogue::load(&[]).unwrap().get(&spec.profile).unwrap().driver(spec).unwrap()
}

/// Runs discovery to its end.
fn discover(driver: &mut Driver, mut answer: impl FnMut(&Request) -> Result<Answer, Refusal>) -> Step {
    let mut step = driver.begin();
    for _ in 0..400 {
        let Step::Ask(request) = step else { return step };
        step = driver.resume(answer(&request));
    }
    panic!("discovery does not end");
}

/// One poll.
fn poll(driver: &mut Driver, mut answer: impl FnMut(&Request) -> Result<Answer, Refusal>) -> HashMap<Point, Field> {
    let reads = driver.reads().to_vec();
    let answers: Vec<_> = reads.iter().map(&mut answer).collect();
    let points = driver.decode(&answers);
    let count = points.len();
    let map: HashMap<_, _> = points.into_iter().collect();
    assert_eq!(map.len(), count, "each point once");
    map
}

#[track_caller]
fn num(points: &HashMap<Point, Field>, point: Point, want: f64) {
    let got = points.get(&point).unwrap_or_else(|| panic!("{point} is absent"));
    let got = got.as_ref().unwrap_or_else(|r| panic!("{point} is null: {r:?}")).num().unwrap();
    assert!((got - want).abs() < 1e-6 * want.abs().max(1.0), "{point}: {got}, expected {want}");
}

#[track_caller]
fn null(points: &HashMap<Point, Field>, point: Point, want: NullReason) {
    assert_eq!(points.get(&point), Some(&Err(want)), "{point}");
}

#[track_caller]
fn state(points: &HashMap<Point, Field>, want: &str) {
    assert_eq!(points.get(&Point::State), Some(&Ok(Value::Text(want.into()))));
}
