//! A device for closed loops: the real driver, the real keeper and the real steps of a program as the task runs them, but
//! synchronous and on a time that is an argument.

use super::apply::Keeper;
use super::perform::{Performer, Tools, carry_out};
use super::purse::Purse;
use super::words::{Do, Effect};
use crate::link::LinkError;
use crate::model::{
    BootId, ClockState, Demand, DeviceSpec, DeviceState, DeviceStatus, Held, Mono, Order, Outcome, Sample, Timestamp,
};
use crate::profile::{Answer, Driver, Program, Refusal, Request, Step};
use crate::runtime::Clock;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
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

    /// Carry out what is due for the order, as the task does it, without waiting.
    pub(crate) fn apply(&mut self, now: Mono, wall: Timestamp, ask: Ask<'_>, out: &mut Vec<Out>) {
        for _ in 0..32 {
            let reachable = if self.is_found { Ok(()) } else { Err("it is being looked for") };
            let (effects, next) = self.keeper.tick(now, reachable);
            self.emit(effects, wall, out);
            if let Do::Rest(until) = next {
                self.rests_until = until;
                return;
            }
            let effects = at_once(carry_out(&mut Hands { bench: self, ask, out }, next));
            self.emit(effects, wall, out);
            self.keep_wear(out);
        }
        panic!("{} does not come to rest", self.spec.id);
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

/// The bench at work, on a wire that answers at once.
struct Hands<'a> {
    bench: &'a mut Bench,
    ask: Ask<'a>,
    out: &'a mut Vec<Out>,
}

impl Performer for Hands<'_> {
    fn tools(&mut self) -> Tools<'_> {
        let Bench { spec, driver, keeper, program, purse, clock, .. } = &mut *self.bench;
        let accepts_no_failsafe = spec.control.accept_no_failsafe;
        Tools { device: &spec.id, accepts_no_failsafe, driver, keeper, program, purse, clock }
    }

    async fn request(&mut self, request: Request) -> Result<Answer, LinkError> {
        (self.ask)(&request)
    }

    fn via(&self) -> &str {
        "test"
    }

    async fn pause(&mut self, _time: Duration) {}

    /// No guard watches over a closed loop.
    async fn secure(&mut self, _demand: &Demand) {}

    async fn journal(&mut self, held: Held, _is_urgent: bool) {
        self.out.push(Out::Held(held));
    }

    fn is_overtaken(&self) -> bool {
        false
    }

    async fn spent(&mut self, _why: &str) {
        self.out.push(Out::Alarm("write_budget"));
    }
}

/// Nothing here waits for anything.
fn at_once<F: Future>(work: F) -> F::Output {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a bench does not wait"),
    }
}
