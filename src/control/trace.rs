//! Why: what each limit took from a wish. Small typed values, since there is a cycle for every sample. Pure.

/// The unit of a power.
pub(crate) const WATTS: &str = "W";
/// The unit of a current.
pub(crate) const AMPS: &str = "A";
/// The name of a step that is no limit: what a charger does below its smallest current.
pub(crate) const MIN_CURRENT: &str = "min_current_a";

/// What a limit goes by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Why {
    /// The installer set it.
    Installer,
    /// The device can do no more.
    Device,
    /// What the installer had set in the device before derd held it.
    Baseline,
    /// The state of charge reached its bound, %.
    Soc { soc: f64, bound: f64 },
    /// The state of charge is not known.
    SocUnknown,
    /// The grid connection as a whole, W, + = import.
    Import { grid_w: f64, allowed_w: f64 },
    /// One phase of it (1 to 3), A, + = import.
    Phase { phase: usize, grid_a: f64, fuse_a: f64 },
    /// What may be fed into the grid; the meter in W, + = import.
    Export { grid_w: f64, allowed_w: f64 },
    /// The grid meter is silent: the worst case.
    Blind,
    /// The device does not say its own power: its part in what the meter sees is not known.
    Unseen,
    /// Below this a charger pauses, A.
    Minimum { amps: f64 },
}

/// One limit that bit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    /// Infinite: nothing had limited it yet.
    pub(crate) from: f64,
    pub(crate) to: f64,
    /// [`WATTS`] or [`AMPS`].
    pub(crate) unit: &'static str,
    pub(crate) why: Why,
}

impl Step {
    /// Did somebody set it as a limit.
    pub(crate) fn is_limit(&self) -> bool {
        self.name != MIN_CURRENT
    }
}

/// A limit that is tighter takes the value's place and leaves a step. `named`: the name and the unit.
pub(crate) fn clip(value: &mut f64, limit: f64, named: (&'static str, &'static str), why: Why, steps: &mut Vec<Step>) {
    if limit < *value {
        put(value, limit.max(0.0), named, why, steps);
    }
}

/// The same, whether it is tighter or not.
pub(crate) fn put(
    value: &mut f64,
    to: f64,
    (name, unit): (&'static str, &'static str),
    why: Why,
    steps: &mut Vec<Step>,
) {
    steps.push(Step { name, from: *value, to, unit, why });
    *value = to;
}

/// A limit that is not set does not bite.
pub(crate) fn limit_of(limit: Option<f64>) -> f64 {
    limit.unwrap_or(f64::INFINITY)
}
