//! What a film expects of reasons: of the live decision's trace and sentence, and of what came into the journal.

use super::{Film, Line, number, short};
use crate::model::{Decided, DeviceId, Standing, TraceStep};

/// A step as a film writes it.
fn step(step: &TraceStep) -> String {
    match step {
        TraceStep::Input { name, value, why } => {
            let value = value.map(number).or_else(|| why.clone()).unwrap();
            format!("input {name} {value}")
        }
        TraceStep::Intent { outcome, key, why, .. } => {
            let why = match outcome {
                Standing::Waits => why.as_deref().map(|w| match w.split_once("ranks higher (") {
                    Some((_, rank)) => format!(" {}", rank.trim_end_matches(')')),
                    None if w.ends_with("was accepted later") => " later".to_owned(),
                    None => panic!("{w}"),
                }),
                _ => None,
            };
            format!("{outcome} {}{}", short(key), why.unwrap_or_default())
        }
        TraceStep::Limit { name, from, to, .. } => {
            format!("limit {name} {} {}", from.map_or_else(|| "-".to_owned(), number), number(*to))
        }
        TraceStep::Lease { state, .. } => format!("lease {state}"),
    }
}

impl Film<'_> {
    pub(super) fn check_reason(&self, line: &Line<'_>, place: &str) {
        let device: DeviceId = line.word(1).parse().unwrap();
        if line.word(0) == "told" {
            let told = self.journal.iter().filter(|d| d.device == device).count();
            assert_eq!(told.to_string(), line.word(2), "{place}");
            return;
        }
        let core = self.core.as_ref().unwrap();
        let decided = core.status().decided.get(&device).unwrap_or_else(|| panic!("{place}: nothing was told"));
        if line.word(0) == "says" {
            let words = line.quoted.unwrap_or_else(|| panic!("{place}: what does it say?"));
            assert!(decided.sentence.contains(words), "{place}\n  is: {}", decided.sentence);
            return;
        }
        let steps: Vec<_> = decided.trace.iter().map(step).collect();
        match (line.word(2), line.words.get(3)) {
            ("nobody", _) => assert_eq!(decided.holder, None, "{place}"),
            ("limits", Some(count)) => {
                let limits = steps.iter().filter(|s| s.starts_with("limit ")).count();
                assert_eq!(limits.to_string(), **count, "{place}\ntrace: {steps:#?}");
            }
            _ => {
                let want = line.words[2..].join(" ");
                assert!(steps.contains(&want), "{place}\ntrace: {steps:#?}\n{}", decided.sentence);
            }
        }
    }

    /// What holds in every cycle of every film: the trace tells the truth.
    pub(super) fn check_truth(&self, decided: &Decided) {
        super::super::tests::truth(decided).unwrap_or_else(|why| {
            panic!("{} seed {} at {} ms: {}: {why}\n{decided:#?}", self.name, self.seed, self.ms, decided.device)
        });
    }
}
