//! Decisions and marks as the thread uses them: what goes along with a transaction of others, and what is read back.

use super::decisions::{DecisionRow, Decisions, Disk};
use super::handle::{Ask, answer};
use super::runs::{Marked, Runs};
use super::sql::Attempt;
use crate::runtime::Clock;
use rusqlite::Connection;

/// What was written along: decisions that waited, and the mark that derd is running.
pub(crate) struct Along {
    disk: Option<Disk>,
    marked: Option<Marked>,
}

impl Along {
    /// Write it, within a transaction.
    pub(crate) fn write(tx: &Connection, decisions: &Decisions, runs: &Runs, clock: &Clock) -> rusqlite::Result<Self> {
        Ok(Self { disk: decisions.write(tx)?, marked: runs.mark(tx, clock)? })
    }

    /// The transaction was good.
    pub(crate) fn done(self, decisions: &mut Decisions, runs: &mut Runs) {
        decisions.wrote(self.disk);
        runs.marked(self.marked);
    }
}

/// Answer what is asked of decisions and runs; nothing else.
pub(crate) fn read(ask: Ask, decisions: &mut Decisions, runs: &Runs, conn: &Connection, clock: &Clock) {
    match ask {
        Ask::DecisionAt(device, at, reply) => {
            let row = decisions.at(conn, &device, at).and_then(|row| {
                let is_gap = row.is_some() && runs.gap(conn, clock, at)?.is_some();
                Ok(row.map(|row| DecisionRow { was_running: !is_gap, ..row }))
            });
            answer(reply, row.attempt("reading a decision"));
        }
        Ask::Decisions(asked, reply) => {
            let (device, from, to, limit) = *asked;
            let rows = decisions.list(conn, &device, (from, to), limit);
            answer(reply, rows.attempt("reading decisions"));
        }
        Ask::NotRunning(at, reply) => {
            answer(reply, runs.gap(conn, clock, at).attempt("reading when derd was running"));
        }
        _ => {}
    }
}
