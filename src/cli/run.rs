//! `derd run`

use super::{ConfigArg, DEFAULT_SOCKET, Failure, runtime};
use crate::app::{self, Options};
use crate::config::{Layers, Settings};
use crate::observe::init_logging;
use crate::profile::Catalogue;
use crate::runtime::{Clock, Shutdown, ShutdownSwitch};
use clap::Args;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};

/// Where the site's own and the packaged profiles are; the same are built in.
const PROFILE_DIRS: [&str; 1] = ["/etc/derd/profiles"];

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Where client commands find this daemon
    #[arg(long, value_name = "FILE", env = "DERD_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

pub(super) fn run(args: &RunArgs) -> Result<(), Failure> {
    init_logging(None).map_err(Failure::failed)?;
    let profiles = catalogue()?;
    let settings = load(&args.config.config, &profiles)?;
    let runtime = runtime()?;
    runtime.block_on(async {
        let shutdown = on_signal()?;
        let options = Options { socket: args.socket.clone(), notify: true, must_listen: false };
        let running = app::start(settings, &profiles, Clock::system(), options).await.map_err(Failure::failed)?;
        running.run(shutdown).await.map_err(Failure::failed)
    })
}

/// The built-in profiles and the site's own.
pub(super) fn catalogue() -> Result<Catalogue, Failure> {
    let dirs: Vec<PathBuf> = PROFILE_DIRS.iter().map(PathBuf::from).filter(|d| d.is_dir()).collect();
    Catalogue::load(&dirs).map_err(|faults| {
        let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
        let s = if lines.len() == 1 { "" } else { "s" };
        Failure::Failed(format!("{} fault{s} in profiles:\n  {}", lines.len(), lines.join("\n  ")))
    })
}

/// The checked configuration, or all its faults.
pub(super) fn load(path: &Path, profiles: &Catalogue) -> Result<Settings, Failure> {
    crate::config::check(Layers::load(path, std::env::vars()), profiles).map_err(|faults| {
        let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
        let s = if lines.len() == 1 { "" } else { "s" };
        Failure::Failed(format!("{} fault{s} in the configuration:\n  {}", lines.len(), lines.join("\n  ")))
    })
}

/// Given when the process is asked to end.
pub(super) fn on_signal() -> Result<Shutdown, Failure> {
    let (switch, shutdown) = ShutdownSwitch::new();
    let catch = |kind| signal(kind).map_err(|e| Failure::failed(format!("signals cannot be caught: {e}")));
    let (mut term, mut int, mut hangup) =
        (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?, catch(SignalKind::hangup())?);
    #[expect(clippy::disallowed_methods, reason = "belongs to the process, before there is a supervisor")]
    drop(tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            _ = hangup.recv() => {}
        }
        switch.stop();
        // A second signal ends the process at once.
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        std::process::exit(1);
    }));
    Ok(shutdown)
}
