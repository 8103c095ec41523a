//! Programs on the wire: what is left to write is written in order, counted, and read back.

use super::guarded::is_urgent;
use super::task::{DeviceTask, JOURNAL_WAIT, URGENT_WAIT};
use super::words::{Checked, Looked, Spend, Trouble, Wrote};
use crate::link::LinkError;
use crate::model::{Demand, Evidence, Held, Severity};
use crate::profile::{Answer, Check, Program, Request};
use std::time::Duration;
use tokio::time::sleep;

impl DeviceTask {
    /// Write a program; `sent`: the journal or the device has learned of it.
    pub(super) async fn write(
        &mut self,
        demand: Demand,
        lease: Duration,
        remember: Option<(Demand, Demand)>,
        spend: Spend,
        sent: &mut bool,
    ) -> Result<Wrote, Trouble> {
        let program = self.driver.program(&demand, lease).map_err(Trouble::Impossible)?;
        let urgent = is_urgent(&demand);
        let writes = self.left(&program, urgent).await?;
        if let Spend::Budget { gap } = spend {
            let into = writes.iter().flat_map(|(_, _, into)| into).filter_map(|n| program.targets.get(*n));
            self.purse.allows(into, gap, &self.clock)?;
        }
        *sent = true;
        self.secure(&demand).await;
        if let Some((demand, on_end)) = remember {
            let wait = if urgent { URGENT_WAIT } else { JOURNAL_WAIT };
            let held = Held { device: self.spec.id.clone(), demand, on_end, since: self.clock.now() };
            self.out.journal(held, wait).await;
        }
        let mut wrote = Wrote { settle: program.settle, refresh: program.refresh, fallback: Vec::new() };
        self.program = Some((demand, program.clone()));
        for (index, request, into) in writes {
            if index == program.fallback && index > 0 {
                wrote.fallback = self.prove_fallback(&program, &demand).await?;
            }
            let answer = self.ask(request).await;
            if !matches!(answer, Err(Trouble::Refused(_))) {
                // Without an answer it may have arrived.
                self.purse.count(into.iter().filter_map(|n| program.targets.get(*n)), &self.clock);
            }
            match answer {
                // On the way back one register that says no must not keep the others from it: the look afterwards judges.
                Err(Trouble::Refused(why)) if demand == Demand::Release => {
                    tracing::debug!(device = %self.spec.id, why, "refused on the way back");
                }
                answer => drop(answer?),
            }
        }
        Ok(wrote)
    }

    /// The device's own fallback must read back before the setpoint that it shall end is written.
    async fn prove_fallback(&self, program: &Program, demand: &Demand) -> Result<Vec<Evidence>, Trouble> {
        let accepted = self.spec.control.accept_no_failsafe || !matches!(demand, Demand::BatteryPower { .. });
        let mut proof = Vec::new();
        for check in program.checks.iter().filter(|c| c.failsafe) {
            let mut checked = self.look_at(check).await?;
            if !checked.ok {
                // Some take their time.
                sleep(program.settle).await;
                checked = self.look_at(check).await?;
            }
            if !checked.ok && !accepted {
                return Err(Trouble::Unsafe(Box::new(checked)));
            }
            proof.push(checked.evidence);
        }
        Ok(proof)
    }

    /// What of a program is to be written, with its place in it and its targets: in flash an equal value is never written
    /// again, so what may wear is looked at first. Not where every moment counts.
    async fn left(&self, program: &Program, urgent: bool) -> Result<Vec<(usize, Request, Vec<usize>)>, Trouble> {
        let mut left = Vec::with_capacity(program.writes.len());
        for (index, request) in program.writes.iter().enumerate() {
            let all = || program.targets.iter().enumerate().filter(|(_, t)| t.write == index).map(|(n, _)| n).collect();
            // What puts the others in force is no equal value as long as one of them is new.
            let is_trigger = program.triggers(index) && !left.is_empty();
            let look = program.look(index).filter(|_| !urgent && !is_trigger && program.wears(index));
            let now = match look {
                None => None,
                Some(look) => match self.ask(look).await {
                    Ok(answer) => Some(answer),
                    // What cannot be read is written.
                    Err(Trouble::Refused(_)) => None,
                    Err(trouble) => return Err(trouble),
                },
            };
            match now {
                None => left.push((index, request.clone(), all())),
                Some(answer) => left.extend(program.left(index, &answer).map(|(request, into)| (index, request, into))),
            }
        }
        Ok(left)
    }

    /// Keep the device's timer running.
    pub(super) async fn refresh(&mut self, demand: Demand, lease: Duration) -> Result<Wrote, Trouble> {
        let program = self.driver.program(&demand, lease).map_err(Trouble::Impossible)?;
        for (index, request) in program.writes.iter().enumerate().filter(|(index, _)| program.is_refreshed(*index)) {
            let answer = self.ask(request.clone()).await;
            if !matches!(answer, Err(Trouble::Refused(_))) {
                self.purse.count(program.targets.iter().filter(|t| t.write == index), &self.clock);
            }
            answer?;
        }
        let wrote = Wrote { settle: program.settle, refresh: program.refresh, fallback: Vec::new() };
        self.program = Some((demand, program));
        Ok(wrote)
    }

    async fn look_at(&self, check: &Check) -> Result<Checked, Trouble> {
        let answer = self.ask(check.read.clone()).await?;
        let verdict = check.judge(&answer);
        Ok(Checked {
            ok: verdict.ok,
            failsafe: check.failsafe,
            evidence: Evidence {
                at: self.clock.now(),
                via: self.link.handle.via().to_owned(),
                address: verdict.address,
                wrote: verdict.wrote,
                read: verdict.read,
            },
        })
    }

    /// A budget that is used up is said once a day.
    pub(super) async fn look_at_budget(&mut self, result: &Result<Wrote, Trouble>) {
        if let Err(Trouble::Spent { why, .. }) = result
            && self.purse.tells_today()
        {
            self.event("write_budget", Severity::Warning, format!("{}: {why}", self.spec.id), true).await;
        }
    }

    /// Hand the ledger on: to the status at once, to the store for its next commit.
    pub(super) fn show_wear(&mut self) {
        let Some((rows, json)) = self.purse.take_news(&self.clock) else { return };
        self.out.status.send_modify(|status| status.wear = rows);
        if let Some(json) = json
            && self.out.store.save_wear(self.spec.id.clone(), json).is_err()
        {
            self.purse.again();
        }
    }

    /// Read back; `None` when a new order came between two reads.
    pub(super) async fn check(&mut self, demand: Demand, lease: Duration) -> Option<Result<Looked, Trouble>> {
        let (checks, refresh) = match &self.program {
            Some((of, program)) if *of == demand => (program.checks.clone(), program.refresh),
            _ => match self.driver.program(&demand, lease) {
                Ok(program) => {
                    let parts = (program.checks.clone(), program.refresh);
                    self.program = Some((demand, program));
                    parts
                }
                Err(why) => return Some(Err(Trouble::Impossible(why))),
            },
        };
        let mut done: Vec<Checked> = Vec::with_capacity(checks.len());
        for check in checks {
            if self.orders.has_changed().unwrap_or(false) {
                return None;
            }
            match self.look_at(&check).await {
                Ok(checked) => done.push(checked),
                Err(trouble) => return Some(Err(trouble)),
            }
        }
        Some(Ok(Looked { checks: done, refresh }))
    }

    async fn ask(&self, request: Request) -> Result<Answer, Trouble> {
        let place = request.to_string();
        self.link.handle.request(request).await.map_err(|error| match error {
            LinkError::Refused(refusal) => Trouble::Refused(format!("{place}: {refusal}")),
            other => Trouble::Unreached(other.to_string()),
        })
    }
}
