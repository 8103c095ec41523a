//! Client commands reach the daemon over HTTP on its Unix socket.

use super::{Failure, SocketArg};
use jiff::tz::TimeZone;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::io::ErrorKind;
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
        // No TLS on a Unix socket: the system's certificates are not looked for, and may be missing.
        .tls_certs_only([])
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

/// The site's zone, in which times are told; UTC where the daemon does not say it.
pub(super) async fn zone(at: &SocketArg) -> TimeZone {
    let status: Option<Value> = get(at, "/api/v1/status").await.ok().and_then(|text| serde_json::from_str(&text).ok());
    let name = status.as_ref().and_then(|s| s.pointer("/site/timezone")).and_then(Value::as_str);
    name.and_then(|name| TimeZone::get(name).ok()).unwrap_or(TimeZone::UTC)
}

/// The daemon's own words about why it refused.
pub(super) fn refused(text: &str) -> Failure {
    let told = serde_json::from_str::<Value>(text)
        .ok()
        .and_then(|v| v.get("error").or_else(|| v.get("reason")).and_then(Value::as_str).map(str::to_owned));
    Failure::Failed(told.unwrap_or_else(|| text.to_owned()))
}

fn unreachable(at: &SocketArg, error: &reqwest::Error) -> Failure {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let hint = hint(cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind));
    Failure::Failed(format!("the daemon does not answer at {}: {cause}. {hint}", at.socket.display()))
}

/// What to do about a daemon that does not answer.
const fn hint(kind: Option<ErrorKind>) -> &'static str {
    match kind {
        Some(ErrorKind::PermissionDenied) => "It answers root and members of group derd only: try sudo",
        Some(ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            "Is it running (systemctl status derd, journalctl -u derd)?"
        }
        _ => "Is it running (systemctl status derd), and are you root or in group derd?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_daemon_is_not_mistaken_for_a_missing_permission() {
        // As main does; another test may have done it before.
        drop(rustls::crypto::ring::default_provider().install_default());
        let folder = tempfile::tempdir().unwrap();
        let at = SocketArg { socket: folder.path().join("derd.sock") };
        let Err(Failure::Failed(text)) = get(&at, "/api/v1/status").await else { panic!("somebody answered") };
        assert!(text.contains("No such file") && text.contains("systemctl status derd"), "{text}");
        assert!(!text.contains("sudo") && hint(Some(ErrorKind::PermissionDenied)).contains("sudo"), "{text}");
    }
}
