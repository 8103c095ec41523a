//! Prometheus' text. The registry is built when somebody scrapes: between scrapes nothing is counted twice.

use crate::model::{ControlStatus, DeviceSpec, DeviceState, DeviceStatus, StoreStatus, Timestamp};
use crate::wire::StatusJson;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use serde_json::Value;
use std::sync::atomic::AtomicU64;

type Labels = Vec<(&'static str, String)>;
type Float = Gauge<f64, AtomicU64>;
type Gauges = Family<Labels, Float>;
type Counters = Family<Labels, Counter>;

/// The Linux kernel counts a process's time in 1/100 s towards user space on every architecture that derd runs on.
const TICKS_PER_S: f64 = 100.0;

/// All metrics as text, closed by `# EOF`.
pub(super) fn text(
    status: &StatusJson,
    devices: &[(&DeviceSpec, DeviceStatus)],
    control: &ControlStatus,
    store: &StoreStatus,
) -> String {
    let mut r = Registry::with_prefix("derd");
    r.register("build", "The running program", Info::new(vec![("version", status.gateway.version.clone())]));
    gauge(&mut r, "uptime_seconds", "Seconds since the start", whole(status.gateway.uptime_s));
    let health = match status.health.as_str() {
        "ok" => 0.0,
        "degraded" => 1.0,
        _ => 2.0,
    };
    gauge(&mut r, "health", "0 ok, 1 degraded, 2 failed", health);
    gauge(&mut r, "problems", "Present problems", whole(u64::try_from(status.problems.len()).unwrap_or(u64::MAX)));
    let clock_good = if status.clock.state == "untrusted" { 0.0 } else { 1.0 };
    gauge(&mut r, "clock_trusted", "Is the wall clock good enough for plans", clock_good);
    counter(&mut r, "control_cycles", "Finished control cycles", control.cycles);
    for (name, help, value) in [
        ("site_load_watts", "Load of the site, + = consuming", status.site.load_w),
        ("site_grid_watts", "Grid power of the site, + = import", status.site.grid_w),
    ] {
        if let Some(watts) = value {
            gauge(&mut r, name, help, watts);
        }
    }
    device_metrics(&mut r, status, devices);
    uplink_metrics(&mut r, status);
    gauge(&mut r, "store_bytes", "Size of the store on disk", whole(store.bytes));
    gauge(&mut r, "store_rows", "Samples kept", whole(store.rows));
    gauge(&mut r, "store_written_bytes_today", "Bytes written since midnight UTC", whole(store.written_bytes_today));
    counter(&mut r, "store_dropped_samples", "Samples lost since the start", store.dropped);
    let lost = store.dropped_decisions;
    counter(&mut r, "store_dropped_decisions", "Decisions missing in the journal since the start", lost);
    counter(&mut r, "store_turns", "Finished turns of the store", store.turns);
    process_metrics(&mut r);

    let mut text = String::new();
    if encode(&mut text, &r).is_err() {
        // Writing into a String cannot fail; an empty answer is what a scraper reports as a fault.
        text.clear();
    }
    text
}

fn device_metrics(r: &mut Registry, status: &StatusJson, devices: &[(&DeviceSpec, DeviceStatus)]) {
    let (up, age, points) = (Gauges::default(), Gauges::default(), Gauges::default());
    let (failed, slipped, rejected) = (Counters::default(), Counters::default(), Counters::default());
    for ((spec, own), shown) in devices.iter().zip(&status.devices) {
        let id = || ("device", spec.id.to_string());
        let is_up = if own.state == DeviceState::Online { 1.0 } else { 0.0 };
        up.get_or_create(&vec![id(), ("kind", spec.kind.to_string())]).set(is_up);
        if let Some(ms) = shown.age_ms {
            age.get_or_create(&vec![id()]).set(whole(ms) / 1000.0);
        }
        failed.get_or_create(&vec![id()]).inc_by(own.failed_polls);
        slipped.get_or_create(&vec![id()]).inc_by(own.slipped_polls);
        rejected.get_or_create(&vec![id()]).inc_by(own.rejected_values);
        for (name, value) in shown.points.as_object().into_iter().flatten() {
            let number = match value {
                Value::Number(n) => n.as_f64(),
                Value::Bool(b) => Some(if *b { 1.0 } else { 0.0 }),
                _ => None,
            };
            if let Some(number) = number {
                points.get_or_create(&vec![id(), ("point", name.clone())]).set(number);
            }
        }
    }
    r.register("device_up", "Did the device answer its last poll", up);
    r.register("device_age_seconds", "Age of the device's data", age);
    r.register("point", "A point of a device, unit and sign by its name; absent while null or stale", points);
    r.register("device_failed_polls", "Polls that failed since the start", failed);
    r.register("device_slipped_polls", "Polls left out because they came too late", slipped);
    r.register("device_rejected_values", "Values refused as impossible", rejected);
}

fn uplink_metrics(r: &mut Registry, status: &StatusJson) {
    let (up, backlog, last_ok) = (Gauges::default(), Gauges::default(), Gauges::default());
    for uplink in &status.uplinks {
        let labels = vec![("uplink", uplink.name.clone()), ("kind", uplink.kind.clone())];
        up.get_or_create(&labels).set(if uplink.mode == "offline" { 0.0 } else { 1.0 });
        backlog.get_or_create(&labels).set(whole(uplink.backlog_rows));
        if let Some(at) = uplink.last_ok_at.as_ref().and_then(|t| t.parse::<Timestamp>().ok()) {
            last_ok.get_or_create(&labels).set(whole(u64::try_from(at.ms()).unwrap_or(0)) / 1000.0);
        }
    }
    r.register("uplink_up", "Is the uplink connected", up);
    r.register("uplink_backlog_rows", "Samples not yet acknowledged", backlog);
    r.register("uplink_last_ok_timestamp_seconds", "When the other side last acknowledged something", last_ok);
}

/// Memory and processor time, where the kernel tells them.
fn process_metrics(r: &mut Registry) {
    if let Some(bytes) = std::fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_bytes) {
        gauge(r, "process_resident_memory_bytes", "Resident memory", whole(bytes));
    }
    if let Some(ticks) = std::fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_ticks) {
        let seconds = Counter::<f64, AtomicU64>::default();
        seconds.inc_by(whole(ticks) / TICKS_PER_S);
        r.register("process_cpu_seconds", "Processor time used, user and system", seconds);
    }
}

/// `VmRSS:   12345 kB` of proc_pid_status(5).
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// utime and stime of proc_pid_stat(5): fields 14 and 15; the name in field 2 may hold blanks and brackets.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut after_name = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(after_name.next()?.parse::<u64>().ok()? + after_name.next()?.parse::<u64>().ok()?)
}

fn gauge(r: &mut Registry, name: &str, help: &str, value: f64) {
    let gauge = Float::default();
    gauge.set(value);
    r.register(name, help, gauge);
}

fn counter(r: &mut Registry, name: &str, help: &str, value: u64) {
    let counter: Counter = Counter::default();
    counter.inc_by(value);
    r.register(name, help, counter);
}

/// Exact up to 2^53, which no counter here reaches.
const fn whole(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files() {
        assert_eq!(resident_bytes("Name:\tderd\nVmRSS:\t   20480 kB\nThreads:\t3\n"), Some(20_971_520));
        assert_eq!(resident_bytes("Name:\tderd\n"), None);
        let stat = "42 (der d) x) S 1 42 42 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 3 0 1 1 1";
        assert_eq!(cpu_ticks(stat), Some(200));
    }
}
