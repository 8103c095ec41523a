//! A device's register image: a chain of models from the base address on, each point with its place and type.

use std::collections::BTreeMap;

/// Where the chain of models begins.
pub(super) const BASE: u16 = 40_000;

/// One model: its number and its points in their order, `name:type` with a `*` where they can be written.
pub(super) struct Model {
    pub(super) id: u16,
    pub(super) points: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unsigned,
    Signed,
    Wide,
    Acc32,
    Acc64,
    Scale,
    Text(usize),
}

impl Kind {
    /// From the type letter; `None` is a fault of the table, which a test finds by the model's length.
    fn parse(letter: &str) -> Option<Self> {
        Some(match letter {
            "u" | "e" | "b" => Self::Unsigned,
            "i" => Self::Signed,
            "U" | "B" => Self::Wide,
            "a" => Self::Acc32,
            "l" => Self::Acc64,
            "f" | "p" => Self::Scale,
            text => Self::Text(text.strip_prefix('s')?.parse().ok()?),
        })
    }

    const fn size(self) -> usize {
        match self {
            Self::Unsigned | Self::Signed | Self::Scale => 1,
            Self::Wide | Self::Acc32 => 2,
            Self::Acc64 => 4,
            Self::Text(n) => n,
        }
    }

    /// What each register of the point holds when the device does not implement it.
    const fn absent(self) -> u16 {
        match self {
            Self::Unsigned | Self::Wide => 0xFFFF,
            Self::Signed | Self::Scale => 0x8000,
            Self::Acc32 | Self::Acc64 | Self::Text(_) => 0,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    at: usize,
    kind: Kind,
}

/// Why a request is refused, as the exception it is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Exception 2.
    Address,
    /// Exception 3.
    Value,
}

/// The registers of one device.
#[derive(Debug)]
pub(super) struct Image {
    words: Vec<u16>,
    writable: Vec<bool>,
    slots: BTreeMap<(u16, &'static str), Slot>,
}

impl Image {
    /// All points not implemented yet.
    pub(super) fn new(models: &[&Model]) -> Self {
        let mut image = Self { words: vec![0x5375, 0x6E53], writable: vec![false; 2], slots: BTreeMap::new() };
        for model in models {
            let head = image.words.len();
            image.extend(&[model.id, 0], false);
            for token in model.points.split_whitespace() {
                let Some((name, kind)) = token.split_once(':') else { continue };
                let Some(parsed) = Kind::parse(kind.trim_end_matches('*')) else { continue };
                image.slots.insert((model.id, name), Slot { at: image.words.len(), kind: parsed });
                image.extend(&vec![parsed.absent(); parsed.size()], kind.ends_with('*'));
            }
            image.words[head + 1] = (image.words.len() - head - 2) as u16;
        }
        image.extend(&[0xFFFF, 0], false);
        image
    }

    fn extend(&mut self, words: &[u16], writable: bool) {
        self.words.extend_from_slice(words);
        self.writable.resize(self.words.len(), writable);
    }

    /// The address of a point; the base when there is no such point.
    pub(super) fn address(&self, model: u16, name: &'static str) -> u16 {
        BASE + self.slots.get(&(model, name)).map_or(0, |slot| slot.at as u16)
    }

    /// Store a raw value, limited to what the point's type can hold.
    pub(super) fn raw(&mut self, model: u16, name: &'static str, value: i64) -> i64 {
        let Some(Slot { at, kind }) = self.slots.get(&(model, name)).copied() else { return 0 };
        let (low, high) = match kind {
            Kind::Unsigned => (0, 0xFFFE),
            Kind::Signed => (-0x7FFF, 0x7FFF),
            Kind::Scale => (-10, 10),
            // an accumulator rolls over
            Kind::Wide | Kind::Acc32 | Kind::Acc64 => (0, i64::MAX),
            Kind::Text(_) => return 0,
        };
        let value = value.clamp(low, high);
        for (i, word) in self.words[at..at + kind.size()].iter_mut().rev().enumerate() {
            *word = (value >> (16 * i)) as u16;
        }
        value
    }

    /// Store `value` with a fixed number of decimals (negative scale factor); returns what the registers now say.
    pub(super) fn num(&mut self, model: u16, name: &'static str, value: f64, decimals: i32) -> f64 {
        let scale = 10_f64.powi(decimals);
        self.raw(model, name, (value * scale).round() as i64) as f64 / scale
    }

    /// Store scale factors.
    pub(super) fn scales(&mut self, model: u16, factors: &[(&'static str, i64)]) {
        for (name, factor) in factors {
            self.raw(model, name, *factor);
        }
    }

    /// Store a text, padded with NUL.
    pub(super) fn text(&mut self, model: u16, name: &'static str, text: &str) {
        let Some(Slot { at, kind: Kind::Text(size) }) = self.slots.get(&(model, name)).copied() else { return };
        let mut bytes = text.bytes();
        for word in &mut self.words[at..at + size] {
            *word = u16::from_be_bytes([bytes.next().unwrap_or(0), bytes.next().unwrap_or(0)]);
        }
    }

    /// The first register of a point.
    pub(super) fn word(&self, model: u16, name: &'static str) -> u16 {
        self.slots.get(&(model, name)).map_or(0, |slot| self.words[slot.at])
    }

    /// The first register of a point as a signed number.
    pub(super) fn signed(&self, model: u16, name: &'static str) -> i16 {
        self.word(model, name).cast_signed()
    }

    /// Was a point between two of a model, both included, touched by a write to these addresses.
    pub(super) fn touches(&self, model: u16, first: &'static str, last: &'static str, at: u16, count: usize) -> bool {
        let (first, last) = (self.address(model, first), self.address(model, last));
        at <= last && usize::from(at) + count > usize::from(first)
    }

    fn span(&self, address: u16, count: usize) -> Result<std::ops::Range<usize>, Refusal> {
        let from = usize::from(address.checked_sub(BASE).ok_or(Refusal::Address)?);
        if from + count <= self.words.len() { Ok(from..from + count) } else { Err(Refusal::Address) }
    }

    /// What a read of holding registers gives.
    pub(super) fn read(&self, address: u16, count: u16) -> Result<Vec<u16>, Refusal> {
        if !(1..=125).contains(&count) {
            return Err(Refusal::Value);
        }
        Ok(self.words[self.span(address, usize::from(count))?].to_vec())
    }

    /// Take a write, after `check` has seen the image as it would be. A writable point that the device does not
    /// implement takes a write and forgets it.
    pub(super) fn write(&mut self, address: u16, words: &[u16], check: fn(&Self) -> bool) -> Result<(), Refusal> {
        if !(1..=123).contains(&words.len()) {
            return Err(Refusal::Value);
        }
        let span = self.span(address, words.len())?;
        if !self.writable[span.clone()].iter().all(|w| *w) {
            return Err(Refusal::Value);
        }
        let before = self.words.clone();
        for slot in self.slots.values().filter(|slot| span.contains(&slot.at)) {
            let word = words[slot.at - span.start];
            if before[slot.at] != slot.kind.absent() {
                self.words[slot.at] = word;
                if word == slot.kind.absent() || !check(self) {
                    self.words = before;
                    return Err(Refusal::Value);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tables;
    use super::*;

    #[test]
    fn lengths_are_those_of_the_models() {
        for (model, length) in [
            (&tables::COMMON, 66),
            (&tables::INVERTER, 50),
            (&tables::NAMEPLATE, 26),
            (&tables::SETTINGS, 30),
            (&tables::STATUS, 44),
            (&tables::CONTROLS, 24),
            (&tables::STORAGE, 24),
            (&tables::METER, 105),
            (&tables::BATTERY, 62),
        ] {
            let image = Image::new(&[model]);
            assert_eq!(image.words[2..4], [model.id, length], "model {}", model.id);
            assert_eq!(image.words.len(), 6 + usize::from(length));
            assert_eq!(image.words[image.words.len() - 2..], [0xFFFF, 0]);
        }
    }

    #[test]
    fn points_lie_where_the_models_say() {
        // offsets from the model's ID register, by hand from the model definitions
        for (model, name, offset) in [
            (&tables::COMMON, "Md", 18),
            (&tables::COMMON, "SN", 50),
            (&tables::COMMON, "DA", 66),
            (&tables::INVERTER, "AphA", 3),
            (&tables::INVERTER, "PhVphA", 10),
            (&tables::INVERTER, "W", 14),
            (&tables::INVERTER, "WH", 24),
            (&tables::INVERTER, "DCW", 31),
            (&tables::INVERTER, "St", 38),
            (&tables::NAMEPLATE, "WRtg", 3),
            (&tables::NAMEPLATE, "MaxDisChaRte_SF", 26),
            (&tables::SETTINGS, "WMax", 2),
            (&tables::SETTINGS, "WMax_SF", 22),
            (&tables::STATUS, "ActWh", 5),
            (&tables::STATUS, "StActCtl", 35),
            (&tables::CONTROLS, "Conn", 4),
            (&tables::CONTROLS, "WMaxLimPct", 5),
            (&tables::CONTROLS, "WMaxLimPct_RvrtTms", 7),
            (&tables::CONTROLS, "WMaxLim_Ena", 9),
            (&tables::CONTROLS, "WMaxLimPct_SF", 23),
            (&tables::STORAGE, "StorCtl_Mod", 5),
            (&tables::STORAGE, "MinRsvPct", 7),
            (&tables::STORAGE, "ChaState", 8),
            (&tables::STORAGE, "OutWRte", 12),
            (&tables::STORAGE, "InWRte", 13),
            (&tables::STORAGE, "InOutWRte_RvrtTms", 15),
            (&tables::STORAGE, "InOutWRte_SF", 25),
            (&tables::METER, "W", 18),
            (&tables::METER, "WphA", 19),
            (&tables::METER, "TotWhExp", 38),
            (&tables::METER, "TotWhImp", 46),
            (&tables::METER, "TotWh_SF", 54),
            (&tables::METER, "Evt", 105),
            (&tables::BATTERY, "SoCRsvMin", 10),
            (&tables::BATTERY, "SoC", 11),
            (&tables::BATTERY, "W", 47),
            (&tables::BATTERY, "SetInvState", 51),
            (&tables::BATTERY, "W_SF", 63),
        ] {
            assert_eq!(Image::new(&[model]).address(model.id, name), BASE + 2 + offset, "{}.{name}", model.id);
        }
    }

    #[test]
    fn values_and_markers() {
        let mut image = Image::new(&[&tables::METER]);
        let at = image.address(203, "WphB");
        assert_eq!(image.read(at, 1), Ok(vec![0x8000]), "not implemented");
        assert_eq!(image.raw(203, "WphB", -2), -2);
        assert_eq!(image.read(at, 1), Ok(vec![0xFFFE]));
        image.raw(203, "TotWhImp", 0x0001_0002);
        assert_eq!(image.read(image.address(203, "TotWhImp"), 2), Ok(vec![1, 2]));
        assert!((image.num(203, "PhVphA", 230.449, 1) - 230.4).abs() < 1e-12);
        assert_eq!(image.raw(203, "W", 40_000), 0x7FFF, "held at the end of the type");
    }

    #[test]
    fn refusals() {
        let mut image = Image::new(&[&tables::CONTROLS]);
        image.raw(123, "WMaxLimPct", 100);
        image.raw(123, "WMaxLim_Ena", 0);
        let pct = image.address(123, "WMaxLimPct");
        assert_eq!(image.read(BASE - 1, 1), Err(Refusal::Address));
        assert_eq!(image.read(BASE, 31), Err(Refusal::Address));
        assert_eq!(image.read(BASE, 126), Err(Refusal::Value));
        assert_eq!(image.write(BASE, &[1], |_| true), Err(Refusal::Value), "read-only");
        assert_eq!(image.write(BASE + 60, &[1], |_| true), Err(Refusal::Address));
        assert_eq!(image.write(pct, &[50, 1], |_| true), Ok(()));
        assert_eq!(image.read(pct, 2), Ok(vec![50, 0xFFFF]), "the window is not implemented");
        assert_eq!(image.write(pct, &[51], |_| false), Err(Refusal::Value));
        assert_eq!(image.word(123, "WMaxLimPct"), 50, "as before");
    }
}
