//! What Texture sends. Every field may be missing or null, and others may come.

use serde::Deserialize;
use serde_json::Value;

/// `DeviceSchedule` and `TagSchedule`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Schedule {
    pub(super) id: Option<String>,
    /// Of a tag schedule.
    pub(super) tag: Option<String>,
    /// Of a tag schedule.
    pub(super) device_type: Option<String>,
    /// Of a device schedule.
    pub(super) device_timezone: Option<String>,
    /// Of a tag schedule.
    pub(super) timezone: Option<String>,
    pub(super) starts_at: Option<String>,
    pub(super) ends_at: Option<String>,
    pub(super) default_device_operating_mode: Option<Value>,
    pub(super) rules: Option<Vec<Rule>>,
    pub(super) created_at: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rule {
    /// 0 = Sunday.
    pub(super) days_of_week: Option<Vec<Value>>,
    pub(super) start_time: Option<String>,
    pub(super) end_time: Option<String>,
    pub(super) device_operating_mode: Option<Value>,
}

impl Schedule {
    /// # Errors
    /// A field has another type than it should.
    pub(super) fn deserialize_from(value: &Value) -> Result<Self, String> {
        Self::deserialize(value).map_err(|why| why.to_string())
    }
}
