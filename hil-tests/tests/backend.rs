//! The daemon as a cloud backend sees it: through a real broker only.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(clippy::disallowed_methods, reason = "end-to-end tests live in real time")]

use derd::runtime::Clock;
use derd::sim::{Home, HomeHandle, HomeOptions, Scenario};
use hil_tests::{
    Broker, BrokerOptions, Daemon, Message, Subscriber, config_for, eventually, now_rfc3339, publish, rfc3339_in,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(15);
const FINAL: [&str; 6] = ["ended", "rejected", "expired", "superseded", "failed", "reverted"];
const BATTERY: &str = "derd/gw-1/device/battery/command";

fn steady_home() -> HomeHandle {
    Home::start(HomeOptions { scenario: Scenario::Steady, ..HomeOptions::default() }, Clock::system()).unwrap()
}

fn uplink(name: &str, broker: &Broker, more: &str) -> String {
    let url = broker.url();
    format!("[[uplink]]\nkind = \"mqtt\"\nname = {name:?}\nurl = {url:?}\ntelemetry_every = \"poll\"\n{more}")
}

fn command(id: &str, action: &str, lasts: Duration) -> Value {
    let params = if action == "charge" { json!({"power_w": 2000}) } else { json!({}) };
    json!({"id": id, "action": action, "params": params, "issued_at": now_rfc3339(), "not_after": rfc3339_in(SOON * 4),
        "ends_at": rfc3339_in(lasts)})
}

fn send(broker: &Broker, topic: &str, body: &Value, more: &[&str]) {
    assert!(publish(broker, topic, &body.to_string(), more), "{topic}: {body}");
}

/// Sequence numbers of one device that came, live or later.
fn seqs(messages: &[Message], device: &str) -> BTreeSet<u64> {
    let topic = |leaf: &str| format!("derd/gw-1/device/{device}/{leaf}");
    let (live, later) = (topic("telemetry"), topic("backfill"));
    let mut found = BTreeSet::new();
    for message in messages {
        if message.topic == live {
            found.extend(message.json["seq"].as_u64());
        } else if message.topic == later {
            found.extend(message.json.as_array().unwrap().iter().filter_map(|s| s["seq"].as_u64()));
        }
    }
    found
}

fn has_gap(seqs: &BTreeSet<u64>) -> bool {
    seqs.first() != Some(&0) || seqs.last() != Some(&(seqs.len() as u64 - 1))
}

/// Returns when the daemon has subscribed.
fn send_until_heard(broker: &Broker, seen: &Subscriber) {
    eventually("the daemon listens", SOON, || {
        assert!(publish(broker, BATTERY, "{}", &[]));
        seen.all().iter().any(|m| m.json["state"] == "rejected")
    });
}

/// The results of a command on its own topic, in order.
fn results(seen: &Subscriber, id: &str) -> Vec<Value> {
    let mine = |m: &Message| m.topic.ends_with("/command/result") && m.json["id"] == id;
    seen.all().into_iter().filter(mine).map(|m| m.json).collect()
}

#[test]
fn replies_duplicates_plans_and_site_limits() {
    let folder = tempfile::tempdir().unwrap();
    let home = steady_home();
    let broker = Broker::start(folder.path(), &BrokerOptions::default());
    let seen = broker.subscribe("#");
    let config = config_for(&home, folder.path(), &uplink("mqtt", &broker, "home_assistant = true\n"));
    let config = config.replace("main_fuse_a = 35", "main_fuse_a = 35\nexport_limit_w = 7000");
    let daemon = Daemon::start(folder.path(), &config);
    daemon.wait_online(SOON);

    // What is said about the gateway and its devices is there for whoever comes later.
    let shown = |m: &Message| m.topic.ends_with("battery_soc_pct/config");
    drop(seen.wait("Home Assistant's discovery", SOON, shown));
    let late = broker.subscribe("#");
    let status = late.wait("the retained status", SOON, |m| m.topic == "derd/gw-1/status");
    assert!(status.retained && status.json["state"] == "online", "{status:?}");
    for device in ["pv", "battery", "grid", "charger"] {
        let info = late.wait("a retained info", SOON, |m| m.topic == format!("derd/gw-1/device/{device}/info"));
        for key in ["kind", "maker", "model", "serial", "firmware", "capabilities", "limits"] {
            assert!(info.retained && !info.json[key].is_null(), "{key} of {device}: {}", info.payload);
        }
    }
    let discovery = late.wait("the retained discovery", SOON, shown);
    assert!(discovery.retained && discovery.json["unit_of_measurement"] == "%", "{}", discovery.payload);
    let sample = seen.wait("grid telemetry", SOON, |m| m.topic == "derd/gw-1/device/grid/telemetry").json;
    for (point, value) in sample["points"].as_object().unwrap() {
        assert_eq!(value.is_null(), !sample["null_reason"][point].is_null(), "{point} in {sample}");
    }

    // Response topic and correlation data; the same command again gets the stored result, also there.
    let first = command("d-1", "charge", Duration::from_secs(40));
    let reply = ["-D", "publish", "response-topic", "acme/replies", "-D", "publish", "correlation-data", "call-7"];
    send(&broker, BATTERY, &first, &reply);
    drop(seen.wait_result("d-1", "verified", SOON));
    let replies = |seen: &Subscriber| seen.all().into_iter().filter(|m| m.topic == "acme/replies").collect::<Vec<_>>();
    eventually("a reply", SOON, || replies(&seen).iter().any(|m| m.json["state"] == "verified"));
    assert!(replies(&seen).iter().all(|m| m.properties.to_string().contains("call-7")), "{:?}", replies(&seen));
    let before = results(&seen, "d-1").len();
    send(&broker, BATTERY, &first, &[]);
    eventually("the stored result", SOON, || results(&seen, "d-1").len() > before);
    assert!(results(&seen, "d-1")[before..].iter().all(|r| r["state"] == "verified" || r["state"] == "held"));

    // Plans: accepted, refused with every reason, removed, removed twice.
    let plan = |id: &str, body: &str, nth: usize| {
        assert!(publish(&broker, &format!("derd/gw-1/plan/{id}/set"), body, &[]));
        let topic = format!("derd/gw-1/plan/{id}/result");
        let all = || seen.all().into_iter().filter(|m| m.topic == topic).collect::<Vec<_>>();
        eventually("the plan's answer", SOON, || all().len() > nth);
        all()[nth].json.clone()
    };
    let good = json!({"device": "charger", "kind": "weekly", "timezone": "Europe/Berlin", "ends_at": "9999-12-31T23:59:59Z",
        "rules": [{"days": ["mon"], "start": "22:00", "end": "06:00", "action": "start"}]});
    assert_eq!(plan("p1", &good.to_string(), 0)["state"], "accepted");
    let bad = json!({"device": "nobody", "kind": "weekly", "timezone": "Mars/Base", "rules": [
        {"days": ["xx"], "start": "25:00", "end": "06:00", "action": "fly"}]});
    let refused = plan("p1", &bad.to_string(), 1);
    assert!(refused["state"] == "refused" && refused["reasons"].as_array().unwrap().len() >= 4, "{refused}");
    assert_eq!(plan("p1", "", 2)["state"], "accepted");
    assert_eq!(plan("p1", "", 3)["state"], "accepted", "at least once is no fault");

    // The site's limits are tightened, never widened.
    let site = |id: &str, power_w: u32| {
        json!({"id": id, "action": "set_export_limit", "params": {"power_w": power_w}, "issued_at": now_rfc3339(),
            "ends_at": rfc3339_in(Duration::from_secs(3))})
    };
    for (id, asked, applied) in [("x-1", 20_000, 7000.0), ("x-2", 1000, 1000.0)] {
        send(&broker, "derd/gw-1/site/command", &site(id, asked), &[]);
        let ended = seen.wait_result(id, "ended", SOON);
        assert_eq!(ended["applied"]["power_w"].as_f64(), Some(applied), "{ended}");
        assert_eq!(ended["limited_by"].is_null(), applied < 7000.0, "{ended}");
    }

    // Of two at once the tighter holds; the other's sender is told so, and again when it is over.
    let mut wide = site("x-3", 2000);
    wide["ends_at"] = json!(rfc3339_in(Duration::from_secs(8)));
    send(&broker, "derd/gw-1/site/command", &wide, &[]);
    send(&broker, "derd/gw-1/site/command", &site("x-4", 500), &[]);
    drop(seen.wait_result("x-4", "ended", SOON));
    let ended = seen.wait_result("x-3", "ended", SOON);
    assert_eq!((ended["applied"]["power_w"].as_f64(), ended["limited_by"].is_null()), (Some(2000.0), true), "{ended}");
    let told = results(&seen, "x-3");
    let is_clipped = |r: &Value| r["applied"]["power_w"] == 500.0 && r["limited_by"] == "export_limit";
    assert!(told.iter().any(is_clipped), "{told:#?}");

    // More than the packet size that CONNECT advertises: the broker keeps it, and nothing else happens.
    let large = json!({"id": "l-1", "action": "idle", "issued_at": now_rfc3339(), "x": "x".repeat(300 * 1024)});
    let file = folder.path().join("large.json");
    std::fs::write(&file, large.to_string()).unwrap();
    let sent = std::process::Command::new("mosquitto_pub")
        .args(["-V", "5", "-q", "1", "-p", broker.url().rsplit(':').next().unwrap(), "-t", BATTERY, "-f"])
        .arg(&file)
        .status();
    assert!(sent.unwrap().success());
    send(&broker, BATTERY, &command("l-2", "idle", Duration::from_secs(2)), &[]);
    drop(seen.wait_result("l-2", "ended", SOON));
    assert!(results(&seen, "l-1").is_empty());
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn rows_arrive_when_the_broker_allows_them() {
    let folder = tempfile::tempdir().unwrap();
    let home = steady_home();
    let rules =
        "topic read #\ntopic write derd/gw-1/status\ntopic write derd/gw-1/event\ntopic write derd/gw-1/device/pv/#\n";
    let broker = Broker::start(folder.path(), &BrokerOptions { acl: Some(rules.to_owned()), tls: false });
    let seen = broker.subscribe("#");
    let daemon = Daemon::start(folder.path(), &config_for(&home, folder.path(), &uplink("mqtt", &broker, "")));
    let uplink = || daemon.status()["uplinks"][0].clone();
    eventually("refused rows wait", SOON, || uplink()["backlog_rows"].as_u64().unwrap() >= 9);
    assert!(uplink()["error"].as_str().unwrap().contains("refuses"), "{}", uplink());
    assert!(seqs(&seen.all(), "grid").is_empty());
    broker.set_acl("topic readwrite #\n");
    for device in ["grid", "battery", "charger", "pv"] {
        eventually("every row arrives", Duration::from_secs(60), || {
            let seqs = seqs(&seen.all(), device);
            seqs.len() > 5 && !has_gap(&seqs)
        });
    }
    eventually("the uplink is good again", SOON, || uplink()["error"].is_null());
    let info = seen.wait("what was refused is said now", SOON, |m| m.topic == "derd/gw-1/device/grid/info");
    assert_eq!(info.json["kind"], "meter");
    assert!(seen.all().iter().any(|m| m.json["code"] == "mqtt_publish_refused" && m.json["state"] == "cleared"));
}

#[test]
fn a_broker_that_hangs_delays_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let home = steady_home();
    let good = Broker::start(one.path(), &BrokerOptions::default());
    let hangs = Broker::start(two.path(), &BrokerOptions::default());
    let (seen, other) = (good.subscribe("derd/#"), hangs.subscribe("derd/#"));
    let nowhere = "[[uplink]]\nkind = \"mqtt\"\nname = \"nowhere\"\nurl = \"mqtt://no-such-host.invalid\"\n";
    let config = uplink("good", &good, "") + &uplink("hangs", &hangs, "") + nowhere;
    let daemon = Daemon::start(folder.path(), &config_for(&home, folder.path(), &config));
    daemon.wait_online(SOON);
    eventually("both have telemetry", SOON, || {
        !seqs(&seen.all(), "grid").is_empty() && !seqs(&other.all(), "grid").is_empty()
    });
    hangs.signal("STOP");
    let (begin, before) = (Instant::now(), seqs(&seen.all(), "grid").len());
    // A command through the other one is answered at once.
    send(&good, BATTERY, &command("g-1", "charge", Duration::from_secs(4)), &[]);
    drop(seen.wait_result("g-1", "ended", SOON));
    eventually("ten more samples", SOON, || seqs(&seen.all(), "grid").len() >= before + 10);
    assert!(begin.elapsed() < SOON, "live samples were late");
    hangs.signal("CONT");
    let upto = *seqs(&seen.all(), "grid").last().unwrap();
    eventually("the other has them all, too", Duration::from_secs(40), || {
        let seqs = seqs(&other.all(), "grid");
        !has_gap(&seqs) && seqs.last() >= Some(&upto)
    });
    assert!(results(&other, "g-1").is_empty(), "a result is its own channel's");
    let uplinks = daemon.status()["uplinks"].as_array().unwrap().clone();
    let nowhere = uplinks.iter().find(|u| u["name"] == "nowhere").unwrap();
    assert!(nowhere["error"].as_str().unwrap().contains("no-such-host.invalid"), "{nowhere}");
}

#[test]
fn what_was_sent_while_derd_was_down() {
    let folder = tempfile::tempdir().unwrap();
    let home = steady_home();
    let broker = Broker::start(folder.path(), &BrokerOptions::default());
    let seen = broker.subscribe("derd/#");
    let config = config_for(&home, folder.path(), &uplink("mqtt", &broker, ""));
    let daemon = Daemon::start(folder.path(), &config);
    daemon.wait_online(SOON);
    send_until_heard(&broker, &seen);
    daemon.kill();
    drop(seen.wait("the last will", SOON, |m| m.topic == "derd/gw-1/status" && m.json["state"] == "offline"));
    let mut late = command("o-1", "charge", SOON);
    late["not_after"] = json!(rfc3339_in(Duration::from_secs(1)));
    send(&broker, BATTERY, &late, &[]);
    send(&broker, BATTERY, &command("o-2", "charge", SOON * 2), &[]);
    let plan = json!({"device": "charger", "kind": "slots", "slots": [
        {"start": now_rfc3339(), "end": rfc3339_in(SOON * 4), "action": "set_max_current", "params": {"current_a": 8}}]});
    send(&broker, "derd/gw-1/plan/p1/set", &plan, &[]);
    let down = Instant::now();
    eventually("it is too late for the first", SOON, || down.elapsed() > Duration::from_secs(1));
    let daemon = Daemon::start(folder.path(), &config);
    drop(seen.wait_result("o-1", "expired", SOON));
    drop(seen.wait_result("o-2", "verified", SOON));
    drop(seen.wait("the plan's answer", SOON, |m| m.topic.ends_with("p1/result") && m.json["state"] == "accepted"));
    eventually("the plan acts", SOON, || daemon.device("charger")["controlled_by"]["rank"] == "plan");
    assert_eq!(results(&seen, "o-1").len(), 1);
}

#[test]
fn kill_9_at_any_moment_loses_no_command_and_ends_each_once() {
    let folder = tempfile::tempdir().unwrap();
    let home = steady_home();
    let broker = Broker::start(folder.path(), &BrokerOptions::default());
    let seen = broker.subscribe("derd/#");
    let config = config_for(&home, folder.path(), &uplink("mqtt", &broker, ""));
    let mut ids = Vec::new();
    // From its first subscription on the broker keeps what it is sent.
    let first = Daemon::start(folder.path(), &config);
    send_until_heard(&broker, &seen);
    first.kill();
    for round in 0..8u32 {
        let daemon = Daemon::start(folder.path(), &config);
        let started = Instant::now();
        for (n, action) in ["charge", "idle", "charge"].into_iter().enumerate() {
            let id = format!("k-{round}-{n}");
            send(&broker, BATTERY, &command(&id, action, Duration::from_millis(2500)), &[]);
            ids.push(id);
        }
        // Each round a little later: before, while and after the command is written down, acts, is answered.
        eventually("the moment has come", SOON, || started.elapsed() > Duration::from_millis(u64::from(round * 60)));
        daemon.kill();
    }
    let daemon = Daemon::start(folder.path(), &config);
    let ends = |id: &String| -> BTreeMap<String, usize> {
        let mut ends = BTreeMap::new();
        for result in results(&seen, id).into_iter().filter(|r| FINAL.contains(&r["state"].as_str().unwrap())) {
            *ends.entry(result.to_string()).or_default() += 1;
        }
        ends
    };
    for id in &ids {
        eventually(&format!("{id} ends"), Duration::from_secs(30), || !ends(id).is_empty());
    }
    send(&broker, BATTERY, &command("k-last", "charge", Duration::from_secs(1)), &[]);
    drop(seen.wait_result("k-last", "ended", SOON));
    for id in &ids {
        assert_eq!(ends(id).len(), 1, "{id}: {:#?}", ends(id));
    }
    assert_eq!(daemon.stop(), Some(0));
}
