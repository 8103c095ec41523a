//! The loop of a link.

use super::address::Address;
use super::http::Http;
use super::modbus::Session;
use super::{Counters, LinkError, LinkState, Queue, count, socket};
use crate::profile::{Answer, Pace};
use crate::runtime::{Clock, Exit, Retry, Shutdown};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Sleep, sleep};

/// A device that was switched off is back within seconds of its return: the cap is short, because a dial on the LAN costs
/// one packet.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// The side of a link that does the work.
#[derive(Debug)]
pub struct LinkTask {
    address: Address,
    pace: Pace,
    clock: Clock,
    jobs: Queue,
    state: watch::Sender<LinkState>,
    counters: Arc<Counters>,
    epoch: u64,
    /// Is the present fault in the log already.
    told: bool,
}

/// Why a connection is not served any more.
enum End {
    Exit(Exit),
    Broken(String),
}

impl LinkTask {
    pub(super) fn new(
        address: Address,
        pace: Pace,
        clock: Clock,
        jobs: Queue,
        state: watch::Sender<LinkState>,
        counters: Arc<Counters>,
    ) -> Self {
        Self { address, pace, clock, jobs, state, counters, epoch: 0, told: false }
    }

    /// Connect, serve, reconnect, until the shutdown or until nobody holds a handle.
    pub async fn run(mut self, shutdown: Shutdown) -> Exit {
        let exit = if matches!(self.address, Address::Http { .. }) {
            self.run_http(shutdown).await
        } else {
            self.run_modbus(shutdown).await
        };
        self.state.send_replace(LinkState::Down("derd stops".into()));
        exit
    }

    async fn run_modbus(&mut self, mut shutdown: Shutdown) -> Exit {
        let mut retry = Retry::new(FIRST_RETRY, LAST_RETRY);
        let frame_gap = self.address.frame_gap();
        self.pace.min_gap = self.pace.min_gap.max(frame_gap);
        loop {
            let address = self.address.clone();
            let opened = match self.refusing(&mut shutdown, socket::open(&address)).await {
                Ok(opened) => opened,
                Err(exit) => return exit,
            };
            let why = match opened {
                Ok(stream) => {
                    count(&self.counters.connects);
                    let mut session = Session::new(&self.address, stream, self.pace.timeout);
                    let end = self.serve(&mut session, &mut shutdown).await;
                    // A connection over which nothing was ever answered is no success: a device that another client
                    // holds accepts and closes, for ever.
                    if session.proven {
                        retry.reset();
                    }
                    match end {
                        End::Exit(exit) => return exit,
                        End::Broken(why) => why,
                    }
                }
                Err(why) => why,
            };
            self.went_down(why);
            if let Err(exit) = self.refusing(&mut shutdown, sleep(retry.next_delay())).await {
                return exit;
            }
        }
    }

    /// Serve requests over one connection until it breaks.
    async fn serve(&mut self, session: &mut Session, shutdown: &mut Shutdown) -> End {
        // Some devices drop what comes in the first moments; requests wait that long.
        tokio::select! {
            () = sleep(self.pace.connect_delay) => {}
            () = shutdown.wait() => return End::Exit(Exit::Shutdown),
        }
        self.came_up();
        let mut gap: Option<Sleep> = None;
        loop {
            let job = tokio::select! {
                biased;
                () = shutdown.wait() => return End::Exit(Exit::Shutdown),
                why = session.watch() => return End::Broken(why),
                job = self.jobs.recv() => match job {
                    Some(job) => job,
                    None => return End::Exit(Exit::Orphaned),
                },
            };
            if job.reply.is_abandoned() {
                continue;
            }
            if let Some(gap) = gap.take() {
                gap.await;
            }
            count(&self.counters.requests);
            let asked_at = self.clock.mono();
            let turn = tokio::select! {
                turn = session.ask(&job.request) => turn,
                // Devices were stopped before their links: what is still under way may be dropped.
                () = shutdown.wait() => return End::Exit(Exit::Shutdown),
            };
            self.note(&turn.answer, asked_at);
            if session.proven && turn.broken.is_none() {
                self.works_again();
            }
            job.reply.send(turn.answer);
            if let Some(why) = turn.broken {
                return End::Broken(why);
            }
            gap = (!self.pace.min_gap.is_zero()).then(|| sleep(self.pace.min_gap));
        }
    }

    /// HTTP has no connection to keep: each request is tried, and how the last one went is the state.
    async fn run_http(&mut self, mut shutdown: Shutdown) -> Exit {
        let http = match Http::new(&self.address, self.pace.timeout) {
            Ok(http) => http,
            Err(why) => return Exit::Fatal(format!("{}: {why}", self.address)),
        };
        self.came_up();
        let mut gap: Option<Sleep> = None;
        loop {
            let job = tokio::select! {
                biased;
                () = shutdown.wait() => return Exit::Shutdown,
                job = self.jobs.recv() => match job {
                    Some(job) => job,
                    None => return Exit::Orphaned,
                },
            };
            if job.reply.is_abandoned() {
                continue;
            }
            if let Some(gap) = gap.take() {
                gap.await;
            }
            count(&self.counters.requests);
            let asked_at = self.clock.mono();
            let answer = tokio::select! {
                answer = http.ask(&job.request) => answer,
                () = shutdown.wait() => return Exit::Shutdown,
            };
            self.note(&answer, asked_at);
            match &answer {
                Ok(_) | Err(LinkError::Refused(_)) => {
                    if matches!(*self.state.borrow(), LinkState::Down(_)) {
                        self.came_up();
                        count(&self.counters.connects);
                    }
                    self.works_again();
                }
                Err(error) => self.went_down(error.to_string()),
            }
            job.reply.send(answer);
            gap = (!self.pace.min_gap.is_zero()).then(|| sleep(self.pace.min_gap));
        }
    }

    /// Wait for `until` while requests fail at once.
    async fn refusing<T>(&mut self, shutdown: &mut Shutdown, until: impl Future<Output = T>) -> Result<T, Exit> {
        let mut until = std::pin::pin!(until);
        loop {
            tokio::select! {
                biased;
                () = shutdown.wait() => return Err(Exit::Shutdown),
                done = &mut until => return Ok(done),
                job = self.jobs.recv() => match job {
                    Some(job) => {
                        let why = match &*self.state.borrow() {
                            LinkState::Down(why) => why.clone(),
                            _ => format!("connecting to {}", self.address),
                        };
                        job.reply.send(Err(LinkError::Down(why)));
                    }
                    None => return Err(Exit::Orphaned),
                },
            }
        }
    }

    fn came_up(&mut self) {
        self.epoch += 1;
        let epoch = self.epoch;
        self.state.send_replace(LinkState::Up { epoch });
    }

    fn went_down(&mut self, why: String) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(link = %self.address, "link down: {why}");
        }
        let down = LinkState::Down(why);
        self.state.send_if_modified(|state| {
            let changed = *state != down;
            *state = down;
            changed
        });
    }

    fn works_again(&mut self) {
        if std::mem::replace(&mut self.told, false) {
            tracing::info!(link = %self.address, "link works again");
        }
    }

    fn note(&self, answer: &Result<Answer, LinkError>, asked_at: crate::model::Mono) {
        match answer {
            Ok(_) => {}
            Err(LinkError::Refused(_)) => count(&self.counters.refusals),
            Err(LinkError::Timeout(_)) => return count(&self.counters.timeouts),
            Err(_) => return count(&self.counters.errors),
        }
        let took = self.clock.mono().since(asked_at).as_millis();
        self.counters.last_latency_ms.store(u64::try_from(took).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
