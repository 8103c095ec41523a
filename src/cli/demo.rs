//! `derd demo`: a simulated home on real loopback sockets, and the real daemon on it.

use super::{Failure, out, run, runtime, status};
use crate::app::{self, Options};
use crate::config::{Layers, parse_duration};
use crate::observe::init_logging;
use crate::runtime::{Clock, Shutdown};
use crate::sim::{Home, HomeOptions, Scenario, SimDevice};
use clap::{Args, ValueEnum};
use std::fmt::Write;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScenarioArg {
    /// A day from 10:00 on: clouds, kettle, a car that comes and goes
    Day,
    /// Nothing changes unless it is controlled
    Steady,
}

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Where the local page is; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// End after this time; default: until Ctrl-C
    #[arg(long = "for", value_name = "DURATION")]
    lasts: Option<String>,
    /// How many devices the home has
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(4..=32))]
    devices: u16,
    /// Publish to this broker too: mqtt://host:port
    #[arg(long, value_name = "URL")]
    mqtt: Option<String>,
    /// How many times faster sun, load, battery and car run than the clock
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// What happens in the home
    #[arg(long, value_enum, default_value = "day")]
    scenario: ScenarioArg,
    /// Write what the simulated devices really did, as JSON lines
    #[arg(long, value_name = "FILE")]
    truth: Option<PathBuf>,
}

pub(super) fn demo(args: &DemoArgs) -> Result<(), Failure> {
    let lasts = args
        .lasts
        .as_deref()
        .map(|text| parse_duration(text).map_err(|e| Failure::Usage(format!("--for: {e}"))))
        .transpose()?;
    if !(0.1..=3600.0).contains(&args.speed) {
        return Err(Failure::Usage(format!("--speed {}: must lie between 0.1 and 3600", args.speed)));
    }
    // The table is what people want to see; DERD_LOG shows more.
    let filter = std::env::var("DERD_LOG").unwrap_or_else(|_| "error".to_owned());
    init_logging(Some(&filter)).map_err(Failure::failed)?;
    // From here on a signal ends the demo in order: no file is left behind.
    let runtime = runtime()?;
    let shutdown = runtime.block_on(async { run::on_signal() })?;
    let folder = tempfile::Builder::new()
        .prefix("derd-demo-")
        .tempdir()
        .map_err(|e| Failure::failed(format!("no temporary folder: {e}")))?;
    let socket = folder.path().join("derd.sock");
    tell(&format!("DERD_SOCKET={}", socket.display()));

    let clock = Clock::system();
    let home = Home::start(
        HomeOptions {
            speed: args.speed,
            scenario: match args.scenario {
                ScenarioArg::Day => Scenario::Day,
                ScenarioArg::Steady => Scenario::Steady,
            },
            devices: usize::from(args.devices),
            truth: args.truth.clone(),
            ..HomeOptions::default()
        },
        clock.clone(),
    )
    .map_err(|e| Failure::failed(format!("the simulated home: {e}")))?;

    let profiles = run::catalogue()?;
    let text = config_text(args, home.devices(), &folder.path().display().to_string());
    let settings = crate::config::check(Layers::from_text("demo", &text), &profiles).map_err(|faults| {
        let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
        Failure::Failed(lines.join("\n"))
    })?;

    let result = runtime.block_on(async {
        let options = Options { socket: socket.clone(), notify: false, must_listen: true };
        let running = app::start(settings, &profiles, clock, options).await.map_err(|e| start_failure(args, &e))?;
        let where_to_look = format!(
            "The page: http://{}/\nFrom another terminal: {} status --socket {}",
            running.address(),
            own_name(),
            socket.display()
        );
        tell(&where_to_look);
        let is_live = std::io::stdout().is_terminal();
        let board = running.board();
        let stop = until(shutdown.clone(), lasts);
        let show = async {
            if !is_live {
                return std::future::pending().await;
            }
            // Cleared once; after that each line is written over the old one, which does not flicker.
            let mut clear = "\x1b[2J";
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let text = format!("{}\n{where_to_look}\nCtrl-C ends the demo.", status::table(&board.status()));
                if !out::try_say(&format!("{clear}\x1b[H{}\x1b[K\x1b[J", text.replace('\n', "\x1b[K\n"))) {
                    return;
                }
                clear = "";
            }
        };
        let (switch, inner) = crate::runtime::ShutdownSwitch::new();
        let life = running.run(inner);
        tokio::pin!(life);
        tokio::select! {
            ended = &mut life => return ended.map_err(Failure::failed),
            () = stop => {}
            () = show => {}
        }
        let last = board.status();
        switch.stop();
        life.await.map_err(Failure::failed)?;
        if !is_live {
            tell(&status::table(&last));
        }
        Ok(())
    });
    home.stop();
    // Everything in it goes too.
    folder.close().map_err(|e| Failure::failed(format!("the temporary folder: {e}")))?;
    result
}

/// A line for whoever still reads: the demo must tidy up even when its terminal is gone.
fn tell(text: &str) {
    let _nobody_reads = !out::try_say(text);
}

/// As it was called, to be copied into another terminal.
fn own_name() -> String {
    std::env::args().next().unwrap_or_else(|| "derd".to_owned())
}

/// Of all that can go wrong at the start, a taken port is what people meet.
fn start_failure(args: &DemoArgs, error: &app::AppError) -> Failure {
    let text = error.to_string();
    if text.contains(&args.listen.to_string()) {
        return Failure::Failed(format!("{text}; choose another port with --listen 127.0.0.1:8081"));
    }
    Failure::Failed(text)
}

async fn until(mut shutdown: Shutdown, lasts: Option<Duration>) {
    let time = async {
        match lasts {
            Some(lasts) => tokio::time::sleep(lasts).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = shutdown.wait() => {}
        () = time => {}
    }
}

/// The configuration that an installer would write for this home.
fn config_text(args: &DemoArgs, devices: &[SimDevice], data_dir: &str) -> String {
    let mut t = String::new();
    // Writing to a String cannot fail.
    let mut line = |text: std::fmt::Arguments<'_>| {
        let _never_fails = t.write_fmt(text).is_err() || t.write_char('\n').is_err();
    };
    line(format_args!("[gateway]\nid = \"demo\"\ndata_dir = {data_dir:?}"));
    line(format_args!("[site]\nname = \"Demo home\"\ntimezone = \"Europe/Berlin\"\nmain_fuse_a = 35"));
    line(format_args!("[web]\nlisten = \"{}\"", args.listen));
    for device in devices {
        line(format_args!("[[device]]\nid = {:?}\nkind = {:?}", device.id, device.kind.as_str()));
        line(format_args!(
            "profile = {:?}\nlink = {:?}\nunit = {}\npoll = \"1s\"",
            device.profile, device.link, device.unit
        ));
        match device.id.as_str() {
            "grid" => line(format_args!("role = \"grid\"")),
            "pv" => line(format_args!("[device.control]\nenabled = true")),
            "battery" => line(format_args!(
                "[device.limits]\nmax_charge_w = 5000\nmax_discharge_w = 5000\nmin_soc_pct = 5\n[device.control]\nenabled = true"
            )),
            "charger" => line(format_args!(
                "[device.limits]\nmax_current_a = 16\n[device.control]\nenabled = true\nfallback_current_a = 6"
            )),
            _ => {}
        }
    }
    if let Some(url) = &args.mqtt {
        line(format_args!("[[uplink]]\nkind = \"mqtt\"\nurl = {url:?}\ntelemetry_every = \"poll\""));
    }
    t
}
