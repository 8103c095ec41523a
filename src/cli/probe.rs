//! `derd probe`

use super::{Failure, out, run, runtime};
use crate::device::probe as probe_device;
use crate::link::{self, LinkState};
use crate::model::{ControlSettings, Coupling, DeviceInfo, DeviceKind, DeviceLimits, DeviceSpec, Field, Point};
use crate::profile::{Catalogue, Profile, Transport};
use crate::runtime::{Clock, ShutdownSwitch, Supervisor};
use crate::wire::points_json;
use clap::Args;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How long a probe waits for the connection.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct ProbeArgs {
    /// Where: tcp://host:502, http://host, rtu:///dev/ttyUSB0?baud=9600&parity=none&stop=1, rtu+tcp://host:port
    #[arg(long)]
    link: String,
    /// Modbus unit id
    #[arg(long, default_value_t = 1)]
    unit: u8,
    /// Device profile; Modbus devices are asked for SunSpec when none is given
    #[arg(long)]
    profile: Option<String>,
    /// What it is: inverter, battery, charger or meter; found out when not given
    #[arg(long)]
    kind: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What one device answered.
struct Found {
    profile: String,
    kind: DeviceKind,
    info: DeviceInfo,
    points: Vec<(Point, Field)>,
}

pub(super) fn probe(args: &ProbeArgs) -> Result<(), Failure> {
    let profiles = run::catalogue()?;
    let kind = args
        .kind
        .as_deref()
        .map(|word| {
            DeviceKind::from_word(word)
                .ok_or_else(|| Failure::Usage(format!("--kind {word}: inverter, battery, charger or meter")))
        })
        .transpose()?;
    let candidates = candidates(args, &profiles)?;
    let found = runtime()?.block_on(find(args, &candidates, kind))?;
    if args.json {
        out::say(&json_text(args, &found)?);
    } else {
        print(args, &found);
    }
    Ok(())
}

/// The profile that was named, or those that could fit the link.
fn candidates(args: &ProbeArgs, profiles: &Catalogue) -> Result<Vec<Arc<Profile>>, Failure> {
    let is_http = args.link.starts_with("http");
    match (&args.profile, is_http) {
        (Some(name), _) => Ok(vec![
            profiles
                .get(name)
                .ok_or_else(|| Failure::Usage(format!("no profile `{name}`; `derd profile list` names them all")))?,
        ]),
        (None, false) => Ok(profiles.get("sunspec").into_iter().collect()),
        (None, true) => Ok(profiles
            .names()
            .into_iter()
            .filter_map(|name| profiles.get(name))
            .filter(|p| p.transport() == Transport::Http)
            .collect()),
    }
}

async fn find(args: &ProbeArgs, candidates: &[Arc<Profile>], kind: Option<DeviceKind>) -> Result<Found, Failure> {
    let pace = candidates.iter().map(|p| p.pace()).reduce(link::slowest).unwrap_or_default();
    let (handle, task) = link::create(&args.link, pace, Clock::system()).map_err(|e| Failure::Usage(e.to_string()))?;
    let (_switch, shutdown) = ShutdownSwitch::new();
    let mut supervisor = Supervisor::new();
    supervisor.spawn("link", task.run(shutdown));
    let mut state = handle.state();
    let up = state.wait_for(|s| !matches!(s, LinkState::Connecting));
    match tokio::time::timeout(PATIENCE, up).await {
        Ok(Ok(state)) => {
            if let LinkState::Down(why) = &*state {
                return Err(Failure::Failed(format!("{}: {why}", args.link)));
            }
        }
        Ok(Err(_)) => return Err(Failure::Failed(format!("{}: the link ended", args.link))),
        // An HTTP link has no connection of its own: asking shows.
        Err(_) => {}
    }
    let mut whys = Vec::new();
    let mut found: Option<Found> = None;
    for profile in candidates {
        for kind in profile.kinds().iter().copied().filter(|k| kind.is_none_or(|wanted| wanted == *k)) {
            let spec = spec(args, profile.name(), kind)?;
            let mut driver = profile.driver(&spec).map_err(Failure::Failed)?;
            match probe_device(&handle, &mut driver).await {
                // A device that has nothing but nulls for this kind is another kind.
                Ok((_, points)) if points.iter().all(|(_, f)| f.is_err()) => {
                    whys.push(format!("{} as {kind}: no value at all", profile.name()));
                }
                Ok((info, points)) => {
                    // A battery with an inverter of its own answers as both: what tells them apart is the state of charge.
                    let has_soc = points.iter().any(|(p, f)| *p == Point::SocPct && f.is_ok());
                    let better = found.is_none() || (kind == DeviceKind::Battery && has_soc);
                    if better {
                        found = Some(Found { profile: profile.name().to_owned(), kind, info, points });
                    }
                }
                Err(why) => whys.push(format!("{} as {kind}: {why}", profile.name())),
            }
        }
    }
    found.ok_or_else(|| Failure::Failed(format!("{} unit {}: {}", args.link, args.unit, whys.join("; "))))
}

fn spec(args: &ProbeArgs, profile: &str, kind: DeviceKind) -> Result<DeviceSpec, Failure> {
    Ok(DeviceSpec {
        id: "probe".parse().map_err(Failure::failed)?,
        kind,
        role: None,
        coupling: Coupling::Ac,
        profile: profile.to_owned(),
        link: args.link.clone(),
        unit: args.unit,
        poll: Duration::from_secs(1),
        invert: false,
        limits: DeviceLimits::default(),
        control: ControlSettings::default(),
    })
}

fn json_text(args: &ProbeArgs, found: &Found) -> Result<String, Failure> {
    let reasons: Map<String, Value> =
        found.points.iter().filter_map(|(p, f)| Some((p.to_string(), json!(f.as_ref().err()?.as_str())))).collect();
    let object = json!({
        "link": args.link,
        "unit": args.unit,
        "profile": found.profile,
        "kind": found.kind.as_str(),
        "maker": found.info.maker,
        "model": found.info.model,
        "serial": found.info.serial,
        "firmware": found.info.firmware,
        "points": points_json(found.points.iter()),
        "null_reason": reasons,
    });
    serde_json::to_string_pretty(&object).map_err(Failure::failed)
}

fn print(args: &ProbeArgs, found: &Found) {
    let told = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    out::say(&format!("{} unit {}: {} ({})", args.link, args.unit, found.profile, found.kind));
    out::say(&format!(
        "maker {}, model {}, serial {}, firmware {}",
        told(&found.info.maker),
        told(&found.info.model),
        told(&found.info.serial),
        told(&found.info.firmware)
    ));
    for (point, field) in &found.points {
        let text = match field {
            Ok(crate::model::Value::Num(n)) => format!("{n}"),
            Ok(crate::model::Value::Text(t)) => t.to_string(),
            Ok(crate::model::Value::Flag(b)) => b.to_string(),
            Err(reason) => format!("- ({})", reason.as_str()),
        };
        out::say(&format!("  {point:24} {text}"));
    }
}
