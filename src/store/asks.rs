//! What becomes of each request: reads are answered, writes are written or kept for later.

use super::along::{self, Along};
use super::handle::{Ask, Next, StoreError, answer};
use super::history::HistoryJob;
use super::journal;
use super::sql::{Attempt, meta, set_meta};
use super::thread::{JOBS, RETRY, Worker};
use rusqlite::Connection;

impl Worker {
    pub(crate) fn handle(&mut self, ask: Ask) -> Next {
        match ask {
            Ask::Decided(decision) => self.decisions.take(&self.conn, *decision),
            Ask::Sample(stored) => {
                let stored = self.restamp.take(stored);
                self.telemetry.take(stored);
            }
            Ask::Acked(uplink, rows) => self.telemetry.acked(&uplink, &rows),
            Ask::Delivered(key, wh) => self.delivered.take(*key, wh),
            Ask::Wear(device, json) => drop(self.wear.insert(device, json)),
            Ask::Flush(reply) => answer(reply, self.commit()),
            Ask::Stop(reply) => return Next::Stop(reply),
            Ask::History(query, reply) => {
                if self.jobs.len() < JOBS {
                    self.jobs.push_back((HistoryJob::new(*query), reply));
                } else {
                    answer(reply, Err(StoreError::Busy));
                }
            }
            Ask::Held(_)
            | Ask::NotHeld(_)
            | Ask::Baseline(..)
            | Ask::Event(_)
            | Ask::PlanAnswer(_)
            | Ask::OutboxDone(..) => self.write_or_defer(ask),
            Ask::Admit(..)
            | Ask::SaveResult(..)
            | Ask::TellResult(..)
            | Ask::SavePlan(..)
            | Ask::DeletePlan(..)
            | Ask::SetMeta(..) => {
                self.handle_write(ask);
            }
            Ask::DecisionAt(..) | Ask::Decisions(..) | Ask::NotRunning(..) => {
                along::read(ask, &mut self.decisions, &self.runs, &self.conn, &self.clock);
            }
            _ => self.handle_read(ask),
        }
        Next::Go
    }

    fn handle_write(&mut self, ask: Ask) {
        let uplinks = &self.settings.uplinks;
        let mut along = None;
        let go_along = |tx: &Connection| {
            along = Some(Along::write(tx, &self.decisions, &self.runs, &self.clock)?);
            Ok(())
        };
        match ask {
            Ask::Admit(command, reply) => {
                let done = journal::admit(&self.conn, uplinks, &command, self.clock.now(), go_along);
                self.wrote_along(along.filter(|_| done.is_ok()));
                self.reply("writing a command down", done, reply);
                self.announce();
            }
            Ask::SaveResult(result, reply) => {
                let done = journal::save_result(&self.conn, uplinks, &result, go_along);
                self.wrote_along(along.filter(|_| done.is_ok()));
                self.reply("writing a result down", done, reply);
                self.announce();
            }
            Ask::TellResult(result, reply) => {
                let done = journal::tell_result(&self.conn, uplinks, &result);
                self.reply("writing an answer down", done, reply);
                self.announce();
            }
            Ask::SavePlan(plan, reply) => {
                let (id, body, source, at) = &*plan;
                let done = journal::save_plan(&self.conn, id, body, source, *at);
                self.reply("writing a plan down", done, reply);
            }
            Ask::DeletePlan(id, reply) => {
                let done = journal::delete_plan(&self.conn, &id);
                self.reply("deleting a plan", done, reply);
            }
            Ask::SetMeta(key, value, reply) => {
                let done = set_meta(&self.conn, &key, &value);
                self.reply("keeping a value", done, reply);
            }
            _ => {}
        }
    }

    fn handle_read(&mut self, ask: Ask) {
        let conn = &self.conn;
        match ask {
            Ask::OpenCommands(reply) => answer(reply, journal::open_commands(conn).attempt("reading commands")),
            Ask::NewestCommands(limit, reply) => {
                answer(reply, journal::newest_commands(conn, limit).attempt("reading commands"));
            }
            Ask::Plans(reply) => answer(reply, journal::plans(conn).attempt("reading plans")),
            Ask::HeldAll(reply) => answer(reply, journal::held_all(conn).attempt("reading held setpoints")),
            Ask::Wears(reply) => answer(reply, journal::wears(conn).attempt("reading ledgers of writes")),
            Ask::Baselines(reply) => answer(reply, journal::baselines(conn).attempt("reading baselines")),
            Ask::Events(limit, reply) => answer(reply, journal::events(conn, limit).attempt("reading events")),
            Ask::Outbox(uplink, limit, reply) => {
                answer(reply, journal::outbox(conn, &uplink, limit).attempt("reading notices"));
            }
            Ask::Backlog(uplink, below, limit, reply) => {
                let page = self.telemetry.backlog(conn, &uplink, below.0, limit);
                answer(reply, page.attempt("reading unsent telemetry"));
            }
            Ask::BacklogSize(uplink, reply) => {
                let size = self.telemetry.backlog_size(conn, &uplink);
                answer(reply, size.attempt("counting unsent telemetry"));
            }
            Ask::Meta(key, reply) => answer(reply, meta(conn, &key).attempt("reading a kept value")),
            _ => {}
        }
    }

    /// A write that nobody waits for: when the disk does not take it, it is kept and tried again, in order.
    pub(super) fn write_or_defer(&mut self, ask: Ask) {
        if !self.deferred.is_empty() {
            self.defer(ask);
        } else if let Err(ask) = self.try_write(ask) {
            self.defer(ask);
        }
    }

    fn try_write(&mut self, ask: Ask) -> Result<(), Ask> {
        let uplinks = &self.settings.uplinks;
        let conn = &self.conn;
        let done = match &ask {
            Ask::Held(held) => journal::set_held(conn, held),
            Ask::NotHeld(device) => journal::clear_held(conn, device),
            Ask::Baseline(device, json) => journal::set_baseline(conn, device, json),
            Ask::Event(event) => journal::add_event(conn, uplinks, event),
            Ask::PlanAnswer(all) => {
                let (uplink, plan, word) = &**all;
                journal::add_plan_answer(conn, uplinks, uplink, plan, word, self.clock.now())
            }
            Ask::OutboxDone(uplink, ids) => journal::outbox_done(conn, uplink, ids),
            _ => Ok(()),
        };
        let tells = matches!(ask, Ask::Event(_) | Ask::PlanAnswer(_));
        self.due.retry = self.clock.mono().plus(RETRY);
        match done {
            Ok(()) => self.wrote(),
            Err(error) => {
                let _told = self.not_written("writing to the journal", &error);
                return Err(ask);
            }
        }
        if tells {
            self.announce();
        }
        Ok(())
    }

    pub(super) fn defer(&mut self, ask: Ask) {
        if self.deferred.push(ask) {
            tracing::warn!("the disk takes nothing and memory is full: an old event or notice was dropped");
        }
    }

    pub(super) fn retry_deferred(&mut self) {
        while let Some(ask) = self.deferred.pop() {
            if let Err(ask) = self.try_write(ask) {
                self.deferred.put_back(ask);
                return;
            }
        }
    }
}
