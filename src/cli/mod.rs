//! Arguments, one file per command, exit codes. No logic of its own.
//!
//! Exit codes: 0 good, 1 the thing asked for failed, 2 wrong usage.

mod baseline;
mod check;
mod client;
mod demo;
mod history;
mod import;
mod out;
mod password;
mod probe;
mod profile;
mod run;
mod schedule;
mod set;
mod status;

use clap::{Args, CommandFactory, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// derd, the DER daemon: an on-premises edge gateway for home energy.
#[derive(Debug, Parser)]
#[command(name = "derd", version, about, max_term_width = 100, propagate_version = false)]
#[command(after_help = "Try it at once, with no device at hand:\n  derd demo")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The daemon
    #[command(after_help = "Example:\n  derd run --config ./derd.toml")]
    Run(run::RunArgs),
    /// A simulated home with the real daemon on it: no broker, no cloud, no root, no file left behind
    #[command(after_help = "Example:\n  derd demo --speed 60 --for 2m\n  then open http://127.0.0.1:8080")]
    Demo(demo::DemoArgs),
    /// Print every fault of the configuration at once
    #[command(after_help = "Example:\n  derd check --config /etc/derd/derd.toml")]
    Check(ConfigArg),
    /// Read one device without a daemon and print its decoded points
    #[command(after_help = "Example:\n  derd probe --link tcp://192.168.1.20:502 --unit 1")]
    Probe(probe::ProbeArgs),
    /// What the running daemon sees
    #[command(after_help = "Example:\n  derd status --json | jq .site.load_w")]
    Status(status::StatusArgs),
    /// The owner's own command to a device
    #[command(after_help = "Example:\n  derd set battery charge power_w=3000 --for 2h\n  derd set charger stop")]
    Set(set::SetArgs),
    /// End the owner's command
    #[command(after_help = "Example:\n  derd release battery")]
    Release(set::ReleaseArgs),
    /// What the installer set in a device, and what differs from it now
    #[command(after_help = "Example:\n  derd baseline pv\n  derd baseline pv --accept")]
    Baseline(baseline::BaselineArgs),
    /// What writing has cost the devices so far: writes, budget and years by register
    #[command(after_help = "Example:\n  derd wear charger")]
    Wear(baseline::WearArgs),
    /// Stored telemetry
    #[command(after_help = "Example:\n  derd history grid --point power_w --from -1h --step 1m --format csv")]
    History(history::HistoryArgs),
    /// Local schedules
    #[command(after_help = "Example:\n  derd schedule import night-charge.json")]
    Schedule(schedule::ScheduleArgs),
    /// Device profiles
    #[command(after_help = "Example:\n  derd profile show sunspec")]
    Profile(profile::ProfileArgs),
    /// The page's login, for root
    #[command(after_help = "Example:\n  sudo derd password")]
    Password(password::PasswordArgs),
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub(crate) struct ConfigArg {
    /// The configuration file; the conf.d folder beside it is read too
    #[arg(long, value_name = "FILE", default_value = crate::config::DEFAULT_PATH)]
    config: PathBuf,
}

/// Where the running daemon is.
#[derive(Debug, Args)]
pub(crate) struct SocketArg {
    /// The daemon's socket
    #[arg(long, value_name = "FILE", env = "DERD_SOCKET", default_value = DEFAULT_SOCKET, global = true)]
    socket: PathBuf,
}

/// Where the packaged daemon listens for client commands.
pub(crate) const DEFAULT_SOCKET: &str = "/run/derd/derd.sock";

/// The command line's own grammar, for man pages and completions.
#[must_use]
pub fn grammar() -> clap::Command {
    Cli::command()
}

/// Do what the arguments say.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // One TLS stack: rustls with ring. An error says that a provider is installed already, which is as good.
    let _installed = rustls::crypto::ring::default_provider().install_default().is_ok();
    let result = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Demo(args) => demo::demo(&args),
        Command::Check(args) => check::check(&args),
        Command::Probe(args) => probe::probe(&args),
        Command::Status(args) => status::status(&args),
        Command::Set(args) => set::set(&args),
        Command::Release(args) => set::release(&args),
        Command::Baseline(args) => baseline::baseline(&args),
        Command::Wear(args) => baseline::wear(&args),
        Command::History(args) => history::history(&args),
        Command::Schedule(args) => schedule::schedule(&args),
        Command::Profile(args) => profile::profile(&args),
        Command::Password(args) => password::password(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(text)) => {
            out::complain(&text);
            ExitCode::from(2)
        }
        Err(Failure::Failed(text)) => {
            out::complain(&text);
            ExitCode::FAILURE
        }
    }
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments make no sense: exit code 2.
    Usage(String),
    /// The thing asked for failed: exit code 1.
    Failed(String),
}

impl Failure {
    pub(crate) fn failed(what: impl std::fmt::Display) -> Self {
        Self::Failed(what.to_string())
    }
}

/// A runtime of one thread, for a command or the daemon.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::failed(format!("no runtime: {e}")))
}
