//! A simulated home: devices with physics behind real loopback sockets, for `derd demo` and for tests.
//!
//! The devices are written from the vendors' tables and know nothing of how derd reads them. The world moves in
//! ticks; what the sockets serve is frozen between two ticks, except for what was written, which reads back at once.
//! The simulated day (sun, load, energy, the car's coming and going) runs `speed` times faster than the clock; the
//! electronics (lags, timers of setpoints) do not, for the daemon's clock is real.
//!
//! Everything runs in one thread of its own with its own runtime, so that the daemon's is not disturbed.

mod battery;
mod charger;
#[cfg(test)]
pub(crate) mod house_tests;
mod inverter;
mod meter;
mod physics;
mod plant;
mod registers;
mod server;
mod state;
mod surroundings;
mod tables;
#[cfg(test)]
mod tests;
mod truth;

pub use physics::{PV_RATED_W, Scenario, World};
pub use plant::{Battery, Bounds, Charger, Force, Meter, PvPlant};
pub use state::Touch;
pub use truth::{Points, Truth};

use crate::model::{DeviceKind, Role};
use crate::runtime::{Clock, Shutdown, ShutdownSwitch};
use server::{Port, Protocol};
use state::{Part, Shared, Unit};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

/// Real time between two ticks of the world.
pub const TICK: Duration = Duration::from_millis(200);
/// Modbus unit id of the simulated devices.
const UNIT_ID: u8 = 1;
/// How long a device may take to vanish or to come back: far more than it needs.
const SWITCH_TIMEOUT: Duration = Duration::from_secs(5);

/// What home to simulate.
#[derive(Debug, Clone, PartialEq)]
pub struct HomeOptions {
    /// Seed of all chance: the same seed gives the same day.
    pub seed: u64,
    /// How much faster than the clock the simulated day passes.
    pub speed: f64,
    /// What happens.
    pub scenario: Scenario,
    /// Number of devices, at least the four of a home; those beyond are sub-meters and small PV inverters.
    pub devices: usize,
    /// Has the battery a working `InOutWRte_RvrtTms`; without, its setpoints stay.
    pub revert_timer: bool,
    /// Where to write what the devices really did, as JSON lines.
    pub truth: Option<PathBuf>,
    /// Ports in the order of the devices; 0 or missing: any free one.
    pub ports: Vec<u16>,
}

impl Default for HomeOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            speed: 1.0,
            scenario: Scenario::Day,
            devices: 4,
            revert_timer: true,
            truth: None,
            ports: Vec::new(),
        }
    }
}

/// One simulated device and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimDevice {
    /// Its id: `pv`, `battery`, `charger`, `grid`; then `meter1`, `pv2`, `meter2`, `pv3` ...
    pub id: String,
    /// Its kind.
    pub kind: DeviceKind,
    /// Its part in the site.
    pub role: Option<Role>,
    /// Its link, as in a configuration.
    pub link: String,
    /// The profile that reads it.
    pub profile: &'static str,
    /// Its Modbus unit id.
    pub unit: u8,
}

#[derive(Debug)]
struct SetOnline {
    device: usize,
    online: bool,
    done: std_mpsc::SyncSender<io::Result<()>>,
}

/// The simulated home.
#[derive(Debug)]
pub struct Home;

impl Home {
    /// Start it: when this returns, all devices can be connected to.
    ///
    /// # Errors
    /// A port that is taken, a truth file that cannot be created, no thread.
    pub fn start(options: HomeOptions, clock: Clock) -> io::Result<HomeHandle> {
        let more = options.devices.saturating_sub(4);
        let world = World::new(options.seed, options.speed, options.scenario, more / 2, more.div_ceil(2));
        let mut parts = vec![
            ("pv".to_owned(), Part::Pv(0)),
            ("battery".to_owned(), Part::Battery),
            ("charger".to_owned(), Part::Charger),
            ("grid".to_owned(), Part::Grid),
        ];
        parts.extend((0..more).map(|i| match i % 2 {
            0 => (format!("meter{}", i / 2 + 1), Part::Sub(i / 2)),
            _ => (format!("pv{}", i / 2 + 2), Part::Pv(i / 2 + 1)),
        }));
        let mut ports = Vec::new();
        for (i, (_, part)) in parts.iter().enumerate() {
            let protocol =
                if matches!(part, Part::Charger) { Protocol::Http } else { Protocol::Modbus { unit_id: UNIT_ID } };
            let port = Port::new(options.ports.get(i).copied().unwrap_or(0), protocol, i)?;
            port.listen()?;
            ports.push(port);
        }
        let devices = parts.iter().zip(&ports).map(|((id, part), port)| describe(id, *part, port.port)).collect();
        let units = parts.iter().map(|(id, part)| Unit::new(id, *part, &world, options.revert_timer)).collect();
        let file = options.truth.as_deref().map(truth::TruthFile::create).transpose()?;
        let shared = Shared::new(world, units, clock.clone(), file);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (switch, shutdown) = ShutdownSwitch::new();
        let (commands, inbox) = mpsc::channel(8);
        let state = shared.clone();
        let thread = std::thread::Builder::new().name("derd-sim".into()).spawn(move || {
            runtime.block_on(run(state, ports, inbox, shutdown, clock));
        })?;
        Ok(HomeHandle { devices, shared, commands, switch, thread: Some(thread) })
    }
}

fn describe(id: &str, part: Part, port: u16) -> SimDevice {
    let (kind, role) = match part {
        Part::Pv(_) => (DeviceKind::Inverter, None),
        Part::Battery => (DeviceKind::Battery, None),
        Part::Charger => (DeviceKind::Charger, None),
        Part::Grid => (DeviceKind::Meter, Some(Role::Grid)),
        Part::Sub(_) => (DeviceKind::Meter, None),
    };
    let (scheme, profile) = if kind == DeviceKind::Charger { ("http", "go-e/charger") } else { ("tcp", "sunspec") };
    SimDevice { id: id.to_owned(), kind, role, link: format!("{scheme}://127.0.0.1:{port}"), profile, unit: UNIT_ID }
}

async fn run(
    state: Shared,
    mut ports: Vec<Port>,
    mut inbox: mpsc::Receiver<SetOnline>,
    mut shutdown: Shutdown,
    clock: Clock,
) {
    for port in &mut ports {
        if let Err(error) = port.online(&state) {
            tracing::warn!(%error, port = port.port, "a simulated device cannot serve");
        }
    }
    // A daemon with the same clock polls at whole multiples of its interval: ticks stay half a tick away from these, so that
    // what one poll reads with several requests belongs to one tick.
    let tick = u64::try_from(TICK.as_millis()).unwrap_or(1).max(1);
    let phase = (tick / 2 + tick - clock.mono().ms() % tick) % tick;
    tokio::time::sleep(Duration::from_millis(phase)).await;
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            () = shutdown.wait() => break,
            _ = ticks.tick() => state.lock().tick(),
            Some(SetOnline { device, online, done }) = inbox.recv() => {
                let switched = match ports.get_mut(device) {
                    Some(port) if online => port.online(&state),
                    Some(port) => port.offline().await,
                    None => Ok(()),
                };
                if done.try_send(switched).is_err() {
                    tracing::debug!("nobody waits for the device to be switched");
                }
            }
        }
    }
    state.lock().flush();
}

/// The running home. It stops when this is dropped.
#[derive(Debug)]
pub struct HomeHandle {
    devices: Vec<SimDevice>,
    shared: Shared,
    commands: mpsc::Sender<SetOnline>,
    switch: ShutdownSwitch,
    thread: Option<JoinHandle<()>>,
}

impl HomeHandle {
    /// The devices and how to reach them.
    #[must_use]
    pub fn devices(&self) -> &[SimDevice] {
        &self.devices
    }

    /// The device with this id.
    #[must_use]
    pub fn device(&self, id: &str) -> Option<&SimDevice> {
        self.devices.iter().find(|device| device.id == id)
    }

    /// What the devices have shown since the last tick, in derd's signs.
    #[must_use]
    pub fn truth(&self) -> Truth {
        self.shared.lock().truth.clone()
    }

    /// Look at the world or change it between two ticks; the devices show a change from the next tick on.
    pub fn with_world<R>(&self, look: impl FnOnce(&mut World) -> R) -> R {
        look(&mut self.shared.lock().world)
    }

    /// Let `tell` hear of each Modbus request (and each HTTP write) at the moment when it is served, with the device's id.
    /// It runs while the world is locked: it must not block, nor ask anything of this handle.
    pub fn on_request(&self, tell: impl FnMut(&str, Touch) + Send + 'static) {
        self.shared.lock().watch(state::Watcher(Box::new(tell)));
    }

    /// Let a device vanish from the network (listener closed, connections dropped), or come back on its port.
    ///
    /// # Errors
    /// No such device, the home has stopped, or the port is gone.
    pub fn set_online(&self, device: &str, online: bool) -> io::Result<()> {
        let device = self
            .devices
            .iter()
            .position(|d| d.id == device)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no simulated device {device}")))?;
        let (done, wait) = std_mpsc::sync_channel(1);
        self.commands
            .try_send(SetOnline { device, online, done })
            .map_err(|e| io::Error::new(io::ErrorKind::BrokenPipe, format!("the simulated home: {e}")))?;
        wait.recv_timeout(SWITCH_TIMEOUT)
            .map_err(|e| io::Error::new(io::ErrorKind::TimedOut, format!("the simulated home: {e}")))?
    }

    /// Stop, and wait until everything is closed and the truth is written.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for HomeHandle {
    fn drop(&mut self) {
        self.switch.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the simulated home ended by a panic");
        }
    }
}
