//! `derd pause`, `derd resume` and `derd optout`: the owner's word on everybody else's control.

use super::status::local_time;
use super::{Failure, SocketArg, client, out, runtime};
use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

#[derive(Debug, Args)]
pub(super) struct PauseArgs {
    /// How long, such as 30m, 4h or 7d; without it until `derd resume`
    #[arg(long = "for", value_name = "DURATION")]
    lasts: Option<String>,
    #[command(flatten)]
    at: SocketArg,
}

#[derive(Debug, Args)]
pub(super) struct ResumeArgs {
    #[command(flatten)]
    at: SocketArg,
}

#[derive(Debug, Args)]
pub(super) struct OptOutArgs {
    /// Which device; without it all that take part
    device: Option<String>,
    #[command(flatten)]
    at: SocketArg,
}

pub(super) fn pause(args: &PauseArgs) -> Result<(), Failure> {
    let mut body = json!({"state": "paused"});
    if let Some(lasts) = &args.lasts {
        body["for"] = json!(lasts);
    }
    remote_control(&args.at, &body)
}

pub(super) fn resume(args: &ResumeArgs) -> Result<(), Failure> {
    remote_control(&args.at, &json!({"state": "active"}))
}

pub(super) fn opt_out(args: &OptOutArgs) -> Result<(), Failure> {
    let path = args.device.as_ref().map_or_else(
        || "/api/v1/optout".to_owned(),
        |device| {
            let device: String = url::form_urlencoded::byte_serialize(device.as_bytes()).collect();
            format!("/api/v1/devices/{device}/optout")
        },
    );
    let answer = post(&args.at, &path, &json!({}))?;
    let zone = runtime()?.block_on(client::zone(&args.at));
    for out in answer.get("opted_out").and_then(Value::as_array).into_iter().flatten() {
        let word = |key: &str| out.get(key).and_then(Value::as_str).unwrap_or("?");
        out::say(&format!(
            "{}: opted out of the event of {} until {}",
            word("device"),
            word("source"),
            local_time(word("until"), &zone)
        ));
    }
    Ok(())
}

fn remote_control(at: &SocketArg, body: &Value) -> Result<(), Failure> {
    let answer = post(at, "/api/v1/remote-control", body)?;
    let word = |key: &str| answer.get(key).and_then(Value::as_str);
    let zone = runtime()?.block_on(client::zone(at));
    let until = word("until").map(|until| format!(" until {}", local_time(until, &zone))).unwrap_or_default();
    out::say(&format!("remote control: {}{until}", word("state").unwrap_or("?")));
    Ok(())
}

fn post(at: &SocketArg, path: &str, body: &Value) -> Result<Value, Failure> {
    let (status, text) = runtime()?.block_on(client::call(at, Method::POST, path, Some(body)))?;
    if !status.is_success() {
        return Err(client::refused(&text));
    }
    serde_json::from_str(&text).map_err(Failure::failed)
}
