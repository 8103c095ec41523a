//! The picture of where power flows: an SVG in the page, kept up to date by `app.js`.

use super::format;
use crate::wire::StatusJson;
use maud::{Markup, PreEscaped, html};
use serde_json::Value;

/// Below this, W, a line stands still: meters and inverters are never quite at zero.
pub(super) const STILL_W: f64 = 20.0;

/// One corner of the picture.
struct Node {
    key: &'static str,
    label: &'static str,
    /// Where, in the picture's own units.
    at: (i32, i32),
    /// The line to the house, from this corner.
    line: &'static str,
    /// Does a positive power run towards the house.
    towards_house: bool,
    icon: &'static str,
}

/// Icons are drawn around 0,0 in a box of about 28 by 28.
const SUN: &str = r#"<circle r="6"/><path d="M0-12v3M0 9v3M-12 0h3M9 0h3M-8.5-8.5l2.1 2.1M6.4 6.4l2.1 2.1M-8.5 8.5l2.1-2.1M6.4-6.4l2.1-2.1"/>"#;
const PYLON: &str = r#"<path d="M-3-12h6l5 24M-3-12l-5 24M-10-5h20M-9 1h18M-5.5 1l11.5 6M5.5 1l-11.5 6"/>"#;
const HOUSE: &str = r#"<path d="M-12 0 0-11 12 0M-8.5-2.5V11h17V-2.5M-2.5 11V3.5h5V11"/>"#;
const CAR: &str = r#"<path d="M-12 6v-5l3-1.5 3-6.5h11l4 6.5 3 1.5v5h-3M-12 6h3M-4 6h8"/><circle cx="-6.5" cy="6.5" r="2.6"/><circle cx="6.5" cy="6.5" r="2.6"/>"#;
const BATTERY: &str = r#"<rect x="-7.5" y="-9" width="15" height="21" rx="3"/><path d="M-3-12h6M1-4.5-3 2.5h6l-4 6"/>"#;

const SOLAR_NODE: Node =
    Node { key: "solar", label: "Solar", at: (230, 58), line: "M230 112V156", towards_house: true, icon: SUN };
const GRID_NODE: Node =
    Node { key: "grid", label: "Grid", at: (60, 210), line: "M114 210H176", towards_house: true, icon: PYLON };
const CAR_NODE: Node =
    Node { key: "car", label: "Car", at: (400, 210), line: "M346 210H284", towards_house: false, icon: CAR };
const BATTERY_NODE: Node =
    Node { key: "battery", label: "Battery", at: (230, 362), line: "M230 308V264", towards_house: true, icon: BATTERY };

/// The sums that the picture shows, W; `None`: there is no such device, or a part of the sum is null.
pub(super) fn sum(status: &StatusJson, kind: &str) -> Option<f64> {
    let mut parts = status.devices.iter().filter(|d| d.kind == kind).map(|d| number(&d.points, "power_w")).peekable();
    parts.peek()?;
    parts.sum()
}

/// The mean state of charge of all batteries, %.
fn charge(status: &StatusJson) -> Option<f64> {
    let all: Vec<f64> =
        status.devices.iter().filter(|d| d.kind == "battery").filter_map(|d| number(&d.points, "soc_pct")).collect();
    let count = u32::try_from(all.len()).ok().filter(|n| *n > 0)?;
    Some(all.iter().sum::<f64>() / f64::from(count))
}

fn number(points: &Value, name: &str) -> Option<f64> {
    points.get(name).and_then(Value::as_f64)
}

/// The whole picture.
pub(super) fn picture(status: &StatusJson) -> Markup {
    let has = |kind: &str| status.devices.iter().any(|d| d.kind == kind);
    let nodes = [
        (has("inverter"), SOLAR_NODE, sum(status, "inverter")),
        (has("meter"), GRID_NODE, status.site.grid_w),
        (has("charger"), CAR_NODE, sum(status, "charger")),
        (has("battery"), BATTERY_NODE, sum(status, "battery")),
    ];
    // Without a battery or a sun the picture is not as high.
    let top = if has("inverter") { 0 } else { 150 };
    let bottom = if has("battery") { 420 } else { 270 };
    html! {
        svg #flow .flow viewBox=(format!("0 {top} 460 {}", bottom - top)) role="img" aria-label="Where power flows now" {
            @for (is_there, node, watts) in &nodes {
                @if *is_there { (line(node, *watts)) }
            }
            @for (is_there, node, watts) in &nodes {
                @if *is_there { (corner(node, *watts, if node.key == "battery" { charge(status) } else { None })) }
            }
            (house(status.site.load_w))
        }
    }
}

fn line(node: &Node, watts: Option<f64>) -> Markup {
    let flowing = watts.unwrap_or(0.0);
    let motion = if flowing.abs() < STILL_W {
        ""
    } else if (flowing > 0.0) == node.towards_house {
        " on"
    } else {
        " on rev"
    };
    html! {
        path .wire d=(node.line) {}
        path class=(format!("stream c-{}{motion}", node.key)) id=(format!("flow-{}", node.key)) d=(node.line)
            data-towards=(if node.towards_house { "1" } else { "-1" }) stroke-width=(format!("{:.1}", thickness(flowing))) {}
    }
}

/// 4 units, and one more for each kW, up to 12.
fn thickness(watts: f64) -> f64 {
    (4.0 + watts.abs() / 1000.0).min(12.0)
}

fn corner(node: &Node, watts: Option<f64>, soc: Option<f64>) -> Markup {
    let (x, y) = node.at;
    html! {
        g class=(format!("node c-{}", node.key)) transform=(format!("translate({x} {y})")) {
            circle .disc r="53" {}
            @if node.key == "battery" {
                // A ring of 100 units: as much of it is drawn as there is charge, from the top on.
                circle #flow-soc .ring r="53" pathLength="100" transform="rotate(-90)"
                    stroke-dasharray=(format!("{:.1} 100", soc.unwrap_or(0.0))) {}
            } @else {
                circle .ring r="53" {}
            }
            g .icon transform="translate(0 -23)" { (PreEscaped(node.icon)) }
            text .value y="12" id=(format!("val-{}", node.key)) { (format::power(watts.map(f64::abs))) }
            text .label y="32" id=(format!("lab-{}", node.key)) { (label(node, watts, soc)) }
        }
    }
}

/// The name of the corner, with the direction in words.
fn label(node: &Node, watts: Option<f64>, soc: Option<f64>) -> String {
    let w = watts.unwrap_or(0.0);
    match node.key {
        "grid" if w >= STILL_W => "import".to_owned(),
        "grid" if w <= -STILL_W => "export".to_owned(),
        "battery" => soc.map_or_else(|| node.label.to_owned(), |s| format!("{s:.0} %")),
        _ => node.label.to_owned(),
    }
}

fn house(load: Option<f64>) -> Markup {
    html! {
        g .node.c-house transform="translate(230 210)" {
            circle .disc r="53" {}
            circle .ring r="53" {}
            g .icon transform="translate(0 -23)" { (PreEscaped(HOUSE)) }
            text .value y="12" id="val-house" { (format::power(load)) }
            text .label y="32" { "Home" }
        }
    }
}
