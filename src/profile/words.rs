//! Register words to numbers: every width and word order, every N/A marker.

use crate::model::NullReason;

/// The type of a value in registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    U16,
    S16,
    U32,
    S32,
    U64,
    S64,
    F32,
    F64,
    /// Text over so many registers.
    Text(u16),
}

impl Kind {
    pub(super) const WORDS: &'static [(&'static str, Self)] = &[
        ("u16", Self::U16),
        ("s16", Self::S16),
        ("u32", Self::U32),
        ("s32", Self::S32),
        ("u64", Self::U64),
        ("s64", Self::S64),
        ("f32", Self::F32),
        ("f64", Self::F64),
        ("string", Self::Text(0)),
    ];

    /// Registers it takes.
    pub(super) const fn len(self) -> u16 {
        match self {
            Self::U16 | Self::S16 => 1,
            Self::U32 | Self::S32 | Self::F32 => 2,
            Self::U64 | Self::S64 | Self::F64 => 4,
            Self::Text(n) => n,
        }
    }
}

/// The words as one unsigned number, the most significant first (or last when `little`).
pub(super) fn raw(words: &[u16], little: bool) -> u64 {
    let join = |acc: u64, w: &u16| (acc << 16) | u64::from(*w);
    if little { words.iter().rev().fold(0, join) } else { words.iter().fold(0, join) }
}

/// A u64 as the nearest f64.
pub(super) fn wide(n: u64) -> f64 {
    let half = |x: u64| f64::from(u32::try_from(x & 0xFFFF_FFFF).unwrap_or(u32::MAX));
    half(n >> 32) * 4_294_967_296.0 + half(n)
}

fn wide_signed(n: i64) -> f64 {
    if n < 0 { -wide(n.unsigned_abs()) } else { wide(n.unsigned_abs()) }
}

/// A number from as many words as its kind takes; `na` holds raw values that mean "none".
pub(super) fn number(kind: Kind, words: &[u16], little: bool, na: &[u64]) -> Result<f64, NullReason> {
    if words.len() != usize::from(kind.len()) {
        return Err(NullReason::Unavailable);
    }
    let bits = raw(words, little);
    if na.contains(&bits) {
        return Err(NullReason::NotImplemented);
    }
    let low = |n: u64| u32::try_from(n & 0xFFFF_FFFF).unwrap_or(u32::MAX);
    let value = match kind {
        Kind::U16 | Kind::U32 | Kind::U64 => wide(bits),
        Kind::S16 => words.first().map_or(0.0, |w| f64::from(w.cast_signed())),
        Kind::S32 => f64::from(low(bits).cast_signed()),
        Kind::S64 => wide_signed(bits.cast_signed()),
        Kind::F32 => f64::from(f32::from_bits(low(bits))),
        Kind::F64 => f64::from_bits(bits),
        Kind::Text(_) => return Err(NullReason::Unavailable),
    };
    if value.is_finite() { Ok(value) } else { Err(NullReason::NotImplemented) }
}

/// A text: bytes high first, up to the first NUL, without padding; `None` when nothing is left.
pub(super) fn text(words: &[u16]) -> Option<String> {
    let bytes: Vec<u8> =
        words.iter().flat_map(|w| w.to_be_bytes()).take_while(|b| *b != 0).filter(|b| *b != 0xFF).collect();
    let text: String = String::from_utf8_lossy(&bytes).chars().filter(|c| !c.is_control()).collect();
    let text = text.trim();
    if text.is_empty() { None } else { Some(text.to_owned()) }
}

/// `value`, rounded, as a register; `None` when it does not fit.
#[expect(clippy::as_conversions, reason = "a whole number in range: exact")]
pub(super) fn to_u16(value: f64) -> Option<u16> {
    let rounded = value.round();
    (0.0..=65535.0).contains(&rounded).then_some(rounded as u16)
}

/// `value`, rounded, as a signed register; `None` when it does not fit.
#[expect(clippy::as_conversions, reason = "a whole number in range: exact")]
pub(super) fn to_i16(value: f64) -> Option<u16> {
    let rounded = value.round();
    (-32768.0..=32767.0).contains(&rounded).then_some((rounded as i16).cast_unsigned())
}
