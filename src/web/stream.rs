//! `GET /api/v1/stream`: server-sent events.
//!
//! One status text is made per second for all listeners together, and none while nobody listens. Beside it goes `why`, each
//! device's sentence, when one has changed.

use super::error::Fault;
use super::routes::App;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::Duration;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::WatchStream;

/// Listeners at once: every open page of the household, and some dashboards.
pub(super) const MAX_LISTENERS: usize = 16;
/// No device has a sentence.
pub(super) const NONE: &str = "{}";
/// A comment this often when nothing changes, so that either side notices a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) fn stream(State(app): State<App>) -> Ready<Result<Response, Fault>> {
    ready(open(&app))
}

fn open(app: &App) -> Result<Response, Fault> {
    let Ok(seat) = Arc::clone(&app.listeners).try_acquire_owned() else {
        return Err(Fault::busy(format!("{MAX_LISTENERS} live streams are open already: close one")));
    };
    let [texts, sentences] = app.listen_stream();
    // An empty text is the end.
    let texts = WatchStream::new(texts).map(|text| ("status", text));
    let sentences = WatchStream::new(sentences).filter(|text| &**text != NONE).map(|text| ("why", text));
    let events = texts.merge(sentences).take_while(|(_, text)| !text.is_empty()).map(move |(event, text)| {
        // The seat is free again when the stream is dropped.
        let _held = &seat;
        Ok::<_, Infallible>(Event::default().event(event).data(&*text))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}
