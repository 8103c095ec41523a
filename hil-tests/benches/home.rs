//! What a home costs: start, memory, processor and disk of the real daemon (release build): without and with an MQTT
//! uplink, and with one and plans that steer the charger by the sun and the battery by prices while the load changes every
//! five seconds; beside `derd-guard`, and a bare loop that polls the same registers with nothing but sockets, in the same run.
//!
//! `cargo build --release && cargo bench -p hil-tests --bench home [-- SECONDS]`: one minute by default; ten for the disk
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails by panicking and prints its figures")]
#![expect(clippy::disallowed_methods, reason = "a bench lives in real time")]

use derd::runtime::Clock;
use derd::sim::{Home, HomeHandle, HomeOptions};
use hil_tests::{Broker, BrokerOptions, config_for, rfc3339_in};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What one home costs, after its time.
struct Cost {
    cpu_percent: f64,
    rss_mb: f64,
    /// Of `rss_mb`: what is the process's own, not pages of the binary and the libraries.
    own_mb: f64,
    threads: usize,
    wakeups: f64,
}

/// A daemon on a simulated home of its own.
struct Daemon {
    child: Child,
    socket: PathBuf,
    home: HomeHandle,
    started: Instant,
    folder: tempfile::TempDir,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if args.first().is_some_and(|a| a == "bare-loop") {
        bare_loop(&args[1..]);
    }
    let seconds = args.first().and_then(|a| a.parse().ok()).unwrap_or(60);
    let binary = PathBuf::from(
        std::env::var_os("DERD_BIN")
            .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/release/derd").into()),
    );
    println!("binary          {:8.1} MB", std::fs::metadata(&binary).unwrap().len() as f64 / 1e6);
    first_values(&binary);

    let folder = tempfile::tempdir().unwrap();
    // Two gateways of one name would drive each other out.
    let brokers = ["a", "b"].map(|name| {
        let place = folder.path().join(name);
        std::fs::create_dir(&place).unwrap();
        Broker::start(&place, &BrokerOptions::default())
    });
    let [one, two] = &brokers;
    let uplink =
        |broker: &Broker| format!("[[uplink]]\nkind = \"mqtt\"\nurl = {:?}\ntelemetry_every = \"10s\"\n", broker.url());
    let plain = Daemon::start(&binary, "");
    let linked = Daemon::start(&binary, &uplink(one));
    let steered = Daemon::start(&binary, &uplink(two));
    steered.steer(&binary);
    let mut guard = Command::new(binary.with_file_name("derd-guard"))
        .arg("--data-dir")
        .arg(steered.folder.path())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let mut bare = Command::new(std::env::current_exe().unwrap())
        .arg("bare-loop")
        .args(plain.home.devices().iter().map(|d| d.link.clone()))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    // What start-up cost is not what living costs.
    rest(Duration::from_secs(5));
    let pids = [plain.child.id(), linked.child.id(), steered.child.id(), guard.id(), bare.id()];
    let before = pids.map(|pid| (cpu_ms(pid), switches(pid)));
    let daemons = [&plain, &linked, &steered];
    let written = daemons.map(|d| (d.written_today(), written_by(d.child.id())));
    let begin = Instant::now();
    for n in 0..seconds / 5 {
        steered.home.with_world(|w| w.set_load(Some(300.0 + (n * 137 % 1500) as f64)));
        rest(Duration::from_secs(5));
    }
    rest(Duration::from_secs(seconds % 5));
    let span = begin.elapsed().as_secs_f64();
    let costs = pids.iter().zip(before).map(|(pid, (cpu, switched))| Cost {
        cpu_percent: (cpu_ms(*pid) - cpu) / span / 10.0,
        rss_mb: status_mb(*pid, "VmRSS"),
        own_mb: status_mb(*pid, "RssAnon"),
        threads: tasks(*pid).len(),
        wakeups: (switches(*pid) - switched) as f64 / span,
    });
    let costs: Vec<Cost> = costs.collect();
    let head = ["derd", "+MQTT", "+plans", "guard", "bare loop"];
    println!("{:20}{}", format!("over {span:.0} s"), head.map(|name| format!("{name:>11}")).concat());
    let row = |name: &str, of: fn(&Cost) -> f64| {
        println!("{name:20}{}", costs.iter().map(|c| format!("{:11.2}", of(c))).collect::<String>());
    };
    row("one core, %", |c| c.cpu_percent);
    row("memory (RSS), MB", |c| c.rss_mb);
    row("  its own, MB", |c| c.own_mb);
    row("threads", |c| c.threads as f64);
    row("wake-ups a second", |c| c.wakeups);

    let daily = |bytes: u64| format!("{:11.1}", bytes as f64 / 1e6 * 86_400.0 / span);
    let own = daemons.iter().zip(&written).map(|(d, (own, _))| daily(d.written_today() - own));
    let real = daemons.iter().zip(&written).map(|(d, (_, real))| daily(written_by(d.child.id()) - real));
    println!("disk, MB a day (whole minutes hold whole commits)");
    println!("  by its own count  {}", own.collect::<String>());
    println!("  by the kernel     {}", real.collect::<String>());
    println!("A log of 1 MiB is copied into the file about once an hour: less than as much again.");
    drop((bare.kill(), bare.wait(), guard.kill(), guard.wait()));
}

/// Starts again and again: when does the status show a power, and when does it show all four.
fn first_values(binary: &Path) {
    let (mut first, mut all) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let daemon = Daemon::start(binary, "");
        first.push(daemon.powers(1));
        all.push(daemon.powers(4));
    }
    first.sort();
    all.sort();
    println!("first value     {:8.0} ms after start (median of 5)", first[2].as_secs_f64() * 1000.0);
    println!("all devices     {:8.0} ms", all[2].as_secs_f64() * 1000.0);
}

impl Daemon {
    fn start(binary: &Path, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::start(HomeOptions::default(), Clock::system()).unwrap();
        let file = folder.path().join("derd.toml");
        std::fs::write(&file, config_for(&home, folder.path(), more).replace("\"2s\"", "\"60s\"")).unwrap();
        let socket = folder.path().join("derd.sock");
        let started = Instant::now();
        let child = Command::new(binary)
            .args(["run", "--config"])
            .arg(&file)
            .arg("--socket")
            .arg(&socket)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, socket, home, started, folder }
    }

    fn status(&self) -> Option<serde_json::Value> {
        let mut stream = std::os::unix::net::UnixStream::connect(&self.socket).ok()?;
        stream.write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        serde_json::from_str(text.split("\r\n\r\n").nth(1)?).ok()
    }

    /// Give it a tariff and plans, once it reads its devices.
    fn steer(&self, binary: &Path) {
        self.powers(4);
        self.home.with_world(|w| w.set_sun(Some(0.6)));
        let hour = |n: u64| rfc3339_in(Duration::from_secs(3600 * n));
        let price = |n: u64| [0.10, 0.20, 0.45][n as usize / 8];
        let value = |n| json!({"start": hour(n), "end": hour(n + 1), "price": price(n)});
        let values: Vec<_> = (0..24).map(value).collect();
        for document in [
            json!({"id": "t1", "kind": "tariff", "timezone": "UTC", "values": values}),
            json!({"id": "trade", "device": "battery", "kind": "price", "tariff": "t1",
                "params": {"cheapest_hours": 3, "dearest_hours": 3, "power_w": 2000}}),
            json!({"id": "sun", "device": "charger", "kind": "solar", "params": {}}),
        ] {
            let file = self.folder.path().join("document.json");
            std::fs::write(&file, document.to_string()).unwrap();
            let mut import = Command::new(binary);
            import.args(["schedule", "import"]).arg(&file).arg("--socket").arg(&self.socket);
            let out = import.output().unwrap();
            assert!(out.status.success(), "{document}: {}", String::from_utf8_lossy(&out.stderr));
        }
    }

    /// Time from the start until the status shows the power of so many devices.
    fn powers(&self, count: usize) -> Duration {
        loop {
            let shown = self.status().map_or(0, |status| {
                status["devices"].as_array().unwrap().iter().filter(|d| d["points"]["power_w"].is_number()).count()
            });
            if shown >= count {
                return self.started.elapsed();
            }
            assert!(self.started.elapsed() < Duration::from_secs(10), "only {shown} devices in 10 s");
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    fn written_today(&self) -> u64 {
        self.status().unwrap()["store"]["written_bytes_today"].as_u64().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop((self.child.kill(), self.child.wait()));
    }
}

fn rest(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        std::thread::park_timeout(end.saturating_duration_since(Instant::now()));
    }
}

fn tasks(pid: u32) -> Vec<PathBuf> {
    std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|t| t.unwrap().path()).collect()
}

/// Processor time of all threads that live, to the nanosecond as the scheduler counts it.
fn cpu_ms(pid: u32) -> f64 {
    let time = |task: PathBuf| {
        let text = std::fs::read_to_string(task.join("schedstat")).unwrap();
        text.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e6
    };
    tasks(pid).into_iter().map(time).sum()
}

/// How often a thread went to sleep by itself, and so was woken.
fn switches(pid: u32) -> u64 {
    let count = |task: PathBuf| {
        let text = std::fs::read_to_string(task.join("status")).unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        line.trim().parse::<u64>().unwrap()
    };
    tasks(pid).into_iter().map(count).sum()
}

/// Bytes that the process sent to the disk in its life, by the kernel's count.
fn written_by(pid: u32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    io.lines().find_map(|l| l.strip_prefix("write_bytes: ")).unwrap().parse().unwrap()
}

fn status_mb(pid: u32, key: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with(key)).unwrap();
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
