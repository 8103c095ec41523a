//! The composition root: builds, connects, starts in order, stops in order with deadlines. All wiring is here.
//!
//! Start: store, then what it remembers, then links, devices, control, command, uplinks, web; nothing waits for the
//! network. Stop, the other way round where it matters: nobody may ask any more (web stays readable), control ends,
//! each device takes its safe value, the uplinks say goodbye, and the store writes the last rows.

mod guard;
mod links;
mod notify;

use crate::command;
use crate::config::Settings;
use crate::control;
use crate::device;
use crate::guard::Journal;
use crate::model::{BootId, DeviceId, GatewayId, Held, IntentKey, OwnerWord, Timestamp, UplinkName};
use crate::observe::{Board, BoardParts};
use crate::profile::Catalogue;
use crate::runtime::{Clock, Exit, Shutdown, ShutdownSwitch, Supervisor};
use crate::store::{self, StoreHandle, StoreThread};
use crate::uplink::mqtt;
use crate::web;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;

/// Readings on their way to control: some seconds of a large home. When full the newest poll replaces an old one.
const SAMPLES: usize = 32;
/// Reports of devices: several for each setpoint.
const OUTCOMES: usize = 64;
/// How intents fare: several for each outcome.
const UPDATES: usize = 128;
/// A device may take this long to write its safe value (it bounds itself to 3 s).
const DEVICES_DEADLINE: Duration = Duration::from_secs(5);
/// Everything else ends at once or is ended.
const TASK_DEADLINE: Duration = Duration::from_secs(2);
/// Saying goodbye to a broker over a bad line.
const UPLINK_DEADLINE: Duration = Duration::from_secs(3);

/// Why the daemon did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The store cannot be opened at all.
    #[error("the store at {path}: {reason}")]
    Store {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A room refused its settings.
    #[error("{what}: {reason}")]
    Setup {
        /// Which part.
        what: String,
        /// Why.
        reason: String,
    },
    /// A task ended that should not.
    #[error("task {task} ended: {reason}")]
    Task {
        /// Which.
        task: String,
        /// Why.
        reason: String,
    },
}

impl AppError {
    fn setup(what: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Setup { what: what.into(), reason: reason.to_string() }
    }
}

/// What the command line decides, not the configuration.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where client commands find the daemon.
    pub socket: PathBuf,
    /// Tell systemd that the daemon is ready, and feed its watchdog.
    pub notify: bool,
    /// Do not start when the page's address is taken, instead of going on without the page.
    pub must_listen: bool,
}

/// A running daemon.
#[derive(Debug)]
pub struct Running {
    store: StoreHandle,
    thread: StoreThread,
    board: Board,
    address: SocketAddr,
    gateway: GatewayId,
    notify: bool,
    /// Says that the daemon lives, until the very end.
    wills: Journal,
    /// In the order in which they are stopped.
    stages: Vec<Stage>,
}

#[derive(Debug)]
struct Stage {
    switch: ShutdownSwitch,
    tasks: Supervisor,
    deadline: Duration,
}

impl Stage {
    fn new(deadline: Duration) -> (Self, Shutdown) {
        let (switch, shutdown) = ShutdownSwitch::new();
        (Self { switch, tasks: Supervisor::new(), deadline }, shutdown)
    }
}

/// Build and start everything. Returns when all tasks are started; none has needed the network yet.
///
/// # Errors
/// [`AppError`]: nothing is left running.
pub async fn start(
    settings: Settings,
    profiles: &Catalogue,
    clock: Clock,
    options: Options,
) -> Result<Running, AppError> {
    let started = clock.now();
    let (store, thread) = open_store(&settings, &clock)?;
    let memory = Memory::load(&store, &settings, &clock).await?;
    let boot = new_boot().map_err(|e| AppError::setup("random numbers", e))?;
    let (wills, left) = guard::open(&settings, &boot, &store, &clock).await;

    let (mut link_stage, link_stop) = Stage::new(TASK_DEADLINE);
    let (mut device_stage, device_stop) = Stage::new(DEVICES_DEADLINE);
    let (mut control_stage, control_stop) = Stage::new(TASK_DEADLINE);
    let (mut uplink_stage, uplink_stop) = Stage::new(UPLINK_DEADLINE);
    let (mut web_stage, web_stop) = Stage::new(TASK_DEADLINE);

    let (samples_tx, samples) = mpsc::channel(SAMPLES);
    let (outcomes_tx, outcomes) = mpsc::channel(OUTCOMES);
    let mut links = links::Links::new(&settings, profiles, &clock);
    let mut handles = Vec::new();
    for spec in &settings.devices {
        let driver = profiles
            .get(&spec.profile)
            .ok_or_else(|| format!("unknown profile `{}`", spec.profile))
            .and_then(|profile| profile.driver(spec))
            .map_err(|e| AppError::setup(format!("device `{}`", spec.id), e))?;
        let link = links
            .get(&spec.link, |url, task| {
                link_stage.tasks.spawn(format!("link {url}"), task.run(link_stop.clone()));
            })
            .map_err(|e| AppError::setup(format!("device `{}`", spec.id), e))?;
        let (handle, task) = device::create(device::DeviceParts {
            spec: spec.clone(),
            driver,
            link,
            store: store.clone(),
            clock: clock.clone(),
            boot: boot.clone(),
            samples: samples_tx.clone(),
            outcomes: outcomes_tx.clone(),
            held: memory.held.get(&spec.id).cloned(),
            baseline: memory.baselines.get(&spec.id).cloned(),
            wear: memory.wears.get(&spec.id).cloned(),
            wills: wills.clone(),
            left: left.get(&spec.id).filter(|_| !memory.held.contains_key(&spec.id)).cloned(),
        });
        device_stage.tasks.spawn(format!("device {}", spec.id), task.run(device_stop.clone()));
        handles.push(handle);
    }
    drop((samples_tx, outcomes_tx));

    let accepts = handles.iter().map(|h| (h.spec().id.clone(), h.accepts())).collect();
    let statuses: Vec<_> = handles.iter().map(|h| (h.spec().clone(), h.status())).collect();
    let recovered =
        command::recover(&memory.open, &memory.plans, &settings.devices, &settings.site, &memory.owner, &clock);
    let (updates_tx, updates) = mpsc::channel(UPDATES);
    let (control, task) = control::create(control::ControlParts {
        site: settings.site.clone(),
        devices: handles
            .iter()
            .map(|h| control::ControlledDevice { spec: h.spec().clone(), orders: h.orders(), status: h.status() })
            .collect(),
        samples,
        outcomes,
        updates: updates_tx,
        store: store.clone(),
        clock: clock.clone(),
        plans: recovered.plans.clone(),
        intents: recovered.intents.clone(),
        sessions: recovered.sessions.clone(),
        site_limits: recovered.site_limits.clone(),
        pause: recovered.pause,
    });
    let control_status = control.status();
    control_stage.tasks.spawn("control", task.run(control_stop.clone()));

    let (commands, task) = command::create(command::CommandParts {
        devices: settings.devices.clone(),
        site: settings.site.clone(),
        capabilities: statuses.iter().map(|(spec, status)| (spec.id.clone(), status.clone())).collect(),
        store: store.clone(),
        control,
        updates,
        clock: clock.clone(),
        open: memory.open,
        recent: memory.recent,
        plans: memory.plans,
        owner: memory.owner,
    });
    control_stage.tasks.spawn("command", task.run(control_stop));

    let mut uplinks = Vec::new();
    for config in &settings.mqtt {
        let (handle, task) = mqtt::create(mqtt::MqttParts {
            settings: config.clone(),
            gateway: memory.gateway.clone(),
            devices: statuses.clone(),
            store: store.clone(),
            commands: commands.clone(),
            clock: clock.clone(),
            version: env!("CARGO_PKG_VERSION"),
            started,
            control: control_status.clone(),
        })
        .map_err(|e| AppError::setup(format!("uplink `{}`", config.name), e))?;
        uplinks.push(handle.status());
        uplink_stage.tasks.spawn(format!("uplink {}", config.name), task.run(uplink_stop.clone()));
    }

    let board = Board::new(BoardParts {
        gateway: memory.gateway.clone(),
        version: env!("CARGO_PKG_VERSION"),
        started,
        site: settings.site.clone(),
        devices: statuses,
        control: control_status,
        uplinks,
        store: store.status(),
        clock: clock.clone(),
    });
    let (page, task) = web::create(web::WebParts {
        settings: web::WebSettings {
            listen: settings.web.listen,
            password_file: settings.web.password_file.clone().unwrap_or_else(|| settings.data_dir.join("web.password")),
            socket: options.socket,
            must_listen: options.must_listen,
        },
        board: board.clone(),
        store: store.clone(),
        commands,
        clock: clock.clone(),
        devices: settings.devices,
        accepts,
        site: settings.site,
    })
    .map_err(|e| AppError::setup("web", e))?;
    let address = page.address();
    web_stage.tasks.spawn("web", task.run(web_stop));

    tracing::info!(gateway = %memory.gateway, page = %address, "derd {} is running", env!("CARGO_PKG_VERSION"));
    Ok(Running {
        store,
        thread,
        board,
        address,
        gateway: memory.gateway,
        notify: options.notify,
        wills,
        stages: vec![control_stage, device_stage, link_stage, uplink_stage, web_stage],
    })
}

impl Running {
    /// The page's address, as really bound.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the gateway says of itself.
    #[must_use]
    pub fn board(&self) -> Board {
        self.board.clone()
    }

    /// The gateway's id.
    #[must_use]
    pub const fn gateway(&self) -> &GatewayId {
        &self.gateway
    }

    /// Run until `shutdown`, then stop everything in order.
    ///
    /// # Errors
    /// A task that ended although it should not: everything was stopped then too.
    pub async fn run(mut self, mut shutdown: Shutdown) -> Result<(), AppError> {
        let mut watchdog = notify::Watchdog::new(self.notify, self.board.clone());
        watchdog.ready();
        let ended = {
            let [control, devices, links, uplinks, page] = &mut self.stages[..] else {
                return Err(AppError::setup("stages", "there are five"));
            };
            tokio::select! {
                () = shutdown.wait() => None,
                () = watchdog.feed() => None,
                Some(exit) = control.tasks.next_exit() => Some(exit),
                Some(exit) = devices.tasks.next_exit() => Some(exit),
                Some(exit) = links.tasks.next_exit() => Some(exit),
                Some(exit) = uplinks.tasks.next_exit() => Some(exit),
                Some(exit) = page.tasks.next_exit() => Some(exit),
            }
        };
        watchdog.stopping();
        self.stop().await;
        match ended {
            None => Ok(()),
            Some((task, Exit::Fatal(reason))) => Err(AppError::Task { task, reason }),
            Some((task, exit)) => Err(AppError::Task { task, reason: format!("unexpectedly: {exit:?}") }),
        }
    }

    async fn stop(self) {
        for mut stage in self.stages {
            stage.switch.stop();
            for task in stage.tasks.drain(stage.deadline).await {
                tracing::warn!(task, "did not stop in time and was ended");
            }
        }
        self.store.stop().await;
        if !self.thread.join() {
            tracing::error!("the store's thread ended by a panic");
        }
        // From here on nobody lives who would lead a device back.
        drop(self.wills);
        tracing::info!("derd has stopped");
    }
}

fn open_store(settings: &Settings, clock: &Clock) -> Result<(StoreHandle, StoreThread), AppError> {
    let path = settings.data_dir.join("derd.db");
    let failed = |reason: String| AppError::Store { path: path.clone(), reason };
    std::fs::create_dir_all(&settings.data_dir).map_err(|e| failed(format!("its folder cannot be made: {e}")))?;
    store::open(links::store_settings(settings, path.clone()), clock.clone()).map_err(|e| failed(e.to_string()))
}

/// What the store remembers of earlier runs.
#[derive(Debug)]
struct Memory {
    gateway: GatewayId,
    held: BTreeMap<DeviceId, Held>,
    baselines: BTreeMap<DeviceId, String>,
    wears: BTreeMap<DeviceId, String>,
    open: Vec<store::OpenCommand>,
    recent: Vec<IntentKey>,
    plans: Vec<store::StoredPlan>,
    owner: OwnerWord,
}

impl Memory {
    async fn load(store: &StoreHandle, settings: &Settings, clock: &Clock) -> Result<Self, AppError> {
        let failed = |e: store::StoreError| AppError::setup("what the store remembers", e);
        if let Some(seen) = store.meta("last_wall_ms").await.map_err(failed)?.and_then(|t| t.parse().ok()) {
            clock.set_floor(Timestamp::from_ms(seen));
        }
        let gateway = match &settings.gateway_id {
            Some(id) => id.clone(),
            None => match store.meta("gateway_id").await.map_err(failed)?.and_then(|t| t.parse().ok()) {
                Some(id) => id,
                None => {
                    let id = random_hex(4).map_err(|e| AppError::setup("random numbers", e))?;
                    let id: GatewayId = format!("derd-{id}").parse().map_err(|e| AppError::setup("gateway id", e))?;
                    store.set_meta("gateway_id", id.as_str()).await.map_err(failed)?;
                    id
                }
            },
        };
        Ok(Self {
            gateway,
            held: store.held_all().await.map_err(failed)?.into_iter().map(|h| (h.device.clone(), h)).collect(),
            baselines: store.baselines().await.map_err(failed)?.into_iter().collect(),
            wears: store.wears().await.map_err(failed)?.into_iter().collect(),
            open: store.open_commands().await.map_err(failed)?,
            recent: store.newest_commands(command::RECENT).await.map_err(failed)?,
            plans: store.plans().await.map_err(failed)?,
            owner: command::read_word(store.meta(command::OWNER_WORD).await.map_err(failed)?.as_deref()),
        })
    }
}

fn new_boot() -> Result<BootId, String> {
    BootId::new(&random_hex(8)?)
}

fn random_hex(bytes: usize) -> Result<String, String> {
    let mut buffer = vec![0; bytes];
    getrandom::fill(&mut buffer).map_err(|e| e.to_string())?;
    Ok(buffer.iter().map(|b| format!("{b:02x}")).collect())
}

/// Uplinks whose cursors count in the store.
fn cursor_names(settings: &Settings) -> Vec<UplinkName> {
    settings.mqtt.iter().map(|u| u.name.clone()).collect()
}
