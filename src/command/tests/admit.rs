use super::super::admit::{kept_body, read_again};
use super::super::*;
use super::*;
use serde_json::{Value, json};

struct Case {
    origin: Origin,
    target: Target,
    body: Value,
    retained: bool,
    expires_in: Option<Duration>,
    clock: ClockState,
    status: Option<DeviceStatus>,
    devices: Vec<DeviceSpec>,
}

fn case(device: &str, body: Value) -> Case {
    let mut body = body;
    body["id"] = json!("c-1");
    Case {
        origin: mqtt(),
        target: Target::Device(device.to_owned()),
        body,
        retained: false,
        expires_in: Some(Duration::from_secs(30)),
        clock: ClockState::Synced,
        status: None,
        devices: devices(),
    }
}

impl Case {
    fn run(&self) -> Result<Admit, Refusal> {
        self.run_raw(self.body.to_string().as_bytes())
    }

    fn run_raw(&self, body: &[u8]) -> Result<Admit, Refusal> {
        let raw = Incoming {
            origin: &self.origin,
            target: &self.target,
            body,
            retained: self.retained,
            expires_in: self.expires_in,
            received: t(NOW),
        };
        let status = |_: &DeviceId| self.status.clone();
        admit(&raw, &Surroundings { devices: &self.devices, status: &status, clock: self.clock, now: t(NOW) })
    }

    #[track_caller]
    fn no(&self, state: CommandState, says: &str) -> Refusal {
        let refusal = self.run().unwrap_err();
        assert_eq!(refusal.state, state, "{refusal:?}");
        assert!(refusal.reason.contains(says), "`{says}` not in: {}", refusal.reason);
        assert_eq!(refusal.id.as_ref().map(CommandId::as_str), Some("c-1"));
        refusal
    }

    #[track_caller]
    fn rejected(&self, says: &str) -> Refusal {
        self.no(CommandState::Rejected, says)
    }

    #[track_caller]
    fn expired(&self, says: &str) {
        self.no(CommandState::Expired, says);
    }

    #[track_caller]
    fn lease(&self) -> Duration {
        self.run().unwrap().lease
    }
}

fn idle() -> Value {
    json!({"action": "idle"})
}

fn timed(key: &str, at: &str) -> Value {
    json!({"action": "idle", key: at})
}

#[test]
fn an_ordinary_command() {
    let body = json!({"action": "charge", "params": {"power_w": 3000, "grid": true}, "ends_at": "2026-11-20T13:00:00Z",
        "source": "acme", "rank": "command"});
    let admit = case("battery", body).run().unwrap();
    assert_eq!((admit.id.as_str(), admit.device.as_ref().unwrap().as_str()), ("c-1", "battery"));
    assert_eq!((admit.lease, admit.ends_at), (Duration::from_secs(3600), t("2026-11-20T13:00:00Z")));
    assert_eq!(admit.requested, Params::from([("power_w".to_owned(), 3000.0)]));
    let action = Action::Charge { power_w: Some(3000.0), min_soc_pct: None, max_soc_pct: None, grid: true };
    assert_eq!(admit.what, What::Intent { action, rank: Rank::Command, source: "acme".to_owned() });
    assert!(!admit.is_urgent());
    assert!(case("battery", idle()).run().unwrap().is_urgent());
    assert!(case("charger", json!({"action": "stop"})).run().unwrap().is_urgent());
}

#[test]
fn what_is_no_command_at_all() {
    for (body, id, says) in [
        ("not json", None, "not JSON"),
        ("[]", None, "not a JSON object"),
        ("{}", None, "`id` is missing"),
        (r#"{"id":7,"action":"idle"}"#, None, "`id` is 7"),
        (r#"{"id":"c-1"}"#, Some("c-1"), "`action` is missing"),
        (r#"{"id":"c-1","action":"idle","issued_at":"yesterday"}"#, Some("c-1"), "`issued_at`"),
        (r#"{"id":"c-1","action":"idle","rank":"king"}"#, Some("c-1"), "`rank` `king` is unknown"),
    ] {
        let refusal = case("battery", idle()).run_raw(body.as_bytes()).unwrap_err();
        assert_eq!(refusal.state, CommandState::Rejected);
        assert_eq!(refusal.id.as_ref().map(CommandId::as_str), id, "{body}");
        assert!(refusal.reason.contains(says), "{body}: {}", refusal.reason);
    }
    let big = vec![b' '; MAX_BODY + 1];
    let refusal = case("battery", idle()).run_raw(&big).unwrap_err();
    assert!(refusal.reason.contains("262145 bytes"), "{}", refusal.reason);
}

#[test]
fn retained_is_ignored_whatever_it_says() {
    let c = Case { retained: true, ..case("battery", idle()) };
    assert!(c.rejected("retained").is_retained);
    let refusal = c.run_raw(b"rubbish").unwrap_err();
    assert!(refusal.is_retained && refusal.id.is_none());
}

#[test]
fn device_action_and_parameters() {
    let refusal =
        case("batery", idle()).rejected("unknown device `batery`; this gateway has: battery, charger, pv, grid");
    assert_eq!(refusal.device.unwrap().as_str(), "batery", "so that its sender finds the answer");
    assert_eq!(case("BAD/name", idle()).rejected("unknown device").device, None);
    case("battery", json!({"action": "explode"})).rejected("unknown action `explode`");
    case("charger", idle()).rejected("not for a charger");
    case("battery", json!({"action": "charge", "params": {"power_w": "lots"}})).rejected("must be a number");
    let refusal = case("battery", json!({"action": "charge", "params": {"power_w": -5}})).rejected("between 0 and");
    assert_eq!(refusal.requested, Params::from([("power_w".to_owned(), -5.0)]));
    case("battery", json!({"action": "release", "params": {"x": 1}})).rejected("takes no parameters");
    case("pv", json!({"action": "auto"})).rejected("[device.control]");
    let release = case("pv", json!({"action": "release"})).run().unwrap();
    assert_eq!(release.what, What::Release);
}

#[test]
fn what_the_device_can() {
    let with = |status: DeviceStatus, body: Value| Case { status: Some(status), ..case("battery", body) };
    let timer = FailSafe::Timer(Duration::from_secs(60));
    with(status(&["charge"], timer), idle()).rejected("cannot `idle`; it can: charge");
    with(status(&[], timer), idle()).rejected("it can: nothing");
    assert!(with(status(&["idle"], timer), idle()).run().is_ok());
    with(status(&["idle"], FailSafe::None), idle()).rejected("accept_no_failsafe = true");
    assert!(with(status(&["idle"], FailSafe::None), json!({"action": "auto"})).run().is_ok(), "back to its own mode");
    let reserve = json!({"action": "set_reserve", "params": {"soc_pct": 20}});
    assert!(with(status(&["set_reserve"], FailSafe::None), reserve).run().is_ok(), "a standing setting is no lease");
    let mut accepting = with(status(&["idle"], FailSafe::None), idle());
    accepting.devices[0].control.accept_no_failsafe = true;
    assert!(accepting.run().is_ok());
    let offline = DeviceStatus { state: DeviceState::Offline, ..status(&[], FailSafe::None) };
    assert!(with(offline, idle()).run().is_ok(), "not known now: it may come back in time");
    let strange = DeviceStatus {
        state: DeviceState::Quarantined,
        error: Some("another serial number".to_owned()),
        ..status(&["idle"], timer)
    };
    with(strange, idle()).rejected("read-only until somebody has looked at it: another serial number");
}

#[test]
fn ranks() {
    case("battery", json!({"action": "idle", "rank": "grid"}))
        .rejected("`mqtt` may not claim rank `grid`, only: command");
    case("battery", json!({"action": "idle", "rank": "owner"})).rejected("may not claim rank `owner`");
    let rank = |origin: Origin, body: Value| match (Case { origin, ..case("battery", body) }).run().unwrap().what {
        What::Intent { rank, .. } => rank,
        other => panic!("{other:?}"),
    };
    let both = Origin { ranks: vec![Rank::Event, Rank::Grid], ..mqtt() };
    assert_eq!(rank(both.clone(), idle()), Rank::Event);
    assert_eq!(rank(both, json!({"action": "idle", "rank": "grid"})), Rank::Grid);
    assert_eq!(rank(local(), idle()), Rank::Owner);
    Case { origin: Origin { ranks: vec![], ..mqtt() }, ..case("battery", idle()) }.rejected("may not claim any rank");
}

#[test]
fn freshness() {
    let no_expiry = |body| Case { expires_in: None, ..case("battery", body) };
    no_expiry(idle()).rejected("no not_after, issued_at or message expiry");
    assert!(Case { origin: local(), ..no_expiry(idle()) }.run().is_ok(), "the owner, this moment");
    // 60 s after it was issued, and not a millisecond more.
    assert!(no_expiry(timed("issued_at", "2026-11-20T11:59:00Z")).run().is_ok());
    no_expiry(timed("issued_at", "2026-11-20T11:58:59.999Z")).expired("had to begin before 2026-11-20T11:59:59.999Z");
    assert!(no_expiry(timed("not_after", NOW)).run().is_ok());
    no_expiry(timed("not_after", "2026-11-20T11:59:59.999Z")).expired("had to begin before");
    case("battery", timed("not_after", "2026-11-20T11:59:59.999Z")).expired("had to begin before");
    let both = json!({"action": "idle", "issued_at": "2026-11-20T11:00:00Z", "not_after": "2026-11-20T12:30:00Z"});
    assert!(no_expiry(both).run().is_ok(), "not_after counts where it is given");
    assert!(no_expiry(timed("issued_at", "2026-11-20T12:05:00Z")).run().is_ok());
    no_expiry(timed("issued_at", "2026-11-20T12:05:01Z")).rejected("clock: `issued_at`");
    Case { expires_in: Some(Duration::ZERO), ..case("battery", idle()) }.expired("message expiry is over");
}

#[test]
fn freshness_without_a_clock() {
    let untrusted = |expires_in, body| Case { clock: ClockState::Untrusted, expires_in, ..case("battery", body) };
    let expiry = Some(Duration::from_secs(10));
    assert!(untrusted(expiry, idle()).run().is_ok());
    assert!(untrusted(expiry, timed("not_after", "2020-01-01T00:00:00Z")).run().is_ok(), "only the expiry counts");
    untrusted(None, timed("not_after", "2030-01-01T00:00:00Z")).rejected("clock: this gateway does not know the time");
    untrusted(None, timed("issued_at", NOW)).rejected("clock");
    assert!(Case { origin: local(), ..untrusted(None, idle()) }.run().is_ok());
    untrusted(expiry, timed("ends_at", "2030-01-01T00:00:00Z")).rejected("clock");
    let both = json!({"action": "idle", "issued_at": "2030-01-01T00:00:00Z", "ends_at": "2030-01-01T00:10:00Z"});
    assert_eq!(untrusted(expiry, both).lease(), Duration::from_secs(600));
    let turned = json!({"action": "idle", "issued_at": "2030-01-01T00:10:00Z", "ends_at": "2030-01-01T00:00:00Z"});
    untrusted(expiry, turned).expired("`ends_at` has passed");
    let holdover = Case { clock: ClockState::Holdover, expires_in: None, ..case("battery", timed("issued_at", NOW)) };
    assert!(holdover.run().is_ok());
}

#[test]
fn leases() {
    assert_eq!(case("battery", idle()).lease(), LEASE);
    let own = |device, body| Case { origin: local(), ..case(device, body) };
    assert_eq!(own("battery", idle()).lease(), OWNER_LEASE);
    assert_eq!(own("charger", json!({"action": "stop"})).lease(), OWNER_CHARGER_LEASE);
    assert_eq!(own("charger", json!({"action": "start"})).lease(), OWNER_CHARGER_LEASE);
    let amps = json!({"action": "set_max_current", "params": {"current_a": 10}});
    assert_eq!(own("charger", amps.clone()).lease(), OWNER_CHARGER_LEASE);
    assert_eq!(case("charger", amps).lease(), LEASE);
    case("battery", timed("ends_at", NOW)).expired("`ends_at` has passed");
    assert_eq!(case("battery", timed("ends_at", "2026-12-20T12:00:00Z")).lease(), LONGEST_LEASE);
    case("battery", timed("ends_at", "2026-12-20T12:00:00.001Z")).rejected("30 days");
}

#[test]
fn commands_to_the_site() {
    let site = |body| Case { target: Target::Site, ..case("", body) };
    let admit = site(json!({"action": "set_import_limit", "params": {"power_w": 4200}})).run().unwrap();
    assert_eq!(admit.what, What::SiteLimit { side: GridSide::Import, power_w: 4200.0 });
    assert_eq!((admit.device, admit.lease), (None, LEASE));
    let admit = site(json!({"action": "set_export_limit", "params": {"power_w": 0}})).run().unwrap();
    assert_eq!(admit.what, What::SiteLimit { side: GridSide::Export, power_w: 0.0 });
    assert_eq!(site(json!({"action": "release"})).run().unwrap().what, What::Release);
    site(idle()).rejected("unknown action `idle`; the site takes: set_import_limit, set_export_limit, release");
    site(json!({"action": "set_import_limit"})).rejected("params.power_w is missing: `set_import_limit` needs it");
    site(json!({"action": "set_import_limit", "params": {"power_w": -1}})).rejected("between 0 and");
    site(json!({"action": "set_import_limit", "params": {"w": 1}})).rejected("params.w is unknown");
}

#[test]
fn a_kept_body_tells_the_rank() {
    let devices = devices();
    let rank_after = |origin: &Origin, body: &str| {
        let kept = kept_body(origin, body.as_bytes());
        match read_again(&origin.uplink, devices.first(), &kept) {
            Some((What::Intent { rank, .. }, _)) => rank,
            other => panic!("{other:?}"),
        }
    };
    let plain = "{\"id\":\"a\",\n \"action\":\"idle\"}\n ";
    assert_eq!(kept_body(&mqtt(), plain.as_bytes()), plain.as_bytes(), "as it came");
    assert_eq!(rank_after(&mqtt(), plain), Rank::Command);
    assert_eq!(rank_after(&local(), plain), Rank::Owner);
    let event = Origin { ranks: vec![Rank::Event, Rank::Command], ..mqtt() };
    assert_eq!(rank_after(&event, plain), Rank::Event);
    assert_eq!(rank_after(&event, r#"{"id":"a","action":"idle","rank":"command"}"#), Rank::Command);
}
