//! `derd set` and `derd release`: the owner's own commands.

use super::{Failure, SocketArg, client, out, runtime};
use crate::config::parse_duration;
use crate::runtime::Clock;
use clap::Args;
use reqwest::Method;
use serde_json::{Map, Value, json};

#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// Which device
    device: String,
    /// What it shall do: charge, discharge, idle, auto, set_reserve, set_power_limit, start, stop, set_max_current, ...
    action: String,
    /// Parameters, such as power_w=3000
    #[arg(value_name = "KEY=VALUE")]
    params: Vec<String>,
    /// How long; default 4 h, a charger until the car is unplugged (at most 24 h)
    #[arg(long = "for", value_name = "DURATION")]
    lasts: Option<String>,
    #[command(flatten)]
    at: SocketArg,
}

#[derive(Debug, Args)]
pub(super) struct ReleaseArgs {
    /// Which device
    device: String,
    #[command(flatten)]
    at: SocketArg,
}

pub(super) fn set(args: &SetArgs) -> Result<(), Failure> {
    let mut params = Map::new();
    for pair in &args.params {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| Failure::Usage(format!("`{pair}` is not KEY=VALUE, such as power_w=3000")))?;
        // Numbers and true/false are taken as such; anything else is a text, which the daemon judges.
        let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        params.insert(key.to_owned(), value);
    }
    let mut body = json!({"action": args.action, "params": params});
    if let Some(text) = &args.lasts {
        let lasts = parse_duration(text).map_err(|e| Failure::Usage(format!("--for: {e}")))?;
        let ends: Value = json!(Clock::system().now().plus(lasts).to_string());
        body["ends_at"] = ends;
    }
    command(&args.at, &args.device, &body)
}

pub(super) fn release(args: &ReleaseArgs) -> Result<(), Failure> {
    command(&args.at, &args.device, &json!({"action": "release"}))
}

fn command(at: &SocketArg, device: &str, body: &Value) -> Result<(), Failure> {
    let path = format!(
        "/api/v1/devices/{}/command",
        url::form_urlencoded::byte_serialize(device.as_bytes()).collect::<String>()
    );
    let (status, text) = runtime()?.block_on(client::call(at, Method::POST, &path, Some(body)))?;
    if !status.is_success() {
        return Err(client::refused(&text));
    }
    let result: Value = serde_json::from_str(&text).map_err(Failure::failed)?;
    let word = |key: &str| result.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
    out::say(&format!("{}: {} (id {})", device, word("state"), word("id")));
    Ok(())
}
