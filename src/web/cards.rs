//! One card for each device: its values, who holds it, and the owner's buttons.

use super::routes::App;
use super::{flow, format, owner, why};
use crate::model::{DeviceKind, DeviceSpec};
use crate::wire::{ControlledByJson, DeviceJson};
use maud::{Markup, html};

/// The points of a card below its power, those that the device has.
const fn rows(kind: DeviceKind) -> &'static [(&'static str, &'static str)] {
    match kind {
        DeviceKind::Inverter => &[
            ("state", "State"),
            ("energy_produced_wh", "Produced"),
            ("dc_power_w", "DC power"),
            ("export_limit_w", "Export limit"),
            ("voltage_l1_v", "Voltage L1"),
            ("temperature_c", "Temperature"),
        ],
        DeviceKind::Battery => &[
            ("state", "State"),
            ("energy_charged_wh", "Charged"),
            ("energy_discharged_wh", "Discharged"),
            ("reserve_soc_pct", "Reserve"),
            ("capacity_wh", "Capacity"),
            ("soh_pct", "Health"),
            ("temperature_c", "Temperature"),
        ],
        DeviceKind::Charger => &[
            ("state", "State"),
            ("session_energy_wh", "This session"),
            ("energy_delivered_wh", "In total"),
            ("max_current_a", "Current limit"),
            ("temperature_c", "Temperature"),
        ],
        DeviceKind::Meter => &[
            ("energy_import_wh", "Imported"),
            ("energy_export_wh", "Exported"),
            ("current_l1_a", "Current L1"),
            ("current_l2_a", "Current L2"),
            ("current_l3_a", "Current L3"),
            ("voltage_l1_v", "Voltage L1"),
            ("frequency_hz", "Frequency"),
        ],
        DeviceKind::Vehicle | DeviceKind::Hvac => &[
            ("state", "State"),
            ("plugged", "Plugged in"),
            ("range_km", "Range, km"),
            ("mode", "Mode"),
            ("heat_target_c", "Heats to"),
            ("cool_target_c", "Cools to"),
        ],
    }
}

/// Rows on a card, so that the cards of a home stay alike.
const MAX_ROWS: usize = 5;

pub(super) fn card(app: &App, spec: &DeviceSpec, device: &DeviceJson) -> Markup {
    let value = |name: &str| device.points.get(name).unwrap_or(&serde_json::Value::Null);
    let has = |name: &str| device.points.get(name).is_some();
    html! {
        article.card.device data-device=(device.id) data-kind=(device.kind) data-empty[device.age_ms.is_none()] {
            header {
                div {
                    h3 { (device.id) }
                    p.sub { (device.kind) " \u{b7} " (device.profile) }
                }
                span.pill data-f="state" data-state=(device.state) { (device.state) }
            }
            p.big {
                span data-point="power_w" { (format::point("power_w", value("power_w"))) }
                " " span.dir data-f="dir" { (direction(spec.kind, value("power_w").as_f64())) }
            }
            @if has("soc_pct") {
                div.charge {
                    progress data-f="soc" max="100" value=(value("soc_pct").as_f64().unwrap_or(0.0)) aria-label="State of charge" {}
                    span data-point="soc_pct" { (format::point("soc_pct", value("soc_pct"))) }
                }
            }
            dl {
                @for (name, title) in rows(spec.kind).iter().filter(|(name, _)| has(name)).take(MAX_ROWS) {
                    div { dt { (title) } dd data-point=(name) { (format::point(name, value(name))) } }
                }
                div { dt { "Updated" } dd data-f="age" { (format::age(device.age_ms)) } }
            }
            p.held data-f="held" hidden[device.controlled_by.is_none()] { (held(app, device.controlled_by.as_ref())) }
            @if spec.control.enabled { (owner::holder_buttons(device.controlled_by.as_ref())) }
            (why::sentence(app, spec))
            (toll(app, spec))
            p.fault data-f="error" hidden[device.error.is_none()] { (device.error.as_deref().unwrap_or_default()) }
            @if spec.control.enabled { (controls(spec)) (why::behind(app, spec)) }
        }
    }
}

/// What is not as its installer left it, and what writing costs the device: a line each, where there is something to say.
fn toll(app: &App, spec: &DeviceSpec) -> Markup {
    let Some(own) = app.board.device(&spec.id) else { return html! {} };
    let drift = &own.baseline.drift;
    let worst = own.wear.iter().filter(|w| w.class.wears() && w.writes > 0).max_by_key(|w| (w.today, w.writes));
    html! {
        div.toll id=(format!("toll-{}", spec.id)) {
            @if let Some(first) = drift.first() {
                p.drift data-f="drift" {
                    "Not as its installer left it: " (first.name) " was " (first.stored) " and is " (first.now) " now"
                    @if drift.len() > 1 { ", and " (drift.len() - 1) " more" } "."
                }
            }
            @if let Some(wear) = worst {
                p.sub data-f="wear" {
                    "Writes to its flash today: " (wear.today)
                    @if let Some(budget) = wear.budget_per_day { " of " (budget) }
                    @if let Some(years) = wear.years_left { "; at this pace it lasts " (lasts(years)) }
                }
            }
        }
    }
}

fn lasts(years: f64) -> String {
    if years >= 100.0 { "more than 100 years".to_owned() } else { format!("{years:.0} years") }
}

/// What the sign of a power means, in a word.
fn direction(kind: DeviceKind, watts: Option<f64>) -> &'static str {
    let (plus, minus) = match kind {
        DeviceKind::Battery => ("discharging", "charging"),
        DeviceKind::Meter => ("import", "export"),
        _ => ("", ""),
    };
    match watts {
        Some(w) if w >= flow::STILL_W => plus,
        Some(w) if w <= -flow::STILL_W => minus,
        _ => "",
    }
}

/// Who holds it until when.
fn held(app: &App, by: Option<&ControlledByJson>) -> String {
    by.map_or_else(String::new, |by| {
        let action = by.action.replace('_', " ");
        let until = by.ends_at.as_ref().map(|at| format!(" until {}", format::moment_of(at, &app.zone)));
        format!("{action} by {}{}", by.who(), until.unwrap_or_default())
    })
}

/// The owner's buttons: shown by `app.js`, without which they could do nothing.
fn controls(spec: &DeviceSpec) -> Markup {
    let body = match spec.kind {
        DeviceKind::Battery => html! {
            (amount("power_kw", "Power, kW", "max.", "0.1"))
            (duration(false))
            div.buttons {
                (button("charge", "Charge")) (button("discharge", "Discharge")) (button("idle", "Hold"))
                (button("auto", "Automatic")) (button("release", "Release"))
            }
        },
        DeviceKind::Charger => html! {
            (amount("current_a", "Current, A", "6\u{2013}32", "1"))
            (duration(true))
            div.buttons {
                (button("start", "Start")) (button("stop", "Stop")) (button("set_max_current", "Set current"))
                (button("release", "Release"))
            }
        },
        DeviceKind::Inverter => html! {
            (amount("power_kw", "At most, kW", "0", "0.1"))
            (duration(false))
            div.buttons { (button("set_power_limit", "Limit")) (button("release", "Release")) }
        },
        DeviceKind::Meter | DeviceKind::Vehicle | DeviceKind::Hvac => return html! {},
    };
    html! {
        details.control data-needs-script hidden {
            summary { "Control" }
            form data-command=(spec.id) {
                div.fields { (body) }
                output aria-live="polite" {}
            }
        }
    }
}

fn amount(name: &str, title: &str, hint: &str, step: &str) -> Markup {
    html! {
        label { (title) input type="number" name=(name) min="0" step=(step) placeholder=(hint) inputmode="decimal"; }
    }
}

/// How long. A charger's may be as long as the car stays: then the command names no end.
fn duration(has_car: bool) -> Markup {
    html! {
        label { "For"
            select name="minutes" {
                @if has_car { option value="" selected { "until unplugged" } }
                option value="15" { "15 min" }
                option value="60" selected[!has_car] { "1 hour" }
                option value="120" { "2 hours" }
                option value="240" { "4 hours" }
                option value="480" { "8 hours" }
                option value="1440" { "1 day" }
            }
        }
    }
}

fn button(action: &str, title: &str) -> Markup {
    html! { button type="submit" name="action" value=(action) { (title) } }
}
