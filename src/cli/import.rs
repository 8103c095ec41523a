//! `derd schedule import`: a document of derd's own, or what a cloud answered.

use super::schedule::{all, answer, path};
use super::{Failure, SocketArg, client, out};
use crate::model::DeviceKind;
use crate::uplink::mapping::{Fate, Mapped, Target};
use crate::uplink::{enode, gridshare, texture};
use clap::{Args, ValueEnum};
use reqwest::Method;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The document
    file: PathBuf,
    /// The file is what this cloud's API answered: a schedule, a list of them, a plan, a mode, a tariff
    #[arg(long, value_name = "CLOUD")]
    from: Option<Cloud>,
    /// The device that a cloud's schedule is for
    #[arg(long, requires = "from")]
    device: Option<String>,
    /// The time zone, where the cloud names none [default: the site's; with enode UTC]
    #[arg(long, value_name = "ZONE", requires = "from")]
    timezone: Option<String>,
    /// The cloud's own id of the device, where the file is about several
    #[arg(long, value_name = "ID", requires = "from")]
    target: Option<String>,
    /// On how many phases the charger charges: a limit in watts becomes a current
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=3), requires = "from")]
    phases: u8,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Cloud {
    Texture,
    Enode,
    Gridshare,
}

/// The page of a dynamic tariff, and the only answer that needs no device besides a periodical tariff.
const TARIFF_KEYS: [&str; 2] = ["pricingPeriods", "values"];

pub(super) async fn import(args: &ImportArgs, at: &SocketArg) -> Result<(), Failure> {
    let document = read(&args.file)?;
    let Some(cloud) = args.from else {
        let id = document.get("id").and_then(Value::as_str);
        let id = id.ok_or_else(|| failed(&args.file, &"has no `id`: every schedule needs one"))?.to_owned();
        return answer(&id, client::call(at, Method::PUT, &path(&id), Some(&document)).await?);
    };
    let mapped = if matches!(cloud, Cloud::Gridshare) && TARIFF_KEYS.iter().any(|key| document.get(key).is_some()) {
        let is_periodical = document.get(TARIFF_KEYS[0]).is_some();
        let zone = args.timezone.as_deref();
        vec![if is_periodical {
            gridshare::tariff::periodical(&document, zone)
        } else {
            gridshare::tariff::dynamic(&[document])
        }]
    } else {
        let target = target(args, at).await?;
        convert(cloud, &document, &target, args.target.as_deref()).map_err(|why| failed(&args.file, &why))?
    };
    if mapped.is_empty() {
        out::say("no schedules");
    }
    let mut refused = Vec::new();
    for one in &mapped {
        match take(one, at).await {
            Ok(()) => {}
            Err(Failure::Failed(why)) => refused.push(why),
            Err(other) => return Err(other),
        }
    }
    if refused.is_empty() { Ok(()) } else { Err(Failure::Failed(refused.join("\n"))) }
}

/// Pure: what a cloud's answer means.
fn convert(cloud: Cloud, answer: &Value, target: &Target, id: Option<&str>) -> Result<Vec<Mapped>, String> {
    match cloud {
        Cloud::Texture => {
            let mut answer = answer.clone();
            if let Some(id) = id {
                let is_meant = |s: &Value| s.get("deviceId").is_none_or(|device| device == id);
                for key in ["deviceSchedules", "tagSchedules"] {
                    if let Some(Value::Array(list)) = answer.get_mut(key) {
                        list.retain(is_meant);
                    }
                }
                if let Value::Array(list) = &mut answer {
                    list.retain(is_meant);
                }
            }
            texture::schedule::schedules(&answer, target)
        }
        Cloud::Enode => enode::schedule::schedules(answer, id, target, &enode::schedule::Places::default()),
        Cloud::Gridshare if answer.get("mode").is_some() => Ok(vec![gridshare::mode::mode(answer, target)]),
        Cloud::Gridshare => Ok(vec![gridshare::plan::overlay(answer, target)]),
    }
}

async fn take(one: &Mapped, at: &SocketArg) -> Result<(), Failure> {
    for warning in &one.warnings {
        out::say(&format!("{}: {warning}", one.plan));
    }
    match &one.fate {
        Fate::Take(document) => {
            answer(&one.plan, client::call(at, Method::PUT, &path(&one.plan), Some(document)).await?)
        }
        Fate::Drop(why) => {
            out::say(&format!("{}: no effect here: {why}", one.plan));
            let known = all(at).await?.iter().any(|p| p.get("id").and_then(Value::as_str) == Some(&one.plan));
            if !known {
                return Ok(());
            }
            let nothing = Value::Object(Map::new());
            answer(&one.plan, client::call(at, Method::DELETE, &path(&one.plan), Some(&nothing)).await?)
        }
        Fate::Reject(faults) => Err(Failure::Failed(format!("{} was refused:\n  {}", one.plan, faults.join("\n  ")))),
    }
}

/// What the daemon knows of the device.
async fn target(args: &ImportArgs, at: &SocketArg) -> Result<Target, Failure> {
    let name = args.device.as_deref().ok_or_else(|| Failure::Usage("--from needs --device DEVICE".to_owned()))?;
    let id = name.parse().map_err(|e| Failure::Usage(format!("--device: {e}")))?;
    let text = client::get(at, &format!("/api/v1/devices/{name}")).await?;
    let device: Value = serde_json::from_str(&text).map_err(Failure::failed)?;
    let kind = device.get("kind").and_then(Value::as_str).and_then(DeviceKind::from_word);
    let kind = kind.ok_or_else(|| Failure::Failed(format!("the daemon does not say what `{name}` is")))?;
    let number = |pointer: &str| device.pointer(pointer).and_then(Value::as_f64);
    let most = [number("/capabilities/max_discharge_w"), number("/limits/max_discharge_w")];
    Ok(Target {
        max_discharge_w: most.into_iter().flatten().reduce(f64::min),
        capacity_wh: number("/points/capacity_wh"),
        phases: args.phases,
        zone: args.timezone.clone(),
        ..Target::new(id, kind)
    })
}

fn read(file: &Path) -> Result<Value, Failure> {
    let text = std::fs::read_to_string(file).map_err(|e| failed(file, &e))?;
    serde_json::from_str(&text).map_err(|e| failed(file, &format!("not JSON: {e}")))
}

fn failed(file: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::Failed(format!("{}: {why}", file.display()))
}
