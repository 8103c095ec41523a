//! Everything that the gateway knows of itself, put together when somebody asks.

use super::metrics;
use super::progress::Progress;
use crate::model::{
    ClockState, ControlStatus, Decided, DeviceId, DeviceSpec, DeviceState, DeviceStatus, GatewayId, Health, Mono,
    NullReason, Role, Sample, SiteSpec, StoreStatus, Timestamp, UplinkMode, UplinkStatus,
};
use crate::runtime::Clock;
use crate::wire::{
    ClockJson, ControlledByJson, DeviceJson, GatewayJson, RemoteControlJson, SiteJson, StatusJson, StoreJson,
    UplinkJson, points_json,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// After a start devices have this long to be found before their silence is a problem.
const FIRST_CONTACT: Duration = Duration::from_secs(30);

/// What a [`Board`] is made of.
#[derive(Debug)]
pub struct BoardParts {
    /// The gateway's id.
    pub gateway: GatewayId,
    /// derd's version.
    pub version: &'static str,
    /// When the process started, wall time.
    pub started: Timestamp,
    /// The site.
    pub site: SiteSpec,
    /// The devices in the order of the configuration, each with its task's word.
    pub devices: Vec<(DeviceSpec, watch::Receiver<DeviceStatus>)>,
    /// Control's word.
    pub control: watch::Receiver<ControlStatus>,
    /// The uplinks' words.
    pub uplinks: Vec<watch::Receiver<UplinkStatus>>,
    /// The store's word.
    pub store: watch::Receiver<StoreStatus>,
    /// The clock.
    pub clock: Clock,
}

/// The gateway's status, health, progress and metrics. Cheap to clone, does no work unless asked.
#[derive(Debug, Clone)]
pub struct Board(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: BoardParts,
    started_mono: Mono,
    progress: Mutex<Progress>,
}

impl Board {
    /// A board over these parts. Progress is expected from now on.
    #[must_use]
    pub fn new(parts: BoardParts) -> Self {
        let now = parts.clock.mono();
        let progress = Mutex::new(Progress::new(parts.devices.len(), now));
        Self(Arc::new(Inner { parts, started_mono: now, progress }))
    }

    /// The whole status, as `derd status --json` and the local API give it.
    #[must_use]
    pub fn status(&self) -> StatusJson {
        let p = &self.0.parts;
        let now = p.clock.mono();
        let control = self.control(now);
        let (health, problems) = self.health();
        let store = p.store.borrow().clone();
        StatusJson {
            gateway: GatewayJson {
                id: p.gateway.to_string(),
                version: p.version.to_owned(),
                started_at: p.started.to_string(),
                uptime_s: now.since(self.0.started_mono).as_secs(),
            },
            site: SiteJson {
                name: p.site.name.clone(),
                timezone: p.site.timezone.clone(),
                load_w: control.load_w,
                grid_w: control.grid_w,
            },
            clock: ClockJson { state: p.clock.state().as_str().to_owned() },
            remote_control: RemoteControlJson {
                state: control.remote.as_str().to_owned(),
                until: control.remote.until.map(|t| t.to_string()),
            },
            devices: p
                .devices
                .iter()
                .map(|(spec, status)| device_json(spec, &status.borrow(), &control, now))
                .collect(),
            uplinks: p.uplinks.iter().map(|u| uplink_json(&u.borrow())).collect(),
            store: StoreJson {
                bytes: store.bytes,
                rows: store.rows,
                oldest: store.oldest.map(|t| t.to_string()),
                written_bytes_today: store.written_bytes_today,
                dropped: store.dropped,
            },
            health: health.as_str().to_owned(),
            problems,
        }
    }

    /// What control decided on each device, and why, as it stands now.
    #[must_use]
    pub fn decided(&self) -> BTreeMap<DeviceId, Arc<Decided>> {
        self.0.parts.control.borrow().decided.clone()
    }

    /// One device's own word; `None`: there is no such device.
    #[must_use]
    pub fn device(&self, id: &DeviceId) -> Option<DeviceStatus> {
        self.0.parts.devices.iter().find(|(spec, _)| spec.id == *id).map(|(_, status)| status.borrow().clone())
    }

    /// The gateway's health, and what is wrong, a sentence each.
    #[must_use]
    pub fn health(&self) -> (Health, Vec<String>) {
        let p = &self.0.parts;
        let now = p.clock.mono();
        let mut problems = Vec::new();
        let (loops, store_fault) = self.faults();
        let is_stuck = loops.is_some();
        problems.extend(loops.into_iter().chain(store_fault));

        let mut reachable = 0_usize;
        for (spec, status) in &p.devices {
            let status = status.borrow();
            if matches!(status.state, DeviceState::Online | DeviceState::Quarantined) {
                reachable += 1;
            }
            let is_young = now.since(self.0.started_mono) < FIRST_CONTACT;
            problems.extend(device_problem(spec, &status, now, is_young));
        }
        if p.clock.state() == ClockState::Untrusted {
            problems.push("the clock is not to be trusted yet: plans by the clock wait until it is set".to_owned());
        }
        let store = p.store.borrow().clone();
        if let Some(error) = &store.error {
            problems.push(format!("the store: {error}"));
        }
        if store.dropped > 0 {
            problems.push(format!("{} samples were lost because the store was too slow", store.dropped));
        }
        for uplink in &p.uplinks {
            problems.extend(uplink_problem(&uplink.borrow()));
        }

        let nobody = !p.devices.is_empty() && reachable == 0 && now.since(self.0.started_mono) >= FIRST_CONTACT;
        let health = if is_stuck || nobody {
            Health::Failed
        } else if problems.is_empty() {
            Health::Ok
        } else {
            Health::Degraded
        };
        (health, problems)
    }

    /// Do polls and control turn: what the watchdog lives on. The store is no part of it: a full or hanging disk must never
    /// restart a control that works. Ask it at least every few seconds: a part counts as moving when it moved since the last
    /// question or within the last 10 s.
    ///
    /// # Errors
    /// Which stands still, as a sentence.
    pub fn loops_turn(&self) -> Result<(), String> {
        self.faults().0.map_or(Ok(()), Err)
    }

    /// What of polls, control and store makes no progress, as a sentence; `None`: all is moving. What `/healthz` lives on.
    #[must_use]
    pub fn progress_fault(&self) -> Option<String> {
        let (loops, store) = self.faults();
        loops.or(store)
    }

    /// Faults of the loops, and of the store.
    fn faults(&self) -> (Option<String>, Option<String>) {
        let p = &self.0.parts;
        let devices = p.devices.iter().map(|(spec, status)| (spec, status.borrow().clone()));
        let (control, store) = (p.control.borrow().clone(), p.store.borrow().clone());
        let mut progress = self.0.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let now = p.clock.mono();
        (progress.loop_fault(devices, &control, now), progress.store_fault(&store, now))
    }

    /// Prometheus' text (OpenMetrics 1.0).
    #[must_use]
    pub fn metrics(&self) -> String {
        let p = &self.0.parts;
        let devices: Vec<_> = p.devices.iter().map(|(spec, status)| (spec, status.borrow().clone())).collect();
        let (control, store) = (p.control.borrow().clone(), p.store.borrow().clone());
        metrics::text(&self.status(), &devices, &control, &store)
    }

    /// Control's word; its sums are null while it stands still, as any value that nobody renews.
    fn control(&self, now: Mono) -> ControlStatus {
        let mut control = self.0.parts.control.borrow().clone();
        let mut progress = self.0.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if progress.control_stands(&control, now) {
            (control.load_w, control.grid_w) = (None, None);
        }
        control
    }
}

fn device_json(spec: &DeviceSpec, status: &DeviceStatus, control: &ControlStatus, now: Mono) -> DeviceJson {
    let age = status.last.as_ref().map(|s| now.since(s.mono));
    let points = match &status.last {
        None => points_json(std::iter::empty()),
        Some(sample) if now.since(sample.mono) > spec.max_age() => stale_points(sample),
        Some(sample) => points_json(sample.points.iter()),
    };
    DeviceJson {
        id: spec.id.to_string(),
        kind: spec.kind.to_string(),
        profile: spec.profile.clone(),
        link: spec.link.clone(),
        state: status.state.to_string(),
        age_ms: age.map(|a| u64::try_from(a.as_millis()).unwrap_or(u64::MAX)),
        points,
        controlled_by: control.holders.get(&spec.id).map(|by| ControlledByJson {
            source: by.source.clone(),
            rank: by.rank.to_string(),
            action: by.action.to_owned(),
            plan: by.plan.as_ref().map(ToString::to_string),
            ends_at: by.ends_at.map(|t| t.to_string()),
        }),
        error: status.error.clone(),
    }
}

fn stale_points(sample: &Sample) -> serde_json::Value {
    let nulls: Vec<_> = sample.points.iter().map(|(point, _)| (point.clone(), Err(NullReason::Stale))).collect();
    points_json(nulls.iter())
}

fn uplink_json(status: &UplinkStatus) -> UplinkJson {
    UplinkJson {
        name: status.name.to_string(),
        kind: status.kind.to_owned(),
        mode: status.mode.to_string(),
        backlog_rows: status.backlog_rows,
        oldest_unsent: status.oldest_unsent.map(|t| t.to_string()),
        last_ok_at: status.last_ok_at.map(|t| t.to_string()),
        error: status.error.clone(),
    }
}

fn device_problem(spec: &DeviceSpec, status: &DeviceStatus, now: Mono, is_young: bool) -> Option<String> {
    let who = match spec.role {
        Some(Role::Grid) => format!("grid meter {}", spec.id),
        None => format!("{} {}", spec.kind, spec.id),
    };
    let why = status.error.as_ref().map(|e| format!(": {e}")).unwrap_or_default();
    let heard = |s: &Arc<Sample>| format!("last heard {} ago, at {}", span(now.since(s.mono)), s.ts);
    match (status.state, &status.last) {
        (DeviceState::Quarantined, _) => Some(format!("{who} is read-only until somebody looks{why}")),
        (DeviceState::Online, Some(last)) if now.since(last.mono) > spec.max_age() => {
            Some(format!("{who} gives no new values ({})", heard(last)))
        }
        (DeviceState::Online, _) => None,
        (_, Some(last)) => Some(format!("{who} is offline ({}){why}", heard(last))),
        (DeviceState::Connecting, None) if is_young => None,
        (_, None) => Some(format!("{who} has not answered yet{why}")),
    }
}

fn uplink_problem(status: &UplinkStatus) -> Option<String> {
    (status.mode == UplinkMode::Offline).then(|| {
        let waiting = match (status.backlog_rows, status.oldest_unsent) {
            (0, _) => String::new(),
            (rows, Some(since)) => format!(", {rows} samples since {since} wait to be sent"),
            (rows, None) => format!(", {rows} samples wait to be sent"),
        };
        let why = status.error.as_ref().map(|e| format!(": {e}")).unwrap_or_default();
        format!("uplink {} is offline{waiting}{why}", status.name)
    })
}

/// A length of time for people: `42 s`, `7 min`, `3 h 20 min`, `2 d 4 h`.
fn span(time: Duration) -> String {
    let s = time.as_secs();
    match s {
        0..120 => format!("{s} s"),
        120..7200 => format!("{} min", s / 60),
        7200..172_800 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}
