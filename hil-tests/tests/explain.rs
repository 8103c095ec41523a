//! `derd explain` with the real binary: now, before, and over a crash.
#![expect(clippy::expect_used, reason = "end-to-end tests live in real time")]

use derd::runtime::Clock;
use derd::sim::{Home, HomeOptions, Scenario};
use hil_tests::{Daemon, cli, config_for, now_rfc3339, pass, wait_for};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

fn explain(socket: &Path, at: &str) -> Value {
    let out = cli(&["explain", "battery", "--at", at, "--json"], Some(socket));
    assert_eq!(out.code, Some(0), "{at}: {}", out.stderr);
    serde_json::from_str(&out.stdout).expect("JSON")
}

fn sentence(answer: &Value) -> &str {
    answer["sentence"].as_str().expect("a sentence")
}

#[test]
fn a_decision_is_explained_now_then_and_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let options = HomeOptions { scenario: Scenario::Steady, ..HomeOptions::default() };
    let home = Home::start(options, Clock::system()).unwrap();
    // Nothing reaches the disk but what must: what is found after the crash came along with the command.
    let config = config_for(&home, folder.path(), "").replace("commit_every = \"2s\"", "commit_every = \"1h\"");
    let daemon = Daemon::start(folder.path(), &config);
    daemon.wait_online(SOON);
    let socket = daemon.socket();
    // Free at first.
    let free = wait_for("control has said something", SOON, || {
        let answer = explain(socket, "now");
        (answer["source"] == "live").then_some(answer)
    });
    assert!(free["holder"].is_null(), "{free}");
    pass(Duration::from_millis(1100));
    let before = now_rfc3339();
    pass(Duration::from_millis(1100));
    let out = cli(&["set", "battery", "charge", "power_w=9000", "--for", "1h"], Some(socket));
    assert_eq!(out.code, Some(0), "{}", out.stderr);
    let held = wait_for("the command is proven", SOON, || {
        let answer = explain(socket, "now");
        let is_proven =
            answer["trace"].as_array().unwrap().iter().any(|s| s["step"] == "lease" && s["state"] == "held");
        is_proven.then_some(answer)
    });
    assert_eq!((held["holder"]["rank"].as_str(), held["limited_by"].as_str()), (Some("owner"), Some("max_charge_w")));
    assert!(sentence(&held).contains("battery charges"), "{held}");
    let during = now_rfc3339();

    // Before the command: from memory, since nothing was committed yet.
    let then = explain(socket, &before);
    assert_eq!((then["source"].as_str(), &then["holder"]), (Some("journal"), &Value::Null));
    let then = explain(socket, &during);
    assert_eq!((then["source"].as_str(), then["holder"]["rank"].as_str()), (Some("journal"), Some("owner")));

    // On a terminal.
    let told = cli(&["explain", "battery"], Some(socket)).stdout;
    assert!(told.starts_with("battery charges"), "{told}");
    for says in ["\n  since ", "\n  wins      owner", "\n  limit     max_charge_w", "9000 -> 5000 W", "\n  held "] {
        assert!(told.contains(says), "{says:?} in {told}");
    }
    let list: Vec<Value> = serde_json::from_str(&daemon.get("/api/v1/devices/battery/decisions?from=-1h")).unwrap();
    assert!(list.len() >= 2 && list.windows(2).all(|w| w[0]["at"].as_str() < w[1]["at"].as_str()), "{list:?}");
    for (args, code, says) in [
        (vec!["explain", "oven"], 1, "there is no device `oven`"),
        (vec!["explain", "battery", "--at", "noon"], 2, "--at: `noon` is no time such as"),
        (vec!["explain", "battery", "--at", "-40d"], 2, "decisions are kept for 30 days"),
        (vec!["explain", "battery", "--at", "2199-01-01T00:00:00Z"], 2, "lies in the future"),
    ] {
        let out = cli(&args, Some(socket));
        assert_eq!(out.code, Some(code), "{args:?}: {}", out.stderr);
        assert!(out.stderr.contains(says), "{args:?}: {}", out.stderr);
    }

    daemon.kill();
    pass(Duration::from_millis(1500));
    let down = now_rfc3339();
    pass(Duration::from_millis(1100));
    let again = Daemon::start(folder.path(), &config);
    again.wait_online(SOON);
    let socket = again.socket();
    // The telemetry of the hour is lost; what the command brought about is not.
    let kept = explain(socket, &during);
    let named = if kept["before"].is_object() { &kept["before"] } else { &kept };
    assert_eq!(named["holder"]["rank"], "owner", "{kept}");
    assert!(sentence(named).contains("battery charges"), "{kept}");
    let gap = explain(socket, &down);
    assert!(sentence(&gap).starts_with("derd was not running at "), "{gap}");
    assert_eq!(gap["before"]["holder"]["rank"], "owner");
    let told = cli(&["explain", "battery", "--at", &down], Some(socket)).stdout;
    assert!(told.starts_with("derd was not running") && told.contains("\n  before "), "{told}");
    assert_eq!(explain(socket, &before)["holder"], Value::Null);
    assert_eq!(again.stop(), Some(0));
}
