//! How long a command and a reading take through the real daemon (release build), beside a bare loop of the same libraries
//! (rumqttc, tokio-modbus) that keeps nothing and checks nothing, in the same run.
//!
//! A command: from its MQTT publish to the first register write that the simulated battery serves. The daemon writes it
//! down with full sync before it acts, so the aim is the bare loop, one synced write to the same disk, and 0.5 ms: a row of
//! its own. The first register is the battery's timer, which is read back before the power is written; when the power was
//! there, and what was asked of the battery before the first write, is shown as well. A reading: from the last register read
//! that a device serves for it to its telemetry message at a subscriber.
//!
//! `cargo build --release && cargo bench -p hil-tests --bench command [-- COMMANDS]`: 1,000 commands in about 2 minutes
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails by panicking and prints its figures")]
#![expect(clippy::disallowed_methods, reason = "a bench lives in real time")]

use derd::runtime::Clock;
use derd::sim::{Home, HomeHandle, HomeOptions, Scenario, Touch};
use hil_tests::{Broker, BrokerOptions, Daemon, config_for, now_rfc3339, rfc3339_in};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, PublishOptions, QoS};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tokio_modbus::client::{Reader, Writer, tcp};
use tokio_modbus::slave::Slave;

/// Model 124 of the simulated battery, by the chain of models: 40070 + 52 + 28.
const STORAGE: u16 = 40_150;
/// `OutWRte` and `InWRte`, its eleventh and twelfth points.
const RATES: u16 = STORAGE + 2 + 10;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [word, mqtt, modbus] = &args[..]
        && word == "bare-loop"
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(bare_loop(mqtt.parse().unwrap(), modbus));
        return;
    }
    let commands: u64 = args.first().and_then(|a| a.parse().ok()).unwrap_or(1000);
    if std::env::var_os("DERD_BIN").is_none() {
        // The daemon of the tests is the debug build.
        let release = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/release/derd");
        let status = Command::new(std::env::current_exe().unwrap()).args(&args).env("DERD_BIN", release).status();
        std::process::exit(status.unwrap().code().unwrap_or(1));
    }
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &BrokerOptions::default());
    let port = broker.url().rsplit(':').next().unwrap().parse().unwrap();
    let (derd_home, bare_home) = (home(), home());
    let (derd_touched, bare_touched) = (touches(&derd_home), touches(&bare_home));
    let (client, messages) = client(port);
    let uplink = format!("[[uplink]]\nkind = \"mqtt\"\nurl = {:?}\ntelemetry_every = \"poll\"\n", broker.url());
    let config = config_for(&derd_home, folder.path(), &uplink).replace("\"2s\"", "\"60s\"");
    let daemon = Daemon::start(folder.path(), &config);
    daemon.wait_online(Duration::from_secs(10));
    let mut bare = Command::new(std::env::current_exe().unwrap())
        .args(["bare-loop", &port.to_string(), bare_home.device("battery").unwrap().link.trim_start_matches("tcp://")])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();

    let (mut by_derd, mut power_by_derd, mut by_bare, mut synced) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut asked = 0;
    let mut file = std::fs::File::create(folder.path().join("synced")).unwrap();
    // The first ones warm both up.
    for n in 0..commands + 10 {
        let derd = command(&client, "derd/gw-1/device/battery/command", n, &derd_touched);
        let bare = command(&client, "bare/command", n, &bare_touched);
        // The rest of its program went out meanwhile.
        let later = derd_touched.try_iter().filter(of_battery(Touch::Write)).last().map(|(at, ..)| derd.since(at));
        let write = synced_write(&mut file);
        if n >= 10 {
            by_derd.push(derd.took);
            power_by_derd.push(later.unwrap_or(derd.took));
            by_bare.push(bare.took);
            synced.push(write);
            asked += derd.reads;
        }
    }
    // What the commands left behind.
    rest(Duration::from_secs(2));
    derd_touched.try_iter().for_each(drop);
    bare_touched.try_iter().for_each(drop);
    messages.try_iter().for_each(drop);
    rest(Duration::from_secs(30));
    let arrived: Vec<Arrived> = messages.try_iter().collect();
    let of_derd = |topic: &str| Some(topic.strip_prefix("derd/gw-1/device/")?.strip_suffix("/telemetry")?.to_owned());
    let of_bare = |topic: &str| (topic == "bare/telemetry").then(|| "battery".to_owned());
    let (read_by_derd, read_by_bare) =
        (readings(&derd_touched, &arrived, of_derd), readings(&bare_touched, &arrived, of_bare));
    drop((bare.kill(), bare.wait()));
    assert_eq!(daemon.stop(), Some(0));

    println!("{:32} {:>8} {:>8} {:>8} {:>8}", "ms", "count", "p50", "p99", "max");
    let aim = |part| at(&mut by_bare.clone(), part) + at(&mut synced.clone(), part) + 0.5;
    let aim = [aim(0.5), aim(0.99)];
    show("command, derd", by_derd);
    println!("{:32} {:8} {:8.2} {:8.2}", "  aim: bare + synced + 0.5 ms", "", aim[0], aim[1]);
    show("  until the power is written", power_by_derd);
    show("command, bare loop", by_bare);
    show("one synced write of 4 KiB", synced);
    show("reading, derd", read_by_derd);
    show("reading, bare loop", read_by_bare);
    println!("reads of the battery between a command and its first write: {asked}, those of polls among them");
}

type Touched = (Instant, String, Touch);

/// What a command came to.
struct Came {
    begin: Instant,
    /// Until the first write, ms.
    took: f64,
    /// Reads of the battery until then.
    reads: usize,
}

impl Came {
    fn since(&self, at: Instant) -> f64 {
        at.duration_since(self.begin).as_secs_f64() * 1000.0
    }
}

fn of_battery(touch: Touch) -> impl Fn(&Touched) -> bool {
    move |(_, device, what)| device == "battery" && *what == touch
}

type Arrived = (Instant, String);

fn home() -> HomeHandle {
    Home::start(HomeOptions { scenario: Scenario::Steady, ..HomeOptions::default() }, Clock::system()).unwrap()
}

fn touches(home: &HomeHandle) -> Receiver<Touched> {
    let (tx, rx) = channel();
    home.on_request(move |device, touch| drop(tx.send((Instant::now(), device.to_owned(), touch))));
    rx
}

/// An MQTT client on a thread of its own, listening to telemetry.
fn client(port: u16) -> (AsyncClient, Receiver<Arrived>) {
    let (client, mut events) = connection("bench", port);
    let (tx, rx) = channel();
    let subscriber = client.clone();
    drop(std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for topic in ["derd/gw-1/device/+/telemetry", "bare/telemetry"] {
                subscriber.subscribe(topic, QoS::AtLeastOnce).await.unwrap();
            }
            while let Ok(event) = events.poll().await {
                if let Event::Incoming(Packet::Publish(publish)) = event {
                    let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                    drop(tx.send((Instant::now(), topic)));
                }
            }
        });
    }));
    (client, rx)
}

fn connection(id: &str, port: u16) -> (AsyncClient, rumqttc::EventLoop) {
    let mut options = MqttOptions::new(id, rumqttc::Broker::tcp("127.0.0.1", port));
    options.set_socket_connector(|address, mut options: rumqttc::NetworkOptions| async move {
        options.set_tcp_nodelay(true);
        rumqttc::default_socket_connect(address, options).await
    });
    AsyncClient::builder(options).capacity(64).build()
}

/// Publish a command and wait for the battery's first write.
fn command(client: &AsyncClient, topic: &str, n: u64, touched: &Receiver<Touched>) -> Came {
    // At any moment of the polls' second.
    rest(Duration::from_millis(10 + n * 37 % 50));
    touched.try_iter().for_each(drop);
    let payload = json!({"id": format!("c-{n}"), "action": "charge", "params": {"power_w": 1000 + n % 100 * 40},
        "issued_at": now_rfc3339(), "ends_at": rfc3339_in(Duration::from_secs(600))});
    let begin = Instant::now();
    client.try_publish(topic, payload.to_string(), PublishOptions::new(QoS::AtLeastOnce)).unwrap();
    let mut reads = 0;
    loop {
        let touch = touched.recv_timeout(Duration::from_secs(10)).unwrap();
        reads += usize::from(of_battery(Touch::Read)(&touch));
        if of_battery(Touch::Write)(&touch) {
            let took = touch.0.duration_since(begin).as_secs_f64() * 1000.0;
            return Came { begin, took, reads };
        }
    }
}

/// For each telemetry message the time since its device was last read, ms.
fn readings(touched: &Receiver<Touched>, arrived: &[Arrived], device: impl Fn(&str) -> Option<String>) -> Vec<f64> {
    let reads: Vec<Touched> = touched.try_iter().filter(|t| t.2 == Touch::Read).collect();
    let took = |(at, topic): &Arrived| {
        let device = device(topic)?;
        let read = reads.iter().rev().find(|(read, of, _)| read < at && *of == device)?;
        Some(at.duration_since(read.0).as_secs_f64() * 1000.0)
    };
    arrived.iter().filter_map(took).collect()
}

/// One synced write to the disk of the daemon's data, ms.
fn synced_write(file: &mut std::fs::File) -> f64 {
    let begin = Instant::now();
    file.write_all(&[1; 4096]).unwrap();
    file.sync_data().unwrap();
    begin.elapsed().as_secs_f64() * 1000.0
}

fn rest(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        std::thread::park_timeout(end.saturating_duration_since(Instant::now()));
    }
}

fn show(name: &str, mut took: Vec<f64>) {
    let [half, most, all] = [0.5, 0.99, 1.0].map(|part| at(&mut took, part));
    println!("{name:32} {:8} {half:8.2} {most:8.2} {all:8.2}", took.len());
}

/// The value that so large a part of all stays below.
fn at(took: &mut [f64], part: f64) -> f64 {
    took.sort_by(f64::total_cmp);
    took[((took.len() as f64 * part) as usize).min(took.len() - 1)]
}

/// The least that a gateway can do: write what a message says, and publish what it reads once a second.
async fn bare_loop(mqtt: u16, modbus: &str) {
    let (client, mut events) = connection("bare", mqtt);
    client.subscribe("bare/command", QoS::AtLeastOnce).await.unwrap();
    let mut battery = tcp::connect_slave(modbus.parse().unwrap(), Slave(1)).await.unwrap();
    let mut poll = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            event = events.poll() => if let Event::Incoming(Packet::Publish(publish)) = event.unwrap() {
                let command: Value = serde_json::from_slice(&publish.payload).unwrap();
                let rate = (command["params"]["power_w"].as_f64().unwrap() * 2.0) as u16;
                battery.write_multiple_registers(RATES, &[0u16.wrapping_sub(rate), rate]).await.unwrap().unwrap();
            },
            _ = poll.tick() => {
                let mut points = serde_json::Map::new();
                for (start, count) in [(40_070, 52), (STORAGE, 26)] {
                    let words = battery.read_holding_registers(start, count).await.unwrap().unwrap();
                    points.extend(words.iter().enumerate().take(10).map(|(n, w)| (format!("p{n}"), json!(w))));
                }
                let payload = json!({"ts": now_rfc3339(), "points": points}).to_string();
                client.publish("bare/telemetry", payload, PublishOptions::new(QoS::AtLeastOnce)).await.unwrap();
            }
        }
    }
}
