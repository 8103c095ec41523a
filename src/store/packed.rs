//! The text of a decision as few bytes, and back. Pure.
//!
//! ```text
//! format = 1 | CRC-32 of all behind it | clock state | deflate, as if the fixed text and the base's text stood before it
//! ```
//! Decisions of one device repeat each other: what one has in common with its base, or with the fixed text (the words that
//! nearly every decision has), costs next to nothing. A format is never changed once released.

use crate::model::ClockState;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

const FORMAT: u8 = 1;
/// No text is longer, bytes: it would not fit the window behind which deflate sees what was before.
pub(crate) const MAX_TEXT: usize = 12 * 1024;
const CLOCKS: [ClockState; 3] = [ClockState::Synced, ClockState::Holdover, ClockState::Untrusted];
/// Words of a decision, the most frequent last. Part of format 1.
const FIXED: &str = concat!(
    r#""step":"lease","state":"written","state":"verified","state":"held","state":"failed","state":"reverted","text":""#,
    r#""tag""schedule""event""grid""default"plan  by local owner "set_max_current","params":{"current_a":"#,
    r#""action":"discharge""action":"start""action":"stop""action":"idle""action":"auto""then":{"action":"release"}"#,
    r#"{"step":"limit","name":"export_limit","from":,"to":,"unit":"A","why":"the grid meter shows  kW;  kW are allowed"}"#,
    r#"{"step":"input","name":"soc_pct","value":null,"why":"stale"},{"step":"input","name":"grid_w","value":"#,
    r#",{"step":"intent","outcome":"waits","rank":"owner",","requested":{},"why":" ranks higher (owner)"},"#,
    r#"{"device":"battery","at":"2026-11-20T12:00:00.000Z","clock":"synced","sentence":"battery charges with 2.0 kW: "#,
    r#" asked for 5.0 kW by command  until  UTC, and the import limit leaves no more.","#,
    r#""holder":null,"holder":{"source":"local","rank":"command","key":"command  by ","action":"charge","#,
    r#""requested":{"power_w":5000},"applied":{"power_w":2000},"ends_at":"2026-11-20T12:00:00.000Z"},"#,
    r#""demand":null,"demand":{"action":"charge","power_w":2000},"then":{"action":"release"},"limited_by":null,"#,
    r#""limited_by":"import_limit","trace":[{"step":"input","name":"grid_w","value":8200.0},"#,
    r#"{"step":"intent","outcome":"wins","rank":"command","source":"","key":"command ","action":"charge","#,
    r#""requested":{"power_w":5000},"ends_at":"2026-11-20T12:00:00.000Z","why":null},"#,
    r#"{"step":"limit","name":"import_limit","from":5000.0,"to":2000.0,"unit":"W","why":""}]}"#,
);

/// Pack a text; `None` when it is longer than [`MAX_TEXT`].
pub(crate) fn pack(clock: ClockState, text: &str, base: Option<&str>) -> Option<Vec<u8>> {
    if text.len() > MAX_TEXT {
        return None;
    }
    let mut deflate = Compress::new(Compression::new(9), false);
    // What a sync flush leaves behind ends on a whole byte, so what follows can be cut off.
    let mut before = Vec::with_capacity(MAX_TEXT * 3);
    let known = known(base);
    deflate.compress_vec(known.as_bytes(), &mut before, FlushCompress::Sync).ok()?;
    if deflate.total_in() != u64::try_from(known.len()).ok()? {
        return None;
    }
    let mut out = vec![FORMAT, 0, 0, 0, 0, u8::try_from(CLOCKS.iter().position(|state| *state == clock)?).ok()?];
    let mut body = Vec::with_capacity(text.len() + 64);
    let status = deflate.compress_vec(text.as_bytes(), &mut body, FlushCompress::Finish).ok()?;
    if status != Status::StreamEnd {
        return None;
    }
    out.extend(body);
    let sum = crc(out.get(5..)?).to_le_bytes();
    out.get_mut(1..5)?.copy_from_slice(&sum);
    Some(out)
}

/// The clock state and text of a packed decision; `None` when it is damaged or the base is another.
pub(crate) fn unpack(data: &[u8], base: Option<&str>) -> Option<(ClockState, String)> {
    let (&[FORMAT, a, b, c, d], rest) = data.split_first_chunk::<5>()? else { return None };
    if crc(rest) != u32::from_le_bytes([a, b, c, d]) {
        return None;
    }
    let (&clock, body) = rest.split_first()?;
    let clock = *CLOCKS.get(usize::from(clock))?;
    let mut inflate = Decompress::new(false);
    let known = known(base);
    let mut before = Vec::with_capacity(known.len() + 64);
    inflate.decompress_vec(&stored(known.as_bytes())?, &mut before, FlushDecompress::None).ok()?;
    if before != known.as_bytes() {
        return None;
    }
    let mut text = Vec::with_capacity(MAX_TEXT);
    let status = inflate.decompress_vec(body, &mut text, FlushDecompress::Finish).ok()?;
    (status == Status::StreamEnd).then_some(())?;
    Some((clock, String::from_utf8(text).ok()?))
}

fn known(base: Option<&str>) -> String {
    format!("{FIXED}{}", base.unwrap_or_default())
}

/// Bytes as deflate's stored blocks, none of them the last.
fn stored(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len() + 16);
    for block in bytes.chunks(usize::from(u16::MAX)) {
        let len = u16::try_from(block.len()).ok()?;
        out.push(0);
        out.extend(len.to_le_bytes());
        out.extend((!len).to_le_bytes());
        out.extend(block);
    }
    Some(out)
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn comes_back(text in ".{0,400}", base in proptest::option::of(".{0,400}")) {
            let data = pack(ClockState::Holdover, &text, base.as_deref()).unwrap();
            prop_assert_eq!(unpack(&data, base.as_deref()), Some((ClockState::Holdover, text)));
        }

        #[test]
        fn garbage_is_refused_softly(data in proptest::collection::vec(any::<u8>(), 0..200), flip in 0..400_usize) {
            prop_assert_eq!(unpack(&data, None), None);
            let mut good = pack(ClockState::Synced, &"a decision ".repeat(9), Some("base")).unwrap();
            let at = flip / 8 % good.len();
            good[at] ^= 1 << (flip % 8);
            prop_assert_eq!(unpack(&good, Some("base")), None);
        }
    }

    #[test]
    fn a_text_of_any_length_that_is_let_in_fits_the_window() {
        // Nothing in it repeats, so that nothing gets shorter.
        let mut n = 7_u32;
        let noise: String = (0..MAX_TEXT)
            .map(|_| {
                n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                char::from(b' ' + u8::try_from(n >> 24).unwrap() % 95)
            })
            .collect();
        let data = pack(ClockState::Synced, &noise, Some(&noise)).unwrap();
        assert!(data.len() < 400, "equal to its base: {} bytes", data.len());
        assert_eq!(unpack(&data, Some(&noise)).unwrap().1, noise);
        let alone = pack(ClockState::Synced, &noise, None).unwrap();
        assert_eq!(unpack(&alone, None).unwrap().1, noise);
        assert_eq!(pack(ClockState::Synced, &format!("{noise}!"), None), None);
    }

    /// A text as control makes it, with numbers of its own.
    pub(crate) fn decision(n: u32) -> String {
        format!(
            concat!(
                r#"{{"device":"battery","at":"2026-11-20T12:{:02}:{:02}.{:03}Z","clock":"synced","sentence":"battery charges with {}.{} kW: "#,
                r#"acme asked for 5.0 kW by command c-{} until 12:15 UTC, and the import limit leaves no more.","#,
                r#""holder":{{"source":"acme","rank":"command","key":"command c-{} by acme","action":"charge","requested":{{"power_w":5000}},"#,
                r#""applied":{{"power_w":2{:03}}},"ends_at":"2026-11-20T12:15:00.000Z"}},"demand":{{"action":"charge","power_w":2{:03}}},"#,
                r#""then":{{"action":"release"}},"limited_by":"import_limit","trace":[{{"step":"input","name":"grid_w","value":8{:03}.5,"why":null}},"#,
                r#"{{"step":"input","name":"soc_pct","value":5{}.2,"why":null}},{{"step":"intent","outcome":"wins","rank":"command","source":"acme","#,
                r#""key":"command c-{} by acme","action":"charge","requested":{{"power_w":5000}},"ends_at":"2026-11-20T12:15:00.000Z","why":null}},"#,
                r#"{{"step":"intent","outcome":"waits","rank":"schedule","source":"local","key":"plan night","action":"idle","requested":{{}},"ends_at":"2026-11-20T22:00:00.000Z","#,
                r#""why":"command c-{} by acme ranks higher (command)"}},{{"step":"limit","name":"import_limit","from":5000.0,"to":2{:03}.0,"unit":"W","#,
                r#""why":"the grid meter shows 8.{} kW; 17.3 kW are allowed"}},{{"step":"lease","state":"verified","at":"2026-11-20T12:00:01.000Z","text":"unit 1 holding 40345 reads 2000"}}]}}"#
            ),
            n / 60 % 60,
            n % 60,
            n * 7 % 1000,
            n % 10,
            n * 3 % 10,
            n / 50,
            n / 50,
            n * 37 % 1000,
            n * 37 % 1000,
            n * 91 % 1000,
            n % 10,
            n / 50,
            n / 50,
            n * 37 % 1000,
            n % 10
        )
    }

    #[test]
    fn a_decision_takes_few_bytes() {
        let first = decision(1);
        let alone: usize = (2..102).map(|n| pack(ClockState::Synced, &decision(n), None).unwrap().len()).sum();
        let based: usize = (2..102).map(|n| pack(ClockState::Synced, &decision(n), Some(&first)).unwrap().len()).sum();
        let plain = first.len();
        assert!(plain > 1200 && alone < 22_000 && based < 7_500, "{plain} {alone} {based}");
    }

    /// Bytes that a released derd wrote must be read for ever.
    #[test]
    fn format_1_stays() {
        assert_eq!(crc(FIXED.as_bytes()), 2_194_143_040, "the fixed text is part of the format");
    }
}
