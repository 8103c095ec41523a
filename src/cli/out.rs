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

/// A complaint to standard error; in the journal each of its lines is an error, not mere information.
pub(super) fn complain(text: &str) {
    let text = format!("derd: {text}");
    let text = if systemd_journal_logger::connected_to_journal() { as_errors(&text) } else { text };
    // Nobody is left to tell when standard error is closed.
    let _lost = writeln!(std::io::stderr().lock(), "{text}").is_err();
}

/// A line for people beside what is on standard output.
pub(super) fn note(text: &str) {
    // Nobody is left to tell when standard error is closed.
    let _lost = writeln!(std::io::stderr().lock(), "{text}").is_err();
}

/// Each line with the mark by which systemd knows its priority (sd-daemon(3)).
fn as_errors(text: &str) -> String {
    text.lines().map(|line| format!("<3>{line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_line_of_a_complaint_is_an_error_in_the_journal() {
        assert_eq!(
            super::as_errors("derd: 2 faults:\n  site.phases = 4: 1 or 3\n  x"),
            "<3>derd: 2 faults:\n<3>  site.phases = 4: 1 or 3\n<3>  x"
        );
    }
}
