//! Samples of one device and boot as one blob, and back: columns rather than rows, nothing lost. Pure.
//!
//! ```text
//! format = 1 | CRC-32 of all behind it | rows | packing = 0 plain, 1 deflate | body
//! rows: count, then runs of (step to the next row, how many such steps)
//! body: ts, mono, seq | clock states | texts | points | shapes | shape of each sample | one column per point
//! ```
//! A shape is a list of points in their order; samples of one device nearly always share one. A column holds what each
//! field is (number, text, flag or the reason for null) in runs, then the numbers: as whole numbers over a power of ten where every one
//! comes back bit for bit, else as changed bits.

use super::varint::{Input, put, unzigzag, zigzag};
use crate::model::{
    BootId, ClockState, DeviceId, Field, Mono, NullReason, Point, RowNo, Sample, Stored, Timestamp, Value,
};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::Arc;

const FORMAT: u8 = 1;
/// More rows than a chunk ever gets: what reading is bounded by.
pub(crate) const MAX_ROWS: usize = 2048;
/// More fields than a chunk ever gets.
pub(crate) const MAX_FIELDS: usize = 1 << 17;
/// A body unpacks to at most this, bytes.
const MAX_BODY: u64 = 16 << 20;
/// Powers of ten that numbers are tried over. Meters give at most five decimals.
const SCALES: [f64; 7] = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6];
/// Whole numbers up to here are exact in an f64.
const EXACT: f64 = 9_007_199_254_740_992.0;

const CLOCKS: [ClockState; 3] = [ClockState::Synced, ClockState::Holdover, ClockState::Untrusted];
const NULLS: [NullReason; 6] = [
    NullReason::NotImplemented,
    NullReason::Asleep,
    NullReason::OutOfRange,
    NullReason::NotReady,
    NullReason::Unavailable,
    NullReason::Stale,
];
const NUM: u8 = 0;
const TEXT: u8 = 1;
const NO: u8 = 2;
const YES: u8 = 3;
const FIRST_NULL: u8 = 4;

/// The blob of these samples: at most [`MAX_ROWS`], of one device and boot, rows rising, at most [`MAX_FIELDS`] fields.
pub(crate) fn encode(samples: &[&Stored]) -> Vec<u8> {
    let mut out = vec![FORMAT, 0, 0, 0, 0];
    put_rows(&mut out, samples);
    let body = body(samples);
    match deflate(&body) {
        Some(packed) if packed.len() < body.len() => {
            out.push(1);
            out.extend(packed);
        }
        _ => {
            out.push(0);
            out.extend(body);
        }
    }
    let sum = crc(&out[5..]);
    out[1..5].copy_from_slice(&sum.to_le_bytes());
    out
}

/// The samples of a blob; `None` when it is damaged.
pub(crate) fn decode(device: &DeviceId, boot: &BootId, blob: &[u8]) -> Option<Vec<Stored>> {
    let (rows, packing, packed) = open(blob)?;
    let mut unpacked = Vec::new();
    let body = match packing {
        0 => packed,
        1 => {
            flate2::read::DeflateDecoder::new(packed).take(MAX_BODY).read_to_end(&mut unpacked).ok()?;
            &unpacked
        }
        _ => return None,
    };
    let mut input = Input::new(body);
    let n = rows.len();
    let ts = get_series(&mut input, n)?;
    let mono = get_series(&mut input, n)?;
    let seq = get_series(&mut input, n)?;
    let clocks = get_runs(&mut input, n)?;
    let texts = get_texts(&mut input)?;
    let points: Vec<Point> = get_texts(&mut input)?.iter().map(|name| name.parse().ok()).collect::<Option<_>>()?;
    let shapes = get_shapes(&mut input, points.len())?;
    let mut shape_of = Vec::with_capacity(n);
    for _ in 0..n {
        shape_of.push(input.count(shapes.len().checked_sub(1)?)?);
    }
    let mut lengths = vec![0_usize; points.len()];
    for shape in &shape_of {
        for &point in &shapes[*shape] {
            lengths[point] += 1;
        }
    }
    if lengths.iter().sum::<usize>() > MAX_FIELDS {
        return None;
    }
    let mut columns = Vec::with_capacity(points.len());
    for length in lengths {
        columns.push(get_column(&mut input, length, &texts)?.into_iter());
    }
    let mut samples = Vec::with_capacity(n);
    for i in 0..n {
        let mut fields = Vec::with_capacity(shapes[shape_of[i]].len());
        for &point in &shapes[shape_of[i]] {
            fields.push((points[point].clone(), columns[point].next()?));
        }
        samples.push(Stored {
            row: RowNo(rows[i]),
            sample: Arc::new(Sample {
                device: device.clone(),
                ts: Timestamp::from_ms(ts[i].cast_signed()),
                mono: Mono::from_ms(mono[i]),
                boot: boot.clone(),
                seq: seq[i],
                clock: *CLOCKS.get(usize::from(clocks[i]))?,
                points: fields,
            }),
        });
    }
    Some(samples)
}

/// Only the row numbers of a blob; `None` when it is damaged.
pub(crate) fn rows(blob: &[u8]) -> Option<Vec<u64>> {
    Some(open(blob)?.0)
}

fn open(blob: &[u8]) -> Option<(Vec<u64>, u8, &[u8])> {
    let mut input = Input::new(blob);
    if input.byte()? != FORMAT {
        return None;
    }
    let sum = u32::from_le_bytes(input.bytes(4)?.try_into().ok()?);
    if sum != crc(input.rest()) {
        return None;
    }
    let rows = get_rows(&mut input)?;
    let packing = input.byte()?;
    Some((rows, packing, input.rest()))
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn deflate(body: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(body).ok()?;
    encoder.finish().ok()
}

fn put_len(out: &mut Vec<u8>, n: usize) {
    put(out, u64::try_from(n).unwrap_or(u64::MAX));
}

/// Runs of equal items: (item, how many).
fn runs<T: PartialEq + Copy>(items: impl IntoIterator<Item = T>) -> Vec<(T, usize)> {
    let mut out: Vec<(T, usize)> = Vec::new();
    for item in items {
        match out.last_mut() {
            Some((last, n)) if *last == item => *n += 1,
            _ => out.push((item, 1)),
        }
    }
    out
}

fn put_rows(out: &mut Vec<u8>, samples: &[&Stored]) {
    put_len(out, samples.len());
    let mut at = 0;
    let steps = samples.iter().map(|s| s.row.0.wrapping_sub(std::mem::replace(&mut at, s.row.0)));
    for (step, n) in runs(steps) {
        put(out, step);
        put_len(out, n);
    }
}

fn get_rows(input: &mut Input<'_>) -> Option<Vec<u64>> {
    let n = input.count(MAX_ROWS)?;
    let mut rows = Vec::with_capacity(n);
    let mut at = 0_u64;
    while rows.len() < n {
        let step = input.number()?;
        for _ in 0..input.count(n - rows.len()).filter(|n| *n > 0)? {
            at = at.checked_add(step)?;
            rows.push(at);
        }
    }
    Some(rows)
}

/// Numbers that mostly step evenly: the change of their step.
fn put_series(out: &mut Vec<u8>, numbers: impl IntoIterator<Item = u64>) {
    let (mut last, mut step) = (0_u64, 0_u64);
    for n in numbers {
        let new = n.wrapping_sub(last);
        put(out, zigzag(new.wrapping_sub(step).cast_signed()));
        (last, step) = (n, new);
    }
}

fn get_series(input: &mut Input<'_>, n: usize) -> Option<Vec<u64>> {
    let (mut last, mut step) = (0_u64, 0_u64);
    let mut numbers = Vec::with_capacity(n);
    for _ in 0..n {
        step = step.wrapping_add(unzigzag(input.number()?).cast_unsigned());
        last = last.wrapping_add(step);
        numbers.push(last);
    }
    Some(numbers)
}

fn put_runs(out: &mut Vec<u8>, codes: impl IntoIterator<Item = u8>) {
    for (code, n) in runs(codes) {
        out.push(code);
        put_len(out, n);
    }
}

fn get_runs(input: &mut Input<'_>, n: usize) -> Option<Vec<u8>> {
    let mut codes = Vec::with_capacity(n);
    while codes.len() < n {
        let code = input.byte()?;
        let length = input.count(n - codes.len()).filter(|n| *n > 0)?;
        codes.resize(codes.len() + length, code);
    }
    Some(codes)
}

fn put_texts<'a>(out: &mut Vec<u8>, texts: impl ExactSizeIterator<Item = &'a str>) {
    put_len(out, texts.len());
    for text in texts {
        put_len(out, text.len());
        out.extend_from_slice(text.as_bytes());
    }
}

fn get_texts(input: &mut Input<'_>) -> Option<Vec<Arc<str>>> {
    // Each text takes at least a byte, so what is left bounds how many there can be.
    let n = input.count(input.rest().len())?;
    let mut texts = Vec::new();
    for _ in 0..n {
        let length = input.count(input.rest().len())?;
        texts.push(std::str::from_utf8(input.bytes(length)?).ok()?.into());
    }
    Some(texts)
}

fn get_shapes(input: &mut Input<'_>, points: usize) -> Option<Vec<Vec<usize>>> {
    let n = input.count(MAX_ROWS)?;
    let mut shapes = Vec::new();
    for _ in 0..n {
        let length = input.count(input.rest().len())?;
        let mut shape = Vec::new();
        for _ in 0..length {
            shape.push(input.count(points.checked_sub(1)?)?);
        }
        shapes.push(shape);
    }
    Some(shapes)
}

/// Gives each different item a number, in the order of coming.
struct Numbered<T> {
    items: Vec<T>,
    numbers: HashMap<T, usize>,
}

impl<T: Clone + Eq + std::hash::Hash> Numbered<T> {
    fn new() -> Self {
        Self { items: Vec::new(), numbers: HashMap::new() }
    }

    fn number(&mut self, item: T) -> usize {
        let next = self.items.len();
        *self.numbers.entry(item).or_insert_with_key(|item| {
            self.items.push(item.clone());
            next
        })
    }
}

fn body(samples: &[&Stored]) -> Vec<u8> {
    let mut points = Numbered::<&Point>::new();
    let mut shapes = Numbered::<Vec<usize>>::new();
    let mut texts = Numbered::<&str>::new();
    let mut columns: Vec<Vec<&Field>> = Vec::new();
    let mut shape_of = Vec::with_capacity(samples.len());
    for stored in samples {
        let shape: Vec<usize> = stored.sample.points.iter().map(|(point, _)| points.number(point)).collect();
        columns.resize_with(points.items.len(), || Vec::with_capacity(samples.len()));
        for (&point, (_, field)) in shape.iter().zip(&stored.sample.points) {
            columns[point].push(field);
            if let Ok(Value::Text(text)) = field {
                texts.number(text);
            }
        }
        shape_of.push(shapes.number(shape));
    }
    let mut out = Vec::new();
    put_series(&mut out, samples.iter().map(|s| s.sample.ts.ms().cast_unsigned()));
    put_series(&mut out, samples.iter().map(|s| s.sample.mono.ms()));
    put_series(&mut out, samples.iter().map(|s| s.sample.seq));
    put_runs(&mut out, samples.iter().map(|s| position(&CLOCKS, &s.sample.clock)));
    put_texts(&mut out, texts.items.iter().copied());
    put_texts(&mut out, points.items.iter().map(|p| p.as_str()));
    put_len(&mut out, shapes.items.len());
    for shape in &shapes.items {
        put_len(&mut out, shape.len());
        for &point in shape {
            put_len(&mut out, point);
        }
    }
    for shape in shape_of {
        put_len(&mut out, shape);
    }
    for column in columns {
        put_column(&mut out, &column, &mut texts);
    }
    out
}

fn position<T: PartialEq>(list: &[T], item: &T) -> u8 {
    // The lists hold every value of their type.
    list.iter().position(|i| i == item).and_then(|at| u8::try_from(at).ok()).unwrap_or_default()
}

fn put_column<'a>(out: &mut Vec<u8>, fields: &[&'a Field], texts: &mut Numbered<&'a str>) {
    put_runs(
        out,
        fields.iter().map(|field| match field {
            Ok(Value::Num(_)) => NUM,
            Ok(Value::Text(_)) => TEXT,
            Ok(Value::Flag(flag)) => {
                if *flag {
                    YES
                } else {
                    NO
                }
            }
            Err(reason) => FIRST_NULL + position(&NULLS, reason),
        }),
    );
    for field in fields {
        if let Ok(Value::Text(text)) = field {
            put_len(out, texts.number(text));
        }
    }
    let numbers: Vec<f64> = fields.iter().filter_map(|f| f.as_ref().ok()?.num()).collect();
    if !numbers.is_empty() {
        put_numbers(out, &numbers);
    }
}

fn get_column(input: &mut Input<'_>, n: usize, texts: &[Arc<str>]) -> Option<Vec<Field>> {
    let codes = get_runs(input, n)?;
    let mut words = Vec::new();
    for _ in 0..codes.iter().filter(|c| **c == TEXT).count() {
        words.push(Arc::clone(texts.get(input.count(texts.len())?)?));
    }
    let count = codes.iter().filter(|c| **c == NUM).count();
    let mut numbers = if count > 0 { get_numbers(input, count)? } else { Vec::new() }.into_iter();
    let mut words = words.into_iter();
    codes
        .into_iter()
        .map(|code| {
            Some(match code {
                NUM => Ok(Value::Num(numbers.next()?)),
                TEXT => Ok(Value::Text(words.next()?)),
                NO => Ok(Value::Flag(false)),
                YES => Ok(Value::Flag(true)),
                null => Err(*NULLS.get(usize::from(null - FIRST_NULL))?),
            })
        })
        .collect()
}

/// How a number is made of a whole number: profiles divide by a power of ten or multiply with its inverse, and the two
/// differ in the last bit.
#[derive(Clone, Copy)]
enum Scaling {
    Over(f64),
    Times(f64),
}

impl Scaling {
    /// By its number in the blob; `None` for [`BITS`] and numbers that were never given.
    fn by_code(code: u8) -> Option<Self> {
        let code = usize::from(code);
        match SCALES.get(code) {
            Some(scale) => Some(Self::Over(*scale)),
            None => SCALES.get(code - SCALES.len() + 1).map(|scale| Self::Times(1.0 / scale)),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "whole numbers beyond 2^53 are not taken")]
    fn value(self, whole: i64) -> f64 {
        match self {
            Self::Over(scale) => whole as f64 / scale,
            Self::Times(step) => whole as f64 * step,
        }
    }

    /// The whole number that comes back as exactly these bits.
    #[expect(clippy::cast_possible_truncation, reason = "checked against EXACT")]
    fn whole(self, value: f64) -> Option<i64> {
        let near = match self {
            Self::Over(scale) => value * scale,
            Self::Times(step) => value / step,
        }
        .round();
        if near.is_nan() || near.abs() >= EXACT {
            return None;
        }
        Some(near as i64).filter(|whole| self.value(*whole).to_bits() == value.to_bits())
    }
}

/// Numbers by their changed bits.
const BITS: u8 = 0xff;

fn put_numbers(out: &mut Vec<u8>, numbers: &[f64]) {
    for code in 0..u8::MAX {
        let Some(scaling) = Scaling::by_code(code) else { break };
        let Some(wholes) = numbers.iter().map(|n| scaling.whole(*n)).collect::<Option<Vec<_>>>() else { continue };
        out.push(code);
        let mut last = 0;
        for whole in wholes {
            put(out, zigzag(whole - std::mem::replace(&mut last, whole)));
        }
        return;
    }
    out.push(BITS);
    let mut last = 0;
    for n in numbers {
        // What changes are the high bits: turned round, they make a small number.
        put(out, (n.to_bits() ^ std::mem::replace(&mut last, n.to_bits())).reverse_bits());
    }
}

fn get_numbers(input: &mut Input<'_>, n: usize) -> Option<Vec<f64>> {
    let code = input.byte()?;
    let mut numbers = Vec::with_capacity(n);
    if code == BITS {
        let mut last = 0;
        for _ in 0..n {
            last ^= input.number()?.reverse_bits();
            numbers.push(f64::from_bits(last));
        }
    } else {
        let scaling = Scaling::by_code(code)?;
        let mut last = 0_i64;
        for _ in 0..n {
            last = last.wrapping_add(unzigzag(input.number()?));
            numbers.push(scaling.value(last));
        }
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id() -> DeviceId {
        "battery".parse().unwrap()
    }

    fn boot() -> BootId {
        BootId::new("c0ffee").unwrap()
    }

    fn number() -> impl Strategy<Value = f64> {
        prop_oneof![
            (-40_000..40_000_i32).prop_map(f64::from),
            (-40_000..40_000_i32).prop_map(|n| f64::from(n) / 10.0),
            (-40_000..40_000_i32).prop_map(|n| f64::from(n) * 0.01),
            any::<f32>().prop_map(f64::from),
            any::<u64>().prop_map(f64::from_bits),
            Just(-0.0),
            Just(EXACT),
        ]
    }

    fn field() -> impl Strategy<Value = Field> {
        prop_oneof![
            6 => number().prop_map(|n| Ok(Value::Num(n))),
            1 => ".{0,6}".prop_map(|t| Ok(Value::Text(t.into()))),
            1 => any::<bool>().prop_map(|f| Ok(Value::Flag(f))),
            1 => (0..NULLS.len()).prop_map(|n| Err(NULLS[n])),
        ]
    }

    fn point() -> impl Strategy<Value = Point> {
        prop_oneof![
            4 => (0..Point::ALL.len()).prop_map(|n| Point::ALL[n].clone()),
            1 => "x_[a-z0-9_]{1,8}".prop_map(|n| n.parse().unwrap()),
        ]
    }

    fn sample() -> impl Strategy<Value = Sample> {
        (any::<i64>(), any::<u64>(), any::<u64>(), 0..3_usize, proptest::collection::vec((point(), field()), 0..12))
            .prop_map(|(ts, mono, seq, clock, points)| Sample {
                device: id(),
                ts: Timestamp::from_ms(ts),
                mono: Mono::from_ms(mono),
                boot: boot(),
                seq,
                clock: CLOCKS[clock],
                points,
            })
    }

    fn stored(samples: Vec<(u64, Sample)>) -> Vec<Stored> {
        let mut row = 0;
        samples
            .into_iter()
            .map(|(step, sample)| {
                row += step;
                Stored { row: RowNo(row), sample: Arc::new(sample) }
            })
            .collect()
    }

    /// Bit for bit, also where a number is not equal to itself.
    fn same(a: &[Stored], b: &[Stored]) -> bool {
        a.len() == b.len()
            && a.iter().zip(b).all(|(a, b)| {
                let (x, y) = (&*a.sample, &*b.sample);
                let heads = (a.row, x.ts, x.mono, x.seq, x.clock) == (b.row, y.ts, y.mono, y.seq, y.clock);
                heads
                    && x.points.len() == y.points.len()
                    && x.points.iter().zip(&y.points).all(|((p, f), (q, g))| {
                        p == q
                            && match (f, g) {
                                (Ok(Value::Num(f)), Ok(Value::Num(g))) => f.to_bits() == g.to_bits(),
                                _ => f == g,
                            }
                    })
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_samples_come_back(samples in proptest::collection::vec((1..9_u64, sample()), 1..30)) {
            let samples = stored(samples);
            let blob = encode(&samples.iter().collect::<Vec<_>>());
            let back = decode(&id(), &boot(), &blob).expect("readable");
            prop_assert!(same(&samples, &back), "{samples:?}\n{back:?}");
            prop_assert_eq!(rows(&blob), Some(samples.iter().map(|s| s.row.0).collect::<Vec<_>>()));
        }

        #[test]
        fn any_bytes_are_read_without_panic(body in proptest::collection::vec(any::<u8>(), 0..200), packing in 0..3_u8, n in 0..40_u8) {
            // With a right sum and readable rows, so that the reading gets to the body.
            let mut blob = vec![FORMAT, 0, 0, 0, 0, n, 1, n, packing];
            blob.extend(body);
            let sum = crc(&blob[5..]);
            blob[1..5].copy_from_slice(&sum.to_le_bytes());
            let _any = decode(&id(), &boot(), &blob);
        }

        #[test]
        fn a_changed_bit_is_noticed(samples in proptest::collection::vec((1..9_u64, sample()), 1..4), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let samples = stored(samples);
            let mut blob = encode(&samples.iter().collect::<Vec<_>>());
            let at = at.index(blob.len());
            blob[at] ^= 1 << bit;
            prop_assert!(decode(&id(), &boot(), &blob).is_none());
        }
    }

    #[test]
    fn changed_bytes_under_a_right_sum_never_panic() {
        let sample = Sample {
            device: id(),
            ts: Timestamp::from_ms(1_800_000_000_000),
            mono: Mono::from_ms(5),
            boot: boot(),
            seq: 1,
            clock: ClockState::Synced,
            points: vec![(Point::PowerW, Ok(Value::Num(1.5))), (Point::State, Ok(Value::Text("on".into())))],
        };
        let samples = stored(vec![(1, sample.clone()), (1, sample)]);
        let mut good = encode(&samples.iter().collect::<Vec<_>>());
        assert_eq!(good[8], 0, "a short body is kept plain");
        for at in 5..good.len() {
            for byte in 0..=u8::MAX {
                let kept = std::mem::replace(&mut good[at], byte);
                let sum = crc(&good[5..]);
                good[1..5].copy_from_slice(&sum.to_le_bytes());
                let _any = decode(&id(), &boot(), &good);
                good[at] = kept;
            }
        }
    }

    #[test]
    fn a_minute_of_a_meter_is_small() {
        let samples: Vec<Stored> = (0..60_u32)
            .map(|i| {
                let noise = f64::from(i * 7919 % 101);
                let points =
                    Point::ALL[..16].iter().map(|p| (p.clone(), Ok(Value::Num((2300.0 + noise) / 10.0)))).collect();
                let i = u64::from(i);
                Stored {
                    row: RowNo(4 * i + 1),
                    sample: Arc::new(Sample {
                        device: id(),
                        ts: Timestamp::from_ms(1_800_000_000_000 + 1000 * i.cast_signed()),
                        mono: Mono::from_ms(1000 * i),
                        boot: boot(),
                        seq: i,
                        clock: ClockState::Synced,
                        points,
                    }),
                }
            })
            .collect();
        let blob = encode(&samples.iter().collect::<Vec<_>>());
        // 60 samples of 16 points: plain f64 would be 7,680 bytes.
        assert!(blob.len() < 1200, "{} bytes", blob.len());
        assert_eq!(decode(&id(), &boot(), &blob), Some(samples));
    }
}
