//! Client commands reach the daemon over HTTP on its Unix socket.

use super::{Failure, SocketArg};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::time::Duration;

/// One request and its answer, whatever its status.
pub(super) async fn call(
    at: &SocketArg,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<(StatusCode, String), Failure> {
    let client = reqwest::Client::builder()
        .unix_socket(at.socket.clone())
        .no_proxy()
        .timeout(Duration::from_secs(30))
        .build()
        .map_err(Failure::failed)?;
    let mut request = client.request(method, format!("http://localhost{path}"));
    if let Some(body) = body {
        request = request.json(body);
    }
    let answer = request.send().await.map_err(|e| unreachable(at, &e))?;
    let status = answer.status();
    let text = answer.text().await.map_err(|e| unreachable(at, &e))?;
    Ok((status, text))
}

/// A GET that must succeed.
pub(super) async fn get(at: &SocketArg, path: &str) -> Result<String, Failure> {
    let (status, text) = call(at, Method::GET, path, None).await?;
    if status.is_success() { Ok(text) } else { Err(refused(&text)) }
}

/// The daemon's own words about why it refused.
pub(super) fn refused(text: &str) -> Failure {
    let told = serde_json::from_str::<Value>(text)
        .ok()
        .and_then(|v| v.get("error").or_else(|| v.get("reason")).and_then(Value::as_str).map(str::to_owned));
    Failure::Failed(told.unwrap_or_else(|| text.to_owned()))
}

fn unreachable(at: &SocketArg, error: &reqwest::Error) -> Failure {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    Failure::Failed(format!(
        "the daemon does not answer at {}: {cause}. Is it running (systemctl status derd), and are you root or in group derd?",
        at.socket.display()
    ))
}
