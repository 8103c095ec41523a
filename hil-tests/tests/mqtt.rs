//! The daemon and a real broker.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(clippy::disallowed_methods, reason = "end-to-end tests live in real time")]

use derd::model::Point;
use derd::runtime::Clock;
use derd::sim::{Home, HomeHandle, HomeOptions, Scenario};
use hil_tests::{
    Broker, BrokerOptions, Daemon, Subscriber, config_for, eventually, now_rfc3339, publish, rfc3339_in, wait_for,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

fn steady_home() -> HomeHandle {
    Home::start(HomeOptions { scenario: Scenario::Steady, ..HomeOptions::default() }, Clock::system()).unwrap()
}

fn uplink(broker: &Broker, more: &str) -> String {
    format!("[[uplink]]\nkind = \"mqtt\"\nurl = {:?}\ntelemetry_every = \"poll\"\n{more}", broker.url())
}

const SOON: Duration = Duration::from_secs(15);

fn charge(id: &str, power_w: f64) -> String {
    json!({"id": id, "action": "charge", "params": {"power_w": power_w}, "issued_at": now_rfc3339(),
        "ends_at": rfc3339_in(Duration::from_secs(60)), "source": "test"})
    .to_string()
}

#[test]
fn telemetry_commands_and_bad_payloads() {
    let folder = tempfile::tempdir().unwrap();
    let home = steady_home();
    let broker = Broker::start(folder.path(), &BrokerOptions::default());
    let seen = broker.subscribe("derd/gw-1/#");
    let daemon = Daemon::start(folder.path(), &config_for(&home, folder.path(), &uplink(&broker, "")));
    daemon.wait_online(SOON);

    let status = seen.wait("the status", SOON, |m| m.topic == "derd/gw-1/status");
    assert_eq!(status.json["state"], "online");
    let info = seen
        .wait("the battery's info", SOON, |m| m.topic == "derd/gw-1/device/battery/info" && !m.json["maker"].is_null());
    assert!(info.json["capabilities"].to_string().contains("discharge"), "{}", info.payload);
    let sample = seen.wait("telemetry", SOON, |m| m.topic == "derd/gw-1/device/grid/telemetry");
    for key in ["ts", "boot", "seq", "clock", "points"] {
        assert!(!sample.json[key].is_null(), "{key} in {}", sample.payload);
    }

    // A charge command, from the broker to the battery and back.
    let before = home.truth().num("battery", &Point::PowerW).unwrap();
    assert!(before > -2500.0, "the battery is charging already: {before}");
    assert!(publish(&broker, "derd/gw-1/device/battery/command", &charge("c-1", 3000.0), &[]));
    let verified = seen.wait_result("c-1", "verified", SOON);
    let evidence = &verified["evidence"].as_array().unwrap()[0];
    assert_eq!(evidence["via"], "modbus");
    assert!(evidence["address"].as_str().unwrap().starts_with("unit 1 holding "), "{evidence}");
    eventually("the simulated battery charges with 3 kW", SOON, || {
        home.truth().num("battery", &Point::PowerW).is_some_and(|w| (w + 3000.0).abs() < 60.0)
    });
    let held = seen.wait_result("c-1", "held", SOON);
    assert_eq!(held["applied"]["power_w"].as_f64(), Some(3000.0), "{held}");
    assert_eq!(daemon.device("battery")["controlled_by"]["rank"], "command");

    // The same id never acts again; with another body it is refused.
    let writes =
        |seen: &Subscriber| seen.all().iter().filter(|m| m.json["id"] == "c-1" && m.json["state"] == "written").count();
    let written = writes(&seen);
    let body = charge("c-1", 1000.0);
    assert!(publish(&broker, "derd/gw-1/device/battery/command", &body, &[]));
    let refused = seen.wait_result("c-1", "rejected", SOON);
    assert!(refused["reason"].as_str().unwrap().contains("body"), "{refused}");
    assert_eq!(writes(&seen), written);

    // Every bad payload is answered, and nothing else changes.
    let battery = "derd/gw-1/device/battery/command";
    let fresh = json!({"id": "x", "issued_at": now_rfc3339()});
    let with = |more: Value| {
        let mut body = fresh.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body.to_string()
    };
    let cases = [
        ("b-1", battery, with(json!({"id": "b-1", "action": "chrge"})), "rejected", "unknown action"),
        (
            "b-2",
            battery,
            with(json!({"id": "b-2", "action": "charge", "params": {"power_w": "x"}})),
            "rejected",
            "must be a number",
        ),
        ("b-3", "derd/gw-1/device/nobody/command", with(json!({"id": "b-3", "action": "idle"})), "rejected", "nobody"),
        ("b-4", battery, with(json!({"id": "b-4", "action": "idle", "rank": "grid"})), "rejected", "rank"),
        ("b-5", battery, json!({"id": "b-5", "action": "idle"}).to_string(), "rejected", "issued_at"),
        (
            "b-6",
            battery,
            json!({"id": "b-6", "action": "idle", "not_after": "2026-01-01T00:00:00Z"}).to_string(),
            "expired",
            "",
        ),
        ("b-7", "derd/gw-1/device/grid/command", with(json!({"id": "b-7", "action": "charge"})), "rejected", "meter"),
    ];
    for (id, topic, body, state, says) in cases {
        assert!(publish(&broker, topic, &body, &[]), "{id}");
        let result = seen.wait_result(id, state, SOON);
        assert!(result["reason"].as_str().unwrap().contains(says), "{id}: {result}");
    }
    for bad in ["not json", "[]", "{}", r#"{"action":"idle"}"#] {
        let before = seen.all().iter().filter(|m| m.json["state"] == "rejected" && m.json["id"].is_null()).count();
        assert!(publish(&broker, battery, bad, &[]));
        eventually("a body without an id is answered", SOON, || {
            seen.all().iter().filter(|m| m.json["state"] == "rejected" && m.json["id"].is_null()).count() > before
        });
    }
    // A retained command is ignored and reported.
    let retained = json!({"id": "r-1", "action": "idle", "issued_at": now_rfc3339()}).to_string();
    assert!(publish(&broker, battery, &retained, &["-r"]));
    let event = seen.wait("it is reported", SOON, |m| m.topic == "derd/gw-1/event" && m.payload.contains("retained"));
    assert_eq!(event.json["state"], "raised");

    // An orderly stop says goodbye; the next start takes the running command up again and repeats nothing.
    assert_eq!(daemon.device("battery")["controlled_by"]["action"], "charge", "the retained `idle` changed nothing");
    assert_eq!(daemon.stop(), Some(0));
    drop(seen.wait("the last word", SOON, |m| m.topic == "derd/gw-1/status" && m.json["state"] == "offline"));
    let again = Daemon::start(folder.path(), &config_for(&home, folder.path(), &uplink(&broker, "")));
    again.wait_online(SOON);
    eventually("the command goes on", SOON, || {
        again.device("battery")["controlled_by"]["action"] == "charge"
            && home.truth().num("battery", &Point::PowerW).is_some_and(|w| (w + 3000.0).abs() < 60.0)
    });
    assert!(!seen.all().iter().any(|m| m.json["id"] == "r-1" && m.json["state"] == "accepted"));
    // It runs to its end, once.
    let ended = seen.wait_result("c-1", "ended", Duration::from_secs(70));
    assert!(ended["delivered_wh"].as_f64().unwrap() > 10.0, "{ended}");
    assert_eq!(seen.all().iter().filter(|m| m.json["id"] == "c-1" && m.json["state"] == "ended").count(), 1);
}

#[test]
fn what_was_not_sent_during_an_outage_arrives_once_and_all_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let home = steady_home();
    let mut broker = Broker::start(folder.path(), &BrokerOptions::default());
    let first = broker.subscribe("derd/gw-1/device/+/+");
    let daemon = Daemon::start(folder.path(), &config_for(&home, folder.path(), &uplink(&broker, "")));
    daemon.wait_online(SOON);
    drop(first.wait("telemetry", SOON, |m| m.topic.ends_with("/telemetry")));
    broker.stop();
    let mode = |daemon: &Daemon| daemon.status()["uplinks"][0]["mode"].as_str().unwrap().to_owned();
    eventually("the outage is noticed", Duration::from_secs(40), || mode(&daemon) == "offline");
    let lost_at = std::time::Instant::now();
    eventually("a minute without a broker", Duration::from_secs(70), || lost_at.elapsed() > Duration::from_secs(60));
    assert!(daemon.status()["uplinks"][0]["backlog_rows"].as_u64().unwrap() >= 200, "{}", daemon.status()["uplinks"]);
    broker.resume();
    let second = broker.subscribe("derd/gw-1/device/+/+");
    eventually("the backlog is empty", Duration::from_secs(60), || {
        let uplink = daemon.status()["uplinks"][0].clone();
        uplink["mode"] == "live" && uplink["backlog_rows"].as_u64().unwrap() < 8
    });
    let stopped_at = daemon.status();
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(stopped_at["store"]["dropped"], 0);

    let mut seqs: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    let mut unique: HashSet<(String, String, u64)> = HashSet::new();
    let mut backfilled = 0;
    for message in first.all().into_iter().chain(second.all()) {
        let device = message.topic.split('/').nth(3).unwrap().to_owned();
        let samples: Vec<Value> = match message.topic.rsplit('/').next().unwrap() {
            "telemetry" => vec![message.json],
            "backfill" => {
                let list = message.json.as_array().unwrap().clone();
                assert!(list.windows(2).all(|w| w[0]["seq"].as_u64() < w[1]["seq"].as_u64()), "oldest first");
                backfilled += list.len();
                list
            }
            _ => continue,
        };
        for sample in samples {
            let seq = sample["seq"].as_u64().unwrap();
            seqs.entry(device.clone()).or_default().insert(seq);
            unique.insert((sample["boot"].as_str().unwrap().to_owned(), device.clone(), seq));
        }
    }
    assert!(backfilled >= 200, "{backfilled} samples came as backfill");
    assert_eq!(seqs.len(), 4);
    for (device, seqs) in &seqs {
        let (low, high) = (*seqs.first().unwrap(), *seqs.last().unwrap());
        let gaps: Vec<u64> = (low..=high).filter(|s| !seqs.contains(s)).collect();
        assert!(low <= 1 && gaps.is_empty(), "{device}: {low}..={high} lacks {gaps:?}");
        assert!(high > 55, "{device}: only up to {high}");
    }
    assert_eq!(unique.len(), seqs.values().map(BTreeSet::len).sum::<usize>(), "one boot");
}

#[test]
fn tls_with_client_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let home = steady_home();
    // What the certificate's name may do; the observer sees all and may command.
    let acl = "user gw-1\ntopic readwrite derd/gw-1/#\nuser observer\ntopic readwrite #\n";
    let broker = Broker::start(folder.path(), &BrokerOptions { tls: true, acl: Some(acl.to_owned()) });
    let seen = broker.subscribe("derd/#");
    let keys = |name: &str| broker.folder().join(name).display().to_string();
    let files = format!(
        "ca_file = {:?}\nclient_cert_file = {:?}\nclient_key_file = {:?}\n",
        keys("ca.pem"),
        keys("client.pem"),
        keys("client.key")
    );
    let daemon = Daemon::start(folder.path(), &config_for(&home, folder.path(), &uplink(&broker, &files)));
    drop(seen.wait("telemetry over TLS", SOON, |m| m.topic.ends_with("/telemetry")));
    assert!(publish(&broker, "derd/gw-1/device/battery/command", &charge("t-1", 1500.0), &[]));
    drop(seen.wait_result("t-1", "verified", SOON));
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_publish_that_the_broker_refuses_is_not_counted_as_sent() {
    let folder = tempfile::tempdir().unwrap();
    let home = steady_home();
    // Everything but the grid meter's telemetry.
    let acl = "topic read #\ntopic write derd/gw-1/status\ntopic write derd/gw-1/event\ntopic write derd/gw-1/device/+/info\n\
               topic write derd/gw-1/device/pv/#\ntopic write derd/gw-1/device/battery/#\ntopic write derd/gw-1/device/charger/#\n";
    let broker = Broker::start(folder.path(), &BrokerOptions { acl: Some(acl.to_owned()), tls: false });
    let seen = broker.subscribe("derd/#");
    let daemon = Daemon::start(folder.path(), &config_for(&home, folder.path(), &uplink(&broker, "")));
    drop(seen.wait("the battery's telemetry", SOON, |m| m.topic == "derd/gw-1/device/battery/telemetry"));
    let rows = wait_for("refused rows stay in the backlog", Duration::from_secs(30), || {
        let uplink = daemon.status()["uplinks"][0].clone();
        let rows = uplink["backlog_rows"].as_u64()?;
        (rows >= 8).then_some((rows, uplink["error"].clone()))
    });
    assert!(rows.1.as_str().is_some_and(|e| e.contains("refuse") || e.contains("not authori")), "{rows:?}");
    assert!(!seen.all().iter().any(|m| m.topic == "derd/gw-1/device/grid/telemetry"));
    assert!(daemon.get("/api/v1/events").contains("mqtt_publish_refused"));
    // The others still go out, long after.
    let count =
        |seen: &Subscriber| seen.all().iter().filter(|m| m.topic == "derd/gw-1/device/battery/telemetry").count();
    let before = count(&seen);
    eventually("the others are not held up", SOON, || count(&seen) >= before + 5);
}
