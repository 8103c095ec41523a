//! MQTT 5: telemetry, results and events out; commands and plans in. One task per broker.
//!
//! # What is promised
//!
//! - A sample or notice counts as sent only when its own PUBACK came with a reason below 0x80. Whatever was under way when
//!   a connection ended stays unsent in the store and goes out again: at least once, never lost. The client library is
//!   built anew for each connection, so that nothing is replayed from its memory: the store is the only queue.
//! - Live samples go out as they come; what could not be sent when it was new follows as backfill, oldest first, paced,
//!   and never in the way of live samples, results and events.
//! - A publish that the broker refuses (0x80 and above) is not sent: its topic rests for 15 s, then longer, a
//!   minute at most (backfill: five; a quota: 30 s), until one such topic is taken again; its samples stay in the backlog, an event `mqtt_publish_refused` says so once, and everything
//!   else goes on. A notice (result or event) that was refused waits likewise; when more than 256 refused notices have piled
//!   up, the oldest are given up, counted and logged.
//! - A command is acknowledged (PUBACK) only after its first result is durable, or after the broker has the `rejected`
//!   result of a full inbox; acknowledgements keep the order of arrival.
//!
//! # Layout
//!
//! `task` connects, again and again; `session` is one connection's life (`session::fates`: what follows from an answer of
//! the broker). `telemetry` (with `due`), `outbox` and `refusals` decide what is sent, all pure; `sender` sends it and learns
//! its fate; `desk` asks the store, one thing at a time. `incoming` takes messages in and acknowledges them; `statements` and
//! `announce` say who we are; `connect` builds the client.

mod announce;
#[cfg(test)]
mod broker_tests;
mod connect;
mod desk;
mod due;
mod flights;
mod incoming;
mod outbox;
mod refusals;
mod sender;
mod session;
mod statements;
mod task;
mod telemetry;
#[cfg(test)]
mod tests;
mod topics;

pub use task::MqttTask;

use super::{Cadence, Secret};
use crate::command::CommandHandle;
use crate::model::{
    ControlStatus, DeviceSpec, DeviceStatus, GatewayId, Rank, Timestamp, UplinkMode, UplinkName, UplinkStatus,
};
use crate::runtime::Clock;
use crate::store::StoreHandle;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;

/// How one broker is reached, and what it gets.
#[derive(Debug, Clone)]
pub struct MqttSettings {
    /// The uplink's name.
    pub name: UplinkName,
    /// `mqtt://host[:1883]` or `mqtts://host[:8883]`, without user or path.
    pub url: url::Url,
    /// PEM file with the certificates that may sign the broker's; `None`: the system's. Read at each connect.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the client's certificate chain. Read at each connect.
    pub client_cert_file: Option<PathBuf>,
    /// PEM file with its key. Read at each connect.
    pub client_key_file: Option<PathBuf>,
    /// User, if the broker wants one.
    pub username: Option<String>,
    /// Password, if the broker wants one.
    pub password: Option<Secret>,
    /// How much telemetry it gets.
    pub telemetry_every: Cadence,
    /// The ranks that this channel may claim; the first is what a command gets that claims none. Not empty.
    pub ranks: Vec<Rank>,
    /// Announce the devices to Home Assistant.
    pub home_assistant: bool,
    /// MQTT keep alive, whole seconds, 5 s to 18 h.
    pub keep_alive: Duration,
}

impl MqttSettings {
    /// The defaults: plain or TLS by the URL's scheme, telemetry every 10 s, rank `command`, keep alive 30 s.
    #[must_use]
    pub fn new(name: UplinkName, url: url::Url) -> Self {
        Self {
            name,
            url,
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            username: None,
            password: None,
            telemetry_every: Cadence::Every(Duration::from_secs(10)),
            ranks: vec![Rank::Command],
            home_assistant: false,
            keep_alive: Duration::from_secs(30),
        }
    }

    fn check(&self) -> Result<(), MqttSetupError> {
        let name = self.name.clone();
        let uses_tls = match self.url.scheme() {
            "mqtt" => false,
            "mqtts" => true,
            other => return Err(MqttSetupError::Scheme { name, scheme: other.to_owned() }),
        };
        if self.url.host_str().is_none_or(str::is_empty) {
            return Err(MqttSetupError::NoHost { name });
        }
        if !self.url.username().is_empty() || self.url.password().is_some() {
            return Err(MqttSetupError::CredentialsInUrl { name });
        }
        if self.client_cert_file.is_some() != self.client_key_file.is_some() {
            return Err(MqttSetupError::HalfClientCertificate { name });
        }
        if !uses_tls && (self.ca_file.is_some() || self.client_cert_file.is_some()) {
            return Err(MqttSetupError::TlsFilesWithoutTls { name });
        }
        if self.ranks.is_empty() {
            return Err(MqttSetupError::NoRank { name });
        }
        if !(5..=65_535).contains(&self.keep_alive.as_secs()) {
            return Err(MqttSetupError::KeepAlive { name, keep_alive: self.keep_alive });
        }
        Ok(())
    }
}

/// Why an uplink cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MqttSetupError {
    /// The URL has another scheme.
    #[error("uplink {name}: url has the scheme `{scheme}`: it must be mqtt (plain) or mqtts (TLS)")]
    Scheme {
        /// Which uplink.
        name: UplinkName,
        /// Its scheme.
        scheme: String,
    },
    /// The URL names no host.
    #[error("uplink {name}: url names no host")]
    NoHost {
        /// Which uplink.
        name: UplinkName,
    },
    /// The URL holds a user or password.
    #[error("uplink {name}: url holds a user or password: use `username` and `password_file`")]
    CredentialsInUrl {
        /// Which uplink.
        name: UplinkName,
    },
    /// A certificate without key, or the other way round.
    #[error("uplink {name}: client_cert_file and client_key_file belong together: one of them is missing")]
    HalfClientCertificate {
        /// Which uplink.
        name: UplinkName,
    },
    /// Certificates for a plain connection.
    #[error("uplink {name}: certificate files are set but the url is plain mqtt: use mqtts")]
    TlsFilesWithoutTls {
        /// Which uplink.
        name: UplinkName,
    },
    /// No rank.
    #[error("uplink {name}: ranks is empty: name at least one")]
    NoRank {
        /// Which uplink.
        name: UplinkName,
    },
    /// A keep alive that MQTT cannot say.
    #[error("uplink {name}: keep_alive is {keep_alive:?}: it must lie between 5 s and 65535 s")]
    KeepAlive {
        /// Which uplink.
        name: UplinkName,
        /// Its keep alive.
        keep_alive: Duration,
    },
}

/// What the task needs of the other rooms.
#[derive(Debug)]
pub struct MqttParts {
    /// How the broker is reached.
    pub settings: MqttSettings,
    /// The gateway's id: client id and root of the topics.
    pub gateway: GatewayId,
    /// The devices to announce, with their own word.
    pub devices: Vec<(DeviceSpec, watch::Receiver<DeviceStatus>)>,
    /// Where samples and notices come from.
    pub store: StoreHandle,
    /// Where commands and plans go.
    pub commands: CommandHandle,
    /// Time.
    pub clock: Clock,
    /// derd's version.
    pub version: &'static str,
    /// When the daemon started.
    pub started: Timestamp,
    /// Control's own word: has the owner paused remote control.
    pub control: watch::Receiver<ControlStatus>,
}

/// The uplink, as seen by everybody else.
#[derive(Debug, Clone)]
pub struct MqttHandle {
    status: watch::Receiver<UplinkStatus>,
}

impl MqttHandle {
    /// The uplink's own word.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<UplinkStatus> {
        self.status.clone()
    }
}

/// An uplink to one broker. It listens to the store from now on; it connects when it runs.
///
/// # Errors
/// [`MqttSetupError`]: what in the settings cannot work.
pub fn create(parts: MqttParts) -> Result<(MqttHandle, MqttTask), MqttSetupError> {
    parts.settings.check()?;
    let (tx, status) = watch::channel(UplinkStatus {
        name: parts.settings.name.clone(),
        kind: "mqtt",
        mode: UplinkMode::Offline,
        backlog_rows: 0,
        oldest_unsent: None,
        last_ok_at: None,
        error: None,
    });
    Ok((MqttHandle { status }, MqttTask::new(parts, tx)))
}
