//! What Gridshare sends. Every field may be missing or null, and others may come.

use serde::Deserialize;
use serde_json::Value;

/// A command of an overlay plan, in both shapes: with instants of its own, or with a duration after the one before it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Command {
    pub(super) start: Option<String>,
    pub(super) end: Option<String>,
    pub(super) duration_minutes: Option<f64>,
    pub(super) action: Option<String>,
    #[serde(rename = "powerLimit_W")]
    pub(super) power_limit_w: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PeriodicalTariff {
    pub(super) tariff_id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) currency: Option<String>,
    pub(super) pricing_periods: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct PricingPeriod {
    pub(super) start: Option<String>,
    pub(super) end: Option<String>,
    pub(super) rates: Option<Vec<Value>>,
    pub(super) exceptions: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rate {
    /// A name of a day, or 1 to 7 with 1 = Monday.
    pub(super) day_of_week: Option<Value>,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) price: Option<f64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Exception {
    pub(super) start: Option<String>,
    pub(super) end: Option<String>,
    pub(super) rate: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DynamicTariff {
    pub(super) tariff_id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) currency: Option<String>,
    pub(super) values: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct PricedAt {
    pub(super) timestamp: Option<String>,
    pub(super) price: Option<f64>,
}
