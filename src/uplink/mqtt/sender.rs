//! What is on its way to the broker.

use super::flights::Flights;
use crate::model::{DeviceId, RowNo};
use rumqttc::{
    AsyncClient, ClientError, ConnAck, PubAckReason, PublishNoticeError, PublishOptions, PublishProperties,
    PublishResult, QoS,
};

/// The largest backfill message where the broker names no smaller one: what a Pi builds and a slow line carries in a breath.
const LARGEST_BATCH: usize = 64 * 1024;
/// Bytes of a publish beside topic, payload and correlation data: fixed header, lengths, packet id, properties.
const OVERHEAD: usize = 32;

/// What a publish carries, so that its fate reaches the right place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cargo {
    Live(DeviceId, RowNo),
    Batch(DeviceId, Vec<RowNo>),
    Post {
        id: u64,
        is_reply: bool,
    },
    /// The answer to a message that found the inbox full.
    Busy(u64),
    /// A retained message about ourselves.
    Statement,
}

/// One message.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) retain: bool,
    pub(super) correlation: Option<Vec<u8>>,
    pub(super) cargo: Cargo,
}

/// Why a message was not handed on. The cargo comes back.
#[derive(Debug)]
pub(super) enum NotSent {
    /// It can never be sent over this connection: the reason.
    Never(Cargo, String),
    /// There is no room at the moment.
    NotNow(Cargo),
}

/// What became of a publish.
pub(super) enum Fate {
    Delivered,
    /// The reason in words; was it a quota.
    Refused(&'static str, bool),
    /// The connection ended, or the library gave up.
    Unknown,
}

/// What this broker can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Bytes of a packet.
    pub(super) packet: usize,
    /// Live samples under way.
    pub(super) live: usize,
    /// Backfill messages under way.
    pub(super) batches: usize,
}

impl Limits {
    /// From the broker's word at connect.
    pub(super) fn of(ack: &ConnAck) -> Self {
        let properties = ack.properties.as_ref();
        let receive = usize::from(properties.and_then(|p| p.receive_max).unwrap_or(u16::MAX));
        let packet = properties.and_then(|p| p.max_packet_size).and_then(|size| usize::try_from(size).ok());
        // Some of the broker's window stays free for results and events.
        Self {
            packet: packet.unwrap_or(usize::MAX),
            live: receive.saturating_sub(8).clamp(4, 64),
            batches: if receive >= 20 { 4 } else { 1 },
        }
    }

    /// The largest payload of a backfill message to a topic of this length.
    pub(super) fn batch_bytes(&self, topic: usize) -> usize {
        self.packet.saturating_sub(OVERHEAD + topic).min(LARGEST_BATCH)
    }
}

/// Publishes, and learns what became of each.
pub(super) struct Sender {
    client: AsyncClient,
    limits: Limits,
    flights: Flights<(String, Cargo), Result<PublishResult, PublishNoticeError>>,
}

impl Sender {
    pub(super) const fn new(client: AsyncClient, limits: Limits) -> Self {
        Self { client, limits, flights: Flights::new() }
    }

    pub(super) const fn client(&self) -> &AsyncClient {
        &self.client
    }

    pub(super) const fn limits(&self) -> Limits {
        self.limits
    }

    /// Hand a message to the client with QoS 1. Its fate comes by [`Self::next`].
    pub(super) fn send(&mut self, message: Message) -> Result<(), NotSent> {
        let Message { topic, payload, retain, correlation, cargo } = message;
        let bytes = payload.len() + topic.len() + correlation.as_ref().map_or(0, Vec::len) + OVERHEAD;
        if bytes > self.limits.packet {
            let reason = format!("{bytes} bytes are more than its maximum packet size of {}", self.limits.packet);
            return Err(NotSent::Never(cargo, reason));
        }
        let mut options = PublishOptions::new(QoS::AtLeastOnce).retain(retain);
        if let Some(correlation) = correlation {
            options = options.properties(PublishProperties {
                correlation_data: Some(correlation.into()),
                ..PublishProperties::default()
            });
        }
        match self.client.try_publish_tracked(topic.clone(), payload, options) {
            Ok(notice) => {
                self.flights.push((topic, cargo), notice.wait_async());
                Ok(())
            }
            Err(ClientError::InvalidRequest(_)) => Err(NotSent::Never(cargo, "not a topic name".to_owned())),
            Err(_) => Err(NotSent::NotNow(cargo)),
        }
    }

    /// The next publish whose fate is known: its topic, cargo and fate. May be dropped at any time.
    pub(super) async fn next(&mut self) -> (String, Cargo, Fate) {
        let ((topic, cargo), result) = self.flights.next().await;
        (topic, cargo, fate(&result))
    }

    /// All whose fate is known by now.
    pub(super) fn take_ready(&mut self) -> Vec<(String, Cargo, Fate)> {
        self.flights.take_ready().into_iter().map(|((topic, cargo), result)| (topic, cargo, fate(&result))).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    pub(super) fn count(&self, which: impl Fn(&Cargo) -> bool) -> usize {
        self.flights.count(|(_, cargo)| which(cargo))
    }
}

fn fate(result: &Result<PublishResult, PublishNoticeError>) -> Fate {
    let reason = match result {
        Ok(PublishResult::Qos1(ack)) => ack.reason,
        Ok(_) | Err(PublishNoticeError::RetainNotSupported) => {
            return Fate::Refused("it keeps no retained messages", false);
        }
        Err(_) => return Fate::Unknown,
    };
    match reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Fate::Delivered,
        PubAckReason::QuotaExceeded => Fate::Refused("quota exceeded", true),
        PubAckReason::NotAuthorized => Fate::Refused("not authorised", false),
        PubAckReason::TopicNameInvalid => Fate::Refused("topic name invalid", false),
        PubAckReason::PayloadFormatInvalid => Fate::Refused("payload format invalid", false),
        PubAckReason::ImplementationSpecificError => Fate::Refused("implementation specific error", false),
        PubAckReason::PacketIdentifierInUse => Fate::Unknown,
        PubAckReason::UnspecifiedError => Fate::Refused("unspecified error", false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::{ConnAckProperties, ConnectReturnCode};

    const fn properties(receive_max: Option<u16>, max_packet_size: Option<u32>) -> ConnAckProperties {
        ConnAckProperties {
            session_expiry_interval: None,
            receive_max,
            max_qos: None,
            retain_available: None,
            max_packet_size,
            assigned_client_identifier: None,
            topic_alias_max: None,
            reason_string: None,
            user_properties: Vec::new(),
            wildcard_subscription_available: None,
            subscription_identifiers_available: None,
            shared_subscription_available: None,
            server_keep_alive: None,
            response_information: None,
            server_reference: None,
            authentication_method: None,
            authentication_data: None,
        }
    }

    #[test]
    fn limits_follow_the_broker() {
        let ack = |receive_max, max_packet_size| ConnAck {
            session_present: false,
            code: ConnectReturnCode::Success,
            properties: Some(properties(receive_max, max_packet_size)),
        };
        let open = Limits::of(&ack(None, None));
        assert_eq!((open.live, open.batches, open.batch_bytes(1)), (64, 4, 64 * 1024));
        let mosquitto = Limits::of(&ack(Some(20), None));
        assert_eq!((mosquitto.live, mosquitto.batches), (12, 4));
        let small = Limits::of(&ack(Some(1), Some(2000)));
        assert_eq!((small.live, small.batches, small.batch_bytes(8)), (4, 1, 1960));
    }
}
