//! One model's registers: points by offset from the model's ID register.

use crate::model::NullReason;
use crate::profile::words::{Kind, number};

/// A SunSpec integer, with the value that means "not implemented".
#[derive(Debug, Clone, Copy)]
pub(super) enum Int {
    U16,
    S16,
    U32,
    /// A counter of 32 bits: 0 is left to the counter rule.
    Acc32,
    /// A counter of 64 bits.
    Acc64,
    U64,
}

/// The words of one model from its ID register on; may be shorter than the model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Model<'a> {
    words: &'a [u16],
}

impl<'a> Model<'a> {
    pub(super) const fn new(words: &'a [u16]) -> Self {
        Self { words }
    }

    pub(super) fn slice(&self, at: usize, len: usize) -> Option<&'a [u16]> {
        self.words.get(at..at.checked_add(len)?)
    }

    /// The register itself.
    pub(super) fn word(&self, at: usize) -> Option<u16> {
        self.words.get(at).copied()
    }

    /// An enum16, bitfield16 or time: `None` for 0xFFFF and for a register that is not there.
    pub(super) fn enumeration(&self, at: usize) -> Option<u16> {
        self.word(at).filter(|w| *w != 0xFFFF)
    }

    /// A bitfield32: `None` when not implemented.
    pub(super) fn bits32(&self, at: usize) -> Option<u32> {
        let pair = self.slice(at, 2)?;
        let bits = pair.iter().fold(0_u32, |acc, w| (acc << 16) | u32::from(*w));
        // the specification also takes the top bit for "not implemented"
        (bits & 0x8000_0000 == 0).then_some(bits)
    }

    /// The scale factor register: `None` when not implemented or out of the specification's range.
    pub(super) fn scale(&self, at: usize) -> Option<i32> {
        let raw = i32::from(self.word(at)?.cast_signed());
        (-10..=10).contains(&raw).then_some(raw)
    }

    /// The integer as it stands.
    pub(super) fn int(&self, kind: Int, at: usize) -> Result<f64, NullReason> {
        let (kind, na): (Kind, &[u64]) = match kind {
            Int::U16 => (Kind::U16, &[0xFFFF]),
            Int::S16 => (Kind::S16, &[0x8000]),
            Int::U32 => (Kind::U32, &[0xFFFF_FFFF]),
            // 0xFFFFFFFF is not a counter's marker, but no counter stands there and devices use it
            Int::Acc32 => (Kind::U32, &[0xFFFF_FFFF]),
            Int::Acc64 | Int::U64 => (Kind::U64, &[0xFFFF_FFFF_FFFF_FFFF, 0x8000_0000_0000_0000]),
        };
        let words = self.slice(at, usize::from(kind.len())).ok_or(NullReason::NotImplemented)?;
        number(kind, words, false, na)
    }

    /// The integer times ten to the power of the scale factor register.
    pub(super) fn scaled(&self, kind: Int, at: usize, scale_at: usize) -> Result<f64, NullReason> {
        let value = self.int(kind, at)?;
        let scale = self.scale(scale_at).ok_or(NullReason::NotImplemented)?;
        Ok(power_of_ten(value, scale))
    }

    /// A float32.
    pub(super) fn float(&self, at: usize) -> Result<f64, NullReason> {
        let words = self.slice(at, 2).ok_or(NullReason::NotImplemented)?;
        // -FLT_MAX stands for "none" on some devices
        number(Kind::F32, words, false, &[0xFF7F_FFFF])
    }
}

/// `value` x 10^`scale`: divided where the scale is negative, so that decimals come out as near as they can.
pub(super) fn power_of_ten(value: f64, scale: i32) -> f64 {
    if scale < 0 { value / 10_f64.powi(-scale) } else { value * 10_f64.powi(scale) }
}
