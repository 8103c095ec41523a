//! One task per physical endpoint: Modbus TCP, Modbus RTU (serial or over TCP), HTTP. It serialises the requests of all
//! devices behind the endpoint over one connection, paces them, and reconnects by itself for ever.
//!
//! Every request gets exactly one answer. While there is no connection requests fail at once: a poll or a setpoint that
//! waits in a queue for a device to come back would act on a world that is gone.
//!
//! The requests wait in two queues of 16, writes before reads; when one is full the asking device waits, and its poll slips.

mod address;
mod http;
mod modbus;
mod socket;
mod task;

#[cfg(test)]
mod tests;

pub use address::{Address, LinkUrlError, Parity};
pub use task::LinkTask;

use crate::profile::{Answer, Pace, Refusal, Request};
use crate::runtime::Clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, oneshot, watch};

/// Requests that may wait: two polls of a well-filled bus. More would only be late.
const QUEUE: usize = 16;

/// How a link stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// It has not been tried yet.
    Connecting,
    /// It works, as far as is known. `epoch` grows with each (re)connect: whoever sees a new one looks at its device anew.
    Up {
        /// Number of this connection.
        epoch: u64,
    },
    /// It does not work: why. It is being tried again.
    Down(String),
}

/// Why a request has no answer, sorted by what it means for the asker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The device answered, and its answer is no. The connection is good.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The endpoint is there and the device is silent. What was asked may have been done or not.
    #[error("{0}")]
    Timeout(String),
    /// There is no connection, or it broke during the request.
    #[error("{0}")]
    Down(String),
    /// The queue is full and the asker did not want to wait.
    #[error("the link is busy")]
    Busy,
    /// The link's task has ended.
    #[error("the link has stopped")]
    Shutdown,
}

/// What a link has done since start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkStats {
    /// Requests sent.
    pub requests: u64,
    /// Requests without an answer in time.
    pub timeouts: u64,
    /// Requests answered with a refusal.
    pub refusals: u64,
    /// Requests that failed with the connection.
    pub errors: u64,
    /// Connections made.
    pub connects: u64,
    /// Time that the last answer took, ms.
    pub last_latency_ms: u64,
}

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    timeouts: AtomicU64,
    refusals: AtomicU64,
    errors: AtomicU64,
    connects: AtomicU64,
    last_latency_ms: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The promise to answer one request: dropping it answers too, so no asker ever hangs.
#[derive(Debug)]
pub(crate) struct Reply(Option<oneshot::Sender<Result<Answer, LinkError>>>);

impl Reply {
    /// Give the answer. An asker that has gone away does not need it.
    pub(crate) fn send(mut self, answer: Result<Answer, LinkError>) {
        if let Some(tx) = self.0.take() {
            let _asker_gone = tx.send(answer).is_err();
        }
    }

    /// Has the asker gone away.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.0.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(tx) = self.0.take() {
            let _asker_gone = tx.send(Err(LinkError::Shutdown)).is_err();
        }
    }
}

/// One request on its way.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) request: Request,
    pub(crate) reply: Reply,
}

/// What waits for the link: a setpoint never stands behind the polls of other devices.
#[derive(Debug)]
pub(crate) struct Queue {
    writes: mpsc::Receiver<Job>,
    reads: mpsc::Receiver<Job>,
}

impl Queue {
    /// The next job; `None` when nobody holds a handle.
    pub(crate) async fn recv(&mut self) -> Option<Job> {
        tokio::select! {
            biased;
            Some(job) = self.writes.recv() => Some(job),
            job = self.reads.recv() => job,
        }
    }
}

/// A link as seen by devices. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LinkHandle {
    jobs: mpsc::Sender<Job>,
    /// Writes overtake the reads of other devices.
    writes: mpsc::Sender<Job>,
    state: watch::Receiver<LinkState>,
    counters: Arc<Counters>,
    via: &'static str,
    pace: Pace,
}

impl LinkHandle {
    /// Ask, and wait for the answer: at most for the requests in front, this one's own timeout and the pauses between.
    /// A request whose future is dropped before its turn is not sent.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn request(&self, request: Request) -> Result<Answer, LinkError> {
        let (tx, rx) = oneshot::channel();
        let lane = if request.is_write() { &self.writes } else { &self.jobs };
        lane.send(Job { request, reply: Reply(Some(tx)) }).await.map_err(|_| LinkError::Shutdown)?;
        rx.await.map_err(|_| LinkError::Shutdown)?
    }

    /// How the link stands, and each change of it.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }

    /// What it has done since start.
    #[must_use]
    pub fn stats(&self) -> LinkStats {
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        LinkStats {
            requests: get(&self.counters.requests),
            timeouts: get(&self.counters.timeouts),
            refusals: get(&self.counters.refusals),
            errors: get(&self.counters.errors),
            connects: get(&self.counters.connects),
            last_latency_ms: get(&self.counters.last_latency_ms),
        }
    }

    /// `modbus` or `http`: how evidence names the way.
    #[must_use]
    pub const fn via(&self) -> &'static str {
        self.via
    }

    /// How gently it asks.
    #[must_use]
    pub const fn pace(&self) -> Pace {
        self.pace
    }

    /// A handle whose requests are answered by a test, and the other side of it.
    #[cfg(test)]
    pub(crate) fn double(via: &'static str) -> (Self, mpsc::Receiver<Job>, watch::Sender<LinkState>) {
        let (jobs, asked) = mpsc::channel(QUEUE);
        let (state, seen) = watch::channel(LinkState::Up { epoch: 1 });
        let pace = Pace::default();
        (Self { writes: jobs.clone(), jobs, state: seen, counters: Arc::default(), via, pace }, asked, state)
    }
}

/// A link for `url` (see [`Address::parse`]), paced by `pace`: on a shared link that of its slowest profile ([`slowest`]).
/// Nothing is opened before the task runs.
///
/// # Errors
/// [`LinkUrlError`]: what is wrong with `url`, and what is right.
pub fn create(url: &str, pace: Pace, clock: Clock) -> Result<(LinkHandle, LinkTask), LinkUrlError> {
    let address = Address::parse(url)?;
    let (jobs, asked) = mpsc::channel(QUEUE);
    let (writes, to_write) = mpsc::channel(QUEUE);
    let (state, seen) = watch::channel(LinkState::Connecting);
    let counters = Arc::new(Counters::default());
    let via = if matches!(address, Address::Http { .. }) { "http" } else { "modbus" };
    let task =
        LinkTask::new(address, pace, clock, Queue { writes: to_write, reads: asked }, state, Arc::clone(&counters));
    Ok((LinkHandle { jobs, writes, state: seen, counters, via, pace }, task))
}

/// The pace that suits both.
#[must_use]
pub fn slowest(a: Pace, b: Pace) -> Pace {
    Pace {
        min_gap: a.min_gap.max(b.min_gap),
        timeout: a.timeout.max(b.timeout),
        connect_delay: a.connect_delay.max(b.connect_delay),
    }
}
