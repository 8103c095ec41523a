//! What Enode sends. Every field may be missing or null, and others may come.

use serde::Deserialize;
use serde_json::Value;

/// A charge schedule or a temperature schedule: by `target_type`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Schedule {
    pub(super) id: Option<String>,
    pub(super) is_enabled: Option<bool>,
    pub(super) target_id: Option<String>,
    pub(super) target_type: Option<String>,
    pub(super) location_id: Option<String>,
    pub(super) default_should_charge: Option<bool>,
    pub(super) rules: Option<Vec<Rule>>,
}

/// All that is said must hold.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rule {
    pub(super) hour_minute: Option<HourMinute>,
    /// 0 = Monday.
    pub(super) weekdays: Option<Vec<Value>>,
    pub(super) from_timestamp: Option<String>,
    pub(super) to_timestamp: Option<String>,
    pub(super) should_charge: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub(super) struct HourMinute {
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
}
