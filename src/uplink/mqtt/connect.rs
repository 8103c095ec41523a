//! The MQTT client of one connection: options, TLS, and what its errors mean.

use super::announce::OFFLINE;
use super::topics::Topics;
use super::{MqttSettings, Secret};
use crate::model::{ClockState, GatewayId};
use rumqttc::{
    AckMode, AsyncClient, Broker, ConnAck, ConnectReturnCode, ConnectionError, DisconnectReasonCode, Event, EventLoop,
    LastWill, MqttOptions, NetworkOptions, Packet, PersistedAckMode, PersistedSession, Publish, QoS, SessionStore,
    SessionStoreError, SessionStoreKey, StateError, TlsConfiguration, Transport,
};
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long the broker keeps our session, and with it commands that come while we are away.
const SESSION_EXPIRY: Duration = Duration::from_secs(24 * 3600);
/// The largest packet that we take.
const LARGEST_PACKET: u32 = 256 * 1024;
/// Unacknowledged messages that the broker may send us: twice the command room's inbox.
const RECEIVE_MAXIMUM: u16 = 16;
/// Room for requests to the client library: more than all windows of a session together.
pub(super) const REQUESTS: usize = 256;
/// Unacknowledged messages that we send at most: all windows of a session together and some more. The library keeps tables
/// of this length, and without a limit tables for 65535 messages, which are 16 MB.
const MOST_IN_FLIGHT: u16 = 128;
/// Name resolution, TCP, TLS and CONNECT together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Unacknowledged bytes after which the kernel gives a connection up.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);

/// Why no client could be built. All of these may pass: files are read again at the next attempt.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("cannot read {file}: {reason}", file = file.display())]
    File { file: PathBuf, reason: std::io::Error },
    #[error("{file} holds no {what} in PEM form: {reason}", file = file.display())]
    Pem { file: PathBuf, what: &'static str, reason: String },
    #[error("the client certificate and its key do not fit: {0}")]
    ClientCertificate(rustls::Error),
    #[error("no TLS provider is installed in this process")]
    NoProvider,
    #[error("the system's certificates: {0}")]
    SystemRoots(rumqttc::TlsError),
    #[error("TLS versions: {0}")]
    Versions(rustls::Error),
}

/// What a connection tells its session.
#[derive(Debug)]
pub(super) enum Signal {
    Up(Box<ConnAck>),
    Message(Box<Publish>),
}

/// A client for one connection. The event loop is to be driven by [`drive`].
pub(super) async fn client(
    settings: &MqttSettings,
    gateway: &GatewayId,
    topics: &Topics,
) -> Result<(AsyncClient, EventLoop), ClientError> {
    let uses_tls = settings.url.scheme() == "mqtts";
    let port = settings.url.port().unwrap_or(if uses_tls { 8883 } else { 1883 });
    let host = settings.url.host_str().unwrap_or_default();
    let mut options = MqttOptions::new(gateway.as_str(), Broker::tcp(host, port));
    options
        .set_keep_alive(u16::try_from(settings.keep_alive.as_secs()).unwrap_or(u16::MAX))
        .set_clean_start(false)
        .set_session_expiry_interval(u32::try_from(SESSION_EXPIRY.as_secs()).ok())
        .set_outgoing_inflight_upper_limit(MOST_IN_FLIGHT)
        .set_receive_maximum(Some(RECEIVE_MAXIMUM))
        .set_max_packet_size(Some(LARGEST_PACKET))
        .set_ack_mode(AckMode::Manual)
        .set_connect_timeout(CONNECT_TIMEOUT)
        .set_request_channel_capacity(REQUESTS)
        .set_last_will(LastWill::new(topics.status(), OFFLINE, QoS::AtLeastOnce, true, None))
        .set_session_store(NothingInFlight)
        .set_socket_connector(connect_socket);
    match (&settings.username, settings.password.as_ref().map(Secret::expose)) {
        (Some(user), Some(password)) => {
            options.set_credentials(user.clone(), password.to_owned());
        }
        (Some(user), None) => {
            options.set_username(user.clone());
        }
        (None, Some(password)) => {
            options.set_password(password.to_owned());
        }
        (None, None) => {}
    }
    if uses_tls {
        let config = tls(settings).await?;
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(config))));
    }
    Ok(AsyncClient::builder(options).capacity(REQUESTS).build())
}

/// Drive a client's connection until it ends. The library's `poll` is not safe to be dropped half way, so this future is
/// kept until it ends or the connection is given up.
pub(super) async fn drive(mut events: EventLoop, signals: mpsc::Sender<Signal>) -> ConnectionError {
    loop {
        let signal = match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                // It has served its purpose; without it the library keeps no copies of what is in flight.
                events.options.clear_session_store();
                Signal::Up(Box::new(ack))
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => Signal::Message(Box::new(publish)),
            Ok(_) => continue,
            Err(error) => return error,
        };
        if signals.send(signal).await.is_err() {
            return ConnectionError::RequestsDone;
        }
    }
}

/// The library resumes a broker's session only with a record of what was in flight. Ours is always empty: nothing of QoS 1
/// that went out needs its packet id back, because it is sent anew from derd's own store, and what comes in is sent anew by
/// the broker. Without this record the library would refuse to publish into the broker's session.
#[derive(Debug)]
struct NothingInFlight;

/// What the methods of [`SessionStore`] return.
type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, SessionStoreError>> + Send + 'a>>;

impl SessionStore for NothingInFlight {
    fn load<'a>(&'a self, key: &'a SessionStoreKey) -> StoreFuture<'a, Option<PersistedSession>> {
        let session = PersistedSession {
            format_version: 1,
            client_id: key.client_id().to_owned(),
            clean_start: false,
            session_expiry_interval: u32::try_from(SESSION_EXPIRY.as_secs()).ok(),
            outgoing_inflight_upper_limit: Some(MOST_IN_FLIGHT),
            ack_mode: PersistedAckMode::Manual,
            last_pkid: 0,
            last_puback: 0,
            replay: Vec::new(),
            incoming_qos2: Vec::new(),
        };
        Box::pin(std::future::ready(Ok(Some(session))))
    }

    fn save<'a>(&'a self, _: &'a SessionStoreKey, _: &'a PersistedSession) -> StoreFuture<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn clear<'a>(&'a self, _: &'a SessionStoreKey) -> StoreFuture<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

async fn connect_socket(address: String, mut options: NetworkOptions) -> std::io::Result<tokio::net::TcpStream> {
    options.set_tcp_nodelay(true);
    let stream = rumqttc::default_socket_connect(address, options).await?;
    let socket = socket2::SockRef::from(&stream);
    socket.set_keepalive(true)?;
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    Ok(stream)
}

async fn tls(settings: &MqttSettings) -> Result<ClientConfig, ClientError> {
    let provider = CryptoProvider::get_default().cloned().ok_or(ClientError::NoProvider)?;
    let mut config = match &settings.ca_file {
        Some(file) => {
            let mut roots = RootCertStore::empty();
            let found = roots.add_parsable_certificates(certificates(file).await?);
            if found.0 == 0 {
                let reason = format!("{} certificates that cannot be used", found.1);
                return Err(ClientError::Pem { file: file.clone(), what: "usable certificate", reason });
            }
            ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .map_err(ClientError::Versions)?
                .with_root_certificates(roots)
                .with_no_client_auth()
        }
        None => match TlsConfiguration::try_default_rustls().map_err(ClientError::SystemRoots)? {
            TlsConfiguration::Rustls(config) => Arc::unwrap_or_clone(config),
            TlsConfiguration::Simple { .. } => return Err(ClientError::NoProvider),
        },
    };
    if let (Some(cert_file), Some(key_file)) = (&settings.client_cert_file, &settings.client_key_file) {
        let chain = certificates(cert_file).await?;
        let key = PrivateKeyDer::from_pem_slice(&read(key_file).await?).map_err(|e| ClientError::Pem {
            file: key_file.clone(),
            what: "private key",
            reason: e.to_string(),
        })?;
        let pair = CertifiedKey::from_der(chain, key, &provider).map_err(ClientError::ClientCertificate)?;
        let resolver: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(pair));
        config.client_auth_cert_resolver = resolver;
    }
    Ok(config)
}

async fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let pem = read(file).await?;
    let fault = |reason| ClientError::Pem { file: file.to_owned(), what: "certificate", reason };
    let chain =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>().map_err(|e| fault(e.to_string()))?;
    if chain.is_empty() { Err(fault("no such section".to_owned())) } else { Ok(chain) }
}

async fn read(file: &Path) -> Result<Vec<u8>, ClientError> {
    tokio::fs::read(file).await.map_err(|reason| ClientError::File { file: file.to_owned(), reason })
}

/// An error in words for people: what was attempted, on what, and what it may be.
pub(super) fn describe(error: &ConnectionError, url: &url::Url, clock: ClockState) -> String {
    let broker = format!("{}:{}", url.host_str().unwrap_or_default(), url.port().unwrap_or(default_port(url)));
    match error {
        ConnectionError::Tls(tls) => certificate_words(&format!("TLS with {broker}: {tls}"), clock),
        ConnectionError::Io(io) | ConnectionError::MqttState(StateError::Io(io)) => {
            certificate_words(&format!("{broker}: {io}"), clock)
        }
        ConnectionError::Timeout(_) => {
            format!("{broker} did not answer within {} s", CONNECT_TIMEOUT.as_secs())
        }
        ConnectionError::ConnectionRefused(code)
        | ConnectionError::MqttState(StateError::ConnFail { reason: code }) => {
            let why = match code {
                ConnectReturnCode::BadUserNamePassword => "wrong user name or password",
                ConnectReturnCode::NotAuthorized => "not authorised (user, password or client certificate)",
                ConnectReturnCode::ClientIdentifierNotValid | ConnectReturnCode::BadClientId => {
                    "it does not take the gateway's id as client id"
                }
                ConnectReturnCode::UnsupportedProtocolVersion | ConnectReturnCode::RefusedProtocolVersion => {
                    "it does not speak MQTT 5"
                }
                other => return format!("{broker} refused the connection: {other:?}"),
            };
            format!("{broker} refused the connection: {why}")
        }
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
            let why = match reason_code {
                DisconnectReasonCode::SessionTakenOver => {
                    "another client connected with this gateway's id: is there a second gateway with it".to_owned()
                }
                other => format!("{other:?}"),
            };
            let said = reason_string.as_deref().map(|s| format!(" ({s})")).unwrap_or_default();
            format!("{broker} ended the connection: {why}{said}")
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => format!("{broker} does not answer any more"),
        ConnectionError::MqttState(StateError::ConnectionAborted) => format!("{broker} closed the connection"),
        ConnectionError::MqttState(StateError::Deserialization(what)) => {
            format!("{broker} sent what is not MQTT 5 ({what}): is this the broker's port")
        }
        other => {
            let text = other.to_string();
            if text.contains("CertificateRequired") {
                return format!("{broker} wants a client certificate: set client_cert_file and client_key_file");
            }
            certificate_words(&format!("{broker}: {text}"), clock)
        }
    }
}

fn default_port(url: &url::Url) -> u16 {
    if url.scheme() == "mqtts" { 8883 } else { 1883 }
}

/// A wrong clock makes good certificates look bad.
fn certificate_words(text: &str, clock: ClockState) -> String {
    if clock == ClockState::Untrusted && text.to_lowercase().contains("certificate") {
        format!(
            "{text}; the clock is not synchronised, which alone makes a good certificate look expired or not yet valid"
        )
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_in_words() {
        let url: url::Url = "mqtts://broker.example".parse().unwrap();
        let tls = ConnectionError::Tls(rumqttc::TlsError::TLS(rustls::Error::InvalidCertificate(
            rustls::CertificateError::NotValidYet,
        )));
        let text = describe(&tls, &url, ClockState::Untrusted);
        assert!(text.contains("broker.example:8883") && text.contains("clock"), "{text}");
        let text = describe(&tls, &url, ClockState::Synced);
        assert!(!text.contains("clock"), "{text}");
        let text = describe(
            &ConnectionError::ConnectionRefused(ConnectReturnCode::BadUserNamePassword),
            &url,
            ClockState::Synced,
        );
        assert_eq!(text, "broker.example:8883 refused the connection: wrong user name or password");
    }
}
