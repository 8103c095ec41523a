//! What running commands have delivered so far: kept with the telemetry's commit, so that a restart does not lose it.

use crate::model::{CommandId, CommandResult, DeviceId, UplinkName};
use crate::wire::result_json;
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One of a device's commands.
pub(crate) type CommandKey = (UplinkName, DeviceId, CommandId);

/// The newest sums that the disk does not have yet: at most one for each running command.
#[derive(Debug, Default)]
pub(crate) struct Delivered(BTreeMap<CommandKey, f64>);

impl Delivered {
    /// A command has delivered so much, Wh.
    pub(crate) fn take(&mut self, key: CommandKey, wh: f64) {
        self.0.insert(key, wh);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Write them beside what else is in the transaction. A command that has its final result keeps that.
    pub(crate) fn write(&self, tx: &Connection) -> rusqlite::Result<()> {
        let mut stmt = tx.prepare_cached(
            "UPDATE commands SET result = json_set(result, '$.delivered_wh', ?1)
             WHERE uplink = ?2 AND device = ?3 AND id = ?4 AND is_final = 0",
        )?;
        for ((uplink, device, id), wh) in &self.0 {
            stmt.execute(params![wh, uplink.as_str(), device.as_str(), id.as_str()])?;
        }
        Ok(())
    }

    /// They are on the disk.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// A result as it is kept with its command: with the sum so far, which its sender is told at the end only.
pub(crate) fn kept_json(result: &CommandResult) -> String {
    let mut value = result_json(result);
    if let (Value::Object(map), Some(wh), false) = (&mut value, result.delivered_wh, result.state.is_final()) {
        map.insert("delivered_wh".into(), json!(wh));
    }
    value.to_string()
}
