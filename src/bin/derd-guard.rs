//! `derd-guard`: leads back what derd left behind, when derd stays dead. See `derd::guard`.

use clap::Parser;
use derd::config::parse_duration;
use derd::guard::{self, Options};
use derd::observe::init_logging;
use derd::runtime::{Clock, ShutdownSwitch};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Leads devices back that keep their setpoint for ever, when derd stays dead.
///
/// derd writes down how, device by device, before it takes one over. An orderly stop of derd leaves nothing to do.
#[derive(Debug, Parser)]
#[command(name = "derd-guard", version, max_term_width = 100)]
struct Args {
    /// derd's data folder
    #[arg(long, value_name = "DIR", default_value = "/var/lib/derd")]
    data_dir: PathBuf,
    /// derd may be dead for so long; default: as derd wrote it down (guard_after of the gateway)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    after: Option<Duration>,
    /// Do at once what is to be done, one time, and end: 0 all done, 1 not (or derd is running)
    #[arg(long)]
    once: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // The links say of each attempt that it failed; the guard says it once. Without a log it does its work all the same.
    let filter = std::env::var("DERD_LOG").unwrap_or_else(|_| "info,derd::link=off".to_owned());
    let _heard = init_logging(Some(&filter)).is_ok();
    // One TLS stack: rustls with ring, for devices with https.
    let _installed = rustls::crypto::ring::default_provider().install_default().is_ok();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no runtime");
            return ExitCode::FAILURE;
        }
    };
    let options = Options { folder: guard::folder(&args.data_dir), after: args.after };
    runtime.block_on(async {
        if args.once {
            return match guard::once(options, Clock::system()).await {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(why) => {
                    tracing::error!("{why}");
                    ExitCode::FAILURE
                }
            };
        }
        let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
            tracing::error!("signals cannot be caught");
            return ExitCode::FAILURE;
        };
        let (switch, shutdown) = ShutdownSwitch::new();
        let ended = async {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            // A sequence that has begun is finished first.
            switch.stop();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = guard::watch(options, Clock::system(), shutdown) => {}
            () = ended => {}
        }
        ExitCode::SUCCESS
    })
}
