//! `derd status --json` and `GET /api/v1/status`.

use crate::model::{Field, Point};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Everything that the gateway says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusJson {
    /// The gateway.
    pub gateway: GatewayJson,
    /// The site.
    pub site: SiteJson,
    /// The clock.
    pub clock: ClockJson,
    /// Has the owner paused remote control.
    pub remote_control: RemoteControlJson,
    /// Its devices, in the order of the configuration.
    pub devices: Vec<DeviceJson>,
    /// Its uplinks.
    pub uplinks: Vec<UplinkJson>,
    /// The store.
    pub store: StoreJson,
    /// `ok`, `degraded` or `failed`.
    pub health: String,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
}

/// The gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GatewayJson {
    /// Its id.
    pub id: String,
    /// derd's version.
    pub version: String,
    /// RFC 3339.
    pub started_at: String,
    /// Seconds.
    pub uptime_s: u64,
}

/// The site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiteJson {
    /// Its name.
    pub name: String,
    /// IANA zone.
    pub timezone: String,
    /// W, + = consuming; null if any part is null or stale.
    pub load_w: Option<f64>,
    /// W, + = import; null if null or stale.
    pub grid_w: Option<f64>,
}

/// The clock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClockJson {
    /// `synced`, `holdover` or `untrusted`.
    pub state: String,
}

/// Has the owner paused remote control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteControlJson {
    /// `active` or `paused`.
    pub state: String,
    /// RFC 3339: when the pause ends by itself.
    pub until: Option<String>,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceJson {
    /// Its id.
    pub id: String,
    /// Its kind.
    pub kind: String,
    /// Its profile.
    pub profile: String,
    /// Its link.
    pub link: String,
    /// `online`, `connecting`, `offline` or `quarantined`.
    pub state: String,
    /// Age of its data; null: never seen.
    pub age_ms: Option<u64>,
    /// Points; null when stale or not available.
    pub points: Value,
    /// Who holds it.
    pub controlled_by: Option<ControlledByJson>,
    /// The present trouble.
    pub error: Option<String>,
}

/// Who holds a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControlledByJson {
    /// The sender's label.
    pub source: String,
    /// Its rank.
    pub rank: String,
    /// The action's name.
    pub action: String,
    /// The schedule or plan that asks; null: a command, an event or a limit.
    #[serde(default)]
    pub plan: Option<String>,
    /// RFC 3339; null: not by itself (an endless schedule, a plan that looks at the house).
    pub ends_at: Option<String>,
}

impl ControlledByJson {
    /// Who it is, for people: `the owner`, `plan sun`, `acme (command)`.
    #[must_use]
    pub fn who(&self) -> String {
        match &self.plan {
            Some(plan) => format!("{} {plan}", self.rank),
            None if self.rank == "owner" && matches!(self.source.as_str(), "local" | "page") => "the owner".to_owned(),
            None => format!("{} ({})", self.source, self.rank),
        }
    }
}

/// One uplink.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UplinkJson {
    /// Its name.
    pub name: String,
    /// `mqtt` or a cloud's name.
    pub kind: String,
    /// `live`, `catch_up` or `offline`.
    pub mode: String,
    /// Samples not acknowledged.
    pub backlog_rows: u64,
    /// RFC 3339.
    pub oldest_unsent: Option<String>,
    /// RFC 3339.
    pub last_ok_at: Option<String>,
    /// The present trouble.
    pub error: Option<String>,
}

/// The store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreJson {
    /// Size on disk.
    pub bytes: u64,
    /// Samples kept.
    pub rows: u64,
    /// RFC 3339.
    pub oldest: Option<String>,
    /// Bytes written today (UTC).
    pub written_bytes_today: u64,
    /// Samples lost since start.
    pub dropped: u64,
}

/// A field: a number, a text, a flag, or null.
#[must_use]
pub fn field_json(field: &Field) -> Value {
    match field {
        Ok(crate::model::Value::Num(n)) => json!(n),
        Ok(crate::model::Value::Text(t)) => json!(t.as_ref()),
        Ok(crate::model::Value::Flag(b)) => json!(b),
        Err(_) => Value::Null,
    }
}

/// Points as an object.
pub fn points_json<'a>(points: impl Iterator<Item = &'a (Point, Field)>) -> Value {
    Value::Object(points.map(|(p, f)| (p.to_string(), field_json(f))).collect::<Map<_, _>>())
}
