//! Programs on the wire: what is left to write is written in order, counted, and read back. The steps are here once, for the
//! task and for the closed loops of tests; what they are carried out with is a [`Performer`].

use super::apply::Keeper;
use super::guarded::is_urgent;
use super::purse::Purse;
use super::task::{DeviceTask, JOURNAL_WAIT, URGENT_WAIT};
use super::words::{Checked, Do, Effect, Looked, Spend, Trouble, Wrote};
use crate::link::LinkError;
use crate::model::{Demand, DeviceId, Evidence, Held, Severity};
use crate::profile::{Answer, Check, Driver, Program, Request};
use crate::runtime::Clock;
use std::time::Duration;
use tokio::time::sleep;

/// What a program is carried out with.
pub(super) trait Performer {
    fn tools(&mut self) -> Tools<'_>;

    async fn request(&mut self, request: Request) -> Result<Answer, LinkError>;

    /// For the proof: `modbus` or `http`.
    fn via(&self) -> &str;

    async fn pause(&mut self, time: Duration);

    /// The device may hold `demand` from now on: what happens to it when derd is gone.
    async fn secure(&mut self, demand: &Demand);

    /// The same for the next start; `is_urgent`: without waiting.
    async fn journal(&mut self, held: Held, is_urgent: bool);

    /// Has a new order come, for which a look is given up.
    fn is_overtaken(&self) -> bool;

    /// The first time today that the budget of writes is used up: why.
    async fn spent(&mut self, why: &str);
}

/// What both performers own.
pub(super) struct Tools<'a> {
    pub(super) device: &'a DeviceId,
    /// May a setpoint be written although the device's own fallback does not read back.
    pub(super) accepts_no_failsafe: bool,
    pub(super) driver: &'a Driver,
    pub(super) keeper: &'a mut Keeper,
    /// The program that was written last: its checks are what must read back.
    pub(super) program: &'a mut Option<(Demand, Program)>,
    pub(super) purse: &'a mut Purse,
    pub(super) clock: &'a Clock,
}

impl Performer for DeviceTask {
    fn tools(&mut self) -> Tools<'_> {
        Tools {
            device: &self.spec.id,
            accepts_no_failsafe: self.spec.control.accept_no_failsafe,
            driver: &self.driver,
            keeper: &mut self.keeper,
            program: &mut self.program,
            purse: &mut self.purse,
            clock: &self.clock,
        }
    }

    async fn request(&mut self, request: Request) -> Result<Answer, LinkError> {
        self.link.handle.request(request).await
    }

    fn via(&self) -> &str {
        self.link.handle.via()
    }

    async fn pause(&mut self, time: Duration) {
        sleep(time).await;
    }

    async fn secure(&mut self, demand: &Demand) {
        self.write_will(demand).await;
    }

    async fn journal(&mut self, held: Held, is_urgent: bool) {
        self.out.journal(held, if is_urgent { URGENT_WAIT } else { JOURNAL_WAIT }).await;
    }

    fn is_overtaken(&self) -> bool {
        self.orders.has_changed().unwrap_or(false)
    }

    async fn spent(&mut self, why: &str) {
        self.event("write_budget", Severity::Warning, format!("{}: {why}", self.spec.id), true).await;
    }
}

/// Carry out what the keeper wants, and let it judge what came of it.
pub(super) async fn carry_out<P: Performer>(p: &mut P, next: Do) -> Vec<Effect> {
    match next {
        Do::Rest(_) => Vec::new(),
        Do::Write { demand, lease, remember, spend } => {
            let mut sent = false;
            let result = write(p, demand, lease, remember, spend, &mut sent).await;
            if let Err(Trouble::Spent { why, .. }) = &result
                && p.tools().purse.tells_today()
            {
                p.spent(why).await;
            }
            let Tools { keeper, clock, .. } = p.tools();
            if !sent {
                keeper.unsent();
            }
            keeper.wrote(clock.mono(), result)
        }
        Do::Refresh { demand, lease } => {
            let result = refresh(p, demand, lease).await;
            let Tools { keeper, clock, .. } = p.tools();
            keeper.wrote(clock.mono(), result)
        }
        Do::Check { demand, lease } => {
            p.secure(&demand).await;
            let Some(result) = check(p, demand, lease).await else { return Vec::new() };
            let Tools { keeper, clock, .. } = p.tools();
            keeper.checked(clock.mono(), result)
        }
    }
}

/// Write a program; `sent`: the journal or the device has learned of it.
async fn write<P: Performer>(
    p: &mut P,
    demand: Demand,
    lease: Duration,
    remember: Option<(Demand, Demand)>,
    spend: Spend,
    sent: &mut bool,
) -> Result<Wrote, Trouble> {
    let program = p.tools().driver.program(&demand, lease).map_err(Trouble::Impossible)?;
    let urgent = is_urgent(&demand);
    let writes = left(p, &program, urgent).await?;
    let Tools { device, purse, clock, .. } = p.tools();
    if let Spend::Budget { gap } = spend {
        let into = writes.iter().flat_map(|(_, _, into)| into).filter_map(|n| program.targets.get(*n));
        purse.allows(into, gap, clock)?;
    }
    *sent = true;
    let since = clock.now();
    let held = remember.map(|(demand, on_end)| Held { device: device.clone(), demand, on_end, since });
    p.secure(&demand).await;
    if let Some(held) = held {
        p.journal(held, urgent).await;
    }
    let mut wrote = Wrote { settle: program.settle, refresh: program.refresh, fallback: Vec::new() };
    *p.tools().program = Some((demand, program.clone()));
    for (index, request, into) in writes {
        if index == program.fallback && index > 0 {
            wrote.fallback = prove_fallback(p, &program, &demand).await?;
        }
        let answer = ask(p, request).await;
        let Tools { device, purse, clock, .. } = p.tools();
        if !matches!(answer, Err(Trouble::Refused(_))) {
            // Without an answer it may have arrived.
            purse.count(into.iter().filter_map(|n| program.targets.get(*n)), clock);
        }
        match answer {
            // On the way back one register that says no must not keep the others from it: the look afterwards judges.
            Err(Trouble::Refused(why)) if demand == Demand::Release => {
                tracing::debug!(%device, why, "refused on the way back");
            }
            answer => drop(answer?),
        }
    }
    Ok(wrote)
}

/// The device's own fallback must read back before the setpoint that it shall end is written.
async fn prove_fallback<P: Performer>(p: &mut P, program: &Program, demand: &Demand) -> Result<Vec<Evidence>, Trouble> {
    let accepted = p.tools().accepts_no_failsafe || !matches!(demand, Demand::BatteryPower { .. });
    let mut proof = Vec::new();
    for check in program.checks.iter().filter(|c| c.failsafe) {
        let mut checked = look_at(p, check).await?;
        if !checked.ok {
            // Some take their time.
            p.pause(program.settle).await;
            checked = look_at(p, check).await?;
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
async fn left<P: Performer>(
    p: &mut P,
    program: &Program,
    urgent: bool,
) -> Result<Vec<(usize, Request, Vec<usize>)>, Trouble> {
    let mut left = Vec::with_capacity(program.writes.len());
    for (index, request) in program.writes.iter().enumerate() {
        let all = || program.targets.iter().enumerate().filter(|(_, t)| t.write == index).map(|(n, _)| n).collect();
        // What puts the others in force is no equal value as long as one of them is new.
        let is_trigger = program.triggers(index) && !left.is_empty();
        let look = program.look(index).filter(|_| !urgent && !is_trigger && program.wears(index));
        let now = match look {
            None => None,
            Some(look) => match ask(p, look).await {
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
async fn refresh<P: Performer>(p: &mut P, demand: Demand, lease: Duration) -> Result<Wrote, Trouble> {
    let program = p.tools().driver.program(&demand, lease).map_err(Trouble::Impossible)?;
    for (index, request) in program.writes.iter().enumerate().filter(|(index, _)| program.is_refreshed(*index)) {
        let answer = ask(p, request.clone()).await;
        if !matches!(answer, Err(Trouble::Refused(_))) {
            let Tools { purse, clock, .. } = p.tools();
            purse.count(program.targets.iter().filter(|t| t.write == index), clock);
        }
        answer?;
    }
    let wrote = Wrote { settle: program.settle, refresh: program.refresh, fallback: Vec::new() };
    *p.tools().program = Some((demand, program));
    Ok(wrote)
}

/// Read back; `None` when a new order came between two reads.
async fn check<P: Performer>(p: &mut P, demand: Demand, lease: Duration) -> Option<Result<Looked, Trouble>> {
    let Tools { program, driver, .. } = p.tools();
    let (checks, refresh) = match program {
        Some((of, program)) if *of == demand => (program.checks.clone(), program.refresh),
        _ => match driver.program(&demand, lease) {
            Ok(new) => {
                let parts = (new.checks.clone(), new.refresh);
                *program = Some((demand, new));
                parts
            }
            Err(why) => return Some(Err(Trouble::Impossible(why))),
        },
    };
    let mut done: Vec<Checked> = Vec::with_capacity(checks.len());
    for check in checks {
        if p.is_overtaken() {
            return None;
        }
        match look_at(p, &check).await {
            Ok(checked) => done.push(checked),
            Err(trouble) => return Some(Err(trouble)),
        }
    }
    Some(Ok(Looked { checks: done, refresh }))
}

async fn look_at<P: Performer>(p: &mut P, check: &Check) -> Result<Checked, Trouble> {
    let answer = ask(p, check.read.clone()).await?;
    let verdict = check.judge(&answer);
    let via = p.via().to_owned();
    let evidence =
        Evidence { at: p.tools().clock.now(), via, address: verdict.address, wrote: verdict.wrote, read: verdict.read };
    Ok(Checked { ok: verdict.ok, failsafe: check.failsafe, evidence })
}

async fn ask<P: Performer>(p: &mut P, request: Request) -> Result<Answer, Trouble> {
    let place = request.to_string();
    p.request(request).await.map_err(|error| match error {
        LinkError::Refused(refusal) => Trouble::Refused(format!("{place}: {refusal}")),
        other => Trouble::Unreached(other.to_string()),
    })
}

impl DeviceTask {
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
}
