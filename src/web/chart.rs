//! `GET /chart.svg`: the last hours as a picture, drawn by `plotters`.

use super::error::Fault;
use super::format;
use super::routes::App;
use crate::model::{Coupling, DeviceKind, Mono, Point, Role, Timestamp, Value};
use crate::store::HistoryQuery;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::tz::TimeZone;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A picture serves all who ask for it within this time.
const FRESH: Duration = Duration::from_secs(30);
/// The most steps of a picture: what a screen can show, and a cheap question to the store.
const STEPS: u32 = 288;
/// A young history is drawn at least this wide.
const SHORTEST: Duration = Duration::from_secs(15 * 60);
const MAX_HOURS: u32 = 7 * 24;
/// Pictures kept: two sizes in two themes, for two lengths.
const KEPT: usize = 8;

/// What a picture is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    hours: u32,
    is_narrow: bool,
    is_dark: bool,
}

/// Pictures made lately.
#[derive(Debug, Default)]
pub(super) struct Charts(Mutex<Vec<(Look, Mono, Arc<str>)>>);

impl Charts {
    fn find(&self, look: Look, now: Mono) -> Option<Arc<str>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(l, made, _)| *l == look && now.since(*made) < FRESH).map(|(_, _, svg)| Arc::clone(svg))
    }

    fn keep(&self, look: Look, now: Mono, svg: &Arc<str>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(l, made, _)| *l != look && now.since(*made) < FRESH);
        kept.truncate(KEPT - 1);
        kept.push((look, now, Arc::clone(svg)));
    }
}

/// kW per step; `None`: nothing known.
type Line = Vec<Option<f64>>;

/// The lines of a picture.
#[derive(Debug, Default)]
struct Lines {
    solar: Option<Line>,
    battery: Option<Line>,
    car: Option<Line>,
    grid: Option<Line>,
    home: Option<Line>,
}

pub(super) async fn chart(State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, Fault> {
    let look = parse(query.as_deref().unwrap_or_default())?;
    let now = app.clock.mono();
    let svg = match app.charts.find(look, now) {
        Some(svg) => svg,
        None => {
            let poll = app.devices.iter().map(|d| d.poll).max().unwrap_or_default();
            let window = Window::new(look.hours, oldest(&app), app.clock.now(), poll);
            let lines = lines(&app, window).await?;
            let zone = app.zone.clone();
            // Drawing takes some ms of pure computing: not on the thread that also polls and controls.
            let drawn = tokio::task::spawn_blocking(move || draw(look, &lines, window, &zone)).await;
            let svg: Arc<str> = match drawn {
                Ok(Ok(svg)) => svg.into(),
                Ok(Err(why)) => return Err(Fault::new(StatusCode::INTERNAL_SERVER_ERROR, why)),
                Err(why) => return Err(Fault::new(StatusCode::INTERNAL_SERVER_ERROR, why.to_string())),
            };
            app.charts.keep(look, now, &svg);
            svg
        }
    };
    let headers = [(header::CONTENT_TYPE, "image/svg+xml"), (header::CACHE_CONTROL, "private, max-age=30")];
    Ok((headers, svg.to_string()).into_response())
}

/// What stands above the picture of the last day: what it shows of a younger history.
pub(super) fn title(app: &App) -> String {
    let now = app.clock.now();
    match oldest(app) {
        None => "From now on".to_owned(),
        Some(oldest) if now.since(oldest) < Duration::from_secs(24 * 3600) => {
            format!("Since {}", format::clock(oldest, &app.zone))
        }
        Some(_) => "Last 24 hours".to_owned(),
    }
}

fn oldest(app: &App) -> Option<Timestamp> {
    app.store.status().borrow().oldest
}

/// The time that a picture shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    from: Timestamp,
    to: Timestamp,
    step: Duration,
}

impl Window {
    /// The last `hours`; of a younger history all, and at least [`SHORTEST`]. A step holds two polls of the slowest
    /// device, or its line would be full of gaps.
    fn new(hours: u32, oldest: Option<Timestamp>, now: Timestamp, poll: Duration) -> Self {
        let full = Duration::from_secs(3600) * hours;
        let from = now.minus(full).max(oldest.unwrap_or(now).min(now));
        let to = now.max(from.plus(SHORTEST));
        let step = (to.since(from) / STEPS).max(poll * 2).max(Duration::from_secs(2));
        // The store's steps begin at multiples of a step.
        let step = Duration::from_secs(step.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX));
        let before = from.ms().rem_euclid(i64::try_from(step.as_millis()).unwrap_or(i64::MAX));
        let from = from.minus(Duration::from_millis(before.unsigned_abs()));
        Self { from, to, step }
    }

    fn steps(self) -> usize {
        usize::try_from(self.to.since(self.from).as_millis().div_ceil(self.step.as_millis().max(1))).unwrap_or(0)
    }

    /// Where a time is, in hours from the left.
    fn hours_to(self, at: Timestamp) -> f64 {
        at.since(self.from).as_secs_f64() / 3600.0
    }
}

fn parse(query: &str) -> Result<Look, Fault> {
    let mut look = Look { hours: 24, is_narrow: false, is_dark: false };
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match (key.as_ref(), value.as_ref()) {
            ("hours", text) => match text.parse() {
                Ok(hours) if (1..=MAX_HOURS).contains(&hours) => look.hours = hours,
                _ => return Err(Fault::bad(format!("hours: `{text}` is not a number from 1 to {MAX_HOURS}"))),
            },
            ("size", "narrow") => look.is_narrow = true,
            ("size", "wide") => look.is_narrow = false,
            ("theme", "dark") => look.is_dark = true,
            ("theme", "light") => look.is_dark = false,
            // A changing number makes browsers fetch the picture anew.
            ("t", _) => {}
            (key, value) => return Err(Fault::bad(format!("{key}={value} is not understood"))),
        }
    }
    Ok(look)
}

async fn lines(app: &App, window: Window) -> Result<Lines, Fault> {
    let Window { from, to, step } = window;
    let steps = window.steps();
    let mut lines = Lines::default();
    // Home = grid + inverters + AC batteries - chargers, where each of them is known.
    let mut home: Line = vec![Some(0.0); steps];
    for spec in &app.devices {
        let is_grid = spec.role == Some(Role::Grid);
        let sign = match spec.kind {
            DeviceKind::Inverter => 1.0,
            DeviceKind::Battery if spec.coupling == Coupling::Dc => 0.0,
            DeviceKind::Battery => 1.0,
            DeviceKind::Charger => -1.0,
            DeviceKind::Meter if is_grid => 1.0,
            _ => continue,
        };
        let points = vec![Point::PowerW];
        let query = HistoryQuery { device: spec.id.clone(), points, from, to, step: Some(step), limit: steps + 2 };
        let mut line: Line = vec![None; steps];
        for row in app.store.history(query).await? {
            let index = usize::try_from(row.ts.since(from).as_millis() / step.as_millis().max(1)).unwrap_or(steps);
            if let (Some(cell), Some(Value::Num(watts))) = (line.get_mut(index), row.value) {
                *cell = Some(watts / 1000.0);
            }
        }
        if sign != 0.0 {
            for (sum, part) in home.iter_mut().zip(&line) {
                *sum = sum.zip(*part).map(|(s, p)| s + sign * p);
            }
        }
        let target = match spec.kind {
            DeviceKind::Inverter => &mut lines.solar,
            DeviceKind::Battery => &mut lines.battery,
            DeviceKind::Charger => &mut lines.car,
            _ => &mut lines.grid,
        };
        match target {
            None => *target = Some(line),
            Some(sums) => {
                for (sum, part) in sums.iter_mut().zip(&line) {
                    *sum = sum.zip(*part).map(|(s, p)| s + p);
                }
            }
        }
    }
    if lines.grid.is_some() {
        lines.home = Some(home);
    }
    Ok(lines)
}

/// Colours of one theme.
struct Theme {
    text: RGBColor,
    mesh: RGBColor,
    zero: RGBColor,
    solar: RGBColor,
    home: RGBColor,
    grid: RGBColor,
    battery: RGBColor,
    car: RGBColor,
}

/// As in `app.css`.
const LIGHT: Theme = Theme {
    text: RGBColor(91, 102, 117),
    mesh: RGBColor(230, 234, 239),
    zero: RGBColor(176, 184, 194),
    solar: RGBColor(240, 160, 32),
    home: RGBColor(14, 140, 190),
    grid: RGBColor(94, 106, 210),
    battery: RGBColor(26, 160, 104),
    car: RGBColor(192, 80, 200),
};
const DARK: Theme = Theme {
    text: RGBColor(154, 166, 182),
    mesh: RGBColor(39, 47, 60),
    zero: RGBColor(85, 96, 112),
    solar: RGBColor(250, 184, 64),
    home: RGBColor(64, 184, 232),
    grid: RGBColor(140, 150, 248),
    battery: RGBColor(64, 200, 140),
    car: RGBColor(216, 120, 224),
};

#[expect(clippy::cast_precision_loss, clippy::as_conversions, reason = "step numbers are below 300")]
fn draw(look: Look, lines: &Lines, window: Window, zone: &TimeZone) -> Result<String, String> {
    let theme = if look.is_dark { DARK } else { LIGHT };
    let (width, height, most_marks, letters) = if look.is_narrow { (400, 290, 4, 16) } else { (800, 400, 8, 17) };
    let hours = window.hours_to(window.to);
    let (low, high) = range(lines);
    let mut svg = String::new();
    {
        let fault = |e: DrawingAreaErrorKind<std::io::Error>| format!("drawing the chart: {e}");
        let root = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin_left(36)
            .margin_right(10)
            .margin_top(10)
            .margin_bottom(28)
            .build_cartesian_2d(0.0..hours, low..high)
            .map_err(fault)?;
        let label = |h, v| ("sans-serif", letters).into_font().color(&theme.text).pos(Pos::new(h, v));

        for kw in ticks(low, high) {
            let colour = if kw.abs() < 1e-9 { theme.zero } else { theme.mesh };
            chart.draw_series(LineSeries::new([(0.0, kw), (hours, kw)], colour)).map_err(fault)?;
            let (x, y) = chart.backend_coord(&(0.0, kw));
            let text = format!("{kw}").replace('-', "\u{2212}");
            root.draw(&Text::new(text, (x - 8, y), label(HPos::Right, VPos::Center))).map_err(fault)?;
        }
        for (at, text) in marks(window, most_marks, zone) {
            let (x, y) = chart.backend_coord(&(at, low));
            root.draw(&Text::new(text, (x, y + 9), label(HPos::Center, VPos::Top))).map_err(fault)?;
            chart.draw_series(LineSeries::new([(at, low), (at, high)], theme.mesh)).map_err(fault)?;
        }
        let x_of = |index: usize| ((index as f64 + 0.5) * window.step.as_secs_f64() / 3600.0).min(hours);
        for (line, colour, is_area) in [
            (&lines.solar, theme.solar, true),
            (&lines.car, theme.car, false),
            (&lines.grid, theme.grid, false),
            (&lines.battery, theme.battery, false),
            (&lines.home, theme.home, false),
        ] {
            for piece in line.iter().flat_map(|l| pieces(l)) {
                let points: Vec<(f64, f64)> = piece.into_iter().map(|(i, kw)| (x_of(i), kw)).collect();
                if is_area {
                    chart.draw_series(AreaSeries::new(points.iter().copied(), 0.0, colour.mix(0.22))).map_err(fault)?;
                }
                chart.draw_series(LineSeries::new(points, colour.stroke_width(2))).map_err(fault)?;
            }
        }
        root.present().map_err(fault)?;
    }
    // Numbers of fixed size look odd in a picture that the page scales: it gets the page's own letters.
    Ok(svg.replace("font-family=\"sans-serif\"", "font-family=\"system-ui,sans-serif\""))
}

/// The runs of known values: a gap stays a gap.
fn pieces(line: &[Option<f64>]) -> Vec<Vec<(usize, f64)>> {
    let mut pieces = vec![Vec::new()];
    for (index, value) in line.iter().enumerate() {
        match (value, pieces.last_mut()) {
            (Some(kw), Some(piece)) => piece.push((index, *kw)),
            (None, Some(piece)) if !piece.is_empty() => pieces.push(Vec::new()),
            _ => {}
        }
    }
    pieces.retain(|p| !p.is_empty());
    pieces
}

/// From the lowest to the highest value, kW, with 0 and at least 1 kW of height.
fn range(lines: &Lines) -> (f64, f64) {
    let all = [&lines.solar, &lines.battery, &lines.car, &lines.grid, &lines.home];
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    for kw in all.into_iter().flatten().flatten().flatten() {
        (low, high) = (low.min(*kw), high.max(*kw));
    }
    let room = (high - low) * 0.06;
    (if low < 0.0 { low - room } else { low }, high + room)
}

/// Four to seven round numbers.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let step =
        [0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0].into_iter().find(|s| (high - low) / s <= 7.0).unwrap_or(100.0);
    let mut ticks = Vec::new();
    let mut kw = (low / step).ceil() * step;
    while kw <= high {
        // Adding 0 turns -0 into 0.
        ticks.push(kw + 0.0);
        kw += step;
    }
    ticks
}

/// Round times of the site's own clock, at most so many: where they are, in hours from the left, and what they are called.
fn marks(window: Window, most: u64, zone: &TimeZone) -> Vec<(f64, String)> {
    const DAY: u64 = 24 * 60;
    let minutes = window.to.since(window.from).as_secs() / 60;
    let every =
        [5, 15, 30, 60, 120, 180, 360, 720].into_iter().find(|every| minutes.div_ceil(*every) <= most).unwrap_or(DAY);
    // Zones are whole quarters of an hour off UTC.
    let stride = Duration::from_secs(60 * every.min(15));
    let stride_ms = i64::try_from(stride.as_millis()).unwrap_or(i64::MAX);
    let mut at = Timestamp::from_ms((window.from.ms() + stride_ms - 1).div_euclid(stride_ms) * stride_ms);
    // The outermost would be cut off.
    let edge = window.hours_to(window.to) / 60.0;
    let mut marks = Vec::new();
    while at <= window.to {
        if let Some(local) = format::zoned(at, zone)
            && (i64::from(local.hour()) * 60 + i64::from(local.minute())).unsigned_abs().is_multiple_of(every)
        {
            let text = local.strftime(if every == DAY { "%a" } else { "%H:%M" }).to_string();
            let offset = window.hours_to(at);
            if offset > edge && offset < window.hours_to(window.to) - edge {
                marks.push((offset, text));
            }
        }
        at = at.plus(stride);
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_stay_gaps() {
        assert_eq!(
            pieces(&[None, Some(1.0), Some(2.0), None, None, Some(3.0)]),
            vec![vec![(1, 1.0), (2, 2.0)], vec![(5, 3.0)]]
        );
        assert_eq!(pieces(&[None, None]), Vec::<Vec<(usize, f64)>>::new());
    }

    #[test]
    fn round_numbers_and_hours() {
        assert_eq!(ticks(-1.1, 3.2), [-1.0, 0.0, 1.0, 2.0, 3.0]);
        // Midnight UTC is 01:00 in Berlin in winter; the first mark at or after it is 03:00.
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let second = Duration::from_secs(1);
        let marks_of =
            |from, now: &str, most| marks(Window::new(24, Some(time(from)), time(now), second), most, &berlin);
        let day = marks_of("2026-01-01T00:00:00Z", "2026-11-21T00:00:00Z", 8);
        assert_eq!(day.first().unwrap(), &(2.0, "03:00".to_owned()));
        assert_eq!(day.len(), 8);
        assert_eq!(marks_of("2026-01-01T00:00:00Z", "2026-11-21T00:00:00Z", 4).len(), 4);
        let young = marks_of("2026-11-20T12:01:00Z", "2026-11-20T12:03:00Z", 4);
        assert_eq!(young.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), ["13:05", "13:10", "13:15"]);
    }

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_young_history_fills_the_picture() {
        let now = time("2026-11-20T12:00:00Z");
        let window = |oldest, poll| Window::new(24, oldest, now, Duration::from_secs(poll));
        let minutes = |w: Window| w.to.since(w.from).as_secs() / 60;
        // Nothing yet, or two minutes: a quarter of an hour, which fills from the left.
        assert_eq!(minutes(window(None, 1)), 15);
        let young = window(Some(time("2026-11-20T11:58:00Z")), 1);
        assert_eq!((young.from, young.to), (time("2026-11-20T11:58:00Z"), time("2026-11-20T12:13:00Z")));
        assert_eq!(young.step, Duration::from_secs(4));
        assert!(young.steps() <= 288);
        // Slow polls leave no gaps.
        assert_eq!(window(Some(time("2026-11-20T11:58:00Z")), 10).step, Duration::from_secs(20));
        let grown = window(Some(time("2026-11-20T06:00:00Z")), 1);
        assert_eq!((grown.from, grown.to), (time("2026-11-20T06:00:00Z"), now));
        // A full day and more: the last 24 hours.
        let full = window(Some(time("2026-10-01T06:00:00Z")), 1);
        assert_eq!((full.from, full.step, full.steps()), (time("2026-11-19T12:00:00Z"), Duration::from_secs(300), 288));
        // A clock that was set back: no window of negative length.
        assert_eq!(minutes(window(Some(time("2026-11-21T00:00:00Z")), 1)), 15);
    }

    #[test]
    fn an_empty_history_draws_too() {
        let svg = draw(
            Look { hours: 24, is_narrow: true, is_dark: true },
            &Lines::default(),
            Window::new(24, None, Timestamp::from_ms(1_800_000_000_000), Duration::ZERO),
            &TimeZone::UTC,
        )
        .unwrap();
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"), "{svg}");
    }

    #[test]
    fn bad_questions() {
        for bad in ["hours=0", "hours=169", "hours=x", "size=big", "colour=red"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
