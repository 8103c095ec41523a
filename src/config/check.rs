//! From raw tables to checked settings.

use super::layers::{Layers, Source};
use super::reader::{Fault, Reader, nearest};
use crate::model::{
    ControlSettings, Coupling, DeviceId, DeviceKind, DeviceLimits, DeviceSpec, GatewayId, Rank, Role, SiteSpec,
    UplinkName,
};
use crate::profile::{Catalogue, Transport};
use crate::uplink::Cadence;
use crate::uplink::mqtt::MqttSettings;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use toml::Value;

/// A home has a few dozen devices; more is a mistake.
const MAX_DEVICES: usize = 64;
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Everything the daemon needs to know, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its id; `None`: the stored one, or a new one.
    pub gateway_id: Option<GatewayId>,
    /// Where the database and the password are.
    pub data_dir: PathBuf,
    /// The site.
    pub site: SiteSpec,
    /// The devices, in the order of the files.
    pub devices: Vec<DeviceSpec>,
    /// Links whose pace the installer changed.
    pub links: Vec<LinkPace>,
    /// What is kept.
    pub store: StoreConfig,
    /// Connections to brokers.
    pub mqtt: Vec<MqttSettings>,
    /// The local page.
    pub web: WebConfig,
}

/// A link's own pace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkPace {
    /// As in the devices.
    pub url: String,
    /// Time to wait for an answer.
    pub timeout: Option<Duration>,
    /// Time between two requests.
    pub min_gap: Option<Duration>,
}

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Raw telemetry is kept this long.
    pub retention: Duration,
    /// The database may become this large.
    pub max_bytes: u64,
    /// Telemetry at risk in a power cut.
    pub commit_every: Duration,
}

/// The local page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebConfig {
    /// Address and port.
    pub listen: SocketAddr,
    /// Where the password is; `None`: in the data folder.
    pub password_file: Option<PathBuf>,
}

/// Check the layers against the known profiles.
///
/// # Errors
/// Every fault at once; a configuration with any is never started.
pub fn check(mut layers: Layers, profiles: &Catalogue) -> Result<Settings, Vec<Fault>> {
    let (table, lists) = layers.merged();
    let mut faults = std::mem::take(&mut layers.faults);
    let source_of = |key: &str| layers.source_of(key);
    let mut root = Reader::new(table, "", &source_of);

    let mut gateway = root.table("gateway");
    let gateway_id = gateway.parsed::<GatewayId>("id");
    let data_dir = gateway.path("data_dir").unwrap_or_default();
    faults.extend(gateway.done());

    let site = site(root.table("site"), &mut faults);

    let mut store = root.table("store");
    let days = store.whole("retention_days", 1, 3650).unwrap_or(30);
    let max_mb = store.whole("max_mb", 8, 1_000_000).unwrap_or(512);
    let commit_every = store.duration("commit_every", MS * 1000, HOUR).unwrap_or(Duration::from_secs(60));
    faults.extend(store.done());

    let mut web = root.table("web");
    let listen = web.text("listen").and_then(|text| {
        let address = text.parse::<SocketAddr>().ok();
        if address.is_none() {
            web.fault("listen", &text, "must be an address and a port, such as 127.0.0.1:8080 or 0.0.0.0:8080");
        }
        address
    });
    let password_file = web.path("password_file");
    faults.extend(web.done());
    // The lists were taken out before the layers were merged; asking for them makes their names known.
    for list in ["device", "link", "uplink"] {
        if let Some(other) = root.take(list) {
            root.fault(list, &other.to_string(), &format!("must be written as [[{list}]] sections in a file"));
        }
    }
    faults.extend(root.done());

    let mut devices: Vec<DeviceSpec> = Vec::new();
    let mut links: Vec<LinkPace> = Vec::new();
    let mut mqtt: Vec<MqttSettings> = Vec::new();
    // Of all devices, also of those that have faults.
    let mut ids: Vec<DeviceId> = Vec::new();
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for (list, source, entry) in &lists {
        let count = counts.entry(list.as_str()).or_default();
        *count += 1;
        let label = match entry.get("id").or_else(|| entry.get("name")).and_then(Value::as_str) {
            Some(id) => format!("{list} `{id}`"),
            None => format!("{list} number {count}"),
        };
        let here = |_: &str| source.clone();
        let reader = Reader::new(entry.clone(), &label, &here);
        match list.as_str() {
            "device" => devices.extend(device(reader, &devices, &mut ids, profiles, &mut faults)),
            "link" => links.extend(link(reader, &links, &mut faults)),
            _ => mqtt.extend(uplink(reader, &mqtt, &mut faults)),
        }
    }
    for pace in &links {
        if !devices.iter().any(|d| d.link == pace.url) {
            faults.push(Fault::new(&Source::Text("[[link]]"), "url", &pace.url, "no device uses this link"));
        }
    }
    if devices.len() > MAX_DEVICES {
        let reason = format!("{} devices: at most {MAX_DEVICES} are supported", devices.len());
        faults.push(Fault::new(&Source::Text("[[device]]"), "device", "", &reason));
    }
    match (faults.is_empty(), listen) {
        (true, Some(listen)) => Ok(Settings {
            gateway_id,
            data_dir,
            site,
            devices,
            links,
            store: StoreConfig {
                retention: Duration::from_secs(u64::from(days) * 86_400),
                max_bytes: u64::from(max_mb) * 1024 * 1024,
                commit_every,
            },
            mqtt,
            web: WebConfig { listen, password_file },
        }),
        _ => Err(faults),
    }
}

fn site(mut reader: Reader<'_>, faults: &mut Vec<Fault>) -> SiteSpec {
    let name = reader.text("name").unwrap_or_default();
    let timezone = reader.text("timezone").unwrap_or_default();
    if !timezone.is_empty() && jiff::tz::db().get(&timezone).is_err() {
        reader.fault("timezone", &timezone, "unknown zone: use an IANA name such as Europe/Berlin");
    }
    let phases = match reader.whole("phases", 1, 3) {
        Some(1) => 1,
        Some(3) | None => 3,
        Some(other) => {
            reader.fault("phases", &other.to_string(), "must be 1 or 3");
            3
        }
    };
    let main_fuse_a = reader.number("main_fuse_a", 6.0, 1000.0);
    let export_limit_w = reader.number("export_limit_w", 0.0, 1_000_000.0);
    faults.extend(reader.done());
    SiteSpec { name, timezone, phases, main_fuse_a, export_limit_w }
}

fn device(
    mut reader: Reader<'_>,
    before: &[DeviceSpec],
    ids: &mut Vec<DeviceId>,
    profiles: &Catalogue,
    faults: &mut Vec<Fault>,
) -> Option<DeviceSpec> {
    let id = reader.parsed::<DeviceId>("id");
    if let Some(id) = &id {
        if ids.contains(id) {
            reader.fault("id", id.as_str(), "another device has this id");
        }
        ids.push(id.clone());
    }
    let kinds: Vec<&str> = [DeviceKind::Inverter, DeviceKind::Battery, DeviceKind::Charger, DeviceKind::Meter]
        .map(DeviceKind::as_str)
        .into();
    let kind = reader.word("kind", |w| DeviceKind::from_word(w).filter(|k| kinds.contains(&k.as_str())), &kinds);
    let role = reader.word("role", Role::from_word, &["grid"]);
    if role == Some(Role::Grid) {
        if kind.is_some_and(|k| k != DeviceKind::Meter) {
            reader.fault("role", "grid", "only a meter can have this role");
        }
        if let Some(other) = before.iter().find(|d| d.role == Some(Role::Grid)) {
            let reason = format!("`{}` has this role already: a site has one grid meter", other.id);
            reader.fault("role", "grid", &reason);
        }
    }
    let coupling = reader.word("coupling", Coupling::from_word, &["ac", "dc"]).unwrap_or(Coupling::Ac);
    let profile = reader.text("profile");
    let link = reader.text("link");
    let mut transport = None;
    if let Some(name) = &profile {
        match profiles.get(name) {
            None => {
                let near = nearest(name, profiles.names().into_iter())
                    .map_or(String::new(), |n| format!(", did you mean `{n}`"));
                reader.fault("profile", name, &format!("unknown profile{near}; `derd profile list` names them all"));
            }
            Some(found) => {
                transport = Some(found.transport());
                if let Some(kind) = kind.filter(|k| !found.kinds().contains(k)) {
                    let fits: Vec<_> = found.kinds().iter().map(|k| k.as_str()).collect();
                    reader.fault("kind", kind.as_str(), &format!("profile `{name}` is for: {}", fits.join(", ")));
                }
            }
        }
    }
    if let Some(url) = &link {
        if let Err(e) = crate::link::Address::parse(url) {
            reader.fault("link", url, &e.to_string());
        } else if let Some(transport) = transport {
            let is_http = url.starts_with("http");
            if is_http != (transport == Transport::Http) {
                let right = if is_http {
                    "speaks Modbus: use tcp://, rtu:// or rtu+tcp://"
                } else {
                    "speaks HTTP: use http:// or https://"
                };
                reader.fault("link", url, &format!("profile `{}` {right}", profile.as_deref().unwrap_or_default()));
            }
        }
    }
    for (key, value, why) in [
        ("id", id.is_none(), "every device needs a name of its own"),
        ("kind", kind.is_none(), "inverter, battery, charger or meter"),
        ("profile", profile.is_none(), "`derd profile list` names them"),
        ("link", link.is_none(), "such as tcp://192.168.1.20:502"),
    ] {
        if value && !reader.faults.iter().any(|f| f.key.ends_with(&format!(".{key}"))) {
            reader.missing(key, why);
        }
    }
    let unit = reader.whole("unit", 0, 255).unwrap_or(1);
    let poll = reader.duration("poll", MS * 200, HOUR).unwrap_or(Duration::from_secs(1));
    let invert = reader.flag("invert").unwrap_or(false);

    let mut l = reader.table("limits");
    let limits = DeviceLimits {
        max_charge_w: l.number("max_charge_w", 0.0, 1_000_000.0),
        max_discharge_w: l.number("max_discharge_w", 0.0, 1_000_000.0),
        min_soc_pct: l.number("min_soc_pct", 0.0, 100.0),
        max_soc_pct: l.number("max_soc_pct", 0.0, 100.0),
        max_power_w: l.number("max_power_w", 0.0, 1_000_000.0),
        max_current_a: l.number("max_current_a", 0.0, 1000.0),
    };
    if let (Some(low), Some(high)) = (limits.min_soc_pct, limits.max_soc_pct)
        && low >= high
    {
        l.fault("min_soc_pct", &low.to_string(), &format!("must be below max_soc_pct = {high}"));
    }
    reader.faults.extend(l.done());

    let mut c = reader.table("control");
    let control = ControlSettings {
        enabled: c.flag("enabled").unwrap_or(false),
        accept_no_failsafe: c.flag("accept_no_failsafe").unwrap_or(false),
        fallback_current_a: c.number("fallback_current_a", 0.0, 1000.0),
        flash_writes_per_day: c.whole("flash_writes_per_day", 0, 100_000),
    };
    if control.fallback_current_a.is_some() && kind.is_some_and(|k| k != DeviceKind::Charger) {
        c.fault("fallback_current_a", "", "is for chargers only");
    }
    reader.faults.extend(c.done());

    let found = reader.done();
    let good = found.is_empty();
    faults.extend(found);
    let (Some(id), Some(kind), Some(profile), Some(link), true) = (id, kind, profile, link, good) else { return None };
    Some(DeviceSpec {
        id,
        kind,
        role,
        coupling,
        profile,
        link,
        unit: u8::try_from(unit).unwrap_or(1),
        poll,
        invert,
        limits,
        control,
    })
}

fn link(mut reader: Reader<'_>, before: &[LinkPace], faults: &mut Vec<Fault>) -> Option<LinkPace> {
    let url = reader.text("url");
    match &url {
        None => reader.missing("url", "as in the devices"),
        Some(url) if before.iter().any(|l| l.url == *url) => reader.fault("url", url, "another [[link]] has this url"),
        Some(_) => {}
    }
    let timeout = reader.duration("timeout", MS * 50, Duration::from_secs(60));
    let min_gap = reader.duration("min_gap", Duration::ZERO, Duration::from_secs(10));
    faults.extend(reader.done());
    Some(LinkPace { url: url?, timeout, min_gap })
}

fn uplink(mut reader: Reader<'_>, before: &[MqttSettings], faults: &mut Vec<Fault>) -> Option<MqttSettings> {
    let kind = reader.word("kind", |w| (w == "mqtt").then_some(()), &["mqtt"]);
    if kind.is_none() {
        if reader.faults.is_empty() {
            reader.missing("kind", "mqtt");
        }
        // The keys depend on the kind: without it each would be called unknown.
        faults.extend(reader.faults);
        return None;
    }
    let name = reader.parsed::<UplinkName>("name");
    let name = name.or_else(|| if reader.faults.is_empty() { "mqtt".parse().ok() } else { None });
    if let Some(name) = &name
        && (before.iter().any(|u| u.name == *name) || *name == UplinkName::local())
    {
        reader.fault("name", name.as_str(), "another uplink has this name: give each its own `name`");
    }
    if reader.flag("enabled") == Some(false) {
        // A disabled uplink is checked as far as its keys go, and then left out.
        reader.asked_all(&[
            "url",
            "ca_file",
            "client_cert_file",
            "client_key_file",
            "username",
            "password_file",
            "telemetry_every",
            "ranks",
            "home_assistant",
            "keep_alive",
        ]);
        faults.extend(reader.done());
        return None;
    }
    let url = reader.parsed::<url::Url>("url");
    match &url {
        None if reader.faults.iter().any(|f| f.key.ends_with(".url")) => {}
        None => reader.missing("url", "such as mqtts://broker.example:8883"),
        Some(url) => {
            if !matches!(url.scheme(), "mqtt" | "mqtts") {
                reader.fault("url", url.as_str(), "must begin with mqtt:// or mqtts://");
            }
            if url.host_str().is_none_or(str::is_empty) {
                reader.fault("url", url.as_str(), "has no host");
            }
            if !url.username().is_empty() || url.password().is_some() {
                reader.fault("url", "(hidden)", "holds a login: use username and password_file");
            }
        }
    }
    let ca_file = reader.readable("ca_file");
    let client_cert_file = reader.readable("client_cert_file");
    let client_key_file = reader.readable("client_key_file");
    if client_cert_file.is_some() != client_key_file.is_some() && reader.faults.is_empty() {
        reader.missing(
            if client_key_file.is_none() { "client_key_file" } else { "client_cert_file" },
            "certificate and key belong together",
        );
    }
    let username = reader.text("username");
    let password = reader.secret("password_file");
    let telemetry_every = match reader.take("telemetry_every") {
        None => Cadence::Every(Duration::from_secs(10)),
        Some(Value::String(word)) if word == "poll" => Cadence::Poll,
        Some(other) => {
            let text = other.as_str().map_or_else(|| other.to_string(), str::to_owned);
            match super::parse_duration(&text) {
                Ok(d) if (MS * 200..=HOUR * 24).contains(&d) => Cadence::Every(d),
                _ => {
                    reader.fault(
                        "telemetry_every",
                        &text,
                        "must be \"poll\" or a duration such as \"10s\", at least 200ms",
                    );
                    Cadence::Poll
                }
            }
        }
    };
    let ranks = ranks(&mut reader);
    let home_assistant = reader.flag("home_assistant").unwrap_or(false);
    let keep_alive = reader.duration("keep_alive", Duration::from_secs(5), HOUR).unwrap_or(Duration::from_secs(30));
    let found = reader.done();
    let good = found.is_empty();
    faults.extend(found);
    let (Some(name), Some(url), true) = (name, url, good) else { return None };
    Some(MqttSettings {
        name,
        url,
        ca_file,
        client_cert_file,
        client_key_file,
        username,
        password,
        telemetry_every,
        ranks,
        home_assistant,
        keep_alive,
    })
}

fn ranks(reader: &mut Reader<'_>) -> Vec<Rank> {
    const WORDS: [&str; 3] = ["command", "event", "grid"];
    let Some(value) = reader.take("ranks") else { return vec![Rank::Command] };
    let list: Option<Vec<Rank>> = value.as_array().and_then(|list| {
        list.iter()
            .map(|v| v.as_str().filter(|w| WORDS.contains(w)).and_then(Rank::from_word))
            .collect::<Option<Vec<_>>>()
    });
    match list {
        Some(ranks) if !ranks.is_empty() => ranks,
        _ => {
            reader.fault(
                "ranks",
                &value.to_string(),
                "must be a list of one or more of \"command\", \"event\", \"grid\"",
            );
            Vec::new()
        }
    }
}
