//! The JSON that the outside sees, the same over MQTT, in the local API, on the command line and in the store.
//!
//! Serialisation stops here: the rooms below and above speak [`crate::model`].

mod action;
mod command;
mod device;
mod event;
mod explain;
mod result;
mod sample;
mod setpoint;
mod status;

pub use action::{action_params, parse_action};
pub use command::{CommandBody, WireError, parse_command};
pub use device::{baseline_json, capabilities_json, wear_json};
pub use event::event_json;
pub use explain::explain_json;
pub use result::{result_from_json, result_json};
pub use sample::sample_json;
pub use setpoint::{demand_from_json, demand_json};
pub use status::{
    ClockJson, ControlledByJson, DeviceJson, GatewayJson, SiteJson, StatusJson, StoreJson, UplinkJson, field_json,
    points_json,
};
