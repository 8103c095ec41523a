//! Models to points.

use super::model::{Int, Model};
use super::{DC_BLOCK, DC_HEAD, INVERTERS, METERS, Part, StorageBlocks};
use crate::model::{Field, NullReason, Point, Value};
use crate::profile::{Answer, Refusal};

type Reading = Result<f64, NullReason>;
type Points = Vec<(Point, Field)>;

/// Below this a battery counts as idle where it does not say what it does, W.
const IDLE_W: f64 = 10.0;

/// The answers of one poll, by model.
pub(super) struct Models<'a> {
    parts: Vec<(u16, Option<&'a [u16]>)>,
}

impl<'a> Models<'a> {
    /// An answer counts only when it still is the model that was found there.
    pub(super) fn new(polled: &[Part], answers: &'a [Result<Answer, Refusal>]) -> Self {
        let words = |n: usize, part: &Part| match answers.get(n) {
            Some(Ok(Answer::Words(w)))
                if w.len() == usize::from(part.count) && w.starts_with(&[part.model.id, part.model.len]) =>
            {
                Some(w.as_slice())
            }
            _ => None,
        };
        Self { parts: polled.iter().enumerate().map(|(n, part)| (part.model.id, words(n, part))).collect() }
    }

    pub(super) fn words(&self, id: u16) -> Option<&'a [u16]> {
        self.parts.iter().find(|(i, _)| *i == id).and_then(|(_, w)| *w)
    }

    /// The first of these models: `None` when the device does not have it; its registers are `Err` when not read.
    fn first(&self, ids: &[u16]) -> Option<(u16, Result<Model<'a>, NullReason>)> {
        let (id, words) = self.parts.iter().find(|(id, _)| ids.contains(id))?;
        Some((*id, words.map(Model::new).ok_or(NullReason::Unavailable)))
    }

    fn get(&self, id: u16) -> Option<Result<Model<'a>, NullReason>> {
        self.first(&[id]).map(|(_, m)| m)
    }
}

/// A value of a model that may not have been read.
fn of(model: Result<Model<'_>, NullReason>, read: impl FnOnce(Model<'_>) -> Reading) -> Reading {
    model.and_then(read)
}

fn push(points: &mut Points, point: Point, value: Reading) {
    points.push((point, value.map(Value::Num)));
}

fn push_text(points: &mut Points, point: Point, value: Result<&'static str, NullReason>) {
    points.push((point, value.map(|word| Value::Text(word.into()))));
}

const VOLTS: [Point; 3] = [Point::VoltageL1V, Point::VoltageL2V, Point::VoltageL3V];
const AMPS: [Point; 3] = [Point::CurrentL1A, Point::CurrentL2A, Point::CurrentL3A];
const WATTS: [Point; 3] = [Point::PowerL1W, Point::PowerL2W, Point::PowerL3W];

/// Where one family of inverter models keeps a point: offset and offset of the scale factor.
struct Ac {
    watts: (usize, usize),
    va: (usize, usize),
    var: (usize, usize),
    hertz: (usize, usize),
    volts: [(usize, usize); 3],
    amps: [(usize, usize); 3],
    dc: [(usize, usize); 3],
    temperature: [(usize, usize); 4],
    state: usize,
    event: usize,
}

/// 101 to 103: integers.
const INTEGER: Ac = Ac {
    watts: (14, 15),
    va: (18, 19),
    var: (20, 21),
    hertz: (16, 17),
    volts: [(10, 13), (11, 13), (12, 13)],
    amps: [(3, 6), (4, 6), (5, 6)],
    dc: [(27, 28), (29, 30), (31, 32)],
    temperature: [(33, 37), (34, 37), (35, 37), (36, 37)],
    state: 38,
    event: 40,
};

/// 111 to 113: floats, no scale factors.
const FLOAT: Ac = Ac {
    watts: (22, 0),
    va: (26, 0),
    var: (28, 0),
    hertz: (24, 0),
    volts: [(16, 0), (18, 0), (20, 0)],
    amps: [(4, 0), (6, 0), (8, 0)],
    dc: [(34, 0), (36, 0), (38, 0)],
    temperature: [(40, 0), (42, 0), (44, 0), (46, 0)],
    state: 48,
    event: 50,
};

/// 701; its direct-current side is in model 714.
const DER: Ac = Ac {
    watts: (10, 116),
    va: (11, 118),
    var: (12, 119),
    hertz: (17, 115),
    volts: [(47, 114), (70, 114), (93, 114)],
    amps: [(45, 113), (68, 113), (91, 113)],
    dc: [(0, 0), (0, 0), (0, 0)],
    temperature: [(36, 122), (37, 122), (38, 122), (40, 122)],
    state: 4,
    event: 6,
};

fn family(id: u16) -> (&'static Ac, Int, bool) {
    match id {
        701 => (&DER, Int::S16, false),
        111..=113 => (&FLOAT, Int::S16, true),
        _ => (&INTEGER, Int::S16, false),
    }
}

/// How many phases the model measures.
fn phases(id: u16) -> usize {
    match id {
        101 | 111 | 201 | 211 => 1,
        102 | 112 | 202 | 212 => 2,
        _ => 3,
    }
}

fn value(m: Model<'_>, float: bool, kind: Int, (at, scale): (usize, usize)) -> Reading {
    if at == 0 {
        Err(NullReason::NotImplemented)
    } else if float {
        m.float(at)
    } else {
        m.scaled(kind, at, scale)
    }
}

/// AC power, W.
pub(super) fn ac_power(id: u16, m: Model<'_>) -> Reading {
    let (ac, kind, float) = family(id);
    value(m, float, kind, ac.watts)
}

/// Does the inverter model give no DC power.
pub(super) fn lacks_dc(id: u16, m: Model<'_>) -> bool {
    let (ac, kind, float) = family(id);
    value(m, float, kind, ac.dc[2]).is_err()
}

/// 101's state, also for 701's, which counts from 0.
fn inverter_state(id: u16, m: Model<'_>) -> Option<&'static str> {
    let raw = m.enumeration(family(id).0.state)?;
    Some(match if id == 701 { raw.saturating_add(1) } else { raw } {
        1 => "off",
        2 => "asleep",
        3 => "starting",
        4 => "running",
        5 => "throttled",
        // shutting down, standby
        6 | 8 => "standby",
        7 => "fault",
        _ => "unknown",
    })
}

/// The AC side: everything but energy and state.
fn ac_side(points: &mut Points, id: u16, model: Result<Model<'_>, NullReason>, with_power: bool) {
    let (ac, kind, float) = family(id);
    let unsigned = if float || id == 701 { kind } else { Int::U16 };
    let asleep = model.ok().and_then(|m| inverter_state(id, m)) == Some("asleep");
    let read = |kind: Int, at: (usize, usize)| {
        of(model, |m| value(m, float, kind, at)).map_err(|reason| match reason {
            // at night a device may give no measurement at all
            NullReason::NotImplemented if asleep => NullReason::Asleep,
            other => other,
        })
    };
    let watts = read(kind, ac.watts);
    let va = read(kind, ac.va);
    if with_power {
        push(points, Point::PowerW, watts);
        push(points, Point::PowerFactor, factor(watts, va));
    }
    push(points, Point::ApparentPowerVa, va);
    push(points, Point::ReactivePowerVar, read(kind, ac.var));
    let hertz = if id == 701 { Int::U32 } else { unsigned };
    push(points, Point::FrequencyHz, read(hertz, ac.hertz));
    for i in 0..phases(id) {
        push(points, VOLTS[i].clone(), read(if id == 701 { Int::U16 } else { unsigned }, ac.volts[i]));
        push(points, AMPS[i].clone(), read(unsigned, ac.amps[i]));
        if id == 701 {
            push(points, WATTS[i].clone(), read(kind, (41 + 23 * i, ac.watts.1)));
        }
    }
    let warm = |m: Model<'_>| ac.temperature.iter().map(|at| value(m, float, Int::S16, *at)).find(Result::is_ok);
    let temperature = of(model, |m| warm(m).unwrap_or(Err(NullReason::NotImplemented)));
    push(points, Point::TemperatureC, temperature);
    if let Some(events) = model.ok().and_then(|m| m.bits32(ac.event)).filter(|e| *e != 0) {
        push(points, Point::FaultCode, Ok(f64::from(events)));
    }
}

/// From watts and volt-amperes: devices do not agree on the unit of their own.
fn factor(watts: Reading, va: Reading) -> Reading {
    let (watts, va) = (watts?, va?);
    if va.abs() > 0.0 { Ok((watts / va.abs()).clamp(-1.0, 1.0)) } else { Err(NullReason::NotReady) }
}

/// `dc_sum`: DC power is the sum of 160's blocks but those of a battery.
pub(super) fn inverter(models: &Models<'_>, dc_sum: Option<Option<StorageBlocks>>, act_wh_seen: &mut bool) -> Points {
    let mut points = Points::with_capacity(20);
    let Some((id, main)) = models.first(&INVERTERS) else { return points };
    ac_side(&mut points, id, main, true);
    let (ac, kind, float) = family(id);
    if let Some(storage) = dc_sum {
        push(
            &mut points,
            Point::DcPowerW,
            models.get(160).map_or(Err(NullReason::NotImplemented), |m| of(m, |m| dc_power(m, storage))),
        );
    } else if id != 701 {
        let unsigned = if float { kind } else { Int::U16 };
        push(&mut points, Point::DcCurrentA, of(main, |m| value(m, float, unsigned, ac.dc[0])));
        push(&mut points, Point::DcVoltageV, of(main, |m| value(m, float, unsigned, ac.dc[1])));
        push(&mut points, Point::DcPowerW, of(main, |m| value(m, float, Int::S16, ac.dc[2])));
    }
    push(&mut points, Point::EnergyProducedWh, energy(models, id, main, act_wh_seen));
    push_text(&mut points, Point::State, main.map(|m| inverter_state(id, m).unwrap_or("unknown")));
    points
}

/// 122's counter has 64 bits and no scale; once it counted it is never exchanged for the other.
fn energy(models: &Models<'_>, id: u16, main: Result<Model<'_>, NullReason>, act_wh_seen: &mut bool) -> Reading {
    if let Some(status) = models.get(122) {
        let act_wh = of(status, |m| m.int(Int::Acc64, 5));
        *act_wh_seen |= matches!(act_wh, Ok(wh) if wh > 0.0);
        if *act_wh_seen {
            return act_wh.map_err(counter_null);
        }
        // not read: which of the two counts is not known
        if act_wh == Err(NullReason::Unavailable) {
            return act_wh;
        }
    }
    own_energy(id, main)
}

fn own_energy(id: u16, main: Result<Model<'_>, NullReason>) -> Reading {
    of(main, |m| match id {
        701 => m.scaled(Int::U64, 19, 120),
        111..=113 => m.float(32),
        _ => m.scaled(Int::Acc32, 24, 26),
    })
    .map_err(counter_null)
}

/// A counter's marker is "no reading now": it comes back.
const fn counter_null(reason: NullReason) -> NullReason {
    match reason {
        NullReason::NotImplemented => NullReason::NotReady,
        other => other,
    }
}

/// The sum of the DC inputs of model 160 that are not a battery's.
fn dc_power(m: Model<'_>, storage: Option<StorageBlocks>) -> Reading {
    let solar = |k: &usize| storage.is_none_or(|s| *k != s.charge && *k != s.discharge);
    let there = (0..6).filter(solar).filter_map(|k| block_power(m, k).ok());
    there.fold(None, |sum: Option<f64>, w| Some(sum.unwrap_or(0.0) + w)).ok_or(NullReason::NotImplemented)
}

fn block_at(k: usize) -> usize {
    usize::from(DC_HEAD) + usize::from(DC_BLOCK) * k
}

fn block_power(m: Model<'_>, k: usize) -> Reading {
    m.scaled(Int::U16, block_at(k) + 11, 4)
}

/// The blocks of 160 that are named as a battery's charge and discharge side.
pub(super) fn storage_blocks(m: Model<'_>) -> Option<StorageBlocks> {
    let named = |name: &str| {
        (0..6).find(|k| {
            let text = m.slice(block_at(*k) + 1, 8).and_then(crate::profile::words::text).unwrap_or_default();
            text.starts_with(name)
        })
    };
    Some(StorageBlocks { charge: named("StCha")?, discharge: named("StDisCha")? })
}

/// What discovery found out about a battery.
pub(super) struct BatteryFacts {
    pub(super) hybrid: bool,
    pub(super) storage_blocks: Option<StorageBlocks>,
    pub(super) capacity_wh: Option<f64>,
}

pub(super) fn battery(models: &Models<'_>, facts: &BatteryFacts) -> Points {
    let mut points = Points::with_capacity(24);
    let bank = models.get(802);
    let storage = models.get(124);
    let small = models.get(713);
    let bank_power = |m: Model<'_>| m.scaled(Int::S16, 47, 63);
    // whose AC side it is: a hybrid inverter's also carries the sun
    let ac = models.first(&INVERTERS).filter(|_| !facts.hybrid && facts.storage_blocks.is_none());
    let power = if let Some(blocks) = facts.storage_blocks {
        let both = |m: Model<'_>| Ok(block_power(m, blocks.discharge)? - block_power(m, blocks.charge)?);
        models.get(160).map(|m| of(m, both))
    } else if let Some((id, main)) = ac {
        let own = of(main, |m| ac_power(id, m));
        match (own, bank) {
            (Err(NullReason::NotImplemented), Some(bank)) => Some(of(bank, bank_power)),
            _ => Some(own),
        }
    } else {
        bank.map(|m| of(m, bank_power))
    };
    if let Some(power) = power {
        push(&mut points, Point::PowerW, power);
    }
    if let Some((id, main)) = ac {
        ac_side(&mut points, id, main, false);
        if id != 701 {
            let (ac, kind, float) = family(id);
            let unsigned = if float { kind } else { Int::U16 };
            push(&mut points, Point::DcPowerW, of(main, |m| value(m, float, Int::S16, ac.dc[2])));
            push(&mut points, Point::DcVoltageV, of(main, |m| value(m, float, unsigned, ac.dc[1])));
        }
        push(&mut points, Point::EnergyDischargedWh, own_energy(id, main));
        if id == 701 {
            let charged = of(main, |m| m.scaled(Int::U64, 23, 120)).map_err(counter_null);
            push(&mut points, Point::EnergyChargedWh, charged);
        }
    }
    let pick = |choices: [Option<Reading>; 3]| {
        let mut there = choices.into_iter().flatten();
        let first = there.next()?;
        Some(first.or_else(|reason| there.find(Result::is_ok).unwrap_or(Err(reason))))
    };
    let from_bank = |kind, at, scale| bank.map(|m| of(m, |m| m.scaled(kind, at, scale)));
    let from_storage = |at, scale| storage.map(|m| of(m, |m| m.scaled(Int::U16, at, scale)));
    let from_small = |at, scale| small.map(|m| of(m, |m| m.scaled(Int::U16, at, scale)));
    let each = [
        (Point::SocPct, pick([from_bank(Int::U16, 11, 56), from_storage(8, 22), from_small(4, 8)])),
        (Point::SohPct, pick([from_bank(Int::U16, 13, 58), from_small(5, 8), None])),
        (Point::CapacityWh, pick([from_bank(Int::U16, 3, 53), facts.capacity_wh.map(Ok), from_small(2, 7)])),
        (Point::ReserveSocPct, from_storage(7, 21)),
        (Point::ChargeLimitW, pick([from_bank(Int::U16, 4, 54), from_storage(2, 18), None])),
        (Point::DischargeLimitW, from_bank(Int::U16, 5, 54)),
    ];
    for (point, value) in each {
        if let Some(value) = value {
            push(&mut points, point, value);
        }
    }
    let faulty = matches!(bank, Some(Ok(m)) if m.enumeration(22) == Some(99))
        || matches!(small, Some(Ok(m)) if m.enumeration(6) == Some(2))
        || matches!(ac, Some((id, Ok(m))) if inverter_state(id, m) == Some("fault"));
    let told = [storage.map(|m| m.map(|m| m.enumeration(11))), bank.map(|m| m.map(|m| m.enumeration(16)))]
        .into_iter()
        .flatten()
        .find_map(|c| c.ok().flatten());
    let state = match (faulty, told, power) {
        (true, ..) => "fault",
        (_, Some(3), _) => "discharging",
        (_, Some(4), _) => "charging",
        // off, empty, full, holding
        (_, Some(1 | 2 | 5 | 6), _) => "idle",
        (.., Some(Ok(w))) if w > IDLE_W => "discharging",
        (.., Some(Ok(w))) if w < -IDLE_W => "charging",
        (.., Some(Ok(_))) => "idle",
        _ => "unknown",
    };
    let read = [storage, bank, small].into_iter().flatten().any(|m| m.is_ok());
    push_text(&mut points, Point::State, if read { Ok(state) } else { Err(NullReason::Unavailable) });
    points
}

/// Meters: 201 to 204 with integers, 211 to 214 with floats. A counter of 0 cannot be told from "not counted".
pub(super) fn meter(models: &Models<'_>) -> Points {
    let mut points = Points::with_capacity(18);
    let Some((id, m)) = models.first(&METERS) else { return points };
    let float = id > 210;
    let read =
        |int: (usize, usize), at: usize| of(m, |m| if float { m.float(at) } else { m.scaled(Int::S16, int.0, int.1) });
    let watts = read((18, 22), 28);
    let va = read((23, 27), 36);
    push(&mut points, Point::PowerW, watts);
    push(&mut points, Point::PowerFactor, factor(watts, va));
    push(&mut points, Point::ApparentPowerVa, va);
    push(&mut points, Point::ReactivePowerVar, read((28, 32), 44));
    push(&mut points, Point::FrequencyHz, read((16, 17), 26));
    for i in 0..phases(id) {
        push(&mut points, WATTS[i].clone(), read((19 + i, 22), 30 + 2 * i));
        push(&mut points, VOLTS[i].clone(), read((8 + i, 15), 12 + 2 * i));
        push(&mut points, AMPS[i].clone(), read((3 + i, 6), 4 + 2 * i));
    }
    let counter = |int: usize, at: usize| {
        of(m, |m| if float { m.float(at) } else { m.scaled(Int::Acc32, int, 54) }).map_err(counter_null)
    };
    push(&mut points, Point::EnergyExportWh, counter(38, 60));
    push(&mut points, Point::EnergyImportWh, counter(46, 68));
    debug_assert!(METERS.contains(&id));
    points
}
