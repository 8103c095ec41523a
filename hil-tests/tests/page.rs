//! The demo's page in a real browser: headless Chromium, driven through chromedriver's HTTP API.
//!
//! `DERD_SCREENSHOT=FILE` saves a picture of the page, 1280 px wide.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use derd::runtime::Clock;
use derd::sim::{Home, HomeOptions, Scenario};
use hil_tests::{
    Broker, BrokerOptions, Daemon, cli, config_for, derd_binary, eventually, free_port, now_rfc3339, publish,
    rfc3339_in, wait_for,
};
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What a sender must not be able to put into the page.
const MARKUP: &str = "<img src=x onerror=\"document.title='taken'\">";
const SOON: Duration = Duration::from_secs(30);

/// A browser with a profile of its own.
struct Browser {
    driver: Child,
    port: u16,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let port = free_port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is not installed: hil-tests/run installs it");
        let mut browser = Self { driver, port, session: String::new(), _profile: profile };
        eventually("chromedriver is ready", SOON, || {
            browser.try_ask("GET", "/status", None).is_some_and(|s| s["ready"] == true)
        });
        let args = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            &format!("--user-data-dir={}", browser._profile.path().display()),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": args},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}});
        let made = browser.ask("POST", "/session", Some(&wanted));
        browser.session = format!("/session/{}", made["sessionId"].as_str().unwrap());
        browser
    }

    /// One WebDriver command by curl; `None` when chromedriver does not answer.
    fn try_ask(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Value> {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--noproxy", "*", "--max-time", "60", "-X", method]);
        if let Some(body) = body {
            curl.args(["-H", "content-type: application/json", "-d", &body.to_string()]);
        }
        let out = curl.arg(format!("http://127.0.0.1:{}{path}", self.port)).output().unwrap();
        serde_json::from_slice::<Value>(&out.stdout).ok().map(|answer| answer["value"].clone())
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let answer = self.try_ask(method, path, body).unwrap_or_else(|| panic!("no answer to {method} {path}"));
        assert!(answer["error"].is_null(), "{method} {path}: {answer}");
        answer
    }

    fn open(&self, url: &str) {
        self.ask("POST", &format!("{}/url", self.session), Some(&json!({ "url": url })));
    }

    /// What a script returns.
    fn script(&self, script: &str) -> Value {
        self.ask("POST", &format!("{}/execute/sync", self.session), Some(&json!({"script": script, "args": []})))
    }

    fn text(&self, selector: &str) -> String {
        let text = self.script(&format!("return document.querySelector({selector:?})?.textContent ?? ''"));
        text.as_str().unwrap_or_default().to_owned()
    }

    /// A click as a person does it: on something that can be seen.
    fn click(&self, selector: &str) {
        let at = json!({"using": "css selector", "value": selector});
        let found = self.ask("POST", &format!("{}/element", self.session), Some(&at));
        let id = found.as_object().unwrap().values().next().unwrap().as_str().unwrap();
        self.ask("POST", &format!("{}/element/{id}/click", self.session), Some(&json!({})));
    }

    /// As on a screen of this size.
    fn screen(&self, width: u32, height: u32, is_phone: bool) {
        let params = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone});
        let body = json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": params});
        self.ask("POST", &format!("{}/goog/cdp/execute", self.session), Some(&body));
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        let log = self.ask("POST", &format!("{}/se/log", self.session), Some(&json!({ "type": kind })));
        log.as_array().unwrap().clone()
    }

    /// A picture of what the screen shows, PNG.
    fn screenshot(&self, file: &str) {
        let picture = self.ask("GET", &format!("{}/screenshot", self.session), None);
        let mut decode = Command::new("base64").arg("-d").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let text = picture.as_str().unwrap().to_owned();
        let mut sink = decode.stdin.take().unwrap();
        let feeder = std::thread::spawn(move || std::io::Write::write_all(&mut sink, text.as_bytes()).unwrap());
        let out = decode.wait_with_output().unwrap();
        feeder.join().unwrap();
        std::fs::write(file, out.stdout).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Closes Chromium too, which killing the driver alone would leave behind.
        drop(self.try_ask("DELETE", &self.session, None));
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}

#[test]
fn the_demos_page_lives_obeys_and_asks_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let own = format!("http://127.0.0.1:{port}/");
    let mut command = Command::new(derd_binary());
    command.args(["demo", "--speed", "60", "--listen", &format!("127.0.0.1:{port}")]);
    command.env("TMPDIR", folder.path()).env_remove("DERD_SOCKET");
    let mut demo = Daemon::spawn(command, folder.path().join("unknown"));
    wait_for("the page is there", SOON, || demo.log().contains("The page: ").then_some(()));
    let browser = Browser::start();
    browser.screen(1280, 900, false);
    browser.open(&own);
    eventually("all devices are online on the page", SOON, || {
        let online = "return document.querySelectorAll('[data-device] [data-f=state][data-state=online]').length";
        browser.script(online) == 4
    });

    // Live: values change in the page that was loaded once, and no banner says that they are old.
    browser.script("window.loadedOnce = true");
    let home = "#val-house";
    let before = browser.text(home);
    assert!(before.ends_with(" kW"), "{before}");
    eventually("the home's power changes", SOON, || browser.text(home) != before);
    let solar = r#"[data-device="pv"] [data-point="power_w"]"#;
    let before = browser.text(solar);
    eventually("the sun's power changes", SOON, || browser.text(solar) != before);
    assert_eq!(browser.script("return window.loadedOnce && document.querySelector('#lost').hidden"), true);
    assert!(browser.text("#since").starts_with("Since "), "{}", browser.text("#since"));

    // The owner holds the battery, and the page says so.
    browser.click(r#"[data-device="battery"] summary"#);
    browser.click(r#"[data-device="battery"] button[value="idle"]"#);
    let held = r#"[data-device="battery"] [data-f="held"]:not([hidden])"#;
    eventually("the card says who holds the battery", SOON, || {
        let text = browser.text(held);
        text.starts_with("idle by the owner until ")
    });
    // And why, in a sentence, with what stands behind it when somebody looks.
    let why = r#"[data-device="battery"] [data-f="why"]:not([hidden])"#;
    eventually("the card says why", SOON, || browser.text(why).contains("battery"));
    browser.click(r#"[data-why="battery"] summary"#);
    let trace = r#"[data-why="battery"] [data-f="trace"]"#;
    eventually("the trace names the owner's command", SOON, || {
        let text = browser.text(trace);
        text.contains("wins") && text.contains("(owner): idle")
    });
    // The first minute of the last hour: before the demo began.
    browser.script(r#"document.querySelector('[data-why="battery"] [name=at]').value = '-1h'"#);
    browser.click(r#"[data-why="battery"] button"#);
    eventually("another time is explained", SOON, || browser.text(trace).contains("derd was not running at"));
    browser.click(r#"[data-why="battery"] summary"#);
    let output = browser.text(r#"[data-device="battery"] form output"#);
    assert!(output.starts_with("accepted"), "{output}");
    browser.click(r#"[data-device="battery"] button[value="release"]"#);
    eventually("released", SOON, || browser.text(held).is_empty());
    // The same by the button beside the word on who holds it.
    browser.click(r#"[data-device="battery"] button[value="auto"]"#);
    eventually("left alone, in its own mode", SOON, || browser.text(held).starts_with("auto by the owner until "));
    browser.click(r#"[data-device="battery"] [data-give-back]"#);
    eventually("given back", SOON, || browser.text(held).is_empty());
    // A charger is held as long as the car stays, at most a day, unless the owner says otherwise.
    browser.click(r#"[data-device="charger"] summary"#);
    browser.click(r#"[data-device="charger"] button[value="stop"]"#);
    let charger = r#"[data-device="charger"] [data-f="held"]:not([hidden])"#;
    eventually("the charger is stopped", SOON, || browser.text(charger).starts_with("stop by the owner until "));
    browser.click(r#"[data-device="charger"] [data-give-back]"#);

    // What a plan means to do comes onto the page by itself, with its prices.
    let soon = |hours: u64| rfc3339_in(Duration::from_secs(3600 * hours));
    let value = |from: u64, price: f64| json!({"start": soon(from), "end": soon(from + 1), "price": price});
    let tariff = json!({"id": "t1", "kind": "tariff", "currency": "EUR", "timezone": "Europe/Berlin",
        "values": [value(0, 0.1), value(1, 0.4)]});
    let trade = json!({"id": "trade", "device": "battery", "kind": "price", "tariff": "t1",
        "params": {"charge_below": 0.2, "discharge_above": 0.3}});
    let socket = demo.log().lines().find_map(|l| l.strip_prefix("DERD_SOCKET=").map(str::to_owned)).unwrap();
    for document in [tariff, trade] {
        let file = folder.path().join("document.json");
        std::fs::write(&file, document.to_string()).unwrap();
        let out = cli(&["schedule", "import", &file.to_string_lossy()], Some(socket.as_ref()));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(out.code, Some(0), "{}{}", out.stdout, out.stderr);
    }
    eventually("the page says what the plan means to do", Duration::from_secs(60), || {
        browser.text("#schedules .planned").contains("0.100 EUR")
    });
    assert_eq!(browser.script("return window.loadedOnce"), true, "the page was not loaded anew");
    eventually("the battery charges by the plan", SOON, || browser.text(held).starts_with("charge by plan trade"));

    // Remote control is paused in two steps, and resumed in one.
    assert_eq!(browser.script("return document.querySelector('#remote').hidden"), true);
    browser.click("#pause summary");
    browser.click("#pause button");
    let banner = "#remote:not([hidden])";
    eventually("a banner says that it is paused", SOON, || {
        browser.text(banner).starts_with("Remote control is paused until ")
    });
    assert_eq!(browser.script("return document.querySelector('#pause button').disabled"), true);
    browser.click("#resume");
    eventually("resumed", SOON, || browser.text(banner).is_empty());

    // A phone: nothing is wider than its screen, with the controls open too.
    browser.screen(360, 740, true);
    browser.script("document.querySelectorAll('details').forEach((d) => { d.open = true; })");
    let width = browser.script("return document.documentElement.scrollWidth");
    assert!(width.as_u64().is_some_and(|px| px <= 360), "the page is {width} px wide on a screen of 360");

    if let Ok(file) = std::env::var("DERD_SCREENSHOT") {
        browser.script("document.querySelectorAll('details').forEach((d) => { d.open = false; })");
        browser.screen(1280, 900, false);
        let height = browser.script("return document.documentElement.scrollHeight").as_u64().unwrap();
        browser.screen(1280, u32::try_from(height).unwrap(), false);
        browser.screenshot(&file);
    }

    // Nothing went wrong, and nothing was asked of anybody else.
    let faults: Vec<Value> = browser.log("browser").into_iter().filter(|l| l["level"] == "SEVERE").collect();
    assert_eq!(faults, Vec::<Value>::new());
    let asked: Vec<String> = browser
        .log("performance")
        .iter()
        .filter_map(|entry| serde_json::from_str::<Value>(entry["message"].as_str()?).ok())
        .filter(|entry| entry["message"]["method"] == "Network.requestWillBeSent")
        .filter_map(|entry| entry["message"]["params"]["request"]["url"].as_str().map(str::to_owned))
        .collect();
    assert!(asked.iter().any(|url| url.ends_with("/api/v1/stream")), "{asked:?}");
    // The browser's own first page comes from the browser itself.
    let elsewhere: Vec<_> = asked
        .iter()
        .filter(|url| !["data:", "blob:", "chrome:", own.as_str()].iter().any(|known| url.starts_with(known)))
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");

    drop(browser);
    demo.signal("INT");
    assert_eq!(demo.wait_end(Duration::from_secs(20)), Some(0), "{}", demo.log());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a file was left behind");
}

#[test]
fn the_owner_opts_out_of_an_event_on_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::start(HomeOptions { scenario: Scenario::Steady, ..HomeOptions::default() }, Clock::system());
    let home = home.unwrap();
    let broker = Broker::start(folder.path(), &BrokerOptions::default());
    let port = free_port();
    let uplink = format!("[[uplink]]\nkind = \"mqtt\"\nurl = {:?}\nranks = [\"event\"]\n", broker.url());
    let config = config_for(&home, folder.path(), &uplink).replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    let daemon = Daemon::start(folder.path(), &config);
    daemon.wait_online(SOON);
    let browser = Browser::start();
    browser.open(&format!("http://127.0.0.1:{port}/"));

    let ends_at = rfc3339_in(Duration::from_secs(600));
    let event =
        json!({"id": "e-1", "action": "idle", "source": MARKUP, "issued_at": now_rfc3339(), "ends_at": ends_at});
    let seen = broker.subscribe("derd/gw-1/#");
    assert!(publish(&broker, "derd/gw-1/device/battery/command", &event.to_string(), &[]));
    let button = r#"[data-device="battery"] [data-opt-out]"#;
    let shown =
        |selector: &str| browser.script(&format!("return document.querySelector({selector:?})?.hidden")) == false;
    eventually("the card offers to opt out", SOON, || shown(button));
    let held = r#"[data-device="battery"] [data-f="held"]"#;
    assert!(browser.text(held).contains(MARKUP), "{}", browser.text(held));
    browser.click(r#"[data-why="battery"] summary"#);
    let trace = r#"[data-why="battery"] [data-f="trace"]"#;
    eventually("the trace names the sender", SOON, || browser.text(trace).contains("wins"));
    browser.click(r#"[data-why="battery"] summary"#);
    assert_eq!(browser.script("return document.querySelectorAll('.device img').length"), 0, "a sender's name is text");
    assert_ne!(browser.script("return document.title"), "taken");
    assert!(!shown(r#"[data-device="battery"] [data-give-back]"#), "it is not the owner's to give back");
    // It asks first.
    browser.click(button);
    browser.ask("POST", &format!("{}/alert/dismiss", browser.session), Some(&json!({})));
    assert_eq!(daemon.device("battery")["controlled_by"]["rank"], "event");
    browser.click(button);
    browser.ask("POST", &format!("{}/alert/accept", browser.session), Some(&json!({})));
    let ended = seen.wait_result("e-1", "ended", SOON);
    assert_eq!(ended["reason"], "opted out by the owner");
    eventually("the button goes with the event", SOON, || !shown(button));
    let output = browser.text(r#"[data-device="battery"] .holder output"#);
    assert!(output.starts_with("opted out until "), "{output}");
    drop(browser);
    assert_eq!(daemon.stop(), Some(0));
}
