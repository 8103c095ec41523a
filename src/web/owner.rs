//! The owner's word on everybody else's control: pause, resume, opt-out.

use super::api::{self, ANSWER_WITHIN, Answer};
use super::error::Fault;
use super::format;
use super::routes::App;
use crate::command::{LONGEST_PAUSE, OwnerAnswer, OwnerAsk, OwnerWish};
use crate::model::DeviceId;
use crate::wire::{ControlledByJson, RemoteControlJson, opt_out_json, remote_json};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use maud::{Markup, html};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::oneshot;

/// `{"state":"paused","for":"4h"}`, `{"state":"paused"}` or `{"state":"active"}`.
pub(super) async fn remote_control(State(app): State<App>, body: Body) -> Answer {
    let wish = wish(&api::read(body).await?)?;
    match ask(&app, wish).await? {
        OwnerAnswer::Remote(remote) => Ok(Json(remote_json(&remote)).into_response()),
        other => Err(not_kept(other)),
    }
}

/// Ends the events that run on a device. The body is empty or an empty object.
pub(super) async fn opt_out(State(app): State<App>, Path(id): Path<String>) -> Answer {
    let spec = api::known(&app, &id)?;
    opt_out_of(&app, Some(spec.id.clone())).await
}

/// Ends all events that run.
pub(super) async fn opt_out_all(State(app): State<App>) -> Answer {
    opt_out_of(&app, None).await
}

async fn opt_out_of(app: &App, device: Option<DeviceId>) -> Answer {
    let whom = device.as_ref().map_or_else(|| "any device".to_owned(), |device| format!("`{device}`"));
    match ask(app, OwnerWish::OptOut(device)).await? {
        OwnerAnswer::OptedOut(outs) if outs.is_empty() => {
            Err(Fault::new(StatusCode::CONFLICT, format!("no event runs on {whom}: there is nothing to opt out of")))
        }
        OwnerAnswer::OptedOut(outs) => {
            let outs: Vec<Value> = outs.iter().map(opt_out_json).collect();
            Ok(Json(json!({ "opted_out": outs })).into_response())
        }
        other => Err(not_kept(other)),
    }
}

async fn ask(app: &App, wish: OwnerWish) -> Result<OwnerAnswer, Fault> {
    let (answer, rx) = oneshot::channel();
    if app.commands.try_owner(OwnerAsk { wish, answer }).is_err() {
        return Err(Fault::busy("the gateway is busy: nothing was changed"));
    }
    match tokio::time::timeout(ANSWER_WITHIN, rx).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(Fault::busy("the gateway is stopping")),
        Err(_) => Err(Fault::new(
            StatusCode::GATEWAY_TIMEOUT,
            "no answer within 10 s: it is in force or soon will be, but is not written down yet",
        )),
    }
}

fn not_kept(answer: OwnerAnswer) -> Fault {
    match answer {
        OwnerAnswer::NotKept(why) => Fault::busy(format!(
            "it is in force, but a restart would forget it, as it could not be written down: {why}"
        )),
        OwnerAnswer::Remote(_) | OwnerAnswer::OptedOut(_) => {
            Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer is to another question")
        }
    }
}

fn wish(body: &[u8]) -> Result<OwnerWish, Fault> {
    let example = "it is {\"state\":\"paused\",\"for\":\"4h\"}, {\"state\":\"paused\"} or {\"state\":\"active\"}";
    let value: Value =
        serde_json::from_slice(body).map_err(|e| Fault::bad(format!("the body is not JSON: {e}; {example}")))?;
    let map = value.as_object().ok_or_else(|| Fault::bad(format!("the body is not an object; {example}")))?;
    if let Some(key) = map.keys().find(|key| !["state", "for"].contains(&key.as_str())) {
        return Err(Fault::bad(format!("{key}: is unknown; {example}")));
    }
    let lasts = match map.get("for") {
        None | Some(Value::Null) => None,
        Some(text) => Some(length(text)?),
    };
    match (map.get("state").and_then(Value::as_str), lasts) {
        (Some("paused"), lasts) => Ok(OwnerWish::Pause(lasts)),
        (Some("active"), None) => Ok(OwnerWish::Resume),
        (Some("active"), Some(_)) => Err(Fault::bad("for: is for a pause only")),
        _ => Err(Fault::bad(format!("state: must be paused or active; {example}"))),
    }
}

fn length(text: &Value) -> Result<Duration, Fault> {
    text.as_str()
        .and_then(super::history::duration)
        .filter(|time| !time.is_zero() && *time <= LONGEST_PAUSE)
        .ok_or_else(|| {
            Fault::bad(format!("for: {text} is not a duration such as \"30m\", \"4h\" or \"7d\", at most 366d"))
        })
}

/// The banner while remote control is paused. `app.js` shows and hides it.
pub(super) fn banner(app: &App, remote: &RemoteControlJson) -> Markup {
    html! {
        section #remote .remote role="status" data-state=(remote.state) hidden[remote.state != "paused"] {
            p { strong { "Remote control is paused" } " "
                span data-f="until" { (remote.until.as_deref().map_or_else(String::new, |at| format!("until {}", format::moment_of(at, &app.zone)))) }
                ". Clouds and brokers see that, and wait." }
            button #resume type="button" data-needs-script hidden { "Resume" }
            output aria-live="polite" {}
        }
    }
}

/// Pausing, in two steps: open, then choose how long.
pub(super) fn pause(remote: &RemoteControlJson) -> Markup {
    html! {
        details #pause .pause data-needs-script hidden {
            summary { "Pause remote control" }
            form data-pause {
                p.sub { "Commands, events and plans of clouds and brokers wait until you resume. Safety limits, the grid operator and your own commands and schedules stay." }
                div.fields {
                    label { "For"
                        select name="for" {
                            option value="1h" { "1 hour" }
                            option value="4h" selected { "4 hours" }
                            option value="24h" { "1 day" }
                            option value="7d" { "1 week" }
                            option value="" { "until I resume" }
                        }
                    }
                    button type="submit" disabled[remote.state == "paused"] { "Pause now" }
                }
                output aria-live="polite" {}
            }
        }
    }
}

/// What the owner can do about whoever holds a device, in one click: give their own hold back, or opt out of an event.
pub(super) fn holder_buttons(by: Option<&ControlledByJson>) -> Markup {
    let rank = by.map_or("", |by| by.rank.as_str());
    html! {
        div.holder data-needs-script hidden {
            button type="button" data-give-back hidden[rank != "owner"] { "Give back" }
            button type="button" data-opt-out hidden[rank != "event"] { "Opt out of this event" }
            output aria-live="polite" {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::start;
    use super::*;
    use crate::model::{OptOut, RemoteControl, Timestamp};
    use crate::observe::tests::home;

    #[test]
    fn a_wish_is_read_or_refused_with_what_would_be_right() {
        let ok = |text: &str| wish(text.as_bytes()).unwrap();
        assert_eq!(ok(r#"{"state":"paused"}"#), OwnerWish::Pause(None));
        assert_eq!(ok(r#"{"state":"paused","for":null}"#), OwnerWish::Pause(None));
        assert_eq!(ok(r#"{"state":"paused","for":"4h"}"#), OwnerWish::Pause(Some(Duration::from_secs(4 * 3600))));
        assert_eq!(ok(r#"{"state":"active"}"#), OwnerWish::Resume);
        for text in [
            "",
            "[]",
            "{}",
            r#"{"state":"stopped"}"#,
            r#"{"state":"active","for":"1h"}"#,
            r#"{"state":"paused","for":"soon"}"#,
            r#"{"state":"paused","for":"0s"}"#,
            r#"{"state":"paused","for":"367d"}"#,
            r#"{"state":"paused","for":4}"#,
            r#"{"state":"paused","until":"4h"}"#,
        ] {
            assert!(wish(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn the_owners_word_reaches_its_room_and_the_answer_the_owner() {
        let mut rig = start(home(), "127.0.0.1:0");
        let until = Timestamp::from_ms(1_800_014_400_000);
        let out = OptOut { uplink: "acme".parse().unwrap(), device: "battery".parse().unwrap(), until };
        let paused = RemoteControl { paused: true, until: Some(until) };
        let body = r#"{"state":"paused","for":"4h"}"#;
        for (path, body, answer, code, says) in [
            (
                "remote-control",
                body,
                OwnerAnswer::Remote(paused),
                200,
                r#"{"state":"paused","until":"2027-01-15T12:00:00.000Z"}"#,
            ),
            ("remote-control", body, OwnerAnswer::NotKept("disk full".to_owned()), 503, "a restart would forget it"),
            ("devices/battery/optout", "{}", OwnerAnswer::OptedOut(vec![out]), 200, r#""source":"acme""#),
            ("devices/battery/optout", "{}", OwnerAnswer::OptedOut(vec![]), 409, "no event runs on `battery`"),
            ("optout", "{}", OwnerAnswer::OptedOut(vec![]), 409, "no event runs on any device"),
        ] {
            let request = rig
                .client
                .post(format!("{}/api/v1/{path}", rig.base))
                .header("content-type", "application/json")
                .body(body)
                .send();
            let room = async {
                let ask = rig.asks.recv().await.unwrap();
                ask.answer.send(answer).unwrap();
                ask.wish
            };
            let (told, wish) = tokio::join!(request, room);
            let told = told.unwrap();
            assert_eq!(told.status().as_u16(), code, "{path}");
            let json = told.json::<Value>().await.unwrap().to_string();
            assert!(json.contains(says), "{path}: {json}");
            match path {
                "remote-control" => assert_eq!(wish, OwnerWish::Pause(Some(Duration::from_secs(4 * 3600)))),
                "optout" => assert_eq!(wish, OwnerWish::OptOut(None)),
                _ => assert_eq!(wish, OwnerWish::OptOut(Some("battery".parse().unwrap()))),
            }
        }
        let nobody = rig.client.post(format!("{}/api/v1/devices/nobody/optout", rig.base));
        let told = nobody.header("content-type", "application/json").send().await.unwrap();
        assert_eq!(told.status().as_u16(), 404);
    }

    #[tokio::test]
    async fn the_page_says_that_it_is_paused_and_offers_what_fits_the_holder() {
        let rig = start(home(), "127.0.0.1:0");
        let page = || async { rig.client.get(&rig.base).send().await.unwrap().text().await.unwrap() };
        let before = page().await;
        assert!(before.contains(r#"data-state="active" hidden"#), "{before}");
        let until = Timestamp::from_ms(1_800_014_400_000);
        let by = crate::model::ControlledBy {
            source: "acme".into(),
            rank: crate::model::Rank::Event,
            action: "charge",
            plan: None,
            ends_at: Some(until),
        };
        rig.hands.control.send_modify(|c| {
            c.remote = RemoteControl { paused: true, until: Some(until) };
            c.holders.insert("battery".parse().unwrap(), by);
        });
        let after = page().await;
        assert!(after.contains(r#"data-state="paused">"#) && after.contains("until 15 Jan, 13:00"), "{after}");
        assert!(after.contains("<button type=\"button\" data-opt-out>"), "{after}");
        assert_eq!(after.matches("data-give-back hidden").count(), after.matches("data-give-back").count());
    }
}
