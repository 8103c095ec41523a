//! The one writer to the terminal.

use std::io::Write;

/// A line to standard output. A closed pipe (`derd ... | head`) is no fault of ours.
pub(super) fn say(text: &str) {
    if !try_say(text) {
        std::process::exit(0);
    }
}

/// As [`say`], for a command that has to tidy up before it ends: is somebody still reading.
pub(super) fn try_say(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
}

/// A line to standard error.
pub(super) fn complain(text: &str) {
    // Nobody is left to tell when standard error is closed.
    let _lost = writeln!(std::io::stderr().lock(), "derd: {text}").is_err();
}
