//! A simulated go-e charger: its HTTP API v2 as values, without the HTTP.

use super::inverter::phases;
use super::physics::World;
use super::plant::{Charger, Force};
use super::truth::Points;
use crate::model::Point;
use serde_json::{Map, Value, json};

/// `car`: 1 idle, 2 charging, 3 waiting for the car, 4 complete.
fn car(charger: &Charger) -> u8 {
    if !charger.plugged {
        1
    } else if charger.total_w() > 0.0 {
        2
    } else if charger.is_full() || (charger.offered_a() <= 0.0 && charger.energy_wh.1 > 0.0) {
        4
    } else {
        3
    }
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// All keys that the charger knows.
fn keys(world: &World) -> Map<String, Value> {
    let charger = &world.charger;
    let volts = world.voltage_v();
    let mut nrg: Vec<Value> = volts.iter().map(|v| json!(v)).collect();
    nrg.push(json!(0));
    nrg.extend(charger.current_a.iter().map(|a| json!(a)));
    nrg.extend(charger.power_w.iter().map(|w| json!(*w as i64)));
    nrg.push(json!(0));
    nrg.push(json!(charger.total_w() as i64));
    nrg.extend(charger.current_a.iter().map(|a| json!(if *a > 0.0 { 100 } else { 0 })));
    nrg.push(json!(0));
    let offered = charger.offered_a();
    let known = [
        ("car", json!(car(charger))),
        ("amp", json!(charger.amps as i64)),
        ("frc", json!(frc(charger.force))),
        ("psm", json!(charger.phase_mode)),
        ("alw", json!(offered > 0.0)),
        ("acu", if offered > 0.0 { json!(offered as i64) } else { Value::Null }),
        ("ama", json!(charger.max_amps as i64)),
        ("nrg", Value::Array(nrg)),
        ("eto", json!(charger.energy_wh.0 as i64)),
        ("wh", json!(tenths(charger.energy_wh.1))),
        ("pnp", json!(if charger.total_w() > 0.0 { charger.phases() } else { 0 })),
        ("err", json!(0)),
        ("fna", json!("Demo charger")),
        ("oem", json!("derd")),
        ("typ", json!("go-eCharger_V4")),
        ("var", json!(11)),
        ("fwv", json!("57.1")),
        ("sse", json!("999001")),
        ("tmp", json!(24)),
    ];
    known.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

const fn frc(force: Force) -> u8 {
    match force {
        Force::Neutral => 0,
        Force::Off => 1,
        Force::On => 2,
    }
}

fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    url::form_urlencoded::parse(query.as_bytes()).into_owned()
}

/// `GET /api/status`: the keys of `filter`, or all; keys that it does not know are left out.
pub(super) fn status(world: &World, query: &str) -> Value {
    let keys = keys(world);
    match pairs(query).find(|(name, _)| name == "filter") {
        None => Value::Object(keys),
        Some((_, filter)) => {
            let wanted = filter.split(',').filter_map(|key| Some((key.to_owned(), keys.get(key)?.clone())));
            Value::Object(wanted.collect())
        }
    }
}

/// `GET /api/set`: true or an error text for each key; is anything set.
pub(super) fn set(charger: &mut Charger, query: &str) -> (Value, bool) {
    let mut answer = Map::new();
    let mut any = false;
    for (key, text) in pairs(query) {
        let done = set_key(charger, &key, &text);
        any |= done.is_ok();
        answer.insert(key, done.map_or_else(Value::from, |()| Value::Bool(true)));
    }
    (Value::Object(answer), any)
}

fn set_key(charger: &mut Charger, key: &str, text: &str) -> Result<(), String> {
    let number = || serde_json::from_str::<u8>(text).map_err(|_| format!("{text} is not a number that {key} can take"));
    match key {
        "amp" => match number()? {
            // what is asked for beyond the installation's maximum is held at it
            amps @ 6..=32 => charger.amps = f64::from(amps).min(charger.max_amps),
            amps => return Err(format!("amp {amps} is outside 6 to 32")),
        },
        "frc" => {
            charger.force = match number()? {
                0 => Force::Neutral,
                1 => Force::Off,
                2 => Force::On,
                other => return Err(format!("frc {other} is outside 0 to 2")),
            }
        }
        "psm" => match number()? {
            mode @ 0..=2 => charger.phase_mode = mode,
            other => return Err(format!("psm {other} is outside 0 to 2")),
        },
        _ => return Err(format!("{key} cannot be set")),
    }
    Ok(())
}

/// The truth of a tick.
pub(super) fn measure(world: &World) -> Points {
    let charger = &world.charger;
    let mut points = Points::default();
    points.num(&Point::PowerW, charger.total_w());
    phases(&mut points, charger.power_w, world.voltage_v(), charger.current_a);
    points.num(&Point::EnergyDeliveredWh, charger.energy_wh.0.floor());
    points.num(&Point::SessionEnergyWh, tenths(charger.energy_wh.1));
    points.num(&Point::MaxCurrentA, charger.amps);
    let state = match car(charger) {
        1 => "unplugged",
        2 => "charging",
        3 => "plugged",
        _ => "stopped",
    };
    points.text(&Point::State, state);
    points
}

#[cfg(test)]
mod tests {
    use super::super::physics::Scenario;
    use super::*;

    #[test]
    fn status_filters_its_keys() {
        let world = World::new(1, 1.0, Scenario::Steady, 0, 0);
        let answer = status(&world, "filter=car%2Camp,nosuch,nrg");
        let total = world.charger.total_w() as i64;
        assert_eq!((&answer["car"], &answer["amp"]), (&json!(2), &json!(6)));
        assert_eq!(answer.as_object().unwrap().len(), 3, "unknown keys are left out");
        let nrg = answer["nrg"].as_array().unwrap();
        assert_eq!((nrg.len(), &nrg[11]), (16, &json!(total)));
        assert_eq!((&nrg[0], &nrg[4], &nrg[12]), (&json!(230.4), &json!(6.0), &json!(100)));
        assert_eq!(nrg[7].as_i64().unwrap() + nrg[8].as_i64().unwrap() + nrg[9].as_i64().unwrap(), total);
        assert!(status(&world, "").as_object().unwrap().len() > 15);
    }

    #[test]
    fn set_answers_each_key() {
        let mut world = World::new(1, 1.0, Scenario::Steady, 0, 0);
        let (answer, any) = set(&mut world.charger, "amp=10&frc=2&psm=1");
        assert_eq!((answer, any), (json!({"amp": true, "frc": true, "psm": true}), true));
        assert_eq!(status(&world, "filter=amp,frc,psm"), json!({"amp": 10, "frc": 2, "psm": 1}));
        let (answer, any) = set(&mut world.charger, "amp=5&frc=3&nosuch=1&psm=x");
        assert!(!any && answer.as_object().unwrap().values().all(Value::is_string), "{answer}");
        assert_eq!(set(&mut world.charger, "amp=32").0, json!({"amp": true}));
        assert_eq!(status(&world, "filter=amp,ama,acu"), json!({"amp": 16, "ama": 16, "acu": 16}));
    }

    #[test]
    fn car_states() {
        let mut world = World::new(1, 1.0, Scenario::Steady, 0, 0);
        set(&mut world.charger, "frc=1");
        assert_eq!(status(&world, "filter=car,alw,acu"), json!({"car": 2, "alw": false, "acu": null}));
        world.step(30.0);
        assert_eq!(status(&world, "filter=car"), json!({"car": 4}));
        world.plug_car(Some(20.0));
        assert_eq!(status(&world, "filter=car"), json!({"car": 3}));
        world.plug_car(None);
        world.step(1.0);
        assert_eq!(status(&world, "filter=car"), json!({"car": 1}));
    }
}
