//! Modbus servers that are not ours: pymodbus, over TCP or on a serial line.

use crate::wait::{free_port, wait_for};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What the server speaks on its TCP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Modbus TCP.
    Tcp,
    /// Modbus RTU, as a serial line carries it.
    Rtu,
}

/// A running pymodbus server.
#[derive(Debug)]
pub struct ModbusPeer {
    child: Child,
    port: u16,
}

impl ModbusPeer {
    /// Serve the registers of a file (lines of `address: hex words`); returns when it listens.
    ///
    /// # Panics
    /// When pymodbus is missing or does not come up.
    #[must_use]
    pub fn start(registers: &Path, unit: u8, framing: Framing) -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = std::env::var_os("DERD_HIL_PYTHON")
            .map_or_else(|| here.join("../target/hil-venv/bin/python"), PathBuf::from);
        assert!(python.is_file(), "{} is missing: hil-tests/run installs pymodbus there", python.display());
        let port = free_port();
        let mut child = Command::new(python)
            .arg(here.join("peers/modbus_server.py"))
            .arg(registers)
            .args([port.to_string(), unit.to_string()])
            .arg(if framing == Framing::Rtu { "rtu" } else { "tcp" })
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready");
        Self { child, port }
    }

    /// Its TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for ModbusPeer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A serial device file made by socat, with a Modbus RTU peer at the other end of the wire.
#[derive(Debug)]
pub struct SerialLine {
    child: Child,
    file: PathBuf,
}

impl SerialLine {
    /// Plug it in: `file` appears.
    ///
    /// # Panics
    /// When socat is missing or the file does not appear.
    #[must_use]
    pub fn plug(file: &Path, peer: &ModbusPeer) -> Self {
        let child = Command::new("socat")
            .arg(format!("pty,raw,echo=0,link={}", file.display()))
            .arg(format!("tcp:127.0.0.1:{},nodelay", peer.port()))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("the serial device is there", Duration::from_secs(5), || file.exists().then_some(()));
        Self { child, file: file.to_owned() }
    }

    /// Pull the adapter out: the file goes.
    pub fn unplug(self) {
        drop(self);
    }
}

impl Drop for SerialLine {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        // Killed, socat leaves its name behind.
        drop(std::fs::remove_file(&self.file));
    }
}
