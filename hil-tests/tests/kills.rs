//! `kill -9` at random moments while a battery is being controlled: the plan goes on or the battery is in its safe state, no
//! command acts twice, and each reaches one final state. `DERD_KILLS` (200) says how often.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking and lives in real time")]

use derd::model::Point;
use derd::runtime::Clock;
use derd::sim::{Home, HomeHandle, HomeOptions, Scenario};
use hil_tests::{
    Broker, BrokerOptions, Daemon, Subscriber, cli, config_for, eventually, now_rfc3339, pass, publish, rfc3339_in,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
/// The battery's own timer, as derd sets it.
const TIMER: Duration = Duration::from_secs(60);
/// Homes at once.
const LANES: u64 = 4;
/// `OutWRte` of the simulated battery: 0.01 % of 5,000 W.
const RATE: u64 = 40_162;
const FINAL: [&str; 7] = ["ended", "rejected", "expired", "superseded", "failed", "reverted", "deleted"];

#[test]
fn two_hundred_kills() {
    let kills: u64 = std::env::var("DERD_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES).map(|lane| scope.spawn(move || Lane::new(lane).run(kills / LANES))).collect();
        for lane in lanes {
            lane.join().unwrap();
        }
    });
}

struct Lane {
    dice: u64,
    folder: tempfile::TempDir,
    home: HomeHandle,
    broker: Broker,
    seen: Subscriber,
    config: String,
}

impl Lane {
    fn new(lane: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let truth = Some(folder.path().join("truth.jsonl"));
        let options = HomeOptions { scenario: Scenario::Steady, seed: lane, truth, ..HomeOptions::default() };
        let home = Home::start(options, Clock::system()).unwrap();
        let broker = Broker::start(folder.path(), &BrokerOptions::default());
        let seen = broker.subscribe("derd/gw-1/#");
        let uplink = format!("[[uplink]]\nkind = \"mqtt\"\nurl = {:?}\n", broker.url());
        let config = config_for(&home, folder.path(), &uplink);
        Self { dice: 0x9e37_79b9_7f4a_7c15 ^ (lane + 1), folder, home, broker, seen, config }
    }

    /// A number below `below`, by chance that is the same in each run.
    fn roll(&mut self, below: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % below
    }

    fn start(&self) -> Daemon {
        Daemon::start(self.folder.path(), &self.config)
    }

    fn battery_w(&self) -> f64 {
        self.home.truth().num("battery", &Point::PowerW).unwrap()
    }

    fn follows(&self, watts: u64) -> bool {
        (self.battery_w() - watts as f64).abs() < 30.0
    }

    fn command(&self, n: u64, watts: u64, lease: Duration) {
        let body = json!({"id": format!("c-{n}"), "action": "discharge", "params": {"power_w": watts},
            "issued_at": now_rfc3339(), "ends_at": rfc3339_in(lease)});
        assert!(publish(&self.broker, "derd/gw-1/device/battery/command", &body.to_string(), &[]));
    }

    fn run(&mut self, kills: u64) {
        let daemon = self.start();
        daemon.wait_online(SOON);
        let plan = json!({"id": "p1", "device": "battery", "kind": "slots", "slots": [{"start": now_rfc3339(),
            "end": rfc3339_in(Duration::from_secs(3600)), "action": "discharge", "params": {"power_w": 700}}]});
        assert!(publish(&self.broker, "derd/gw-1/plan/p1/set", &plan.to_string(), &[]));
        eventually("the plan runs", SOON, || self.follows(700));
        daemon.kill();

        // Nobody comes back: the battery's own timer lets go.
        let killed = Instant::now();
        assert!(self.follows(700), "the setpoint outlives derd for the time of the timer");
        eventually("the battery is in its safe state", TIMER + Duration::from_secs(3), || !self.follows(700));
        assert!(killed.elapsed() > TIMER / 3, "let go after {:?}, which is no proof of the timer", killed.elapsed());

        let mut daemon = self.start();
        eventually("the plan goes on", SOON, || self.follows(700));
        for n in 1..kills {
            let watts = 1000 + 10 * n;
            let with_command = self.roll(3) > 0;
            if with_command {
                self.command(n, watts, Duration::from_secs(600));
            }
            // Often in the first instants, where things are half done; else anywhere in a poll and its proofs.
            let wait = if self.roll(2) == 0 { self.roll(40) } else { self.roll(1500) };
            pass(Duration::from_millis(wait));
            daemon.kill();
            daemon = self.start();
            let wanted = if with_command { watts } else { self.last_command(n).map_or(700, |n| 1000 + 10 * n) };
            eventually(&format!("{wanted} W after kill {n}, {wait} ms"), SOON, || self.follows(wanted));
        }
        let out = cli(&["status", "--json"], Some(daemon.socket()));
        assert_eq!(out.code, Some(0));
        // The last one ends by its sender's word, and the plan is what remains.
        let body = json!({"id": "end", "action": "release", "issued_at": now_rfc3339()});
        assert!(publish(&self.broker, "derd/gw-1/device/battery/command", &body.to_string(), &[]));
        eventually("the plan goes on", SOON, || self.follows(700));
        self.check();
        assert_eq!(daemon.stop(), Some(0));
        self.check_writes();
    }

    /// The newest command before `n`.
    fn last_command(&self, n: u64) -> Option<u64> {
        (1..n).rev().find(|n| self.states(*n).contains("accepted"))
    }

    fn states(&self, n: u64) -> BTreeSet<String> {
        let id = format!("c-{n}");
        self.seen
            .all()
            .iter()
            .filter(|m| m.json["id"] == *id)
            .filter_map(|m| Some(m.json["state"].as_str()?.to_owned()))
            .collect()
    }

    /// Every command that was taken has one final state, and its results say so at last.
    fn check(&self) {
        let all = || {
            let mut finals: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for message in self.seen.all().iter().filter(|m| m.topic.ends_with("battery/command/result")) {
                let (id, state) = (message.json["id"].as_str().unwrap(), message.json["state"].as_str().unwrap());
                let of = finals.entry(id.to_owned()).or_default();
                if FINAL.contains(&state) {
                    of.insert(state.to_owned());
                }
            }
            finals
        };
        eventually("each command has a final state", SOON, || all().values().all(|states| !states.is_empty()));
        for (id, states) in all() {
            assert_eq!(states.len(), 1, "{id}: {states:?}");
            assert!(id == "end" || states.contains("superseded") || states.contains("ended"), "{id}: {states:?}");
        }
    }

    /// Once a later command was written, no earlier one is ever written again.
    fn check_writes(&self) {
        let rates = rates(&self.folder.path().join("truth.jsonl"));
        let mut newest = 0;
        for watts in &rates {
            if *watts >= 1000 {
                assert!(*watts >= newest, "{watts} W again after {newest} W: {rates:?}");
                newest = *watts;
            }
        }
        assert!(newest > 1000, "{rates:?}");
    }
}

/// The discharge powers that were written to the battery, W, in order.
fn rates(truth: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(truth).unwrap();
    let writes = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let rate = |line: Value| {
        let write = line.get("write").filter(|_| line["device"] == "battery")?;
        let (first, words) = (write["address"].as_u64()?, write["words"].as_array()?);
        let word = words.get(usize::try_from(RATE.checked_sub(first)?).ok()?)?.as_u64()?;
        // 0.01 % of 5,000 W is half a watt; negative rates are charging.
        (word < 0x8000).then_some(word / 2)
    };
    writes.filter_map(rate).collect()
}
