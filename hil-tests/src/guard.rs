//! The real `derd-guard`.

use crate::daemon::derd_binary;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

/// The binary under test: the one beside `derd`.
#[must_use]
pub fn guard_binary() -> PathBuf {
    derd_binary().with_file_name("derd-guard")
}

/// A running `derd-guard`.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Guard {
    /// Watch over the daemon with this data folder, with further arguments.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(data_dir: &Path, args: &[&str]) -> Self {
        let mut child = Command::new(guard_binary())
            .arg("--data-dir")
            .arg(data_dir)
            .args(args)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (out, sink) = (child.stderr.take().unwrap(), Arc::clone(&log));
        drop(std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let mut log = sink.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        }));
        Self { child, log }
    }

    /// Everything that it said.
    ///
    /// # Panics
    /// Never in practice.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it ended, and how.
    ///
    /// # Panics
    /// Never in practice.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("---- what derd-guard printed ----\n{}", self.log());
        }
    }
}
