//! Where log lines go: the terminal, or the journal with structured fields when systemd started us.

use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;
use systemd_journal_logger::{JournalLog, connected_to_journal};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter in `DERD_LOG` is not one.
    #[error("the log filter `{filter}` (DERD_LOG) is no good: {reason}")]
    Filter {
        /// As given.
        filter: String,
        /// What is wrong.
        reason: String,
    },
    /// systemd says that the journal is there, and it is not.
    #[error("connecting to the journal: {0}")]
    Journal(std::io::Error),
    /// Somebody was faster.
    #[error("logging was set up before: {0}")]
    Twice(String),
}

/// Set logging up, once per process. `filter` (else the environment's `DERD_LOG`, else `info`) is a level or a list such
/// as `info,derd::link=debug`.
///
/// Lines go to stderr; when systemd has connected stderr to the journal they go there directly, each with its priority,
/// its place in the code and its fields in upper case (`DEVICE`, `UPLINK`, `COMMAND_ID`, ...). Libraries that use the
/// `log` crate are heard from level warn on, by the same way.
///
/// # Errors
/// [`LogError`]
pub fn init_logging(filter: Option<&str>) -> Result<(), LogError> {
    let wanted =
        filter.map(str::to_owned).or_else(|| std::env::var("DERD_LOG").ok()).unwrap_or_else(|| "info".to_owned());
    let filter: Targets =
        wanted.parse().map_err(|e| LogError::Filter { filter: wanted.clone(), reason: format!("{e}") })?;
    let registry = tracing_subscriber::registry().with(filter);
    let started = if connected_to_journal() {
        let journal = JournalLog::new().map_err(LogError::Journal)?.with_syslog_identifier("derd".to_owned());
        registry.with(ToJournal(journal)).try_init()
    } else {
        let terminal = tracing_subscriber::fmt::layer()
            .compact()
            .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
            .with_target(false)
            .with_writer(std::io::stderr);
        registry.with(terminal).try_init()
    };
    started.map_err(|e| LogError::Twice(e.to_string()))?;
    log::set_logger(&FROM_LOG).map_err(|e| LogError::Twice(e.to_string()))?;
    log::set_max_level(log::LevelFilter::Warn);
    Ok(())
}

/// Lines of libraries that use the `log` crate, handed to `tracing` once.
struct FromLog;

static FROM_LOG: FromLog = FromLog;

impl log::Log for FromLog {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record) {
        // It warns of each publish that a broker refuses; the uplink says so once per topic.
        if record.level() == log::Level::Warn && record.target().starts_with("rumqttc") {
            return;
        }
        match record.level() {
            log::Level::Error => tracing::error!(library = record.target(), "{}", record.args()),
            log::Level::Warn => tracing::warn!(library = record.target(), "{}", record.args()),
            log::Level::Info | log::Level::Debug | log::Level::Trace => {}
        }
    }

    fn flush(&self) {}
}

/// Events of `tracing`, sent to the journal.
struct ToJournal(JournalLog);

impl<S: Subscriber> Layer<S> for ToJournal {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let meta = event.metadata();
        let fields: Vec<(&str, &str)> = line.fields.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let sent = self.0.journal_send(
            &log::Record::builder()
                .level(log_level(*meta.level()))
                .target(meta.target())
                .module_path(meta.module_path())
                .file(meta.file())
                .line(meta.line())
                .key_values(&fields.as_slice())
                .args(format_args!("{}", line.text()))
                .build(),
        );
        // A journal that is full or restarting is no reason to stop, and there is nowhere else to complain.
        let _lost = sent.is_err();
    }
}

/// The level by which the crate makes the priority that syslog(3) has for ours: it maps `log`'s info to notice, debug to
/// info and trace to debug.
const fn log_level(level: Level) -> log::Level {
    match level {
        Level::ERROR => log::Level::Error,
        Level::WARN => log::Level::Warn,
        Level::INFO => log::Level::Debug,
        Level::DEBUG | Level::TRACE => log::Level::Trace,
    }
}

/// The message and the fields of one event.
#[derive(Debug, Default)]
struct Line {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Line {
    /// The message with its fields behind it, so that plain `journalctl` shows them too.
    fn text(&self) -> String {
        let mut text = self.message.clone();
        for (key, value) in &self.fields {
            // Writing into a String cannot fail.
            let _never = write!(text, " {key}={value}").is_err();
        }
        text
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.fields.push((field.name(), value.to_owned()));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    struct Keep(Arc<Mutex<Vec<Line>>>);

    impl<S: Subscriber> Layer<S> for Keep {
        fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
            let mut line = Line::default();
            event.record(&mut line);
            self.0.lock().unwrap().push(line);
        }
    }

    #[test]
    fn a_line_has_its_message_and_its_fields() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let subscriber = tracing_subscriber::registry().with(Keep(Arc::clone(&lines)));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(device = %"pv", attempts = 3, "gave no answer");
        });
        let lines = lines.lock().unwrap();
        assert_eq!(lines[0].message, "gave no answer");
        assert_eq!(lines[0].fields, vec![("device", "pv".to_owned()), ("attempts", "3".to_owned())]);
        assert_eq!(lines[0].text(), "gave no answer device=pv attempts=3");
    }

    #[test]
    fn a_bad_filter_is_named() {
        let error = init_logging(Some("derd=loud")).unwrap_err();
        assert!(error.to_string().contains("derd=loud"), "{error}");
    }
}
