//! The real server on loopback, over a board, a store and a command room that the test plays.

use super::*;
use crate::command::{CommandHandle, RawCommand, RawPlan};
use crate::model::*;
use crate::observe::tests::{Hands, board, home, site};
use crate::runtime::{Exit, ShutdownSwitch, Supervisor};
use crate::store::{DecisionRow, Gap};
use crate::store::{HistoryRow, StoreHandle};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, watch};

/// A running server and all its other ends.
pub(super) struct Rig {
    pub(super) hands: Hands,
    pub(super) base: String,
    pub(super) password: PathBuf,
    pub(super) socket: PathBuf,
    pub(super) switch: ShutdownSwitch,
    pub(super) tasks: Supervisor,
    pub(super) commands: mpsc::Receiver<RawCommand>,
    pub(super) plans: mpsc::Receiver<RawPlan>,
    pub(super) asks: mpsc::Receiver<crate::command::OwnerAsk>,
    pub(super) client: reqwest::Client,
    summaries: watch::Sender<Arc<Vec<crate::command::PlanSummary>>>,
    _dir: tempfile::TempDir,
}

/// A store with a curve for each device and one event.
pub(super) fn store() -> (StoreHandle, impl Future<Output = Exit>) {
    let (asks, mut inbox) = mpsc::channel(16);
    let handle = StoreHandle {
        asks,
        live: broadcast::channel(4).0,
        next_row: Arc::new(AtomicU64::new(0)),
        dropped: Arc::new(AtomicU64::new(0)),
        outbox: watch::channel(0).1,
        status: watch::channel(StoreStatus::default()).1,
    };
    let thread = async move {
        while let Some(ask) = inbox.recv().await {
            match ask {
                crate::store::Ask::History(query, answer) => drop(answer.send(Ok(curve(&query)))),
                crate::store::Ask::Events(_, answer) => drop(answer.send(Ok(events()))),
                crate::store::Ask::DecisionAt(_, at, answer) => drop(answer.send(Ok(journal(at)))),
                crate::store::Ask::Decisions(asked, answer) => {
                    let rows = [NOON.minus(Duration::from_secs(7200)), NOON.minus(Duration::from_secs(3600))];
                    let rows = rows.into_iter().filter(|at| (asked.1..asked.2).contains(at)).filter_map(journal);
                    drop(answer.send(Ok(rows.take(asked.3).collect())));
                }
                crate::store::Ask::NotRunning(at, answer) => drop(answer.send(Ok(down(at)))),
                _ => {}
            }
        }
        Exit::Orphaned
    };
    (handle, thread)
}

/// The present of every rig: 09:00 on 15 January 2027 at the site.
const NOON: Timestamp = Timestamp::from_ms(1_800_000_000_000);

/// Two decisions, two hours and one hour ago; the first while the clock was wrong.
fn journal(at: Timestamp) -> Option<DecisionRow> {
    let hours = if at >= NOON.minus(Duration::from_secs(3600)) { 1 } else { 2 };
    let made = NOON.minus(Duration::from_secs(3600 * hours));
    let clock = if hours == 2 { ClockState::Untrusted } else { ClockState::Synced };
    let json = serde_json::json!({"device": "battery", "at": made.to_string(), "clock": clock.as_str(),
        "sentence": format!("<b onclick='x'>decision {hours}</b>"), "holder": null, "trace": [
            {"step": "intent", "outcome": "wins", "rank": "command", "source": "<i>", "key": "command <script>alert(1)</script>",
             "action": "charge", "requested": {"power_w": 5000.0}, "ends_at": made.to_string(), "why": "<u>"}]});
    (at >= made).then(|| DecisionRow { at: made, clock, json: json.to_string(), was_running: down(at).is_none() })
}

/// derd was down for ten minutes half an hour ago.
fn down(at: Timestamp) -> Option<Gap> {
    let (from, to) = (NOON.minus(Duration::from_secs(1800)), NOON.minus(Duration::from_secs(1200)));
    (from < at && at < to).then_some(Gap { from: Some(from), to })
}

fn events() -> Vec<(u64, Event)> {
    let event = |minutes: u64, severity, device: &str, text: &str, state| Event {
        ts: Timestamp::from_ms(1_800_000_000_000).minus(Duration::from_secs(60 * minutes)),
        severity,
        device: Some(device.parse().unwrap()),
        code: "test".into(),
        text: text.into(),
        state,
    };
    vec![
        (3, event(12, Severity::Info, "battery", "charge by acme: verified", EventState::Raised)),
        (2, event(95, Severity::Info, "pv", "pv answers again", EventState::Cleared)),
        (1, event(98, Severity::Warning, "pv", "pv stopped answering: <timed out>", EventState::Raised)),
    ]
}

/// A sunny day, a battery that follows, a car in the evening.
fn curve(query: &crate::store::HistoryQuery) -> Vec<HistoryRow> {
    let step = query.step.unwrap_or(Duration::from_secs(60));
    let mut rows = Vec::new();
    let mut ts = query.from;
    while ts < query.to && rows.len() < query.limit {
        let hour = (ts.ms() % 86_400_000) as f64 / 3_600_000.0 + 1.0;
        let wobble = (hour * 7.0).sin() * 0.12 + (hour * 23.0).sin() * 0.08;
        let pv = (5200.0 * (1.0 - ((hour - 13.0) / 5.2).powi(2))).max(0.0) * (0.92 + wobble);
        let load = 420.0
            + 700.0 * (-(hour - 7.5).powi(2)).exp()
            + 1300.0 * (-(hour - 19.0).powi(2) / 3.0).exp()
            + 220.0 * wobble.abs();
        let car = if (17.5..21.0).contains(&hour) { 3600.0 } else { 0.0 };
        let battery = (load + car - pv).clamp(-2400.0, 2000.0) * 0.8;
        let watts = match query.device.as_str() {
            "pv" => pv,
            "car" => car,
            "battery" => battery,
            _ => load + car - pv - battery,
        };
        rows.push(HistoryRow { ts, point: Point::PowerW, value: Some(Value::Num(watts)) });
        ts = ts.plus(step);
    }
    rows
}

pub(super) fn start(devices: Vec<DeviceSpec>, listen: &str) -> Rig {
    // A second test of this process finds it installed.
    drop(rustls::crypto::ring::default_provider().install_default());
    let clock = Clock::manual(Timestamp::from_ms(1_800_000_000_000));
    let (board, hands) = board(devices.clone(), clock.clone());
    hands.turn();
    let (store, thread) = store();
    let (commands_tx, commands) = mpsc::channel(1);
    let (plans_tx, plans) = mpsc::channel(1);
    let (summary_tx, summaries) = watch::channel(Arc::new(Vec::new()));
    let dir = tempfile::tempdir().unwrap();
    let settings = WebSettings {
        listen: listen.parse().unwrap(),
        password_file: dir.path().join("web.password"),
        socket: dir.path().join("derd.sock"),
        must_listen: true,
    };
    let (password, socket) = (settings.password_file.clone(), settings.socket.clone());
    let (asks_tx, asks) = mpsc::channel(1);
    let commands_handle = CommandHandle { commands: commands_tx, plans: plans_tx, asks: asks_tx, summaries };
    let parts = WebParts {
        settings,
        board,
        store,
        commands: commands_handle,
        clock: clock.clone(),
        devices,
        accepts: Default::default(),
        site: site(),
    };
    let (handle, task) = create(parts).unwrap();
    let (switch, shutdown) = ShutdownSwitch::new();
    let mut tasks = Supervisor::new();
    tasks.spawn("store", thread);
    tasks.spawn("web", task.run(shutdown));
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let base = format!("http://127.0.0.1:{}", handle.address().port());
    Rig {
        hands,
        base,
        password,
        socket,
        switch,
        tasks,
        commands,
        plans,
        asks,
        client,
        summaries: summary_tx,
        _dir: dir,
    }
}

impl Rig {
    /// Values of a sunny noon.
    fn fill(&self) {
        self.hands.answer(
            0,
            "pv",
            0,
            &[
                (Point::PowerW, 4820.0),
                (Point::EnergyProducedWh, 12_654_300.0),
                (Point::DcPowerW, 4975.0),
                (Point::VoltageL1V, 233.2),
                (Point::TemperatureC, 41.3),
            ],
        );
        self.hands.answer(
            1,
            "battery",
            0,
            &[
                (Point::PowerW, -2150.0),
                (Point::SocPct, 68.4),
                (Point::EnergyChargedWh, 3_204_500.0),
                (Point::EnergyDischargedWh, 2_987_100.0),
                (Point::ReserveSocPct, 10.0),
                (Point::CapacityWh, 10_200.0),
            ],
        );
        self.hands.answer(
            2,
            "car",
            0,
            &[
                (Point::PowerW, 1410.0),
                (Point::SessionEnergyWh, 6_320.0),
                (Point::EnergyDeliveredWh, 2_310_400.0),
                (Point::MaxCurrentA, 16.0),
            ],
        );
        self.hands.answer(
            3,
            "grid",
            0,
            &[
                (Point::PowerW, -640.0),
                (Point::EnergyImportWh, 4_120_300.0),
                (Point::EnergyExportWh, 7_905_800.0),
                (Point::CurrentL1A, -1.2),
                (Point::CurrentL2A, -0.9),
                (Point::CurrentL3A, -0.7),
            ],
        );
        self.hands.control.send_modify(|c| {
            (c.load_w, c.grid_w) = (Some(620.0), Some(-640.0));
            c.holders.insert(
                "battery".parse().unwrap(),
                ControlledBy {
                    source: "acme".into(),
                    rank: Rank::Command,
                    action: "charge",
                    plan: None,
                    ends_at: Some(Timestamp::from_ms(1_800_003_600_000)),
                },
            );
        });
        self.summaries.send_replace(Arc::new(vec![crate::command::PlanSummary {
            id: "night-charge".parse().unwrap(),
            device: Some("battery".parse().unwrap()),
            kind: "weekly",
            source: "local".into(),
            json: Arc::new(serde_json::json!({"id": "night-charge"})),
            state: None,
            next_change: Some(Timestamp::from_ms(1_800_000_000_000 + 46_800_000)),
            active: Some("auto".into()),
        }]));
        self.hands.uplink.send_modify(|u| (u.mode, u.backlog_rows) = (UplinkMode::CatchUp, 1312));
        self.hands.store.send_modify(|s| (s.bytes, s.rows) = (48 << 20, 1_204_331));
    }
}

/// Sends one request and gives code, headers and body.
async fn ask(request: reqwest::RequestBuilder) -> (u16, reqwest::header::HeaderMap, String) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.headers().clone(), response.text().await.unwrap())
}

/// The address by which another machine would come, of this machine; `None` where there is only loopback.
fn lan_address() -> Option<std::net::IpAddr> {
    // Choosing a route sends nothing.
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    probe.connect("192.0.2.1:9").ok()?;
    Some(probe.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

#[tokio::test]
async fn every_route_is_described_and_nothing_else_is() {
    let described: serde_json::Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
    let mut described: Vec<(String, String)> = described["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys().filter(|k| *k != "parameters");
            methods.map(|m| (path.clone(), m.clone())).collect::<Vec<_>>()
        })
        .collect();
    let mut real: Vec<(String, String)> = routes::routes()
        .iter()
        .filter(|r| r.is_api)
        .flat_map(|r| r.methods.iter().map(|m| (r.path.to_owned(), (*m).to_owned())))
        .collect();
    described.sort();
    real.sort();
    assert_eq!(described, real);

    // What the list says of its methods is what the router does.
    let rig = start(home(), "127.0.0.1:0");
    for route in routes::routes() {
        let path = format!("{}{}", rig.base, route.path.replace("{id}", "pv"));
        for method in ["get", "post", "put", "delete"] {
            if route.path.ends_with("/stream") && method == "get" {
                continue;
            }
            let known: reqwest::Method = method.to_uppercase().parse().unwrap();
            let request = rig.client.request(known, &path).header("content-type", "application/json").body("[");
            // A handler that waits for an answer that this test does not give is a handler.
            let code = tokio::time::timeout(Duration::from_millis(300), ask(request)).await.map_or(200, |a| a.0);
            assert_eq!(code != 405, route.methods.contains(&method), "{method} {}", route.path);
        }
    }
}

#[tokio::test]
async fn the_page_has_each_device_escapes_names_and_is_safe() {
    let rig = start(home(), "127.0.0.1:0");
    rig.fill();
    let (code, headers, page) = ask(rig.client.get(&rig.base)).await;
    assert_eq!(code, 200);
    for id in ["pv", "battery", "car", "grid"] {
        assert!(page.contains(&format!("data-device=\"{id}\"")), "{id}");
    }
    for says in
        ["Smith &lt;home&gt;", "4.82 kW", "68 %", "charge by acme (command)", "&lt;timed out&gt;", "night-charge"]
    {
        assert!(page.contains(says), "{says}");
    }
    assert!(!page.contains("<home>") && !page.contains("<script>") && !page.contains(" style="));
    let page = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    assert!(!page.contains("http://") && !page.contains("https://"), "nothing from outside");
    assert!(headers["content-security-policy"].to_str().unwrap().contains("default-src 'self'"));
    assert_eq!(headers["x-content-type-options"], "nosniff");
    for asset in ["app.css", "app.js", "icon.svg", "chart.svg", "chart.svg?hours=24&size=narrow&theme=dark"] {
        assert_eq!(ask(rig.client.get(format!("{}/{asset}", rig.base))).await.0, 200, "{asset}");
    }
}

#[tokio::test]
async fn without_devices_the_page_says_what_to_do() {
    let rig = start(vec![], "127.0.0.1:0");
    let (code, _, page) = ask(rig.client.get(&rig.base)).await;
    assert_eq!(code, 200);
    for says in ["/etc/derd/derd.toml", "derd check", "systemctl restart derd", "[[device]]"] {
        assert!(page.contains(says), "{says}");
    }
}

#[tokio::test]
async fn on_loopback_no_login_but_only_our_own_host() {
    let rig = start(home(), "127.0.0.1:0");
    assert!(!rig.password.exists());
    let status = format!("{}/api/v1/status", rig.base);
    assert_eq!(ask(rig.client.get(&status)).await.0, 200);
    for (host, code) in
        [("localhost", 200), ("localhost:1", 200), ("[::1]:80", 200), ("evil.example", 421), ("10.9.8.7", 421)]
    {
        for path in ["/api/v1/status", "/", "/healthz", "/nothing"] {
            let got = ask(rig.client.get(format!("{}{path}", rig.base)).header("host", host)).await.0;
            assert_eq!(got, if path == "/nothing" && code == 200 { 404 } else { code }, "{host} {path}");
        }
    }
}

#[tokio::test]
async fn changes_need_json_our_origin_and_a_small_body() {
    let rig = start(home(), "127.0.0.1:0");
    let url = format!("{}/api/v1/devices/pv/command", rig.base);
    let host = rig.base.strip_prefix("http://").unwrap().to_owned();
    let post = |kind: &'static str| rig.client.post(&url).header("content-type", kind);
    assert_eq!(ask(rig.client.post(&url).body("{}")).await.0, 415);
    assert_eq!(ask(post("text/plain").body("{}")).await.0, 415);
    assert_eq!(ask(post("application/x-www-form-urlencoded").body("a=b")).await.0, 415);
    assert_eq!(ask(rig.client.delete(format!("{}/api/v1/schedules/p1", rig.base))).await.0, 415);
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1"] {
        assert_eq!(ask(post("application/json").header("origin", origin).body("{}")).await.0, 403, "{origin}");
    }
    let (code, _, body) = ask(post("application/json").body(vec![b' '; 256 * 1024 + 1])).await;
    assert_eq!((code, body.contains("256 KiB")), (413, true));
    // Without a length, in pieces.
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut raw = tokio::net::TcpStream::connect(&host).await.unwrap();
    let head = format!(
        "POST /api/v1/devices/pv/command HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    raw.write_all(head.as_bytes()).await.unwrap();
    let piece = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    for _ in 0..5 {
        raw.write_all(piece.as_bytes()).await.unwrap();
    }
    let mut answer = [0; 12];
    raw.read_exact(&mut answer).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 413");
    // What is in order reaches the device's own 404.
    let other = format!("{}/api/v1/devices/nobody/command", rig.base);
    let good = rig.client.post(other).header("content-type", "application/json; charset=utf-8");
    let (code, _, body) = ask(good.header("origin", format!("http://{host}")).body("{}")).await;
    assert_eq!((code, body.contains("there are: pv, battery, car, grid")), (404, true), "{body}");
}

#[tokio::test]
async fn off_loopback_everything_but_healthz_needs_the_login() {
    let Some(ip) = lan_address() else { return };
    let rig = start(home(), "0.0.0.0:0");
    let port = rig.base.rsplit(':').next().unwrap().to_owned();
    let base = format!("http://{ip}:{port}");
    let password = std::fs::read_to_string(&rig.password).unwrap().trim().to_owned();
    assert_eq!(password.len(), 20);

    assert_eq!(ask(rig.client.get(format!("{base}/healthz"))).await.0, 200);
    let (code, headers, _) = ask(rig.client.get(&base)).await;
    assert_eq!((code, headers["location"].to_str().unwrap()), (303, "/login"));
    for path in ["/api/v1/status", "/api/v1/stream", "/metrics", "/chart.svg", "/nothing", "/api/v1/devices/pv/history"]
    {
        let (code, headers, body) = ask(rig.client.get(format!("{base}{path}"))).await;
        assert_eq!((code, body.starts_with('{')), (401, true), "{path}");
        assert!(headers.contains_key("www-authenticate"));
    }
    assert_eq!(ask(rig.client.get(format!("{}/api/v1/status", rig.base))).await.0, 401, "over loopback too");
    assert_eq!(ask(rig.client.get(format!("{base}/login"))).await.0, 200);
    // HTTP Basic with any user name.
    let status = format!("{base}/api/v1/status");
    assert_eq!(ask(rig.client.get(&status).basic_auth("anyone", Some(&password))).await.0, 200);
    assert_eq!(ask(rig.client.get(&status).basic_auth("anyone", Some("wrong"))).await.0, 401);
    // The page's session.
    let log_in = |password: &str| {
        rig.client
            .post(format!("{base}/login"))
            .header("content-type", "application/json")
            .body(serde_json::json!({ "password": password }).to_string())
    };
    // A browser must not open its own question over the page's.
    let (code, headers, _) = ask(log_in("wrong")).await;
    assert_eq!((code, headers["www-authenticate"].to_str().unwrap().starts_with("Page ")), (401, true));
    let (code, headers, _) = ask(rig.client.get(&status).header("user-agent", "Mozilla/5.0 (X11)")).await;
    assert_eq!((code, headers["www-authenticate"].to_str().unwrap().starts_with("Page ")), (401, true));
    let (code, headers, _) = ask(log_in(&password)).await;
    assert_eq!(code, 204);
    let cookie = headers["set-cookie"].to_str().unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let with = |path: &str| rig.client.get(format!("{base}{path}")).header("cookie", format!("a=b; {cookie}"));
    assert_eq!(ask(with("/")).await.0, 200);
    assert_eq!(ask(with("/api/v1/status")).await.0, 200);
    let out = rig.client.post(format!("{base}/logout")).header("cookie", &cookie);
    assert_eq!(ask(out.header("content-type", "application/json").body("{}")).await.0, 204);
    assert_eq!(ask(with("/api/v1/status")).await.0, 401);
    // A guesser is stopped; the owner, on the Unix socket, is not.
    for _ in 0..10 {
        ask(log_in("guess")).await;
    }
    assert_eq!(ask(log_in(&password)).await.0, 429);
    let local = reqwest::Client::builder().unix_socket(rig.socket.clone()).build().unwrap();
    let (code, _, body) = ask(local.get("http://derd/api/v1/status")).await;
    assert_eq!((code, body.contains("\"gw-1\"")), (200, true));
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&rig.socket).unwrap().permissions().mode() & 0o777, 0o660);
}

#[tokio::test]
async fn commands_and_schedules_reach_their_room() {
    let mut rig = start(home(), "127.0.0.1:0");
    let url = format!("{}/api/v1/devices/battery/command", rig.base);
    let post = |body: &str| rig.client.post(&url).header("content-type", "application/json").body(body.to_owned());
    let answer = |raw: RawCommand, state, reason: Option<&str>| {
        let result = CommandResult {
            reason: reason.map(str::to_owned),
            ..CommandResult::new(
                raw.origin.uplink.clone(),
                Some("battery".parse().unwrap()),
                crate::wire::parse_command(&raw.body).ok().map(|c| c.id),
                state,
                raw.received,
            )
        };
        drop(raw.answer.send(result));
    };
    for (body, state, reason, code) in [
        (r#"{"id":"c-1","action":"idle"}"#, CommandState::Accepted, None, 200),
        (r#"{"action":"idle"}"#, CommandState::Accepted, None, 200),
        (
            r#"{"id":"c-1","action":"auto"}"#,
            CommandState::Rejected,
            Some("same id with another body: nothing was done"),
            409,
        ),
        (r#"{"id":"c-2","action":"fly"}"#, CommandState::Rejected, Some("unknown action"), 400),
        (r#"{"id":"c-3","action":"idle"}"#, CommandState::Rejected, Some("busy"), 503),
        (r#"{"id":"c-4","action":"idle"}"#, CommandState::Expired, Some("too late"), 400),
    ] {
        let (got, ()) = tokio::join!(ask(post(body)), async {
            let raw = rig.commands.recv().await.unwrap();
            assert_eq!(raw.origin, Origin { uplink: UplinkName::local(), ranks: vec![Rank::Owner] });
            assert_eq!(raw.expires_in, Some(Duration::from_secs(60)));
            answer(raw, state, reason);
        });
        assert_eq!(got.0, code, "{body}: {}", got.2);
        let json: serde_json::Value = serde_json::from_str(&got.2).unwrap();
        let id = json["id"].as_str().unwrap();
        assert!(if body.contains("\"id\"") { id.starts_with("c-") } else { id.starts_with("local-") }, "{id}");
    }

    let put = rig.client.put(format!("{}/api/v1/schedules/p1", rig.base)).header("content-type", "application/json");
    let (got, ()) = tokio::join!(ask(put.body(r#"{"kind":"weekly"}"#)), async {
        let raw = rig.plans.recv().await.unwrap();
        assert_eq!(raw.plan, "p1");
        drop(raw.answer.send(serde_json::json!({"id": "p1", "state": "refused", "reasons": ["device: missing"]})));
    });
    assert_eq!((got.0, got.2.contains("device: missing")), (400, true));
    let delete = rig.client.delete(format!("{}/api/v1/schedules/p9", rig.base));
    assert_eq!(ask(delete.header("content-type", "application/json")).await.0, 404);
}

#[tokio::test]
async fn machines_get_json_and_clear_faults() {
    let rig = start(home(), "127.0.0.1:0");
    rig.fill();
    let get = |path: &str| ask(rig.client.get(format!("{}{path}", rig.base)));
    let (code, _, body) = get("/api/v1/nothing").await;
    assert_eq!((code, body.as_str()), (404, r#"{"error":"there is nothing at /api/v1/nothing"}"#));
    let (code, _, body) = get("/api/v1/devices/pv").await;
    assert_eq!((code, body.contains("\"info\"")), (200, true));
    assert_eq!(get("/api/v1/devices/none").await.0, 404);
    let (code, headers, body) = get("/api/v1/devices/pv/history?from=-1h&step=30m&format=csv").await;
    assert_eq!((code, headers["content-type"].to_str().unwrap()), (200, "text/csv; charset=utf-8"));
    assert_eq!(body.lines().count(), 3, "{body}");
    let (code, headers, body) = get("/api/v1/devices/pv/history?from=-1h&limit=2").await;
    assert_eq!((code, headers["x-derd-truncated"].to_str().unwrap()), (200, "true"));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&body).unwrap().as_array().unwrap().len(), 2);
    let (code, _, body) = get("/api/v1/devices/pv/history?point=watts&step=x&from=-1h").await;
    assert_eq!((code, body.contains("point: ") && body.contains("step: ")), (400, true), "every fault: {body}");
    assert_eq!(get("/api/v1/events?limit=0").await.0, 400);
    assert_eq!(get("/api/v1/events").await.0, 200);
    assert!(get("/metrics").await.2.contains("derd_point{"));
    assert_eq!(get("/healthz").await.0, 200);
    rig.hands.clock.advance(Duration::from_secs(11));
    let (code, _, body) = get("/healthz").await;
    assert_eq!((code, body.contains("control has made no cycle")), (503, true), "{body}");
}

#[tokio::test]
async fn a_stream_tells_the_status_and_ends_with_the_server() {
    let mut rig = start(home(), "127.0.0.1:0");
    let mut response = rig.client.get(format!("{}/api/v1/stream", rig.base)).send().await.unwrap();
    let first = response.chunk().await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&first).into_owned();
    assert!(text.starts_with("event: status\ndata: {\"gateway\""), "{text}");
    let second = response.chunk().await.unwrap().unwrap();
    assert!(second.starts_with(b"event: status"));
    rig.switch.stop();
    while response.chunk().await.unwrap().is_some() {}
    assert_eq!(rig.tasks.next_exit().await.unwrap(), ("web".to_owned(), Exit::Shutdown));
    assert!(!rig.socket.exists(), "the socket's file is gone");
}

#[tokio::test]
async fn streams_are_counted() {
    let rig = start(home(), "127.0.0.1:0");
    let mut open = Vec::new();
    for _ in 0..stream::MAX_LISTENERS {
        open.push(rig.client.get(format!("{}/api/v1/stream", rig.base)).send().await.unwrap());
        assert_eq!(open.last().unwrap().status(), 200);
    }
    assert_eq!(ask(rig.client.get(format!("{}/api/v1/stream", rig.base))).await.0, 503);
}

#[tokio::test]
async fn a_socket_that_somebody_answers_on_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("derd.sock");
    let (listener, file) = listen::bind_unix(&path).unwrap();
    assert!(listen::bind_unix(&path).unwrap_err().to_string().contains("another derd answers"));
    drop(listener);
    let (_again, _file) = listen::bind_unix(&path).unwrap();
    drop(file);
    let missing = dir.path().join("none/derd.sock");
    assert!(listen::bind_unix(&missing).unwrap_err().to_string().contains("does not exist"));
    let plain = dir.path().join("file");
    std::fs::write(&plain, "x").unwrap();
    assert!(listen::bind_unix(&plain).unwrap_err().to_string().contains("no socket"));
}

/// What control says of the battery now, with a text of a sender who means harm.
fn live() -> Decided {
    Decided {
        device: "battery".parse().unwrap(),
        at: NOON.minus(Duration::from_secs(5)),
        clock: ClockState::Synced,
        sentence: "battery charges: <img src=x onerror=alert(1)> asked for it.".into(),
        holder: None,
        demand: None,
        then: None,
        limited_by: None,
        trace: vec![
            TraceStep::Input { name: "grid_w".into(), value: Some(8200.0), why: None },
            TraceStep::Limit {
                name: "import_limit",
                from: Some(5000.0),
                to: 2000.0,
                unit: "W",
                why: "<script>alert(2)</script>".into(),
            },
        ],
    }
}

#[tokio::test]
async fn any_minute_is_explained() {
    let mut devices = home();
    devices[1].control.enabled = true;
    let rig = start(devices, "127.0.0.1:0");
    let explain = async |id: &str, query: &str| {
        let (code, _, body) = ask(rig.client.get(format!("{}/api/v1/devices/{id}/explain{query}", rig.base))).await;
        (code, serde_json::from_str::<serde_json::Value>(&body).unwrap())
    };
    // Before control has said anything: the journal.
    let (code, now) = explain("battery", "").await;
    assert_eq!(
        (code, now["source"].as_str(), now["at"].as_str()),
        (200, Some("journal"), Some("2027-01-15T07:00:00.000Z"))
    );
    rig.hands.control.send_modify(|c| drop(c.decided.insert("battery".parse().unwrap(), Arc::new(live()))));
    let (_, now) = explain("battery", "?at=now").await;
    assert_eq!((now["source"].as_str(), now["asked_at"].as_str()), (Some("live"), Some("2027-01-15T08:00:00.000Z")));
    assert_eq!(now["sentence"], live().sentence);
    assert_eq!((now["timezone"].as_str(), now["note"].is_null()), (Some("Europe/Berlin"), true));
    // By the site's clock, Berlin: an hour ahead of UTC.
    let (_, then) = explain("battery", "?at=08:10").await;
    assert_eq!((then["source"].as_str(), then["at"].as_str()), (Some("journal"), Some("2027-01-15T07:00:00.000Z")));
    let (_, then) = explain("battery", "?at=-90m").await;
    assert_eq!(then["clock"], "untrusted");
    assert_eq!(then["note"], "The clock was not to be trusted when this was decided: its times may be wrong.");
    let (_, then) = explain("battery", "?at=yesterday+20:00").await;
    assert_eq!(then["sentence"], "Nothing is known of battery at 14 Jan, 20:00:00: its journal begins later.");
    // Down.
    let (code, gap) = explain("battery", "?at=-25m").await;
    assert_eq!(code, 200);
    assert_eq!(
        gap["sentence"],
        "derd was not running at 15 Jan, 08:35:00: its last sign of life before is of 15 Jan, 08:30:00, and it started again at 15 Jan, 08:40:00."
    );
    assert_eq!(
        (gap["before"]["at"].as_str(), &gap["trace"]),
        (Some("2027-01-15T07:00:00.000Z"), &serde_json::json!([]))
    );
    assert_eq!(gap["not_running"]["to"], "2027-01-15T07:40:00.000Z");
    // What is only read, and what makes no sense.
    let (code, meter) = explain("grid", "").await;
    assert_eq!((code, meter["sentence"].as_str()), (200, Some("grid is only read: derd does not control it.")));
    for (id, query, code, says) in [
        ("oven", "", 404, "there is no device `oven`"),
        ("battery", "?at=noon", 400, "at: `noon` is no time such as 14:05"),
        ("battery", "?at=-31d", 400, "decisions are kept for 30 days, since 16 Dec, 09:00:00"),
        (
            "battery",
            "?at=2027-01-15T08:02:00Z",
            400,
            "at: 15 Jan, 09:02:00 lies in the future; it is 15 Jan, 09:00:00 now",
        ),
        ("battery", "?when=now", 400, "when: is unknown; there is: at"),
    ] {
        let (found, body) = explain(id, query).await;
        assert_eq!(found, code, "{id} {query}: {body}");
        assert!(body["error"].as_str().unwrap().contains(says), "{body}");
    }
    let list = async |query: &str| {
        let (code, headers, body) =
            ask(rig.client.get(format!("{}/api/v1/devices/battery/decisions{query}", rig.base))).await;
        let list = serde_json::from_str::<serde_json::Value>(&body).unwrap();
        (code, headers.contains_key("x-derd-truncated"), list.as_array().map_or(0, Vec::len))
    };
    assert_eq!(list("").await, (200, false, 2));
    assert_eq!(list("?from=-90m").await, (200, false, 1));
    assert_eq!(list("?limit=1").await, (200, true, 1));
    assert_eq!((list("?limit=0").await.0, list("?from=now").await.0, list("?x=1").await.0), (400, 400, 400));
}

#[tokio::test]
async fn the_page_says_why_and_escapes_what_senders_say() {
    let mut devices = home();
    devices[1].control.enabled = true;
    let rig = start(devices, "127.0.0.1:0");
    rig.fill();
    rig.hands.control.send_modify(|c| drop(c.decided.insert("battery".parse().unwrap(), Arc::new(live()))));
    let (_, _, page) = ask(rig.client.get(&rig.base)).await;
    for says in [
        "battery charges: &lt;img src=x onerror=alert(1)&gt; asked for it.",
        "&lt;script&gt;alert(2)&lt;/script&gt;",
        "grid w: 8.20 kW",
        "import limit: 5.00 kW to 2.00 kW",
        "Since 15 Jan, 08:59:55, clock synced",
    ] {
        assert!(page.contains(says), "{says}");
    }
    assert!(page.contains("data-why=\"battery\"") && !page.contains("data-why=\"grid\""), "only what is controlled");
    assert!(!page.contains("<img src=x") && !page.contains("<script>"));
    // The part for the card, the page for those without scripts, and a fault of each.
    let get = async |query: &str| {
        let (code, headers, body) = ask(rig.client.get(format!("{}/why?device=battery&at={query}", rig.base))).await;
        assert!(!body.contains("<b onclick") && !body.contains("<script>") && !body.contains("<u>"), "{body}");
        assert!(headers["content-security-policy"].to_str().unwrap().contains("default-src 'self'"));
        (code, body)
    };
    let (code, part) = get("08:10&part=1").await;
    assert!(code == 200 && part.starts_with("<p class=\"why\">&lt;b onclick"), "{part}");
    assert!(
        part.contains("command &lt;script&gt;alert(1)&lt;/script&gt; (command): charge 5.00 kW until 15 Jan, 08:00"),
        "{part}"
    );
    let (_, part) = get("&part=1").await;
    assert!(part.contains("import limit") && !part.contains("class=\"why\""), "{part}");
    let (code, whole) = get("-25m").await;
    assert!(code == 200 && whole.starts_with("<!DOCTYPE html>") && whole.contains("derd was not running"), "{whole}");
    assert!(whole.contains("Before, since 15 Jan, 08:00:00: &lt;b onclick"), "{whole}");
    let (code, fault) = get("noon").await;
    assert!(code == 400 && fault.contains("`noon` is no time such as"), "{fault}");
    assert_eq!(get("noon&part=1").await.0, 400);
    // A stream tells a sentence once, and again only when it changed.
    let mut response = rig.client.get(format!("{}/api/v1/stream", rig.base)).send().await.unwrap();
    let mut text = String::new();
    let mut read_until = async |text: &mut String, whys: usize, statuses: usize| {
        while text.matches("event: why").count() < whys || text.matches("event: status").count() < statuses {
            text.push_str(&String::from_utf8_lossy(&response.chunk().await.unwrap().unwrap()));
        }
    };
    read_until(&mut text, 1, 3).await;
    assert_eq!(text.matches("event: why").count(), 1, "{text}");
    assert!(text.contains(r#"data: {"battery":"battery charges: <img src=x"#), "{text}");
    let other = Decided { sentence: "battery rests.".into(), ..live() };
    rig.hands.control.send_modify(|c| drop(c.decided.insert("battery".parse().unwrap(), Arc::new(other))));
    read_until(&mut text, 2, 0).await;
    assert!(text.contains(r#"data: {"battery":"battery rests."}"#), "{text}");
}
