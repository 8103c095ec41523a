//! A device for closed loops: the real driver and the real keeper as the task runs them, but synchronous and on a time
//! that is an argument.

use super::apply::Keeper;
use super::purse::Purse;
use super::words::{Checked, Do, Effect, Looked, Spend, Trouble, Wrote};
use crate::link::LinkError;
use crate::model::{
    BootId, ClockState, Demand, DeviceSpec, DeviceState, DeviceStatus, Evidence, Held, Mono, Order, Outcome, Sample,
    Timestamp,
};
use crate::profile::{Answer, Check, Driver, Program, Refusal, Request, Step};
use crate::runtime::Clock;
use std::sync::Arc;
use std::time::Duration;

/// What a turn brought.
#[derive(Debug)]
pub(crate) enum Out {
    Sample(Arc<Sample>),
    Outcome(Outcome),
    Held(Held),
    NotHeld,
    Baseline(String),
    Wear(String),
    Status(DeviceStatus),
    Alarm(&'static str),
}

pub(crate) type Ask<'a> = &'a mut dyn FnMut(&Request) -> Result<Answer, LinkError>;

/// One device without its task.
#[derive(Debug)]
pub(crate) struct Bench {
    spec: DeviceSpec,
    driver: Driver,
    keeper: Keeper,
    purse: Purse,
    clock: Clock,
    baseline: Option<String>,
    program: Option<(Demand, Program)>,
    is_found: bool,
    silent: u32,
    seq: u64,
    boot: BootId,
    status: DeviceStatus,
    /// Nothing to do for the order before this, unless a new one comes.
    pub(crate) rests_until: Option<Mono>,
}

impl Bench {
    pub(crate) fn new(
        spec: DeviceSpec,
        driver: Driver,
        held: Option<&Held>,
        baseline: Option<String>,
        wear: Option<&str>,
        boot: u64,
        clock: &Clock,
    ) -> Self {
        Self {
            purse: Purse::new(wear, spec.control.flash_writes_per_day, clock),
            clock: clock.clone(),
            keeper: Keeper::new(spec.clone(), held.map(|h| (h.demand, h.on_end))),
            spec,
            driver,
            baseline,
            program: None,
            is_found: false,
            silent: 0,
            seq: 0,
            boot: BootId::new(&format!("{boot:x}")).unwrap(),
            status: DeviceStatus::default(),
            rests_until: Some(Mono::default()),
        }
    }

    pub(crate) fn order(&mut self, order: Order) {
        self.keeper.set_order(order);
        self.rests_until = Some(Mono::default());
    }

    /// Carry out what is due for the order.
    pub(crate) fn apply(&mut self, now: Mono, wall: Timestamp, ask: Ask<'_>, out: &mut Vec<Out>) {
        for _ in 0..32 {
            let reachable = if self.is_found { Ok(()) } else { Err("it is being looked for") };
            let (effects, next) = self.keeper.tick(now, reachable);
            self.emit(effects, wall, out);
            match next {
                Do::Rest(until) => {
                    self.rests_until = until;
                    return;
                }
                Do::Write { demand, lease, remember, spend } => {
                    let mut is_sent = false;
                    let result = self.write((demand, lease), remember, spend, &mut is_sent, wall, ask, out);
                    if !is_sent {
                        self.keeper.unsent();
                    }
                    if let Err(Trouble::Spent { .. }) = &result
                        && self.purse.tells_today()
                    {
                        out.push(Out::Alarm("write_budget"));
                    }
                    let effects = self.keeper.wrote(now, result);
                    self.emit(effects, wall, out);
                    self.keep_wear(out);
                }
                Do::Refresh { demand, lease } => {
                    let result = self.refresh(demand, lease, ask);
                    let effects = self.keeper.wrote(now, result);
                    self.emit(effects, wall, out);
                    self.keep_wear(out);
                }
                Do::Check { demand, lease } => {
                    let program = match self.program.take() {
                        Some((of, program)) if of == demand => Ok(program),
                        _ => self.driver.program(&demand, lease).map_err(Trouble::Impossible),
                    };
                    let result = program.and_then(|program| {
                        let checks = program.checks.iter().map(|check| look_at(check, wall, ask));
                        let checks = checks.collect::<Result<Vec<_>, Trouble>>()?;
                        let refresh = program.refresh;
                        self.program = Some((demand, program));
                        Ok(Looked { checks, refresh })
                    });
                    let effects = self.keeper.checked(now, result);
                    self.emit(effects, wall, out);
                }
            }
        }
        panic!("{} does not come to rest", self.spec.id);
    }

    /// As the task does it, without waiting.
    #[expect(clippy::too_many_arguments, reason = "what the task has in its fields")]
    fn write(
        &mut self,
        (demand, lease): (Demand, Duration),
        remember: Option<(Demand, Demand)>,
        spend: Spend,
        is_sent: &mut bool,
        wall: Timestamp,
        ask: Ask<'_>,
        out: &mut Vec<Out>,
    ) -> Result<Wrote, Trouble> {
        let program = self.driver.program(&demand, lease).map_err(Trouble::Impossible)?;
        let is_urgent = matches!(demand, Demand::ChargerOff)
            || matches!(demand, Demand::BatteryPower { watts, .. } if watts == 0.0);
        let mut left = Vec::new();
        for (index, request) in program.writes.iter().enumerate() {
            let all: Vec<usize> =
                program.targets.iter().enumerate().filter(|(_, t)| t.write == index).map(|(n, _)| n).collect();
            let is_trigger = program.triggers(index) && !left.is_empty();
            let look = program.look(index).filter(|_| !is_urgent && !is_trigger && program.wears(index));
            match look.map(|look| ask(&look)).transpose() {
                Ok(None) | Err(LinkError::Refused(_)) => left.push((index, request.clone(), all)),
                Ok(Some(answer)) => left.extend(program.left(index, &answer).map(|(r, into)| (index, r, into))),
                Err(error) => return Err(trouble(error)),
            }
        }
        if let Spend::Budget { gap } = spend {
            let into = left.iter().flat_map(|(_, _, into)| into).filter_map(|n| program.targets.get(*n));
            self.purse.allows(into, gap, &self.clock)?;
        }
        *is_sent = true;
        if let Some((demand, on_end)) = remember {
            out.push(Out::Held(Held { device: self.spec.id.clone(), demand, on_end, since: wall }));
        }
        let mut wrote = Wrote { settle: program.settle, refresh: program.refresh, fallback: Vec::new() };
        self.program = Some((demand, program.clone()));
        for (index, request, into) in left {
            if index == program.fallback && index > 0 {
                for check in program.checks.iter().filter(|c| c.failsafe) {
                    wrote.fallback.push(look_at(check, wall, ask)?.evidence);
                }
            }
            let answer = ask(&request);
            if !matches!(answer, Err(LinkError::Refused(_))) {
                self.purse.count(into.iter().filter_map(|n| program.targets.get(*n)), &self.clock);
            }
            answer.map_err(trouble)?;
        }
        Ok(wrote)
    }

    fn refresh(&mut self, demand: Demand, lease: Duration, ask: Ask<'_>) -> Result<Wrote, Trouble> {
        let program = self.driver.program(&demand, lease).map_err(Trouble::Impossible)?;
        for (index, request) in program.writes.iter().enumerate().filter(|(index, _)| program.is_refreshed(*index)) {
            ask(request).map_err(trouble)?;
            self.purse.count(program.targets.iter().filter(|t| t.write == index), &self.clock);
        }
        let wrote = Wrote { settle: program.settle, refresh: program.refresh, fallback: Vec::new() };
        self.program = Some((demand, program));
        Ok(wrote)
    }

    fn keep_wear(&mut self, out: &mut Vec<Out>) {
        if let Some((_, Some(json))) = self.purse.take_news(&self.clock) {
            out.push(Out::Wear(json));
        }
    }

    /// Read it, or find it first.
    pub(crate) fn poll(&mut self, now: Mono, wall: Timestamp, clock: ClockState, ask: Ask<'_>, out: &mut Vec<Out>) {
        if !self.is_found && !self.find(now, ask, out) {
            return;
        }
        let mut answers = Vec::new();
        for read in self.driver.reads().to_vec() {
            match ask(&read) {
                Ok(answer) => answers.push(Ok(answer)),
                Err(LinkError::Refused(refusal)) => answers.push(Err(refusal)),
                Err(_) => {
                    self.silent += 1;
                    if self.silent >= 3 {
                        self.is_found = false;
                        self.keeper.lost();
                        self.set_state(DeviceState::Offline, out);
                    }
                    return;
                }
            }
        }
        let points = self.driver.decode(&answers);
        self.silent = 0;
        let (device, boot) = (self.spec.id.clone(), self.boot.clone());
        out.push(Out::Sample(Arc::new(Sample { device, ts: wall, mono: now, boot, seq: self.seq, clock, points })));
        self.seq += 1;
        self.set_state(DeviceState::Online, out);
    }

    fn set_state(&mut self, state: DeviceState, out: &mut Vec<Out>) {
        if self.status.state != state {
            self.status.state = state;
            out.push(Out::Status(self.status.clone()));
        }
    }

    fn find(&mut self, now: Mono, ask: Ask<'_>, out: &mut Vec<Out>) -> bool {
        let mut step = self.driver.begin();
        while let Step::Ask(request) = step {
            let answer = match ask(&request) {
                Ok(answer) => Ok(answer),
                Err(LinkError::Refused(refusal)) => Err(refusal),
                Err(_) => return false,
            };
            step = self.driver.resume(answer);
        }
        assert_eq!(step, Step::Ready, "{}", self.spec.id);
        if let Some(json) = &self.baseline {
            self.driver.set_baseline(json).unwrap();
        } else if self.spec.control.enabled && !self.keeper.holds_something() {
            let answers: Vec<Result<Answer, Refusal>> =
                self.driver.baseline_reads().iter().map(|r| Ok(ask(r).unwrap())).collect();
            let json = self.driver.take_baseline(&answers).unwrap();
            self.driver.set_baseline(&json).unwrap();
            self.baseline = Some(json.clone());
            out.push(Out::Baseline(json));
        }
        self.is_found = true;
        self.status.capabilities = self.driver.capabilities().clone();
        self.status.info = self.driver.info().clone();
        self.keeper.found(now, self.status.capabilities.failsafe);
        self.rests_until = Some(Mono::default());
        out.push(Out::Status(self.status.clone()));
        true
    }

    fn emit(&self, effects: Vec<Effect>, wall: Timestamp, out: &mut Vec<Out>) {
        for effect in effects {
            out.push(match effect {
                Effect::Outcome { cause, demand, stage, evidence } => {
                    Out::Outcome(Outcome { device: self.spec.id.clone(), cause, demand, at: wall, stage, evidence })
                }
                Effect::NotHeld => Out::NotHeld,
                Effect::Remember(demand, on_end) => {
                    Out::Held(Held { device: self.spec.id.clone(), demand, on_end, since: wall })
                }
                Effect::Alarm { code, .. } => Out::Alarm(code),
            });
        }
    }
}

fn look_at(check: &Check, wall: Timestamp, ask: Ask<'_>) -> Result<Checked, Trouble> {
    let verdict = check.judge(&ask(&check.read).map_err(trouble)?);
    let evidence =
        Evidence { at: wall, via: "test".into(), address: verdict.address, wrote: verdict.wrote, read: verdict.read };
    Ok(Checked { ok: verdict.ok, failsafe: check.failsafe, evidence })
}

fn trouble(error: LinkError) -> Trouble {
    match error {
        LinkError::Refused(refusal) => Trouble::Refused(refusal.to_string()),
        other => Trouble::Unreached(other.to_string()),
    }
}
