//! Errors: of the server as a whole, and of one request.

use super::auth::PasswordError;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why page and API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// The address cannot be bound.
    #[error("listening on {address} (web.listen): {reason}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// The system's words.
        reason: std::io::Error,
    },
    /// The Unix socket cannot be bound.
    #[error("listening on the socket {}: {reason}", path.display())]
    Socket {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The login's password cannot be read or made.
    #[error(transparent)]
    Password(#[from] PasswordError),
}

/// Why one request is not answered with what it asked for: `{"error": sentence, ..}`.
#[derive(Debug)]
pub(super) struct Fault(Box<Parts>);

#[derive(Debug)]
struct Parts {
    status: StatusCode,
    body: Value,
    headers: HeaderMap,
}

impl Fault {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self(Box::new(Parts { status, body: json!({ "error": error.into() }), headers: HeaderMap::new() }))
    }

    /// Its code.
    pub(super) fn code(&self) -> StatusCode {
        self.0.status
    }

    /// Its sentence.
    pub(super) fn text(&self) -> String {
        self.0.body.get("error").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    pub(super) fn bad(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    pub(super) fn busy(error: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error).header(header::RETRY_AFTER, "1")
    }

    pub(super) fn with(mut self, key: &str, value: Value) -> Self {
        if let Value::Object(map) = &mut self.0.body {
            map.insert(key.to_owned(), value);
        }
        self
    }

    pub(super) fn header(mut self, name: header::HeaderName, value: &'static str) -> Self {
        self.0.headers.insert(name, HeaderValue::from_static(value));
        self
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        (self.0.status, self.0.headers, axum::Json(self.0.body)).into_response()
    }
}

impl From<crate::store::StoreError> for Fault {
    fn from(error: crate::store::StoreError) -> Self {
        match error {
            crate::store::StoreError::Sqlite { .. } => Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            crate::store::StoreError::Stopped | crate::store::StoreError::Busy => Self::busy(error.to_string()),
        }
    }
}
