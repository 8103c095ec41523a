//! Admit or refuse one command. Pure.

use super::{CLOCK_AHEAD, FRESH, LEASE, LONGEST_LEASE, MAX_BODY, OWNER_CHARGER_LEASE, OWNER_LEASE, Target};
use crate::model::{
    Action, ClockState, CommandId, CommandState, DeviceId, DeviceKind, DeviceSpec, DeviceState, DeviceStatus, FailSafe,
    GridSide, Origin, Params, Rank, Timestamp, UplinkName,
};
use crate::wire::{self, CommandBody};
use serde_json::{Map, Value};
use std::time::Duration;

/// A command as it came, without its answer channel.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// The channel, and what it may claim.
    pub origin: &'a Origin,
    /// For what.
    pub target: &'a Target,
    /// The body, unchecked.
    pub body: &'a [u8],
    /// Was it a retained message.
    pub retained: bool,
    /// The message expiry that was left when it came.
    pub expires_in: Option<Duration>,
    /// When it came.
    pub received: Timestamp,
}

/// What a command is judged by.
pub struct Surroundings<'a> {
    /// The configured devices.
    pub devices: &'a [DeviceSpec],
    /// What a device says of itself now; `None`: nothing yet.
    pub status: &'a (dyn Fn(&DeviceId) -> Option<DeviceStatus> + Sync),
    /// How far `now` may be trusted.
    pub clock: ClockState,
    /// Wall time.
    pub now: Timestamp,
}

/// What an admitted command is.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// A device shall do something.
    Intent {
        /// What.
        action: Action,
        /// How strong.
        rank: Rank,
        /// The sender's label.
        source: String,
    },
    /// A limit of the whole site.
    SiteLimit {
        /// Which side.
        side: GridSide,
        /// W, 0 or more.
        power_w: f64,
    },
    /// This source's intents on the device (or its limits of the site) end.
    Release,
}

impl What {
    /// Is it a standing setting: done when it is verified, and no lease.
    #[must_use]
    pub const fn is_standing(&self) -> bool {
        matches!(self, Self::Intent { action, .. } if action.is_standing())
    }
}

/// An admitted command.
#[derive(Debug, Clone, PartialEq)]
pub struct Admit {
    /// The sender's id.
    pub id: CommandId,
    /// For which device; `None`: the site.
    pub device: Option<DeviceId>,
    /// What to do.
    pub what: What,
    /// How long from now.
    pub lease: Duration,
    /// When it ends, wall time.
    pub ends_at: Timestamp,
    /// It ends when the car is unplugged, if that is earlier.
    pub until_unplugged: bool,
    /// The parameters that were asked for.
    pub requested: Params,
}

impl Admit {
    /// Does it make a device safer at once: then it does not wait for the disk.
    #[must_use]
    pub const fn is_urgent(&self) -> bool {
        matches!(self.what, What::Intent { action: Action::Stop | Action::Idle, .. })
    }
}

/// Why a command is not admitted.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The sender's id, when it could be read.
    pub id: Option<CommandId>,
    /// The device, when the name is at least a good id.
    pub device: Option<DeviceId>,
    /// `rejected` or `expired`.
    pub state: CommandState,
    /// Why, and what would be right.
    pub reason: String,
    /// The parameters that were asked for, as far as they could be read.
    pub requested: Params,
    /// A retained message: nothing is stored, only the channel is answered.
    pub is_retained: bool,
}

/// Judge a command by everything that does not need the store. Whether its id came before is the store's to say.
///
/// # Errors
/// [`Refusal`]
pub fn admit(raw: &Incoming<'_>, around: &Surroundings<'_>) -> Result<Admit, Refusal> {
    let named = match raw.target {
        Target::Site => None,
        Target::Device(name) => name.parse::<DeviceId>().ok(),
    };
    let refusal = |id: Option<CommandId>, state: CommandState, reason: String| Refusal {
        id,
        device: named.clone(),
        state,
        reason,
        requested: Params::new(),
        is_retained: false,
    };
    if raw.retained {
        let id = small(raw.body).and_then(|body| match wire::parse_command(body) {
            Ok(body) => Some(body.id),
            Err(e) => e.id,
        });
        let reason = "a retained message is no command: publish it without the retain flag".to_owned();
        return Err(Refusal { is_retained: true, ..refusal(id, CommandState::Rejected, reason) });
    }
    let body = small(raw.body).ok_or_else(|| {
        let reason = format!("the body has {} bytes: at most {MAX_BODY} are taken", raw.body.len());
        refusal(None, CommandState::Rejected, reason)
    })?;
    let body = wire::parse_command(body).map_err(|e| refusal(e.id, CommandState::Rejected, e.reason))?;
    judge(raw, &body, around).map_err(|(state, reason)| Refusal {
        requested: numbers(&body.params),
        ..refusal(Some(body.id.clone()), state, reason)
    })
}

type No = (CommandState, String);

fn rejected(reason: impl Into<String>) -> No {
    (CommandState::Rejected, reason.into())
}

fn expired(reason: impl Into<String>) -> No {
    (CommandState::Expired, reason.into())
}

fn judge(raw: &Incoming<'_>, body: &CommandBody, around: &Surroundings<'_>) -> Result<Admit, No> {
    let spec = match raw.target {
        Target::Site => None,
        Target::Device(name) => Some(find(name, around.devices)?),
    };
    let rank = claimed_rank(raw.origin, body.rank)?;
    freshness(raw, body, around)?;
    let what = match spec {
        None => site_command(body).map_err(rejected)?,
        Some(_) if body.action == "release" => {
            no_params(body).map_err(rejected)?;
            What::Release
        }
        Some(spec) => {
            let action = wire::parse_action(spec.kind, &body.action, &body.params).map_err(rejected)?;
            may_control(spec).map_err(rejected)?;
            if let Some(status) = (around.status)(&spec.id) {
                can_do(spec, &status, &action).map_err(rejected)?;
            }
            let source = body.source.clone().unwrap_or_else(|| raw.origin.uplink.to_string());
            What::Intent { action, rank, source }
        }
    };
    let lease = lease(body, &what, around)?;
    Ok(Admit {
        id: body.id.clone(),
        device: spec.map(|spec| spec.id.clone()),
        requested: numbers(&body.params),
        until_unplugged: until_unplugged(body, &what),
        what,
        lease,
        ends_at: around.now.plus(lease),
    })
}

/// What a body of an earlier run wanted, and whether it ends when the car is unplugged: as [`admit`], without judging it
/// again. `None`: this version cannot read it.
pub(super) fn read_again(uplink: &UplinkName, spec: Option<&DeviceSpec>, stored: &[u8]) -> Option<(What, bool)> {
    let (body, rank) = split_body(stored);
    let body = wire::parse_command(body).ok()?;
    let what = match spec {
        None => site_command(&body).ok()?,
        Some(_) if body.action == "release" => What::Release,
        Some(spec) => What::Intent {
            action: wire::parse_action(spec.kind, &body.action, &body.params).ok()?,
            rank: body.rank.or(rank).unwrap_or_else(|| usual_rank(uplink)),
            source: body.source.clone().unwrap_or_else(|| uplink.to_string()),
        },
    };
    let until_unplugged = until_unplugged(&body, &what);
    Some((what, until_unplugged))
}

/// Is a stored body a release.
pub(super) fn is_release(stored: &[u8]) -> bool {
    wire::parse_command(split_body(stored).0).is_ok_and(|body| body.action == "release")
}

/// The body as it is kept: with the rank behind it where neither the body nor the channel's name tells it.
pub(crate) fn kept_body(origin: &Origin, body: &[u8]) -> Vec<u8> {
    let mut kept = body.to_vec();
    let first = origin.ranks.first().copied();
    if let Some(rank) = first.filter(|rank| *rank != usual_rank(&origin.uplink)) {
        kept.extend_from_slice(format!("\n{{\"rank\":\"{rank}\"}}").as_bytes());
    }
    kept
}

/// Back from [`kept_body`].
fn split_body(kept: &[u8]) -> (&[u8], Option<Rank>) {
    let mut documents = serde_json::Deserializer::from_slice(kept).into_iter::<Value>();
    if !matches!(documents.next(), Some(Ok(_))) {
        return (kept, None);
    }
    let first = documents.byte_offset();
    let rank = documents.next().and_then(Result::ok).and_then(|extra| Rank::from_word(extra.get("rank")?.as_str()?));
    (&kept[..first], rank)
}

/// What a channel claims when it was not told otherwise.
fn usual_rank(uplink: &UplinkName) -> Rank {
    if *uplink == UplinkName::local() { Rank::Owner } else { Rank::Command }
}

fn find<'a>(name: &str, devices: &'a [DeviceSpec]) -> Result<&'a DeviceSpec, No> {
    devices.iter().find(|spec| spec.id.as_str() == name).ok_or_else(|| {
        let known: Vec<_> = devices.iter().map(|spec| spec.id.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        rejected(format!("unknown device `{}`; this gateway has: {known}", cut(name)))
    })
}

fn claimed_rank(origin: &Origin, claimed: Option<Rank>) -> Result<Rank, No> {
    match (claimed, origin.ranks.first()) {
        (Some(rank), _) if origin.ranks.contains(&rank) => Ok(rank),
        (None, Some(first)) => Ok(*first),
        (Some(rank), _) => {
            let may: Vec<_> = origin.ranks.iter().map(|r| r.as_str()).collect();
            Err(rejected(format!("`{}` may not claim rank `{rank}`, only: {}", origin.uplink, may.join(", "))))
        }
        (None, None) => Err(rejected(format!("`{}` may not claim any rank", origin.uplink))),
    }
}

fn freshness(raw: &Incoming<'_>, body: &CommandBody, around: &Surroundings<'_>) -> Result<(), No> {
    if raw.expires_in.is_some_and(|left| around.now.since(raw.received) >= left) {
        return Err(expired("its message expiry is over"));
    }
    // The owner's own channel hands over what was asked this moment.
    let is_local = raw.origin.uplink == UplinkName::local();
    if around.clock == ClockState::Untrusted {
        return if raw.expires_in.is_some() || is_local {
            Ok(())
        } else {
            Err(rejected("clock: this gateway does not know the time yet, so only a message expiry counts"))
        };
    }
    if let Some(issued) = body.issued_at.filter(|issued| issued.since(around.now) > CLOCK_AHEAD) {
        let ahead = issued.since(around.now).as_secs();
        return Err(rejected(format!("clock: `issued_at` {issued} is {ahead} s ahead of this gateway's clock")));
    }
    match body.not_after.or_else(|| body.issued_at.map(|issued| issued.plus(FRESH))) {
        Some(last) if around.now > last => Err(expired(format!("it had to begin before {last}"))),
        None if raw.expires_in.is_none() && !is_local => {
            Err(rejected("no not_after, issued_at or message expiry: it cannot be told whether it is fresh"))
        }
        _ => Ok(()),
    }
}

fn lease(body: &CommandBody, what: &What, around: &Surroundings<'_>) -> Result<Duration, No> {
    let lease = match (body.ends_at, around.clock) {
        (None, _) => match what {
            _ if until_unplugged(body, what) => OWNER_CHARGER_LEASE,
            What::Intent { rank: Rank::Owner, .. } => OWNER_LEASE,
            _ => LEASE,
        },
        (Some(end), ClockState::Untrusted) => {
            let issued = body.issued_at.ok_or_else(|| {
                rejected("clock: this gateway does not know the time yet, so `ends_at` needs `issued_at` beside it")
            })?;
            end.since(issued)
        }
        (Some(end), _) => end.since(around.now),
    };
    if lease.is_zero() {
        return Err(expired("`ends_at` has passed"));
    }
    if lease > LONGEST_LEASE {
        return Err(rejected("`ends_at` is more than 30 days away: send a plan"));
    }
    Ok(lease)
}

/// Does it belong to the car that stands there: the owner's word on a charger that names no end.
fn until_unplugged(body: &CommandBody, what: &What) -> bool {
    let What::Intent { action, rank: Rank::Owner, .. } = what else { return false };
    body.ends_at.is_none() && matches!(action, Action::Start | Action::Stop | Action::SetMaxCurrent { .. })
}

/// Does the installer allow derd to control it.
pub(super) fn may_control(spec: &DeviceSpec) -> Result<(), String> {
    if spec.control.enabled {
        return Ok(());
    }
    Err(format!("control of `{}` is not enabled: the installer sets `enabled = true` in its [device.control]", spec.id))
}

/// Can the device do it, as far as that is known now.
fn can_do(spec: &DeviceSpec, status: &DeviceStatus, action: &Action) -> Result<(), String> {
    let id = &spec.id;
    match status.state {
        DeviceState::Quarantined => {
            let why = status.error.as_deref().unwrap_or("it is not the device that was commissioned");
            return Err(format!("`{id}` is read-only until somebody has looked at it: {why}"));
        }
        // Its capabilities are not known, or no more: the device task says what becomes of it.
        DeviceState::Connecting | DeviceState::Offline => return Ok(()),
        DeviceState::Online => {}
    }
    // Going back to its own mode is possible for whatever can be controlled at all.
    if *action == Action::Auto {
        return Ok(());
    }
    let can = &status.capabilities.actions;
    if !can.contains(&action.name()) {
        let can = if can.is_empty() { "nothing".to_owned() } else { can.join(", ") };
        return Err(format!("`{id}` ({}) cannot `{}`; it can: {can}", spec.profile, action.name()));
    }
    let is_lease = !matches!(action, Action::SetReserve { .. } | Action::SetMode { .. });
    if spec.kind == DeviceKind::Battery
        && is_lease
        && status.capabilities.failsafe == FailSafe::None
        && !spec.control.accept_no_failsafe
    {
        return Err(format!(
            "`{id}` has no working fail-safe timer: the installer sets `accept_no_failsafe = true` in its \
             [device.control] to control it all the same"
        ));
    }
    Ok(())
}

fn site_command(body: &CommandBody) -> Result<What, String> {
    let side = match body.action.as_str() {
        "set_import_limit" => GridSide::Import,
        "set_export_limit" => GridSide::Export,
        "release" => {
            no_params(body)?;
            return Ok(What::Release);
        }
        other => {
            return Err(format!(
                "unknown action `{}`; the site takes: set_import_limit, set_export_limit, release",
                cut(other)
            ));
        }
    };
    // Its parameter is that of an inverter's limit of the same kind.
    match wire::parse_action(DeviceKind::Inverter, "set_export_limit", &body.params) {
        Ok(Action::SetExportLimit { power_w }) => Ok(What::SiteLimit { side, power_w }),
        Ok(_) => Err(format!("`{}` needs params.power_w", body.action)),
        Err(why) => Err(why.replace("set_export_limit", &body.action)),
    }
}

fn no_params(body: &CommandBody) -> Result<(), String> {
    match body.params.keys().next() {
        None => Ok(()),
        Some(key) => Err(format!("params.{} is unknown: `{}` takes no parameters", cut(key), body.action)),
    }
}

/// The parameters that are numbers, as results show them.
fn numbers(params: &Map<String, Value>) -> Params {
    params.iter().filter_map(|(k, v)| Some((cut(k).to_owned(), v.as_f64()?))).take(16).collect()
}

fn small(body: &[u8]) -> Option<&[u8]> {
    (body.len() <= MAX_BODY).then_some(body)
}

/// At most 64 characters of the sender's own text.
fn cut(text: &str) -> &str {
    text.char_indices().nth(64).map_or(text, |(at, _)| &text[..at])
}
