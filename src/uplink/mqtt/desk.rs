//! What is asked of the store: one thing at a time, the urgent first.

use super::task::Core;
use crate::model::Timestamp;
use crate::store::{BacklogPage, OutboxItem, StoreError};
use std::future::Future;
use std::pin::Pin;

/// Done samples are told to the store when there are so many, or after a moment.
const TELL_AT: usize = 64;

/// The store's answer.
pub(super) enum Answer {
    Told(Result<(), StoreError>),
    Outbox(Result<Vec<OutboxItem>, StoreError>),
    Page(Result<BacklogPage, StoreError>),
    Size(Result<(u64, Option<Timestamp>), StoreError>),
}

type Request = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// The one request that is under way. Requests are never dropped half way, so nothing that was taken out of a queue is lost.
#[derive(Default)]
pub(super) struct Desk {
    under_way: Option<Request>,
    /// Tell what is done now, however little it is.
    pub(super) tell_now: bool,
    /// The size of the backlog is wanted.
    pub(super) wants_size: bool,
    /// The store failed: leave it alone for a moment.
    pub(super) rests: bool,
}

impl Desk {
    /// Begin the next request, unless one is under way. `may_page`: there is room for more backlog.
    pub(super) fn begin(&mut self, core: &mut Core, may_page: bool) {
        if self.rests {
            return;
        }
        self.begin_telling(core);
        if self.under_way.is_some() {
            return;
        }
        let store = core.parts.store.clone();
        let name = core.parts.settings.name.clone();
        if let Some(limit) = core.outbox.ask() {
            self.put(async move { Answer::Outbox(store.outbox(name, limit).await) });
        } else if let Some((below, limit)) = Some(()).filter(|()| may_page).and_then(|()| core.telemetry.ask()) {
            self.put(async move { Answer::Page(store.backlog(name, below, limit).await) });
        } else if std::mem::take(&mut self.wants_size) {
            self.put(async move { Answer::Size(store.backlog_size(name).await) });
        }
    }

    /// Begin the next request that tells the store something, unless one is under way.
    pub(super) fn begin_telling(&mut self, core: &mut Core) {
        if self.under_way.is_some() {
            return;
        }
        let store = core.parts.store.clone();
        let name = core.parts.settings.name.clone();
        let done_notices = core.outbox.take_done();
        if !done_notices.is_empty() {
            self.put(async move { Answer::Told(store.outbox_done(name, done_notices).await) });
        } else if let Some(event) = core.events.pop_front() {
            self.put(async move { Answer::Told(store.event(event).await) });
        } else if core.telemetry.done_count() >= TELL_AT || (self.tell_now && core.telemetry.done_count() > 0) {
            self.tell_now = false;
            let rows = core.telemetry.take_done();
            self.put(async move { Answer::Told(store.acked(name, rows).await) });
        }
    }

    fn put(&mut self, request: impl Future<Output = Answer> + Send + 'static) {
        self.under_way = Some(Box::pin(request));
    }

    pub(super) const fn is_idle(&self) -> bool {
        self.under_way.is_none()
    }

    /// The answer. Never returns while nothing is under way. May be dropped at any time.
    pub(super) async fn answer(&mut self) -> Answer {
        let answer = super::task::optional(&mut self.under_way).await;
        self.under_way = None;
        answer
    }
}
