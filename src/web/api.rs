//! The local API for machines. Its description is `openapi.json`.

use super::error::Fault;
use super::guard::{MAX_BODY, too_large};
use super::routes::App;
use super::{auth, history as rows};
use crate::command::{RawCommand, RawPlan, Target};
use crate::model::{
    CommandResult, CommandState, ControlSettings, DeviceId, DeviceLimits, DeviceSpec, Origin, PlannedSlot, Rank,
    ReplyTo, UplinkName,
};
use crate::wire::{baseline_json, capabilities_json, event_json, result_json, wear_json};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use std::future::{Ready, ready};
use std::time::Duration;
use tokio::sync::oneshot;

/// A first result comes when it is on the disk: within a second on a healthy card.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A local command without times of its own is meant now: as `not_after` of [`crate::wire::parse_command`]'s rule.
const FRESH_FOR: Duration = Duration::from_secs(60);
/// Events in one answer.
const EVENTS: usize = 100;
const MAX_EVENTS: usize = 1000;

const OPENAPI: &str = include_str!("openapi.json");

pub(super) type Answer = Result<Response, Fault>;

pub(super) fn status(State(app): State<App>) -> Ready<Json<crate::wire::StatusJson>> {
    ready(Json(app.board.status()))
}

pub(super) fn devices(State(app): State<App>) -> Ready<Json<Vec<crate::wire::DeviceJson>>> {
    ready(Json(app.board.status().devices))
}

pub(super) fn device(State(app): State<App>, Path(id): Path<String>) -> Ready<Answer> {
    ready(known(&app, &id).map(|spec| Json(device_json(&app, spec)).into_response()))
}

fn device_json(app: &App, spec: &DeviceSpec) -> Value {
    let shown = app.board.status().devices.into_iter().find(|d| d.id == spec.id.as_str());
    let own = app.board.device(&spec.id).unwrap_or_default();
    let mut object = match serde_json::to_value(shown) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let info = &own.info;
    object.insert(
        "info".into(),
        json!({"maker": info.maker, "model": info.model, "serial": info.serial, "firmware": info.firmware}),
    );
    object.insert("capabilities".into(), capabilities_json(&own.capabilities));
    object.insert("limits".into(), limits_json(&spec.limits));
    object.insert("control".into(), control_json(&spec.control));
    object.insert("wear".into(), wear_json(&own.wear));
    object.insert(
        "counters".into(),
        json!({"failed_polls": own.failed_polls, "slipped_polls": own.slipped_polls, "rejected_values": own.rejected_values}),
    );
    Value::Object(object)
}

pub(super) fn baseline(State(app): State<App>, Path(id): Path<String>) -> Ready<Answer> {
    ready(known(&app, &id).map(|spec| Json(baseline_of(&app, spec)).into_response()))
}

fn baseline_of(app: &App, spec: &DeviceSpec) -> Value {
    let own = app.board.device(&spec.id).unwrap_or_default();
    let mut object = baseline_json(&own.baseline);
    if let Value::Object(map) = &mut object {
        map.insert("device".into(), json!(spec.id.as_str()));
    }
    object
}

/// The installer accepts what is in the device now as its baseline: `{"accept":true}`.
pub(super) async fn accept_baseline(State(app): State<App>, Path(id): Path<String>, body: Body) -> Answer {
    let spec = known(&app, &id)?;
    let body: Value = serde_json::from_slice(&read(body).await?).unwrap_or_default();
    if body != json!({"accept": true}) {
        return Err(Fault::bad("the body must be {\"accept\":true}: a new baseline is accepted on purpose"));
    }
    let (tx, rx) = oneshot::channel();
    let way = app.accepts.get(&spec.id).ok_or_else(|| Fault::busy("the device is not there yet"))?;
    if way.try_send(tx).is_err() {
        return Err(Fault::busy("another acceptance is under way, or the gateway is stopping"));
    }
    match tokio::time::timeout(ANSWER_WITHIN, rx).await {
        Ok(Ok(Ok(()))) => Ok(Json(baseline_of(&app, spec)).into_response()),
        Ok(Ok(Err(why))) => Err(Fault::new(StatusCode::CONFLICT, why)),
        Ok(Err(_)) => Err(Fault::busy("the gateway is stopping")),
        Err(_) => Err(Fault::new(StatusCode::GATEWAY_TIMEOUT, "the device did not answer within 10 s")),
    }
}

pub(super) async fn history(State(app): State<App>, Path(id): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let spec = known(&app, &id)?;
    let asked = rows::parse(spec.id.clone(), query.as_deref().unwrap_or_default(), app.clock.now())?;
    let found = app.store.history(asked.query.clone()).await?;
    Ok(rows::answer(&asked, &found))
}

pub(super) async fn command(State(app): State<App>, Path(id): Path<String>, body: Body) -> Answer {
    let spec = known(&app, &id)?;
    let body = with_id(read(body).await?)?;
    let (tx, rx) = oneshot::channel();
    let raw = RawCommand {
        origin: local(),
        target: Target::Device(spec.id.to_string()),
        body,
        retained: false,
        expires_in: Some(FRESH_FOR),
        received: app.clock.now(),
        reply_to: ReplyTo::default(),
        answer: tx,
    };
    if app.commands.try_command(raw).is_err() {
        return Err(Fault::busy("rejected: busy").with("state", json!("rejected")).with("reason", json!("busy")));
    }
    match tokio::time::timeout(ANSWER_WITHIN, rx).await {
        Ok(Ok(result)) => Ok((code_of(&result), Json(result_json(&result))).into_response()),
        Ok(Err(_)) => Err(Fault::busy("the gateway is stopping")),
        Err(_) => Err(Fault::new(
            StatusCode::GATEWAY_TIMEOUT,
            "no result within 10 s: the command may still act; ask again with the same id",
        )),
    }
}

pub(super) fn schedules(State(app): State<App>) -> Ready<Json<Vec<Value>>> {
    let plans = app.commands.plans().borrow().clone();
    let list = plans
        .iter()
        .map(|plan| {
            json!({
                "id": plan.id.as_str(), "device": plan.device.as_ref().map(DeviceId::as_str), "kind": plan.kind,
                "source": plan.source, "active": plan.active, "next_change": plan.next_change.map(|t| t.to_string()),
                "why": plan.state.as_ref().and_then(|s| s.why.as_deref()),
                "planned": plan.state.as_ref().map(|s| s.planned.iter().map(planned_json).collect::<Vec<_>>()),
                "document": &*plan.json,
            })
        })
        .collect();
    ready(Json(list))
}

fn planned_json(slot: &PlannedSlot) -> Value {
    json!({
        "start": slot.start.to_string(), "end": slot.end.to_string(), "action": slot.action, "price": slot.price,
    })
}

pub(super) async fn put_schedule(State(app): State<App>, Path(id): Path<String>, body: Body) -> Answer {
    let body = read(body).await?;
    if body.is_empty() {
        return Err(Fault::bad("the body is empty: a schedule is a JSON document; DELETE removes one"));
    }
    send_plan(&app, id, Some(body)).await
}

pub(super) async fn delete_schedule(State(app): State<App>, Path(id): Path<String>) -> Answer {
    let known: Vec<String> = app.commands.plans().borrow().iter().map(|p| p.id.to_string()).collect();
    if !known.contains(&id) {
        return Err(
            Fault::new(StatusCode::NOT_FOUND, format!("there is no schedule `{id}`")).with("known", json!(known))
        );
    }
    send_plan(&app, id, None).await
}

async fn send_plan(app: &App, plan: String, body: Option<Vec<u8>>) -> Answer {
    let (tx, rx) = oneshot::channel();
    let raw = RawPlan { origin: local(), plan, body, retained: false, answer: tx };
    if app.commands.try_plan(raw).is_err() {
        return Err(Fault::busy("refused: busy"));
    }
    match tokio::time::timeout(ANSWER_WITHIN, rx).await {
        Ok(Ok(answer)) => {
            let is_refused = answer.get("state").and_then(Value::as_str) == Some("refused");
            let code = if is_refused { StatusCode::BAD_REQUEST } else { StatusCode::OK };
            Ok((code, Json(answer)).into_response())
        }
        Ok(Err(_)) => Err(Fault::busy("the gateway is stopping")),
        Err(_) => Err(Fault::new(StatusCode::GATEWAY_TIMEOUT, "no answer within 10 s")),
    }
}

pub(super) async fn events(State(app): State<App>, RawQuery(query): RawQuery) -> Answer {
    let mut limit = EVENTS;
    for (key, value) in url::form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes()) {
        match (key.as_ref(), value.parse::<usize>()) {
            ("limit", Ok(n)) if (1..=MAX_EVENTS).contains(&n) => limit = n,
            ("limit", _) => return Err(Fault::bad(format!("limit: `{value}` is not a number from 1 to {MAX_EVENTS}"))),
            _ => return Err(Fault::bad(format!("{key}: is unknown; there is: limit"))),
        }
    }
    let list: Vec<Value> = app.store.events(limit).await?.iter().map(|(id, event)| event_json(*id, event)).collect();
    Ok(Json(list).into_response())
}

pub(super) fn metrics(State(app): State<App>) -> Ready<Response> {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ready(([(header::CONTENT_TYPE, kind)], app.board.metrics()).into_response())
}

pub(super) fn healthz(State(app): State<App>) -> Ready<Answer> {
    ready(match app.board.progress_fault() {
        None => Ok(Json(json!({"status": "ok"})).into_response()),
        Some(why) => Err(Fault::new(StatusCode::SERVICE_UNAVAILABLE, why).with("status", json!("failed"))),
    })
}

pub(super) fn openapi() -> Ready<Response> {
    ready(([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response())
}

pub(super) fn known<'a>(app: &'a App, id: &str) -> Result<&'a DeviceSpec, Fault> {
    app.devices.iter().find(|spec| spec.id.as_str() == id).ok_or_else(|| {
        let known: Vec<&str> = app.devices.iter().map(|spec| spec.id.as_str()).collect();
        let list = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Fault::new(StatusCode::NOT_FOUND, format!("there is no device `{id}`; there are: {list}"))
            .with("known", json!(known))
    })
}

/// The owner's own channel: it may claim `owner`, and gets it when it claims nothing.
fn local() -> Origin {
    Origin { uplink: UplinkName::local(), ranks: vec![Rank::Owner] }
}

pub(super) async fn read(body: Body) -> Result<Vec<u8>, Fault> {
    // The only way to fail is the size, or a peer that went away and reads no answer.
    axum::body::to_bytes(body, MAX_BODY).await.map(|bytes| bytes.to_vec()).map_err(|_| too_large())
}

/// A local command without an id gets one, which its result tells.
fn with_id(body: Vec<u8>) -> Result<Vec<u8>, Fault> {
    match serde_json::from_slice::<Value>(&body) {
        Ok(Value::Object(mut map)) if !map.contains_key("id") => {
            let Some(token) = auth::random_token() else {
                return Err(Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "the system gives no random numbers"));
            };
            map.insert("id".to_owned(), json!(format!("local-{token}")));
            Ok(Value::Object(map).to_string().into_bytes())
        }
        // Whatever it is, command says what is wrong with it.
        _ => Ok(body),
    }
}

/// 200 for what was taken; a refusal by its kind.
fn code_of(result: &CommandResult) -> StatusCode {
    let reason = result.reason.as_deref().unwrap_or_default();
    match result.state {
        CommandState::Rejected if reason == "busy" || reason.contains("could not be written down") => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        CommandState::Rejected if reason.contains("another body") => StatusCode::CONFLICT,
        CommandState::Rejected | CommandState::Expired => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}

fn limits_json(limits: &DeviceLimits) -> Value {
    json!({
        "max_charge_w": limits.max_charge_w,
        "max_discharge_w": limits.max_discharge_w,
        "min_soc_pct": limits.min_soc_pct,
        "max_soc_pct": limits.max_soc_pct,
        "max_power_w": limits.max_power_w,
        "max_current_a": limits.max_current_a,
    })
}

fn control_json(control: &ControlSettings) -> Value {
    json!({
        "enabled": control.enabled,
        "accept_no_failsafe": control.accept_no_failsafe,
        "fallback_current_a": control.fallback_current_a,
        "flash_writes_per_day": control.flash_writes_per_day,
    })
}
