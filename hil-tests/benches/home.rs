//! What a home costs: memory, processor and start of the real daemon (release build), beside a bare loop that polls the
//! same registers with nothing but sockets, in the same run.
//!
//! `cargo build --release && cargo bench -p hil-tests --bench home [-- SECONDS]`
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails by panicking and prints its figures")]
#![expect(clippy::disallowed_methods, reason = "a bench lives in real time")]

use derd::runtime::Clock;
use derd::sim::{Home, HomeHandle, HomeOptions};
use hil_tests::{config_for, wait_for};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if args.first().is_some_and(|a| a == "bare-loop") {
        bare_loop(&args[1..]);
    }
    let seconds = args.first().and_then(|a| a.parse().ok()).unwrap_or(60);
    let folder = tempfile::tempdir().unwrap();
    let home = Home::start(HomeOptions::default(), Clock::system()).unwrap();

    let binary = PathBuf::from(
        std::env::var_os("DERD_BIN")
            .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/release/derd").into()),
    );
    println!("binary          {:8.1} MB", std::fs::metadata(&binary).unwrap().len() as f64 / 1e6);
    let file = folder.path().join("derd.toml");
    std::fs::write(&file, config_for(&home, folder.path(), "").replace("\"2s\"", "\"60s\"")).unwrap();
    let socket = folder.path().join("derd.sock");
    let start = Instant::now();
    let mut derd = Command::new(&binary)
        .args(["run", "--config"])
        .arg(&file)
        .arg("--socket")
        .arg(&socket)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let first = first_value(&socket, start);
    let mut bare = Command::new(std::env::current_exe().unwrap())
        .arg("bare-loop")
        .args(home.devices().iter().map(|d| d.link.clone()))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    println!("first value     {:8.0} ms after start", first.as_secs_f64() * 1000.0);
    // What start-up cost is not what living costs.
    let settle = Instant::now();
    wait_for("start-up is over", Duration::from_secs(30), || (settle.elapsed() > Duration::from_secs(5)).then_some(()));
    let (a, b) = (cpu_ticks(&derd), cpu_ticks(&bare));
    let begin = Instant::now();
    wait_for("the time is over", Duration::from_secs(seconds + 10), || {
        (begin.elapsed() >= Duration::from_secs(seconds)).then_some(())
    });
    let span = begin.elapsed().as_secs_f64();
    let percent = |before: u64, child: &Child| (cpu_ticks(child) - before) as f64 / span;
    let (derd_cpu, bare_cpu) = (percent(a, &derd), percent(b, &bare));
    let (derd_rss, bare_rss) = (rss_mb(&derd), rss_mb(&bare));
    println!("over {span:.0} s        derd  bare loop     ratio");
    println!("memory (RSS) {derd_rss:8.2} MB {bare_rss:7.2} MB {:9.1}", derd_rss / bare_rss);
    println!("one core     {derd_cpu:8.2} %  {bare_cpu:7.2} %  {:9.1}", derd_cpu / bare_cpu.max(0.01));
    drop((derd.kill(), derd.wait(), bare.kill(), bare.wait()));
    keep(&home);
}

fn keep(_: &HomeHandle) {}

/// Time until the status shows a power.
fn first_value(socket: &std::path::Path, start: Instant) -> Duration {
    wait_for("a first value", Duration::from_secs(10), || {
        let mut stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
        stream.write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let power = text.split("\"power_w\":").nth(1)?;
        power.starts_with(|c: char| c.is_ascii_digit() || c == '-').then(|| start.elapsed())
    })
}

/// Processor time in ticks of 10 ms, so that ticks per second are per cent of one core.
fn cpu_ticks(child: &Child) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn rss_mb(child: &Child) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// The least that a poller can do: read the same amount from each device once a second and forget it.
fn bare_loop(links: &[String]) -> ! {
    let mut modbus: Vec<TcpStream> = Vec::new();
    let mut http = String::new();
    for link in links {
        match link.strip_prefix("tcp://") {
            Some(address) => modbus.push(TcpStream::connect(address).unwrap()),
            None => http = link.trim_start_matches("http://").to_owned(),
        }
    }
    let mut buffer = [0; 4096];
    loop {
        let turn = Instant::now();
        for stream in &mut modbus {
            for (address, count) in [(40_002_u16, 68_u8), (40_070, 52), (40_122, 28)] {
                let [high, low] = address.to_be_bytes();
                stream.write_all(&[0, 1, 0, 0, 0, 6, 1, 3, high, low, 0, count]).unwrap();
                drop(stream.read(&mut buffer));
            }
        }
        let mut stream = TcpStream::connect(&http).unwrap();
        stream
            .write_all(
                b"GET /api/status?filter=car,amp,frc,nrg,eto,wh HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            )
            .unwrap();
        while stream.read(&mut buffer).is_ok_and(|n| n > 0) {}
        std::thread::sleep(Duration::from_secs(1).saturating_sub(turn.elapsed()));
    }
}
