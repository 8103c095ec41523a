//! `GET /api/v1/stream`: server-sent events.
//!
//! One status text is made per second for all listeners together, and none while nobody listens.

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
/// A comment this often when nothing changes, so that either side notices a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) fn stream(State(app): State<App>) -> Ready<Result<Response, Fault>> {
    ready(open(&app))
}

fn open(app: &App) -> Result<Response, Fault> {
    let Ok(seat) = Arc::clone(&app.listeners).try_acquire_owned() else {
        return Err(Fault::busy(format!("{MAX_LISTENERS} live streams are open already: close one")));
    };
    let texts = app.listen_stream();
    // An empty text is the end.
    let events = WatchStream::new(texts).take_while(|text| !text.is_empty()).map(move |text| {
        // The seat is free again when the stream is dropped.
        let _held = &seat;
        Ok::<_, Infallible>(Event::default().event("status").data(&*text))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}
