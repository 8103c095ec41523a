//! What a profile asks of a link, and what comes back: the same for Modbus and HTTP.

use std::fmt;

/// Which Modbus registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Space {
    /// Function code 3.
    Holding,
    /// Function code 4.
    Input,
}

/// With which function a register is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WriteFunction {
    /// Function code 6: one register.
    Single,
    /// Function code 16.
    Multiple,
}

/// How an HTTP request is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpMethod {
    /// GET.
    Get,
    /// POST with a JSON body.
    Post,
    /// PUT with a JSON body.
    Put,
}

/// One request to a device.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Read registers: 1 to 125.
    Read {
        /// Modbus unit id.
        unit: u8,
        /// Holding or input registers.
        space: Space,
        /// Zero-based PDU address.
        address: u16,
        /// How many.
        count: u16,
    },
    /// Write holding registers.
    Write {
        /// Modbus unit id.
        unit: u8,
        /// Zero-based PDU address.
        address: u16,
        /// The words.
        words: Vec<u16>,
        /// With which function.
        function: WriteFunction,
    },
    /// An HTTP request below the link's base address.
    Http {
        /// How.
        method: HttpMethod,
        /// Path and query, beginning with `/`.
        path: String,
        /// JSON body, for POST and PUT.
        body: Option<serde_json::Value>,
        /// Does it change something.
        writes: bool,
    },
}

impl Request {
    /// Does it change something in the device.
    #[must_use]
    pub const fn is_write(&self) -> bool {
        matches!(self, Self::Write { .. } | Self::Http { writes: true, .. })
    }
}

impl fmt::Display for Request {
    /// Where, for people and for evidence: `unit 1 holding 40345`, or the path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { unit, space: Space::Holding, address, .. } | Self::Write { unit, address, .. } => {
                write!(f, "unit {unit} holding {address}")
            }
            Self::Read { unit, space: Space::Input, address, .. } => write!(f, "unit {unit} input {address}"),
            Self::Http { path, .. } => f.write_str(path),
        }
    }
}

/// What a device answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Registers, as many as were asked for.
    Words(Vec<u16>),
    /// A JSON document.
    Json(serde_json::Value),
    /// A write was acknowledged.
    Written,
}

/// The device answered, and its answer is no. The connection is good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A Modbus exception.
    #[error("Modbus exception {0}")]
    Exception(u8),
    /// An HTTP status that is not a success, with the beginning of the body.
    #[error("HTTP status {0}: {1}")]
    Http(u16, String),
    /// An answer that is not what was asked for.
    #[error("unusable answer: {0}")]
    Malformed(String),
}
