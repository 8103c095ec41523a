//! The real binary.

use crate::wait::wait_for;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The binary under test: `DERD_BIN`, else the one built beside this test.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn derd_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("DERD_BIN") {
        return PathBuf::from(path);
    }
    let here = std::env::current_exe().unwrap();
    let found = here.ancestors().skip(1).map(|dir| dir.join("derd")).find(|p| p.is_file());
    found.expect(
        "no derd binary beside the tests: run `cargo build --workspace --all-targets` first, as hil-tests/run does",
    )
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Output {
    /// Exit code; `None`: ended by a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Run a command of derd to its end.
///
/// # Panics
/// When it cannot be started.
#[must_use]
pub fn cli(args: &[&str], socket: Option<&Path>) -> Output {
    let mut command = Command::new(derd_binary());
    command.args(args).env_remove("DERD_SOCKET");
    if let Some(socket) = socket {
        command.env("DERD_SOCKET", socket);
    }
    let out = command.stdin(Stdio::null()).output().unwrap();
    Output {
        code: out.status.code(),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// A running `derd run` (or `derd demo`).
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    socket: PathBuf,
    log: Arc<Mutex<String>>,
}

impl Daemon {
    /// Start `derd run` with this configuration, in this folder; returns when it answers.
    ///
    /// # Panics
    /// When it does not answer in 10 s.
    #[must_use]
    pub fn start(folder: &Path, config: &str) -> Self {
        let file = folder.join("derd.toml");
        std::fs::write(&file, config).unwrap();
        let socket = folder.join("derd.sock");
        let mut command = Command::new(derd_binary());
        command.args(["run", "--config"]).arg(&file).arg("--socket").arg(&socket);
        let mut daemon = Self::spawn(command, socket);
        daemon.wait_ready(Duration::from_secs(10));
        daemon
    }

    /// Start any command of derd that brings a daemon up on `socket`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(mut command: Command, socket: PathBuf) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().unwrap(), &log);
        collect(child.stderr.take().unwrap(), &log);
        Self { child, socket, log }
    }

    /// Wait until the daemon answers on its socket.
    ///
    /// # Panics
    /// When it ends or does not answer in time.
    pub fn wait_ready(&mut self, deadline: Duration) {
        wait_for("the daemon answers", deadline, || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("derd ended with {status}:\n{}", self.log());
            }
            self.try_status()
        });
    }

    /// Everything that it printed.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `derd status --json`, when it answers.
    #[must_use]
    pub fn try_status(&self) -> Option<Value> {
        let out = cli(&["status", "--json"], Some(&self.socket));
        if out.code == Some(0) { serde_json::from_str(&out.stdout).ok() } else { None }
    }

    /// `derd status --json`
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn status(&self) -> Value {
        self.try_status().unwrap_or_else(|| panic!("no status from the daemon:\n{}", self.log()))
    }

    /// One device of the status.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn device(&self, id: &str) -> Value {
        let status = self.status();
        let devices = status["devices"].as_array().unwrap();
        devices.iter().find(|d| d["id"] == id).unwrap_or_else(|| panic!("no device {id} in {status}")).clone()
    }

    /// A GET on the daemon's socket by curl, which is not ours.
    ///
    /// # Panics
    /// When curl is missing.
    #[must_use]
    pub fn get(&self, path: &str) -> String {
        let out = Command::new("curl")
            .args(["-sS", "--max-time", "10", "--unix-socket"])
            .arg(&self.socket)
            .arg(format!("http://localhost{path}"))
            .output()
            .unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Wait until all configured devices are online.
    ///
    /// # Panics
    /// When they are not in time.
    pub fn wait_online(&self, deadline: Duration) {
        wait_for("all devices online", deadline, || {
            let status = self.try_status()?;
            status["devices"].as_array()?.iter().all(|d| d["state"] == "online").then_some(())
        });
    }

    /// SIGKILL: as a power cut for the process.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and wait for the orderly end: its exit code.
    ///
    /// # Panics
    /// When it does not end in 20 s.
    pub fn stop(mut self) -> Option<i32> {
        self.signal("TERM");
        self.wait_end(Duration::from_secs(20))
    }

    /// Send a signal by name.
    ///
    /// # Panics
    /// When that fails.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// Wait for its own end: its exit code.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn wait_end(&mut self, deadline: Duration) -> Option<i32> {
        wait_for("the daemon ends", deadline, || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
        if std::thread::panicking() {
            eprintln!("---- what derd printed ----\n{}", self.log.lock().map(|l| l.clone()).unwrap_or_default());
        }
    }
}

fn collect(from: impl Read + Send + 'static, log: &Arc<Mutex<String>>) {
    let log = Arc::clone(log);
    drop(std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut log = log.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    }));
}
