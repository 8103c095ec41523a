//! The page for people. It shows its values without any script; `app.js` keeps them up to date.

use super::error::Fault;
use super::guard::{self, COOKIE};
use super::listen::Peer;
use super::routes::App;
use super::{api, auth, cards, flow, format, owner};
use crate::command::PlanSummary;
use crate::model::{DeviceKind, Event};
use crate::wire::{StatusJson, UplinkJson};
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;
use std::future::{Ready, ready};
use std::time::Duration;

/// Events on the page.
const EVENTS: usize = 8;
/// The page comes without its events rather than late.
const EVENTS_WITHIN: Duration = Duration::from_secs(2);

const CSS: &str = include_str!("assets/app.css");
const SCRIPT: &str = include_str!("assets/app.js");
const ICON: &str = include_str!("assets/icon.svg");

/// What a first installation copies.
const EXAMPLE: &str = r#"[site]
name = "My home"
timezone = "Europe/Berlin"

[[device]]
id = "pv"
kind = "inverter"
profile = "sunspec"
link = "tcp://192.168.1.20:502"
unit = 1"#;

pub(super) async fn home(State(app): State<App>) -> Response {
    let status = app.board.status();
    let events = match tokio::time::timeout(EVENTS_WITHIN, app.store.events(EVENTS)).await {
        Ok(Ok(events)) => events,
        Ok(Err(_)) | Err(_) => Vec::new(),
    };
    let plans = app.commands.plans().borrow().clone();
    let body = html! {
        (top(&app, &status))
        main {
            @if app.devices.is_empty() {
                (welcome())
            } @else {
                (owner::banner(&app, &status.remote_control))
                (problems(&status))
                div.hero {
                    section.card.now { h2 { "Now" } (flow::picture(&status)) }
                    section.card.day { (day(&app)) }
                }
                h2.title { "Devices" }
                div.devices {
                    @for (spec, device) in app.devices.iter().zip(&status.devices) { (cards::card(&app, spec, device)) }
                }
                div.lists {
                    (uplinks(&app, &status))
                    (schedules(&app, &plans))
                    (recent(&app, &events))
                }
            }
        }
        (bottom(&status))
    };
    page(&status.site.name, Some(&status.site.timezone), &body).into_response()
}

pub(super) fn page(title: &str, zone: Option<&str>, body: &Markup) -> Html<String> {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " \u{b7} derd" }
                link rel="icon" href="/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/app.css";
                script src="/app.js" defer {}
            }
            body data-zone=[zone] { (body) }
        }
    };
    Html(page.into_string())
}

fn top(app: &App, status: &StatusJson) -> Markup {
    html! {
        header.top {
            div.brand {
                (PreEscaped(ICON))
                div { h1 { (status.site.name) } p.sub { "derd \u{b7} " (status.gateway.id) } }
            }
            div.marks {
                span.pill #health data-state=(status.health) { (status.health) }
                span.pill #clock data-state=(status.clock.state) title="How far the gateway's clock may be trusted" {
                    "clock " (status.clock.state)
                }
                time #time { (format::clock(app.clock.now(), &app.zone)) }
                @if app.login.is_some() { button #logout type="button" data-needs-script hidden { "Log out" } }
            }
        }
        p #lost role="alert" hidden { "Connection lost. The values below are old; trying again \u{2026}" }
    }
}

fn bottom(status: &StatusJson) -> Markup {
    html! {
        footer {
            span { "derd " (status.gateway.version) }
            span { "store " span #store { (status.store.bytes / 1_048_576) " MB, " (format::grouped(&status.store.rows.to_string())) " samples" } }
            nav { a href="/api/v1/status" { "Status" } a href="/metrics" { "Metrics" } a href="/api/v1/openapi.json" { "API" } }
        }
    }
}

fn problems(status: &StatusJson) -> Markup {
    html! {
        section #problems .problems hidden[status.problems.is_empty()] {
            ul { @for problem in &status.problems { li { (problem) } } }
        }
    }
}

fn day(app: &App) -> Markup {
    let has = |kind: DeviceKind| app.devices.iter().any(|d| d.kind == kind);
    let dark = "(prefers-color-scheme: dark)";
    html! {
        header {
            h2 { span #since { (super::chart::title(app)) } span.sub { " kW" } }
            ul.legend {
                @if has(DeviceKind::Inverter) { li.c-solar { "Solar" } }
                @if has(DeviceKind::Meter) { li.c-house { "Home" } li.c-grid { "Grid" } }
                @if has(DeviceKind::Battery) { li.c-battery { "Battery" } }
                @if has(DeviceKind::Charger) { li.c-car { "Car" } }
            }
        }
        picture #chart {
            source media=(format!("(max-width: 640px) and {dark}")) srcset="/chart.svg?hours=24&size=narrow&theme=dark";
            source media="(max-width: 640px)" srcset="/chart.svg?hours=24&size=narrow&theme=light";
            source media=(dark) srcset="/chart.svg?hours=24&size=wide&theme=dark";
            img src="/chart.svg?hours=24&size=wide&theme=light" width="800" height="400"
                alt="Power of sun, home, grid, battery and car over the last 24 hours or since the first data, in kW";
        }
        p.sub { "Grid + is import, battery + is discharging." }
    }
}

fn uplinks(app: &App, status: &StatusJson) -> Markup {
    let uplinks = &status.uplinks;
    html! {
        section.card {
            h2 { "Uplinks" }
            @if uplinks.is_empty() { p.sub { "None: everything stays in the house." } }
            ul.rows {
                @for uplink in uplinks {
                    li data-uplink=(uplink.name) {
                        div { strong { (uplink.name) } " " span.sub { (uplink.kind) } }
                        span.pill data-f="mode" data-state=(uplink.mode) { (uplink.mode.replace('_', " ")) }
                        p.sub data-f="backlog" { (backlog(app, uplink)) }
                    }
                }
            }
            (owner::pause(&status.remote_control))
        }
    }
}

fn backlog(app: &App, uplink: &UplinkJson) -> String {
    let rows = format::grouped(&uplink.backlog_rows.to_string());
    match (uplink.backlog_rows, &uplink.last_ok_at) {
        (0, _) => "everything sent".to_owned(),
        (_, Some(at)) => format!("{rows} samples waiting, last sent {}", format::moment_of(at, &app.zone)),
        (_, None) => format!("{rows} samples waiting"),
    }
}

fn schedules(app: &App, plans: &[PlanSummary]) -> Markup {
    html! {
        section.card #schedules {
            h2 { "Schedules" }
            @if plans.is_empty() { p.sub { "None. Devices follow their own mode unless somebody asks." } }
            ul.rows {
                @for plan in plans {
                    li {
                        div { strong { (plan.id) } " " span.sub { (plan.kind) @if let Some(device) = &plan.device { " for " (device) } } }
                        @if let Some(active) = &plan.active { span.pill data-state="online" { (active.replace('_', " ")) } }
                        p.sub {
                            "by " (plan.source)
                            @if let Some(at) = plan.next_change { ", changes " (format::moment(at, &app.zone)) }
                            @if let Some(why) = plan.state.as_ref().and_then(|s| s.why.as_ref()) { ": " (why) }
                        }
                        (planned(app, plan, &currency_of(plan, plans)))
                    }
                }
            }
        }
    }
}

/// Pieces of time on the page: those that come next.
const PLANNED: usize = 4;

/// What a plan means to do, and at which price: what runs now and what comes next.
fn planned(app: &App, plan: &PlanSummary, currency: &str) -> Markup {
    let now = app.clock.now();
    let slots = plan.state.as_ref().map(|state| &*state.planned).unwrap_or_default();
    let left: Vec<_> = slots.iter().filter(|slot| slot.end > now).collect();
    html! {
        @if !left.is_empty() {
            ol.planned {
                @for slot in left.iter().take(PLANNED) {
                    li {
                        span {
                            (format::moment(slot.start, &app.zone)) "\u{2013}" (format::clock(slot.end, &app.zone)) " "
                            (slot.action.replace("start", "charge"))
                        }
                        span.price {
                            @match slot.price {
                                Some(price) => { (format!("{price:.3} {currency}")) }
                                None => { "no price" }
                            }
                        }
                    }
                }
                @if left.len() > PLANNED { li { "and " (left.len() - PLANNED) " more" } }
            }
        }
    }
}

/// What the prices of a plan are in; empty where its tariff is not there.
fn currency_of(plan: &PlanSummary, plans: &[PlanSummary]) -> String {
    let tariff = plan.json.get("tariff").and_then(Value::as_str);
    let tariff = plans.iter().find(|p| Some(p.id.as_str()) == tariff);
    tariff.and_then(|t| t.json.get("currency")).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn recent(app: &App, events: &[(u64, Event)]) -> Markup {
    html! {
        section.card #events {
            h2 { "Events" }
            @if events.is_empty() { p.sub { "Nothing happened yet." } }
            ul.rows.events {
                @for (_, event) in events {
                    li data-severity=(event.severity) data-state=(event.state) {
                        div { (format::local_times(&event.text, &app.zone)) }
                        p.sub {
                            (format::moment(event.ts, &app.zone))
                            @if let Some(device) = &event.device { " \u{b7} " (device) }
                            @if event.state == crate::model::EventState::Cleared { " \u{b7} over" }
                        }
                    }
                }
            }
        }
    }
}

/// No device yet: what to do next.
fn welcome() -> Markup {
    html! {
        section.card.welcome {
            h2 { "derd is running. Now tell it about your home." }
            ol {
                li { "Open " code { "/etc/derd/derd.toml" } " (or a file of your own in " code { "/etc/derd/conf.d/" }
                    ") as root and describe your devices, such as:" pre { code { (EXAMPLE) } } }
                li { "Check it: every fault is named at once." pre { code { "sudo derd check" } } }
                li { "Let derd take it up." pre { code { "sudo systemctl restart derd" } } }
            }
            p.sub { "derd only reads until a device says " code { "[device.control] enabled = true" }
                ". This page shows the values as soon as the first device answers." }
        }
    }
}

pub(super) fn login(State(app): State<App>) -> Ready<Response> {
    if app.login.is_none() {
        return ready(Redirect::to("/").into_response());
    }
    let body = html! {
        main.login {
            form.card #login method="post" {
                (PreEscaped(ICON))
                h1 { "derd" }
                label { "Password" input type="password" name="password" autocomplete="current-password" required autofocus; }
                button.primary type="submit" { "Log in" }
                output aria-live="polite" {}
                p.sub { "On the gateway, " code { "sudo derd password" } " shows it." }
                noscript { p.sub { "Without scripts: " a href="/login/basic" { "log in by the browser's own question" } ", any user name." } }
            }
        }
    };
    ready(page("Log in", None, &body).into_response())
}

/// `{"password":"..."}` for a session's cookie.
pub(super) async fn log_in(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Body,
) -> Result<Response, Fault> {
    let body: Value = serde_json::from_slice(&api::read(body).await?)
        .map_err(|e| Fault::bad(format!("the body is not JSON: {e}")))?;
    let (Some(login), Peer::Tcp { remote, .. }) = (&app.login, peer) else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let password = body.get("password").and_then(Value::as_str).unwrap_or_default();
    guard::check(login, password.trim(), remote.ip(), guard::PAGE, &app)?;
    let Some(token) = login.open_session(app.clock.mono()) else {
        return Err(Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "the system gives no random numbers"));
    };
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie(&token, auth::SESSION_LIFE))]).into_response())
}

/// The browser's own question, for those without scripts.
pub(super) fn log_in_basic(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
) -> Ready<Result<Response, Fault>> {
    let (Some(login), Peer::Tcp { remote, .. }) = (&app.login, peer) else {
        return ready(Ok(Redirect::to("/").into_response()));
    };
    let Some(password) = guard::basic_password(&headers) else {
        let fault =
            Fault::new(StatusCode::UNAUTHORIZED, "log in: any user name, and the password of `sudo derd password`");
        return ready(Err(fault.header(header::WWW_AUTHENTICATE, guard::BASIC)));
    };
    ready(guard::check(login, &password, remote.ip(), guard::BASIC, &app).map(|()| {
        let session =
            login.open_session(app.clock.mono()).map(|t| [(header::SET_COOKIE, cookie(&t, auth::SESSION_LIFE))]);
        (session, Redirect::to("/")).into_response()
    }))
}

pub(super) fn log_out(State(app): State<App>, headers: HeaderMap) -> Ready<Response> {
    if let (Some(login), Some(token)) = (&app.login, guard::session_token(&headers)) {
        login.close_session(&token);
    }
    ready((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie("", Duration::ZERO))]).into_response())
}

fn cookie(token: &str, life: Duration) -> String {
    format!("{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/; Max-Age={}", life.as_secs())
}

pub(super) fn css() -> Ready<Response> {
    asset("text/css; charset=utf-8", CSS)
}

pub(super) fn script() -> Ready<Response> {
    asset("text/javascript; charset=utf-8", SCRIPT)
}

pub(super) fn icon() -> Ready<Response> {
    asset("image/svg+xml", ICON)
}

fn asset(kind: &'static str, text: &'static str) -> Ready<Response> {
    ready(([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "private, max-age=300")], text).into_response())
}
