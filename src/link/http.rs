//! One HTTP host, and one request to it.

use super::LinkError;
use super::address::Address;
use super::socket::explain;
use crate::profile::{Answer, HttpMethod, Refusal, Request};
use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// No local API answers with more; a device gone mad must not fill the memory.
const MAX_BODY: usize = 256 * 1024;
/// A host on the LAN accepts at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// So much of an error's body is shown.
const SHOWN: usize = 120;

pub(super) struct Http {
    client: reqwest::Client,
    base: String,
    host: String,
    port: u16,
    wait: Duration,
}

impl Http {
    /// Ready to ask; nothing is opened yet.
    pub(super) fn new(address: &Address, wait: Duration) -> Result<Self, String> {
        let Address::Http { tls, host, port } = address else {
            return Err("not an HTTP link".into());
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT.min(wait))
            .timeout(wait)
            .pool_max_idle_per_host(1)
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(10))
            .tcp_user_timeout(Duration::from_secs(15));
        if *tls {
            // The builder takes the process's provider and panics without one. Somebody else's choice is as good.
            let _was_set = provider.as_ref().clone().install_default().is_err();
        } else {
            // Without TLS no certificates are looked for: that costs memory and start-up time on a small board.
            let empty = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|e| format!("setting up HTTP: {e}"))?
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            builder = builder.tls_backend_preconfigured(empty);
        }
        let client = builder.build().map_err(|e| format!("setting up HTTP: {e}"))?;
        Ok(Self { client, base: address.to_string(), host: host.clone(), port: *port, wait })
    }

    pub(super) async fn ask(&self, request: &Request) -> Result<Answer, LinkError> {
        let Request::Http { method, path, body, writes } = request else {
            return Err(Refusal::Malformed("a Modbus request on an HTTP link".into()).into());
        };
        if !path.starts_with('/') {
            return Err(Refusal::Malformed(format!("the path `{path}` does not begin with /")).into());
        }
        let url = format!("{}{path}", self.base);
        let mut call = match method {
            HttpMethod::Get => self.client.get(&url),
            HttpMethod::Post => self.client.post(&url),
            HttpMethod::Put => self.client.put(&url),
        };
        if let Some(body) = body {
            call = call.json(body);
        }
        let mut response = call.send().await.map_err(|e| self.failed(path, &e))?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.failed(path, &e))? {
            if bytes.len() + chunk.len() > MAX_BODY {
                return Err(Refusal::Malformed(format!("{path}: an answer of more than 256 KiB")).into());
            }
            bytes.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            return Err(Refusal::Http(status.as_u16(), begin_of(&bytes)).into());
        }
        match serde_json::from_slice(&bytes) {
            Ok(json) => Ok(Answer::Json(json)),
            Err(_) if *writes => Ok(Answer::Written),
            Err(error) => Err(Refusal::Malformed(format!("{path}: not JSON: {error}")).into()),
        }
    }

    fn failed(&self, path: &str, error: &reqwest::Error) -> LinkError {
        let (host, port) = (&self.host, self.port);
        if error.is_connect() {
            let why = if error.is_timeout() {
                format!("{host}:{port} does not answer: device off, or another address")
            } else {
                match io_cause(error) {
                    Some(cause) => explain(cause, host, port, false),
                    None => format!("connecting to {host}:{port}: {}", root_cause(error)),
                }
            };
            return LinkError::Down(why);
        }
        if error.is_timeout() {
            return LinkError::Timeout(format!(
                "{}: port open, no answer to {path} within {} ms",
                self.base,
                self.wait.as_millis()
            ));
        }
        LinkError::Down(format!("{}: connection lost during {path}: {}", self.base, root_cause(error)))
    }
}

fn io_cause(error: &reqwest::Error) -> Option<&io::Error> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return Some(io);
        }
        source = cause.source();
    }
    None
}

fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn begin_of(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}
