//! What may never happen: the fuse, the agreed export, and how fast a limit gives way. Pure.

use super::trace::Why;
use super::view::{NOMINAL_V, Unit, View};
use crate::model::{DeviceKind, GridSide, Mono, SiteLimit, SiteSpec};
use std::time::Duration;

/// The name of the import side in results and as the cause of a protective hold.
pub(crate) const IMPORT: &str = "import_limit";
/// The name of the export side.
pub(crate) const EXPORT: &str = "export_limit";
/// What a charger can draw at most when it does not say, A.
pub(crate) const CHARGER_MAX_A: f64 = 32.0;
/// The smallest current of IEC 61851: below it a car pauses, A.
pub(crate) const CHARGER_MIN_A: f64 = 6.0;

/// The limits of the grid connection that are in force: the installer's and, tighter, those from outside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) phases: f64,
    /// Per phase, A.
    pub(crate) fuse_a: Option<f64>,
    /// All phases, W, the fuse included.
    pub(crate) import_w: Option<f64>,
    /// W.
    pub(crate) export_w: Option<f64>,
}

impl Bounds {
    pub(crate) fn new(site: &SiteSpec, extra: &[SiteLimit]) -> Self {
        let phases = f64::from(site.phases.max(1));
        let tightest = |side: GridSide, own: Option<f64>| {
            extra.iter().filter(|l| l.side == side).map(|l| l.power_w).chain(own).reduce(f64::min)
        };
        Self {
            phases,
            fuse_a: site.main_fuse_a,
            import_w: tightest(GridSide::Import, site.main_fuse_a.map(|a| a * phases * NOMINAL_V)),
            export_w: tightest(GridSide::Export, site.export_limit_w),
        }
    }
}

/// What the import side still allows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Import {
    /// There is no limit.
    Free,
    /// There is one, and the grid meter is silent: the worst case.
    Blind,
    /// So much for the devices that control may set, all of them together.
    Room {
        /// All phases, W; negative when the rest alone is too much.
        total_w: f64,
        /// Per phase, A.
        phase_a: Option<[f64; 3]>,
    },
}

impl Import {
    /// The room left when everything in `ours` drew nothing: `limit - (grid - own present contribution)`.
    /// A device whose own power is not known counts as drawing nothing now, which leaves it in the rest: less room.
    ///
    /// `single`: the one phase that a charger's car draws from, where that is known.
    pub(crate) fn new(
        view: &View<'_>,
        bounds: &Bounds,
        ours: &[usize],
        single: impl Fn(usize) -> Option<usize>,
    ) -> Self {
        let Some(limit_w) = bounds.import_w else { return Self::Free };
        let Some(grid_w) = view.grid_w else { return Self::Blind };
        let own_w: f64 = ours.iter().map(|i| draws_w(view, *i)).sum();
        let phase_a = match (bounds.fuse_a, view.grid_a) {
            (Some(fuse), Some(grid)) => {
                let mut room = [f64::INFINITY; 3];
                for (p, room) in room.iter_mut().enumerate().take(if bounds.phases < 2.0 { 1 } else { 3 }) {
                    let own: f64 = ours.iter().map(|i| draws_a(view, bounds, *i, p, single(*i))).sum();
                    *room = fuse - (grid.get(p).copied().unwrap_or(0.0) - own);
                }
                Some(room)
            }
            _ => None,
        };
        Self::Room { total_w: limit_w - (grid_w - own_w), phase_a }
    }

    /// The largest current of a charger, A: on the one phase that its car draws from; where that is not known the fullest
    /// phase counts. `None`: no limit; also when blind, where the fallback applies.
    pub(crate) fn amps(&self, bounds: &Bounds, single: Option<usize>) -> Option<f64> {
        let Self::Room { total_w, phase_a } = self else { return None };
        if let (Some(phase), Some(phase_a)) = (single, phase_a) {
            return phase_a.get(phase).map(|a| a.min(total_w / NOMINAL_V));
        }
        let by_total = total_w / (bounds.phases * NOMINAL_V);
        Some(phase_a.map_or(by_total, |a| a.into_iter().fold(by_total, f64::min)))
    }

    /// The largest charge power of a battery that draws `own_w` now, W. `None`: no limit.
    ///
    /// Whether it draws on all phases or on one nobody says, and `own_w` was taken off all of them. Of both the worse
    /// counts: what it may have more must fit on the fullest phase alone, what it must give back may come from there only
    /// by a third. A battery on all phases comes to the same end, in steps.
    pub(crate) fn watts(&self, bounds: &Bounds, own_w: f64) -> Option<f64> {
        let Self::Room { total_w, phase_a } = self else { return None };
        let by_phase = phase_a.map(|a| {
            let least_w = a.into_iter().fold(f64::INFINITY, f64::min) * NOMINAL_V;
            (least_w * bounds.phases).min(least_w + own_w * (1.0 - 1.0 / bounds.phases))
        });
        Some(by_phase.map_or(*total_w, |w| w.min(*total_w)))
    }

    /// What the tightest part of it goes by.
    pub(crate) fn why(&self, view: &View<'_>, bounds: &Bounds, single: Option<usize>) -> Why {
        let Self::Room { total_w, phase_a } = self else { return Why::Blind };
        let phases = phase_a.iter().flatten().enumerate().filter(|(p, _)| single.is_none_or(|s| s == *p));
        let fullest = phases.min_by(|(_, a), (_, b)| a.total_cmp(b));
        match (fullest, view.grid_a, bounds.fuse_a, view.grid_w, bounds.import_w) {
            (Some((phase, room_a)), Some(grid_a), Some(fuse_a), ..)
                if *room_a < total_w / (single.map_or(bounds.phases, |_| 1.0) * NOMINAL_V) =>
            {
                Why::Phase { phase: phase + 1, grid_a: grid_a.get(phase).copied().unwrap_or(0.0), fuse_a }
            }
            (_, _, _, Some(grid_w), Some(allowed_w)) => Why::Import { grid_w, allowed_w },
            _ => Why::Blind,
        }
    }

    /// The same for a device that does not answer.
    pub(crate) const fn why_silent(&self) -> Why {
        match self {
            Self::Room { .. } => Why::Unseen,
            Self::Free | Self::Blind => Why::Blind,
        }
    }

    /// Give a charger its current: on one phase, or on all.
    pub(crate) fn take_amps(&mut self, amps: f64, bounds: &Bounds, single: Option<usize>) {
        match (self, single) {
            (Self::Room { total_w, phase_a: Some(phase_a) }, Some(phase)) => {
                *total_w -= amps * NOMINAL_V;
                phase_a.iter_mut().skip(phase).take(1).for_each(|a| *a -= amps);
            }
            (room, _) => room.take(amps * bounds.phases * NOMINAL_V, bounds),
        }
    }

    /// Give some of it away, evenly over the phases.
    pub(crate) fn take(&mut self, watts: f64, bounds: &Bounds) {
        if let Self::Room { total_w, phase_a } = self {
            *total_w -= watts;
            if let Some(phases) = phase_a {
                phases.iter_mut().for_each(|a| *a -= watts / (bounds.phases * NOMINAL_V));
            }
        }
    }
}

/// What a device draws at this moment, W; negative when it feeds; 0 when unknown.
pub(crate) fn draws_w(view: &View<'_>, index: usize) -> f64 {
    let power = view.seen.get(index).and_then(|s| s.power_w).unwrap_or(0.0);
    if view.units.get(index).is_some_and(|u| u.spec.kind == DeviceKind::Battery) { -power } else { power }
}

fn draws_a(view: &View<'_>, bounds: &Bounds, index: usize, phase: usize, single: Option<usize>) -> f64 {
    let own =
        view.seen.get(index).filter(|_| view.units.get(index).is_some_and(|u| u.spec.kind == DeviceKind::Charger));
    match own.map(|s| s.phase_a) {
        Some(a) if single.is_some() => {
            if single == Some(phase) {
                a.into_iter().flatten().fold(0.0, f64::max)
            } else {
                0.0
            }
        }
        Some(a) if a.iter().any(Option::is_some) => a.get(phase).copied().flatten().unwrap_or(0.0).max(0.0),
        _ => draws_w(view, index) / (bounds.phases * NOMINAL_V),
    }
}

/// The largest discharge of the battery at `index`, W: what the agreed export and the fuse leave. `None`: no limit.
/// With a silent meter the load counts as nothing and every inverter as producing what it last could.
pub(crate) fn discharge_room(view: &View<'_>, bounds: &Bounds, ours: &[usize]) -> Option<f64> {
    let fuse_w = bounds.fuse_a.map(|a| a * bounds.phases * NOMINAL_V);
    let limit = [bounds.export_w, fuse_w].into_iter().flatten().reduce(f64::min)?;
    let own: Option<f64> = ours.iter().map(|i| view.seen.get(*i).and_then(|s| s.power_w)).sum();
    Some(match (view.grid_w, own) {
        (Some(grid), Some(own)) => (limit + grid + own).max(0.0),
        _ => (limit - worst_production(view)).max(0.0),
    })
}

/// The largest AC power of all settable inverters together, W, so that not more than `limit_w` leaves the site.
/// `given_up_w`: discharge that was already taken back in this cycle. With a silent meter: the limit itself.
pub(crate) fn inverter_room(view: &View<'_>, limit_w: f64, ours: &[usize], given_up_w: f64) -> Option<f64> {
    let own: f64 = ours.iter().map(|i| view.seen.get(*i).and_then(|s| s.power_w)).sum::<Option<f64>>()?;
    Some((limit_w + view.grid_w? + own + given_up_w).max(0.0))
}

fn worst_production(view: &View<'_>) -> f64 {
    view.units
        .iter()
        .zip(&view.seen)
        .filter(|(u, _)| u.spec.kind == DeviceKind::Inverter)
        .map(|(u, s)| s.power_w.or(u.caps.rated_w).unwrap_or(f64::INFINITY))
        .sum()
}

/// The largest current a charger may ever take by its configuration and capability, A.
pub(crate) fn charger_max(unit: &Unit) -> f64 {
    [unit.spec.limits.max_current_a, unit.caps.max_current_a]
        .into_iter()
        .flatten()
        .reduce(f64::min)
        .unwrap_or(CHARGER_MAX_A)
}

/// The largest current that a charger may take while nobody tells it anything, A.
pub(crate) fn charger_own_max(unit: &Unit) -> f64 {
    unit.caps.max_current_a.unwrap_or(CHARGER_MAX_A)
}

/// Below this a charger pauses, A.
pub(crate) fn charger_min(unit: &Unit) -> f64 {
    unit.caps.min_current_a.unwrap_or(CHARGER_MIN_A).max(CHARGER_MIN_A)
}

/// What of the room a charger is granted counts as taken: all of it at first; when its car does not use it for a while (it is
/// full, or slows down), what it uses. Should it use more again, that is seen like any other load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Share {
    granted: f64,
    used: f64,
    seen: Mono,
}

/// What is not used for so long is free for others.
const UNUSED: Duration = Duration::from_secs(60);
/// A car that uses something may use a little more at any time, A.
const SHARE_MARGIN_A: f64 = 1.0;

impl Share {
    /// A charger is granted this and measured at that, A: what counts as taken.
    pub(crate) fn follow(slot: &mut Option<Self>, granted: f64, measured: Option<f64>, now: Mono) -> f64 {
        let Some(measured) = measured else {
            *slot = None;
            return granted;
        };
        let share = slot.get_or_insert(Self { granted, used: granted, seen: now });
        if granted > share.granted + 0.5 || measured >= share.used - 0.5 {
            // It was given more just now, or it uses it.
            share.used = if granted > share.granted + 0.5 { granted } else { share.used.max(measured) };
            share.seen = now;
        } else if now.since(share.seen) >= UNUSED {
            (share.used, share.seen) = (measured, now);
        }
        share.granted = granted;
        let margin = if share.used > 0.5 { SHARE_MARGIN_A } else { 0.0 };
        granted.min(share.used + margin)
    }
}

/// How a ceiling moves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// The grid meter and the device are read at different instants: a step of the device itself looks like one of the
    /// rest until both were read again. Only what stays lower for this long lowers the ceiling.
    pub(crate) skew: Duration,
    /// More room must last this long before the ceiling rises.
    pub(crate) rise: Duration,
    /// Less additional room than this is not worth a write.
    pub(crate) deadband: f64,
    /// When it falls soon after it rose, the next rise waits longer, up to so many times.
    pub(crate) patience: u32,
}

/// A ceiling that falls within this time after it rose has risen too soon.
const TOO_SOON: Duration = Duration::from_secs(60);
/// One that stays up for so long has not.
const SETTLED: Duration = Duration::from_secs(300);

/// A limit that follows the room there is: down as soon as that is certain, up slowly, so that it never swings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ceiling {
    value: f64,
    low: Option<(Mono, f64)>,
    high: Option<(Mono, f64)>,
    /// When it last rose.
    rose: Option<Mono>,
    /// So many times longer it waits before it rises.
    patience: u32,
}

impl Ceiling {
    pub(crate) const fn new(room: f64) -> Self {
        Self { value: room, low: None, high: None, rose: None, patience: 1 }
    }

    pub(crate) const fn value(&self) -> f64 {
        self.value
    }

    /// The room is now this large.
    pub(crate) fn follow(&mut self, room: f64, now: Mono, pace: Pace) {
        if room < self.value {
            self.high = None;
            let (since, best) = self.low.map_or((now, room), |(since, best)| (since, best.max(room)));
            self.low = Some((since, best));
            if now.since(since) >= pace.skew {
                if self.rose.take().is_some_and(|rose| now.since(rose) < TOO_SOON) {
                    self.patience = (self.patience * 2).min(pace.patience.max(1));
                }
                self.value = best;
                // What is still lower than the best of that time gets its own time.
                self.low = (room < best).then_some((now, room));
            }
        } else {
            self.low = None;
            if self.rose.is_some_and(|rose| now.since(rose) >= SETTLED) {
                (self.rose, self.patience) = (None, 1);
            }
            if room < self.value + pace.deadband {
                self.high = None;
            } else {
                let (since, least) = self.high.map_or((now, room), |(since, least)| (since, least.min(room)));
                self.high = Some((since, least));
                if now.since(since) >= pace.rise * self.patience {
                    (self.value, self.high, self.rose) = (least, None, Some(now));
                }
            }
        }
    }

    /// Down at once: the worst case.
    pub(crate) fn drop_to(&mut self, room: f64) {
        if room < self.value {
            (self.value, self.low, self.high) = (room, None, None);
        }
        self.unseen();
    }

    /// Nothing is known at this moment: room that nobody sees does not last.
    pub(crate) const fn unseen(&mut self) {
        self.high = None;
    }
}
