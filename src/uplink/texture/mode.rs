//! The operating mode of a device: the input of `battery:set-operating-mode` and `charger:set-operating-mode`.

use crate::model::DeviceKind;
use crate::uplink::mapping::Target;
use serde_json::{Map, Value, json};

/// What a mode is here: an action and its parameters, and what is not quite as Texture says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mode {
    pub(super) action: &'static str,
    pub(super) params: Map<String, Value>,
    pub(super) warning: Option<String>,
}

impl Mode {
    fn plain(action: &'static str) -> Self {
        Self { action, params: Map::new(), warning: None }
    }
}

/// A usable energy is spread over at least so many hours where a discharge shall be smooth and nobody says how long.
const SMOOTH_HOURS: f64 = 2.0;

/// Read a mode. Strict, as it moves power.
///
/// # Errors
/// What is missing or out of range.
pub(super) fn mode(value: Option<&Value>, target: &Target) -> Result<Mode, String> {
    let Some(Value::Object(mode)) = value else { return Err("the operating mode is not an object".to_owned()) };
    let word = text(mode, "operatingMode")?.ok_or("operatingMode is missing")?;
    match (target.kind, word) {
        (DeviceKind::Battery, _) => battery(word, mode, target),
        (DeviceKind::Charger, "start-charging") => Ok(Mode::plain("start")),
        (DeviceKind::Charger, "stop-charging") => Ok(Mode::plain("stop")),
        (DeviceKind::Charger, _) => {
            Err(format!("operatingMode is `{word}`: a charger takes start-charging or stop-charging"))
        }
        (kind, _) => Err(format!("there is no operating mode for a {kind}")),
    }
}

fn battery(word: &str, mode: &Map<String, Value>, target: &Target) -> Result<Mode, String> {
    // All that is sent is judged, also what this mode does not use.
    let floor = number(mode, "minimumBatteryReserve", |v| (0.0..=100.0).contains(&v), "0 to 100")?;
    let ceiling = number(mode, "maximumBatteryReserve", |v| (0.0..=100.0).contains(&v), "0 to 100")?;
    let watts = number(mode, "dischargePowerRate", |v| v > 0.0, "more than 0")?;
    let percent = number(mode, "dischargePowerPercent", |v| v > 0.0 && v <= 100.0, "more than 0 and at most 100")?;
    let is_smooth = match text(mode, "dischargeStrategy")? {
        None | Some("max") => false,
        Some("smooth") => true,
        Some(other) => return Err(format!("dischargeStrategy is `{other}`: it is smooth or max")),
    };
    let grid = match mode.get("enableGridInteraction") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(grid)) => *grid,
        Some(other) => return Err(format!("enableGridInteraction is {other}: it is true or false")),
    };
    match word {
        "charge" => {
            let mut charge = Mode::plain("charge");
            charge.params.insert("grid".to_owned(), json!(grid));
            if let Some(pct) = ceiling {
                charge.params.insert("max_soc_pct".to_owned(), json!(pct));
            }
            Ok(charge)
        }
        // Not to export is what a battery's own mode does: it follows the load.
        "discharge" if !grid => Ok(Mode {
            warning: Some(match floor.is_some() || watts.is_some() || percent.is_some() {
                true => {
                    "discharge without the grid is the battery's own mode, which follows the load: power and floor \
                         of the mode are not kept"
                        .to_owned()
                }
                false => "discharge without the grid is the battery's own mode, which follows the load".to_owned(),
            }),
            ..Mode::plain("auto")
        }),
        "discharge" => {
            let mut discharge = Mode::plain("discharge");
            let power = match (watts, percent) {
                (Some(watts), _) => Some(watts),
                (None, Some(100.0)) => None,
                (None, Some(percent)) => {
                    let most = target.max_discharge_w.ok_or_else(|| {
                        format!(
                            "dischargePowerPercent is {percent}, and the largest power of {} is not known",
                            target.device
                        )
                    })?;
                    Some(most * percent / 100.0)
                }
                (None, None) if is_smooth => {
                    let usable = target.capacity_wh.map(|wh| wh * (100.0 - floor.unwrap_or(0.0)) / 100.0);
                    let spread = usable.filter(|wh| *wh > 0.0).map(|wh| wh / SMOOTH_HOURS);
                    if spread.is_none() {
                        discharge.warning = Some(format!(
                            "a smooth discharge is not possible, as the capacity of {} is not known: it \
                                          discharges with its largest power",
                            target.device
                        ));
                    }
                    spread.map(|watts| target.max_discharge_w.map_or(watts, |most| watts.min(most)))
                }
                (None, None) => None,
            };
            for (key, value) in [("power_w", power), ("min_soc_pct", floor)] {
                if let Some(value) = value {
                    discharge.params.insert(key.to_owned(), json!(value));
                }
            }
            Ok(discharge)
        }
        "idle" => Ok(Mode::plain("idle")),
        "reset" => Ok(Mode::plain("auto")),
        _ => Err(format!("operatingMode is `{word}`: a battery takes charge, discharge, idle or reset")),
    }
}

fn text<'a>(mode: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, String> {
    match mode.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("{key} is {other}: it is a text")),
    }
}

fn number(
    mode: &Map<String, Value>,
    key: &str,
    is_good: impl Fn(f64) -> bool,
    range: &str,
) -> Result<Option<f64>, String> {
    match mode.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64().filter(|v| is_good(*v)) {
            Some(number) => Ok(Some(number)),
            None => Err(format!("{key} is {value}: it is a number, {range}")),
        },
    }
}
