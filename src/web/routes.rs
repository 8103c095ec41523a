//! The one list of paths, and what every handler may use.

use super::auth::Login;
use super::chart::Charts;
use super::error::Fault;
use super::stream::MAX_LISTENERS;
use super::{WebParts, api, chart, guard, page, stream};
use crate::command::CommandHandle;
use crate::device::Accept;
use crate::model::{DeviceId, DeviceSpec};
use crate::observe::Board;
use crate::runtime::Clock;
use crate::store::StoreHandle;
use axum::Router;
use axum::extract::{DefaultBodyLimit, OriginalUri};
use axum::http::{Method, StatusCode};
use axum::routing::{MethodRouter, delete, get, post};
use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Semaphore, mpsc, watch};

/// What every handler may use. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct App(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) board: Board,
    pub(super) store: StoreHandle,
    pub(super) commands: CommandHandle,
    pub(super) clock: Clock,
    pub(super) devices: Vec<DeviceSpec>,
    pub(super) accepts: BTreeMap<DeviceId, mpsc::Sender<Accept>>,
    /// The site's own time zone: what people see. UTC when its name is not known.
    pub(super) zone: jiff::tz::TimeZone,
    /// `None`: on loopback, nobody logs in.
    pub(super) login: Option<Login>,
    /// The names that this machine goes by.
    pub(super) names: Vec<String>,
    pub(super) charts: Charts,
    pub(super) listeners: Arc<Semaphore>,
    /// The newest status text; empty: no more will come.
    status: watch::Sender<Arc<str>>,
    has_ended: AtomicBool,
}

impl Deref for App {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl App {
    pub(super) fn new(parts: WebParts, login: Option<Login>) -> Self {
        let zone = jiff::tz::TimeZone::get(&parts.site.timezone).unwrap_or(jiff::tz::TimeZone::UTC);
        Self(Arc::new(Inner {
            board: parts.board,
            store: parts.store,
            commands: parts.commands,
            clock: parts.clock,
            devices: parts.devices,
            accepts: parts.accepts,
            zone,
            login,
            names: guard::own_names(),
            charts: Charts::default(),
            listeners: Arc::new(Semaphore::new(MAX_LISTENERS)),
            status: watch::channel("".into()).0,
            has_ended: AtomicBool::new(false),
        }))
    }

    /// A listener on live status texts, the first of which is there at once.
    pub(super) fn listen_stream(&self) -> watch::Receiver<Arc<str>> {
        let texts = self.status.subscribe();
        self.refresh_stream();
        texts
    }

    /// Make a new status text, if anybody listens.
    pub(super) fn refresh_stream(&self) {
        if self.status.receiver_count() == 0 || self.has_ended.load(Ordering::SeqCst) {
            return;
        }
        match serde_json::to_string(&self.board.status()) {
            Ok(text) => drop(self.status.send_replace(text.into())),
            Err(e) => tracing::error!("writing the status as JSON: {e}"),
        }
    }

    /// All live streams end.
    pub(super) fn end_streams(&self) {
        self.has_ended.store(true, Ordering::SeqCst);
        self.status.send_replace("".into());
    }
}

/// One path. What it says of itself is compared with the OpenAPI document and with what the router does.
#[cfg_attr(not(test), expect(dead_code, reason = "methods and is_api are there for the comparison"))]
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) methods: &'static [&'static str],
    /// Does it stand in the OpenAPI document (or is it for browsers only).
    pub(super) is_api: bool,
    handler: MethodRouter<App>,
}

/// All paths. The OpenAPI document has each that is marked, and no other: a test sees to it.
pub(super) fn routes() -> Vec<Route> {
    let api = |path, methods, handler| Route { path, methods, is_api: true, handler };
    let web = |path, methods, handler| Route { path, methods, is_api: false, handler };
    vec![
        api("/api/v1/status", &["get"], get(api::status)),
        api("/api/v1/devices", &["get"], get(api::devices)),
        api("/api/v1/devices/{id}", &["get"], get(api::device)),
        api("/api/v1/devices/{id}/baseline", &["get", "post"], get(api::baseline).post(api::accept_baseline)),
        api("/api/v1/devices/{id}/history", &["get"], get(api::history)),
        api("/api/v1/devices/{id}/command", &["post"], post(api::command)),
        api("/api/v1/schedules", &["get"], get(api::schedules)),
        api("/api/v1/schedules/{id}", &["put", "delete"], delete(api::delete_schedule).put(api::put_schedule)),
        api("/api/v1/events", &["get"], get(api::events)),
        api("/api/v1/stream", &["get"], get(stream::stream)),
        api("/api/v1/openapi.json", &["get"], get(api::openapi)),
        api("/metrics", &["get"], get(api::metrics)),
        api("/healthz", &["get"], get(api::healthz)),
        web("/", &["get"], get(page::home)),
        web("/login", &["get", "post"], get(page::login).post(page::log_in)),
        web("/login/basic", &["get"], get(page::log_in_basic)),
        web("/logout", &["post"], post(page::log_out)),
        web("/chart.svg", &["get"], get(chart::chart)),
        web("/app.css", &["get"], get(page::css)),
        web("/app.js", &["get"], get(page::script)),
        web("/icon.svg", &["get"], get(page::icon)),
    ]
}

pub(super) fn router(app: App) -> Router {
    let mut router = Router::new();
    for route in routes() {
        router = router.route(route.path, route.handler);
    }
    router
        .fallback(nowhere)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(guard::MAX_BODY))
        .layer(axum::middleware::from_fn_with_state(app.clone(), guard::guard))
        .with_state(app)
}

fn nowhere(OriginalUri(uri): OriginalUri) -> Ready<Fault> {
    ready(Fault::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path())))
}

fn wrong_method(method: Method, OriginalUri(uri): OriginalUri) -> Ready<Fault> {
    ready(Fault::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not possible at {}", uri.path())))
}
