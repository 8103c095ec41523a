//! What the installer set in a SunSpec device: recorded before the first write, gone back to, and watched.

use super::Located;
use super::control::{
    BOTH, Control, GRID_CHARGE, IN_RATE, LIMIT_ENABLE, LIMIT_PCT, LIMIT_REVERT, MIN_RSV_PCT, OUT_RATE, RATE_REVERT,
    STOR_CTL_MOD, full,
};
use super::model::{Model, power_of_ten};
use crate::model::{DeviceKind, Drift};
use crate::profile::words::{to_i16, to_u16};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Points that derd never writes and that an installer sets: model, offset from its ID register, name.
const WATCHED: [(u16, u16, &str); 14] = [
    (121, 2, "121.WMax"),
    (123, 4, "123.Conn"),
    (124, 2, "124.WChaMax"),
    (702, 26, "702.WMax"),
    (702, 34, "702.WChaRteMax"),
    (702, 35, "702.WDisChaRteMax"),
    (704, 14, "704.WMaxLimPctEna"),
    (704, 15, "704.WMaxLimPct"),
    (704, 22, "704.WSetEna"),
    (704, 25, "704.WSet"),
    (802, 7, "802.SoCMax"),
    (802, 8, "802.SoCMin"),
    (802, 9, "802.SocRsvMax"),
    (802, 10, "802.SoCRsvMin"),
];

/// The models that are read for a baseline beside the one that is written.
pub(super) const fn models(kind: DeviceKind) -> &'static [u16] {
    match kind {
        DeviceKind::Inverter => &[121, 702, 704],
        DeviceKind::Battery => &[702, 704, 802],
        _ => &[],
    }
}

/// What the installer set in the registers that derd writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Baseline {
    Limit {
        pct: u16,
        enabled: bool,
        revert: Option<u16>,
        /// False where the device produced far more than the limit says: it is not one.
        effective: bool,
    },
    Storage {
        mode: u16,
        out_rate: u16,
        in_rate: u16,
        revert: Option<u16>,
        grid: Option<u16>,
        reserve: Option<u16>,
    },
}

/// A baseline with what is only watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) control: Baseline,
    /// By the names of [`WATCHED`].
    watch: BTreeMap<String, u16>,
    /// The reserve as derd last set it for its owner: no drift.
    pub(super) own_reserve: Option<u16>,
}

/// The models as read: the one that is written first, then those of [`models`].
pub(super) struct Seen<'a> {
    pub(super) control: &'a [u16],
    /// AC power at that time, W.
    pub(super) running: Option<f64>,
    pub(super) others: Vec<(Located, &'a [u16])>,
}

impl Control {
    fn raw(&self, words: &[u16], running: Option<f64>) -> Result<Baseline, String> {
        let model = self.model().ok_or("there is nothing to control")?;
        let m = Model::new(words);
        if m.word(0) != Some(model.id) || m.slice(0, 26).is_none() {
            return Err(format!("model {} could not be read", model.id));
        }
        let at = |offset: u16| m.enumeration(usize::from(offset));
        let signed = |offset: u16| m.word(usize::from(offset)).filter(|w| *w != 0x8000);
        match *self {
            Self::None => Err("there is nothing to control".to_owned()),
            Self::Limit { base_w, scale, .. } => {
                let enabled = at(LIMIT_ENABLE) == Some(1);
                let pct = at(LIMIT_PCT).or(to_u16(full(scale))).unwrap_or(u16::MAX);
                let limit_w = power_of_ten(f64::from(pct), scale) / 100.0 * base_w;
                let effective = enabled && running.is_none_or(|w| w <= 1.05 * limit_w + 0.02 * base_w);
                Ok(Baseline::Limit { pct, enabled, revert: at(LIMIT_REVERT), effective })
            }
            Self::Storage { now, .. } => {
                let all = to_i16(full(now.rate_scale)).unwrap_or(0x7FFF);
                Ok(Baseline::Storage {
                    mode: at(STOR_CTL_MOD).unwrap_or(0),
                    out_rate: signed(OUT_RATE).unwrap_or(all),
                    in_rate: signed(IN_RATE).unwrap_or(all),
                    revert: at(RATE_REVERT),
                    grid: at(GRID_CHARGE),
                    reserve: at(MIN_RSV_PCT),
                })
            }
        }
    }

    /// What is to be gone back to.
    pub(super) fn take_baseline(&self, seen: &Seen<'_>) -> Result<Recorded, String> {
        let mut control = self.raw(seen.control, seen.running)?;
        if let (Baseline::Storage { mode, out_rate, in_rate, .. }, Self::Storage { now, .. }) = (&mut control, self) {
            // A minus forces the other direction, two zeros lock: a controller's setpoint (perhaps derd's own, when
            // its store was lost), never what an installer leaves behind. Going back to it would be for ever.
            let [out, into] = [*out_rate, *in_rate].map(|r| i32::from(r.cast_signed()));
            let is_forced = *mode & 1 != 0 && into < 0
                || *mode & 2 != 0 && out < 0
                || *mode & BOTH == BOTH && out == 0 && into == 0;
            if is_forced {
                let all = to_i16(full(now.rate_scale)).unwrap_or(0x7FFF);
                (*mode, *out_rate, *in_rate) = (0, all, all);
            }
        }
        let watch = self.watched(seen).map(|(_, name, word)| (name.to_owned(), word)).collect();
        Ok(Recorded { control, watch, own_reserve: None })
    }

    /// Address, name and content of each watched point.
    fn watched<'a>(&self, seen: &'a Seen<'a>) -> impl Iterator<Item = (u16, &'static str, u16)> + 'a {
        // Where 124 has the reserve, 802 shows the same, and derd may set it.
        let has_reserve = Model::new(seen.control).enumeration(usize::from(MIN_RSV_PCT)).is_some()
            && seen.control.first() == Some(&124);
        let own = self.model().map(|m| (m, seen.control));
        own.into_iter().chain(seen.others.iter().copied()).flat_map(move |(model, words)| {
            let m = Model::new(words);
            let points = WATCHED.iter().filter(move |(id, ..)| *id == model.id && m.word(0) == Some(*id));
            points.filter(move |p| !(has_reserve && p.2 == "802.SoCRsvMin")).filter_map(move |(_, offset, name)| {
                Some((model.at + offset, *name, m.enumeration(usize::from(*offset))?))
            })
        })
    }

    /// What differs from the record. A timer that runs counts down: only a longer one is somebody's setting.
    pub(super) fn drift(&self, recorded: &Recorded, seen: &Seen<'_>, unit: u8) -> Result<Vec<Drift>, String> {
        let model = self.model().ok_or("there is nothing to control")?;
        let now = self.raw(seen.control, seen.running)?;
        let mut drift = Vec::new();
        let mut note = |address: u16, name: &str, stored: String, now: String| {
            if stored != now {
                let register = format!("unit {unit} holding {address}");
                drift.push(Drift { register, name: name.to_owned(), stored, now });
            }
        };
        let mut word = |offset: u16, name: &str, stored: u16, now: u16| {
            note(model.at + offset, name, stored.to_string(), now.to_string());
        };
        let longer = |stored: Option<u16>, now: Option<u16>| match (stored, now) {
            (Some(stored), Some(now)) => (stored, if now < stored { stored } else { now }),
            _ => (0, 0),
        };
        match (recorded.control, now) {
            (
                Baseline::Limit { pct: p0, enabled: e0, revert: r0, .. },
                Baseline::Limit { pct: p1, enabled: e1, revert: r1, .. },
            ) => {
                word(LIMIT_ENABLE, "123.WMaxLim_Ena", u16::from(e0), u16::from(e1));
                if e0 || e1 {
                    word(LIMIT_PCT, "123.WMaxLimPct", p0, p1);
                }
                let (r0, r1) = longer(r0, r1);
                word(LIMIT_REVERT, "123.WMaxLimPct_RvrtTms", r0, r1);
            }
            (
                Baseline::Storage { mode: m0, out_rate: o0, in_rate: i0, revert: r0, grid: g0, reserve: s0 },
                Baseline::Storage { mode: m1, out_rate: o1, in_rate: i1, revert: r1, grid: g1, reserve: s1 },
            ) => {
                word(STOR_CTL_MOD, "124.StorCtl_Mod", m0, m1);
                let (r0, r1) = longer(r0, r1);
                word(RATE_REVERT, "124.InOutWRte_RvrtTms", r0, r1);
                if let (Some(g0), Some(g1)) = (g0, g1) {
                    word(GRID_CHARGE, "124.ChaGriSet", g0, g1);
                }
                if let (Some(s0), Some(s1)) = (recorded.own_reserve.or(s0), s1) {
                    word(MIN_RSV_PCT, "124.MinRsvPct", s0, s1);
                }
                // A rate without its bit limits nothing.
                for (offset, name, bit, a, b) in
                    [(OUT_RATE, "124.OutWRte", 2, o0, o1), (IN_RATE, "124.InWRte", 1, i0, i1)]
                {
                    if (m0 | m1) & bit != 0 {
                        let text = |w: u16| w.cast_signed().to_string();
                        note(model.at + offset, name, text(a), text(b));
                    }
                }
            }
            _ => return Err("the record is of another kind of device".to_owned()),
        }
        for (address, name, now) in self.watched(seen) {
            if let Some(stored) = recorded.watch.get(name) {
                note(address, name, stored.to_string(), now.to_string());
            }
        }
        Ok(drift)
    }
}

impl Recorded {
    pub(super) fn to_json(&self) -> String {
        let mut object = match self.control {
            Baseline::Limit { pct, enabled, revert, effective } => json!({
                "model": 123, "wmaxlimpct": pct, "wmaxlim_ena": enabled, "rvrt_tms": revert, "effective": effective,
            }),
            Baseline::Storage { mode, out_rate, in_rate, revert, grid, reserve } => json!({
                "model": 124, "storctl_mod": mode, "outwrte": out_rate.cast_signed(), "inwrte": in_rate.cast_signed(),
                "rvrt_tms": revert, "chagriset": grid, "minrsvpct": reserve,
            }),
        };
        if let Value::Object(map) = &mut object {
            map.insert("watch".into(), json!(self.watch));
            if let Some(own) = self.own_reserve {
                map.insert("own_minrsvpct".into(), json!(own));
            }
        }
        object.to_string()
    }

    pub(super) fn from_json(text: &str) -> Result<Self, String> {
        let fault = |what: &str| format!("the recorded baseline is not usable: {what}");
        let object: Map<String, Value> = serde_json::from_str(text).map_err(|_| fault("not a JSON object"))?;
        let whole = |value: &Value| value.as_u64().and_then(|n| u16::try_from(n).ok());
        let word = |key: &str| object.get(key).and_then(whole);
        let need = |key: &str| word(key).ok_or_else(|| fault(key));
        let signed = |key: &str| {
            let n = object.get(key).and_then(Value::as_i64).and_then(|n| i16::try_from(n).ok());
            n.map(i16::cast_unsigned).ok_or_else(|| fault(key))
        };
        let flag = |key: &str| object.get(key).and_then(Value::as_bool).ok_or_else(|| fault(key));
        let control = match word("model") {
            Some(123) => Baseline::Limit {
                pct: need("wmaxlimpct")?,
                enabled: flag("wmaxlim_ena")?,
                revert: word("rvrt_tms"),
                effective: flag("effective")?,
            },
            Some(124) => Baseline::Storage {
                mode: need("storctl_mod")?,
                out_rate: signed("outwrte")?,
                in_rate: signed("inwrte")?,
                revert: word("rvrt_tms"),
                grid: word("chagriset"),
                reserve: word("minrsvpct"),
            },
            _ => return Err(fault("model")),
        };
        let watch = object.get("watch").and_then(Value::as_object);
        let watch = watch.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), whole(v)?))).collect();
        Ok(Self { control, watch, own_reserve: word("own_minrsvpct") })
    }
}
