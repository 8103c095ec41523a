//! The whole uplink against a scripted MQTT 5 broker on a loopback socket.

use super::tests::{Bench, result};
use super::*;
use crate::runtime::Exit;
use rumqttc::{ConnAck, ConnectReturnCode, Packet, PubAck, PubAckReason, Publish, QoS, SubAck, SubscribeReasonCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// What a test tells the broker to do.
enum Order {
    /// Send this to the client.
    Say(Box<Publish>),
    /// Cut the connection.
    Cut,
}

/// A broker for one client. `judge` says how each publish is answered; `None`: not at all.
struct Broker {
    listener: TcpListener,
    heard: mpsc::Sender<Packet>,
    orders: mpsc::Receiver<Order>,
    judge: fn(&Publish) -> Option<PubAckReason>,
}

impl Broker {
    async fn start(
        judge: fn(&Publish) -> Option<PubAckReason>,
    ) -> (Self, url::Url, mpsc::Receiver<Packet>, mpsc::Sender<Order>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("mqtt://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (heard, heard_rx) = mpsc::channel(1000);
        let (orders_tx, orders) = mpsc::channel(8);
        (Self { listener, heard, orders, judge }, url, heard_rx, orders_tx)
    }

    /// Each connection after the first finds its session present, as after a restart of the client.
    async fn run(mut self) -> Exit {
        let mut session_present = false;
        loop {
            let (stream, _) = self.listener.accept().await.unwrap();
            self.serve(stream, session_present).await;
            session_present = true;
        }
    }

    async fn serve(&mut self, mut stream: TcpStream, session_present: bool) {
        let mut buffer = Default::default();
        loop {
            let packet = match Packet::read(&mut buffer, None) {
                Ok(packet) => packet,
                Err(_) => {
                    let mut chunk = [0; 4096];
                    tokio::select! {
                        read = stream.read(&mut chunk) => match read {
                            Ok(n) if n > 0 => buffer.extend_from_slice(&chunk[..n]),
                            _ => return,
                        },
                        order = self.orders.recv() => match order {
                            Some(Order::Say(publish)) => say(&mut stream, &Packet::Publish(*publish)).await,
                            Some(Order::Cut) | None => return,
                        },
                    }
                    continue;
                }
            };
            let answer = match &packet {
                Packet::Connect(..) => Some(Packet::ConnAck(ConnAck {
                    session_present,
                    code: ConnectReturnCode::Success,
                    properties: None,
                })),
                Packet::Subscribe(s) => Some(Packet::SubAck(SubAck {
                    pkid: s.pkid,
                    return_codes: vec![SubscribeReasonCode::Success(QoS::AtLeastOnce); s.filters.len()],
                    properties: None,
                })),
                Packet::Publish(p) => (self.judge)(p).map(|reason| {
                    let mut ack = PubAck::new(p.pkid, None);
                    ack.reason = reason;
                    Packet::PubAck(ack)
                }),
                Packet::PingReq => Some(Packet::PingResp),
                _ => None,
            };
            self.heard.send(packet).await.unwrap();
            if let Some(answer) = answer {
                say(&mut stream, &answer).await;
            }
        }
    }
}

async fn say(stream: &mut TcpStream, packet: &Packet) {
    let mut bytes = Default::default();
    packet.write(&mut bytes, None).unwrap();
    stream.write_all(&bytes).await.unwrap();
}

async fn bench(judge: fn(&Publish) -> Option<PubAckReason>) -> (Bench, mpsc::Receiver<Packet>, mpsc::Sender<Order>) {
    let (broker, url, heard, orders) = Broker::start(judge).await;
    let mut settings = MqttSettings::new("mqtt".parse().unwrap(), url);
    settings.telemetry_every = Cadence::Poll;
    let mut bench = Bench::start(settings);
    bench.tasks.spawn("broker", broker.run());
    (bench, heard, orders)
}

/// The next publish to a topic that ends so.
async fn published(heard: &mut mpsc::Receiver<Packet>, leaf: &str) -> Publish {
    loop {
        match heard.recv().await.unwrap() {
            Packet::Publish(p) if p.topic.ends_with(leaf.as_bytes()) => return p,
            _ => {}
        }
    }
}

fn grid_is_refused(publish: &Publish) -> Option<PubAckReason> {
    let is_grid = publish.topic.starts_with(b"derd/gw/device/grid/");
    Some(if is_grid { PubAckReason::NotAuthorized } else { PubAckReason::Success })
}

#[tokio::test]
async fn says_who_it_is_and_goodbye() {
    let (mut bench, mut heard, _orders) = bench(|_| Some(PubAckReason::Success)).await;
    let Packet::Connect(connect, will, _) = heard.recv().await.unwrap() else { panic!("no CONNECT first") };
    let properties = connect.properties.unwrap();
    assert_eq!((connect.client_id.as_str(), connect.clean_start, connect.keep_alive), ("gw", false, 30));
    assert_eq!((properties.session_expiry_interval, properties.max_packet_size), (Some(86_400), Some(262_144)));
    let will = will.unwrap();
    assert_eq!(
        (&will.topic[..], &will.message[..], will.retain),
        (&b"derd/gw/status"[..], &br#"{"state":"offline"}"#[..], true)
    );
    let online = published(&mut heard, "/status").await;
    assert!(online.retain && online.payload.starts_with(br#"{"state":"online""#), "{online:?}");
    assert!(published(&mut heard, "/device/pv/info").await.retain);
    bench.until_mode(UplinkMode::Live).await;
    let _others = bench.stop().await;
    assert_eq!(&published(&mut heard, "/status").await.payload[..], br#"{"state":"offline"}"#);
    loop {
        if matches!(heard.recv().await.unwrap(), Packet::Disconnect(_)) {
            break;
        }
    }
}

#[tokio::test]
async fn a_refused_publish_does_not_count_and_stops_nothing() {
    let (mut bench, mut heard, _orders) = bench(grid_is_refused).await;
    bench.until_mode(UplinkMode::Live).await;
    bench.offer("grid", 0);
    bench.offer("pv", 1);
    let event = published(&mut heard, "/event").await;
    let event: serde_json::Value = serde_json::from_slice(&event.payload).unwrap();
    assert_eq!((&event["code"], &event["state"]), (&"mqtt_publish_refused".into(), &"raised".into()));
    bench.offer("pv", 2);
    bench.offer("grid", 3);
    bench.offer("pv", 4);
    bench.until_backlog(&[0, 3]).await;
    let codes: Vec<_> = bench.store.events(10).await.unwrap().into_iter().map(|(_, e)| (e.code, e.text)).collect();
    let about_grid = codes.iter().filter(|(code, text)| code == "mqtt_publish_refused" && text.contains("grid"));
    assert!((1..=2).contains(&about_grid.count()), "once for each of its two topics at most: {codes:?}");
    drop(bench.stop().await);
}

#[tokio::test]
async fn what_was_not_acknowledged_goes_out_again_as_backfill() {
    let (mut bench, mut heard, orders) =
        bench(|p| (!p.topic.ends_with(b"/telemetry")).then_some(PubAckReason::Success)).await;
    bench.until_mode(UplinkMode::Live).await;
    bench.offer("pv", 0);
    bench.offer("pv", 1);
    published(&mut heard, "/telemetry").await;
    published(&mut heard, "/telemetry").await;
    orders.send(Order::Cut).await.unwrap_or_else(|_| panic!("the broker is gone"));
    let backfill = published(&mut heard, "/device/pv/backfill").await;
    let samples: Vec<serde_json::Value> = serde_json::from_slice(&backfill.payload).unwrap();
    let seqs: Vec<_> = samples.iter().map(|s| s["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [0, 1]);
    bench.until_backlog(&[]).await;
    drop(bench.stop().await);
}

#[tokio::test]
async fn commands_are_acknowledged_after_their_answer() {
    let (mut bench, mut heard, orders) = bench(|_| Some(PubAckReason::Success)).await;
    bench.until_mode(UplinkMode::Live).await;
    let command = |pkid: u16, body: &str| {
        let mut p = Publish::new("derd/gw/device/pv/command", QoS::AtLeastOnce, body.to_owned(), None);
        p.pkid = pkid;
        Order::Say(Box::new(p))
    };
    for (pkid, body) in [(1, r#"{"id":"c-1"}"#), (2, r#"{"id":"c-2"}"#)] {
        orders.send(command(pkid, body)).await.unwrap_or_else(|_| panic!("the broker is gone"));
    }
    // The test's inbox holds one: the second is told so.
    let busy = published(&mut heard, "/device/pv/command/result").await;
    let busy: serde_json::Value = serde_json::from_slice(&busy.payload).unwrap();
    assert_eq!((&busy["id"], &busy["state"], &busy["reason"]), (&"c-2".into(), &"rejected".into(), &"busy".into()));
    let raw = bench.inbox.recv().await.unwrap();
    raw.answer.send(result("mqtt", Some("pv"))).unwrap();
    let mut acks = Vec::new();
    while acks.len() < 2 {
        if let Packet::PubAck(ack) = heard.recv().await.unwrap() {
            acks.push(ack.pkid);
        }
    }
    assert_eq!(acks, [1, 2]);
    drop(bench.stop().await);
}
